"""`WebSocket`: an open connection, as a handler or a client uses it.

A byte takes this way in: asyncio reads it, `streams` passes it to `WebSocket.receive_data`, the codec parses
it, and `inbox` queues the message until `WebSocket.recv` takes it. Out: `WebSocket.send` or a broadcast
encodes the message, and `outbox` writes it, at the latest at the end of the loop's tick.
Left to others: accepting and connecting (`listening`, `client`), the opening handshake.
"""

import asyncio
import logging
from collections.abc import Callable
from secrets import token_hex
from typing import Any

from rfc6455 import (
    CloseCode,
    CloseReceived,
    Connection,
    ConnectionClosed,
    ConnectionFailed,
    Event,
    LocalProtocolError,
    Ping,
    Pong,
    PreparedMessage,
    Request,
    Role,
    State,
)
from rfc6455_server.limits import LimitExceededError, Limits
from rfc6455_server.logs import log
from rfc6455_server.policies import Coalesce, Policy, check_policy
from rfc6455_server.rooms import RoomMember
from rfc6455_server.websocket.calls import Calls
from rfc6455_server.websocket.ending import MAX_REASON, ConnectionClosedError, Ending
from rfc6455_server.websocket.hub import SLOWNESS_CAUSES, Hub, Slowness
from rfc6455_server.websocket.inbox import Inbox
from rfc6455_server.websocket.outbox import Outbox
from rfc6455_server.websocket.pings import Pings
from rfc6455_server.websocket.reports import Cause, CloseReport
from rfc6455_server.websocket.streams import CodecProtocol


class WebSocket(RoomMember):
    """An open connection.

    ``async for message in ws`` yields each message as str or bytes, and ends with the connection.
    """

    __slots__ = (
        "__weakref__",
        "_connection",
        "_ending",
        "_hub",
        "_id",
        "_inbox",
        "_on_closed",
        "_opened_at",
        "_outbox",
        "_pings",
        "_protocol",
        "_transport",
        "heard",
        "latency",
        "request",
        "user",
    )

    def __init__(  # noqa: PLR0917 - the parts of one connection
        self,
        connection: Connection,
        request: Request | None,
        protocol: CodecProtocol,
        transport: asyncio.WriteTransport,
        hub: Hub,
        user: Any = None,
        make_inbox: type[Inbox] = Inbox,
    ) -> None:
        super().__init__()
        self._connection = connection
        self.request = request
        """The request that opened the connection; ``None`` at a client."""
        self.user = user
        """What the server's ``authorize`` returned for the request."""
        self._hub = hub
        self._protocol = protocol
        self._transport = transport
        self._outbox = Outbox(connection, transport, self, hub)
        self._inbox = make_inbox(connection, protocol.reader, self._outbox, self, hub)
        self._opened_at = hub.clock.time()
        self.heard = True
        """Whether anything has arrived since `keepalive` last set this to False."""
        self.latency: float | None = None
        """Seconds between the last Ping of `keepalive` and its Pong."""
        # Made when they are needed, because most connections of a server are idle.
        self._id: str | None = None
        self._pings: Pings | None = None
        self._on_closed: list[Callable[[WebSocket], object]] | None = None
        self._ending: Ending | None = None
        protocol.websocket = self
        protocol.reader.attach(self)
        if connection.unread:
            self._inbox.pull()  # bytes that arrived with the opening handshake

    @property
    def id(self) -> str:
        """A random name for the connection. It is not a secret that grants anything."""
        if self._id is None:
            self._id = token_hex(8)
            if self.closed is None:
                self._hub.by_id[self._id] = self
        return self._id

    @property
    def address(self) -> str:
        """The client's address; behind a trusted proxy, the one that the proxy reports."""
        return self._protocol.address

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol in use."""
        return self._connection.subprotocol

    @property
    def closed(self) -> ConnectionClosed | None:
        """How the connection ended: code, reason, and whether cleanly; ``None`` while it is open."""
        return None if self._ending is None else self._ending.closed

    @property
    def failure(self) -> ConnectionFailed | None:
        """The peer's protocol violation, if that ended the connection."""
        return None if self._ending is None else self._ending.failure

    @property
    def report(self) -> CloseReport | None:
        """Who closed the connection, with which codes, and why; ``None`` while it is open."""
        if self._ending is None or self._ending.closed is None:
            return None
        path = self.request.path if self.request else ""
        return self._ending.report(id=self.id, address=self.address, path=path, opened_at=self._opened_at)

    @property
    def on_closed(self) -> "list[Callable[[WebSocket], object]]":
        """Functions that are called once with this object when the connection has ended, for any cause."""
        if self._on_closed is None:
            self._on_closed = []
        return self._on_closed

    @property
    def secure(self) -> bool:
        """Whether the connection runs over TLS."""
        return self._transport.get_extra_info("ssl_object") is not None

    @property
    def unread_bytes(self) -> int:
        """Bytes of memory of the messages that wait for the handler, with what holds them.

        A batch of messages counts until all of it is taken.
        """
        return self._inbox.unread_bytes

    @property
    def lost(self) -> bool:
        """Whether TCP is closed. While reading is paused, messages, and so the end, may still be unread."""
        return self._transport.is_closing()

    @property
    def reading_paused(self) -> bool:
        """Whether nothing is read from the peer, because too many of its messages wait for the handler."""
        return self._inbox.paused

    @property
    def queued(self) -> int:
        """Bytes that wait for the peer to read."""
        return self._outbox.size

    @property
    def behind(self) -> bool:
        """Whether the peer does not read as fast as messages are sent."""
        return self._outbox.behind

    @property
    def taken(self) -> int | None:
        """Bytes that the peer has taken since it fell behind; ``None`` if it is not behind."""
        return self._outbox.taken

    @property
    def dropped(self) -> int:
        """Messages that the slow-consumer policy dropped."""
        return self._outbox.dropped

    # Receiving.

    async def recv(self) -> str | bytes:
        """Returns the next message. Cancelling the call loses nothing.

        Raises `ConnectionClosedError` when the connection has ended and all messages are taken, and
        `LocalProtocolError` if another task is waiting here.
        """
        inbox = self._inbox
        if not inbox.messages and not await inbox.wait():
            raise self._closed_error()
        return inbox.take()

    def __aiter__(self) -> "WebSocket":
        return self

    async def __anext__(self) -> str | bytes:
        inbox = self._inbox
        if not inbox.messages and not await inbox.wait():
            raise StopAsyncIteration
        return inbox.take()

    def call(self, on_open: Callable[[Any], object], on_message: Callable[[Any, Any], object]) -> None:
        """Calls ``on_open``, then ``on_message`` for each message, with this object, which has `Calls`."""
        assert isinstance(self._inbox, Calls)  # noqa: S101 - for the type
        self._inbox.start(on_open, on_message)

    def receive_data(self, data: bytes) -> None:
        """Takes bytes from the network."""
        self.heard = True
        self._hub.stats.bytes_in += len(data)
        self._connection.receive_data(data)
        self._inbox.pull()

    def receive_eof(self) -> None:
        """Takes the end of the input."""
        self._get_ending().receive_eof()

    def handle_event(self, event: Event) -> None:
        """Handles an event of the codec that is not a message."""
        match event:
            case Ping(data=data):
                self._outbox.schedule_control(len(data))
            case Pong(data=data):
                self._receive_pong(data)
            case CloseReceived(code=code, reason=reason):
                self._get_ending().receive_close(code, reason)
            case ConnectionFailed():
                self._get_ending().receive_failure(event)
            case ConnectionClosed():
                self._finish(event)

    # Sending.

    async def send(self, message: str | bytes) -> None:
        """Sends a message; if the peer is behind, waits until this one has left.

        A peer that takes less than 64 KiB within the send timeout (`Limits`) is disconnected. Raises
        `ConnectionClosedError` if the connection is closing or has ended.
        """
        outbox = self._outbox
        if outbox.behind:
            await self._send_behind(message)
            return
        try:
            if isinstance(message, str):
                self._connection.send_text(message)
            else:
                self._connection.send_binary(message)
        except LocalProtocolError:
            if self._connection.state is State.OPEN:
                raise
            raise self._closed_error() from None
        self._hub.stats.messages_out += 1
        size = len(message)
        # While there are more messages to answer, their answers leave together.
        much = outbox.schedule(size) if self._inbox.messages else outbox.send_soon(size)
        if much:
            await asyncio.sleep(0)  # a handler that sends without end would leave no turn to others

    async def _send_behind(self, message: str | bytes) -> None:
        if self._connection.state is not State.OPEN:
            raise self._closed_error()
        prepared = PreparedMessage(message)
        self._hub.stats.messages_out += 1
        # A client masks each frame with a fresh key, so its messages cannot wait as frames.
        waiting = prepared if self._connection.role is Role.SERVER else prepared.message
        if not await self._outbox.send(waiting, len(prepared.plain_frame)):
            raise self._closed_error()

    async def drain(self) -> None:
        """Waits until all that was sent and posted has left our queue.

        Raises `ConnectionClosedError` if the connection ends first.
        """
        if not await self._outbox.wait_sent():
            raise self._closed_error()

    def post(self, message: str | bytes, policy: Policy | None = None) -> None:
        """Queues a message without waiting; does nothing if the connection is closing or has ended.

        ``policy`` applies if the peer is behind; the default is the server's. Raises `LocalProtocolError` at
        a client, which can only `send`, and for text with a surrogate; `ValueError` for a bad policy.
        """
        connection, outbox = self._connection, self._outbox
        if connection.role is Role.CLIENT:
            raise LocalProtocolError("a client cannot post; use send()", slug="not-masked")
        if policy is not None:
            check_policy(policy)
        if isinstance(policy, Coalesce):
            policy = policy.resolve(message)
        self._hub.stats.messages_out += 1
        if outbox.behind:
            self.post_prepared(PreparedMessage(message), policy)
            return
        try:
            if isinstance(message, str):
                connection.send_text(message)
            else:
                connection.send_binary(message)
        except LocalProtocolError:
            if connection.state is State.OPEN:
                raise
            return  # the connection is closing
        outbox.schedule(len(message))

    def post_prepared(self, message: PreparedMessage, policy: Policy | None) -> None:
        """Queues a message that was encoded once for many connections (`rooms`)."""
        outbox = self._outbox
        if outbox.behind:
            policy = policy or self._hub.policy
            if isinstance(policy, Coalesce):
                policy = policy.resolve(message.message)
            outbox.post(message, policy)
            return
        try:
            self._connection.send_prepared(message)
        except LocalProtocolError:
            return  # the connection is closing
        if self._connection.deflate is not None:
            self._hub.budget.recount(message)  # members that are behind may hold it
        outbox.schedule(message.size)

    def joining_limits(self) -> tuple[Limits, int, float]:
        return self._hub.limits, self._hub.stats.memberships, self._hub.clock.time()

    def pause_writing(self) -> None:
        self._outbox.pause()

    def resume_writing(self) -> None:
        # Not at once: asyncio is in the middle of a write, and what we write now may fail.
        self._hub.loop.call_soon(self._outbox.resume)

    # Pings.

    async def ping(self) -> float:
        """Sends a Ping, waits for its Pong, and returns the seconds between.

        Raises `ConnectionClosedError` if the connection ends first.
        """
        if self._connection.state is not State.OPEN:
            raise self._closed_error()
        if self._pings is None:
            self._pings = Pings(self._connection, self._outbox, self._hub)
        return await self._pings.ping()

    def post_ahead(self, message: str) -> None:
        """Queues a short text ahead of the messages that wait: the heartbeat of a protocol above.

        Does nothing if the connection is closing.
        """
        if self._connection.state is State.OPEN:
            self._hub.stats.messages_out += 1
            self._connection.send_text(message)
            self._outbox.schedule(len(message))

    def send_ping(self, data: bytes) -> None:
        """Queues a Ping of `keepalive` if the connection is open."""
        if self._connection.state is State.OPEN:
            self._connection.send_ping(data)
            self._outbox.schedule(len(data))

    def _receive_pong(self, data: bytes) -> None:
        now = self._hub.clock.time()
        sent_at = self._hub.pings.get(data)
        if sent_at is not None:
            self.latency = now - sent_at
            self._hub.stats.latency.observe(self.latency)
        elif not self.behind:
            # Nobody asked for it: it is the heartbeat of some clients. The tick ends with a write, even of
            # nothing, after which the codec counts control frames afresh. A flood is one in a single tick.
            self._outbox.schedule_control(0)
        if self._pings is not None:
            self._pings.receive_pong(data, now)

    # Closing.

    async def close(self, code: int | None = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Closes the connection, and waits until it has ended; at most for the close timeout.

        Raises `LocalProtocolError` for a code that must not be sent.
        """
        self.start_close(code, reason)
        await self.wait_closed()

    def start_close(
        self, code: int | None = CloseCode.NORMAL_CLOSURE, reason: str = "", *, cause: Cause = Cause.CLOSED
    ) -> None:
        """Starts the closing handshake without waiting; what was sent before leaves before the Close.

        Raises as `close` does.
        """
        self._get_ending().start_close(code, reason, cause)

    def fail(self, code: int, reason: str = "", *, cause: Cause = Cause.CLOSED) -> None:
        """Ends the connection at once, with a Close but without waiting for the peer's; raises as `close`."""
        self._get_ending().fail(code, reason, cause)

    def abort(self) -> None:
        """Closes TCP at once; what is queued is lost."""
        self._transport.abort()

    async def wait_closed(self) -> None:
        """Waits until the connection has ended and TCP is closed."""
        await self._get_ending().wait_tcp_closed()

    def disconnect_slow(self, slowness: Slowness) -> None:
        """Ends the connection: the peer does not read, or does not finish what it sends."""
        cause = SLOWNESS_CAUSES[slowness]
        self.fail(CloseCode.POLICY_VIOLATION, "too slow", cause=cause)
        if cause is Cause.SEND_TIMEOUT:
            self.abort()  # the peer had its time to read, and would not read a Close either

    def caught_up(self) -> None:
        self._inbox.go_on()

    def end_after(self, error: BaseException) -> None:
        """Starts to close the connection: its handler has raised ``error``."""
        if isinstance(error, LimitExceededError):
            reason = str(error).encode(errors="replace")[:MAX_REASON].decode(errors="ignore")
            self.start_close(CloseCode.POLICY_VIOLATION, reason, cause=Cause.LIMIT)
        elif isinstance(error, ConnectionClosedError):
            self.start_close()  # it used a connection that had ended, this one or another
        else:
            log(logging.ERROR, "handler failed", exception=error, id=self.id, address=self.address)
            self.start_close(CloseCode.INTERNAL_ERROR, cause=Cause.HANDLER_FAILED)

    def disconnect_fast(self) -> None:
        """Ends the connection: the peer sends faster than its rate allows."""
        self.fail(CloseCode.POLICY_VIOLATION, "too fast", cause=Cause.LIMIT)

    def connection_lost(self) -> None:
        self._get_ending().tcp_lost()
        # A connection is freed at once, and not by the garbage collector: all cycles are broken here.
        self._outbox.release()
        self._inbox.go_on()  # nobody is behind any more
        if self.closed is not None:
            self._inbox.release()
        # Otherwise messages are left, the end stands behind them, and `_finish` releases the inbox.
        self._protocol.reader.detach()
        self._protocol.websocket = None

    def reserve(self, size: int) -> None:
        """Records that ``size`` bytes are held for as long as TCP is open: of the request."""
        self._outbox.reserve(size)

    def finish_handling(self) -> None:
        """Records that the handler has ended: what it left unread waits for nobody, and no longer counts."""
        self._inbox.stop_counting()

    def _get_ending(self) -> Ending:
        if self._ending is None:
            parts = self._connection, self._inbox, self._outbox, self._transport, self._hub
            self._ending = Ending(*parts, send_eof=self._protocol.send_eof)
        return self._ending

    def _finish(self, closed: ConnectionClosed) -> None:
        ending = self._get_ending()
        ending.finish(closed)
        if self._id is not None:
            self._hub.by_id.pop(self._id, None)
        if self._pings is not None:
            self._pings.fail(self._closed_error())
        for room in list(self._memberships or ()):
            room.leave(self)
        callbacks, self._on_closed = self._on_closed, None
        for callback in callbacks or ():
            try:
                callback(self)
            except (Exception, asyncio.CancelledError):  # noqa: BLE001 - whatever a callback raises
                log(logging.ERROR, "a callback of on_closed failed", exception=True, id=self.id)
        self._hub.on_ended(self)
        if self._hub.on_report is not None and self._hub.wants_reports():
            report = self.report
            assert report is not None  # noqa: S101 - the connection has ended
            self._hub.on_report(report)
        if ending.tcp_closed:
            self._inbox.release()
        else:
            ending.close_tcp()

    def _closed_error(self) -> ConnectionClosedError:
        return self._get_ending().error()

    def __repr__(self) -> str:
        role = "server" if self._connection.role is Role.SERVER else "client"
        return f"<WebSocket {role} {self._connection.state.value}>"
