"""Where our Socket.IO server differs from Node's, and why: `socketio_differences.toml`, and the page of it.

Each difference lists the steps of the transcripts in which it shows: [scenario, step, over, Node's value,
ours]. The values are JSON, "—" for a step that is missing. ``over`` says in which runs, of `MODES`: "all" is
those of the official client, "python" those of python-socketio's.

`python -m tests.socketio_differences --write` writes the page.
"""

import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).parent
PAGE = _HERE.parent / "docs" / "socketio-differences.md"

MODES = {
    "all": ["polling", "websocket", "upgrade"],
    "raw": ["raw"],
    "python": ["python-polling", "python-websocket", "python-upgrade"],
}
MISSING = "—"
Difference = tuple[str, str]
"""What Node's server and ours do, as JSON."""

_INTRODUCTION = """\
# Where our Socket.IO server differs from Node's

`tests/test_socketio_repertoire.py` takes the official client through all that it can do, over polling, over
WebSocket and with the upgrade from one to the other, with Node's server and with ours in one run. It sends
raw requests and packets to both. And it takes the client of python-socketio through what that can do. What
the clients and the servers see must be the same, except for what this page lists. A difference that is not
listed fails the test, and so does one that is listed and does not show.
"""


@dataclass(frozen=True)
class Row:
    """A difference, in words."""

    what: str
    node: str
    ours: str
    why: str
    steps: list[list[str]]


def rows() -> list[Row]:
    table = tomllib.loads((_HERE / "socketio_differences.toml").read_text())
    return [Row(**row) for row in table["difference"]]


def expected(mode: str) -> dict[tuple[str, str], Difference]:
    """Returns the steps of a run that must differ, as (scenario, step), and how."""
    found: dict[tuple[str, str], Difference] = {}
    for row in rows():
        for scenario, step, over, node, ours in row.steps:
            if mode in MODES.get(over, over.split()):
                assert (scenario, step) not in found, f"listed twice: {scenario}, {step}"
                found[scenario, step] = (node, ours)
    return found


def page() -> str:
    lines = [_INTRODUCTION, "| what | Node's server | ours | why |", "|---|---|---|---|"]
    for row in rows():
        cells = (row.what, row.node, row.ours, row.why)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    PAGE.write_text(page())
