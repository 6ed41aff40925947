"""Broadcast of a named event with 128 B to all in a room, by the Socket.IO protocol: CPU time a delivery."""

from benchmarks.broadcast import measure_rooms
from benchmarks.common import Report, options

PEERS = ["rfc6455", "python-socketio", "Node socket.io"]
TARGETS = {"python-socketio": 0.05, "Node socket.io": 0.3}

# (members, in flight, deliveries); the targets are for the first.
CASES = [(100, 8, 60_000), (1000, 8, 80_000), (100, 1, 20_000)]


def main() -> None:
    """Prints µs a delivery and the ratios."""
    asked = options(__doc__)
    report = Report("events", "µs of server CPU a delivery", quick=asked.quick)
    for case in CASES:
        figures = measure_rooms(PEERS, case, asked, lambda _: True)
        report.add(f"{case[0]} members, {case[1]} in flight", figures, TARGETS if case is CASES[0] else None)
    report.finish()


if __name__ == "__main__":
    main()
