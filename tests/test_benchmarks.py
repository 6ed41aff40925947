"""How the benchmarks summarise, store and show their rounds. `make bench` runs the benchmarks."""

import json
import socket
from pathlib import Path

import pytest

from benchmarks import common
from benchmarks.common import Figure, Report, interleaved
from benchmarks.socketio import Returning, measure, tiny_events
from rfc6455 import Opcode, encode_frame
from rfc6455_server.socketio.engine_packets import decode_payload


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


def client_of_a_storm() -> Returning:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = Returning(server.getsockname()[1], {"pid": "p"})
        client.connection.close()
    return client


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_client_of_a_storm_counts_what_it_sees_however_it_arrives(size: int) -> None:
    client = client_of_a_storm()
    wire = b'HTTP/1.1 101 x\r\n\r\n\x81\x1b0{"sid":"s","maxPayload":1}\x81\x1840{"sid":"i","pid":"abc"}'
    for number in (1, 2, 12, 12):
        wire += b"\x81\x1a" + f'42["news",{number},"","tag{number}"]'.encode()
    answers = b"".join(client.receive(wire[at : at + size]) for at in range(0, len(wire), size))
    assert answers == encode_frame(Opcode.TEXT, b'40{"pid": "p"}', mask_key=b"abcd")
    assert client.private_id == b"abc"
    assert client.seen == [1, 2, 12, 12]


def test_a_body_of_tiny_events_is_one_that_the_server_accepts() -> None:
    body = tiny_events(1_000_000)
    assert len(body) <= 1_000_000
    assert body.count(b"\x1e") == 65_000 - 1
    assert tiny_events(30, acknowledged=True) == b'421["x"]\x1e421["x"]\x1e421["x"]'
    assert {packet.data for packet in decode_payload(body.decode())} == {'2["x",1]'}


def test_the_results_of_cases_are_medians_by_tree() -> None:
    values = iter([1.0, 10.0, 3.0, 30.0])

    def case(tree: Path, *, quick: bool) -> dict[str, float]:
        return {"s": next(values)}

    figures = measure(case, {"before": Path(), "rfc6455": Path()}, 2, quick=True)
    assert figures["s"]["before"].median == 2.0
    assert figures["s"]["rfc6455"].median == 20.0
