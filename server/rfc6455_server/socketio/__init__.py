"""Named events: the Socket.IO protocol, version 5, so that its clients in every language work.

    io = SocketIO()

    @io.on("connect")
    async def connected(socket):
        socket.join("lobby")

    @io.on("message")
    async def message(socket, data):
        socket.to("lobby").emit("message", data)
        return {"ok": True}                  # the acknowledgement

    server.mount(io)                         # at /socket.io/

The files, from the wire upward: `packets` (Socket.IO's format), `engine` (Engine.IO's session, without I/O),
`recovery`, `session` (a session with its transports and time), `registering` and `handlers` (which handlers
there are, and the order in which they run), `targets`, `receiving`, `sockets`, `namespaces` and `clients`
(what applications use), `parents` (dynamic namespaces), `classes` (handlers as methods), `cluster` (other
servers), `transports` (requests).
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from functools import partial
from typing import Any, Final, Protocol, Unpack, overload

from rfc6455 import Request
from rfc6455_server.clock import Clock, wait_for_all
from rfc6455_server.http.routes import HttpHandler, HttpRoute
from rfc6455_server.limits import Limits
from rfc6455_server.listening.routing import STOPPING, Route, same_origin
from rfc6455_server.logs import log
from rfc6455_server.rooms import Rooms
from rfc6455_server.socketio.catchup import Turns
from rfc6455_server.socketio.classes import NamespaceHandlers, handles
from rfc6455_server.socketio.clients import Client
from rfc6455_server.socketio.cluster import Cluster, ServerSide
from rfc6455_server.socketio.documents import Declarations, Declaring, describe, page_handlers
from rfc6455_server.socketio.engine import EngineSession, Transport
from rfc6455_server.socketio.namespaces import Middleware, Namespace
from rfc6455_server.socketio.packets import PacketOptions, PacketOptionsDict
from rfc6455_server.socketio.parents import MAX_CHILDREN, NamespaceMatch, Namespaces, ParentNamespace
from rfc6455_server.socketio.recovery import DEFAULT_MAX_BYTES
from rfc6455_server.socketio.registering import Ack, ConnectError, EventError, Handlers, Registering
from rfc6455_server.socketio.session import Session
from rfc6455_server.socketio.sockets import (
    Broadcaster,
    DisconnectedError,
    Handshake,
    Socket,
    SocketTarget,
    Target,
)
from rfc6455_server.socketio.targets import AckTimeoutError
from rfc6455_server.socketio.transports import Transports, parse_query
from rfc6455_server.socketio.typed.annotations import AnnotationError
from rfc6455_server.socketio.typed.asyncapi import asyncapi_document
from rfc6455_server.socketio.typed.containers import Bounds
from rfc6455_server.socketio.typed.declared import OutgoingEvent
from rfc6455_server.socketio.typed.problems import InvalidDataError, Problem
from rfc6455_server.socketio.typed.shapes import AsIs
from rfc6455_server.stats import Stats
from rfc6455_server.websocket.hub import Hub

__all__ = [
    "Ack",
    "AckTimeoutError",
    "AnnotationError",
    "AsIs",
    "Bounds",
    "Cluster",
    "ConnectError",
    "DisconnectedError",
    "EventError",
    "Handshake",
    "InvalidDataError",
    "Namespace",
    "NamespaceHandlers",
    "OutgoingEvent",
    "PacketOptions",
    "ParentNamespace",
    "Problem",
    "Socket",
    "SocketIO",
    "SocketTarget",
    "Target",
    "handles",
]

STOP_TIMEOUT: Final = 5.0
"""Seconds of the server's clock that handlers have to end when the server is stopping, and again when they
were cancelled."""


class MountedOn(Protocol):
    """What a `SocketIO` needs of the `Server` that it is mounted on."""

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


class SocketIO(Registering, Declaring, ServerSide, Broadcaster):
    """A Socket.IO server, mounted on a `Server`. Methods that a namespace also has are for namespace ``"/"``.

    ``cors``: allowed origins besides the server's own; ``["*"]`` allows any, without cookies.
    ``ping_interval``, ``ping_timeout``, ``connect_timeout`` (for the first CONNECT of a session) and
    ``upgrade_timeout`` (for an upgrade from polling to WebSocket): seconds. ``max_payload``: maximum bytes of
    a message and of a POST body. ``recovery``: seconds for which a client whose connection was lost can come
    back with its id, rooms and data, and is sent the events that it missed; ``None`` turns that off.
    ``recovery_bytes``: maximum bytes of events that each namespace keeps for that, with the objects that hold
    them. ``recovery_skips_middlewares``: whether a client that comes back passes without the middlewares.
    The other keyword arguments are `PacketOptions`.

    Raises `ValueError` for a value that is out of range.
    """

    def __init__(
        self,
        *,
        cors: Collection[str] = (),
        path: str = "/socket.io/",
        ping_interval: float = 25,
        ping_timeout: float = 20,
        connect_timeout: float = 10,
        upgrade_timeout: float = 10,
        max_payload: int = 1_000_000,
        recovery: float | None = None,
        recovery_bytes: int = DEFAULT_MAX_BYTES,
        recovery_skips_middlewares: bool = True,
        **packet_options: Unpack[PacketOptionsDict],
    ) -> None:
        if not path.startswith("/") or len(path.strip("/")) == 0:
            raise ValueError(f"not a path: {path!r}")
        times = [ping_interval, ping_timeout, connect_timeout, upgrade_timeout]
        if recovery is not None:
            times.append(recovery)
        if not all(0 < time < float("inf") for time in times) or min(max_payload, recovery_bytes) < 1:
            raise ValueError("times and sizes must be above 0 and finite")
        self._cors = cors
        self._path = path.rstrip("/")
        self._ping_interval = ping_interval
        self._ping_timeout = ping_timeout
        self._connect_timeout = connect_timeout
        self._upgrade_timeout = upgrade_timeout
        self._max_payload = max_payload
        self.recovery_seconds = recovery
        self.recovery_bytes = recovery_bytes
        self.recovery_skips_middlewares = recovery_skips_middlewares
        self.packet_options = PacketOptions(**packet_options)
        self.turns = Turns()
        self.stats = Stats()
        self.limits = Limits()
        self._mounted_on: MountedOn | None = None
        self._transports: Transports | None = None
        self._running: set[asyncio.Task[None]] = set()  # handlers and middlewares
        self._spawned: set[asyncio.Task[None]] = set()
        self.cluster: Cluster | None = None
        """How the other servers of a cluster are reached, if there are any."""
        self._closed = False
        self._namespaces = Namespaces(self)
        self._main = self.of("/")
        self._pages: dict[str, HttpHandler] = {}
        self.server_side_handlers = self._main.server_side_handlers

    def attach(self, server: MountedOn) -> None:
        """Adds the routes to a server. `Server.mount` calls it. Raises `RuntimeError` if already mounted."""
        if self._mounted_on is not None:
            raise RuntimeError("already mounted")
        self._mounted_on = server
        self.limits = server.limits
        self.stats = server.stats
        self._transports = transports = Transports(
            cors=self._cors,
            max_payload=self._max_payload,
            limits=server.limits,
            hub=lambda: server.hub,
            is_closed=lambda: self._closed,
            admit=self._admit,
            is_proxy=server.is_proxy,
            make_session=self._make_session,
            opened=self._opened,
        )
        for path in (self._path, self._path + "/"):
            server.add_websocket_route(transports.websocket_route(path))
            server.add_http_route(path, transports.http_route())
        self._namespaces.attach(server.registries)
        for path, page in self._pages.items():
            server.http(path)(page)
        server.on_drain(transports.drain)
        server.on_stop(self._stop)

    @property
    def clock(self) -> Clock:
        """The server's clock; before it is mounted, the event loop."""
        return self._mounted_on.clock if self._mounted_on is not None else asyncio.get_running_loop()

    def spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Runs ``work`` in a task. An exception is logged, with its traceback; awaiting the task raises it.

        When the server stops, it waits for the handlers, and then cancels the work at once.
        """
        task = _start(work, self._spawned)
        task.add_done_callback(_log_failure)
        return task

    def run_handlers(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        return _start(work, self._running)

    @overload
    def of(self, name: str, *, max_children: int = MAX_CHILDREN) -> Namespace: ...

    @overload
    def of(
        self, name: re.Pattern[str] | NamespaceMatch, *, max_children: int = MAX_CHILDREN
    ) -> ParentNamespace: ...

    def of(
        self, name: str | re.Pattern[str] | NamespaceMatch, *, max_children: int = MAX_CHILDREN
    ) -> Namespace:
        """Returns the namespace of that name, and makes it at first. Raises `ValueError` without a slash.

        A template, ``"/shop-{id}"``, a pattern, which matches a whole name, or a function, async or not, of a
        name and the client's ``auth`` that returns whether it matches, makes a dynamic namespace, a
        `ParentNamespace`. Its children exist while clients are connected to them. There are at most
        ``max_children``; then clients are refused. ``socket.namespace.parameters`` holds what the template,
        or the named groups of the pattern, found in the name. A name that `of` was called with comes first,
        then the dynamic namespaces in the order of making them. Raises `ValueError` for a malformed template.
        """
        if max_children < 1:
            raise ValueError("max_children must be above 0")
        if not isinstance(name, str):
            return self._namespaces.add_parent(name, max_children)
        if not name.startswith("/"):
            raise ValueError(f"a namespace begins with a slash: {name!r}")
        if "{" in name:
            return self._namespaces.add_parent(name, max_children)
        return self._namespaces.of(name)

    def register(self, handlers: NamespaceHandlers) -> Namespace:
        """Registers the methods of an object, and returns their namespace (`NamespaceHandlers`)."""
        namespace = self.of(handlers.where)
        handlers.register(namespace)
        return namespace

    # The namespace "/".

    def _server_side(self) -> tuple[str, Cluster | None]:
        return "/", self.cluster

    def _own_handlers(self) -> Handlers:
        return self._main.handlers

    def _own_declarations(self) -> Declarations:
        return self._main.declarations

    def use(self, middleware: Middleware) -> Middleware:
        """Registers a function that may refuse a client (`Namespace.use`)."""
        return self._main.use(middleware)

    def everybody(self) -> Target:
        return self._main.everybody()

    @property
    def sockets(self) -> dict[str, Socket]:
        """The connected sockets, by id."""
        return self._main.sockets

    @property
    def rooms(self) -> Rooms:
        """The rooms (`Namespace.rooms`)."""
        return self._main.rooms

    # What it says of itself.

    def asyncapi(
        self, *, title: str, version: str, description: str = "", servers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Returns the AsyncAPI 3 document of all events: those that namespaces have handlers of, and those
        that are declared with `emits`.

        Their types come from annotations, their descriptions from docstrings. ``title``, ``version`` and
        ``description`` are those of the application. ``servers``: their URLs, such as
        ``wss://example.com``, by name. Raises `ValueError` for what is not a URL.
        """
        return asyncapi_document(
            title=title,
            version=version,
            description=description,
            servers=servers or {},
            path=self._path + "/",
            namespaces=map(describe, self._namespaces.documented()),
        )

    def serve_asyncapi(
        self,
        path: str,
        *,
        title: str,
        version: str,
        description: str = "",
        servers: Mapping[str, str] | None = None,
    ) -> None:
        """Serves a page that shows all events at ``path``, and the document beside it, at ``path`` with
        ``.json``, both to everybody. Arguments and errors as `asyncapi`; raises `ValueError` for a path
        without a slash, and for ``"/"``.
        """
        if not path.startswith("/") or not path.strip("/"):
            raise ValueError(f"not a path: {path!r}")
        make = partial(self.asyncapi, title=title, version=version, description=description, servers=servers)
        make()
        self._pages |= (pages := page_handlers(path, make))
        if self._mounted_on is not None:
            for one, page in pages.items():
                self._mounted_on.http(one)(page)

    # Sessions.

    def _make_session(self, sid: str, transport: Transport, now: float) -> EngineSession:
        return EngineSession(
            sid,
            transport,
            now,
            ping_interval=self._ping_interval,
            ping_timeout=self._ping_timeout,
            upgrade_timeout=self._upgrade_timeout,
            max_payload=self._max_payload,
        )

    def _opened(self, session: Session) -> None:
        # The request is the one that carries CONNECT, so that a session that never connects keeps none.
        def make_handshake(auth: dict[str, Any]) -> Handshake:
            request = session.request
            assert request is not None  # noqa: S101 - it is being received
            return Handshake(
                headers=request.headers,
                query=parse_query(request),
                auth=self._application_auth(auth),
                address=session.address,
                url=request.target,
                secure=session.secure,
                time=self.clock.time(),
                issued=time.time(),
                xdomain=not same_origin(request),
                user=session.user,
                request=request,
            )

        Client(
            session,
            self._namespaces,
            make_handshake,
            self._connect_timeout,
            self.clock,
            options=self.packet_options,
        )

    def _application_auth(self, auth: dict[str, Any]) -> dict[str, Any]:
        """Returns what the client's application sent, without what recovery adds."""
        if self.recovery_seconds is None:
            return auth
        return {name: value for name, value in auth.items() if name not in ("pid", "offset")}

    def close(self) -> None:
        """Disconnects all clients, for good: from now on, they are refused with 503."""
        self._closed = True
        if self._transports is not None:
            self._transports.close()

    async def _admit(self, request: Request) -> Any:
        assert self._mounted_on is not None  # noqa: S101 - there is a request
        return STOPPING if self._closed else await self._mounted_on.admit(request)

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
    task = asyncio.get_running_loop().create_task(work)
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
