"""Memory of an idle connection: 5,000 of them."""

import time

from benchmarks.common import Report, options, servers, upgrade

PEERS = ["rfc6455", "websockets", "aiohttp", "picows", "Node ws", "streams"]
TARGET = 8.0  # KiB


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
            server = running[name]
            warm = [upgrade(server.port, "/echo") for _ in range(100)]
            time.sleep(0.5)  # for the server to finish what a handshake leaves behind
            before = server.memory()
            idle = [upgrade(server.port, "/echo") for _ in range(count)]
            time.sleep(1.5)  # the same for all of them
            figures[name] = (server.memory() - before) / count / 1024
            for connection in (*warm, *idle):
                connection.close()
    report.add(f"{count} idle connections", figures)
    report.finish()
    print(f"ours: {figures['rfc6455']:.1f} KiB, to reach: {TARGET} KiB at most")


if __name__ == "__main__":
    main()
