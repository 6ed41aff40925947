"""Engine.IO packets and payloads, protocol version 4: how packets are written, on either transport.

Implements: https://github.com/socketio/engine.io-protocol, the formats.
Left to others: which packet is allowed when (`engine`).

On a WebSocket, a packet is one message: the digit of its type and its data as text, or, for a MESSAGE of
bytes, just the bytes. A payload, the body of a POST or of the response to a GET, is packets with U+001E
between them; bytes are written as ``b`` and their base64.
"""

import base64
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from rfc6455 import WebSocketError

DEFAULT_MAX_PACKETS: Final = 1 << 16
"""Maximum packets of one payload; a client that polls sends all that it has queued in one."""

SEPARATOR: Final = "\x1e"
"""Stands between the packets of a payload."""


class EnginePacketType(IntEnum):
    """The packet types, by their digits."""

    OPEN = 0
    CLOSE = 1
    PING = 2
    PONG = 3
    MESSAGE = 4
    UPGRADE = 5
    NOOP = 6


_TYPES: Final = {str(int(type_)): type_ for type_ in EnginePacketType}
_DIGITS: Final = {type_: digit for digit, type_ in _TYPES.items()}


class EngineError(WebSocketError):
    """The client sent what is not a packet or not allowed now, or a method was called in a wrong state."""


class EnginePacket(NamedTuple):
    """A packet. Only a MESSAGE may carry bytes."""

    type: EnginePacketType
    data: str | bytes = ""


def encode_packet(packet: EnginePacket, *, binary: bool = True) -> str | bytes:
    """Returns the WebSocket message of a packet; with ``binary=False`` always text, bytes as base64.

    Raises `ValueError` for bytes in a packet that is not a MESSAGE.
    """
    type_, data = packet
    if isinstance(data, str):
        return _DIGITS[type_] + data
    if type_ is not EnginePacketType.MESSAGE:
        raise ValueError("only a MESSAGE carries bytes")
    return data if binary else "b" + base64.b64encode(data).decode()


def decode_packet(message: str | bytes) -> EnginePacket:
    """Returns the packet in a WebSocket message, or in one part of a payload.

    Raises `EngineError` for an unknown or missing type, and for bad base64.
    """
    if not isinstance(message, str):
        return EnginePacket(EnginePacketType.MESSAGE, message)
    type_ = _TYPES.get(message[:1])
    if type_ is not None:
        return EnginePacket(type_, message[1:])
    if message[:1] != "b":
        raise EngineError("unknown packet type", slug="bad-packet-type")
    # The official Java client breaks its base64 into lines.
    text = message[1:].replace("\n", "")
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        data = None
    # RFC 4648 §4: groups of four characters. Python ignores padding after the last complete group.
    if data is None or len(text) % 4:
        raise EngineError("not base64", slug="bad-base64")
    return EnginePacket(EnginePacketType.MESSAGE, data)


def encode_payload(packets: Iterable[EnginePacket]) -> str:
    """Returns the body of a POST or of the response to a GET.

    Raises `ValueError` as `encode_packet` does, and for U+001E in a text, which would end the packet.
    """
    parts = [str(encode_packet(packet, binary=False)) for packet in packets]
    if any(SEPARATOR in part for part in parts):
        raise ValueError("a payload cannot carry text with U+001E")
    return SEPARATOR.join(parts)


def decode_payload(payload: str, *, max_packets: int = DEFAULT_MAX_PACKETS) -> Iterator[EnginePacket]:
    """Yields the packets of a payload, at least one. Each is decoded when its turn comes.

    Raises `EngineError` at once for more than ``max_packets``, and for a bad packet in its turn.
    """
    if payload.count(SEPARATOR) >= max_packets:
        raise EngineError("too many packets in one payload", slug="too-many-packets")
    return map(decode_packet, _split(payload))


def _split(payload: str) -> Iterator[str]:
    """Yields the parts of a payload; a list of 65,536 small ones would take some 4 MB."""
    start = 0
    while (end := payload.find(SEPARATOR, start)) >= 0:
        yield payload[start:end]
        start = end + 1
    yield payload[start:]


def payload_size(packet: EnginePacket) -> int:
    """Returns the bytes of a packet in a payload, with a separator."""
    data = packet.data
    if not isinstance(data, str):
        return 2 + (len(data) + 2) // 3 * 4
    return 2 + (len(data) if data.isascii() else len(data.encode()))
