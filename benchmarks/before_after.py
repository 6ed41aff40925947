"""Compares two versions of this project, to see what a change costs.

``python -m benchmarks.before_after --before REV`` checks out REV into a temporary folder and measures it and
the working tree alternately: CPU time of the codec, echo and broadcast; memory of an idle connection.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from rich.progress import Progress
from rich.table import Table

from benchmarks.broadcast import Room
from benchmarks.common import HERE, Figure, ServerProcess, console, interleaved
from benchmarks.handshake import connect_and_close
from benchmarks.load import EchoLoad
from benchmarks.memory import idle_memory, plain

VERSIONS: Final = ("before", "after")

# (case, connections, messages in flight, bytes, messages)
ECHOES: Final = [
    ("echo 10 × 64, 32 B", 10, 64, 32, 60_000),
    ("echo 10 × 64, 1 KiB", 10, 64, 1024, 40_000),
    ("echo 100 × 1, 32 B", 100, 1, 32, 20_000),
    ("echo 10 × 1, 64 KiB", 10, 1, 65536, 3_000),
]
# (case, members, messages in flight, deliveries, named events)
BROADCASTS: Final = [
    ("broadcast 100 × 8", 100, 8, 60_000, False),
    ("broadcast 1000 × 8", 1000, 8, 80_000, False),
    ("broadcast 100 × 1", 100, 1, 20_000, False),
    ("events 100 × 8", 100, 8, 60_000, True),
]


def command(tree: Path, *arguments: str) -> list[str]:
    """Returns a command that runs Python with the packages of ``tree``."""
    paths = os.pathsep.join([str(tree), str(tree / "server")])
    return ["env", f"PYTHONPATH={paths}", sys.executable, *arguments]


@contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """Yields a temporary folder with that revision, as a Git worktree."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(HERE.parent), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), revision], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


CODEC_CASES: Final = [
    f"{kind} {size} {masking}"
    for kind in ("parse", "serialise")
    for size in (32, 1 << 10, 1 << 16)
    for masking in (("numpy", "standard") if kind == "parse" else ("standard",))
]


def measure_codec(trees: dict[str, Path], rounds: int) -> Iterator[tuple[str, dict[str, Figure]]]:
    """Yields each case with µs per message.

    Each round starts new processes, because the placement of objects in memory differs between processes and
    changes the figures by some 5 %.
    """
    samples: dict[str, dict[str, list[float]]] = {
        case: {version: [] for version in VERSIONS} for case in CODEC_CASES
    }
    with Progress(console=console, transient=True) as progress:
        for _ in progress.track(range(2 * rounds), description="codec"):
            for version, tree in trees.items():
                answers = subprocess.run(
                    command(tree, str(HERE / "servers" / "codec_worker.py")),
                    input="".join(f"{case}\n" for case in CODEC_CASES),
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                ).stdout.split()
                for case, answer in zip(CODEC_CASES, answers, strict=True):
                    samples[case][version].append(float(answer) * 1e6)
    for case, by_version in samples.items():
        yield case, {version: Figure.of(values) for version, values in by_version.items()}


def measure_servers(
    trees: dict[str, Path],
    rounds: int,
    prepare: Callable[[ServerProcess], tuple[Callable[[int], int], Callable[[], None]]],
    count: int,
    case: str,
) -> dict[str, Figure]:
    """Returns µs of server CPU per unit of work.

    ``prepare`` returns a function that does a number of units, and one that cleans up.
    """
    with ExitStack() as stack:
        running: dict[str, ServerProcess] = {}
        works: dict[str, Callable[[int], int]] = {}
        for name, tree in trees.items():
            running[name] = ServerProcess(command(tree, str(tree / "benchmarks" / "servers" / "ours.py")))
            stack.callback(running[name].stop)
            works[name], close = prepare(running[name])
            stack.callback(close)

        def measure(name: str) -> float:
            works[name](count // 10)
            begin = running[name].cpu()
            done = works[name](count)
            return (running[name].cpu() - begin) / done * 1e6

        return interleaved(VERSIONS, rounds, measure, case)


def measure_echoes(trees: dict[str, Path], rounds: int) -> Iterator[tuple[str, dict[str, Figure]]]:
    """Yields each case with µs per message."""
    for case, connections, in_flight, size, messages in ECHOES:

        def prepare(
            server: ServerProcess,
            connections: int = connections,
            in_flight: int = in_flight,
            size: int = size,
        ) -> tuple[Callable[[int], int], Callable[[], None]]:
            load = EchoLoad(server.port, connections, in_flight, size)
            return load.run, load.close

        yield case, measure_servers(trees, rounds, prepare, messages, case)


def measure_broadcasts(trees: dict[str, Path], rounds: int) -> Iterator[tuple[str, dict[str, Figure]]]:
    """Yields each case with µs per delivery."""
    for case, members, in_flight, deliveries, named in BROADCASTS:

        def prepare(
            server: ServerProcess, members: int = members, in_flight: int = in_flight, named: bool = named
        ) -> tuple[Callable[[int], int], Callable[[], None]]:
            room = Room(server, members, named_events=named)
            return lambda count: room.run(count, in_flight), room.close

        yield case, measure_servers(trees, rounds, prepare, deliveries, case)


def measure_handshakes(trees: dict[str, Path], rounds: int) -> Iterator[tuple[str, dict[str, Figure]]]:
    """Yields µs for opening and closing a connection."""

    def prepare(server: ServerProcess) -> tuple[Callable[[int], int], Callable[[], None]]:
        def work(count: int) -> int:
            connect_and_close(server.port, count)
            return count

        return work, lambda: None

    case = "open and close"
    yield case, measure_servers(trees, rounds, prepare, 1000, case)


def measure_memory(trees: dict[str, Path], rounds: int) -> Iterator[tuple[str, dict[str, Figure]]]:
    """Yields the one case, with KiB per idle connection."""

    def measure(name: str) -> float:
        server = ServerProcess(command(trees[name], str(trees[name] / "benchmarks" / "servers" / "ours.py")))
        try:
            return idle_memory(server, 2000, plain)
        finally:
            server.stop()

    case = "idle connection, KiB"
    yield case, interleaved(VERSIONS, max(3, rounds // 3), measure, case)


def main() -> None:
    """Prints the figures before and after, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", default="HEAD", metavar="REV", help="the revision to compare with (HEAD)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds for each server case (9)")
    parser.add_argument("--only", nargs="+", choices=["codec", "echo", "broadcast", "handshake", "memory"])
    args = parser.parse_args()
    parts = {
        "codec": measure_codec,
        "echo": measure_echoes,
        "broadcast": measure_broadcasts,
        "handshake": measure_handshakes,
        "memory": measure_memory,
    }
    table = Table(title=f"the working tree compared with {args.before}: µs of CPU", title_justify="left")
    for column in ("case", *VERSIONS, "ratio"):
        table.add_column(column, justify="left" if column == "case" else "right")
    ratios = []
    with checked_out(args.before) as before:
        trees = {"before": before, "after": HERE.parent}
        for name, part in parts.items():
            if args.only is None or name in args.only:
                for case, figures in part(trees, args.rounds):
                    ratio = figures["after"].median / figures["before"].median
                    ratios.append(ratio)
                    table.add_row(case, *(str(figures[version]) for version in VERSIONS), f"{ratio:.3f}")
    console.print(table)
    console.print(f"median of the ratios: {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
