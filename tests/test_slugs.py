"""The table of slugs: it matches the code, and the page matches the table."""

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from conformance import slugs
from conformance.__main__ import main
from conformance.slugs import Row, Use
from tests.server_helpers import ROOT

ROWS = slugs.read_rows()
USES = slugs.all_uses()


def test_every_slug_has_a_row_and_every_row_a_slug() -> None:
    assert slugs.problems(ROWS, USES) == []


def test_the_page_is_up_to_date() -> None:
    """``python -m conformance slugs --write`` writes it."""
    assert (ROOT / "docs" / "slugs.md").read_text() == slugs.page(ROWS, USES)


def test_no_slug_is_missed() -> None:
    found = {use.slug for use in USES}
    for _, folder, _ in slugs.PARTS:
        for path in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.keyword(arg="slug", value=ast.Constant(value=slug)):
                        assert slug in found
    # These are passed on by functions.
    assert {"bad-upgrade", "unsupported-version", "bad-accept", "bad-subprotocol"} <= found
    # These are set by constructors.
    by_constructors = {("limit", "LimitExceededError"), ("rejected", "HandshakeRejectedError")}
    assert by_constructors <= {(use.slug, use.raised_as) for use in USES}


@pytest.mark.parametrize(
    ("slug", "raised_as", "answers"),
    [
        ("bad-opcode", "RemoteProtocolError", {1002}),
        ("bad-utf8", "RemoteProtocolError", {1007}),
        ("bad-connection", "HandshakeError", {426, 0}),
        ("bad-key", "HandshakeError", {400}),
        ("bad-version", "HandshakeError", {400, 505, None, 0}),
        ("bad-text", "LocalProtocolError", {None}),
    ],
)
def test_codes_and_statuses_are_read_from_the_code(
    slug: str, raised_as: str, answers: set[int | None]
) -> None:
    assert {use.answer for use in USES if (use.slug, use.raised_as) == (slug, raised_as)} == answers


def test_each_kind_of_problem_is_found() -> None:
    row, use = Row("s", "HandshakeError", "…"), Use("s", "HandshakeError", 400, "x.py:1")
    assert slugs.problems([row], [use]) == []
    assert slugs.problems([], [use]) == ["x.py:1: s as HandshakeError has no row"]
    assert slugs.problems([row], []) == ["s as HandshakeError: not in the code"]
    assert slugs.problems([row, row], [use]) == ["s as HandshakeError: 2 rows"]
    assert slugs.problems([replace(row, answer="400")], [use]) == ["s as HandshakeError: needless answer"]
    assert slugs.problems([row], [replace(use, answer=None)]) == ["s as HandshakeError: needs an answer"]


def test_the_page_is_written(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    written = []
    monkeypatch.setattr(Path, "write_text", lambda path, text: written.append((path.name, text)))
    assert main(["slugs", "--write"]) == 0
    assert written == [("slugs.md", slugs.page(ROWS, USES))]
    assert "written: docs/slugs.md" in capsys.readouterr().out
    assert main(["slugs"]) == 0
    assert len(written) == 1
    assert "| `bad-utf8` | `RemoteProtocolError` |" in capsys.readouterr().out
