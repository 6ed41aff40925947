"""Plain HTTP on the same port: pages, files, and whatever else is no WebSocket. Parsed and framed by h11.

Left to others: which requests come here (`listener`), what stands at a path (`app`, `socketio`).

h11 comes with the extra ``server``; without it, plain requests are told 501 and WebSockets work all the same.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from http import HTTPStatus
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Final

from rfc6455 import DEFAULT_MAX_HEAD_SIZE, Headers, Request, Response
from rfc6455_server.clock import Timer
from rfc6455_server.http.routes import MAX_BODY, HttpRequest, HttpResponse, HttpRoute, HttpRoutes, not_found
from rfc6455_server.logs import log
from rfc6455_server.websocket.hub import Hub
from rfc6455_server.websocket.streams import LINGER_TIMEOUT, CodecProtocol

MAX_EARLY: Final = 1 << 16
"""Bytes of further requests that may come before the first is answered."""


def _refusal(status: int) -> HttpResponse:
    return HttpResponse(b"the request is refused\n", status=status)


def _load_h11() -> ModuleType | None:
    """h11, if it is installed; looked for when the first plain request comes."""
    if find_spec("h11") is None:
        return None
    import h11  # noqa: PLC0415 - optional, and late: nobody pays for what they do not use

    return h11


class HttpConnection:
    """A connection that speaks plain HTTP: takes one request and answers it.

    ``done`` is called with the bytes that came behind it when the connection may be used again.
    """

    def __init__(  # noqa: PLR0917 - all that a connection is made of
        self,
        routes: HttpRoutes,
        protocol: CodecProtocol,
        writer: asyncio.StreamWriter,
        hub: Hub,
        done: Callable[[bytes], None],
        last: Callable[[], bool],
    ) -> None:
        self._routes = routes
        self._protocol = protocol
        self._writer = writer
        self._hub = hub
        self._done = done
        self._last = last  # whether no more requests are wanted
        self._head: Request | None = None
        self._route: HttpRoute | None = None
        self._body = bytearray()
        self._begun = False  # the route has seen the head, and its handler has not
        self._early = 0
        self._task: asyncio.Task[None] | None = None
        self._timer: Timer | None = hub.clock.call_later(hub.limits.send_timeout, self.abort)
        self._closing = False
        self._ended = False  # the client has closed its half of TCP
        h11 = _load_h11()
        if h11 is None:
            body = b"plain HTTP needs h11: install rfc6455[server]\n"
            headers = Headers([("Connection", "close"), ("Content-Length", str(len(body)))])
            writer.write(Response(501, headers).encode() + body)
            self._close()
        self._h11: Any = h11
        self._connection: Any = h11 and h11.Connection(
            h11.SERVER, max_incomplete_event_size=DEFAULT_MAX_HEAD_SIZE
        )

    def receive_data(self, data: bytes) -> None:
        """Takes bytes from the network."""
        if self._closing:
            return
        if self._task is not None:
            # The next request: it waits in h11, and a flood of them in TCP.
            self._early += len(data)
            if self._early > MAX_EARLY:
                self._protocol.reader.pause()
        self._connection.receive_data(data)
        if self._task is None:
            self._read()

    def receive_eof(self) -> None:
        """Takes the end of the input: a client that only stopped sending may still read."""
        self._ended = True
        self._abandon()
        if self._task is not None and self._route is not None and self._route.long:
            self._task.cancel()
            self._close()
        elif self._task is None:
            self._close()

    def abort(self) -> None:
        """Ends the connection at once."""
        self._stop_timer()
        self._abandon()
        if self._task is not None:
            self._task.cancel()
        self._closing = True
        self._writer.transport.abort()

    def _read(self) -> None:
        h11 = self._h11
        try:
            while self._task is None:
                event = self._connection.next_event()
                if isinstance(event, h11.Request):
                    self._start(event)
                elif isinstance(event, h11.Data):
                    self._body += event.data
                    if self._route is not None and len(self._body) > self._route.max_body:
                        self._refuse(_refusal(413))
                elif isinstance(event, h11.EndOfMessage):
                    self._stop_timer()
                    self._answer_with(self._handle)
                else:
                    return  # more is to come
        except h11.RemoteProtocolError as error:
            self._refuse(_refusal(error.error_status_hint))

    def _start(self, event: Any) -> None:
        headers = Headers([(name.decode(), value.decode("latin-1")) for name, value in event.headers])
        self._head = Request(event.method.decode(), event.target.decode(), headers)
        self._route = self._routes.find(self._head.path)
        route = self._route
        if route is not None and route.begin is not None and self._head.method in route.methods:
            refusal = route.begin(self._head)
            if refusal is not None:
                self._refuse(refusal)
                return
            self._begun = True
        declared = headers.get("Content-Length") or "0"
        if int(declared) > (self._route.max_body if self._route else MAX_BODY):
            self._refuse(_refusal(413))
        elif self._connection.they_are_waiting_for_100_continue:
            interim = self._h11.InformationalResponse(status_code=100, headers=[])
            self._writer.write(self._connection.send(interim))

    def _refuse(self, refusal: HttpResponse) -> None:
        """Answers without reading on."""
        self._stop_timer()
        self._abandon()

        async def refuse() -> HttpResponse:
            refusal.headers.append(("Connection", "close"))
            return refusal

        self._answer_with(refuse)

    def _abandon(self) -> None:
        """The handler will not be reached."""
        if self._begun and self._route is not None and self._route.abandon is not None:
            assert self._head is not None  # noqa: S101 - it was begun with
            self._route.abandon(self._head)
        self._begun = False

    async def _handle(self) -> HttpResponse:
        route, head = self._route, self._head
        assert head is not None  # noqa: S101 - it came before the end of the message
        if route is None:
            return not_found()
        if head.method not in route.methods:
            allowed = ", ".join(route.methods)
            return HttpResponse(b"method not allowed\n", status=405, headers=[("Allow", allowed)])
        self._begun = False
        secure = self._writer.get_extra_info("ssl_object") is not None
        return await route.handler(HttpRequest(head, bytes(self._body), self._protocol.address, secure))

    def _answer_with(self, answer: Callable[[], Awaitable[HttpResponse]]) -> None:
        # A function, not its coroutine: the task may be cancelled before it begins.
        self._task = asyncio.get_running_loop().create_task(self._answer(answer))

    async def _answer(self, answer: Callable[[], Awaitable[HttpResponse]]) -> None:
        path = self._head.path if self._head else ""
        try:
            response = await answer()
        except Exception:  # noqa: BLE001 - whatever a handler raises
            log(logging.ERROR, "a page failed", exception=True, address=self._protocol.address, path=path)
            response = HttpResponse(b"internal error\n", status=500)
        if response.status >= 400 and not response.expected:
            self._hub.stats.refused[response.status] += 1
            address = self._protocol.address
            log(logging.INFO, "request refused", status=response.status, address=address, path=path)
        try:
            await self._send(response)
        except (OSError, TimeoutError):
            self.abort()
            return
        self._finish()

    async def _send(self, response: HttpResponse) -> None:
        h11, connection = self._h11, self._connection
        length = len(response.body) if response.pieces is None else response.length
        fields = [
            ("Date", formatdate(usegmt=True)),
            ("X-Content-Type-Options", "nosniff"),
            *response.headers,
        ]
        if response.status not in (204, 304):
            fields += [("Content-Type", response.content_type), ("Content-Length", str(length))]
        if self._last():
            fields.append(("Connection", "close"))
        reason = HTTPStatus(response.status).phrase
        data = connection.send(h11.Response(status_code=response.status, headers=fields, reason=reason))
        with_body = length and (self._head is None or self._head.method != "HEAD")
        if with_body and response.pieces is None:
            data += connection.send(h11.Data(data=response.body))
        await self._write(data)
        if with_body and response.pieces is not None:
            async for piece in response.pieces:
                await self._write(connection.send(h11.Data(data=piece)))
        await self._write(connection.send(h11.EndOfMessage()))

    async def _write(self, data: bytes) -> None:
        """Writes, and waits until the client has taken most of it; raises `OSError` or `TimeoutError`."""
        self._hub.stats.bytes_out += len(data)
        self._writer.write(data)
        async with asyncio.timeout(self._hub.limits.send_timeout):
            await self._writer.drain()

    def _finish(self) -> None:
        connection = self._connection
        if connection.our_state is not self._h11.DONE or connection.their_state is not self._h11.DONE:
            self._close()
            return
        early, _ = connection.trailing_data
        if self._early > MAX_EARLY:
            self._protocol.reader.resume()
        self._closing = True
        self._done(early)

    def _close(self) -> None:
        """Closes TCP, and not before the client has what was written (RFC 9112 §9.6)."""
        self._stop_timer()
        self._closing = True
        transport = self._writer.transport
        if transport.is_closing():
            return
        if transport.can_write_eof() and not self._ended:
            try:
                transport.write_eof()
            except OSError:
                transport.abort()  # the client has reset the connection, and we have yet to be told
                return
            self._hub.clock.call_later(LINGER_TIMEOUT, transport.abort)
        else:
            transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
