"""What `Connection.next_event` returns.

Implements: the vocabulary of RFC 6455 §5.5, §5.6 and §7.1. The events of the opening handshake are in
`handshake`, because they carry a `Connection`.

The classes are dataclasses with slots, and not frozen: freezing would double the cost of making a message.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

from rfc6455.errors import RemoteProtocolError


@dataclass(slots=True)
class TextMessage:
    """A whole text message (RFC 6455 §5.6)."""

    data: str


@dataclass(slots=True)
class BinaryMessage:
    """A whole binary message (RFC 6455 §5.6)."""

    data: bytes


@dataclass(slots=True)
class TextFragment:
    """The next piece of a text message, with ``assemble=False``; ``final`` is True on the last.

    Pieces are cut where reads end, not where the sender's frames end; no code point is split.
    """

    data: str
    final: bool


@dataclass(slots=True)
class BinaryFragment:
    """The next piece of a binary message, with ``assemble=False``; ``final`` is True on the last."""

    data: bytes
    final: bool


@dataclass(slots=True)
class Ping:
    """A Ping; the Pong is already queued (RFC 6455 §5.5.2)."""

    data: bytes


@dataclass(slots=True)
class Pong:
    """A Pong, whether or not it answers a Ping of ours (RFC 6455 §5.5.3)."""

    data: bytes


@dataclass(slots=True)
class CloseReceived:
    """The peer's Close; the reply is already queued (RFC 6455 §5.5.1).

    ``code`` is 1005 if the peer sent none (RFC 6455 §7.1.5).
    """

    code: int
    reason: str


@dataclass(slots=True)
class ConnectionFailed:
    """The peer broke the protocol (RFC 6455 §7.1.7).

    ``code`` and ``reason`` are those of the Close that is already queued, unless we had sent a Close before;
    ``error`` describes the violation and has a ``slug``.
    """

    code: int
    reason: str
    error: RemoteProtocolError


@dataclass(slots=True)
class ConnectionClosed:
    """The last event, yielded exactly once (RFC 6455 §7.1.4).

    ``code`` and ``reason`` are those of the peer's Close: 1005 if it had no code, 1006 if there was no Close
    (RFC 6455 §7.1.5, §7.1.6). ``clean``: both Closes were exchanged.
    """

    code: int
    reason: str
    clean: bool


DataEvent = TextMessage | BinaryMessage | TextFragment | BinaryFragment
Event = DataEvent | Ping | Pong | CloseReceived | ConnectionFailed | ConnectionClosed

NO_EVENTS: Final[deque[Event]] = deque(maxlen=0)
"""Shared by all connections that have no events: an empty deque of its own would hold 600 bytes."""
