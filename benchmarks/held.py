"""Memory and CPU time that hostile peers can take: what is held for them, and what a broadcast costs.

``python -m benchmarks.held --before REV`` measures that revision and the working tree: clients that do not
read, clients that do not finish a message, and members that agreed on different parameters of deflate.
"""

import argparse
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from benchmarks.before_after import checked_out, command
from benchmarks.common import HERE, ServerProcess, console, upgrade, write_results
from rfc6455 import Opcode, encode_frame

MIB: Final = 1 << 20
KEY: Final = b"abcd"
FOR_EVER: Final = 3600.0
NO_LIMITS: Final = {"max_queue": 1 << 40, "max_total_queue": 1 << 40, "send_timeout": FOR_EVER}

READERS: Final = 5
"""Clients that do not read."""

# (what is sent, over which transport, messages for each client, code points of each)
QUEUES: Final = [
    (way, transport, count, size)
    for way, transport in [
        ("post", "websocket"),
        ("send", "websocket"),
        ("room", "websocket"),
        ("ping", "websocket"),
        ("event", "socketio"),
        ("event", "polling"),
        ("ack", "socketio"),
        ("ack", "polling"),
    ]
    for count, size in [(50_000, 0), (50_000, 20), (200, 100_000)]
    if way != "ping" or not size
]

UNFINISHED: Final = 1000
"""Clients that do not finish a message of 1 MiB."""

PARAMETERS: Final = [
    f"permessage-deflate; server_max_window_bits={server}; client_max_window_bits={client}{reset}"
    for server, client, reset in product(range(8, 16), range(8, 16), ("", "; client_no_context_takeover"))
]
"""128 offers of permessage-deflate, all different."""


@contextmanager
def held_server(tree: Path, **settings: float) -> Iterator[ServerProcess]:
    """Runs the server of ``tree``."""
    os.environ["HELD"] = json.dumps(settings)
    server = ServerProcess(command(tree, str(HERE / "servers" / "held_server.py")))
    try:
        yield server
    finally:
        server.stop()


class Control:
    """Tells a server what to send."""

    def __init__(self, port: int) -> None:
        self._socket = upgrade(port, "/control")

    def ask(self, **arguments: object) -> dict[str, Any]:
        """Sends a request, or none without arguments; returns the server's state after it."""
        text = json.dumps(arguments) if arguments else ""
        self._socket.sendall(encode_frame(Opcode.TEXT, text.encode(), mask_key=KEY))
        _, length = self._socket.recv(2, socket.MSG_WAITALL)
        state: dict[str, Any] = json.loads(self._socket.recv(length, socket.MSG_WAITALL))
        return state

    def wait(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Returns the first state that ``condition`` is true of. Raises `TimeoutError` after a minute."""
        deadline = time.monotonic() + 60
        while not condition(state := self.ask()):
            if time.monotonic() > deadline:
                raise TimeoutError("the server's state is not as expected")
            time.sleep(0.1)  # between two questions
        return state


def connect_websocket(port: int) -> socket.socket:
    """Opens a WebSocket that never reads."""
    return upgrade(port, "/member")


def connect_socketio(port: int) -> socket.socket:
    """Connects by Socket.IO over a WebSocket that never reads."""
    connection = upgrade(port, "/socket.io/?EIO=4&transport=websocket")
    connection.sendall(encode_frame(Opcode.TEXT, b"40", mask_key=KEY))
    return connection


def connect_polling(port: int) -> socket.socket:
    """Connects by Socket.IO over polling, and never polls."""
    connection = socket.create_connection(("127.0.0.1", port))
    path = "/socket.io/?EIO=4&transport=polling"
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    answer = connection.recv(4096)
    sid = json.loads(answer[answer.index(b"0{") + 1 :])["sid"]
    post = f"POST {path}&sid={sid} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n40"
    connection.sendall(post.encode())
    connection.recv(4096)
    return connection


CONNECT: Final = {
    "websocket": connect_websocket,
    "socketio": connect_socketio,
    "polling": connect_polling,
}


def queues(tree: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """Yields, for each way to send, the growth of resident memory, what is counted, and their ratio."""
    for way, transport, count, size in QUEUES:
        with held_server(tree, **NO_LIMITS) as server, ExitStack() as stack:
            for _ in range(READERS):
                stack.enter_context(CONNECT[transport](server.port))
            control = Control(server.port)
            # More than the operating system's buffers take, so that all that follows waits.
            first = control.ask(way="room" if transport == "websocket" else "event", count=1, size=8 * MIB)
            before = server.memory()
            state = control.ask(way=way, count=count, size=size)
            grown = (server.memory() - before) / MIB
            counted = (state["queued"] - first["queued"]) / MIB
            figures = {"grown": grown, "counted": counted, "ratio": grown / counted if counted else 0.0}
            yield f"{way} over {transport}, {count:,} of {size:,} characters", figures


def unfinished(tree: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """Yields what clients hold that do not finish a message, at once and after 25 seconds."""
    limits = {"receive_timeout": 10.0, "max_connections": UNFINISHED + 10}
    with held_server(tree, **limits) as server, ExitStack() as stack:
        control = Control(server.port)
        before = server.memory()
        frame = encode_frame(Opcode.BINARY, bytes(MIB), mask_key=KEY)[:-1]
        for _ in range(UNFINISHED):
            client = stack.enter_context(upgrade(server.port, "/silent"))
            client.settimeout(5)
            with suppress(OSError):  # the server may have ended it meanwhile
                client.sendall(frame)
        control.ask()
        for case, seconds in (("at once", 1), ("after 25 seconds", 25)):
            time.sleep(seconds)  # the case itself: how long the clients stay
            state = control.ask()
            grown = (server.memory() - before) / MIB
            figures = {"grown": grown, "counted": state["queued"] / MIB, "connections": state["connections"]}
            yield f"{UNFINISHED:,} unfinished messages of 1 MiB, {case}", figures


def parameters(tree: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """Yields the CPU time of a broadcast to members that agreed on different parameters."""
    with held_server(tree, compression=1) as server, ExitStack() as stack:
        for offer in PARAMETERS:
            stack.enter_context(upgrade(server.port, "/member", offer))
        control = Control(server.port)
        members = len(PARAMETERS)
        control.wait(lambda state: state["connections"] == members + 1)
        used = [control.ask(way="room", count=1, size=100_000)["seconds"] for _ in range(5)]
        yield f"a broadcast to {members} sets of parameters, ms of CPU", {"ms": sorted(used)[2] * 1000}


PARTS: Final = {"queues": queues, "unfinished": unfinished, "parameters": parameters}


def main() -> None:
    """Prints the figures before and after, and writes them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", default="HEAD", metavar="REV", help="the revision to compare with (HEAD)")
    parser.add_argument("--only", nargs="+", choices=PARTS)
    args = parser.parse_args()
    results: dict[str, dict[str, dict[str, float]]] = {}
    with checked_out(args.before) as tree:
        for version, folder in (("before", tree), ("after", HERE.parent)):
            for part in args.only or PARTS:
                for case, figures in PARTS[part](folder):
                    results.setdefault(case, {})[version] = figures
    table = Table(title=f"the working tree compared with {args.before}; MiB", title_justify="left")
    for column in ("case", "before", "after"):
        table.add_column(column)
    for case, versions in results.items():
        shown = [
            ", ".join(f"{name} {value:,.4g}" for name, value in versions[version].items())
            for version in ("before", "after")
        ]
        table.add_row(case, *shown)
    console.print(table)
    write_results("held", {"before": args.before, "cases": results}, quick=False)


if __name__ == "__main__":
    main()
