"""The map of clauses, and how the suite's results are read. `make conformance` runs the suite."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from conformance import clauses, results, runner
from conformance.__main__ import main
from conformance.results import Result
from tests.server_helpers import ROOT

CLAUSES = clauses.read_clauses()


def test_the_map_has_no_gaps_and_only_existing_names() -> None:
    assert clauses.problems(CLAUSES) == []


def test_the_page_is_up_to_date() -> None:
    """`python -m conformance clauses --markdown` writes it."""
    assert (ROOT / "docs" / "rfc-clauses.md").read_text() == clauses.markdown(CLAUSES)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"code": ("rfc6455.frames:nothing",)}, "no rfc6455.frames:nothing in the code"),
        ({"code": ("rfc6455.nothing:x",)}, "no rfc6455.nothing:x in the code"),
        ({"code": ("rfc6455.frames",)}, "no rfc6455.frames in the code"),
        ({"code": ()}, "needs code and tests"),
        ({"tests": ()}, "needs code and tests"),
        ({"left": "also left"}, "needs code and tests"),
        ({"tests": ("test_frames:test_nothing",)}, "no test test_frames:test_nothing"),
        ({"tests": ("test_nothing:test_x",)}, "no test test_nothing:test_x"),
        ({"level": "OUGHT"}, "unknown level"),
        ({"role": "proxy"}, "unknown level or role"),
        ({"section": "4.9"}, "§4.9: no such section"),
    ],
)
def test_each_kind_of_gap_is_found(change: dict[str, object], said: str) -> None:
    index = next(i for i, clause in enumerate(CLAUSES) if clause.code and clause.section == "5.2")
    broken = [*CLAUSES]
    broken[index] = replace(broken[index], **change)  # type: ignore[arg-type]
    assert any(said in problem for problem in clauses.problems(broken))


def test_a_missed_section_is_found() -> None:
    kept = [clause for clause in CLAUSES if clause.section != "5.8"]
    assert clauses.problems(kept) == ["RFC 6455 §5.8: no clause"]


def test_the_table_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clauses"]) == 0
    out = capsys.readouterr().out
    assert "RFC 6455: " in out
    assert "RFC 7692: " in out


def expected_results() -> dict[str, Result]:
    exceptions = json.loads(results.EXPECTED.read_text())["roles"]["server"]
    found = {case: Result(wanted, wanted) for case, wanted in exceptions.items()}
    return found | {"1.1.1": Result("OK", "OK"), "9.1.10": Result("OK", "OK")}


def test_expected_results() -> None:
    assert results.differences("server", expected_results(), full=False) == ([], [])


@pytest.mark.parametrize(
    ("case", "result", "kind"),
    [
        ("1.1.1", Result("FAILED", "OK"), "worse"),
        ("1.1.1", Result("OK", "FAILED"), "worse"),
        ("1.1.1", Result("NON-STRICT", "OK"), "worse"),
        ("1.1.1", Result("UNIMPLEMENTED", "OK"), "worse"),
        ("1.1.1", Result("INFORMATIONAL", "OK"), "worse"),
        ("1.1.1", Result("OK", "WRONG CODE"), "worse"),
        ("1.1.1", Result("OK", "UNCLEAN"), "worse"),
        ("7.1.6", Result("FAILED", "INFORMATIONAL"), "worse"),
        ("7.1.6", Result("OK", "OK"), "better"),
    ],
)
def test_unexpected_results(case: str, result: Result, kind: str) -> None:
    worse, better = results.differences("server", expected_results() | {case: result}, full=False)
    (line,) = worse if kind == "worse" else better
    assert line.startswith(f"server {case}: ")
    assert not (better if kind == "worse" else worse)


def test_missing_cases_are_worse() -> None:
    assert results.differences("server", expected_results(), full=True)[0] == [
        "server: 5 cases were run, expected 517"
    ]
    assert results.differences("client", {}, full=False)[0] == ["client: no case was run"]


def test_reading_a_report(tmp_path: Path) -> None:
    assert results.read_results(tmp_path) == {}
    report = {"rfc6455": {"9.1.10": {"behavior": "OK", "behaviorClose": "UNCLEAN", "duration": 1}}}
    (tmp_path / "index.json").write_text(json.dumps(report))
    assert results.read_results(tmp_path) == {"9.1.10": Result("OK", "UNCLEAN")}
    assert results.table("server", results.read_results(tmp_path)).row_count == 2


def test_cases_are_ordered_by_number() -> None:
    assert sorted(["9.1.10", "9.1.9", "10.1.1"], key=results.case_key) == ["9.1.9", "9.1.10", "10.1.1"]


def test_the_sample_covers_each_group() -> None:
    groups = {pattern.split(".")[0] for pattern in runner.QUICK}
    assert groups == {"1", "2", "3", "4", "5", "6", "7", "9", "10", "12", "13"}
    assert runner.COUNTS[runner.ALL] == json.loads(results.EXPECTED.read_text())["cases"]


@pytest.mark.parametrize("arguments", [[], ["run", "--role", "proxy"], ["other"]])
def test_wrong_arguments_are_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_without_numpy_it_is_hidden_before_the_server_imports_it() -> None:
    """The server imports numpy when it gets ready, after the program has hidden it."""
    program = runner._OUR_SERVER.format(runner._HIDE_NUMPY).replace("sys.exit(main())", "")
    check = (
        "from rfc6455.masking import _numpy; assert 'numpy.linalg' not in sys.modules and _numpy() is None"
    )
    subprocess.run([sys.executable, "-c", f"{program}\n{check}"], check=True)
