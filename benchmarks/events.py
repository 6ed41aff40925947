"""Broadcast of a named event with 128 B to all in a room, by the Socket.IO protocol: CPU time a delivery."""

from benchmarks.broadcast import Room
from benchmarks.common import Report, ServerProcess, interleaved, options, servers

PEERS = ["rfc6455", "python-socketio", "Node socket.io"]
TARGETS = {"python-socketio": 0.05, "Node socket.io": 0.3}

# (members, in flight, deliveries)
CASES = [(100, 8, 60_000), (1000, 8, 80_000), (100, 1, 20_000)]


def main() -> None:
    """Prints µs a delivery and the ratios."""
    asked = options(__doc__)
    report = Report("events", "µs of server CPU a delivery", quick=asked.quick)
    for members, in_flight, deliveries in CASES:
        with servers(PEERS, asked.only) as running:
            rooms = {name: Room(server, members, named_events=True) for name, server in running.items()}
            count = deliveries // 4 if asked.quick else deliveries

            def measure(
                name: str,
                running: dict[str, ServerProcess] = running,
                rooms: dict[str, Room] = rooms,
                count: int = count,
                in_flight: int = in_flight,
            ) -> float:
                # python-socketio takes some forty times as long.
                wanted = count // 8 if name == "python-socketio" else count
                rooms[name].run(wanted // 10, in_flight)
                begin = running[name].cpu()
                done = rooms[name].run(wanted, in_flight)
                return (running[name].cpu() - begin) / done * 1e6

            case = f"{members} members, {in_flight} in flight"
            figures = interleaved(list(running), 3 if asked.quick else 9, measure, case)
            report.add(case, figures, TARGETS if in_flight == 8 and members == 100 else None)
            for room in rooms.values():
                room.close()
    report.finish()


if __name__ == "__main__":
    main()
