"""One Engine.IO session on our server: drives an `EngineSession` with a WebSocket, polling and time.

Left to others: the session's rules (`engine`), HTTP and WebSocket requests (`transports`), what the messages
mean (`clients`), what waits for a client that polls (`backlog`).

A message leaves at once if the session has a WebSocket (`Session.direct`), whose outbox bounds what waits.
Otherwise it waits in a `SessionBacklog` until the client fetches it. All that a session holds counts against
the server's budget: messages for the client, events that wait for handlers, a packet that is not complete.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from typing import Any, Final

from rfc6455 import CloseCode, PreparedMessage, State
from rfc6455_server.clock import Timer
from rfc6455_server.logs import log
from rfc6455_server.policies import Policy
from rfc6455_server.socketio.backlog import SessionBacklog
from rfc6455_server.socketio.encoded import EncodedPacket, post_encoded
from rfc6455_server.socketio.engine import EngineSession, Message, SessionClosed, UpgradeFailed
from rfc6455_server.socketio.engine_packets import (
    EngineError,
    EnginePacket,
    EnginePacketType,
    encode_packet,
)
from rfc6455_server.socketio.inflow import MAX_PENDING, Outliving, Receiver, wake
from rfc6455_server.socketio.polling import Polling
from rfc6455_server.socketio.reasons import CLOSES, TOO_SLOW, reason_of
from rfc6455_server.websocket.ending import ConnectionClosedError
from rfc6455_server.websocket.hub import Hub, Slowness
from rfc6455_server.websocket.outbox import MIN_PROGRESS
from rfc6455_server.websocket.websocket import WebSocket

# Bytes of events, and of what is kept, that are not worth telling the budget: 1.6 of 7 µs of an event.
_UNCHARGED: Final = 1 << 14


class Session(Polling):
    """A client's session, over the transports that it has now."""

    __slots__ = (
        "_charged",
        "_closed",
        "_drain_waiters",
        "_finish_missed",
        "_incoming",
        "_kept",
        "_taken_before_ping",
        "_timer",
        "_timer_due",
        "_websocket",
        "address",
        "binary",
        "connection_id",
        "direct",
        "secure",
        "user",
    )

    def __init__(
        self, engine: EngineSession, hub: Hub, address: str, closed: Callable[["Session", str], None]
    ) -> None:
        super().__init__(engine, hub, SessionBacklog(hub, self._fail_too_slow))
        self.address = address
        """The client's address."""
        self.secure = False
        """Whether the session was opened over TLS."""
        self.binary = True
        """Whether the client's WebSocket takes binary messages; otherwise bytes are sent as base64."""
        self.user: Any = None
        """What the server's ``authorize`` returned for the request that opened the session."""
        self.connection_id = ""
        """The id of its last WebSocket, once that is gone: the log names it beside the session."""
        self._closed = closed
        self._websocket: WebSocket | None = None
        self.direct: WebSocket | None = None
        """The WebSocket, while messages may be sent over it as they come."""
        self._taken_before_ping: int | None = None  # while the client is behind
        self._timer: Timer | None = None
        self._timer_due = 0.0
        self._drain_waiters: list[asyncio.Future[None]] = []
        self._finish_missed: Callable[[], None] | None = None  # while `hold` keeps messages in the backlog
        self._incoming = 0  # bytes of a packet that is not complete
        self._charged = 0
        self._kept = 0  # bytes that are held while the client is there: of its handshakes, and what it owes
        self._pump()

    @property
    def sid(self) -> str:
        """The session's id. It is a secret between the server and the client."""
        return self.engine.sid

    @property
    def receiver(self) -> Receiver | None:
        """Takes the messages; ``None`` before and after the session."""
        return self._inflow.receiver

    @receiver.setter
    def receiver(self, receiver: Receiver | None) -> None:
        self._inflow.receiver = receiver

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
                self.engine.start_probe(self._time())
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
                self.engine.receive_message(message, self._time())
            except EngineError:
                break
            self._pump()
            del message  # it may be large, and the next one may take long
            if self._inflow.pending > MAX_PENDING:
                await self._inflow.wait()
        if self._websocket is websocket:
            self._detach_websocket()
            self.engine.lose_websocket(reason_of(websocket))
            self._pump()

    def _detach_websocket(self) -> WebSocket | None:
        websocket, self._websocket = self._websocket, None
        if websocket is not None:
            self.connection_id = websocket.id
        return websocket

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
            self._post(message, policy)
            return
        if policy == "volatile":
            if not self._writes_at_once():
                self._backlog.count_drop("volatile")
                return
            policy = "drop_newest"
        self._backlog.post(message, policy)
        self._pump()

    def _post(self, message: EncodedPacket, policy: Policy | None) -> None:
        assert self._websocket is not None  # noqa: S101 - the engine says that there is one
        post_encoded(self._websocket, message, policy, binary=self.binary)

    def _writes_at_once(self) -> bool:
        # What the GET that waits is answered with is not taken yet.
        return self._poll is not None and not self.held and self.unsent < self.engine.max_payload

    async def drain(self) -> None:
        """Waits until all that was sent has left our queue, or the session has ended."""
        while self.is_open and (self.held or self._backlog):
            await self._wait_drained()
        await self.drain_transport()

    async def drain_transport(self) -> None:
        """Waits until all has left but what is held back or in the backlog, or the session has ended."""
        while self.is_open and self.engine.buffered:
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
            self._post(message, policy)
        elif self.is_open:
            self.engine.send(*message.messages)

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

    def keep(self, size: int) -> None:
        """Records that ``size`` more bytes are held while the client is there; fewer if it is negative."""
        self._kept += size
        if self._charged or self._kept > _UNCHARGED:
            self._charge()

    def set_incoming(self, size: int) -> None:
        """Records the bytes of a packet that is not complete."""
        self._incoming = size
        self._charge()

    def reconsider(self) -> None:
        """Goes on reading if there is a reason to: an acknowledgement is awaited."""
        self._inflow.reconsider()

    # The server's budget.

    def _charge(self) -> None:
        """Tells the budget how much this session holds now."""
        size = self.unsent + self._answering + self._inflow.pending + self._incoming + self._body
        if self._kept > _UNCHARGED:
            size += self._kept
        if size != self._charged:
            self._charged = size
            self._hub.budget.charge(self, size)

    def disconnect_slow(self, slowness: Slowness) -> None:
        """Ends the session: of all peers, most bytes wait for this one, or for its handlers."""
        if self.engine.state is not State.CLOSED:
            self._fail_too_slow()
        if dropped := self._inflow.drop_outliving():
            log(logging.INFO, "unhandled events dropped", address=self.address, events=dropped)
        self._inflow.pending = self._body = self._answering = 0  # only a task that still runs holds anything
        self._charge()

    # The engine.

    def _pump(self) -> None:
        """Handles the engine's events and sends its packets. Must follow each call of the engine."""
        engine = self.engine
        self._handle_events()
        if self._websocket is not None:
            for packet in engine.packets_to_send("websocket"):
                self._send_packet(packet)
            if engine.sends_directly and not self.held:
                self._move_backlog()  # the upgrade may just be complete
        if engine.answers_poll or (self._backlog and not self.held):
            self._answer_soon()
        self._handle_events()
        direct = self.binary and not self.held and not self._backlog and engine.sends_directly
        self.direct = self._websocket if direct else None
        if not engine.buffered:
            wake(self._drain_waiters)
        self._charge()
        self._start_timer()

    def _send_packet(self, packet: EnginePacket) -> None:
        if self._websocket is None:
            return
        text = encode_packet(packet, binary=self.binary)
        if packet.type is EnginePacketType.PING and isinstance(text, str):
            self._websocket.post_ahead(text)
            self._taken_before_ping = self._websocket.taken
        else:
            self._websocket.post(text, "disconnect")

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
        websocket = self._detach_websocket()
        if websocket is not None:
            websocket.start_close(*CLOSES.get(reason, (CloseCode.NORMAL_CLOSURE, reason)))
        self._backlog.close()
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
        self.engine.check_deadlines(self._time())
        self._pump()

    def _time(self) -> float:
        """Returns the time. Before that, excuses a PONG if its PING may be behind what the client takes."""
        now = self._hub.clock.time()
        if self.engine.is_pong_overdue(now) and self._is_taking():
            self.engine.extend_pong(now)
        return now

    def _is_taking(self) -> bool:
        if self._websocket is None or self.engine.transport == "polling":
            # For as long as HTTP finds that the client takes the answer that it must take first.
            return self._answering > 0 and self._is_ping_untaken
        before, now = self._taken_before_ping, self._websocket.taken
        self._taken_before_ping = now
        return before is not None and now is not None and now - before >= MIN_PROGRESS
