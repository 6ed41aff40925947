"""What `Connection.next_event` yields.

Implements: the vocabulary of RFC 6455 §5.5, §5.6 and §7.1. The events of the opening handshake stand
with it in `handshake`, for they carry a `Connection`.

The classes are dataclasses with slots, and not frozen: freezing would double the price of each message.
"""

from dataclasses import dataclass

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

    Pieces follow what came over the network, not the sender's frames; no code point is split.
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
    """A Pong, asked for or not (RFC 6455 §5.5.3)."""

    data: bytes


@dataclass(slots=True)
class CloseReceived:
    """The peer's Close; the reply is already queued (RFC 6455 §5.5.1).

    ``code`` is 1005 when the peer gave none (RFC 6455 §7.1.5).
    """

    code: int
    reason: str


@dataclass(slots=True)
class ConnectionFailed:
    """The peer broke the protocol (RFC 6455 §7.1.7).

    ``code`` and ``reason`` are those of the Close that is already queued, unless a Close had been
    sent before; ``error`` says more, and has a ``slug``.
    """

    code: int
    reason: str
    error: RemoteProtocolError


@dataclass(slots=True)
class ConnectionClosed:
    """The end: last, exactly once (RFC 6455 §7.1.4).

    ``code`` and ``reason`` are what the peer's Close said, 1005 when it said nothing, 1006 when
    there was none (RFC 6455 §7.1.5, §7.1.6). ``clean``: both Closes were exchanged.
    """

    code: int
    reason: str
    clean: bool


DataEvent = TextMessage | BinaryMessage | TextFragment | BinaryFragment
Event = DataEvent | Ping | Pong | CloseReceived | ConnectionFailed | ConnectionClosed
