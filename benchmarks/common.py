"""Shared by the benchmarks: servers and their CPU time, interleaved rounds, tables, results, charts."""

import argparse
import json
import os
import platform
import resource
import socket
import ssl
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Self

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

HERE = Path(__file__).parent
RESULTS = HERE / "results"
OURS = "rfc6455"
CALLED = "rfc6455, called"
"""Our server with a called handler instead of a coroutine."""
FLOOR = "asyncio alone"
"""A server on asyncio that only reads and writes: a lower bound, not a competitor."""

console = Console()


def options(description: str | None) -> argparse.Namespace:
    """Parses the command line. ``--quick`` takes about a minute and gets rough figures."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--only", nargs="+", metavar="PEER", help="measure only these peers")
    return parser.parse_args()


class ServerProcess:
    """A server under measurement, in its own process."""

    def __init__(self, command: Sequence[str], errors: IO[str] | None = None) -> None:
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=HERE.parent
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def cpu(self) -> float:
        """Returns the CPU time used so far in seconds: user plus system, all threads."""
        threads = Path(f"/proc/{self._process.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9

    def memory(self) -> int:
        """Returns the resident memory in bytes."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def peak_memory(self) -> int:
        """Returns the highest resident memory so far, in bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) << 10

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


SERVERS: Mapping[str, list[str]] = {
    OURS: [sys.executable, "-m", "benchmarks.servers.ours"],
    CALLED: [sys.executable, "-m", "benchmarks.servers.ours", "--called"],
    "websockets": [sys.executable, "-m", "benchmarks.servers.websockets_server"],
    "aiohttp": [sys.executable, "-m", "benchmarks.servers.aiohttp_server"],
    "picows": [sys.executable, "-m", "benchmarks.servers.picows_server"],
    "Node ws": ["node", str(HERE / "servers" / "ws_server.js")],
    "Node socket.io": ["node", str(HERE / "servers" / "socketio_server.js")],
    "python-socketio": [sys.executable, "-m", "benchmarks.servers.socketio_server"],
    FLOOR: [sys.executable, "-m", "benchmarks.servers.asyncio_server"],
    "streams": [sys.executable, "-m", "benchmarks.servers.streams_server"],
}


@contextmanager
def servers(
    names: Sequence[str], only: Sequence[str] | None, *arguments: str, errors: IO[str] | None = None
) -> Iterator[dict[str, ServerProcess]]:
    """Runs the named servers with ``arguments``. ``only`` selects some of the peers.

    ``errors`` is a file for what they write to stderr.
    """
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (min(65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2
    )
    running: dict[str, ServerProcess] = {}
    try:
        for name in names:
            if name in (OURS, CALLED) or only is None or name in only:
                running[name] = ServerProcess([*SERVERS[name], *arguments], errors)
        yield running
    finally:
        for server in running.values():
            server.stop()


@dataclass(frozen=True)
class Figure:
    """The result of several rounds: the median, and the quartiles as its spread."""

    median: float
    quartiles: tuple[float, float]
    rounds: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Self:
        """Summarises one sample per round. With a single round, both quartiles are its sample."""
        if len(samples) == 1:
            return cls(samples[0], (samples[0], samples[0]), 1)
        lower, median, upper = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(median, (lower, upper), len(samples))

    def __str__(self) -> str:
        """Returns the median to three digits and the distance to the farther quartile: ``12.3 ±4%``."""
        shown = f"{self.median:,.0f}" if self.median >= 100 else f"{self.median:.3g}"
        if self.rounds == 1:
            return shown
        spread = max(self.median - self.quartiles[0], self.quartiles[1] - self.median)
        return f"{shown} ±{spread / self.median:.0%}"


def as_json(figures: Mapping[str, Figure]) -> dict[str, object]:
    """Returns the figures as they are stored in the result files."""
    return {name: asdict(figure) for name, figure in figures.items()}


def interleaved(
    names: Sequence[str], rounds: int, measure: Callable[[str], float], title: str
) -> dict[str, Figure]:
    """Measures each name ``rounds`` times. Each round measures all, so that noise affects all of them."""
    samples: dict[str, list[float]] = {name: [] for name in names}
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(title, total=rounds * len(names))
        for _ in range(rounds):
            for name in names:
                samples[name].append(measure(name))
                progress.advance(task)
    return {name: Figure.of(values) for name, values in samples.items()}


DEFLATE = "permessage-deflate; client_max_window_bits"
"""The offer that browsers make."""


def request(port: int, path: str, extensions: str = "") -> bytes:
    """Returns the request of an opening handshake."""
    offer = f"Sec-WebSocket-Extensions: {extensions}\r\n" if extensions else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{offer}\r\n"
    ).encode()


def read_head(connection: socket.socket) -> bytes:
    """Reads and returns the response to `request`. The bytes after it stay in the socket."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        octet = connection.recv(1)
        if not octet:
            raise ConnectionError(f"no upgrade: {head!r}")
        head += octet
    if not head.startswith(b"HTTP/1.1 101"):
        raise ConnectionError(f"no upgrade: {head!r}")
    return head


def upgrade(
    port: int, path: str, extensions: str = "", context: ssl.SSLContext | None = None
) -> socket.socket:
    """Returns a socket after an opening handshake, over TLS if there is a ``context``.

    Raises `ConnectionError` if the server declines the ``extensions``.
    """
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is not None:
        connection = context.wrap_socket(connection)
    connection.sendall(request(port, path, extensions))
    head = read_head(connection)
    if extensions and b"sec-websocket-extensions:" not in head.lower():
        raise ConnectionError(f"no extension: {head!r}")
    return connection


class Report:
    """Prints a table, and writes its figures to ``benchmarks/results`` as JSON and as a chart."""

    def __init__(self, name: str, unit: str, *, quick: bool, less_is_better: bool = True) -> None:
        self._name = name
        self._unit = unit
        self._quick = quick
        self._less_is_better = less_is_better
        self._cases: dict[str, dict[str, Figure]] = {}
        self._targets: dict[str, dict[str, float]] = {}

    def add(
        self, case: str, figures: Mapping[str, Figure], targets: Mapping[str, float] | None = None
    ) -> None:
        """Adds a case: figures by peer, and by peer the target for the ratio of our median to theirs."""
        self._cases[case] = dict(figures)
        self._targets[case] = dict(targets or {})

    def finish(self) -> None:
        """Prints the table and writes the files."""
        peers = list(dict.fromkeys(name for figures in self._cases.values() for name in figures))
        table = Table(title=f"{self._name}: {self._unit}", title_justify="left")
        table.add_column("case")
        for peer in peers:
            table.add_column(peer, justify="right")
        for case, figures in self._cases.items():
            table.add_row(case, *(self._cell(case, peer) if peer in figures else "–" for peer in peers))
        console.print(table)
        console.print(
            "medians, ± the distance to the farther quartile; "
            "in brackets: our median divided by theirs, and the target of that ratio",
            style="dim",
        )
        cases = {case: as_json(figures) for case, figures in self._cases.items()}
        write_results(
            self._name, {"unit": self._unit, "cases": cases, "targets": self._targets}, quick=self._quick
        )
        if not self._quick:
            self._chart(peers)

    def _cell(self, case: str, peer: str) -> str:
        figures = self._cases[case]
        shown = str(figures[peer])
        if peer == OURS or OURS not in figures:
            return shown
        ratio = figures[OURS].median / figures[peer].median
        target = self._targets[case].get(peer)
        if target is None:
            return f"{shown} ({ratio:.2f})"
        met = ratio <= target if self._less_is_better else ratio >= target
        sign = "≤" if self._less_is_better else "≥"
        return f"[{'green' if met else 'red'}]{shown} ({ratio:.2f}, {sign} {target:g})[/]"

    def _chart(self, peers: list[str]) -> None:
        import matplotlib as mpl  # noqa: PLC0415 - slow to import, and needed at the end only

        mpl.use("svg")
        from matplotlib import pyplot as plt  # noqa: PLC0415 - after the backend is chosen

        mpl.rcParams["svg.hashsalt"] = self._name
        figure, axes = plt.subplots(figsize=(9, 0.9 + 0.28 * sum(map(len, self._cases.values()))))
        position = 0.0
        ticks = []
        for case, figures in reversed(self._cases.items()):
            begin = position
            for peer in reversed(peers):
                if peer in figures:
                    median, (lower, upper) = figures[peer].median, figures[peer].quartiles
                    axes.barh(
                        position,
                        median,
                        xerr=[[median - lower], [upper - median]],
                        color=f"C{peers.index(peer)}",
                        height=0.85,
                        error_kw={"elinewidth": 0.8, "capsize": 1.5},
                    )
                    axes.text(upper, position, f" {peer} {median:.3g}", va="center", fontsize=7)
                    position += 1
            ticks.append(((begin + position - 1) / 2, case))
            position += 0.8
        axes.set_yticks([at for at, _ in ticks], [case for _, case in ticks], fontsize=8)
        axes.set_xscale("log")
        better = "less" if self._less_is_better else "more"
        title = f"{self._name}: {self._unit} ({better} is better; medians, error bars: quartiles)"
        axes.set_title(title, fontsize=10)
        axes.margins(x=0.2)
        figure.text(
            0.01, 0.005, f"{machine()}; {', '.join(f'{k} {v}' for k, v in versions().items())}", fontsize=5
        )
        figure.tight_layout()
        figure.savefig(RESULTS / f"{self._name}.svg", metadata={"Date": None})


def write_results(name: str, results: Mapping[str, object], *, quick: bool) -> None:
    """Writes the result file of a benchmark."""
    RESULTS.mkdir(exist_ok=True)
    suffix = "-quick" if quick else ""
    everything = {"machine": machine(), "versions": versions(), **results}
    (RESULTS / f"{name}{suffix}.json").write_text(json.dumps(everything, indent=1) + "\n")


def machine() -> str:
    """Returns the processor, the Python version and the date."""
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    today = datetime.now(UTC).date()
    return f"{os.cpu_count()} × {model}, CPython {platform.python_version()}, {today}"


def versions() -> dict[str, str]:
    """Returns the version of each peer that is installed."""
    found = {}
    for name in ("websockets", "wsproto", "aiohttp", "picows", "python-socketio"):
        with suppress(metadata.PackageNotFoundError):  # not every benchmark needs the peers
            found[name] = metadata.version(name)
    for name in ("ws", "socket.io"):
        package = HERE / "node" / "node_modules" / name / "package.json"
        if package.exists():
            found[f"Node {name}"] = json.loads(package.read_text())["version"]
    return found
