"""`Server`: what it serves, and where it listens.

Left to others: one connection (`listening`, `websocket`), rooms (`rooms`), the command line (`command`).
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, Unpack, cast

from rfc6455 import PerMessageDeflate, Request, preload_masking
from rfc6455_server.callbacks import guarded, raise_group
from rfc6455_server.clock import Clock, sleep
from rfc6455_server.collector import rare_full_collections
from rfc6455_server.http import extras
from rfc6455_server.http.metrics import Metrics
from rfc6455_server.http.routes import (
    HttpHandler,
    HttpRequest,
    HttpResponse,
    HttpRoute,
    fixed,
    not_found,
)
from rfc6455_server.http.static import static_files
from rfc6455_server.limits import LimitOptions, Limits
from rfc6455_server.listening.acceptor import Acceptor, Endpoint, open_sockets
from rfc6455_server.listening.listener import Listener
from rfc6455_server.listening.proxy import Trusted
from rfc6455_server.listening.routing import (
    STOPPING,
    Authorize,
    Refusal,
    Route,
    Site,
    WebSocketHandler,
    check_origins,
    compile_route,
)
from rfc6455_server.logs import log, logger
from rfc6455_server.policies import Policy, check_policy
from rfc6455_server.process import run as run_process
from rfc6455_server.rooms import Rooms
from rfc6455_server.stats import Stats
from rfc6455_server.systemd import passed_sockets
from rfc6455_server.websocket.handler import check_handler
from rfc6455_server.websocket.hub import Hub
from rfc6455_server.websocket.reports import CloseReport, log_report
from rfc6455_server.websocket.websocket import WebSocket

_AnyHandler = TypeVar("_AnyHandler", bound=WebSocketHandler)
_AnyHttpHandler = TypeVar("_AnyHttpHandler", bound=HttpHandler)
_AnyAuthorize = TypeVar("_AnyAuthorize", bound=Authorize)
_AnyReportCallback = TypeVar("_AnyReportCallback", bound=Callable[[CloseReport], object])

DRAIN_TIME: Final = 5.0
"""Seconds over which `Server.drain` spreads the closing of connections."""

_LEAVING_TIME: Final = 0.1
"""Seconds for requests of connections that were accepted before the server left their port to others."""

PAGE_HEADERS: Final = (
    (
        "Content-Security-Policy",
        "default-src 'self'; img-src 'self' data: blob:; base-uri 'none'; object-src 'none'",
    ),
    ("Referrer-Policy", "same-origin"),
)


class Mountable(Protocol):
    """A part that `Server.mount` takes."""

    def attach(self, server: "Server") -> None:
        """Adds its routes to ``server``."""


class Server:
    """A WebSocket server with rooms, and HTTP on the same port.

    ``origins``: origins whose pages may connect, such as ``https://example.com``; ``None`` for the server's
    own. ``["*"]`` is for all, and a page of any of them acts with the cookies of its user: browsers send them
    with each request for a WebSocket. An origin that the browser hides (``null``) is never allowed.
    ``subprotocols``: those that the server speaks. ``slow_consumer``: what happens to a message that is
    broadcast or posted to a peer that is behind (`Policy`). ``trusted``: addresses and networks of proxies
    that may report the client's address and scheme. ``clock``: that of a test (`testing.ManualClock`),
    instead of the event loop. The other keyword arguments are `Limits`.
    Raises `ValueError` for a value that is out of range.

    ``compression``: accepts permessage-deflate if the client offers it. It is off by default because of its
    cost: some 300 KiB for each connection that has sent and received a compressed message (less with smaller
    windows, nothing between messages with ``no_context_takeover``), and many times the CPU time of an
    uncompressed message.
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
        """The server's counters."""
        self.rooms = Rooms(self.stats)
        """``rooms[name]`` is the room of that name."""
        self.policy = check_policy(slow_consumer)
        """What happens to a message for a peer that is behind, unless the room or the call has a policy."""
        self._clock = clock
        self._site = Site(
            origins=check_origins(origins),
            subprotocols=tuple(subprotocols),
            compression=compression,
            trusted=Trusted(trusted),
        )
        self._report_callbacks: list[Callable[[CloseReport], object]] = []
        self._drain_callbacks: list[Callable[[float], Coroutine[Any, Any, None]]] = []
        self._stop_callbacks: list[Callable[[], Awaitable[None]]] = []
        self.registries = [self.rooms]
        """The rooms that the metrics count: the server's, and those of its mounted parts."""
        self._listener: Listener | None = None
        self._acceptors: list[Acceptor] = []
        self._metrics = Metrics(self.stats, self.limits, self._gauges)
        self._metrics_listener: Listener | None = None  # if an endpoint is for metrics
        self.http("/healthz")(self._health)
        self.http("/readyz")(self._readiness)
        self.http("/metrics")(self._public_metrics)

    # Routes and hooks.

    def websocket(self, path: str) -> Callable[[_AnyHandler], _AnyHandler]:
        """Registers the handler of a path: an async function of the `WebSocket` and the path's parameters.

        Instead of a function, a subclass of `Handler` can be registered: it needs no task.
        ``{name}`` in the path matches one segment, which is percent-decoded and passed as the argument of
        that name. The first path that matches is used. Raises `ValueError` for a malformed path, and
        `TypeError` for any other class, or one with coroutine functions or without the path's parameters.
        """

        def register(handler: _AnyHandler) -> _AnyHandler:
            route = compile_route(path, handler)
            if isinstance(handler, type):
                check_handler(handler, route.pattern.groupindex)
            self.add_websocket_route(route)
            return handler

        return register

    def authorize(self, hook: _AnyAuthorize) -> _AnyAuthorize:
        """Registers an async function that decides about each request for a WebSocket.

        It is called after the checks of path and origin, and also for requests that open a session of
        `socketio` by polling. It returns a `Refusal`, or anything else, which becomes ``WebSocket.user``. An
        exception is logged and answered with 500, a `rfc6455.HandshakeError` with its status.
        """
        self._site.authorize = hook
        return hook

    async def admit(self, request: Request) -> Any:
        """Decides about a request that opens a session by polling: returns its `Refusal`, or its user.

        The hook has as much time as for a WebSocket.
        """
        user = None
        if self._site.authorize is not None and not self.draining:
            try:
                async with asyncio.timeout(self.limits.handshake_timeout) as deadline:
                    user = await self._site.authorize(request)
            except TimeoutError:
                if not deadline.expired():
                    raise  # the hook's own
                user = Refusal(503, b"took too long\n", reason="authorize too slow")
        return STOPPING if self.draining else user

    def is_proxy(self, address: str) -> bool:
        """Whether ``address`` is a trusted proxy's, whose connections are those of many clients."""
        return address in self._site.trusted

    def on_report(self, callback: _AnyReportCallback) -> _AnyReportCallback:
        """Registers a function that is called with the `CloseReport` of each connection that has ended."""
        self._report_callbacks.append(callback)
        return callback

    def http(self, path: str, *methods: str) -> Callable[[_AnyHttpHandler], _AnyHttpHandler]:
        """Decorates the HTTP handler of a path: an async function of `HttpRequest` to `HttpResponse`.

        ``methods`` are GET and HEAD by default.
        """

        def register(handler: _AnyHttpHandler) -> _AnyHttpHandler:
            self._site.http.add(path, HttpRoute(handler, methods or ("GET", "HEAD")))
            return handler

        return register

    def page(self, path: str, body: bytes, content_type: str) -> None:
        """Serves ``body``, which is UTF-8, over HTTP at ``path``."""
        self.http(path)(fixed(body, f"{content_type}; charset=utf-8", PAGE_HEADERS))

    def static(self, prefix: str, directory: str | Path) -> None:
        """Serves the files in ``directory`` at the paths below ``prefix``, which starts and ends with ``/``.

        Raises `OSError` if the directory does not exist, and `ValueError` for another prefix, or one that is
        already served.
        """
        if not (prefix.startswith("/") and prefix.endswith("/")):
            raise ValueError(f"a prefix starts and ends with a slash: {prefix!r}")
        self.add_http_route(prefix, HttpRoute(static_files(prefix, Path(directory), PAGE_HEADERS)))

    def add_http_route(self, prefix: str, route: HttpRoute) -> None:
        """Adds the HTTP route of all paths below ``prefix``. Raises `ValueError` for one that has a route."""
        self._site.http.add_prefix(prefix, route)

    def add_websocket_route(self, route: Route) -> None:
        """Adds a route for WebSockets, which may have its own check of the request."""
        self._site.routes.append(route)

    def mount(self, part: Mountable) -> None:
        """Adds a part with its own routes, such as `socketio.SocketIO`. Raises `ValueError` if another one is
        at the same path."""
        part.attach(self)

    def on_drain(self, callback: Callable[[float], Coroutine[Any, Any, None]]) -> None:
        """Adds an async function that `drain` runs while it closes the WebSockets, with the same seconds.

        If it raises, that is logged, `drain` goes on, and raises at its end.
        """
        self._drain_callbacks.append(callback)

    def on_stop(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Adds an async function that `stop` awaits before it closes the connections.

        If it raises, that is logged, `stop` goes on, and raises at its end.
        """
        self._stop_callbacks.append(callback)

    @property
    def clock(self) -> Clock:
        """The clock that the server was made with, or the event loop."""
        return self._clock or asyncio.get_running_loop()

    @property
    def hub(self) -> Hub:
        """What the connections share; makes the server ready."""
        return self.make_ready().hub

    async def _health(self, _: HttpRequest) -> HttpResponse:
        return HttpResponse(b"ok\n")

    async def _readiness(self, _: HttpRequest) -> HttpResponse:
        if self._listener is None or self._listener.draining:
            return HttpResponse(STOPPING.body, status=STOPPING.status, expected=True)
        return HttpResponse(b"ready\n")

    async def _public_metrics(self, request: HttpRequest) -> HttpResponse:
        return not_found() if self._metrics_listener else await self._metrics(request)

    def _gauges(self) -> dict[str, tuple[str, float]]:
        listener = self._listener
        return {
            "connections": ("WebSockets whose TCP is open.", listener.open_websockets if listener else 0),
            "handlers": ("Handlers of WebSockets that run.", len(self.websockets)),
            "tcp_connections": ("Open TCP connections.", listener.connections if listener else 0),
            "rooms": ("Rooms that have members.", sum(map(len, self.registries))),
            "queued_bytes": ("Bytes that wait for peers or for their handlers.", self.queued),
            "incoming_bytes": ("Of these, messages that are not taken, and unfinished ones.", self.incoming),
        }

    # State.

    @property
    def websockets(self) -> list[WebSocket]:
        """The WebSockets whose handler runs."""
        return list(self._listener.websockets) if self._listener else []

    def find(self, connection_id: str) -> WebSocket | None:
        """Returns the open WebSocket with this ``id``."""
        found = self._listener.hub.by_id.get(connection_id) if self._listener else None
        return cast("WebSocket | None", found)

    @property
    def queued(self) -> int:
        """Bytes of memory of what waits for peers or for their handlers, and of requests."""
        return self._listener.hub.budget.queued if self._listener else 0

    @property
    def incoming(self) -> int:
        """Of these, the bytes of messages that no handler has taken, and of unfinished ones."""
        return self._listener.hub.budget.incoming if self._listener else 0

    @property
    def draining(self) -> bool:
        """Whether the server is stopping: `drain` or `stop` has been called."""
        return self._listener is not None and self._listener.draining

    @property
    def port(self) -> int:
        """The first TCP port that the server listens on; raises `RuntimeError` if there is none."""
        for acceptor in self._listening():
            address = acceptor.socket.getsockname()
            if isinstance(address, tuple):
                port: int = address[1]
                return port
        raise RuntimeError("the server does not listen on a TCP port")

    @property
    def urls(self) -> list[str]:
        """Where the server listens: ``http://…``, ``https://…`` and ``unix:…``."""
        return [acceptor.url for acceptor in self._listening()]

    def _listening(self) -> list[Acceptor]:
        return [acceptor for acceptor in self._acceptors if acceptor.is_listening]

    # Starting and stopping.

    async def start(
        self, host: str | None = "127.0.0.1", port: int = 0, *, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        """Listens at an address. Port 0 takes a free one; ``ssl_context`` turns on TLS.

        Raises `OSError` if the address cannot be used, `ValueError` for an empty host, and `RuntimeError` if
        the server is already started.
        """
        if self._acceptors:
            raise RuntimeError("the server is already started")
        await self.listen(Endpoint(host, port, ssl_context=ssl_context))

    async def listen(self, endpoint: Endpoint) -> None:
        """Listens at one more endpoint; raises as `start` does."""
        sockets = await open_sockets(endpoint, self.limits.send_timeout)
        listener = self._make_metrics_ready() if endpoint.metrics else self.make_ready()
        for listening in sockets:
            self._acceptors.append(
                Acceptor(listening, endpoint, self._site.trusted, listener.hub, listener.make_protocol)
            )

    def make_ready(self) -> Listener:
        """Prepares the server for connections until `stop`; `testing` connects without listening.

        Imports the optional packages that are installed. Otherwise the first large message would import
        numpy, and stop the event loop for some 150 ms.
        """
        if self._listener is None:
            preload_masking()
            extras.preload()
            hub = Hub(
                self.limits,
                stats=self.stats,
                clock=self._clock,
                policy=self.policy,
                on_report=self._report,
                wants_reports=lambda: bool(self._report_callbacks) or logger.isEnabledFor(logging.INFO),
            )
            self._listener = Listener(self._site, hub)
        return self._listener

    def _make_metrics_ready(self) -> Listener:
        """Prepares for connections to endpoints for metrics, which have limits and counters of their own."""
        if self._metrics_listener is None:
            self.make_ready()
            site = Site()
            for path, handler in (
                ("/healthz", self._health),
                ("/readyz", self._readiness),
                ("/metrics", self._metrics),
            ):
                site.http.add(path, HttpRoute(handler))
            self._metrics_listener = Listener(site, Hub(self.limits, clock=self._clock))
        return self._metrics_listener

    async def drain(self, seconds: float = DRAIN_TIME) -> None:
        """Prepares for `stop`: from now on, ``/readyz`` and requests for a WebSocket are answered with 503.

        Open WebSockets are closed with 1001, and polling sessions of Socket.IO with a CLOSE, spread over
        ``seconds``, so that the clients do not all connect to another server at once. It takes all of these
        seconds, so that load balancers notice.

        Where other processes share the port (`Endpoint.shared`), the server stops listening instead, so that
        they get the new clients. Raises `ExceptionGroup` of what callbacks of `on_drain` raised.
        """
        listener = self._listener
        if listener is None:
            return
        if any(acceptor.endpoint.shared for acceptor in self._listening()):
            for acceptor in self._acceptors:
                acceptor.leave_to_others()
            leaving = min(seconds, _LEAVING_TIME)
            await sleep(self.clock, leaving)
            seconds -= leaving
        callbacks = [guarded(partial(callback, seconds)) for callback in self._drain_callbacks]
        _, *errors = await asyncio.gather(listener.drain(seconds), *callbacks)
        raise_group("callbacks of on_drain failed", errors)

    async def stop(self) -> None:
        """Stops listening, closes every connection, WebSockets with 1001, and waits for the handlers.

        Handlers that run for longer than the close timeout (`Limits`) are cancelled. Those that do not end
        then either are left behind, and logged.

        Raises `ExceptionGroup` of what callbacks of `on_stop` raised.
        """
        self._stop_listening()
        errors = [await guarded(callback) for callback in self._stop_callbacks]
        if self._listener is not None:
            await self._listener.close()
            self._listener = None
        if self._metrics_listener is not None:
            await self._metrics_listener.close()
            self._metrics_listener = None
        raise_group("callbacks of on_stop failed", errors)

    def abort(self) -> None:
        """Stops listening, and ends every connection without a Close, at once."""
        self._stop_listening()
        for listener in (self._listener, self._metrics_listener):
            if listener is not None:
                listener.abort()

    def _stop_listening(self) -> None:
        for acceptor in self._acceptors:
            acceptor.close()
        self._acceptors.clear()

    def reload_certificates(self) -> bool:
        """Reads the files of each `Certificate` again, for new connections. Returns whether there is one.

        Raises `OSError`, of which `ssl.SSLError` is one, for the first that cannot be used.
        """
        found = {used for acceptor in self._acceptors if (used := acceptor.endpoint.certificate)}
        for certificate in found:
            certificate.reload()
        return bool(found)

    def run(
        self,
        host: str | None = "127.0.0.1",
        port: int = 8765,
        *,
        endpoints: Sequence[Endpoint] = (),
        drain_time: float = DRAIN_TIME,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        """Serves until SIGINT or SIGTERM, then drains and stops. A second signal ends the process, always.

        ``endpoints`` replace ``host`` and ``port``, and so do sockets that systemd has passed.
        ``drain_time``: the seconds of `drain`. ``started`` is called when the server listens. SIGHUP reads
        certificates again (`reload_certificates`). systemd is told when the server is ready, stops, and is
        alive, if it asks for that. Meanwhile, full garbage collections are rarer than by default
        (`collector`).

        Raises as `start` and `stop` do. If tasks or threads keep the process from ending, it exits with
        status 1: three seconds after the second signal, or ten after `stop`.
        """
        passed = [] if endpoints else [Endpoint(listening=listening) for listening in passed_sockets()]

        async def listen() -> None:
            if any(endpoint.metrics for endpoint in endpoints):
                self._make_metrics_ready()  # first, so that no other endpoint ever answers with metrics
            for endpoint in endpoints or passed or [Endpoint(host, port)]:
                await self.listen(endpoint)
            started()

        with rare_full_collections():
            run_process(self, listen, drain_time)

    def _report(self, report: CloseReport) -> None:
        log_report(report)
        for callback in self._report_callbacks:
            try:
                callback(report)
            except Exception:  # noqa: BLE001 - whatever a callback raises
                log(logging.ERROR, "a report callback failed", exception=True, id=report.id)
