"""Echo over loopback, plain asyncio: the server's CPU time a message."""

from benchmarks.common import FLOOR, Report, ServerProcess, interleaved, options, servers
from benchmarks.load import EchoLoad

PEERS = ["rfc6455", "websockets", "aiohttp", "picows", "Node ws"]

# (case, connections, in flight, bytes, messages, targets)
CASES = [
    ("10 × 64 in flight, 32 B", 10, 64, 32, 60_000, (0.15, 0.35, 0.7, 0.35)),
    ("10 × 64 in flight, 1 KiB", 10, 64, 1024, 40_000, (0.27, 0.6, 1.0, 0.55)),
    ("100 × 1 in flight, 32 B", 100, 1, 32, 20_000, (0.55, 0.8, None, 1.0)),
    ("10 × 1 in flight, 64 KiB", 10, 1, 65536, 3_000, (1.0, None, None, 0.8)),
]


def main() -> None:
    """Prints µs a message and the ratios."""
    asked = options(__doc__)
    report = Report("echo", "µs of server CPU a message", quick=asked.quick)
    for case, connections, in_flight, size, messages, targets in CASES:
        count = messages // 4 if asked.quick else messages
        # Each case has servers of its own: asyncio makes room for 256 KiB a read, and whether malloc has
        # that at hand depends on the traffic before.
        # With one in flight, most of the time is spent outside of any protocol: how much, the floor shows.
        names = [*PEERS, FLOOR] if in_flight == 1 else PEERS
        with servers(names, asked.only) as running:
            loads = {
                name: EchoLoad(server.port, connections, in_flight, size) for name, server in running.items()
            }

            def measure(
                name: str,
                running: dict[str, ServerProcess] = running,
                loads: dict[str, EchoLoad] = loads,
                count: int = count,
            ) -> float:
                loads[name].run(count // 10)
                begin = running[name].cpu()
                done = loads[name].run(count)
                return (running[name].cpu() - begin) / done * 1e6

            figures = interleaved(list(running), 3 if asked.quick else 9, measure, case)
            wanted = {peer: target for peer, target in zip(PEERS[1:], targets, strict=True) if target}
            report.add(case, figures, wanted)
            for load in loads.values():
                load.close()
    report.finish()


if __name__ == "__main__":
    main()
