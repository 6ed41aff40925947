"""Broadcast of a Socket.IO event with 128 B to all members of a room: CPU time per delivery."""

from benchmarks.broadcast import measure_rooms
from benchmarks.common import Report, options

PEERS = ["rfc6455", "python-socketio", "Node socket.io"]
TARGETS = {"python-socketio": 0.05, "Node socket.io": 0.3}

# (members, in flight, deliveries); the targets apply to the first.
CASES = [(100, 8, 60_000), (1000, 8, 80_000), (100, 1, 20_000)]


def main() -> None:
    """Prints µs per delivery, and the ratios."""
    args = options(__doc__)
    report = Report("events", "µs of server CPU per delivery", quick=args.quick)
    for case in CASES:
        figures = measure_rooms(PEERS, case, args, lambda _: True)
        report.add(f"{case[0]} members, {case[1]} in flight", figures, TARGETS if case is CASES[0] else None)
    report.finish()


if __name__ == "__main__":
    main()
