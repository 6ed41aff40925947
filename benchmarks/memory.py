"""Memory of an idle connection: 5,000 of them, on a new server in each round."""

import socket
import time
from collections.abc import Callable

from benchmarks.common import CALLED, OURS, Report, ServerProcess, interleaved, options, servers, upgrade

PEERS = ["rfc6455", CALLED, "websockets", "aiohttp", "picows", "Node ws", "streams"]
TARGETS = {OURS: 7.2, CALLED: 5.5}  # KiB


def idle_memory(server: ServerProcess, count: int, connect: Callable[[int], socket.socket]) -> float:
    """Returns KiB of server memory per connection, with ``count`` of them. ``connect`` opens one."""
    warm = [connect(server.port) for _ in range(100)]
    time.sleep(0.5)  # until the server has freed what the handshakes needed
    before = server.memory()
    idle = [connect(server.port) for _ in range(count)]
    time.sleep(1.5)  # as above, for more connections
    growth = server.memory() - before
    for connection in (*warm, *idle):
        connection.close()
    return growth / count / 1024


def plain(port: int) -> socket.socket:
    """Opens a connection without extensions."""
    return upgrade(port, "/echo")


def main() -> None:
    """Prints KiB per connection."""
    args = options(__doc__)
    count = 1000 if args.quick else 5000
    report = Report("memory", "KiB per connection", quick=args.quick)

    def measure(name: str) -> float:
        with servers([name], [name]) as running:
            return idle_memory(running[name], count, plain)

    title = f"{count} idle connections"
    names = [name for name in PEERS if name in TARGETS or args.only is None or name in args.only]
    figures = interleaved(names, 2 if args.quick else 3, measure, title)
    report.add(title, figures)
    report.finish()
    for name, target in TARGETS.items():
        print(f"{name}: {figures[name].median:.1f} KiB, target: at most {target} KiB")


if __name__ == "__main__":
    main()
