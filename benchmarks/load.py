"""The load: sends frames that are encoded beforehand, and counts the bytes of the answers."""

import os
import selectors
import socket
import time

from benchmarks.common import upgrade
from rfc6455 import Opcode, encode_frame

TIME_LIMIT = 60.0
"""Seconds after which a run fails."""


class EchoLoad:
    """Connections, each of which keeps a number of messages in flight."""

    def __init__(self, port: int, connections: int, in_flight: int, size: int) -> None:
        payload = os.urandom(size // 2).hex().encode().ljust(size, b"x")
        self._frame_size = len(encode_frame(Opcode.TEXT, payload, mask_key=b"abcd"))
        self._echo_size = len(encode_frame(Opcode.TEXT, payload))
        self._in_flight = in_flight
        self._wire = b"".join(
            encode_frame(Opcode.TEXT, payload, mask_key=os.urandom(4)) for _ in range(in_flight)
        )
        self._sockets = [upgrade(port, "/echo") for _ in range(connections)]

    def run(self, messages: int) -> int:
        """Sends ``messages`` or slightly more, the same number on each connection; returns the number."""
        per_connection = -(-messages // len(self._sockets))
        selector = selectors.DefaultSelector()
        left = {}
        for connection in self._sockets:
            selector.register(connection, selectors.EVENT_READ, connection)
            left[connection] = [per_connection - self._in_flight, per_connection * self._echo_size, 0]
            _send_all(connection, self._wire)
        open_count = len(self._sockets)
        deadline = time.monotonic() + TIME_LIMIT
        while open_count:
            for key, _ in selector.select(1.0):
                connection = key.data
                state = left[connection]
                received = len(connection.recv(1 << 20))
                if not received:
                    raise ConnectionError("the server closed")
                state[1] -= received
                state[2] += received
                echoes, state[2] = divmod(state[2], self._echo_size)
                more = min(echoes, state[0])
                if more > 0:
                    state[0] -= more
                    _send_all(connection, self._wire[: more * self._frame_size])
                if state[1] == 0:
                    open_count -= 1
            if time.monotonic() > deadline:
                raise TimeoutError("the server did not answer")
        selector.close()
        return per_connection * len(self._sockets)

    def close(self) -> None:
        for connection in self._sockets:
            connection.close()


def _send_all(connection: socket.socket, data: bytes) -> None:
    connection.sendall(data)


def receive_from_all(sockets: list[socket.socket], size: int) -> None:
    """Reads ``size`` bytes from each socket."""
    selector = selectors.DefaultSelector()
    left = dict.fromkeys(sockets, size)
    for connection in sockets:
        selector.register(connection, selectors.EVENT_READ, connection)
    waiting = len(sockets)
    deadline = time.monotonic() + TIME_LIMIT
    while waiting:
        for key, _ in selector.select(1.0):
            connection = key.data
            received = len(connection.recv(1 << 18))
            if not received:
                raise ConnectionError("the server closed")
            left[connection] -= received
            if left[connection] <= 0:
                selector.unregister(connection)
                waiting -= 1
        if time.monotonic() > deadline:
            raise TimeoutError("the server did not deliver")
    selector.close()
