"""Memory of an idle connection: 5,000 of them."""

import socket
import time
from collections.abc import Callable

from benchmarks.common import Report, ServerProcess, options, servers, upgrade

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
    figures = {}
    for name in PEERS:
        with servers(["rfc6455", name][name == "rfc6455" :], asked.only) as running:
            if name not in running:
                continue
            figures[name] = idle_memory(running[name], count, plain)
    report.add(f"{count} idle connections", figures)
    report.finish()
    print(f"ours: {figures['rfc6455']:.1f} KiB, to reach: {TARGET} KiB at most")


if __name__ == "__main__":
    main()
