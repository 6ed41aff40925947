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

The files, from the wire upward: `packets` (Socket.IO's), `engine` (Engine.IO's session, without I/O),
`recovery`, `session` (a session with its transports and time), `namespaces` (sockets, rooms, events),
`transports` (requests).
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Final, Protocol, TypeVar

from rfc6455 import Request
from rfc6455_server.clock import Clock
from rfc6455_server.http.routes import HttpRoute
from rfc6455_server.limits import Limits
from rfc6455_server.listening.routing import Refusal, Route
from rfc6455_server.rooms import Rooms
from rfc6455_server.socketio.engine import EngineSession, Transport
from rfc6455_server.socketio.namespaces import (
    AckTimeoutError,
    Client,
    ConnectError,
    DisconnectedError,
    Handler,
    Handshake,
    Middleware,
    Namespace,
    Socket,
    SocketTarget,
    Target,
)
from rfc6455_server.socketio.recovery import DEFAULT_MAX_BYTES
from rfc6455_server.socketio.session import Session
from rfc6455_server.socketio.transports import Transports, parse_query
from rfc6455_server.stats import Stats

__all__ = [
    "AckTimeoutError",
    "ConnectError",
    "DisconnectedError",
    "Handshake",
    "Namespace",
    "Socket",
    "SocketIO",
    "SocketTarget",
    "Target",
]

STOP_TIMEOUT: Final = 5.0
"""Seconds that handlers have to end when the server stops."""

_AnyHandler = TypeVar("_AnyHandler", bound=Handler)


class Host(Protocol):
    """What it needs of the server that it is mounted on."""

    limits: Limits
    stats: Stats
    registries: list[Rooms]

    @property
    def clock(self) -> Clock:
        """What tells the time."""

    async def admit(self, request: Request) -> Refusal | None:
        """The refusal of a request that is to open a session by polling, if it is refused."""

    def add_websocket_route(self, route: Route) -> None:
        """Adds a route for WebSockets."""

    def add_http_route(self, prefix: str, route: HttpRoute) -> None:
        """Adds a route for plain HTTP."""

    def on_stop(self, callback: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Has ``callback`` awaited when the server stops."""


class SocketIO:
    """A Socket.IO server, to be mounted on a `Server`; what it can do without a namespace, it does in
    ``"/"``.

    ``cors``: origins that browsers may come from besides the server's own, ``["*"]`` for any (without
    cookies). ``ping_interval``, ``ping_timeout``, ``connect_timeout`` (for the CONNECT that follows the
    opening), ``upgrade_timeout`` (for a change from polling to WebSocket): seconds. ``max_payload``: bytes of
    a message or of a polling request. ``recovery``: seconds for which a client whose connection was lost may
    come back as who it was, with what it missed, up to ``recovery_bytes`` a namespace; ``None`` for not at
    all.

    Raises `ValueError` for what is out of range.
    """

    def __init__(
        self,
        *,
        cors: Collection[str] = (),
        path: str = "/socket.io/",
        ping_interval: float = 25,
        ping_timeout: float = 20,
        connect_timeout: float = 45,
        upgrade_timeout: float = 10,
        max_payload: int = 1_000_000,
        recovery: float | None = None,
        recovery_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        if not path.startswith("/") or len(path.strip("/")) == 0:
            raise ValueError(f"not a path: {path!r}")
        times = [ping_interval, ping_timeout, connect_timeout, upgrade_timeout]
        if recovery is not None:
            times.append(recovery)
        if not all(0 < time < float("inf") for time in times) or min(max_payload, recovery_bytes) < 1:
            raise ValueError("times and sizes are above 0, and finite")
        self._cors = cors
        self._path = path.rstrip("/")
        self._ping_interval = ping_interval
        self._ping_timeout = ping_timeout
        self._connect_timeout = connect_timeout
        self._upgrade_timeout = upgrade_timeout
        self._max_payload = max_payload
        self.recovery_seconds = recovery
        self.recovery_bytes = recovery_bytes
        self.stats = Stats()
        self.limits = Limits()
        self._host: Host | None = None
        self._transports: Transports | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._namespaces: dict[str, Namespace] = {}
        self._main = self.of("/")

    def attach(self, server: Host) -> None:
        """Called by `Server.mount`. Raises `RuntimeError` when it is mounted already."""
        if self._host is not None:
            raise RuntimeError("it is mounted already")
        self._host = server
        self.limits = server.limits
        self.stats = server.stats
        self._transports = transports = Transports(
            cors=self._cors,
            max_payload=self._max_payload,
            max_sessions=server.limits.max_connections,
            clock=lambda: server.clock,
            stats=server.stats,
            admit=server.admit,
            make_session=self._make_session,
            opened=self._opened,
        )
        for path in (self._path, self._path + "/"):
            server.add_websocket_route(transports.websocket_route(path))
            server.add_http_route(path, transports.http_route())
        for namespace in self._namespaces.values():
            namespace.rooms.stats = server.stats
            server.registries.append(namespace.rooms)
        server.on_stop(self._stop)

    @property
    def clock(self) -> Clock:
        """What tells the time."""
        return self._host.clock if self._host is not None else asyncio.get_running_loop()

    def spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Runs ``work`` in a task that is waited for when the server stops."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def of(self, name: str) -> Namespace:
        """The namespace of that name, made if need be; `ValueError` for a name without a slash in front."""
        if not name.startswith("/"):
            raise ValueError(f"a namespace begins with a slash: {name!r}")
        namespace = self._namespaces.get(name)
        if namespace is None:
            namespace = self._namespaces[name] = Namespace(name, self)
            if self._host is not None:
                self._host.registries.append(namespace.rooms)
        return namespace

    # The namespace "/".

    def on(self, event: str, *, concurrent: bool = False) -> Callable[[_AnyHandler], _AnyHandler]:
        """Decorates the handler of an event (`Namespace.on`)."""
        return self._main.on(event, concurrent=concurrent)

    def on_any(self, handler: _AnyHandler) -> _AnyHandler:
        """Decorates a function that sees every event (`Namespace.on_any`)."""
        return self._main.on_any(handler)

    def use(self, middleware: Middleware) -> Middleware:
        """Decorates a function that may refuse a client (`Namespace.use`)."""
        return self._main.use(middleware)

    def to(self, *rooms: str) -> Target:
        """Whoever is in one of these rooms; the id of a socket is a room that only it is in."""
        return self._main.to(*rooms)

    in_ = to

    def except_(self, *rooms: str) -> Target:
        """Everybody who is in none of these rooms."""
        return self._main.except_(*rooms)

    @property
    def volatile(self) -> Target:
        """Everybody who keeps up."""
        return self._main.volatile

    def timeout(self, seconds: float) -> Target:
        """Everybody, with a time for their acknowledgements."""
        return self._main.timeout(seconds)

    def emit(self, event: str, *args: Any) -> None:
        """Sends an event to everybody, without waiting."""
        self._main.emit(event, *args)

    async def emit_with_ack(self, event: str, *args: Any) -> list[Any]:
        """Sends an event to everybody, and gives their acknowledgements."""
        return await self._main.emit_with_ack(event, *args)

    def fetch_sockets(self) -> list[Socket]:
        """All sockets."""
        return self._main.fetch_sockets()

    def disconnect_sockets(self, close: bool = False) -> None:
        """Disconnects everybody."""
        self._main.disconnect_sockets(close)

    @property
    def sockets(self) -> dict[str, Socket]:
        """The connected sockets, by id."""
        return self._main.sockets

    @property
    def rooms(self) -> Rooms:
        """The rooms."""
        return self._main.rooms

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
            max_buffer=self.limits.max_queue,
        )

    def _opened(self, session: Session, request: Request) -> None:
        def make_handshake(auth: dict[str, Any]) -> Handshake:
            return Handshake(
                headers=request.headers,
                query=parse_query(request),
                auth={name: value for name, value in auth.items() if name not in ("pid", "offset")},
                address=session.address,
                url=request.target,
                secure=session.secure,
                time=self.clock.time(),
            )

        Client(session, self._namespaces, make_handshake, self._connect_timeout, self.clock)

    async def _stop(self) -> None:
        if self._transports is not None:
            self._transports.close("server shutting down")
        if self._tasks:
            _, late = await asyncio.wait(list(self._tasks), timeout=STOP_TIMEOUT)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
