"""Echo over loopback, on asyncio's own event loop: the server's CPU time per message."""

from benchmarks.common import CALLED, FLOOR, OURS, Report, ServerProcess, interleaved, options, servers
from benchmarks.load import EchoLoad

PEERS = ["websockets", "aiohttp", "picows", "Node ws", FLOOR]

# (case, connections, in flight, bytes, messages, targets)
CASES = [
    ("10 × 64 in flight, 32 B", 10, 64, 32, 60_000, (0.15, 0.35, 0.7, 0.35, None)),
    ("10 × 64 in flight, 1 KiB", 10, 64, 1024, 40_000, (0.27, 0.6, 1.0, 0.55, None)),
    ("100 × 1 in flight, 32 B", 100, 1, 32, 20_000, (0.5, 0.9, None, 1.0, None)),
    ("100 × 1 in flight, 32 B, called", 100, 1, 32, 20_000, (None, 0.75, None, 0.95, 1.25)),
    ("10 × 1 in flight, 64 KiB", 10, 1, 65536, 3_000, (1.0, 0.8, 1.25, 0.75, None)),
]


def main() -> None:
    """Prints µs per message, and the ratios."""
    args = options(__doc__)
    report = Report("echo", "µs of server CPU per message", quick=args.quick)
    for case, connections, in_flight, size, messages, targets in CASES:
        count = messages // 4 if args.quick else messages
        # Each case starts new servers: asyncio allocates 256 KiB for each read, and what that costs in malloc
        # depends on the traffic before.
        # With one message in flight, most of the time is spent outside the protocol; FLOOR shows how much.
        ours = CALLED if "called" in case else OURS
        names = [ours, *(peer for peer in PEERS if peer != FLOOR or in_flight == 1)]
        with servers(names, args.only) as running:
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

            figures = interleaved(list(running), 3 if args.quick else 9, measure, case)
            wanted = {peer: target for peer, target in zip(PEERS, targets, strict=True) if target}
            report.add(case, {OURS: figures.pop(ours), **figures}, wanted)
            for load in loads.values():
                load.close()
    report.finish()


if __name__ == "__main__":
    main()
