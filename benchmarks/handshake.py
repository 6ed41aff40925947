"""Opening and closing handshake: the server's CPU time per connection."""

import socket

from benchmarks.common import Report, interleaved, options, read_head, request, servers
from rfc6455 import Opcode, encode_frame

PEERS = ["rfc6455", "websockets", "aiohttp", "picows", "Node ws"]

AT_ONCE = 20


def connect_and_close(port: int, count: int) -> None:
    """Opens and closes ``count`` connections, `AT_ONCE` at a time, with both handshakes complete."""
    close = encode_frame(Opcode.CLOSE, b"\x03\xe8", mask_key=b"abcd")
    for _ in range(count // AT_ONCE):
        wave = [socket.create_connection(("127.0.0.1", port)) for _ in range(AT_ONCE)]
        for connection in wave:
            connection.sendall(request(port, "/echo"))
        for connection in wave:
            read_head(connection)
        for connection in wave:
            connection.sendall(close)
        for connection in wave:
            while connection.recv(4096):
                pass
            connection.close()


def main() -> None:
    """Prints µs per connection, and the ratios."""
    args = options(__doc__)
    report = Report("handshake", "µs of server CPU per connection", quick=args.quick)
    count = 200 if args.quick else 1000
    with servers(PEERS, args.only) as running:

        def measure(name: str) -> float:
            connect_and_close(running[name].port, count // 10)
            begin = running[name].cpu()
            connect_and_close(running[name].port, count)
            return (running[name].cpu() - begin) / count * 1e6

        figures = interleaved(list(running), 3 if args.quick else 21, measure, "connections")
    report.add("open and close", figures, {"websockets": 0.6, "aiohttp": 0.8})
    report.finish()


if __name__ == "__main__":
    main()
