"""The end of one connection: the closing handshake, its timers, closing TCP in the right order, the report.

Implements: what RFC 6455 §7.1.1 leaves to whoever owns TCP.
Left to others: Close frames and close codes (the codec), rooms and callbacks (`websocket`).

Most connections of a server are idle and far from their end, so an `Ending` is made when the end begins.
Everything that ends a connection calls `Ending.start_close` (and waits for the peer) or `Ending.fail` (and
does not).
"""

import asyncio
from collections.abc import Callable
from typing import Final, Literal

from rfc6455 import (
    CloseCode,
    Connection,
    ConnectionClosed,
    ConnectionFailed,
    State,
    WebSocketError,
    encode_close,
)
from rfc6455_server.clock import Timer
from rfc6455_server.websocket.hub import Hub
from rfc6455_server.websocket.inbox import Inbox
from rfc6455_server.websocket.outbox import Outbox
from rfc6455_server.websocket.reports import Cause, CloseReport
from rfc6455_server.websocket.streams import LINGER_TIMEOUT

_CLOSED_BY: Final[dict[Cause, Literal["peer", "nobody"]]] = {Cause.PEER: "peer", Cause.LOST: "nobody"}


MAX_REASON: Final = 123
"""Maximum bytes of the reason in a Close (RFC 6455 §5.5, §5.5.1)."""


class ConnectionClosedError(WebSocketError):
    """The connection has ended: ``code``, ``reason`` and ``clean`` as in `rfc6455.ConnectionClosed`."""

    def __init__(self, code: int, reason: str, *, clean: bool) -> None:
        super().__init__(f"closed with {code}" + (f": {reason!r}" if reason else ""), slug="closed")
        self.code = code
        self.reason = reason
        self.clean = clean


class Ending:
    """How one connection ends. The first cause and the first code that are recorded stay."""

    __slots__ = (
        "_cause",
        "_close_timer",
        "_code_sent",
        "_connection",
        "_ended_at",
        "_eof_received",
        "_hub",
        "_inbox",
        "_outbox",
        "_reason",
        "_send_eof",
        "_tcp_closed",
        "_transport",
        "_waiters",
        "closed",
        "failure",
    )

    def __init__(
        self,
        connection: Connection,
        inbox: Inbox,
        outbox: Outbox,
        transport: asyncio.WriteTransport,
        hub: Hub,
        *,
        send_eof: Callable[[], bool],
    ) -> None:
        self._connection = connection
        self._inbox = inbox
        self._outbox = outbox
        self._transport = transport
        self._hub = hub
        self._send_eof = send_eof
        self.closed: ConnectionClosed | None = None
        """The last event of the connection."""
        self.failure: ConnectionFailed | None = None
        """The peer's violation, if there was one."""
        self._cause: Cause | None = None
        self._code_sent: int | None = None
        self._reason = ""  # of the side that decided to close
        self._ended_at = 0.0
        self._close_timer: Timer | None = None
        self._eof_received = False
        self._tcp_closed = False
        self._waiters: list[asyncio.Future[None]] = []

    # From our side.

    def start_close(self, code: int | None, reason: str, cause: Cause) -> None:
        """Starts the closing handshake; what was sent before leaves before the Close.

        Raises `LocalProtocolError`, before anything has changed, for a code that must not be sent.
        """
        if self._connection.state is State.OPEN:
            encode_close(code, reason)
            self._outbox.encode_backlog()
            self._record(cause, CloseCode.NO_STATUS_RECEIVED if code is None else code, reason)
        self._connection.close(code, reason)
        if self.closed is None:
            self._outbox.finish()
            self._start_close_timer()
            self._inbox.stop()

    def fail(self, code: int, reason: str, cause: Cause) -> None:
        """Ends the connection at once, with a Close but without waiting for the peer's; raises alike."""
        if self._connection.state is State.OPEN:
            encode_close(code, reason)
            self._record(cause, code, reason)
        self._record(cause, reason=reason)
        self._connection.fail(code, reason)
        self._inbox.stop()

    # From the peer's side.

    def receive_close(self, code: int, reason: str) -> None:
        """Handles the peer's Close, which the codec has answered with the same code."""
        self._record(Cause.PEER, code, reason)
        if self._connection.close_expected:  # else `ConnectionClosed` follows at once
            self._outbox.finish()
            self._start_close_timer()

    def receive_failure(self, failure: ConnectionFailed) -> None:
        """Handles the peer's violation, which the codec has answered with a Close."""
        self.failure = failure
        self._record(Cause.PROTOCOL_ERROR, failure.code, failure.reason)

    def receive_eof(self) -> None:
        """Handles the end of the input."""
        self._eof_received = True
        if self.closed is None:
            self._connection.receive_eof()
            self._inbox.receive_eof()
        else:
            # The peer has seen our Close or is gone: there is no reason to linger.
            self._transport.close()

    # The end itself.

    def finish(self, closed: ConnectionClosed) -> None:
        """Records the end, and wakes those who wait for messages."""
        self.closed = closed
        cause = self._record(Cause.LOST)
        self._ended_at = self._hub.clock.time()
        self._outbox.finish()
        self._inbox.finish()
        self._hub.stats.closes[self._code_sent, cause.value] += 1

    def close_tcp(self) -> None:
        """Closes TCP in the order of RFC 6455 §7.1.1."""
        transport = self._transport
        if self._eof_received or (self.closed is not None and self.closed.clean):
            secure = transport.get_extra_info("ssl_object") is not None
            if transport.get_write_buffer_size() or secure:
                self._start_close_timer()  # the peer may read nothing, or not end TLS
            transport.close()
            return
        self._start_close_timer()
        # Closing with unread bytes would reset the connection, and the peer would never see our Close.
        # So we send EOF, read on, and close when the peer does.
        if self._send_eof():
            self._hub.clock.call_later(LINGER_TIMEOUT, transport.close)

    def tcp_lost(self) -> None:
        """Handles the end of TCP."""
        self._tcp_closed = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        if self._close_timer is not None:
            self._close_timer.cancel()

    @property
    def tcp_closed(self) -> bool:
        return self._tcp_closed

    async def wait_tcp_closed(self) -> None:
        while not self._tcp_closed:
            waiter = self._hub.loop.create_future()
            self._waiters.append(waiter)
            await waiter

    def error(self) -> ConnectionClosedError:
        """What a call raises that needs an open connection."""
        closed = self.closed
        if closed is None:
            return ConnectionClosedError(CloseCode.ABNORMAL_CLOSURE, "closing", clean=False)
        return ConnectionClosedError(closed.code, closed.reason, clean=closed.clean)

    def report(self, *, id: str, address: str, path: str, opened_at: float) -> CloseReport | None:  # noqa: A002 - the field
        """The report; ``None`` while the connection is open or closing."""
        closed = self.closed
        if closed is None:
            return None
        cause = self._record(Cause.LOST)
        return CloseReport(
            id=id,
            address=address,
            path=path,
            closed_by=_CLOSED_BY.get(cause, "us"),
            code_sent=self._code_sent,
            code_received=None if closed.code == CloseCode.ABNORMAL_CLOSURE else closed.code,
            reason=self._reason,
            cause=cause,
            seconds=self._ended_at - opened_at,
            dropped=self._outbox.dropped,
            loop_lag=self._hub.loop_lag,
        )

    def _record(self, cause: Cause, code_sent: int | None = None, reason: str = "") -> Cause:
        """Records a cause with its reason, and a code, unless others were recorded before; returns the
        recorded cause."""
        if self._cause is None:
            self._cause, self._reason = cause, reason
        self._code_sent = self._code_sent or code_sent
        return self._cause

    def _start_close_timer(self) -> None:
        if self._close_timer is None and not self._tcp_closed:
            timeout = self._hub.limits.close_timeout
            self._close_timer = self._hub.clock.call_later(timeout, self._transport.abort)
