"""One `Connection` over a StreamReader and a StreamWriter.

Implements: what RFC 6455 leaves to whoever owns TCP: closing it in the right order (§7.1.1), the
timers of the closing handshake.
Left to others: accepting and connecting (`listener`, `client`), the opening handshake.

The way of a byte. `CodecProtocol` has asyncio read into one buffer for all connections, and `CodecReader` is
a StreamReader whose ``feed_data`` hands the bytes over as they come.
The `WebSocket` pulls the events at once: control frames are answered whatever the handler is doing,
messages wait for `WebSocket.recv`. When too many bytes wait, reading stops, and TCP pushes back.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from secrets import token_hex
from typing import Any, Final, Protocol, cast
from weakref import WeakKeyDictionary

from rfc6455 import (
    BinaryMessage,
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
    TextMessage,
    WebSocketError,
    new_mask_key,
)
from rfc6455.frames import encode_close
from rfc6455_server.limits import Limits, ReceiveRates, TokenBucket
from rfc6455_server.outbox import Clock, Coalesce, GiveUp, Outbox, Policy, Shared, Timer, check_policy
from rfc6455_server.reports import Cause, CloseReport
from rfc6455_server.rooms import Room
from rfc6455_server.stats import Stats

LINGER_TIMEOUT: Final = 2.0
"""Seconds that we go on reading after a failure, so that the peer gets our Close and not a reset."""

MAX_QUEUED: Final = 1 << 18
"""Bytes of unread messages from which on reading stops; one read may go beyond."""

READ_SIZE: Final = 1 << 18
"""Bytes of a read at the most, and so of the buffer that they are read into."""

_NO_MESSAGES: Final[deque[Event]] = deque(maxlen=0)

_MESSAGE_OVERHEAD: Final = 64
"""Bytes counted for a message besides its payload: empty ones are not free."""


class ConnectionClosedError(WebSocketError):
    """The connection has ended: ``code``, ``reason`` and ``clean`` as in `rfc6455.ConnectionClosed`."""

    def __init__(self, code: int, reason: str, *, clean: bool) -> None:
        super().__init__(f"closed with {code}" + (f": {reason!r}" if reason else ""), slug="closed")
        self.code = code
        self.reason = reason
        self.clean = clean


class Sink(Protocol):
    """What takes the bytes of a connection as they come: an opening handshake, then a `WebSocket`."""

    def receive_data(self, data: bytes) -> None:
        """Takes bytes from the network."""

    def receive_eof(self) -> None:
        """Takes the end of the input."""


class CodecReader(asyncio.StreamReader):
    """A StreamReader that keeps nothing: once a `Sink` is attached, bytes go straight to it.

    Until then `read_early` gives them, for a client's opening handshake.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._event_loop = loop
        self._sink: Sink | None = None
        self._early = bytearray()
        self._early_waiter: asyncio.Future[None] | None = None
        self._ended = False
        self._reading: asyncio.ReadTransport | None = None

    def set_transport(self, transport: asyncio.BaseTransport) -> None:
        """Called when the connection is made."""
        super().set_transport(transport)
        self._reading = cast("asyncio.ReadTransport", transport)  # uvloop's are of no such class

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]  # transports give bytes
        """Called with bytes from the network."""
        if self._sink is not None:
            self._sink.receive_data(data)
            return
        self._early += data
        if len(self._early) > MAX_QUEUED:
            self.pause()
        self._wake()

    def feed_eof(self) -> None:
        """Called when the peer has closed its half, or the connection is lost."""
        self._ended = True
        if self._sink is not None:
            self._sink.receive_eof()
        self._wake()

    async def read_early(self) -> bytes:
        """The bytes since the last call, at least one; ``b""`` at EOF."""
        while not self._early and not self._ended:
            self._early_waiter = self._event_loop.create_future()
            await self._early_waiter
        return self._take_early()

    def attach(self, sink: Sink) -> None:
        """Hands ``sink`` what has come since `read_early`, and all that follows."""
        self._sink = sink
        if self._early:
            sink.receive_data(self._take_early())
        if self._ended:
            sink.receive_eof()

    def detach(self) -> None:
        """Hands nothing on any more."""
        self._sink = None

    def pause(self) -> None:
        """Stops reading: TCP pushes back on the peer."""
        if self._reading is not None:
            self._reading.pause_reading()

    def resume(self) -> None:
        """Goes on reading."""
        if self._reading is not None and not self._reading.is_closing():
            self._reading.resume_reading()

    def abort(self) -> None:
        """Ends TCP now."""
        if self._reading is not None:
            self._reading.abort()  # type: ignore[attr-defined]  # it writes, too

    def release(self) -> None:
        """Called when TCP is gone: what a connection was goes at once, without the garbage collector."""
        # A transport of asyncio's refers to a method of its own. Where it is made otherwise, nothing changes.
        if self._reading is not None and hasattr(self._reading, "_read_ready_cb"):
            self._reading._read_ready_cb = None

    def _take_early(self) -> bytes:
        early = bytes(self._early)
        self._early.clear()
        if len(early) > MAX_QUEUED:
            self.resume()
        return early

    def _wake(self) -> None:
        if self._early_waiter is not None and not self._early_waiter.done():
            self._early_waiter.set_result(None)


_read_buffers: WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = WeakKeyDictionary()


def _read_buffer(loop: asyncio.AbstractEventLoop) -> memoryview:
    """What all connections of a loop read into: from the read until it is copied, nothing else runs there.

    Room of its own for each read would be mapped and unmapped by malloc, or be smaller: then a large message
    comes in pieces.
    """
    buffer = _read_buffers.get(loop)
    if buffer is None:
        buffer = _read_buffers[loop] = memoryview(bytearray(READ_SIZE))
    return buffer


class CodecProtocol(asyncio.StreamReaderProtocol, asyncio.BufferedProtocol):
    """Joins a `CodecReader` to a transport; tells whether the transport's buffer is full.

    uvloop takes it for a protocol that is given bytes, and calls the ``data_received`` of asyncio's.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connected: "Callable[[CodecProtocol, asyncio.StreamWriter], None] | None" = None,
    ) -> None:
        self.reader = CodecReader(loop)
        self._event_loop = loop
        self._read_buffer = _read_buffer(loop)
        self._connected = connected
        super().__init__(self.reader, loop=loop)
        self.websocket: WebSocket | None = None
        """Told when writing stops and goes on, and when TCP is gone."""
        self.gone: Callable[[CodecProtocol], None] | None = None
        """Called when TCP is gone, for whoever accepted it."""
        self.peer = ""
        """Who opened the connection: an address of TCP, or of a PROXY header."""
        self.address = ""
        """Who sent the request: the same, or what a proxy that is trusted says of it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called when there is a connection."""
        super().connection_made(transport)
        # Not as asyncio's ``client_connected_cb``: it would be kept, and keep what it refers to.
        connected, self._connected = self._connected, None
        if connected is not None:
            writing = cast("asyncio.WriteTransport", transport)
            connected(self, asyncio.StreamWriter(writing, self, self.reader, self._event_loop))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Called for room to read into."""
        return self._read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Called when bytes were read into it."""
        self.reader.feed_data(bytes(self._read_buffer[:nbytes]))

    def pause_writing(self) -> None:
        """Called when the transport's buffer is full."""
        super().pause_writing()
        if self.websocket is not None:
            self.websocket.pause_writing()

    def resume_writing(self) -> None:
        """Called when it has drained."""
        super().resume_writing()
        if self.websocket is not None:
            self.websocket.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called when TCP is gone, whoever closed it."""
        self.reader.release()
        # Whatever ended it, it is told as EOF: an exception that nobody asks for would be reported.
        super().connection_lost(None)
        if self.websocket is not None:
            self.websocket.connection_lost()
        if self.gone is not None:
            self.gone(self)


class Hub(Shared):
    """What the connections of one server have in common; a client's connection has its own."""

    __slots__ = ("by_id", "loop_lag", "on_report", "pings", "wants_reports")

    def __init__(
        self,
        limits: Limits,
        *,
        stats: Stats | None = None,
        clock: Clock | None = None,
        policy: Policy = "disconnect",
        on_report: Callable[[CloseReport], None] | None = None,
        wants_reports: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(limits, stats=stats or Stats(), clock=clock, policy=policy)
        self.on_report = on_report
        self.wants_reports = wants_reports
        self.by_id: dict[str, WebSocket] = {}
        """The open connections whose id somebody knows."""
        self.pings: dict[bytes, float] = {}
        """The Pings of `keepalive` that may still be answered, with when they were sent."""
        self.loop_lag = 0.0
        """Seconds by which the event loop was late at the most, lately."""


class WebSocket:
    """An open connection, as a handler or a client sees it.

    ``async for message in ws`` gives each message, str or bytes, and ends with the connection.
    """

    __slots__ = (
        "__weakref__",
        "_batch",
        "_batch_size",
        "_batches",
        "_cause",
        "_close_timer",
        "_closed",
        "_closed_waiters",
        "_code_sent",
        "_connection",
        "_ended",
        "_ended_at",
        "_failure",
        "_held",
        "_hub",
        "_id",
        "_join_rate",
        "_memberships",
        "_on_closed",
        "_opened_at",
        "_outbox",
        "_pings",
        "_protocol",
        "_queued",
        "_rates",
        "_read_size",
        "_reader",
        "_report",
        "_tcp_closed",
        "_waiter",
        "_writer",
        "heard",
        "latency",
        "request",
        "user",
    )

    def __init__(  # noqa: PLR0917 - all that it is made of
        self,
        connection: Connection,
        request: Request | None,
        protocol: CodecProtocol,
        writer: asyncio.StreamWriter,
        hub: Hub,
        user: Any = None,
    ) -> None:
        self._connection = connection
        self.request = request
        """The request that opened the connection; ``None`` at a client."""
        self.user = user
        """What the server's ``authorize`` gave for the request."""
        self._hub = hub
        self._reader = protocol.reader
        self._writer = writer
        self._protocol = protocol
        self._outbox = Outbox(connection, writer.transport, self, hub)
        self._opened_at = self._ended_at = hub.clock.time()
        # Messages wait in the batches that the codec gave them in: the one that is being taken, and
        # those behind it, each with the bytes that it counts for.
        self._batch = _NO_MESSAGES
        self._batch_size = 0
        self._batches: list[tuple[deque[Event], int]] = []
        self._queued = 0  # bytes of all batches
        self._read_size = 0  # bytes of the last read
        self._held = False  # too many: reading has stopped
        self._ended = False  # the peer has closed its half of TCP
        self._waiter: asyncio.Future[None] | None = None
        self.heard = True
        """Whether anything has come since `keepalive` last set this to False."""
        self.latency: float | None = None
        """Seconds that the last Ping of `keepalive` took to be answered."""
        limits = hub.limits
        rated = limits.message_rate is not None or limits.byte_rate is not None
        self._rates = ReceiveRates(limits, self._opened_at) if rated else None
        self._join_rate: TokenBucket | None = None
        # What few connections have is made when it is needed: a server has many that are idle.
        self._id: str | None = None
        self._memberships: list[Room] | None = None
        self._pings: dict[bytes, tuple[asyncio.Future[float], float]] | None = None
        self._on_closed: list[Callable[[WebSocket], object]] | None = None
        self._closed_waiters: list[asyncio.Future[None]] | None = None
        self._closed: ConnectionClosed | None = None
        self._failure: ConnectionFailed | None = None
        self._cause: Cause | None = None
        self._code_sent: int | None = None
        self._report: CloseReport | None = None
        self._tcp_closed = False
        self._close_timer: Timer | None = None
        protocol.websocket = self
        self._reader.attach(self)
        if connection.unread:
            self._pull()  # what came with the opening handshake is in the connection already

    @property
    def id(self) -> str:
        """What the connection is known by: random, and of no use to whoever guesses."""
        if self._id is None:
            self._id = token_hex(8)
            if self._closed is None:
                self._hub.by_id[self._id] = self
        return self._id

    @property
    def address(self) -> str:
        """The peer's address; behind a proxy that is trusted, the one that it tells."""
        return self._protocol.address

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol in use."""
        return self._connection.subprotocol

    @property
    def closed(self) -> ConnectionClosed | None:
        """How the connection ended: code, reason, and whether cleanly; ``None`` while it is open."""
        return self._closed

    @property
    def failure(self) -> ConnectionFailed | None:
        """What the peer did wrong, if that ended the connection."""
        return self._failure

    @property
    def report(self) -> CloseReport | None:
        """Who closed, with which codes, and why; ``None`` while it is open."""
        if self._report is None and self._closed is not None:
            self._report = self._make_report(self._closed)
        return self._report

    @property
    def on_closed(self) -> "list[Callable[[WebSocket], object]]":
        """Called once each when the connection has ended, whatever ended it."""
        if self._on_closed is None:
            self._on_closed = []
        return self._on_closed

    @property
    def memberships(self) -> list[Room]:
        """The rooms that the connection is in."""
        if self._memberships is None:
            self._memberships = []
        return self._memberships

    @property
    def secure(self) -> bool:
        """Whether it runs over TLS."""
        return self._writer.get_extra_info("ssl_object") is not None

    @property
    def queued(self) -> int:
        """Bytes that wait because the peer does not read as fast as they come."""
        return self._outbox.size

    @property
    def dropped(self) -> int:
        """Messages that the peer did not get, because it was too slow and the policy said so."""
        return self._outbox.dropped

    # Receiving.

    async def recv(self) -> str | bytes:
        """The next message. Safe to cancel: nothing is lost.

        Raises `ConnectionClosedError` once the connection has ended and all messages are taken, and
        `LocalProtocolError` when another task is waiting here.
        """
        if not self._batch and not await self._wait_for_batch():
            raise self._closed_error()
        return self._take()

    def __aiter__(self) -> "WebSocket":
        return self

    async def __anext__(self) -> str | bytes:
        if not self._batch and not await self._wait_for_batch():
            raise StopAsyncIteration
        return self._take()

    async def _wait_for_batch(self) -> bool:
        """Waits until there is a message to take; False when the connection has ended."""
        while not self._batches:
            if self._closed is not None:
                return False
            if self._waiter is not None:
                raise LocalProtocolError("another task is waiting in recv()", slug="concurrent-recv")
            # What the handler has sent leaves before it waits.
            self._outbox.rest()
            self._waiter = self._hub.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._batch, self._batch_size = self._batches.pop(0)
        return True

    def _take(self) -> str | bytes:
        batch = self._batch
        message = batch.popleft().data  # type: ignore[union-attr]  # batches hold messages only
        if not batch:
            self._batch = _NO_MESSAGES
            self._queued -= self._batch_size
            if self._held and self._queued <= MAX_QUEUED:
                self._held = False
                self._reader.resume()
                self._pull()
        return message

    def receive_data(self, data: bytes) -> None:
        """Takes bytes from the network."""
        self.heard = True
        self._read_size = size = len(data)
        self._hub.stats.bytes_in += size
        self._connection.receive_data(data)
        self._pull()

    def receive_eof(self) -> None:
        """Takes the end of the input."""
        self._ended = True
        if self._closed is None:
            self._connection.receive_eof()
            self._held = False  # what is left is one read, and the last
            self._pull()
        else:
            # The peer has seen our Close or is gone: nothing is left to linger for.
            self._writer.transport.close()

    def _pull(self) -> None:
        """Turns what has come into messages for the handler, and answers control frames."""
        connection = self._connection
        while not self._held:
            batch = connection.next_batch()
            if not batch:
                return
            kind = type(batch[0])
            if kind is not TextMessage and kind is not BinaryMessage:
                for event in batch:
                    self._handle(event)
                if connection.unread:
                    continue
                return
            self._queue(batch)
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)
            if connection.unread and not self._held:
                # The handler answers what it has before we look at a frame that may be the last.
                self._hub.loop.call_soon(self._pull)
            return

    def _queue(self, batch: deque[Event]) -> None:
        """Queues messages; when too much waits, stops reading, or once we have closed, drops them."""
        # Several messages come from one read, and are no larger; one may come from many reads.
        count = len(batch)
        size = len(batch[0].data) if count == 1 else self._read_size  # type: ignore[union-attr]
        self._hub.stats.messages_in += count
        if self._rates is not None and not self._rates.take(count, size, self._hub.clock.time()):
            self.fail(CloseCode.POLICY_VIOLATION, "too fast", cause=Cause.LIMIT)
            return
        size += _MESSAGE_OVERHEAD * count
        if self._queued > MAX_QUEUED and self._connection.state is not State.OPEN:
            return  # nobody reads: only the peer's Close is waited for
        self._batches.append((batch, size))
        self._queued += size
        if self._queued > MAX_QUEUED and self._connection.state is State.OPEN:
            self._held = True
            self._reader.pause()

    def _handle(self, event: Event) -> None:
        match event:
            case Ping(data=data):
                self._outbox.schedule(len(data))
            case Pong(data=data):
                self._finish_ping(data)
            case CloseReceived(code=code):
                self._cause = self._cause or Cause.PEER
                self._code_sent = self._code_sent or code  # the codec has echoed it
                if self._connection.close_expected:  # else `ConnectionClosed` follows at once
                    self._outbox.finish()
                    self._start_close_timer()
            case ConnectionFailed(code=code):
                self._failure = event
                self._cause = self._cause or Cause.PROTOCOL_ERROR
                self._code_sent = self._code_sent or code
            case ConnectionClosed():
                self._finish(event)

    # Sending.

    async def send(self, message: str | bytes) -> None:
        """Sends a message; where the peer is behind, waits until this one may leave.

        A peer that takes nothing for the send time-out (`Limits`) loses its connection. Raises
        `ConnectionClosedError` when the connection is closing or has ended.
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
        # While there is more to answer, let the answers leave together.
        much = outbox.schedule(size) if self._batch else outbox.send_soon(size)
        if much:
            await asyncio.sleep(0)  # who sends without end would leave nobody else a turn

    async def _send_behind(self, message: str | bytes) -> None:
        if self._connection.state is not State.OPEN:
            raise self._closed_error()
        prepared = _prepare(message)
        self._hub.stats.messages_out += 1
        # A client masks each frame anew, so that its messages cannot wait as frames.
        waiting = prepared if self._connection.role is Role.SERVER else prepared.message
        if not await self._outbox.send(waiting, len(prepared.plain_frame)):
            raise self._closed_error()

    async def drain(self) -> None:
        """Waits until all that was sent and posted has left our queue.

        Raises `ConnectionClosedError` when the connection ends before.
        """
        if not await self._outbox.drain():
            raise self._closed_error()

    @property
    def behind(self) -> bool:
        """Whether the peer does not read as fast as messages come."""
        return self._outbox.behind

    def post(self, message: str | bytes, policy: Policy | None = None) -> None:
        """Queues a message without waiting; nothing happens when it is too late.

        ``policy`` is what happens when the peer is behind; the server's if it is not given. Raises
        `LocalProtocolError` at a client, which has `send`.
        """
        if self._connection.role is Role.CLIENT:
            raise LocalProtocolError("a client has send() only", slug="not-masked")
        if policy is not None:
            check_policy(policy)
        if isinstance(policy, Coalesce):
            policy = policy.resolve(message)
        self._hub.stats.messages_out += 1
        self.post_prepared(_prepare(message), policy)

    def post_prepared(self, message: PreparedMessage, policy: Policy | None) -> None:
        """The same for a message that many are sent (`rooms`)."""
        outbox = self._outbox
        if outbox.behind:
            outbox.post(message, policy or self._hub.policy)
            return
        try:
            self._connection.send_prepared(message)
        except LocalProtocolError:
            return  # it is closing
        outbox.schedule(message.size)

    def may_join(self) -> bool:
        """Whether the connection may join one more room now; counts it."""
        limits = self._hub.limits
        if len(self.memberships) >= limits.max_rooms:
            return False
        if limits.join_rate is None:
            return True
        now = self._hub.clock.time()
        if self._join_rate is None:
            self._join_rate = TokenBucket(limits.join_rate, now)
        return self._join_rate.take(1, now)

    async def ping(self) -> float:
        """Sends a Ping and waits for its Pong; gives the seconds between.

        Raises `ConnectionClosedError` when the connection ends before.
        """
        if self._connection.state is not State.OPEN:
            raise self._closed_error()
        data = new_mask_key()
        answered: asyncio.Future[float] = self._hub.loop.create_future()
        if self._pings is None:
            self._pings = {}
        self._pings[data] = (answered, self._hub.clock.time())
        self._connection.send_ping(data)
        self._outbox.flush()
        try:
            return await answered
        finally:
            self._pings.pop(data, None)

    def send_ping(self, data: bytes) -> None:
        """Queues a Ping of `keepalive`, if the connection is open."""
        if self._connection.state is State.OPEN:
            self._connection.send_ping(data)
            self._outbox.schedule(len(data))

    def _finish_ping(self, data: bytes) -> None:
        now = self._hub.clock.time()
        sent_at = self._hub.pings.get(data)
        if sent_at is not None:
            self.latency = now - sent_at
            self._hub.stats.latency.observe(self.latency)
        answered, sent_at = (self._pings or {}).get(data, (None, 0.0))
        if answered is not None and not answered.done():
            answered.set_result(now - sent_at)

    def pause_writing(self) -> None:
        """The peer does not keep up."""
        self._outbox.pause()

    def resume_writing(self) -> None:
        """It has taken what there was."""
        # Not at once: asyncio is in the middle of a write, and what we write now may fail.
        self._hub.loop.call_soon(self._outbox.resume)

    def give_up(self, why: GiveUp) -> None:
        """Ends the connection: its peer does not read."""
        cause = {"slow": Cause.SLOW_CONSUMER, "budget": Cause.BUDGET}.get(why, Cause.SEND_TIMEOUT)
        self.fail(CloseCode.POLICY_VIOLATION, "too slow", cause=cause)
        if cause is Cause.SEND_TIMEOUT:
            self._writer.transport.abort()  # it had its time to read, and would not read a Close either

    # Closing.

    async def close(self, code: int | None = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Closes the connection, and waits until it has ended; for the close time-out at most.

        Raises `LocalProtocolError` for a code that must not be sent.
        """
        self.start_close(code, reason)
        await self.wait_closed()

    def start_close(
        self,
        code: int | None = CloseCode.NORMAL_CLOSURE,
        reason: str = "",
        *,
        cause: Cause = Cause.CLOSED,
    ) -> None:
        """Starts the closing handshake without waiting; what was sent before leaves before.

        Raises as `close` does.
        """
        if self._connection.state is State.OPEN:
            encode_close(code, reason)  # raises before anything has changed
            self._outbox.hand_over()
            self._connection.close(code, reason)
            self._cause = self._cause or cause
            self._code_sent = CloseCode.NO_STATUS_RECEIVED if code is None else code
        else:
            self._connection.close(code, reason)
        if self._closed is None:
            self._outbox.finish()
            self._start_close_timer()
            self._go_on_reading()

    def fail(self, code: int, reason: str = "", *, cause: Cause = Cause.CLOSED) -> None:
        """Ends the connection at once, with a Close but without waiting for the peer's."""
        if self._connection.state is State.OPEN:
            encode_close(code, reason)
            self._code_sent = code
        self._cause = self._cause or cause
        self._connection.fail(code, reason)
        self._go_on_reading()

    def _go_on_reading(self) -> None:
        """The end is near: it is looked for behind whatever waits unread."""
        self._held = False
        self._reader.resume()
        self._pull()

    async def wait_closed(self) -> None:
        """Waits until the connection has ended and TCP is closed."""
        while not self._tcp_closed:
            waiter = self._hub.loop.create_future()
            if self._closed_waiters is None:
                self._closed_waiters = []
            self._closed_waiters.append(waiter)
            await waiter

    def abort(self) -> None:
        """Ends TCP now; what is queued is lost."""
        self._writer.transport.abort()

    def _start_close_timer(self) -> None:
        if self._close_timer is None:
            timeout = self._hub.limits.close_timeout
            self._close_timer = self._hub.clock.call_later(timeout, self._writer.transport.abort)

    def _finish(self, closed: ConnectionClosed) -> None:
        self._closed = closed
        self._cause = self._cause or Cause.LOST
        self._ended_at = self._hub.clock.time()
        self._outbox.finish()
        if self._id is not None:
            self._hub.by_id.pop(self._id, None)
        self._hub.stats.closes[closed.code, self._cause.value] += 1
        for answered, _ in (self._pings or {}).values():
            if not answered.done():
                answered.set_exception(self._closed_error())
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        for room in list(self._memberships or ()):
            room.leave(self)
        for callback in self._on_closed or ():
            callback(self)
        self._on_closed = None
        if self._hub.on_report is not None and self._hub.wants_reports():
            report = self.report
            assert report is not None  # noqa: S101 - it has ended
            self._hub.on_report(report)
        self._close_tcp()

    def _make_report(self, closed: ConnectionClosed) -> CloseReport:
        cause = self._cause or Cause.LOST
        by_peer = {Cause.PEER: "peer", Cause.LOST: "nobody"}
        return CloseReport(
            id=self.id,
            address=self.address,
            path=self.request.path if self.request else "",
            closed_by=by_peer.get(cause, "us"),  # type: ignore[arg-type]  # these are the three
            code_sent=self._code_sent,
            code_received=None if closed.code == CloseCode.ABNORMAL_CLOSURE else closed.code,
            reason=closed.reason or (self._failure.reason if self._failure else ""),
            cause=cause,
            seconds=self._ended_at - self._opened_at,
            dropped=self._outbox.dropped,
            loop_lag=self._hub.loop_lag,
        )

    def _close_tcp(self) -> None:
        transport = self._writer.transport
        if self._ended or (self._closed is not None and self._closed.clean):
            if transport.get_write_buffer_size() or self.secure:
                self._start_close_timer()  # the peer may take nothing, or not end TLS
            transport.close()
            return
        self._start_close_timer()
        # RFC 6455 §7.1.1: closing with bytes unread would reset the connection, and the peer would
        # never see our Close. So: no more from us, read on, and close when the peer does.
        try:
            if transport.can_write_eof():
                transport.write_eof()
        except OSError:
            transport.abort()  # the peer has reset the connection, and we have yet to be told
            return
        self._hub.clock.call_later(LINGER_TIMEOUT, transport.close)

    def connection_lost(self) -> None:
        """TCP is gone."""
        self._tcp_closed = True
        for waiter in self._closed_waiters or ():
            if not waiter.done():
                waiter.set_result(None)
        if self._close_timer is not None:
            self._close_timer.cancel()
        # What is left of a connection goes at once, and does not wait for the garbage collector.
        self._outbox.release()
        self._reader.detach()
        self._protocol.websocket = None

    def _closed_error(self) -> ConnectionClosedError:
        closed = self._closed
        if closed is None:
            return ConnectionClosedError(CloseCode.ABNORMAL_CLOSURE, "closing", clean=False)
        return ConnectionClosedError(closed.code, closed.reason, clean=closed.clean)

    def __repr__(self) -> str:
        role = "server" if self._connection.role is Role.SERVER else "client"
        return f"<WebSocket {role} {self._connection.state.value}>"


def _prepare(message: str | bytes) -> PreparedMessage:
    try:
        return PreparedMessage(message)
    except UnicodeEncodeError:
        raise LocalProtocolError("the text has a surrogate", slug="bad-text") from None
