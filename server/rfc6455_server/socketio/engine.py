"""Engine.IO, protocol version 4, for a server: one session over polling and WebSocket.

Implements: https://github.com/socketio/engine.io-protocol, the heartbeat, the upgrade, the close.
Left to others: the formats (`engine_packets`), HTTP and WebSocket, the table of sessions, the clock (``now``
is seconds of any clock that only goes forward), what the messages mean (`packets`).

To drive a session, call its methods as things happen (`EngineSession.receive_message`,
`EngineSession.start_poll`, …), call `EngineSession.check_deadlines` at `EngineSession.next_deadline`, and
after each call

    for event in session.events(): ...
    for packet in session.packets_to_send("websocket"):   # if there is a WebSocket, probing or active
        websocket.send(encode_packet(packet))
    if packets := session.packets_to_send("polling"):     # empty: no GET waits, or nothing answers it
        answer_the_get(encode_payload(packets))
    for event in session.events(): ...                    # sending the last packet may end the session

The queue has no limit of its own: the caller sees how much is ``buffered``, and bounds it. While the caller
does not read from the client, because its handlers are behind, it sets ``held_back``.

The states of the session:

    OPEN     to CLOSING  `close` was called; queued packets are still sent
    OPEN     to CLOSED   the client closed; a transport was lost; no PONG in time; a violation
    CLOSING  to CLOSED   all packets are sent; a transport was lost; the close timeout

`SessionClosed` is the last event. The caller then closes the WebSocket.

The states of an upgrade, during which the session polls until the last step:

    NONE     to OPENED   `start_probe`: a WebSocket was opened for a session that polls
    OPENED   to PROBED   the client sent "2probe" on it, which is answered with "3probe"; from now on a GET is
                         answered with a NOOP if nothing is queued, so that the client can stop polling: the
                         first at once, further ones 100 ms later, so that GETs do not follow each other
                         without end if the WebSocket is lost now
    PROBED   to NONE     the client sent "5": the WebSocket is the session's transport now
    any      to NONE     the client sent anything else on it, it was lost, or time is up: `UpgradeFailed`
"""

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Final, Literal, TypeAlias

from rfc6455 import State
from rfc6455_server.socketio.engine_packets import (
    DEFAULT_MAX_PACKETS,
    SEPARATOR,
    EngineError,
    EnginePacket,
    EnginePacketType,
    decode_packet,
    decode_payload,
    payload_size,
)

Transport: TypeAlias = Literal["polling", "websocket"]

DEFAULT_PING_INTERVAL: Final = 25.0
DEFAULT_PING_TIMEOUT: Final = 20.0
DEFAULT_UPGRADE_TIMEOUT: Final = 10.0
DEFAULT_CLOSE_TIMEOUT: Final = 30.0
DEFAULT_MAX_PAYLOAD: Final = 1_000_000
"""Maximum bytes of a payload; the official server's default."""
NOOP_INTERVAL: Final = 0.1
"""Seconds between two GETs that are answered with a NOOP during an upgrade."""
PACKET_COST: Final = 256
"""Bytes counted for a queued packet besides its payload: for the objects that hold it."""

_CLOSE: Final = EnginePacket(EnginePacketType.CLOSE)
_PING: Final = EnginePacket(EnginePacketType.PING)
_PONG: Final = EnginePacket(EnginePacketType.PONG)
_UPGRADE: Final = EnginePacket(EnginePacketType.UPGRADE)
_NOOP: Final = EnginePacket(EnginePacketType.NOOP)
_PROBE: Final = EnginePacket(EnginePacketType.PING, "probe")
_PROBE_ANSWER: Final = EnginePacket(EnginePacketType.PONG, "probe")


@dataclass(slots=True)
class Message:
    """A message from the client."""

    data: str | bytes


@dataclass(slots=True)
class TransportUpgraded:
    """The probing WebSocket is the session's transport from now on."""


@dataclass(slots=True)
class UpgradeFailed:
    """The session continues to poll. Close the probing WebSocket, and pass on nothing more from it."""


@dataclass(slots=True)
class SessionClosed:
    """The session has ended; the last event. Close the WebSocket, and serve no more requests.

    ``reason`` is one of the official server's: ``transport close`` (the client closed, or its WebSocket was
    lost), ``transport error`` (a request was lost, or was not allowed), ``ping timeout``, ``parse error``
    (the client violated the protocol), ``forced close`` (the server closed), ``server shutting down``; or
    what the caller gave to `EngineSession.fail`.
    """

    reason: str


EngineEvent: TypeAlias = Message | TransportUpgraded | UpgradeFailed | SessionClosed


class _Upgrade(Enum):
    NONE = "none"
    OPENED = "opened"
    PROBED = "probed"


class EngineSession:
    """The server's side of one client's session, without I/O.

    ``transport``: that of the opening request, which is answered with `handshake_packet`.
    ``now``: seconds, of the same clock in every call.
    ``ping_interval``: seconds from a PONG, or from the opening, to the next PING.
    ``ping_timeout``: seconds from a PING within which its PONG must arrive; other packets do not count.
    ``upgrade_timeout``: seconds from `start_probe` within which the client must complete the upgrade.
    ``close_timeout``: seconds after `close` within which the client must fetch what is queued.
    ``max_payload``: maximum bytes of a response to a GET, unless a single packet is larger. The handshake
    tells the client to keep its POST bodies below it; the caller must check that it does.
    ``max_packets``: maximum packets of one POST body.
    ``upgrades``: whether a session that polls may be upgraded to a WebSocket.

    Raises `ValueError` for a time that is not above 0 and finite, or a limit below 1.
    """

    __slots__ = (
        "_buffered",
        "_close_deadline",
        "_close_reason",
        "_close_timeout",
        "_events",
        "_heartbeat",
        "_last_poll_answer",
        "_max_packets",
        "_next_noop",
        "_now",
        "_ping_interval",
        "_ping_timeout",
        "_polling",
        "_pongs_due",
        "_probe_answer_due",
        "_queue",
        "_state",
        "_transport",
        "_upgrade",
        "_upgrade_deadline",
        "_upgrade_timeout",
        "_upgrades",
        "held_back",
        "max_payload",
        "max_poll_packets",
        "opened_at",
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
        max_packets: int = DEFAULT_MAX_PACKETS,
        upgrades: bool = True,
    ) -> None:
        times = (ping_interval, ping_timeout, upgrade_timeout, close_timeout)
        if not all(0 < time < inf for time in times):
            raise ValueError("a time must be above 0 and finite")
        if min(max_payload, max_packets) < 1:
            raise ValueError("a limit must be at least 1")
        self.sid = sid
        self.opened_at = now
        self._ping_interval = ping_interval
        self._ping_timeout = ping_timeout
        self._upgrade_timeout = upgrade_timeout
        self._close_timeout = close_timeout
        self.max_payload = max_payload
        self.max_poll_packets = max_packets
        """Maximum packets of a response to a GET: some clients take few."""
        self._max_packets = max_packets
        self._upgrades = upgrades and transport == "polling"

        self._state = State.OPEN
        self._transport: Transport = transport
        self._polling = False  # whether a GET waits for its answer
        self._last_poll_answer = _CLOSE  # answers a GET after the end of the session
        self._upgrade = _Upgrade.NONE
        self._upgrade_deadline = 0.0
        self._next_noop = 0.0  # when a GET may be answered with a NOOP, once PROBED
        self._probe_answer_due = False
        self._close_deadline = 0.0
        self._close_reason = "forced close"
        # When the next PING is due, or, while `_pongs_due`, the deadline for the PONG.
        self._heartbeat = now + ping_interval
        self._now = now  # of the last call that passed the time
        self._pongs_due = 0
        self.held_back = False
        """Whether the caller has stopped reading from the client; until it goes on, no PONG is overdue."""
        self._queue: deque[tuple[EnginePacket, int]] = deque()  # packets and their sizes in bytes
        self._buffered = 0
        self._events: deque[EngineEvent] = deque()

    @property
    def state(self) -> State:
        """OPEN, CLOSING while queued packets are still sent, or CLOSED."""
        return self._state

    @property
    def transport(self) -> Transport:
        """The transport in use; during an upgrade still ``polling``."""
        return self._transport

    @property
    def upgrading(self) -> bool:
        """Whether a WebSocket is probing."""
        return self._upgrade is not _Upgrade.NONE

    @property
    def buffered(self) -> int:
        """Bytes that the queued packets count for: their payload, and `PACKET_COST` for each."""
        return self._buffered + PACKET_COST * len(self._queue)

    @property
    def sends_directly(self) -> bool:
        """Whether the caller may write a message to the WebSocket itself: nothing queued must precede it.

        So a broadcast is encoded once for all sessions.
        """
        empty = not self._queue and not self._probe_answer_due
        return self._state is State.OPEN and self._transport == "websocket" and empty

    def handshake_packet(self) -> EnginePacket:
        """Returns the packet that answers the opening request; its times are in milliseconds."""
        settings = {
            "sid": self.sid,
            "upgrades": ["websocket"] if self._upgrades else [],
            "pingInterval": round(self._ping_interval * 1000),
            "pingTimeout": round(self._ping_timeout * 1000),
            "maxPayload": self.max_payload,
        }
        return EnginePacket(EnginePacketType.OPEN, json.dumps(settings, separators=(",", ":")))

    # Receiving.

    def receive_message(self, message: str | bytes, now: float) -> None:
        """Handles a message of the WebSocket, probing or active.

        Raises `EngineError`, and changes nothing, if the session has no WebSocket; close this one then.
        """
        if self._state is State.CLOSED:
            return
        if self._transport == "polling" and self._upgrade is _Upgrade.NONE:
            raise EngineError("the session has no WebSocket", slug="wrong-transport")
        self.check_deadlines(now)
        if self._transport == "polling":
            # A deadline may just have ended the upgrade, or the session.
            if self._upgrade is not _Upgrade.NONE:
                self._receive_probe(message)
            return
        try:
            self._receive(decode_packet(message), now)
        except EngineError:
            self.fail("parse error")

    def receive_payload(self, body: bytes, now: float) -> None:
        """Handles a POST body, whole: see `start_payload`."""
        for packet in self.start_payload(body, now):
            self.receive_packet(packet, now)

    def start_payload(self, body: bytes, now: float) -> Iterator[EnginePacket]:
        """Returns an iterator over the packets of a POST body, which `receive_packet` handles.

        The caller may let others run between two packets. A malformed packet ends the session in its turn,
        and the iterator. Raises `EngineError`, and changes nothing, if the session is closed or no longer
        polls: answer 400.
        """
        self._check_polls()
        self.check_deadlines(now)
        return self._decode(body)

    def _decode(self, body: bytes) -> Iterator[EnginePacket]:
        try:
            yield from decode_payload(body.decode(), max_packets=self._max_packets)
        except (EngineError, UnicodeDecodeError):
            self.fail("parse error")

    def receive_packet(self, packet: EnginePacket, now: float) -> None:
        """Handles a packet of a POST body. One that is not allowed now ends the session."""
        try:
            self._receive(packet, now)
        except EngineError:
            self.fail("parse error")

    def start_poll(self, now: float) -> None:
        """Handles a GET; `packets_to_send` returns what answers it.

        Raises `EngineError` if the session is closed, no longer polls, or another GET waits, which ends the
        session: answer 400.
        """
        self._check_polls()
        self.check_deadlines(now)
        if self._polling:
            self.fail("transport error")
            raise EngineError("another GET of this session waits", slug="poll-overlap")
        self._polling = True

    def lose_poll(self) -> None:
        """Handles the lost connection of a GET, which ends the session."""
        if self._polling:
            self._polling = False
            if self._transport == "polling":
                self.fail("transport error")

    def start_probe(self, now: float) -> None:
        """Handles a WebSocket that was opened for this session.

        Raises `EngineError` unless the session is open, polls, allows upgrades and has no WebSocket yet;
        close this one then.
        """
        self.check_deadlines(now)
        if self._state is not State.OPEN or not self._upgrades:
            raise EngineError("this session cannot be upgraded", slug="no-upgrade")
        if self._transport == "websocket" or self._upgrade is not _Upgrade.NONE:
            raise EngineError("the session already has a WebSocket", slug="already-upgraded")
        self._upgrade = _Upgrade.OPENED
        self._upgrade_deadline = now + self._upgrade_timeout

    def lose_websocket(self, reason: str = "transport close") -> None:
        """Handles the end of the WebSocket, whether it was closed or lost."""
        if self._transport == "websocket":
            self.fail(reason)
        else:
            self._fail_upgrade()

    def _check_polls(self) -> None:
        if self._state is State.CLOSED:
            raise EngineError("the session is closed", slug="closed")
        if self._transport != "polling":
            raise EngineError("the session no longer polls", slug="wrong-transport")

    def _receive(self, packet: EnginePacket, now: float) -> None:
        """Handles a packet of the active transport; raises `EngineError` if it is not allowed now."""
        if self._state is State.CLOSED:
            return
        if packet.type is EnginePacketType.CLOSE:
            # The client knows that the session ends.
            self._last_poll_answer = _NOOP
            self.fail("transport close")
        elif self._state is State.CLOSING:
            return
        elif packet.type is EnginePacketType.MESSAGE:
            self._events.append(Message(packet.data))
        elif packet == _PONG and self._pongs_due:
            self._pongs_due -= 1
            if not self._pongs_due:
                self._heartbeat = now + self._ping_interval
        else:
            raise EngineError("a packet that is not allowed now", slug="unexpected-packet")

    def _receive_probe(self, message: str | bytes) -> None:
        try:
            packet = decode_packet(message)
        except EngineError:
            packet = None
        if packet == _PROBE and self._upgrade is _Upgrade.OPENED:
            self._upgrade = _Upgrade.PROBED
            self._next_noop = self._now
            self._probe_answer_due = True
        elif packet == _UPGRADE and self._upgrade is _Upgrade.PROBED:
            self._upgrade = _Upgrade.NONE
            self._transport = "websocket"
            self._events.append(TransportUpgraded())
        else:
            self._fail_upgrade()

    def _fail_upgrade(self) -> None:
        if self._upgrade is not _Upgrade.NONE:
            self._upgrade = _Upgrade.NONE
            self._probe_answer_due = False
            self._events.append(UpgradeFailed())

    # Sending.

    def send(self, *messages: str | bytes) -> None:
        """Queues messages, all of them or none.

        Raises `EngineError` if the session is not open, and `ValueError` for text with U+001E or a lone
        surrogate.
        """
        if self._state is not State.OPEN:
            raise EngineError("the session is closed", slug="closed")
        if any(isinstance(message, str) and SEPARATOR in message for message in messages):
            raise ValueError("polling cannot carry text with U+001E")
        packets = [EnginePacket(EnginePacketType.MESSAGE, message) for message in messages]
        sizes = [payload_size(packet) for packet in packets]
        self._queue.extend(zip(packets, sizes, strict=True))
        self._buffered += sum(sizes)

    def packets_to_send(self, transport: Transport) -> list[EnginePacket]:
        """Removes the packets that can be sent over ``transport`` now from the queue, and returns them.

        For ``polling``, they answer the GET that waits, unless there are none. Together they are at most
        ``max_payload`` bytes, unless a single packet is larger.
        """
        if transport == "websocket":
            return self._packets_for_websocket()
        return self._packets_for_poll() if self._polling else []

    def _packets_for_websocket(self) -> list[EnginePacket]:
        packets = [_PROBE_ANSWER] if self._probe_answer_due else []
        self._probe_answer_due = False
        if self._transport == "websocket":
            packets += [packet for packet, _ in self._queue]
            self._clear_queue()
            if self._state is State.CLOSING:
                # The WebSocket's closing handshake tells the client.
                self._end(self._close_reason)
        return packets

    def _packets_for_poll(self) -> list[EnginePacket]:
        packets: list[EnginePacket] = []
        if self._state is State.CLOSED:
            packets.append(self._last_poll_answer)
        elif self._transport == "websocket":
            packets.append(_NOOP)
        else:
            room = self.max_payload + 1  # each size counts a separator, but the last packet has none
            places = self.max_poll_packets
            while self._queue and len(packets) < places and (not packets or self._queue[0][1] <= room):
                packet, size = self._queue.popleft()
                packets.append(packet)
                room -= size
                self._buffered -= size
            if not packets and self._state is State.CLOSING:
                # Alone: the official client drops the messages of a payload that ends with a CLOSE.
                packets.append(_CLOSE)
                self._end(self._close_reason)
            elif not packets and self._owes_noop:
                packets.append(_NOOP)
                self._next_noop = self._now + NOOP_INTERVAL
        self._polling = not packets
        return packets

    @property
    def answers_poll(self) -> bool:
        """Whether `packets_to_send` would return something for the GET that waits."""
        if not self._polling:
            return False
        left_polling = self._state is not State.OPEN or self._transport == "websocket"
        return left_polling or bool(self._queue) or self._owes_noop

    @property
    def _owes_noop(self) -> bool:
        return self._upgrade is _Upgrade.PROBED and self._now >= self._next_noop

    def _clear_queue(self) -> None:
        self._queue.clear()
        self._buffered = 0

    # Deadlines, the end, events.

    @property
    def next_deadline(self) -> float | None:
        """When `check_deadlines` must be called next, in seconds of the clock; ``None`` if never."""
        if self._state is State.CLOSED:
            return None
        deadline = self._heartbeat if self._state is State.OPEN else self._close_deadline
        if self._upgrade is _Upgrade.NONE:
            return deadline
        if self._upgrade is _Upgrade.PROBED and self._polling and not self._owes_noop:
            deadline = min(deadline, self._next_noop)
        return min(deadline, self._upgrade_deadline)

    def check_deadlines(self, now: float) -> None:
        """Queues a PING, fails the upgrade or ends the session if it is time for that."""
        self._now = now
        if self._upgrade is not _Upgrade.NONE and now >= self._upgrade_deadline:
            self._fail_upgrade()
        if self._state is State.CLOSING and now >= self._close_deadline:
            self._end(self._close_reason)
        elif self._state is State.OPEN and now >= self._heartbeat:
            if not self._pongs_due:
                self._ping(now)
            elif not self.held_back or self._queue:
                self.fail("ping timeout")  # or a client that polls has not even fetched the PING
            else:
                self._ping(now)  # the PONG may be unread, and the client waits for its next PING

    def _ping(self, now: float) -> None:
        self._queue.appendleft((_PING, payload_size(_PING)))  # what waits may take the client long
        self._buffered += payload_size(_PING)
        self._pongs_due += 1
        # Counted from now, not from when the PING was due: our delay is not the client's.
        self._heartbeat = now + self._ping_timeout

    @property
    def ping_queued(self) -> bool:
        """Whether a PING waits to be sent."""
        return bool(self._queue) and self._queue[0][0] is _PING

    def is_pong_overdue(self, now: float) -> bool:
        """Whether `check_deadlines` would end the session, unless `extend_pong` is called before."""
        return self._state is State.OPEN and self._pongs_due > 0 and now >= self._heartbeat

    def extend_pong(self, now: float) -> None:
        """Gives a PONG that is due its full time from now: the client was still taking other bytes."""
        if self._pongs_due:
            self._heartbeat = now + self._ping_timeout

    def read_on(self, now: float) -> None:
        """Ends ``held_back``: the caller reads again. A PONG that is due has its full time from now."""
        self.held_back = False
        self.extend_pong(now)

    def close(self, now: float, reason: str = "forced close") -> None:
        """Closes the session: queued packets are still sent, and what the client sends is ignored.

        Over polling, a CLOSE packet follows them, in a payload of its own. ``reason`` is that of
        `SessionClosed`.
        """
        if self._state is State.OPEN:
            self._state = State.CLOSING
            self._close_reason = reason
            self._close_deadline = now + self._close_timeout

    def fail(self, reason: str = "transport error") -> None:
        """Ends the session at once, and drops what is queued."""
        if self._state is not State.CLOSED:
            self._end(self._close_reason if self._state is State.CLOSING else reason)

    def _end(self, reason: str) -> None:
        self._state = State.CLOSED
        self._upgrade = _Upgrade.NONE
        self._probe_answer_due = False
        self._clear_queue()
        self._events.append(SessionClosed(reason))

    def next_event(self) -> EngineEvent | None:
        """Returns the next event, or ``None`` if there is none yet."""
        return self._events.popleft() if self._events else None

    def events(self) -> Iterator[EngineEvent]:
        """Yields events until there is none."""
        return iter(self.next_event, None)
