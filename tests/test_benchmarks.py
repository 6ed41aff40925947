"""How the benchmarks summarise, store and show their rounds. `make bench` runs the benchmarks."""

import json
from pathlib import Path

import pytest

from benchmarks import common
from benchmarks.common import Figure, Report, interleaved


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for results. Versions of the peers are not read, because the peers are not installed."""
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setattr(common, "versions", dict)
    return tmp_path


def test_a_figure_is_the_median_with_its_quartiles() -> None:
    assert Figure.of([5.0, 1.0, 4.0, 2.0, 3.0]) == Figure(3.0, (2.0, 4.0), 5)
    assert Figure.of([2.0, 1.0]) == Figure(1.5, (1.25, 1.75), 2)


def test_the_quartiles_of_one_round_are_that_round() -> None:
    assert Figure.of([7.0]) == Figure(7.0, (7.0, 7.0), 1)


@pytest.mark.parametrize(
    ("figure", "shown"),
    [
        (Figure(2.0, (1.9, 2.02), 9), "2 ±5%"),
        (Figure(2.0, (1.99, 2.2), 9), "2 ±10%"),
        (Figure(12345.6, (12345.6, 12345.6), 9), "12,346 ±0%"),
        (Figure(7.339, (7.339, 7.339), 1), "7.34"),
    ],
)
def test_a_figure_shows_the_farther_quartile(figure: Figure, shown: str) -> None:
    assert str(figure) == shown


def test_every_round_measures_all_names() -> None:
    measured: list[str] = []

    def measure(name: str) -> float:
        measured.append(name)
        return float(len(measured))

    figures = interleaved(["ours", "theirs"], 3, measure, "")
    assert measured == ["ours", "theirs"] * 3
    assert figures == {"ours": Figure.of([1.0, 3.0, 5.0]), "theirs": Figure.of([2.0, 4.0, 6.0])}


def test_a_report_stores_the_spread(results: Path) -> None:
    report = Report("echo", "µs", quick=True)
    report.add("32 B", {"rfc6455": Figure.of([1.0, 2.0, 3.0]), "peer": Figure.of([4.0])}, {"peer": 0.6})
    report.finish()
    stored = json.loads((results / "echo-quick.json").read_text())
    assert stored["unit"] == "µs"
    assert stored["cases"] == {
        "32 B": {
            "rfc6455": {"median": 2.0, "quartiles": [1.5, 2.5], "rounds": 3},
            "peer": {"median": 4.0, "quartiles": [4.0, 4.0], "rounds": 1},
        }
    }
    assert stored["targets"] == {"32 B": {"peer": 0.6}}


def test_a_report_compares_medians(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("echo", "µs", quick=True)
    report.add("32 B", {"rfc6455": Figure.of([1.0, 2.0, 6.0]), "peer": Figure.of([3.0, 4.0, 9.0])})
    report.finish()
    assert "4 ±62% (0.50)" in capsys.readouterr().out
