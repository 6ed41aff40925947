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

The files, from the wire upward: `packet_json` and `packets` (Socket.IO's format), `engine` (Engine.IO's
session, without I/O), `recovery`, `session` (a session with its transports and time), `registering` and
`handlers` (which handlers there are, and the order in which they run), `targets`, `receiving`, `sockets`,
`namespaces` and `clients` (what applications use), `parents` (dynamic namespaces), `classes` (handlers as
methods), `cluster` (other servers), `options`, `cors`, `compression` and `transports` (requests),
`client_files` (the client's bundles).
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Unpack, cast, overload

from rfc6455 import Request
from rfc6455_server.http.routes import HttpHandler
from rfc6455_server.limits import check_seconds
from rfc6455_server.rooms import Rooms
from rfc6455_server.socketio.catchup import Turns
from rfc6455_server.socketio.classes import NamespaceHandlers, handles
from rfc6455_server.socketio.client_files import client_routes, find_folder
from rfc6455_server.socketio.clients import Client
from rfc6455_server.socketio.cluster import Cluster, ServerSide
from rfc6455_server.socketio.documents import Declarations, Declaring, describe, page_handlers
from rfc6455_server.socketio.engine_packets import EngineError
from rfc6455_server.socketio.engine_server import Engine
from rfc6455_server.socketio.engine_socket import EngineSocket
from rfc6455_server.socketio.handshake import Handshake, handshake_of
from rfc6455_server.socketio.mounting import Mounted, MountedOn
from rfc6455_server.socketio.namespaces import Middleware, Namespace
from rfc6455_server.socketio.options import Cookie, EngineOptions, EngineOptionsDict, RefusedRequest
from rfc6455_server.socketio.packets import PacketOptions, PacketOptionsDict
from rfc6455_server.socketio.parents import MAX_CHILDREN, NamespaceMatch, Namespaces, ParentNamespace
from rfc6455_server.socketio.recovery import DEFAULT_MAX_BYTES, MAX_RECOVERY
from rfc6455_server.socketio.registering import Ack, ConnectError, EventError, Handlers, Registering
from rfc6455_server.socketio.session import Session
from rfc6455_server.socketio.sockets import (
    Broadcaster,
    DisconnectedError,
    Socket,
    SocketTarget,
    Target,
)
from rfc6455_server.socketio.targets import AckTimeoutError
from rfc6455_server.socketio.typed.annotations import AnnotationError
from rfc6455_server.socketio.typed.asyncapi import asyncapi_document
from rfc6455_server.socketio.typed.containers import Bounds
from rfc6455_server.socketio.typed.declared import OutgoingEvent
from rfc6455_server.socketio.typed.problems import InvalidDataError, Problem
from rfc6455_server.socketio.typed.shapes import AsIs

__all__ = [
    "Ack",
    "AckTimeoutError",
    "AnnotationError",
    "AsIs",
    "Bounds",
    "Cluster",
    "ConnectError",
    "Cookie",
    "DisconnectedError",
    "Engine",
    "EngineError",
    "EngineOptions",
    "EngineSocket",
    "EventError",
    "Handshake",
    "InvalidDataError",
    "Namespace",
    "NamespaceHandlers",
    "OutgoingEvent",
    "PacketOptions",
    "ParentNamespace",
    "Problem",
    "RefusedRequest",
    "Socket",
    "SocketIO",
    "SocketTarget",
    "Target",
    "handles",
]


class SocketIOOptions(EngineOptionsDict, PacketOptionsDict, total=False):
    """The fields of `EngineOptions`, but for ``path``, and of `PacketOptions` as keyword arguments."""


class SocketIO(Mounted, Registering, Declaring, ServerSide, Broadcaster):
    """A Socket.IO server, mounted on a `Server`. Methods that a namespace also has are for namespace ``"/"``.

    ``path``: that of all requests. ``connect_timeout``: seconds within which a session must be connected to a
    namespace. ``recovery``: seconds for which a client whose connection was lost can come back with its id,
    rooms and data, and is sent the events that it missed; ``None`` turns that off. ``recovery_bytes``:
    maximum bytes of events that each namespace keeps for that, with the objects that hold them.
    ``recovery_skips_middlewares``: whether a client that comes back passes without the middlewares.
    ``serve_client``: the folder with the official client's bundles, which are served below ``path``; or
    ``True`` for ``node_modules/socket.io-client/dist``, found as Node finds it from the working directory.
    The other keyword arguments are `EngineOptions` and `PacketOptions`.

    Raises `ValueError` for a value that is out of range.
    """

    def __init__(
        self,
        *,
        path: str = "/socket.io/",
        connect_timeout: float = 10,
        recovery: float | None = None,
        recovery_bytes: int = DEFAULT_MAX_BYTES,
        recovery_skips_middlewares: bool = True,
        serve_client: str | Path | bool = False,
        **options: Unpack[SocketIOOptions],
    ) -> None:
        packet_options, engine_options = _split(options)
        super().__init__(EngineOptions(path=path, **engine_options))
        if isinstance(recovery, bool):
            raise ValueError("recovery is a number of seconds, such as 120, or None")
        check_seconds("connect_timeout", connect_timeout)
        if recovery is not None:
            check_seconds("recovery", recovery, MAX_RECOVERY)
        if recovery_bytes < 1:
            raise ValueError("recovery_bytes must be at least 1")
        self._connect_timeout = connect_timeout
        self._client_folder = find_folder(serve_client) if serve_client else None
        self.recovery_seconds = recovery
        self.recovery_bytes = recovery_bytes
        self.recovery_skips_middlewares = recovery_skips_middlewares
        self.packet_options = PacketOptions(**packet_options)
        self.turns = Turns()
        self.cluster: Cluster | None = None
        """How the other servers of a cluster are reached, if there are any."""
        self._namespaces = Namespaces(self)
        self._main = self.of("/")
        self._pages: dict[str, HttpHandler] = {}
        self.server_side_handlers = self._main.server_side_handlers

    def attach(self, server: MountedOn) -> None:
        super().attach(server)
        if self._client_folder is not None:
            bundles = client_routes(self.options.path.rstrip("/"), self._client_folder, self.cors)
            for path, route in bundles.items():
                server.add_http_route(path, route)
        self._namespaces.attach(server.registries)
        for path, page in self._pages.items():
            server.http(path)(page)

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

    @property
    def namespaces(self) -> Mapping[str, Namespace]:
        """The namespaces that exist now, by name, with the children of dynamic ones."""
        return MappingProxyType(self._namespaces.by_name)

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
            path=self.options.path.rstrip("/") + "/",
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

    def _opened(self, session: Session, _: Request) -> None:
        # The request is the one that carries CONNECT, so that a session that never connects keeps none.
        def make_handshake(auth: dict[str, Any], auth_size: int) -> Handshake:
            return handshake_of(session, self._application_auth(auth), self.clock.time(), auth_size)

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


def _split(options: SocketIOOptions) -> tuple[PacketOptionsDict, EngineOptionsDict]:
    packets = {name: value for name, value in options.items() if name in PacketOptionsDict.__annotations__}
    engine = {name: value for name, value in options.items() if name not in packets}
    return cast("PacketOptionsDict", packets), cast("EngineOptionsDict", engine)
