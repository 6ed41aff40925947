"""What an `Engine` and a `SocketIO` share: a place on a server, sessions, tasks, and the end.

Left to others: the options (`options`), the requests (`transports`), what a session's messages mean
(`engine_server`, `clients`).
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar

from rfc6455 import Request
from rfc6455_server.clock import Clock, wait_for_all
from rfc6455_server.http.routes import HttpHandler, HttpRoute
from rfc6455_server.limits import Limits
from rfc6455_server.listening.routing import STOPPING, Route
from rfc6455_server.logs import log
from rfc6455_server.rooms import Rooms
from rfc6455_server.socketio.cors import Cors
from rfc6455_server.socketio.engine import EngineSession, Transport
from rfc6455_server.socketio.options import EngineOptions, RefusedRequest
from rfc6455_server.socketio.session import Session
from rfc6455_server.socketio.transports import Transports
from rfc6455_server.stats import Stats
from rfc6455_server.websocket.hub import Hub

STOP_TIMEOUT: Final = 5.0
"""Seconds of the server's clock that handlers have to end when the server is stopping, and again when they
were cancelled."""


_AnyCallback = TypeVar("_AnyCallback", bound=Callable[[RefusedRequest], object])


class MountedOn(Protocol):
    """What is needed of the `Server` that something is mounted on."""

    limits: Limits
    stats: Stats
    registries: list[Rooms]

    @property
    def clock(self) -> Clock:
        """The server's clock."""

    @property
    def hub(self) -> Hub:
        """What the connections share."""

    async def admit(self, request: Request) -> Any:
        """Returns the `Refusal` of a request that opens a session by polling, or its user."""

    def is_proxy(self, address: str) -> bool:
        """Whether an address is a trusted proxy's."""

    def add_websocket_route(self, route: Route) -> None:
        """Adds a route for WebSockets."""

    def add_http_route(self, prefix: str, route: HttpRoute) -> None:
        """Adds a route for HTTP."""

    def http(self, path: str) -> Callable[[HttpHandler], HttpHandler]:
        """Registers the HTTP handler of a path."""

    def on_drain(self, callback: Callable[[float], Coroutine[Any, Any, None]]) -> None:
        """Registers a function that is run when the server drains, with the seconds that it may take."""

    def on_stop(self, callback: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Registers a function that is awaited when the server is stopping."""


class Mounted:
    """The sessions at one path of a server, and the tasks that serve them."""

    def __init__(self, options: EngineOptions) -> None:
        self.options = options
        self.cors = Cors(options.cors)
        self.stats = Stats()
        self.limits = Limits()
        self._mounted_on: MountedOn | None = None
        self._transports: Transports | None = None
        self._running: set[asyncio.Task[None]] = set()  # handlers and middlewares
        self._spawned: set[asyncio.Task[None]] = set()
        self._closed = False
        self._refusal_callbacks: list[Callable[[RefusedRequest], object]] = []

    def attach(self, server: MountedOn) -> None:
        """Adds the routes to a server. `Server.mount` calls it.

        Raises `RuntimeError` if already mounted, and `ValueError` if the path is taken.
        """
        if self._mounted_on is not None:
            raise RuntimeError("already mounted")
        self._mounted_on = server
        self.limits = server.limits
        self.stats = server.stats
        self._transports = transports = Transports(
            options=self.options,
            cors=self.cors,
            limits=server.limits,
            hub=lambda: server.hub,
            is_closed=lambda: self._closed,
            admit=self._admit,
            is_proxy=server.is_proxy,
            make_session=self._make_session,
            opened=self._opened,
            refused=self._refused,
        )
        path = self.options.path.rstrip("/")
        server.add_http_route(path, transports.http_route())  # raises if the path is taken
        server.add_websocket_route(transports.websocket_route(path))
        server.stats.session_counts.append(transports.count)
        server.on_drain(transports.drain)
        server.on_stop(self._stop)

    def on_connection_error(self, callback: _AnyCallback) -> _AnyCallback:
        """Registers a function that is called with each `RefusedRequest`: one that is answered with an error
        of the protocol, and not one that ``Server.authorize`` or a limit refuses."""
        self._refusal_callbacks.append(callback)
        return callback

    @property
    def clock(self) -> Clock:
        """The server's clock; before it is mounted, the event loop."""
        return self._mounted_on.clock if self._mounted_on is not None else asyncio.get_running_loop()

    def spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Runs ``work`` in a task. An exception is logged, with its traceback; awaiting the task raises it.

        When the server stops, it waits for the handlers, and then cancels the work at once. Raises
        `RuntimeError` outside of an event loop; ``Server.run`` calls ``started`` when there is one.
        """
        task = _start(work, self._spawned)
        task.add_done_callback(_log_failure)
        return task

    def run_handlers(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        return _start(work, self._running)

    def close(self) -> None:
        """Disconnects all clients, for good: from now on, they are refused with 503."""
        self._closed = True
        if self._transports is not None:
            self._transports.close()

    def _refused(self, request: RefusedRequest) -> None:
        for callback in self._refusal_callbacks:
            try:
                callback(request)
            except Exception:  # noqa: BLE001 - whatever a callback raises
                log(logging.ERROR, "a connection error callback failed", exception=True)

    def _opened(self, session: Session, request: Request) -> None:
        """Serves a new session, which ``request`` has opened."""
        raise NotImplementedError

    def _make_session(self, sid: str, transport: Transport, now: float) -> EngineSession:
        options = self.options
        return EngineSession(
            sid,
            transport,
            now,
            ping_interval=options.ping_interval,
            ping_timeout=options.ping_timeout,
            upgrade_timeout=options.upgrade_timeout,
            max_payload=options.max_payload,
            upgrades=options.upgrades,
        )

    async def _admit(self, request: Request) -> Any:
        assert self._mounted_on is not None  # noqa: S101 - there is a request
        user = STOPPING if self._closed else await self._mounted_on.admit(request)
        return STOPPING if self._closed else user  # `close` may have been called meanwhile

    async def _stop(self) -> None:
        if self._transports is not None:
            self._transports.close()
        late = await wait_for_all(list(self._running), STOP_TIMEOUT, self.clock)
        cancelled = [*late, *self._spawned]
        for task in cancelled:
            task.cancel()
        late = await wait_for_all(cancelled, STOP_TIMEOUT, self.clock)
        if late:
            log(logging.WARNING, "tasks did not end when the server stopped", tasks=len(late))


def _start(work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> "asyncio.Task[None]":
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        work.close()
        raise RuntimeError("no event loop runs yet: spawn in Server.run(started=…) or a handler") from None
    task = loop.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


def _log_failure(task: "asyncio.Task[None]") -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log(
            logging.ERROR,
            "spawned task failed",
            exception=error,
            task=getattr(task.get_coro(), "__qualname__", ""),
        )
