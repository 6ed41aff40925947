"""Memory of an idle connection: of 5,000 of them, on a server of their own in each round."""

import socket
import time
from collections.abc import Callable

from benchmarks.common import OURS, Report, ServerProcess, interleaved, options, servers, upgrade

PEERS = ["rfc6455", "websockets", "aiohttp", "picows", "Node ws", "streams"]
TARGET = 8.0  # KiB


def idle_memory(server: ServerProcess, count: int, connect: Callable[[int], socket.socket]) -> float:
    """KiB of the server's memory for each of ``count`` connections; ``connect`` makes one to a port."""
    warm = [connect(server.port) for _ in range(100)]
    time.sleep(0.5)  # for the server to finish what a handshake leaves behind
    before = server.memory()
    idle = [connect(server.port) for _ in range(count)]
    time.sleep(1.5)  # the same for all of them
    growth = server.memory() - before
    for connection in (*warm, *idle):
        connection.close()
    return growth / count / 1024


def plain(port: int) -> socket.socket:
    """A connection without extensions."""
    return upgrade(port, "/echo")


def main() -> None:
    """Prints KiB a connection."""
    asked = options(__doc__)
    count = 1000 if asked.quick else 5000
    report = Report("memory", "KiB a connection", quick=asked.quick)

    def measure(name: str) -> float:
        with servers([name], [name]) as running:
            return idle_memory(running[name], count, plain)

    title = f"{count} idle connections"
    names = [name for name in PEERS if name == OURS or asked.only is None or name in asked.only]
    figures = interleaved(names, 2 if asked.quick else 3, measure, title)
    report.add(title, figures)
    report.finish()
    print(f"ours: {figures[OURS].median:.1f} KiB, to reach: {TARGET} KiB at most")


if __name__ == "__main__":
    main()
