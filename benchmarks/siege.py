"""A siege: honest and hostile clients at once, for half an hour, on a server with small limits.

Checks that no honest client is disturbed, that the server's memory stays flat, and that nothing is left when
all have gone: no task, no descriptor, no byte that waits. ``--python`` names another Python that runs the
server.
"""

import argparse
import asyncio
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final

from rich.progress import Progress
from rich.table import Table

from benchmarks.common import RESULTS, ServerProcess, console, machine
from benchmarks.siege_clients import ECHOES, HONEST, HONEST_CLIENTS, HOSTILE, HOSTILE_CLIENTS, Disturbed, tcp

SERVER: Final = str(Path(__file__).parent / "servers" / "siege_server.py")
ROOT: Final = Path(__file__).parent.parent
EACH_HONEST: Final = 4
"""Honest clients of each kind at a time."""
BESIEGERS: Final = 120
"""Hostile clients at a time."""
SAMPLE_INTERVAL: Final = 2.0
SETTLE_TIME: Final = 30.0
"""Seconds until the server has let go of the last clients: above its time-outs, and what recovery keeps."""
GROWTH: Final = 0.05
"""How much more memory the last third may use than the one before it."""
LEFT: Final = {"connections": 0, "queued": 0, "tasks": 0, "descriptors": 0}
"""What may be left in the end, above what there was in the beginning."""


class Siege:
    """Clients of both kinds on a server; counts what they do and what goes wrong."""

    def __init__(self, server: ServerProcess) -> None:
        self.served: Counter[str] = Counter()
        self.attacks: Counter[str] = Counter()
        self.disturbed: Counter[str] = Counter()
        self.memory: list[int] = []
        self._server = server
        self._over = False

    async def run(self, seconds: float, advance: Callable[[float], None]) -> None:
        """Lets both kinds come for some seconds, and waits until the last honest ones are served."""
        honest = [
            asyncio.create_task(self._serve_itself(client))
            for client in HONEST_CLIENTS
            for _ in range(EACH_HONEST)
        ]
        besiegers = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.siege", "--besiege", str(self._server.port)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.sleep(SAMPLE_INTERVAL)
            self.memory.append(self._server.memory())
            advance(SAMPLE_INTERVAL)
        self._over = True
        await asyncio.gather(*honest)
        counts, _ = await besiegers.communicate(b"")  # the end of its input
        self.attacks.update(json.loads(counts))

    async def _serve_itself(self, client: Any) -> None:
        while not self._over:
            try:
                await client(self._server.port, lambda what: self.served.update([what]))
            except Disturbed as error:
                self.disturbed[str(error)] += 1
                await asyncio.sleep(1.0)  # as a person would, and not to be refused for its rate


class Besiegers:
    """Hostile clients, in a process of their own: they must not keep the honest ones from the processor."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._attacks: Counter[str] = Counter()

    async def run(self) -> None:
        """Comes until the standard input ends; then prints how often each kind has come."""
        tasks = [asyncio.create_task(self._come()) for _ in range(BESIEGERS)]
        await asyncio.to_thread(sys.stdin.read)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        print(json.dumps(self._attacks))

    async def _come(self) -> None:
        while True:
            name, client = random.choice(list(HOSTILE_CLIENTS.items()))
            path = random.choice([*ECHOES, "/rooms/besieged"])
            self._attacks[name] += 1
            try:
                async with asyncio.timeout(30), tcp(self._port, random.choice(HOSTILE)) as peer:
                    await client(peer, path)
            except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
                pass  # the server has ended it, or refused it
            await asyncio.sleep(0.05)


async def state(port: int) -> dict[str, Any]:
    """Returns what the server holds, the connection that asks left out."""
    async with tcp(port, HONEST) as peer:
        await peer.upgrade("/state")
        await peer.say("?")
        found: dict[str, Any] = json.loads(await peer.hear())
        found["connections"] -= 1
        return found


async def besiege(server: ServerProcess, seconds: float) -> tuple[Siege, dict[str, Any], dict[str, Any]]:
    """Warms the server up, then besieges it; returns also what it held before and after."""
    await Siege(server).run(min(10.0, seconds), lambda _: None)
    await asyncio.sleep(SETTLE_TIME)
    before = await state(server.port)
    siege = Siege(server)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("siege", total=seconds)
        await siege.run(seconds, lambda step: progress.advance(task, step))
    await asyncio.sleep(SETTLE_TIME)
    return siege, before, await state(server.port)


def verdicts(
    siege: Siege, before: dict[str, Any], after: dict[str, Any], errors: IO[str]
) -> list[tuple[str, str, str, bool]]:
    """Returns what was checked, the figure, its bound, and whether it is within it."""
    third = len(siege.memory) // 3
    middle = statistics.median(siege.memory[third : 2 * third])
    last = statistics.median(siege.memory[-third:])
    disturbed = siege.disturbed.total()
    rows = [
        ("honest clients that were disturbed", f"{disturbed}", "0", disturbed == 0),
        (
            "memory, last third / the one before, MiB",
            f"{last / 2**20:.1f} / {middle / 2**20:.1f}",
            f"≤ {1 + GROWTH}",
            last <= middle * (1 + GROWTH),
        ),
    ]
    for what, bound in LEFT.items():
        left = after[what] - before[what]
        rows.append((f"{what} left", f"{left}", f"≤ {bound}", left <= bound))
    errors.seek(0)
    tracebacks = sum(line.startswith("Traceback") for line in errors)
    rows.append(("tracebacks in the log", f"{tracebacks}", "0", tracebacks == 0))
    return rows


def show(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def run(python: str, seconds: float) -> tuple[bool, dict[str, object]]:
    """Besieges a server of a Python; prints and returns what was found."""
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (min(65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2
    )
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "server")])
    with tempfile.TemporaryFile("w+") as errors:
        server = ServerProcess([python, SERVER], errors)
        try:
            siege, before, after = asyncio.run(besiege(server, seconds))
        finally:
            server.stop()
        rows = verdicts(siege, before, after, errors)
        errors.seek(0)
        lines = Counter(" ".join(line.split()[:6]) for line in errors)
    version = version_of(python)
    counts = show(f"{version}: clients", "kind", "count")
    for kind, number in (*siege.served.most_common(), *siege.attacks.most_common()):
        counts.add_row(kind, f"{number:,}")
    console.print(counts)
    table = show(f"{version}: {seconds / 60:g} minutes", "what", "figure", "bound", "verdict")
    for what, figure, bound, met in rows:
        table.add_row(what, figure, bound, "[green]PASS[/]" if met else "[red]FAIL[/]")
    console.print(table)
    for error, number in siege.disturbed.most_common(10):
        console.print(f"{number} × {error}", style="red")
    for line, number in lines.most_common(8):
        console.print(f"log: {number:,} × {line}", style="dim")
    return all(met for *_, met in rows), {
        "minutes": seconds / 60,
        "served": siege.served,
        "attacks": siege.attacks,
        "disturbed": siege.disturbed,
        "memory": siege.memory,
        "before": before,
        "after": after,
        "verdicts": rows,
    }


def version_of(python: str) -> str:
    """Returns the version of the Python at a path."""
    program = "import platform; print(platform.python_version())"
    return subprocess.run([python, "-c", program], check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    """Runs the siege, writes its results, and ends with status 1 if a verdict is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--quick", action="store_true", help="one minute")
    parser.add_argument("--python", default=sys.executable, metavar="PATH", help="runs the server")
    parser.add_argument("--besiege", type=int, metavar="PORT", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.besiege is not None:
        asyncio.run(Besiegers(args.besiege).run())
        return
    met, found = run(args.python, 60.0 if args.quick else args.minutes * 60)
    file = RESULTS / ("siege-quick.json" if args.quick else "siege.json")
    results = json.loads(file.read_text()) if file.exists() else {}
    results[version_of(args.python)] = {"machine": machine(), **found}
    file.write_text(json.dumps(results, indent=1) + "\n")
    sys.exit(not met)


if __name__ == "__main__":
    main()
