"""Opening handshake and close: the server's CPU time a connection."""

from benchmarks.common import Report, interleaved, options, servers, upgrade
from rfc6455 import Opcode, encode_frame

PEERS = ["rfc6455", "websockets", "aiohttp", "picows", "Node ws"]


def connect_and_close(port: int, count: int) -> None:
    """One after the other, each with both handshakes in full."""
    close = encode_frame(Opcode.CLOSE, b"\x03\xe8", mask_key=b"abcd")
    for _ in range(count):
        connection = upgrade(port, "/echo")
        connection.sendall(close)
        while connection.recv(4096):
            pass
        connection.close()


def main() -> None:
    """Prints µs a connection and the ratios."""
    asked = options(__doc__)
    report = Report("handshake", "µs of server CPU a connection", quick=asked.quick)
    count = 200 if asked.quick else 1000
    with servers(PEERS, asked.only) as running:

        def measure(name: str) -> float:
            connect_and_close(running[name].port, count // 10)
            begin = running[name].cpu()
            connect_and_close(running[name].port, count)
            return (running[name].cpu() - begin) / count * 1e6

        figures = interleaved(list(running), 3 if asked.quick else 9, measure, "connections")
    report.add("open and close", figures, {"websockets": 0.6, "aiohttp": 0.8})
    report.finish()


if __name__ == "__main__":
    main()
