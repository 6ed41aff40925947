"""One Engine.IO session on our server: drives an `EngineSession` with a WebSocket, polling and time.

Left to others: the session's rules (`engine`), HTTP and WebSocket requests (`transports`), what the messages
mean (`clients`).
"""

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import Callable
from contextlib import suppress
from os import urandom
from sys import getsizeof
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
"""When more bytes of events than this wait for their handlers, nothing more is read from the client."""


def new_id() -> str:
    """Returns a random id of 20 characters, which nobody can guess."""
    return urlsafe_b64encode(urandom(15)).decode()


class EncodedPacket(PreparedMessage):
    """A Socket.IO packet, encoded once: frames for WebSockets, and Engine.IO messages for polling."""

    __slots__ = ("messages",)

    def __init__(self, messages: list[str | bytes]) -> None:
        super().__init__(*("4" + message if isinstance(message, str) else message for message in messages))
        self.messages = messages
        self.size += sum(map(getsizeof, messages))  # they are held besides the frames


class Receiver(Protocol):
    """Receives the messages of a session."""

    def receive(self, message: str | bytes) -> None:
        """Handles a message."""

    def session_closed(self, reason: str) -> None:
        """Handles the end of the session. Called once."""


class Session:
    """A client's session, over the transports that it has now."""

    __slots__ = (
        "_clock",
        "_closed",
        "_drain_waiters",
        "_expects_post_body",
        "_pending",
        "_pending_waiters",
        "_poll",
        "_timer",
        "_timer_due",
        "_websocket",
        "address",
        "binary",
        "direct",
        "engine",
        "receiver",
        "secure",
    )

    def __init__(
        self, engine: EngineSession, clock: Clock, address: str, closed: Callable[["Session"], None]
    ) -> None:
        self.engine = engine
        self.address = address
        """The client's address."""
        self.secure = False
        """Whether the session was opened over TLS."""
        self.binary = True
        """Whether the client's WebSocket takes binary messages; otherwise bytes are sent as base64."""
        self.receiver: Receiver | None = None
        self._clock = clock
        self._closed = closed
        self._websocket: WebSocket | None = None
        self.direct: WebSocket | None = None
        """The WebSocket, while messages may be sent over it without the engine."""
        self._poll: asyncio.Future[list[EnginePacket]] | None = None
        self._expects_post_body = False
        self._timer: Timer | None = None
        self._timer_due = 0.0
        self._drain_waiters: list[asyncio.Future[None]] = []
        self._pending = 0  # bytes of events that wait for their handlers
        self._pending_waiters: list[asyncio.Future[None]] = []
        self._pump()

    @property
    def sid(self) -> str:
        """The session's id. It is a secret between the server and the client."""
        return self.engine.sid

    @property
    def dropped(self) -> int:
        """Messages that the slow-consumer policy dropped on the client's WebSocket."""
        return 0 if self._websocket is None else self._websocket.dropped

    # The WebSocket.

    async def serve_websocket(self, websocket: WebSocket, *, probing: bool) -> None:
        """Drives the session with a WebSocket until either ends."""
        if probing:
            try:
                self.engine.start_probe(self._clock.time())
            except EngineError as error:
                websocket.start_close(CloseCode.POLICY_VIOLATION, str(error))
                return
        self._websocket = websocket
        if not probing:
            self._send_packet(self.engine.handshake_packet())
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
        """Waits until there is something to send, and returns the body that answers a GET.

        Raises `EngineError` if the answer is 400.
        """
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
            # The client has left, and what answers this GET would be lost.
            self.engine.lose_poll()
            self._pump()
            raise
        finally:
            self._poll = None

    def expect_post_body(self) -> bool:
        """Handles the head of a POST. If another POST is in progress, ends the session, returns False."""
        if self._expects_post_body:
            self.fail("transport error")
            return False
        self._expects_post_body = True
        return True

    def lose_post_body(self) -> None:
        """Ends the session: the POST body was refused or broke off, so that its messages are lost."""
        self._expects_post_body = False
        self.fail("transport error")

    async def receive_post_body(self, body: bytes) -> None:
        """Handles a POST body. Raises `EngineError` if the answer is 400."""
        try:
            self.engine.receive_payload(body, self._clock.time())
        finally:
            self._expects_post_body = False
            self._pump()
        await self.wait_for_handlers()

    # Sending.

    def post_prepared(self, message: PreparedMessage, policy: Policy | None) -> None:
        """Queues an `EncodedPacket` without waiting. ``policy`` applies to a WebSocket that is behind."""
        websocket = self.direct
        if websocket is not None:
            websocket.post_prepared(message, policy)
        else:
            self.post_to_engine(message, policy)

    def post_to_engine(self, message: PreparedMessage, policy: Policy | None) -> None:
        """Queues an `EncodedPacket` behind what the engine has queued."""
        assert isinstance(message, EncodedPacket)  # noqa: S101 - rooms refuse everything else
        if policy == "volatile" and not self._writes_at_once():
            return
        try:
            self.engine.send(*message.messages)
        except EngineError:
            # The session is over, or too much is queued for a client that does not fetch it.
            self.fail("transport error")
        self._pump()

    def _writes_at_once(self) -> bool:
        if self._websocket is not None and self.engine.transport == "websocket":
            return not self._websocket.behind
        return self._poll is not None and not self.engine.buffered

    async def drain(self) -> None:
        """Waits until all that was sent has left our queue, or the session has ended."""
        if self._websocket is not None and self.engine.transport == "websocket":
            with suppress(ConnectionClosedError):
                await self._websocket.drain()
            return
        while self.engine.buffered and self.engine.state is State.OPEN:
            waiter = asyncio.get_running_loop().create_future()
            self._drain_waiters.append(waiter)
            await waiter

    def close(self) -> None:
        """Closes the session after the queued messages have been sent."""
        self.engine.close(self._clock.time())
        self._pump()

    def fail(self, reason: str) -> None:
        """Ends the session at once."""
        self.engine.fail(reason)
        self._pump()

    # Handlers.

    def charge(self, size: int) -> None:
        """Records that ``size`` more bytes of events wait for their handlers."""
        self._pending += size

    def release(self, size: int) -> None:
        """Records that events of ``size`` bytes were handled."""
        self._pending -= size
        if self._pending <= MAX_PENDING:
            _wake(self._pending_waiters)

    async def wait_for_handlers(self) -> None:
        """Waits while too many bytes wait for their handlers, so that the client's sending is held back."""
        while self._pending > MAX_PENDING and self.engine.state is not State.CLOSED:
            waiter = asyncio.get_running_loop().create_future()
            self._pending_waiters.append(waiter)
            await waiter

    # The engine.

    def _pump(self) -> None:
        """Handles the engine's events and sends its packets. Must follow each call of the engine."""
        engine = self.engine
        self._handle_events()
        if self._websocket is not None:
            for packet in engine.packets_to_send("websocket"):
                self._send_packet(packet)
        if self._poll is not None and not self._poll.done():
            packets = engine.packets_to_send("polling")
            if packets:
                self._poll.set_result(packets)
        self._handle_events()
        self.direct = self._websocket if self.binary and engine.sends_directly else None
        if not engine.buffered:
            _wake(self._drain_waiters)
        self._start_timer()

    def _send_packet(self, packet: EnginePacket) -> None:
        if self._websocket is not None:
            self._websocket.post(encode_packet(packet, binary=self.binary))

    def _handle_events(self) -> None:
        for event in self.engine.events():
            match event:
                case Message(data=data):
                    if self.receiver is not None:
                        self.receiver.receive(data)
                case TransportUpgraded():
                    pass  # `_pump` now sends what is queued over the WebSocket
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
            violation = reason == "parse error"
            code = CloseCode.PROTOCOL_ERROR if violation else CloseCode.NORMAL_CLOSURE
            websocket.start_close(code, reason)
        _wake(self._drain_waiters)
        _wake(self._pending_waiters)
        self._closed(self)
        receiver, self.receiver = self.receiver, None  # they refer to each other
        if receiver is not None:
            receiver.session_closed(reason)

    def _start_timer(self) -> None:
        """Starts the timer, or restarts it if it would fire too late. A deadline that moved back is left."""
        due = self.engine.next_deadline
        if due is None or (self._timer is not None and self._timer_due <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._clock.call_later(max(0.0, due - self._clock.time()), self._check_deadlines)

    def _check_deadlines(self) -> None:
        self._timer = None
        self.engine.check_deadlines(self._clock.time())
        self._pump()


def _wake(waiters: list[Any]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    waiters.clear()
