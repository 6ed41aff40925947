"""`Listener`: all connections of a server. It counts them, runs handlers, and ends them on stop.

Left to others: accepting (`acceptor`), requests until they are answered (`opening`, `routing`), HTTP
(`http`), an open WebSocket (`websocket`).
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from functools import partial
from typing import Final, cast

from rfc6455 import CloseCode, Headers, Request, Response
from rfc6455_server.clock import spread, wait_for_all
from rfc6455_server.http.connection import HttpConnection
from rfc6455_server.http.refusals import record_refusal
from rfc6455_server.limits import Addresses
from rfc6455_server.listening.opening import Openings
from rfc6455_server.listening.proxy import forwarded_for, forwarded_scheme
from rfc6455_server.listening.routing import AsyncHandler, Match, Router, Site
from rfc6455_server.logs import log
from rfc6455_server.websocket.calls import refuse_coroutine
from rfc6455_server.websocket.handler import Handler
from rfc6455_server.websocket.hub import Hub
from rfc6455_server.websocket.keepalive import Keepalive
from rfc6455_server.websocket.reports import Cause
from rfc6455_server.websocket.streams import LINGER_TIMEOUT, CodecProtocol
from rfc6455_server.websocket.websocket import WebSocket

CANCEL_TIMEOUT: Final = 2.0
"""Seconds of the server's clock that handlers have to end when they were cancelled."""


class Listener:
    """Serves accepted connections. Each handler runs in a task of its own."""

    def __init__(self, site: Site, hub: Hub) -> None:
        self._site = site
        self.hub = hub
        self._loop = asyncio.get_running_loop()
        self._keepalive = Keepalive(hub)
        self._addresses = Addresses(hub.limits)
        self._protocols: dict[CodecProtocol, str | None] = {}  # with the address that each counts for
        hub.on_ended = self._end_called
        self._openings = Openings(Router(site), hub, self)
        self._http: dict[CodecProtocol, HttpConnection] = {}
        self._handlers: dict[WebSocket, asyncio.Task[None] | Handler] = {}  # of those whose handler runs
        self._all_lost: asyncio.Future[None] | None = None
        self.draining = False
        """Whether the server is stopping: it refuses requests for a WebSocket with 503."""

    @property
    def websockets(self) -> Collection[WebSocket]:
        """The WebSockets whose handler runs."""
        return self._handlers.keys()

    @property
    def connections(self) -> int:
        """The number of TCP connections."""
        return len(self._protocols)

    @property
    def open_websockets(self) -> int:
        """The number of WebSockets whose TCP is open, whether or not their handler runs."""
        return sum(protocol.websocket is not None for protocol in self._protocols)

    # TCP connections.

    def make_protocol(self, address: str, deadline: float) -> CodecProtocol | bytes:
        """Returns the protocol for a connection from ``address``, or the answer that refuses it.

        The request must be answered by ``deadline`` (the clock's time).
        """
        # A proxy's connections are those of many clients, and count for each of them once it is known.
        counted = None if address in self._site.trusted else address
        status, reason = 0, ""
        if len(self._protocols) >= self.hub.limits.max_connections:
            status, reason = 503, "too many connections"
        elif counted is not None and not self._addresses.admit(counted, self.hub.clock.time()):
            status, reason = 429, "too many of the address"
        if status:
            record_refusal(self.hub.stats, status, address=address, path="", reason=reason)
            return Response(status, Headers([("Connection", "close"), ("Content-Length", "0")])).encode()
        protocol = CodecProtocol(self._loop, partial(self._openings.start, deadline))
        protocol.peer = protocol.address = address
        protocol.on_lost = self._connection_lost
        self._keepalive.lag.start()
        self._protocols[protocol] = counted
        return protocol

    def identify_client(self, request: Request, protocol: CodecProtocol) -> bool:
        """Finds the client behind a trusted proxy; returns False if it has too many connections."""
        trusted = self._site.trusted
        if protocol.peer not in trusted:
            return True
        protocol.address = address = forwarded_for(request, protocol.peer, trusted)
        if address in trusted:
            return True
        if not self._addresses.admit(address, self.hub.clock.time()):
            return False
        self._protocols[protocol] = address
        return True

    def _connection_lost(self, protocol: CodecProtocol) -> None:
        self._http.pop(protocol, None)
        counted = self._protocols.pop(protocol, None)
        if counted is not None:
            self._addresses.release(counted)
        if not self._protocols:
            self._keepalive.lag.stop()
        if self._all_lost is not None and not self._protocols and not self._all_lost.done():
            self._all_lost.set_result(None)

    # HTTP.

    def serve_http(
        self, request: Request, data: bytes, protocol: CodecProtocol, transport: asyncio.WriteTransport
    ) -> None:
        """Answers an HTTP request, with which ``data`` starts; waits for the next request after it."""
        # A proxy may send requests of many clients over one connection.
        protocol.address = forwarded_for(request, protocol.peer, self._site.trusted)

        def wait_for_next(early: bytes) -> None:
            self._http.pop(protocol, None)
            deadline = self.hub.clock.time() + self.hub.limits.handshake_timeout
            self._openings.start(deadline, protocol, transport, early)

        scheme = forwarded_scheme(request, protocol.scheme, protocol.peer, self._site.trusted)
        connection = HttpConnection(
            self._site.http, protocol, transport, self.hub, wait_for_next, lambda: self.draining, scheme
        )
        self._http[protocol] = connection
        protocol.reader.attach(connection)
        connection.receive_data(data)

    # WebSockets.

    def serve_websocket(self, websocket: WebSocket, match: Match) -> None:
        """Starts the handler of ``match``."""
        self.hub.stats.connections += 1
        self._keepalive.add(websocket)
        handler = match.route.handler
        if isinstance(handler, type):
            self._start_called(websocket, handler, match.parameters)
        else:
            self._handlers[websocket] = self._loop.create_task(self._run_handler(websocket, match))

    def _start_called(
        self, websocket: WebSocket, make_handler: type[Handler], parameters: dict[str, str]
    ) -> None:
        try:
            handler = make_handler(**parameters)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever a handler raises
            websocket.end_after(error)
        else:
            self._handlers[websocket] = handler
            websocket.call(handler.on_open, handler.on_message)
        if websocket.closed is not None:
            self._end_called(websocket)  # its end came with the request

    def _end_called(self, websocket: WebSocket) -> None:
        """Ends the handler of a WebSocket that has ended, unless it is a task."""
        handler = self._handlers.get(websocket)
        if isinstance(handler, asyncio.Task):
            return
        self._handlers.pop(websocket, None)
        self._keepalive.discard(websocket)
        websocket.finish_handling()
        if handler is not None and websocket.report is not None:
            on_close: Callable[..., object] = handler.on_close
            try:
                refuse_coroutine(on_close(websocket, websocket.report))
            except (Exception, asyncio.CancelledError):  # noqa: BLE001 - whatever a handler raises
                log(logging.ERROR, "on_close failed", exception=True, id=websocket.id)

    async def _run_handler(self, websocket: WebSocket, match: Match) -> None:
        try:
            try:
                handler = cast("AsyncHandler", match.route.handler)
                handling = handler(websocket, **match.parameters)
                del match  # saves 150 bytes for each open connection (``benchmarks/memory.py``)
                await handling
            except asyncio.CancelledError:
                websocket.fail(CloseCode.GOING_AWAY, "the server is stopping", cause=Cause.GOING_AWAY)
                raise
            except Exception as error:  # noqa: BLE001 - whatever a handler raises
                websocket.end_after(error)
            finally:
                del self._handlers[websocket]
            if websocket.closed is None:
                await websocket.close()
        finally:
            self._keepalive.discard(websocket)
            websocket.finish_handling()

    # Stopping.

    async def drain(self, seconds: float) -> None:
        """Refuses new WebSockets and closes the open ones with 1001, spread over ``seconds``.

        It takes all of them, even if no WebSocket is open: load balancers need time to notice that the server
        is not ready.
        """
        self.draining = True
        await spread(self.hub.clock, seconds, list(self._handlers), _say_goodbye)

    async def close(self) -> None:
        """Closes every connection, WebSockets with 1001, and waits for the handlers and for HTTP answers.

        Those that take longer than the close timeout (`Limits`) are cancelled. A handler that does not end
        then, `CANCEL_TIMEOUT` later, is left behind.
        """
        self.draining = True
        self._openings.abort()
        answers: list[asyncio.Task[None]] = []
        for connection in list(self._http.values()):
            if connection.answer is None:
                connection.abort()
            else:
                answers.append(connection.answer)  # such as a CLOSE for a client that polls
        for websocket in list(self._handlers):
            _say_goodbye(websocket)
        clock = self.hub.clock
        late = await wait_for_all([*self._handling(), *answers], self.hub.limits.close_timeout, clock)
        for task in late:
            task.cancel()
        late = await wait_for_all(late, CANCEL_TIMEOUT, clock)
        if late:
            log(logging.WARNING, "handlers did not end when the server stopped", tasks=len(late))
        self._keepalive.stop()
        if self._protocols:
            self._all_lost = self._loop.create_future()
            await asyncio.wait([self._all_lost], timeout=LINGER_TIMEOUT)
            self.abort()
            await asyncio.sleep(0)

    def _handling(self) -> list[asyncio.Task[None]]:
        """Returns tasks that end when the handlers do."""
        return [
            self._loop.create_task(websocket.wait_closed()) if isinstance(handler, Handler) else handler
            for websocket, handler in self._handlers.items()
        ]

    def abort(self) -> None:
        """Ends every connection at once."""
        for protocol in list(self._protocols):
            protocol.reader.abort()


def _say_goodbye(websocket: WebSocket) -> None:
    websocket.start_close(CloseCode.GOING_AWAY, "the server is stopping", cause=Cause.GOING_AWAY)
