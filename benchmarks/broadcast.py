"""Broadcast of 128 B to all members of a room: the server's CPU time per delivery."""

import argparse
import socket
from collections.abc import Callable, Sequence

from benchmarks.common import FLOOR, Figure, Report, ServerProcess, interleaved, options, servers, upgrade
from benchmarks.load import receive_from_all
from rfc6455 import Opcode, encode_frame

PEERS = ["rfc6455", "websockets", "picows", "Node ws", "python-socketio"]
SIZE = 128
SOCKETIO_PATH = "/socket.io/?EIO=4&transport=websocket"

# (members, in flight, deliveries, targets: websockets, picows, Node's ws, python-socketio)
CASES = [
    (100, 8, 60_000, (0.2, 0.35, 0.2, 0.03)),
    (1000, 8, 80_000, (0.2, 0.35, 0.2, 0.03)),
    (100, 1, 20_000, (0.6, None, None, None)),
    (1000, 1, 30_000, (0.6, None, None, None)),
]


class Room:
    """The members of a room on one server. The first one sends the messages."""

    def __init__(self, server: ServerProcess, members: int, *, named_events: bool) -> None:
        text = "x" * SIZE
        self._sockets: list[socket.socket] = []
        if named_events:
            text = f'42["message","{text}"]'
            for _ in range(members):
                connection = upgrade(server.port, SOCKETIO_PATH)
                _read_frame(connection)  # open
                connection.sendall(encode_frame(Opcode.TEXT, b"40", mask_key=b"abcd"))
                _read_frame(connection)  # connect
                self._sockets.append(connection)
        else:
            self._sockets = [upgrade(server.port, "/room") for _ in range(members)]
        self._frame = encode_frame(Opcode.TEXT, text.encode(), mask_key=b"abcd")
        self._delivery = len(encode_frame(Opcode.TEXT, text.encode()))

    def run(self, deliveries: int, in_flight: int) -> int:
        """Sends messages until there are some ``deliveries``; returns their exact number."""
        times = max(1, deliveries // len(self._sockets) // in_flight)
        for _ in range(times):
            self._sockets[0].sendall(self._frame * in_flight)
            receive_from_all(self._sockets, self._delivery * in_flight)
        return times * in_flight * len(self._sockets)

    def close(self) -> None:
        for connection in self._sockets:
            connection.close()


def _read_frame(connection: socket.socket) -> None:
    header = connection.recv(2, socket.MSG_WAITALL)
    size = header[1]
    if size == 126:
        size = int.from_bytes(connection.recv(2, socket.MSG_WAITALL), "big")
    connection.recv(size, socket.MSG_WAITALL)


def measure_rooms(
    peers: Sequence[str],
    case: tuple[int, int, int],
    args: argparse.Namespace,
    named_events: Callable[[str], bool],
) -> dict[str, Figure]:
    """Returns µs of CPU per delivery, by peer. ``case`` is (members, messages in flight, deliveries)."""
    members, in_flight, deliveries = case
    count = deliveries // 4 if args.quick else deliveries
    with servers(peers, args.only) as running:
        rooms = {
            name: Room(server, members, named_events=named_events(name)) for name, server in running.items()
        }

        def measure(name: str) -> float:
            # python-socketio takes some 40 times as long.
            wanted = count // 8 if name == "python-socketio" else count
            rooms[name].run(wanted // 10, in_flight)
            begin = running[name].cpu()
            done = rooms[name].run(wanted, in_flight)
            return (running[name].cpu() - begin) / done * 1e6

        title = f"{members} members, {in_flight} in flight"
        figures = interleaved(list(running), 3 if args.quick else 9, measure, title)
        for room in rooms.values():
            room.close()
    return figures


def main() -> None:
    """Prints µs per delivery, and the ratios."""
    args = options(__doc__)
    report = Report("broadcast", "µs of server CPU per delivery", quick=args.quick)
    for members, in_flight, deliveries, targets in CASES:
        case = (members, in_flight, deliveries)
        names = [*PEERS, FLOOR] if in_flight == 1 else PEERS
        figures = measure_rooms(names, case, args, lambda name: name == "python-socketio")
        wanted = {peer: t for peer, t in zip(PEERS[1:], targets, strict=True) if t}
        report.add(f"{members} members, {in_flight} in flight", figures, wanted)
    report.finish()


if __name__ == "__main__":
    main()
