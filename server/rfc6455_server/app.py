"""`Server`: routes, rooms, pages, and where it listens.

Left to others: one connection (`listener`, `websocket`), rooms (`rooms`), the command line (`cli`).
"""

import asyncio
import logging
import signal
import ssl
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar, Unpack, cast

from rfc6455 import PerMessageDeflate, Request, ascii_lower
from rfc6455_server.clock import Clock
from rfc6455_server.http.metrics import Metrics
from rfc6455_server.http.routes import HttpHandler, HttpRequest, HttpResponse, HttpRoute, fixed
from rfc6455_server.http.static import static_files
from rfc6455_server.limits import LimitOptions, Limits
from rfc6455_server.listening.acceptor import Acceptor, Endpoint, open_sockets
from rfc6455_server.listening.listener import (
    Authorize,
    Handler,
    Listener,
    Refusal,
    Route,
    Site,
    compile_route,
)
from rfc6455_server.listening.proxy import Trusted
from rfc6455_server.logs import log, logger
from rfc6455_server.policies import Policy, check_policy
from rfc6455_server.rooms import Rooms
from rfc6455_server.stats import Stats
from rfc6455_server.websocket.hub import Hub
from rfc6455_server.websocket.reports import CloseReport
from rfc6455_server.websocket.websocket import WebSocket

_AnyHandler = TypeVar("_AnyHandler", bound=Handler)
_AnyHttpHandler = TypeVar("_AnyHttpHandler", bound=HttpHandler)
_AnyAuthorize = TypeVar("_AnyAuthorize", bound=Authorize)
_AnyReported = TypeVar("_AnyReported", bound=Callable[[CloseReport], object])

DRAIN_TIME = 5.0
"""Seconds over which connections are told that the server stops."""

PAGE_HEADERS = (
    (
        "Content-Security-Policy",
        "default-src 'self'; img-src 'self' data: blob:; base-uri 'none'; object-src 'none'",
    ),
    ("Referrer-Policy", "same-origin"),
)


class Mountable(Protocol):
    """What `Server.mount` takes: it adds its routes."""

    def attach(self, server: "Server") -> None:
        """Called once."""


class Server:
    """A WebSocket server with rooms, and plain HTTP on the same port.

    ``origins``: the origins that browsers may come from, such as ``https://example.com``; ``["*"]`` for any,
    ``None`` for the server's own. ``subprotocols``: those that it speaks. ``slow_consumer``: what happens to
    a message that is broadcast or posted to a peer that does not read (`Policy`). ``trusted``: addresses and
    networks of proxies that are believed who the client is. The other keyword arguments are `Limits`; raises
    `ValueError` for what is out of range.

    ``compression`` accepts permessage-deflate where a client offers it. It is off by default, because it
    costs: some 300 KiB for each connection that has sent and been sent a compressed message (less with
    smaller windows, nothing between messages with ``no_context_takeover``), and many times the processor
    time of an uncompressed message.
    """

    def __init__(
        self,
        *,
        origins: Collection[str] | None = None,
        subprotocols: Sequence[str] = (),
        compression: PerMessageDeflate | None = None,
        slow_consumer: Policy = "disconnect",
        trusted: Iterable[str] = (),
        clock: Clock | None = None,
        **limits: Unpack[LimitOptions],
    ) -> None:
        self.limits = Limits(**limits)
        self.stats = Stats()
        """What the server has counted since it was made."""
        self.rooms = Rooms(self.stats)
        """``rooms[name]`` is the room of that name."""
        self.policy = check_policy(slow_consumer)
        """What happens to a message for a peer that is behind, unless it says otherwise itself."""
        self._clock = clock
        self._site = Site(
            origins=None if origins is None else [ascii_lower(origin) for origin in origins],
            subprotocols=tuple(subprotocols),
            compression=compression,
            trusted=Trusted(trusted),
        )
        self._reported: list[Callable[[CloseReport], object]] = []
        self._stopping: list[Callable[[], Awaitable[None]]] = []
        self.registries = [self.rooms]
        """All rooms that the metrics count: the server's, and those of its parts."""
        self._listener: Listener | None = None
        self._acceptors: list[Acceptor] = []
        self.http("/healthz")(self._health)
        self.http("/readyz")(self._readiness)
        self.http("/metrics")(Metrics(self.stats, self._gauges))

    # What it serves.

    def websocket(self, path: str) -> Callable[[_AnyHandler], _AnyHandler]:
        """Decorates the handler of a path: an async function of the `WebSocket` and the path's parts.

        ``{name}`` in the path stands for one segment, and is passed, percent-decoded, as the argument of
        that name. The first path that matches wins. Raises `ValueError` for a path of bad form.
        """

        def register(handler: _AnyHandler) -> _AnyHandler:
            self._site.routes.append(compile_route(path, handler))
            return handler

        return register

    def authorize(self, hook: _AnyAuthorize) -> _AnyAuthorize:
        """Decorates an async function that sees each request for a WebSocket before it becomes one.

        What opens a session of `socketio` by polling is asked in the same way.

        It gives a `Refusal`, or anything else, which is then the connection's ``user``. What it raises is
        logged, and is 500 for the client.
        """
        self._site.authorize = hook
        return hook

    async def admit(self, request: Request) -> Refusal | None:
        """The refusal, if it is refused, of a request that opens something without becoming a WebSocket."""
        if self.draining:
            return Refusal(503, b"the server stops\n", [("Retry-After", "5")])
        verdict = None if self._site.authorize is None else await self._site.authorize(request)
        return verdict if isinstance(verdict, Refusal) else None

    def on_report(self, callback: _AnyReported) -> _AnyReported:
        """Decorates a function that is given the `CloseReport` of each connection."""
        self._reported.append(callback)
        return callback

    def http(self, path: str, *methods: str) -> Callable[[_AnyHttpHandler], _AnyHttpHandler]:
        """Decorates an async function that gives an `HttpResponse` for an `HttpRequest` to this path."""

        def register(handler: _AnyHttpHandler) -> _AnyHttpHandler:
            self._site.http.add(path, HttpRoute(handler, methods or ("GET", "HEAD")))
            return handler

        return register

    def page(self, path: str, body: bytes, content_type: str) -> None:
        """Serves ``body`` over plain HTTP at ``path``."""
        self.http(path)(fixed(body, f"{content_type}; charset=utf-8", PAGE_HEADERS))

    def static(self, prefix: str, directory: str | Path) -> None:
        """Serves the files below ``directory`` at the paths below ``prefix``, which ends with ``/``.

        Raises `OSError` when there is no such directory, `ValueError` for another prefix.
        """
        if not (prefix.startswith("/") and prefix.endswith("/")):
            raise ValueError(f"a prefix begins and ends with a slash: {prefix!r}")
        self.route(prefix, HttpRoute(static_files(prefix, Path(directory), PAGE_HEADERS)))

    def route(self, prefix: str, route: HttpRoute) -> None:
        """Has ``route`` answer all plain requests whose path begins with ``prefix``."""
        self._site.http.add_prefix(prefix, route)

    def add_route(self, route: Route) -> None:
        """Adds a route for WebSockets that brings its own test of the request."""
        self._site.routes.append(route)

    def on_stop(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Has ``callback`` awaited when the server stops, before its connections are closed."""
        self._stopping.append(callback)

    @property
    def clock(self) -> Clock:
        """What tells the time: the event loop, or what the server was given."""
        return self._clock or asyncio.get_running_loop()

    def mount(self, part: Mountable) -> None:
        """Adds a part that brings its own routes, such as `socketio.SocketIO`."""
        part.attach(self)

    async def _health(self, _: HttpRequest) -> HttpResponse:
        return HttpResponse(b"ok\n")

    async def _readiness(self, _: HttpRequest) -> HttpResponse:
        if self._listener is None or self._listener.draining:
            return HttpResponse(b"the server stops\n", status=503, expected=True)
        return HttpResponse(b"ready\n")

    def _gauges(self) -> dict[str, tuple[str, float]]:
        listener = self._require_listener()
        return {
            "connections": ("Open WebSockets.", len(listener.websockets)),
            "tcp_connections": ("Open TCP connections.", listener.connections),
            "rooms": ("Rooms that somebody is in.", sum(map(len, self.registries))),
            "queued_bytes": ("Bytes that wait for peers that are behind.", listener.hub.budget.queued),
        }

    # Who is there.

    @property
    def websockets(self) -> list[WebSocket]:
        """The open connections."""
        return list(self._listener.websockets) if self._listener else []

    def find(self, connection_id: str) -> WebSocket | None:
        """The open connection with this ``id``."""
        found = self._listener.hub.by_id.get(connection_id) if self._listener else None
        return cast("WebSocket | None", found)

    @property
    def queued(self) -> int:
        """Bytes that wait for peers that are behind."""
        return self._listener.hub.budget.queued if self._listener else 0

    @property
    def draining(self) -> bool:
        """Whether it is about to stop."""
        return self._listener is not None and self._listener.draining

    # Running.

    @property
    def port(self) -> int:
        """The first port that the server listens on; raises `RuntimeError` when there is none."""
        for acceptor in self._acceptors:
            address = acceptor.socket.getsockname()
            if isinstance(address, tuple):
                port: int = address[1]
                return port
        raise RuntimeError("the server is not started")

    @property
    def urls(self) -> list[str]:
        """Where it listens: ``http://…``, ``https://…`` and ``unix:…``."""
        return [acceptor.url for acceptor in self._acceptors]

    async def start(
        self, host: str | None = "127.0.0.1", port: int = 0, *, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        """Listens; port 0 takes a free one, and ``ssl_context`` makes it ``wss://``.

        Raises `OSError` when that address is not to be had, `RuntimeError` when it is started already.
        """
        if self._acceptors:
            raise RuntimeError("the server is started already")
        await self.listen(Endpoint(host, port, ssl_context=ssl_context))

    async def listen(self, endpoint: Endpoint) -> None:
        """Listens at one more place. Raises `OSError` when it is not to be had."""
        sockets = await open_sockets(endpoint, self.limits.send_timeout)
        listener = self.make_ready()
        for listening in sockets:
            self._acceptors.append(
                Acceptor(listening, endpoint, self._site.trusted, listener.hub, listener.make_protocol)
            )

    def make_ready(self) -> Listener:
        """What takes connections, made when the first is to come; `testing` brings its own connections."""
        if self._listener is None:
            hub = Hub(
                self.limits,
                stats=self.stats,
                clock=self._clock,
                policy=self.policy,
                on_report=self._report,
                wants_reports=lambda: bool(self._reported) or logger.isEnabledFor(logging.INFO),
            )
            self._listener = Listener(self._site, hub)
        return self._listener

    async def drain(self, seconds: float = DRAIN_TIME) -> None:
        """Says at ``/readyz`` that it stops, takes no new WebSockets, and tells those there are 1001.

        That is spread over ``seconds``, so that they do not all come back elsewhere at once. `stop` follows.
        """
        if self._listener is not None:
            await self._listener.drain(seconds)

    async def stop(self) -> None:
        """Stops listening, closes every connection with 1001, and waits until the handlers are done."""
        for acceptor in self._acceptors:
            acceptor.close()
        self._acceptors.clear()
        for callback in self._stopping:
            await callback()
        if self._listener is not None:
            await self._listener.close()
            self._listener = None

    def run(
        self,
        host: str | None = "127.0.0.1",
        port: int = 8765,
        *,
        endpoints: Sequence[Endpoint] = (),
        drain_time: float = DRAIN_TIME,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        """Serves until SIGINT or SIGTERM; calls ``started`` when it listens. Raises as `start` does.

        ``endpoints`` stand in for ``host`` and ``port``. The first signal drains and stops, a second one ends
        everything at once.
        """
        asyncio.run(self._run(endpoints or [Endpoint(host, port)], drain_time, started))

    async def _run(
        self, endpoints: Sequence[Endpoint], drain_time: float, started: Callable[[], None]
    ) -> None:
        signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, signals.put_nowait, name)
        try:
            for endpoint in endpoints:
                await self.listen(endpoint)
            started()
            log(logging.INFO, "stopping", signal=(await signals.get()).name)
            stopping = loop.create_task(self._drain_and_stop(drain_time))
            again = loop.create_task(signals.get())
            await asyncio.wait([stopping, again], return_when=asyncio.FIRST_COMPLETED)
            again.cancel()
            if not stopping.done():
                log(logging.WARNING, "stopping at once")
                stopping.cancel()
                if self._listener is not None:
                    self._listener.abort()
        finally:
            for acceptor in self._acceptors:
                acceptor.close()

    async def _drain_and_stop(self, drain_time: float) -> None:
        await self.drain(drain_time)
        await self.stop()

    def _report(self, report: CloseReport) -> None:
        log(
            logging.INFO,
            "connection closed",
            id=report.id,
            address=report.address,
            path=report.path,
            seconds=report.seconds,
            closed_by=report.closed_by,
            sent=report.code_sent,
            received=report.code_received,
            cause=report.cause.value,
            reason=report.reason,
            dropped=report.dropped,
            loop_lag=report.loop_lag,
        )
        for callback in self._reported:
            try:
                callback(report)
            except Exception:  # noqa: BLE001 - whatever a hook raises
                log(logging.ERROR, "a report's hook failed", exception=True, id=report.id)

    def _require_listener(self) -> Listener:
        if self._listener is None:
            raise RuntimeError("the server is not started")
        return self._listener
