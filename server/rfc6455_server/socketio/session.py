"""One Engine.IO session on our server: what drives an `EngineSession` with a WebSocket, with polling, and
with time.

Left to others: the session's own rules (`engine`), HTTP and WebSocket requests (`transports`), what the
messages say (`namespaces`).
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from rfc6455 import CloseCode, PreparedMessage, State
from rfc6455_server.clock import Clock, Timer
from rfc6455_server.policies import Policy
from rfc6455_server.socketio.engine import (
    EngineError,
    EnginePacket,
    EngineSession,
    Message,
    SessionClosed,
    TransportUpgraded,
    UpgradeFailed,
    encode_packet,
    encode_payload,
)
from rfc6455_server.websocket.ending import ConnectionClosedError
from rfc6455_server.websocket.websocket import WebSocket

MAX_PENDING: Final = 1 << 20
"""Bytes of events that wait for their handlers; beyond, nothing more is read from that client."""


SendPrepared = Callable[[PreparedMessage, Policy | None], None]


class EncodedPacket(PreparedMessage):
    """A Socket.IO packet, encoded once: frames for WebSockets, and the Engine.IO messages for polling."""

    __slots__ = ("messages",)

    def __init__(self, messages: list[str | bytes]) -> None:
        super().__init__(*("4" + message if isinstance(message, str) else message for message in messages))
        self.messages = messages


class Receiver(Protocol):
    """Who a session's messages are for."""

    def receive(self, message: str | bytes) -> None:
        """Takes a message."""

    def redirect(self, send_prepared: SendPrepared) -> None:
        """Learns what sends an `EncodedPacket` from now on."""

    def session_closed(self, reason: str) -> None:
        """Learns, once, that the session is over."""


class Session:
    """A client's session, over whatever transports it has at the moment."""

    def __init__(
        self, engine: EngineSession, clock: Clock, address: str, closed: Callable[["Session"], None]
    ) -> None:
        self.engine = engine
        self.address = address
        """The client's."""
        self.secure = False
        """Whether it was opened over TLS."""
        self.binary = True
        """Whether the client's WebSocket takes bytes, and not only base64."""
        self.receiver: Receiver | None = None
        self.send_prepared: SendPrepared = self._send_queued
        """Sends an `EncodedPacket`: over a WebSocket that keeps up, this is the WebSocket's own."""
        self._clock = clock
        self._closed = closed
        self._websocket: WebSocket | None = None
        self._direct: WebSocket | None = None
        self._poll: asyncio.Future[list[EnginePacket]] | None = None
        self._posting = False
        self._timer: Timer | None = None
        self._timer_due = 0.0
        self._drained: list[asyncio.Future[None]] = []
        self._pending = 0  # bytes of events that wait for their handlers
        self._room: list[asyncio.Future[None]] = []
        self._pump()

    @property
    def sid(self) -> str:
        """The session's id, known to its client only."""
        return self.engine.sid

    @property
    def dropped(self) -> int:
        """Messages that the client did not get over its WebSocket, because it was too slow."""
        return 0 if self._websocket is None else self._websocket.dropped

    # The WebSocket.

    async def serve_websocket(self, websocket: WebSocket, *, probing: bool) -> None:
        """Drives the session with a WebSocket until one of them ends."""
        if probing:
            try:
                self.engine.start_probe(self._clock.time())
            except EngineError as error:
                websocket.start_close(CloseCode.POLICY_VIOLATION, str(error))
                return
        self._websocket = websocket
        if not probing:
            self._post(self.engine.handshake_packet())
        self._pump()
        async for message in websocket:
            if self._websocket is not websocket:
                break
            try:
                self.engine.receive_message(message, self._clock.time())
            except EngineError:
                break
            self._pump()
            if self._pending > MAX_PENDING:
                await self.wait_for_handlers()
        if self._websocket is websocket:
            self._websocket = None
            closed = websocket.closed
            self.engine.lose_websocket(error=closed is not None and not closed.clean)
            self._pump()

    # Polling.

    async def poll(self) -> str:
        """Answers a GET with what there is, as soon as there is something. Raises `EngineError` for a 400."""
        try:
            self.engine.start_poll(self._clock.time())
        finally:
            self._pump()
        waiter: asyncio.Future[list[EnginePacket]] = asyncio.get_running_loop().create_future()
        self._poll = waiter
        self._pump()
        try:
            return encode_payload(await waiter)
        except asyncio.CancelledError:
            # The client has left: it cannot know what it would have been told.
            self.engine.lose_poll()
            self._pump()
            raise
        finally:
            self._poll = None

    def begin_post(self) -> bool:
        """Says that a POST has come; False, and the end of the session, when another is under way."""
        if self._posting:
            self.fail("transport error")
            return False
        self._posting = True
        return True

    def abandon_post(self) -> None:
        """Says that its body will not come, or is refused: what it would have said is lost."""
        self._posting = False
        self.fail("transport error")

    async def post(self, body: bytes) -> None:
        """Takes the body of a POST. Raises `EngineError` for a 400."""
        try:
            self.engine.receive_payload(body, self._clock.time())
        finally:
            self._posting = False
            self._pump()
        await self.wait_for_handlers()

    # Sending.

    def ready(self) -> bool:
        """Whether what is sent now can leave now."""
        if self._websocket is not None and self.engine.transport == "websocket":
            return not self._websocket.behind
        return self._poll is not None and not self.engine.buffered

    def _send_queued(self, message: PreparedMessage, policy: Policy | None) -> None:
        assert isinstance(message, EncodedPacket)  # noqa: S101 - nothing else is sent to Socket.IO's rooms
        if policy == "volatile" and not self.ready():
            return
        try:
            self.engine.send(*message.messages)
        except EngineError:
            # Too much is queued for a client that does not come to fetch it, or it is over.
            self.fail("transport error")
        self._pump()

    async def drain(self) -> None:
        """Waits until all that was sent has left."""
        if self._websocket is not None and self.engine.transport == "websocket":
            with suppress(ConnectionClosedError):
                await self._websocket.drain()
            return
        while self.engine.buffered and self.engine.state is State.OPEN:
            waiter = asyncio.get_running_loop().create_future()
            self._drained.append(waiter)
            await waiter

    def close(self) -> None:
        """Ends the session in order."""
        self.engine.close(self._clock.time())
        self._pump()

    def fail(self, reason: str) -> None:
        """Ends the session at once."""
        self.engine.fail(reason)
        self._pump()

    # Handlers.

    def hold(self, size: int) -> None:
        """``size`` bytes more wait for their handlers."""
        self._pending += size

    def release(self, size: int) -> None:
        """``size`` bytes were handled."""
        self._pending -= size
        if self._pending <= MAX_PENDING:
            _wake(self._room)

    async def wait_for_handlers(self) -> None:
        """Waits while too much waits for its handlers: TCP, and the client's next POST, push back."""
        while self._pending > MAX_PENDING and self.engine.state is not State.CLOSED:
            waiter = asyncio.get_running_loop().create_future()
            self._room.append(waiter)
            await waiter

    # The engine.

    def _pump(self) -> None:
        """Does what the engine says, after each call of it."""
        engine = self.engine
        self._handle_events()
        if self._websocket is not None:
            for packet in engine.take("websocket"):
                self._post(packet)
        if self._poll is not None and not self._poll.done():
            packets = engine.take("polling")
            if packets:
                self._poll.set_result(packets)
        self._handle_events()
        direct = self._websocket if self.binary and engine.sends_directly else None
        if direct is not self._direct:
            self._direct = direct
            self.send_prepared = self._send_queued if direct is None else direct.post_prepared
            if self.receiver is not None:
                self.receiver.redirect(self.send_prepared)
        if not engine.buffered:
            _wake(self._drained)
        self._start_timer()

    def _post(self, packet: EnginePacket) -> None:
        if self._websocket is not None:
            self._websocket.post(encode_packet(packet, binary=self.binary))

    def _handle_events(self) -> None:
        for event in self.engine.events():
            match event:
                case Message(data=data):
                    if self.receiver is not None:
                        self.receiver.receive(data)
                case TransportUpgraded():
                    pass  # whatever was queued is taken for the WebSocket now
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
            bad = reason == "parse error"
            websocket.start_close(CloseCode.PROTOCOL_ERROR if bad else CloseCode.NORMAL_CLOSURE, reason)
        _wake(self._drained)
        _wake(self._room)
        self._closed(self)
        if self.receiver is not None:
            self.receiver.session_closed(reason)

    def _start_timer(self) -> None:
        """One timer a session; it is set anew when it rings, or has to ring sooner."""
        due = self.engine.next_deadline
        if due is None or (self._timer is not None and self._timer_due <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._clock.call_later(max(0.0, due - self._clock.time()), self._ring)

    def _ring(self) -> None:
        self._timer = None
        self.engine.check(self._clock.time())
        self._pump()


def _wake(waiters: list[Any]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    waiters.clear()
