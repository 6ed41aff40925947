"""Our part of an echo alone, without sockets: from bytes read, through a handler, to bytes written.

A message is passed to the protocol of a connection as asyncio's transport does it, and the transport counts
what is written. So there are no system calls in these figures, and they are steadier than those of
``benchmarks/echo.py``. A called handler answers at once; for a coroutine, the event loop takes a turn.
"""

import json
import subprocess
import sys
from collections.abc import Sequence

from rich.table import Table

from benchmarks.common import HERE, OURS, Report, console, interleaved, options

UNIT = f"µs of CPU per message, without sockets; {OURS} with a called handler"
PEERS = ["called", "coroutine", "websockets", "aiohttp"]
SHOWN = {"called": OURS, "coroutine": f"{OURS}, coroutine"}

# (case, bytes, messages, target of called / coroutine)
CASES = [
    ("32 B", 32, 20_000, 0.6),
    ("1 KiB", 1024, 10_000, 0.6),
    ("64 KiB", 65536, 1000, None),
    ("1 MiB", 1 << 20, 60, None),
]


def run(command: Sequence[str], peer: str, size: int, count: int) -> dict[str, float]:
    """Returns what the worker measured in a process of its own; ``command`` starts Python."""
    worker = [*command, "-m", "benchmarks.servers.path_worker", peer, str(size), str(count)]
    done = subprocess.run(worker, check=True, capture_output=True, text=True, cwd=HERE.parent, timeout=300)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def main() -> None:
    """Prints µs and calls per message."""
    args = options(__doc__)
    report = Report("path", UNIT, quick=args.quick)
    calls = Table(title="calls per message", title_justify="left")
    peers = [peer for peer in PEERS if peer in SHOWN or args.only is None or peer in args.only]
    for column in ("case", *(SHOWN.get(peer, peer) for peer in peers)):
        calls.add_column(column, justify="left" if column == "case" else "right")
    for case, size, messages, target in CASES:
        counted: dict[str, float] = {}

        def measure(
            peer: str,
            counted: dict[str, float] = counted,
            size: int = size,
            count: int = messages // 4 if args.quick else messages,
        ) -> float:
            figures = run([sys.executable], peer, size, count)
            counted[peer] = figures["calls"]
            return figures["ns"] / 1000

        figures = interleaved(peers, 3 if args.quick else 9, measure, case)
        shown = {SHOWN.get(peer, peer): figure for peer, figure in figures.items()}
        report.add(case, shown, {SHOWN["coroutine"]: target} if target else None)
        calls.add_row(case, *(f"{counted[peer]:.0f}" for peer in peers))
    report.finish()
    console.print(calls)


if __name__ == "__main__":
    main()
