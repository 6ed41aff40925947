"""One HTTP connection on the port of the WebSockets: pages, files, metrics, polling. h11 parses and frames.

Left to others: which requests are answered here (`listening`), which handler answers a path (`routes`).

h11 is in the extra ``server``. Without it, every request is answered with 501, and WebSockets work.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from rfc6455 import DEFAULT_MAX_HEAD_SIZE, HandshakeError, Headers, Response
from rfc6455_server.clock import Timer
from rfc6455_server.http.extras import load_h11
from rfc6455_server.http.heads import ServedRequest, read_head
from rfc6455_server.http.refusals import record_refusal
from rfc6455_server.http.routes import (
    MAX_BODY,
    HttpRequest,
    HttpResponse,
    HttpRoute,
    HttpRoutes,
    Outcome,
    not_found,
)
from rfc6455_server.logs import log
from rfc6455_server.websocket.hub import FEW_BYTES, Hub, Slowness, head_size
from rfc6455_server.websocket.outbox import MIN_PROGRESS
from rfc6455_server.websocket.streams import LINGER_TIMEOUT, CodecProtocol

MAX_EARLY: Final = 1 << 16
"""Reading pauses when a client sends more bytes of further requests than this before it has its answer."""

FREE_CHUNKS: Final = 1024
"""Chunks of a body that may have any size."""

MIN_CHUNK: Final = 64
"""Bytes that chunks beyond `FREE_CHUNKS` must have on average: each costs as much time as a message."""
_TOO_LARGE: Final = "body too large"


class HttpConnection:
    """Answers one HTTP request.

    ``answered`` is called when the connection can take another request, with the bytes that followed the
    first. ``is_last`` says, before the answer, that the connection shall close after it. ``scheme`` is that
    of the request's URI.
    """

    def __init__(  # noqa: PLR0917 - the parts of one connection
        self,
        routes: HttpRoutes,
        protocol: CodecProtocol,
        transport: asyncio.WriteTransport,
        hub: Hub,
        answered: Callable[[bytes], None],
        is_last: Callable[[], bool],
        scheme: str,
    ) -> None:
        self._routes = routes
        self._protocol = protocol
        self._transport = transport
        self._hub = hub
        self._answered = answered
        self._is_last = is_last
        self._scheme = scheme
        self._head: ServedRequest | None = None
        self._route: HttpRoute | None = None
        self._body = bytearray()
        self._head_accepted = (
            False  # ``begin`` of the route has accepted the head, and the handler has not run
        )
        self._chunks = 0  # in which the body has come
        self._head_size = 0  # bytes of the head, unless they are few
        self._unparsed = 0  # bytes of the request that h11 cannot parse yet: of a chunk's header, of trailers
        self._early = 0  # bytes that followed the request before it was answered
        self._task: asyncio.Task[None] | None = None  # answers the request
        # A deadline always runs: of the request, the handler, each piece of the answer, and the end.
        self._timer: Timer | None = hub.clock.call_later(hub.limits.send_timeout, self.abort)
        self._last_write = False  # whether the last part of the answer was passed to the transport
        self._refused = False  # before the handler ran
        self._late = False  # the handler has had its time
        self._answer_size = 0  # bytes of the body, besides the copy with a head that the transport has
        self._outcome = Outcome.LOST
        self._closing = False
        self._eof_received = False
        h11 = load_h11()
        if h11 is None:
            body = b"HTTP needs h11: install rfc6455[server]\n"
            headers = Headers([("Connection", "close"), ("Content-Length", str(len(body)))])
            transport.write(Response(501, headers).encode() + body)
            self._close()
        self._h11: Any = h11
        self._connection: Any = h11 and h11.Connection(
            h11.SERVER, max_incomplete_event_size=DEFAULT_MAX_HEAD_SIZE
        )

    @property
    def answer(self) -> asyncio.Task[None] | None:
        """What answers the request; ``None`` while it arrives."""
        return self._task

    def receive_data(self, data: bytes) -> None:
        """Takes bytes from the network."""
        if self._closing:
            return
        if self._task is not None:
            self._take_early(len(data))
        self._connection.receive_data(data)
        if self._task is None:
            self._read_request()

    def receive_eof(self) -> None:
        """Takes the end of the input. The client may still read: it gets its answer, unless that is long."""
        self._eof_received = True
        self._abandon()
        if self._closing:
            self._transport.close()  # the client has read the answer, or reads on until the deadline
            self._hub.lingering.discard(self)
        elif self._task is None:
            self._close()
        elif self._route is not None and self._route.long and not self._is_written:
            self._cancel(self._task)
            self._close()

    def abort(self) -> None:
        """Ends the connection at once."""
        self._stop_timer()
        self._abandon()
        self._hub.budget.release(self)
        self._hub.lingering.discard(self)
        if self._task is not None:
            self._cancel(self._task)
        self._closing = True
        self._transport.abort()

    def _cancel(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        task.add_done_callback(self._forget_task)

    def _forget_task(self, _: asyncio.Task[None]) -> None:
        self._task = None  # its exception refers to this object, and would keep both alive

    # The request.

    def _read_request(self) -> None:
        try:
            self._read_events()
        except self._h11.RemoteProtocolError as error:
            self._refuse(error.error_status_hint, "malformed")
        except HandshakeError as error:
            self._refuse_with(_bad_request(error))
        except Exception:  # noqa: BLE001 - whatever ``begin`` of a route raises
            path = self._head.path if self._head else ""
            log(
                logging.ERROR,
                "HTTP handler failed",
                exception=True,
                address=self._protocol.address,
                path=path,
            )
            self._refuse_with(_internal_error("handler failed"))

    def _read_events(self) -> None:
        h11 = self._h11
        while self._task is None:
            event = self._connection.next_event()
            if isinstance(event, h11.Request):
                self._start(event)
            elif isinstance(event, h11.Data):
                self._take_body(event)
            elif isinstance(event, h11.EndOfMessage):
                self._unparsed = 0
                early, _ = self._connection.trailing_data
                if early:
                    self._take_early(len(early))
                self._answer_with(self._handle)
            else:
                unparsed, _ = self._connection.trailing_data
                if unparsed or self._unparsed:
                    self._unparsed = len(unparsed)
                    self._charge()
                return  # needs more bytes

    def _take_body(self, event: Any) -> None:
        self._body += event.data
        self._chunks += event.chunk_start
        self._charge()
        if self._route is not None and len(self._body) > self._route.max_body:
            self._refuse(413, _TOO_LARGE)
        elif len(self._body) < MIN_CHUNK * (self._chunks - FREE_CHUNKS):
            self._refuse_with(HttpResponse(b"too many small chunks\n", status=413, reason="small chunks"))

    def _take_early(self, size: int) -> None:
        """Counts bytes of further requests: they wait in h11, and above `MAX_EARLY` in TCP."""
        self._early += size
        self._charge()
        if self._early > MAX_EARLY:
            self._protocol.reader.pause()

    def _start(self, event: Any) -> None:
        self._head = head = read_head(event, self._scheme)
        if (size := head_size(head)) > FEW_BYTES:
            self._head_size = size
            self._charge()
        self._route = route = self._routes.find(head.path)
        if route is not None and route.begin is not None and route.takes(head.method):
            refusal = route.begin(head)
            if refusal is not None:
                self._refuse_with(refusal)
                return
            self._head_accepted = True
        declared = head.headers.get("Content-Length") or "0"
        if int(declared) > (route.max_body if route else MAX_BODY):
            self._refuse(413, _TOO_LARGE)
        elif self._connection.they_are_waiting_for_100_continue:
            interim = self._h11.InformationalResponse(status_code=100, headers=[])
            self._transport.write(self._connection.send(interim))

    def _refuse(self, status: int, reason: str) -> None:
        self._refuse_with(HttpResponse(b"request refused\n", status=status, reason=reason))

    def _refuse_with(self, refusal: HttpResponse) -> None:
        """Answers without reading the rest of the request."""
        self._abandon()

        async def refuse() -> HttpResponse:
            refusal.headers.append(("Connection", "close"))
            return refusal

        self._refused = True
        self._answer_with(refuse)

    def _abandon(self) -> None:
        """Tells the route, if it accepted the head, that its handler will not run."""
        if self._head_accepted and self._route is not None and self._route.abandon is not None:
            assert self._head is not None  # noqa: S101 - ``begin`` was called with it
            self._route.abandon(self._head)
        self._head_accepted = False

    # The answer.

    async def _handle(self) -> HttpResponse:
        route, head = self._route, self._head
        assert head is not None  # noqa: S101 - the request is complete
        if route is None:
            return not_found()
        if not route.takes(head.method):
            allowed = ", ".join(route.methods or ())
            fields = [("Allow", allowed)]
            return HttpResponse(b"method not allowed\n", status=405, headers=fields, reason="method")
        self._head_accepted = False
        secure = self._transport.get_extra_info("ssl_object") is not None
        body, self._body = bytes(self._body), bytearray()
        self._charge()
        return await route.handler(HttpRequest(head, body, self._protocol.address, secure))

    def _answer_with(self, answer: Callable[[], Awaitable[HttpResponse]]) -> None:
        if self._route is not None and self._route.long and not self._refused:
            self._stop_timer()  # it has deadlines of its own
        else:
            self._start_timer(self._hub.limits.answer_timeout, self._time_out)
        # A function, and not its coroutine: a task that is cancelled before it starts would never await it.
        self._task = asyncio.get_running_loop().create_task(self._answer(answer))

    def _time_out(self) -> None:
        """Cancels the handler, which has had its time. If it ignores that, the connection ends."""
        self._late = True
        if self._task is not None:
            self._task.cancel()
        self._start_timer(self._hub.limits.send_timeout, self.abort)

    async def _answer(self, answer: Callable[[], Awaitable[HttpResponse]]) -> None:
        path = self._head.path if self._head else ""
        response = await self._response_of(answer, path)
        try:
            await self._answer_by(response, path)
        finally:
            if response.done is not None:
                try:
                    response.done(self._outcome)
                except Exception:  # noqa: BLE001 - whatever a callback raises
                    log(logging.ERROR, "callback of an answer failed", exception=True, path=path)

    async def _response_of(self, answer: Callable[[], Awaitable[HttpResponse]], path: str) -> HttpResponse:
        """Returns what a handler answers, or an error if it fails, is too slow or cancels itself."""
        address = self._protocol.address
        try:
            response = await answer()
            if not isinstance(response, HttpResponse):
                raise TypeError(f"an HTTP handler returns an HttpResponse, not {type(response).__name__}")
        except HandshakeError as error:
            return _bad_request(error)
        except asyncio.CancelledError:
            if self._late and not self._closing:
                log(logging.ERROR, "HTTP handler too slow", address=address, path=path)
                return HttpResponse(b"took too long\n", status=503, reason="handler too slow")
            if self._closing:
                raise
            if self._is_cancelled():
                self.abort()
                raise
            log(logging.ERROR, "HTTP handler failed", exception=True, address=address, path=path)
            return _internal_error("handler failed")
        except Exception:  # noqa: BLE001 - whatever a handler raises
            log(logging.ERROR, "HTTP handler failed", exception=True, address=address, path=path)
            return _internal_error("handler failed")
        return response

    def _is_cancelled(self) -> bool:
        """Whether somebody cancels this task; a handler may also raise `CancelledError` by mistake."""
        return self._task is not None and self._task.cancelling() > 0

    async def _answer_by(self, response: HttpResponse, path: str) -> None:
        outcome = Outcome.SENT
        try:
            head = self._head_of(response)
        except Exception:  # noqa: BLE001 - whatever h11 raises for what a handler returned
            log(logging.ERROR, "answer is not valid HTTP", exception=True, path=path)
            outcome = Outcome.LOST
            response = _internal_error("invalid answer")
            head = self._head_of(response)
        if response.status >= 400 and not response.expected:
            address, reason = self._protocol.address, response.reason
            record_refusal(self._hub.stats, response.status, address=address, path=path, reason=reason)
        try:
            await self._send(response, head)
        except ConnectionError:
            self.abort()  # the client has left
        except asyncio.CancelledError:
            if not self._closing:
                reason = "too slow" if self._late else "cancelled"
                log(logging.ERROR, "sending an answer failed", reason=reason, path=path)
            self.abort()
            raise
        except Exception:  # noqa: BLE001 - whatever makes or fails to make the body
            log(logging.ERROR, "sending an answer failed", exception=True, path=path)
            self.abort()
        else:
            self._outcome = outcome
            self._finish()

    def _head_of(self, response: HttpResponse) -> Any:
        """Returns the head of an answer; raises whatever h11 does for fields that are not valid."""
        length = len(response.body) if response.pieces is None else response.length
        fields = [
            ("Date", formatdate(usegmt=True)),
            ("X-Content-Type-Options", "nosniff"),
            *response.headers,
        ]
        if response.status not in (204, 304):
            fields += [("Content-Type", response.content_type), ("Content-Length", str(length))]
        if self._is_last():
            fields.append(("Connection", "close"))
        reason = HTTPStatus(response.status).phrase
        return self._h11.Response(status_code=response.status, headers=fields, reason=reason)

    async def _send(self, response: HttpResponse, head: Any) -> None:
        h11, connection = self._h11, self._connection
        data: bytes = connection.send(head)
        with_body = self._head is None or self._head.method != "HEAD"
        if response.pieces is None:
            if response.body and with_body:
                self._answer_size = len(response.body)
                data += connection.send(h11.Data(data=response.body))
        elif response.length and with_body:
            self._write(data)
            await self._protocol.drain()
            self._start_timer(self._hub.limits.answer_timeout, self._time_out)
            async for piece in response.pieces:
                self._write(connection.send(h11.Data(data=piece)))
                await self._protocol.drain()
                self._start_timer(self._hub.limits.answer_timeout, self._time_out)
            data = b""
        data += connection.send(h11.EndOfMessage())
        self._last_write = True
        self._write(data)
        del data  # the transport has it
        await self._protocol.drain()

    def _write(self, data: bytes) -> None:
        """Passes bytes to the transport, and watches that the client takes them."""
        self._hub.stats.bytes_out += len(data)
        self._transport.write(data)
        self._charge()
        self._watch_progress()

    @property
    def _is_written(self) -> bool:
        """Whether all of the answer has left, although the task may not know it yet."""
        return self._last_write and not self._transport.get_write_buffer_size()

    def _watch_progress(self) -> None:
        unwritten = self._transport.get_write_buffer_size()
        self._start_timer(self._hub.limits.send_timeout, partial(self._check_progress, unwritten))

    def _check_progress(self, unwritten: int) -> None:
        """Ends the connection if the client has taken less than `MIN_PROGRESS`, and not all that was left."""
        left = self._transport.get_write_buffer_size()
        if left and unwritten - left < MIN_PROGRESS:
            self._outcome = Outcome.TOO_SLOW
            self.abort()
        else:
            self._watch_progress()

    def _charge(self) -> None:
        """Tells the budget what waits here: the request, further ones, and the answer."""
        size = self._head_size + len(self._body) + self._unparsed + self._early + self._answer_size
        self._hub.budget.charge(self, size + self._transport.get_write_buffer_size())

    def disconnect_slow(self, slowness: Slowness) -> None:
        """Ends the connection: of all peers, most bytes wait for this one."""
        log(logging.INFO, "HTTP client too slow", address=self._protocol.address, reason=slowness)
        self._outcome = Outcome.TOO_SLOW
        self.abort()

    def _finish(self) -> None:
        """Passes the connection on to the next request, or closes it."""
        self._hub.budget.release(self)
        if self._early > MAX_EARLY:
            self._protocol.reader.resume()
        connection = self._connection
        if connection.our_state is not self._h11.DONE or connection.their_state is not self._h11.DONE:
            self._close()
            return
        self._stop_timer()
        early, _ = connection.trailing_data
        self._closing = True
        self._answered(early)

    # The end.

    def _close(self) -> None:
        """Sends EOF, and closes TCP once the client has read the answer (RFC 9112 §9.6)."""
        self._closing = True
        self._hub.budget.release(self)
        transport = self._transport
        if transport.is_closing():
            self._stop_timer()
            return
        if self._eof_received or not transport.can_write_eof():
            transport.close()
        elif not self._protocol.send_eof():
            self._stop_timer()
            return
        self._linger(transport.get_write_buffer_size())
        if self._refused:
            self._hub.lingering.add(self, self.abort)

    def _linger(self, unwritten: int) -> None:
        """Reads on for a while, and longer while the client still takes what was written."""
        seconds = self._hub.limits.send_timeout if unwritten else LINGER_TIMEOUT
        self._start_timer(seconds, partial(self._end_linger, unwritten))

    def _end_linger(self, unwritten: int) -> None:
        left = self._transport.get_write_buffer_size()
        if 0 < left < unwritten:
            self._linger(left)
        else:
            self.abort()

    def _start_timer(self, seconds: float, callback: Callable[[], None]) -> None:
        """Starts a deadline in place of the one that runs."""
        self._stop_timer()
        self._timer = self._hub.clock.call_later(seconds, callback)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _bad_request(error: HandshakeError) -> HttpResponse:
    """Answers a request with a malformed field, such as one that occurs twice."""
    return HttpResponse(f"{error}\n".encode(), status=error.status, reason=error.slug)


def _internal_error(reason: str) -> HttpResponse:
    return HttpResponse(b"internal error\n", status=500, reason=reason)
