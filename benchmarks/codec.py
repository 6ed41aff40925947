"""The codec without I/O: parsing a client's messages and serialising a server's."""

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from typing import cast
from unittest.mock import patch

import websockets.frames
from aiohttp._websocket.reader_c import WebSocketDataQueue, WebSocketReader
from websockets.frames import Frame
from websockets.frames import Opcode as WebsocketsOpcode
from websockets.protocol import SERVER, Protocol, State
from wsproto import ConnectionType
from wsproto import events as wsproto_events
from wsproto.connection import Connection as WsprotoConnection

from benchmarks.common import OURS, Report, interleaved, options
from benchmarks.masking import pure_websockets
from rfc6455 import BinaryMessage, Connection, Opcode, Role, TextMessage, encode_frame, masking

SIZES = [32, 125, 1 << 10, 1 << 16, 1 << 20]
READ = 1 << 18  # bytes per read: the maximum of asyncio
LIMIT = 1 << 24

Chunks = list[bytes]
WsprotoMessage = wsproto_events.TextMessage | wsproto_events.BytesMessage

# The chunks contain only messages, so the parsers below cast their events once per chunk. A check of each
# event would count as time of the parser.


def ours(chunks: Chunks) -> int:
    """Pulls each message and reads its data."""
    connection = Connection(Role.SERVER, max_message_size=LIMIT)
    count = 0
    for chunk in chunks:
        connection.receive_data(chunk)
        for event in cast("Iterable[TextMessage | BinaryMessage]", connection.events()):
            count += len(event.data) >= 0
    return count


def websockets_parse(chunks: Chunks) -> int:
    """The protocol of websockets returns frames. Text is decoded here, as its connection class does."""
    protocol = Protocol(SERVER, state=State.OPEN, max_size=LIMIT)
    count = 0
    for chunk in chunks:
        protocol.receive_data(chunk)
        for frame in cast("Iterable[Frame]", protocol.events_received()):
            if frame.opcode is WebsocketsOpcode.TEXT:
                frame.data.decode()  # type: ignore[union-attr]  # bytes in a received frame
            count += 1
    return count


_pure_mask = pure_websockets()


def pure_websockets_parse(chunks: Chunks) -> int:
    """The same, without its C extension."""
    with patch.object(websockets.frames, "apply_mask", _pure_mask):
        return websockets_parse(chunks)


def wsproto_parse(chunks: Chunks) -> int:
    """wsproto returns a large message in pieces, which the caller has to join."""
    connection = WsprotoConnection(ConnectionType.SERVER)
    count = 0
    for chunk in chunks:
        connection.receive_data(chunk)
        for event in cast("Iterable[WsprotoMessage]", connection.events()):
            count += event.message_finished
    return count


class _Protocol:
    """The part of a protocol that aiohttp's queue uses."""

    _reading_paused = False

    def pause_reading(self) -> None:
        """Is not called: the limit of the queue is too large."""

    def resume_reading(self) -> None:
        """Is not called either."""


_loop = asyncio.new_event_loop()


def aiohttp_parse(chunks: Chunks) -> int:
    """aiohttp's compiled reader puts messages into its queue; they are counted there."""
    queue = WebSocketDataQueue(_Protocol(), 1 << 30, loop=_loop)
    reader = WebSocketReader(queue, LIMIT, False, True)
    count = 0
    for chunk in chunks:
        reader.feed_data(chunk)
        count += len(queue._buffer)
        queue._buffer.clear()
    return count


PARSERS: dict[str, Callable[[Chunks], int]] = {
    OURS: ours,
    "websockets": websockets_parse,
    "websockets, pure": pure_websockets_parse,
    "wsproto": wsproto_parse,
    "aiohttp": aiohttp_parse,
}

TARGETS: dict[int, dict[str, float]] = {
    32: {"wsproto": 9, "websockets": 2.5, "aiohttp": 1},
    125: {"wsproto": 9, "websockets": 2.5, "aiohttp": 1},
    1 << 10: {"wsproto": 3.3, "websockets": 1.1},
    1 << 16: {"wsproto": 1.25, "websockets, pure": 1.5},
    1 << 20: {"wsproto": 1.25, "websockets, pure": 1.5},
}


def ours_send(text: str, count: int) -> None:
    """Takes the buffers of each message separately."""
    connection = Connection(Role.SERVER)
    for _ in range(count):
        connection.send_text(text)
        connection.buffers_to_send()


def websockets_send(text: str, count: int) -> None:
    """The protocol of websockets takes bytes: its connection class encodes text. It returns buffers too."""
    protocol = Protocol(SERVER, state=State.OPEN)
    for _ in range(count):
        protocol.send_text(text.encode())
        protocol.data_to_send()


def wsproto_send(text: str, count: int) -> None:
    """wsproto takes an event and returns bytes."""
    connection = WsprotoConnection(ConnectionType.SERVER)
    for _ in range(count):
        connection.send(wsproto_events.TextMessage(data=text))


SENDERS = {OURS: ours_send, "websockets": websockets_send, "wsproto": wsproto_send}


def main() -> None:
    """Prints messages per second, and the ratios."""
    args = options(__doc__)
    with patch.object(masking, "_numpy", lambda: None):  # the standard library alone
        measure_all("codec", TARGETS, args.quick)
    measure_all("codec-speed", TARGETS | {size: {"websockets": 1} for size in (1 << 16, 1 << 20)}, args.quick)


def measure_all(report_name: str, targets: dict[int, dict[str, float]], quick: bool) -> None:
    """Measures all cases, with numpy or without, as it is set up now."""
    rounds = 5 if quick else 31
    report = Report(report_name, "messages per second of CPU time", quick=quick, less_is_better=False)
    for kind, opcode in (("text", Opcode.TEXT), ("binary", Opcode.BINARY)):
        for size in SIZES:
            count = max(16, 6_000_000 // (size + 600))
            payload = (b"The quick brown fox " * (size // 20 + 1))[:size]
            wire = b"".join(encode_frame(opcode, payload, mask_key=os.urandom(4)) for _ in range(count))
            chunks = [wire[start : start + READ] for start in range(0, len(wire), READ)]

            def measure(name: str, chunks: Chunks = chunks, count: int = count) -> float:
                begin = time.process_time()
                assert PARSERS[name](chunks) == count
                return count / (time.process_time() - begin)

            figures = interleaved(list(PARSERS), rounds, measure, f"parse {kind} {size}")
            report.add(f"parse {kind} {size} B", figures, targets[size])
    for size in SIZES:
        text = "x" * size
        count = max(16, 20_000_000 // (size + 2000))

        def measure_send(name: str, text: str = text, count: int = count) -> float:
            begin = time.process_time()
            SENDERS[name](text, count)
            return count / (time.process_time() - begin)

        figures = interleaved(list(SENDERS), rounds, measure_send, f"serialise {size}")
        report.add(f"serialise text {size} B", figures, {"websockets": 5 if size <= 1024 else 2})
    report.finish()


if __name__ == "__main__":
    main()
