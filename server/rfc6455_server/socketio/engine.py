"""Engine.IO, protocol version 4, for a server: packets, and one session over polling and WebSocket.

Implements: https://github.com/socketio/engine.io-protocol, the formats, the heartbeat, the upgrade.
Left to others: HTTP and WebSocket, the table of the sessions, the clock (``now`` is seconds of any clock
that only goes forward), what the messages mean (`packets`).

A packet on a WebSocket is one message: its digit and its data as text, or a message's bytes as they are.
A payload, the body of a polling request or response, is packets with U+001E between them, bytes as ``b``
and their base64.

How to drive a session: tell it what comes (`EngineSession.receive_message`, `EngineSession.start_poll` and
their like); at `EngineSession.next_deadline` call `EngineSession.check`; and after each call

    for event in session.events(): ...
    for packet in session.take("websocket"):            # when there is a WebSocket, probing or active
        websocket.send(encode_packet(packet))
    if packets := session.take("polling"):              # empty: there is no GET, or nothing to answer it
        answer_the_get(encode_payload(packets))
    for event in session.events(): ...                  # what was taken may have been the last

The states of the session:

    OPEN     to CLOSING  `close`; what is queued is still to be taken
    OPEN     to CLOSED   the client closed; a transport is lost; no pong in time; a violation
    CLOSING  to CLOSED   all is taken; a transport is lost; the close time-out

`SessionClosed` is yielded on the way into CLOSED, and only there. The caller then closes the WebSocket.

The states of an upgrade, which polling survives until its last step:

    NONE     to OPENED   `start_probe`: a WebSocket came for a session that polls
    OPENED   to PROBED   the client sent "2probe" on it; "3probe" is to be taken for it, and from now on each
                         GET is answered at once, with a noop if need be: the client lets polling run dry
    PROBED   to NONE     the client sent "5": the WebSocket is the session's transport now
    any      to NONE     anything else came on it, it was lost, or the time is over: `UpgradeFailed`
"""

import base64
import json
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum
from math import inf
from typing import Final, Literal, NamedTuple, TypeAlias

from rfc6455 import State, WebSocketError

Transport: TypeAlias = Literal["polling", "websocket"]

DEFAULT_PING_INTERVAL: Final = 25.0
DEFAULT_PING_TIMEOUT: Final = 20.0
DEFAULT_UPGRADE_TIMEOUT: Final = 10.0
DEFAULT_CLOSE_TIMEOUT: Final = 30.0
DEFAULT_MAX_PAYLOAD: Final = 1_000_000
"""Bytes of a polling body, as the official server has it."""
DEFAULT_MAX_BUFFER: Final = 4 << 20
"""Bytes that are queued for the client."""
DEFAULT_MAX_PACKETS: Final = 1 << 16
"""Packets of one payload: a client that polls sends all it has collected in one."""

_SEPARATOR: Final = "\x1e"


class EnginePacketType(IntEnum):
    """The packet types."""

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
    """What came is not a packet, or not possible now."""


class EnginePacket(NamedTuple):
    """A packet; only a message may have bytes for data."""

    type: EnginePacketType
    data: str | bytes = ""


_CLOSE: Final = EnginePacket(EnginePacketType.CLOSE)
_PING: Final = EnginePacket(EnginePacketType.PING)
_PONG: Final = EnginePacket(EnginePacketType.PONG)
_UPGRADE: Final = EnginePacket(EnginePacketType.UPGRADE)
_NOOP: Final = EnginePacket(EnginePacketType.NOOP)
_PROBE: Final = EnginePacket(EnginePacketType.PING, "probe")
_PROBE_ANSWER: Final = EnginePacket(EnginePacketType.PONG, "probe")


def encode_packet(packet: EnginePacket, *, binary: bool = True) -> str | bytes:
    """The WebSocket message of a packet; ``binary=False`` gives text always, bytes as base64.

    Raises `ValueError` for bytes in a packet that is no message.
    """
    type_, data = packet
    if isinstance(data, str):
        return _DIGITS[type_] + data
    if type_ is not EnginePacketType.MESSAGE:
        raise ValueError("only a message has bytes for data")
    return data if binary else "b" + base64.b64encode(data).decode()


def decode_packet(message: str | bytes) -> EnginePacket:
    """The packet in a WebSocket message, or in one part of a payload.

    Raises `EngineError` for an unknown type, no type at all, and bad base64.
    """
    if not isinstance(message, str):
        return EnginePacket(EnginePacketType.MESSAGE, message)
    type_ = _TYPES.get(message[:1])
    if type_ is not None:
        return EnginePacket(type_, message[1:])
    if message[:1] != "b":
        raise EngineError("unknown packet type", slug="bad-packet-type")
    try:
        # The official Java client breaks its base64 into lines.
        return EnginePacket(
            EnginePacketType.MESSAGE, base64.b64decode(message[1:].replace("\n", ""), validate=True)
        )
    except ValueError:
        raise EngineError("not base64", slug="bad-base64") from None


def encode_payload(packets: Iterable[EnginePacket]) -> str:
    """The body of a polling request or response.

    Raises `ValueError` as `encode_packet` does, and for U+001E in a text: it would be two packets.
    """
    parts = [str(encode_packet(packet, binary=False)) for packet in packets]
    if any(_SEPARATOR in part for part in parts):
        raise ValueError("a payload cannot carry U+001E in a text")
    return _SEPARATOR.join(parts)


def decode_payload(payload: str, *, max_packets: int = DEFAULT_MAX_PACKETS) -> list[EnginePacket]:
    """The packets of a polling body, one at least.

    Raises `EngineError` as `decode_packet` does, and above ``max_packets``, before any is decoded.
    """
    if payload.count(_SEPARATOR) >= max_packets:
        raise EngineError("too many packets in one payload", slug="too-many-packets")
    return [decode_packet(part) for part in payload.split(_SEPARATOR)]


@dataclass(slots=True)
class Message:
    """A message of the client."""

    data: str | bytes


@dataclass(slots=True)
class TransportUpgraded:
    """The WebSocket that was probing carries the session from now on."""


@dataclass(slots=True)
class UpgradeFailed:
    """The WebSocket that was probing is to be closed, and no more of it to be told to the session.

    The session goes on, by polling.
    """


@dataclass(slots=True)
class SessionClosed:
    """The session is over; the last event. The WebSocket is to be closed, and no request is served any more.

    ``reason`` is one of the official server's: ``transport close`` (the client left), ``transport error``
    (a request was lost, or came where none may), ``ping timeout``, ``parse error`` (the client broke the
    protocol), ``forced close`` (the server left).
    """

    reason: str


EngineEvent: TypeAlias = Message | TransportUpgraded | UpgradeFailed | SessionClosed


class _Upgrade(Enum):
    NONE = "none"
    OPENED = "opened"
    PROBED = "probed"


class EngineSession:
    """A client's session, without I/O: the server's end.

    ``transport``: what the opening request came by. Answer it with `handshake_packet`.
    ``now``: seconds; of the same clock as in every other call.
    ``ping_interval``: seconds from a pong (at first: from the opening) to the next ping.
    ``ping_timeout``: seconds from a ping to the last moment for its pong, whatever else comes meanwhile.
    ``upgrade_timeout``: seconds from `start_probe` until the client must have changed over.
    ``close_timeout``: seconds after `close` for the client to fetch what is queued.
    ``max_payload``: bytes of a polling response, unless a single packet is larger; the client is told, and
    keeps its own requests below it. That it did is for HTTP to see.
    ``max_buffer``: bytes of queued messages; what is sent together may go beyond where nothing else waits.
    ``max_packets``: packets of one request.
    ``upgrades``: whether a session that polls may change over to a WebSocket.

    Raises `ValueError` for a time that is not above 0 and finite, or a limit below 1.
    """

    # Slots: a server has many sessions, and most are idle.
    __slots__ = (
        "_buffered",
        "_close_deadline",
        "_close_timeout",
        "_events",
        "_heartbeat",
        "_last_poll_answer",
        "_max_buffer",
        "_max_packets",
        "_max_payload",
        "_ping_interval",
        "_ping_timeout",
        "_polling",
        "_pong_due",
        "_probe_answer_due",
        "_queue",
        "_state",
        "_transport",
        "_upgrade",
        "_upgrade_deadline",
        "_upgrade_timeout",
        "_upgrades",
        "sid",
    )

    def __init__(
        self,
        sid: str,
        transport: Transport,
        now: float,
        *,
        ping_interval: float = DEFAULT_PING_INTERVAL,
        ping_timeout: float = DEFAULT_PING_TIMEOUT,
        upgrade_timeout: float = DEFAULT_UPGRADE_TIMEOUT,
        close_timeout: float = DEFAULT_CLOSE_TIMEOUT,
        max_payload: int = DEFAULT_MAX_PAYLOAD,
        max_buffer: int = DEFAULT_MAX_BUFFER,
        max_packets: int = DEFAULT_MAX_PACKETS,
        upgrades: bool = True,
    ) -> None:
        times = (ping_interval, ping_timeout, upgrade_timeout, close_timeout)
        if not all(0 < time < inf for time in times):
            raise ValueError("a time is above 0, and finite")
        if min(max_payload, max_buffer, max_packets) < 1:
            raise ValueError("a limit is at least 1")
        self.sid = sid
        self._ping_interval = ping_interval
        self._ping_timeout = ping_timeout
        self._upgrade_timeout = upgrade_timeout
        self._close_timeout = close_timeout
        self._max_payload = max_payload
        self._max_buffer = max_buffer
        self._max_packets = max_packets
        self._upgrades = upgrades and transport == "polling"

        self._state = State.OPEN
        self._transport: Transport = transport
        self._polling = False  # a GET waits for its answer
        self._last_poll_answer = _CLOSE  # what a GET is told when the session is over
        self._upgrade = _Upgrade.NONE
        self._upgrade_deadline = 0.0
        self._probe_answer_due = False
        self._close_deadline = 0.0
        # When the next ping is due, or, while one is out, the last moment for its pong.
        self._heartbeat = now + ping_interval
        self._pong_due = False
        # With the bytes of each.
        self._queue: deque[tuple[EnginePacket, int]] = deque()
        self._buffered = 0
        self._events: deque[EngineEvent] = deque()

    @property
    def state(self) -> State:
        """OPEN, CLOSING while the client has still to fetch what is queued, or CLOSED."""
        return self._state

    @property
    def transport(self) -> Transport:
        """What carries the session; during an upgrade still ``polling``."""
        return self._transport

    @property
    def upgrading(self) -> bool:
        """Whether a WebSocket is probing."""
        return self._upgrade is not _Upgrade.NONE

    @property
    def buffered(self) -> int:
        """Bytes that are queued."""
        return self._buffered

    @property
    def sends_directly(self) -> bool:
        """Whether a message that the caller encodes and writes to the WebSocket itself keeps its place.

        So that a broadcast can be encoded once for all sessions.
        """
        nothing_waits = not self._queue and not self._probe_answer_due
        return self._state is State.OPEN and self._transport == "websocket" and nothing_waits

    def handshake_packet(self) -> EnginePacket:
        """The packet that answers the opening request; times in it are milliseconds."""
        settings = {
            "sid": self.sid,
            "upgrades": ["websocket"] if self._upgrades else [],
            "pingInterval": round(self._ping_interval * 1000),
            "pingTimeout": round(self._ping_timeout * 1000),
            "maxPayload": self._max_payload,
        }
        return EnginePacket(EnginePacketType.OPEN, json.dumps(settings, separators=(",", ":")))

    # What comes from the client.

    def receive_message(self, message: str | bytes, now: float) -> None:
        """Takes a message of the WebSocket, the probing or the active one.

        Raises `EngineError`, and nothing has changed, when the session has no WebSocket: close that one.
        """
        if self._state is State.CLOSED:
            return
        if self._transport == "polling" and self._upgrade is _Upgrade.NONE:
            raise EngineError("the session has no WebSocket", slug="wrong-transport")
        self.check(now)
        if self._transport == "polling":
            # The check may have been the end of the upgrade, and of the session.
            if self._upgrade is not _Upgrade.NONE:
                self._receive_probe(message)
            return
        try:
            self._receive(decode_packet(message), now)
        except EngineError:
            self.fail("parse error")

    def receive_payload(self, body: bytes, now: float) -> None:
        """Takes the body of a POST.

        Raises `EngineError`, and nothing has changed, when the session is over or does not poll any more:
        answer 400. A body that is wrong itself ends the session.
        """
        self._check_polls()
        self.check(now)
        try:
            packets = decode_payload(body.decode(), max_packets=self._max_packets)
            for packet in packets:
                self._receive(packet, now)
        except (EngineError, UnicodeDecodeError):
            self.fail("parse error")

    def start_poll(self, now: float) -> None:
        """Says that a GET has come; `take` will say what answers it.

        Raises `EngineError`, for a 400, when the session is over or does not poll any more, and when
        another GET waits: that ends the session.
        """
        self._check_polls()
        self.check(now)
        if self._polling:
            self.fail("transport error")
            raise EngineError("another GET of the session waits", slug="poll-overlap")
        self._polling = True

    def lose_poll(self) -> None:
        """Says that the connection of the GET that waits is lost, and with it the session."""
        if self._polling:
            self._polling = False
            if self._transport == "polling":
                self.fail("transport error")

    def start_probe(self, now: float) -> None:
        """Says that a WebSocket has come for this session.

        Raises `EngineError` unless the session is open, polls, allows upgrades and has no WebSocket yet:
        refuse that one.
        """
        self.check(now)
        if self._state is not State.OPEN or not self._upgrades:
            raise EngineError("no WebSocket for this session", slug="no-upgrade")
        if self._transport == "websocket" or self._upgrade is not _Upgrade.NONE:
            raise EngineError("the session has a WebSocket", slug="already-upgraded")
        self._upgrade = _Upgrade.OPENED
        self._upgrade_deadline = now + self._upgrade_timeout

    def lose_websocket(self, *, error: bool = False) -> None:
        """Says that the WebSocket is closed; ``error`` when it was not closed in order."""
        if self._transport == "websocket":
            self.fail("transport error" if error else "transport close")
        else:
            self._give_up_probe()

    def _check_polls(self) -> None:
        if self._state is State.CLOSED:
            raise EngineError("the session is over", slug="closed")
        if self._transport != "polling":
            raise EngineError("the session does not poll any more", slug="wrong-transport")

    def _receive(self, packet: EnginePacket, now: float) -> None:
        """Takes a packet of the active transport; raises `EngineError` when it may not come."""
        if self._state is State.CLOSED:
            return
        if packet.type is EnginePacketType.CLOSE:
            # Who has said that it leaves needs not be told.
            self._last_poll_answer = _NOOP
            self.fail("transport close")
        elif self._state is State.CLOSING:
            return
        elif packet.type is EnginePacketType.MESSAGE:
            self._events.append(Message(packet.data))
        elif packet == _PONG and self._pong_due:
            self._pong_due = False
            self._heartbeat = now + self._ping_interval
        else:
            raise EngineError("a packet that may not come here", slug="unexpected-packet")

    def _receive_probe(self, message: str | bytes) -> None:
        try:
            packet = decode_packet(message)
        except EngineError:
            packet = None
        if packet == _PROBE and self._upgrade is _Upgrade.OPENED:
            self._upgrade = _Upgrade.PROBED
            self._probe_answer_due = True
        elif packet == _UPGRADE and self._upgrade is _Upgrade.PROBED:
            self._upgrade = _Upgrade.NONE
            self._transport = "websocket"
            self._events.append(TransportUpgraded())
        else:
            self._give_up_probe()

    def _give_up_probe(self) -> None:
        if self._upgrade is not _Upgrade.NONE:
            self._upgrade = _Upgrade.NONE
            self._probe_answer_due = False
            self._events.append(UpgradeFailed())

    # What goes to the client.

    def send(self, *messages: str | bytes) -> None:
        """Queues messages, all of them or none.

        Raises `EngineError` when the session is not open, or when more than ``max_buffer`` bytes would be
        queued; `ValueError` for a text with U+001E or a lone surrogate.
        """
        if self._state is not State.OPEN:
            raise EngineError("the session is over", slug="closed")
        if any(isinstance(message, str) and _SEPARATOR in message for message in messages):
            raise ValueError("polling cannot carry U+001E in a text")
        packets = [EnginePacket(EnginePacketType.MESSAGE, message) for message in messages]
        sizes = [_size(packet) for packet in packets]
        if self._buffered and self._buffered + sum(sizes) > self._max_buffer:
            raise EngineError("too much is queued", slug="buffer-full")
        self._queue.extend(zip(packets, sizes, strict=True))
        self._buffered += sum(sizes)

    def take(self, transport: Transport) -> list[EnginePacket]:
        """What is to be written to that transport now, in order; it counts as sent.

        For ``polling``, what is not empty answers the GET that waits, and is at most ``max_payload`` bytes
        unless a single packet is larger.
        """
        if transport == "websocket":
            return self._take_for_websocket()
        return self._take_for_poll() if self._polling else []

    def _take_for_websocket(self) -> list[EnginePacket]:
        packets = [_PROBE_ANSWER] if self._probe_answer_due else []
        self._probe_answer_due = False
        if self._transport == "websocket":
            packets += [packet for packet, _ in self._queue]
            self._clear_queue()
            if self._state is State.CLOSING:
                # The closing handshake of the WebSocket says it.
                self._end("forced close")
        return packets

    def _take_for_poll(self) -> list[EnginePacket]:
        packets: list[EnginePacket] = []
        if self._state is State.CLOSED:
            packets.append(self._last_poll_answer)
        elif self._transport == "websocket":
            packets.append(_NOOP)
        else:
            room = self._max_payload + 1  # of the separators there is one less
            while self._queue and (not packets or self._queue[0][1] <= room):
                packet, size = self._queue.popleft()
                packets.append(packet)
                room -= size
                self._buffered -= size
            if not self._queue:
                if self._state is State.CLOSING and (not packets or room >= _size(_CLOSE)):
                    packets.append(_CLOSE)
                    self._end("forced close")
                elif not packets and self._upgrade is _Upgrade.PROBED:
                    packets.append(_NOOP)
        self._polling = not packets
        return packets

    def _clear_queue(self) -> None:
        self._queue.clear()
        self._buffered = 0

    # The time, the end, the events.

    @property
    def next_deadline(self) -> float | None:
        """When `check` is to be called at the latest, in seconds of the clock; ``None`` when never."""
        if self._state is State.CLOSED:
            return None
        deadline = self._heartbeat if self._state is State.OPEN else self._close_deadline
        return deadline if self._upgrade is _Upgrade.NONE else min(deadline, self._upgrade_deadline)

    def check(self, now: float) -> None:
        """Does what the time asks for: queues a ping, gives up an upgrade, ends the session."""
        if self._upgrade is not _Upgrade.NONE and now >= self._upgrade_deadline:
            self._give_up_probe()
        if self._state is State.CLOSING and now >= self._close_deadline:
            self._end("forced close")
        elif self._state is State.OPEN and now >= self._heartbeat:
            if self._pong_due:
                self.fail("ping timeout")
            else:
                # From now on, not from when it was due: the client is not to pay for our delay.
                self._queue.append((_PING, _size(_PING)))
                self._buffered += _size(_PING)
                self._pong_due = True
                self._heartbeat = now + self._ping_timeout

    def close(self, now: float) -> None:
        """Ends the session in order: what is queued is still to be taken, and nothing more is received.

        Over polling, the client is told with the last of it.
        """
        if self._state is State.OPEN:
            self._state = State.CLOSING
            self._close_deadline = now + self._close_timeout

    def fail(self, reason: str = "transport error") -> None:
        """Ends the session at once; what is queued is dropped."""
        if self._state is not State.CLOSED:
            self._end("forced close" if self._state is State.CLOSING else reason)

    def _end(self, reason: str) -> None:
        self._state = State.CLOSED
        self._upgrade = _Upgrade.NONE
        self._probe_answer_due = False
        self._clear_queue()
        self._events.append(SessionClosed(reason))

    def next_event(self) -> EngineEvent | None:
        """The next event, or ``None`` when there is none yet."""
        return self._events.popleft() if self._events else None

    def events(self) -> Iterator[EngineEvent]:
        """The events that are there."""
        return iter(self.next_event, None)


def _size(packet: EnginePacket) -> int:
    """Bytes of a packet in a payload, with a separator."""
    data = packet.data
    if not isinstance(data, str):
        return 2 + (len(data) + 2) // 3 * 4
    return 2 + (len(data) if data.isascii() else len(data.encode()))
