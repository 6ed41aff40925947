"""One Engine.IO session on our server: drives an `EngineSession` with a WebSocket, polling and time.

Left to others: the session's rules (`engine`), HTTP and WebSocket requests (`transports`), what the messages
mean (`clients`), what waits for a client that polls (`backlog`).

A message leaves at once if the session has a WebSocket (`Session.direct`), whose outbox bounds what waits.
Otherwise it waits in a `SessionBacklog` until the client fetches it. All that a session holds counts against
the server's budget: messages for the client, events that wait for handlers, a packet that is not complete.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from math import inf
from typing import Any, Final

from rfc6455 import CloseCode, PreparedMessage, Request, State
from rfc6455_server.clock import Timer
from rfc6455_server.logs import log
from rfc6455_server.policies import Policy
from rfc6455_server.socketio.backlog import SessionBacklog
from rfc6455_server.socketio.encoded import EncodedPacket
from rfc6455_server.socketio.engine import EngineSession, Message, SessionClosed, UpgradeFailed
from rfc6455_server.socketio.engine_packets import (
    EngineError,
    EnginePacket,
    EnginePacketType,
    encode_packet,
    encode_payload,
)
from rfc6455_server.socketio.inflow import MAX_PENDING, Inflow, Outliving, Receiver, wake
from rfc6455_server.socketio.reasons import CLOSES, TOO_SLOW, reason_of
from rfc6455_server.websocket.ending import ConnectionClosedError
from rfc6455_server.websocket.hub import Hub, Slowness
from rfc6455_server.websocket.websocket import WebSocket

_UNCHARGED: Final = 1 << 14  # bytes of events that are not worth telling the budget: 1.6 of 7 µs of an event

_TURN_PACKETS: Final = 64
_TURN_BYTES: Final = 1 << 16
"""Packets and bytes of a POST body that are handled before others have their turn."""


class Session:
    """A client's session, over the transports that it has now."""

    __slots__ = (
        "_backlog",
        "_body",
        "_charged",
        "_closed",
        "_drain_waiters",
        "_finish_missed",
        "_hub",
        "_incoming",
        "_inflow",
        "_poll",
        "_post_in_progress",
        "_timer",
        "_timer_due",
        "_websocket",
        "address",
        "binary",
        "direct",
        "engine",
        "receiver",
        "request",
        "secure",
        "user",
    )

    def __init__(
        self, engine: EngineSession, hub: Hub, address: str, closed: Callable[["Session", str], None]
    ) -> None:
        self.engine = engine
        self.address = address
        """The client's address."""
        self.secure = False
        """Whether the session was opened over TLS."""
        self.binary = True
        """Whether the client's WebSocket takes binary messages; otherwise bytes are sent as base64."""
        self.user: Any = None
        """What the server's ``authorize`` returned for the request that opened the session."""
        self.request: Request | None = None
        """The request whose message is being received: the WebSocket's, or a POST."""
        self.receiver: Receiver | None = None
        self._hub = hub
        self._closed = closed
        self._websocket: WebSocket | None = None
        self.direct: WebSocket | None = None
        """The WebSocket, while messages may be sent over it as they come."""
        self._poll: asyncio.Future[list[EnginePacket]] | None = None
        self._post_in_progress = False
        self._timer: Timer | None = None
        self._timer_due = 0.0
        self._drain_waiters: list[asyncio.Future[None]] = []
        self._backlog = SessionBacklog(hub, self._fail_too_slow)
        self._finish_missed: Callable[[], None] | None = None  # while `hold` keeps messages in the backlog
        self._inflow = Inflow(engine, hub.clock, self._awaits_acks)
        self._incoming = self._body = 0  # bytes of a packet that is not complete, of a POST that is handled
        self._charged = 0
        self._pump()

    @property
    def sid(self) -> str:
        """The session's id. It is a secret between the server and the client."""
        return self.engine.sid

    @property
    def is_open(self) -> bool:
        return self.engine.state is State.OPEN

    @property
    def dropped(self) -> int:
        """Messages that the slow-consumer policy dropped."""
        return self._backlog.dropped + (0 if self._websocket is None else self._websocket.dropped)

    # The WebSocket.

    async def serve_websocket(self, websocket: WebSocket, *, probing: bool) -> None:
        """Drives the session with a WebSocket until either ends."""
        if probing:
            try:
                self.engine.start_probe(self._hub.clock.time())
            except EngineError as error:
                websocket.start_close(CloseCode.POLICY_VIOLATION, str(error))
                return
            self._handle_events()  # the time of another one may be up just now
        self._websocket = websocket
        if not probing:
            self._send_packet(self.engine.handshake_packet())
        self._pump()
        async for message in websocket:
            if self._websocket is not websocket:
                break
            self.request = websocket.request
            try:
                self.engine.receive_message(message, self._hub.clock.time())
            except EngineError:
                break
            self._pump()
            del message  # it may be large, and the next one may take long
            if self._inflow.pending > MAX_PENDING:
                await self._inflow.wait()
        if self._websocket is websocket:
            self._websocket = None
            self.engine.lose_websocket(reason_of(websocket))
            self._pump()

    # Polling.

    async def poll(self) -> str:
        """Waits until there is something to send, and returns the body that answers a GET.

        Raises `EngineError` if the answer is 400.
        """
        try:
            self.engine.start_poll(self._hub.clock.time())
        finally:
            self._pump()
        waiter: asyncio.Future[list[EnginePacket]] = self._hub.loop.create_future()
        self._poll = waiter
        self._pump()
        try:
            body = encode_payload(await waiter)
        except asyncio.CancelledError:
            # The client has left, and what answers this GET is lost: perhaps it was taken out just now.
            if waiter.cancelled():
                self.engine.lose_poll()
            elif any(packet.type is not EnginePacketType.NOOP for packet in waiter.result()):
                self.engine.fail()
            self._pump()
            raise
        finally:
            if self._poll is waiter:  # another GET may have come since the answer
                self._poll = None
        self._backlog.taken += len(body)
        return body

    def start_post(self) -> bool:
        """Handles the head of a POST. If another one is not answered yet, ends the session, returns False."""
        if self._post_in_progress:
            self.fail("transport error")
            return False
        self._post_in_progress = True
        return True

    def lose_post(self) -> None:
        """Ends the session: the body of a POST was refused or broke off, so that its messages are lost."""
        self._post_in_progress = False
        self.fail("transport error")

    async def receive_post(self, request: Request, body: bytes) -> None:
        """Handles a POST, in turns with others. Returns when the client may send the next one.

        Raises `EngineError` if the answer is 400.
        """
        self._body = 2 * len(body)  # with its text
        try:
            packets = self.engine.start_payload(body, self._hub.clock.time())
            while self._receive_turn(packets, request):
                await self._inflow.wait()
                await asyncio.sleep(0)
            await self._inflow.wait()
        except asyncio.CancelledError:
            self.fail("transport error")  # the client has left, and takes the POST for lost
            raise
        finally:
            self._post_in_progress = False
            self._body = 0
            self._pump()

    def _receive_turn(self, packets: Iterator[EnginePacket], request: Request) -> bool:
        """Handles some of the packets of a POST; returns whether there may be more."""
        now = self._hub.clock.time()
        size, more = 0, False
        for count, packet in enumerate(packets, 1):
            self.engine.receive_packet(packet, now)
            size += len(packet.data)
            more = count == _TURN_PACKETS or size > _TURN_BYTES
            if more:
                break
        self.request = request
        self._pump()
        self.request = None
        return more and self.engine.state is not State.CLOSED

    # Sending.

    def post_prepared(self, message: PreparedMessage, policy: Policy | None) -> None:
        """Queues an `EncodedPacket` without waiting. ``policy`` applies to a client that is behind."""
        websocket = self.direct
        if websocket is not None:
            websocket.post_prepared(message, policy)
        else:
            self.post_indirectly(message, policy)

    def post_indirectly(self, message: PreparedMessage, policy: Policy | None) -> None:
        """Queues an `EncodedPacket` for a client that cannot be sent it as it is, or not now."""
        assert isinstance(message, EncodedPacket)  # noqa: S101 - rooms refuse everything else
        if not self.is_open:
            return
        if not self.held and self.engine.sends_directly:
            self._write(message, policy)
            return
        if policy == "volatile":
            if not self._writes_at_once():
                self._backlog.count_drop("volatile")
                return
            policy = "drop_newest"
        self._backlog.post(message, policy)
        self._pump()

    def _write(self, message: EncodedPacket, policy: Policy | None) -> None:
        """Posts a message to the WebSocket."""
        websocket = self._websocket
        assert websocket is not None  # noqa: S101 - the engine says that there is one
        if self.binary:
            websocket.post_prepared(message, policy)
            return
        parts = message.messages
        for part in parts:
            packet = EnginePacket(EnginePacketType.MESSAGE, part)
            # The parts of one packet are sent together or not at all.
            websocket.post(encode_packet(packet, binary=False), policy if len(parts) == 1 else "disconnect")

    def _writes_at_once(self) -> bool:
        return self._poll is not None and not self.held and not self._backlog and not self.engine.buffered

    async def drain(self) -> None:
        """Waits until all that was sent has left our queue, or the session has ended."""
        while self.is_open and (self.held or self._backlog or self.engine.buffered):
            await self._wait_drained()
        if self._websocket is not None and self.engine.transport == "websocket":
            with suppress(ConnectionClosedError):
                await self._websocket.drain()

    async def _wait_drained(self) -> None:
        waiter = self._hub.loop.create_future()
        self._drain_waiters.append(waiter)
        await waiter

    def close(self, reason: str = "forced close") -> None:
        """Closes the session after the queued messages have been sent."""
        if self._finish_missed is not None:
            self._finish_missed()
        self._move_backlog()
        self.engine.close(self._hub.clock.time(), reason)
        self._pump()

    def fail(self, reason: str) -> None:
        """Ends the session at once."""
        self.engine.fail(reason)
        self._pump()

    def _fail_too_slow(self) -> None:
        log(logging.INFO, "client too slow", address=self.address, size=self._charged)
        self.fail(TOO_SLOW)

    # What a client missed, ahead of what is sent now (`recovery`).

    def hold(self, finish: Callable[[], None]) -> None:
        """Keeps messages back, except those of `send_missed`, until `release_held`.

        What is queued already leaves first. ``finish`` is called if the session closes before: it sends
        what is left of the missed events at once.
        """
        self._move_backlog()
        self._finish_missed = finish
        self.direct = None

    @property
    def held(self) -> bool:
        """Whether messages are held back."""
        return self._finish_missed is not None

    def send_missed(self, messages: Sequence[EncodedPacket]) -> None:
        """Sends messages ahead of those that are held back."""
        for message in messages:
            self._send(message, "disconnect")
            self._backlog.taken += message.size
        self._pump()

    async def drain_missed(self) -> None:
        """Waits until what `send_missed` sent has left, or the session has ended."""
        while self.is_open and self.engine.buffered:
            await self._wait_drained()
        if self._websocket is not None and self.engine.transport == "websocket":
            with suppress(ConnectionClosedError):
                await self._websocket.drain()

    async def wait_released(self) -> None:
        """Waits until nothing is held back, or the session has ended."""
        while self.held and self.is_open:
            await self._wait_drained()

    def release_held(self) -> None:
        """Sends what was held back."""
        self._finish_missed = None
        self._pump()

    def _send(self, message: PreparedMessage | str | bytes | None, policy: Policy) -> None:
        """Passes a message to the WebSocket, or to the engine, which the next GET takes it from."""
        assert isinstance(message, EncodedPacket)  # noqa: S101 - as in `post_indirectly`
        if self.engine.sends_directly:
            self._write(message, policy)
        elif self.is_open:
            self.engine.send(*message.messages)

    def _feed(self) -> None:
        """Moves messages from the backlog to where they leave: all to a WebSocket, one answer's to a GET."""
        if self.held or not self._backlog:
            return
        if self.engine.sends_directly:
            self._move_backlog()
        elif self._poll is not None and not self._poll.done() and self.is_open:
            self._move_backlog(self.engine.max_payload)

    def _move_backlog(self, room: float = inf) -> None:
        """Passes waiting messages on, until ``room`` bytes wait in the engine."""
        while self._backlog and self.engine.buffered < room:
            waiting = self._backlog.popleft()
            self._send(waiting.message, "drop_oldest" if waiting.droppable else "disconnect")

    # Receiving.

    def charge(self, size: int) -> None:
        """Records that ``size`` more bytes of events wait for their handlers."""
        self._inflow.pending += size
        if self._charged or self._inflow.pending > _UNCHARGED:
            self._charge()

    def release(self, size: int) -> None:
        """Records that events of ``size`` bytes were handled or dropped."""
        self._inflow.release(size)
        if self._charged:
            self._charge()

    @property
    def pending(self) -> int:
        """Bytes of the events that wait."""
        return self._inflow.pending

    @property
    def outliving(self) -> set[Outliving]:
        """Events that go on waiting after the end; over the budget, they are dropped."""
        return self._inflow.outliving

    def set_incoming(self, size: int) -> None:
        """Records the bytes of a packet that is not complete."""
        self._incoming = size
        self._charge()

    def reconsider(self) -> None:
        """Goes on reading if there is a reason to: an acknowledgement is awaited."""
        self._inflow.reconsider()

    def _awaits_acks(self) -> bool:
        return self.receiver is not None and self.receiver.awaits_acks

    # The server's budget.

    def _charge(self) -> None:
        """Tells the budget how much this session holds now."""
        size = self._backlog.size + self.engine.buffered
        size += self._inflow.pending + self._incoming + self._body
        if size != self._charged:
            self._charged = size
            if size:
                self._hub.budget.charge(self, size)
            else:
                self._hub.budget.release(self)

    def disconnect_slow(self, slowness: Slowness) -> None:
        """Ends the session: of all peers, most bytes wait for this one, or for its handlers."""
        if self.engine.state is not State.CLOSED:
            self._fail_too_slow()
        if dropped := self._inflow.drop_outliving():
            log(logging.INFO, "unhandled events dropped", address=self.address, events=dropped)
        self._inflow.pending = self._body = 0  # only a handler that still runs holds anything now
        self._charge()

    # The engine.

    def _pump(self) -> None:
        """Handles the engine's events and sends its packets. Must follow each call of the engine."""
        engine = self.engine
        self._handle_events()
        self._feed()
        if self._websocket is not None:
            for packet in engine.packets_to_send("websocket"):
                self._send_packet(packet)
            self._feed()  # the upgrade may just be complete
        if self._poll is not None and not self._poll.done():
            packets = engine.packets_to_send("polling")
            if packets:
                self._poll.set_result(packets)
        self._handle_events()
        direct = self.binary and not self.held and not self._backlog and engine.sends_directly
        self.direct = self._websocket if direct else None
        if not engine.buffered:
            wake(self._drain_waiters)
        self._charge()
        self._start_timer()

    def _send_packet(self, packet: EnginePacket) -> None:
        if self._websocket is not None:
            self._websocket.post(encode_packet(packet, binary=self.binary), "disconnect")

    def _handle_events(self) -> None:
        for event in self.engine.events():
            match event:
                case Message(data=data):
                    if self.receiver is not None:
                        self.receiver.receive(data)
                case UpgradeFailed():
                    websocket, self._websocket = self._websocket, None
                    if websocket is not None:
                        websocket.start_close(CloseCode.POLICY_VIOLATION, "the upgrade failed")
                case SessionClosed(reason=reason):
                    self._finish(reason)

    def _finish(self, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        websocket, self._websocket = self._websocket, None
        if websocket is not None:
            websocket.start_close(*CLOSES.get(reason, (CloseCode.NORMAL_CLOSURE, reason)))
        self._backlog.clear()
        self._finish_missed = self.direct = None
        self._incoming = 0  # the receiver, which holds the packet that is not complete, goes below
        wake(self._drain_waiters)
        self._inflow.wake()
        self._closed(self, reason)
        receiver, self.receiver = self.receiver, None  # they refer to each other
        if receiver is not None:
            receiver.session_closed(reason)
        self._charge()

    def _start_timer(self) -> None:
        """Starts the timer, or restarts it if it would fire too late. A deadline that moved back is left."""
        due = self.engine.next_deadline
        if due is None or (self._timer is not None and self._timer_due <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due, delay = due, max(0.0, due - self._hub.clock.time())
        self._timer = self._hub.clock.call_later(delay, self._check_deadlines)

    def _check_deadlines(self) -> None:
        self._timer = None
        if self._websocket is not None and self._websocket.lost:
            self.engine.lose_websocket()  # nothing is read from it now, not its end either
        self.engine.check_deadlines(self._hub.clock.time())
        self._pump()
