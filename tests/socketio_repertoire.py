"""Our server with the vocabulary of `node/repertoire.js`. `node/repertoire_server.js` is Node's with it."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from rfc6455 import Request
from rfc6455_server import Server
from rfc6455_server.socketio import (
    AckTimeoutError,
    ConnectError,
    DisconnectedError,
    EventError,
    Namespace,
    ParentNamespace,
    Socket,
    SocketIO,
    Target,
)
from rfc6455_server.socketio.registering import call_handler

INSTANCES: dict[str, dict[str, Any]] = {
    "plain": {},
    "options": {"allow_upgrades": False, "cookie": "io"},
    "polling only": {"transports": ["polling"]},
    "recovering": {"recovery": 60},
    "short": {"ping_interval": 0.5, "ping_timeout": 2, "connect_timeout": 1},
    "cors": {"cors": ["http://friend.example"]},
}
Values = Sequence[Any]
Command = Callable[..., Any]


def name_of(socket: Socket) -> str:
    return str(socket.handshake.auth.get("name", "?"))


def rooms_of(socket: Socket) -> list[str]:
    return sorted(socket.rooms - {socket.id})


def resolve(namespace: Namespace, rooms: Sequence[str]) -> list[str]:
    """Replaces ``"@name"`` by the id of the client of that name."""
    ids = {f"@{name_of(socket)}": id_ for id_, socket in reversed(namespace.sockets.items())}
    return [ids.get(room, room) for room in rooms]


def _shown(value: Any) -> Any:
    """Returns a value of an event as JSON shows it; Node's Buffers show themselves otherwise."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, list | tuple):
        return [_shown(item) for item in value]
    return value


def mark_opening(request: Request, fields: list[tuple[str, str]]) -> None:
    fields.append(("x-initial", "yes"))


def mark(request: Request, fields: list[tuple[str, str]]) -> None:
    fields.append(("x-each", "yes"))


async def by_function(name: str, auth: dict[str, Any]) -> bool:
    return name == "/by-function" and auth.get("token") == "s3cret"


def target(start: Any, namespace: Namespace, spec: dict[str, Any]) -> Any:
    """Returns what an event is emitted with, from ``start``, a socket or a namespace."""
    found = start
    if spec.get("volatile"):
        found = found.volatile
    if spec.get("broadcast"):
        found = found.broadcast
    if "to" in spec:
        found = found.to(*resolve(namespace, spec["to"]))
    if "except" in spec:
        found = found.except_(*resolve(namespace, spec["except"]))
    if "timeout" in spec:
        found = found.timeout(spec["timeout"] / 1000)
    return found


async def ask(of: Any, args: Values) -> Values:
    try:
        return ["answered", await of.emit_with_ack(*args)]
    except AckTimeoutError as error:
        return ["timed out", error.responses if isinstance(of, Target) else None]
    except DisconnectedError:
        return ["disconnected", None]


class Repertoire:
    """The instances of the server, and what they saw of each client: [client, what, ...]."""

    def __init__(self) -> None:
        self.seen: list[list[Any]] = []
        self.refused: list[list[Any]] = []
        self.servers: dict[str, Server] = {}
        self.instances: dict[str, SocketIO] = {}
        self._parent: ParentNamespace | None = None
        self._release = asyncio.Event()

    def note(self, socket: Socket, *what: Any) -> None:
        self.seen.append([name_of(socket), *what])

    async def start(self, name: str, options: dict[str, Any]) -> int:
        io = SocketIO(initial_headers=mark_opening, headers=mark, **options)
        io.on_connection_error(lambda refused: self.refused.append([refused.code, refused.message]))
        server = Server()
        parent = io.of(re.compile(r"/dynamic-(\d+)"))
        for namespace in (io.of("/"), io.of("/admin"), parent, io.of(by_function)):
            self._serve(namespace)
        self._guard(io)
        if name == "plain":
            self._control(io.of("/control"))
            self._parent = parent
        server.mount(io)
        await server.start("127.0.0.1", 0)
        self.servers[name], self.instances[name] = server, io
        return server.port

    async def stop(self, name: str) -> None:
        del self.instances[name]
        await self.servers.pop(name).stop()

    # What a client may ask of its socket.

    def _serve(self, namespace: Namespace) -> None:
        @namespace.on("connect")
        async def connect(socket: Socket) -> None:
            self.note(socket, "connect", socket.namespace.name, socket.recovered)

        @namespace.on("disconnecting")
        async def disconnecting(socket: Socket, reason: str, rooms: set[str]) -> None:
            self.note(socket, "disconnecting", reason, sorted(rooms - {socket.id}))

        @namespace.on("disconnect")
        async def disconnect(socket: Socket, reason: str) -> None:
            self.note(socket, "disconnect", reason)

        for commands in (self._talk, self._rooms_and_data, self._handlers):
            commands(namespace)

    def _talk(self, namespace: Namespace) -> None:
        @namespace.on("noop")
        async def noop(socket: Socket) -> None: ...

        @namespace.on("echo")
        async def echo(socket: Socket, *args: Any) -> Any:
            return args

        @namespace.on("values")
        async def values(socket: Socket) -> Any:
            return 1, "two", {"three": 3}

        @namespace.on("never", ack=False)
        async def never(socket: Socket) -> None: ...

        @namespace.on("back")
        async def back(socket: Socket, *args: Any) -> None:
            socket.emit("back", *args)

        @namespace.on("wait")
        async def wait(socket: Socket, milliseconds: float) -> float:
            await asyncio.sleep(milliseconds / 1000)
            return milliseconds

        @namespace.on("fail")
        async def fail(socket: Socket) -> None:
            raise RuntimeError("a handler that fails")

        @namespace.on("emit")
        async def emit(socket: Socket, spec: dict[str, Any], *args: Any) -> None:
            target(socket, socket.namespace, spec).emit(*args)  # type: ignore[arg-type]

        @namespace.on("ask", concurrent=True)
        async def ask_(socket: Socket, spec: dict[str, Any], *args: Any) -> Any:
            return tuple(await ask(target(socket, socket.namespace, spec), args))  # type: ignore[arg-type]

        @namespace.on("burst")
        async def burst(socket: Socket, count: int, size: int) -> int:
            for number in range(count):
                socket.emit("burst", number, "x" * size)
            return count

        @namespace.on("last")
        async def last(socket: Socket, close: bool = False) -> None:
            socket.emit("last words", b"bye")
            socket.disconnect(close)

        @namespace.on("kick")
        async def kick(socket: Socket, close: bool) -> None:
            socket.disconnect(close)

        @namespace.on("bytes")
        async def bytes_(socket: Socket, value: Any) -> Any:
            return isinstance(value, bytes), len(value)

        @namespace.on("reserved")
        async def reserved(socket: Socket, name: str) -> bool:
            try:
                socket.emit(name, 1)
            except ValueError:
                return True
            return False

    def _rooms_and_data(self, namespace: Namespace) -> None:
        @namespace.on("join")
        async def join(socket: Socket, *rooms: str) -> Any:
            socket.join(*rooms)
            return rooms_of(socket)

        @namespace.on("leave")
        async def leave(socket: Socket, *rooms: str) -> Any:
            socket.leave(*rooms)
            return rooms_of(socket)

        @namespace.on("rooms")
        async def rooms_(socket: Socket) -> Any:
            return rooms_of(socket)

        @namespace.on("handshake")
        async def handshake(socket: Socket) -> Any:
            shake = socket.handshake
            fields = {
                "header": shake.headers.get("x-test"),
                "auth": shake.auth,
                "query": dict(shake.query),
                "secure": shake.secure,
                "xdomain": shake.xdomain,
                "address": shake.address,
                "path": shake.url.split("?")[0],
            }
            return fields, {"time": type(shake.time).__name__, "issued": type(shake.issued).__name__}

        @namespace.on("transport")
        async def transport(socket: Socket) -> str:
            return socket.transport

        @namespace.on("set")
        async def set_(socket: Socket, name: str, value: Any) -> None:
            socket.data[name] = value

        @namespace.on("get")
        async def get(socket: Socket) -> Any:
            return socket.data

    def _handlers(self, namespace: Namespace) -> None:
        @namespace.on("once")
        async def once(socket: Socket) -> None:
            @socket.once("rare")
            async def rare(socket: Socket, value: Any) -> None:
                socket.emit("heard", "once", value)

        @namespace.on("several handlers")
        async def several(socket: Socket) -> None:
            for which in ("first", "second"):

                async def chosen(socket: Socket, which: str = which) -> None:
                    socket.emit("heard", which)

                socket.on("chosen")(chosen)

        @namespace.on("no handlers")
        async def no_handlers(socket: Socket) -> None:
            socket.off("chosen")

        @namespace.on("watch")
        async def watch(socket: Socket) -> None:
            @socket.on_any
            async def seen(socket: Socket, event: str, *args: Any) -> None:
                self.note(socket, "any", event, _shown(args))

        @namespace.on("watch what is sent")
        async def watch_outgoing(socket: Socket) -> None:
            @socket.on_any_outgoing
            def sent(socket: Socket, event: str, *args: Any) -> None:
                self.note(socket, "outgoing", event, _shown(args))

        @namespace.on("check packets")
        async def check_packets(socket: Socket) -> None:
            @socket.use
            async def check(socket: Socket, event: str, *args: Any) -> None:
                self.note(socket, "packet", event)
                if args == ("forbidden",):
                    self.note(socket, "error", f"not this one: {event}")
                    raise EventError(f"not this one: {event}")

    # Namespaces that refuse, or do more than one expects.

    def _guard(self, io: SocketIO) -> None:
        guarded, slow, failing = io.of("/guarded"), io.of("/slow"), io.of("/failing")
        talkative, leaving = io.of("/talkative"), io.of("/leaving")
        for namespace in (guarded, slow, failing, talkative, leaving):
            self._serve(namespace)

        @guarded.use
        def first(socket: Socket) -> None:
            self.note(socket, "first")

        @guarded.use
        async def second(socket: Socket) -> None:
            await asyncio.sleep(0.01)
            self.note(socket, "second")
            socket.join("candidates")
            token = socket.handshake.auth.get("token")
            if token == "plain":
                raise ConnectError("no")
            if token != "s3cret":
                raise ConnectError("who are you?", {"code": 7, "text": "세션"})

        @guarded.use
        async def third(socket: Socket) -> None:
            self.note(socket, "third")
            socket.data["checked"] = True

        @slow.use
        async def decide(socket: Socket) -> None:
            self.note(socket, "waits")
            self._release = asyncio.Event()
            await self._release.wait()

        @failing.use
        async def fail(socket: Socket) -> None:
            raise RuntimeError("a middleware that fails")

        @talkative.use
        async def early(socket: Socket) -> None:
            socket.emit("too early", 1)

        @talkative.on("connect")
        async def talk(socket: Socket) -> None:
            socket.emit("at once", 1)
            socket.emit("at once", b"\x02")

        @leaving.on("connect")
        async def leave(socket: Socket) -> None:
            socket.disconnect()

    # What the script asks of the server.

    def _control(self, namespace: Namespace) -> None:
        for name in dir(self):
            if name.startswith("control_"):
                command = getattr(self, name)

                async def run(socket: Socket, *args: Any, command: Command = command) -> Any:
                    return await call_handler(command, *args)

                namespace.on(name.removeprefix("control_").replace("_", " "))(run)

    def _found(self, spec: dict[str, Any]) -> tuple[Namespace, Any]:
        namespace = self.instances[spec.get("instance", "plain")].of(spec.get("nsp", "/"))
        return namespace, target(namespace, namespace, spec)

    def control_noop(self) -> None: ...

    def control_log(self) -> list[list[Any]]:
        return self.seen

    def control_refused(self) -> list[list[Any]]:
        refused, self.refused = self.refused, []
        return refused

    def control_clear(self) -> None:
        self.seen = []

    def control_count(self) -> int:
        namespaces = [namespace for io in self.instances.values() for namespace in io.namespaces.values()]
        return sum(len(namespace.sockets) for namespace in namespaces if namespace.name != "/control")

    def control_release(self) -> None:
        self._release.set()

    async def control_open(self) -> Values:
        name = f"instance {len(self.instances)}"
        return [name, await self.start(name, {})]

    async def control_close(self, name: str) -> None:
        await self.stop(name)

    def control_namespaces(self, name: str) -> list[str]:
        return sorted(self.instances[name].namespaces)

    def control_emit(self, spec: dict[str, Any], *args: Any) -> None:
        self._found(spec)[1].emit(*args)

    def control_to_children(self, *args: Any) -> None:
        assert self._parent is not None
        self._parent.emit(*args)

    def control_burst(self, spec: dict[str, Any], count: int, size: int) -> None:
        for number in range(count):
            self._found(spec)[1].emit("burst", number, "x" * size)

    async def control_ask(self, spec: dict[str, Any], *args: Any) -> Values:
        return await ask(self._found(spec)[1], args)

    def control_fetch(self, spec: dict[str, Any]) -> list[Any]:
        sockets = self._found(spec)[1].fetch_sockets()
        return sorted(([name_of(socket), rooms_of(socket), socket.data] for socket in sockets), key=repr)

    def control_all(self, spec: dict[str, Any], action: str, argument: Any = None) -> None:
        found = self._found(spec)[1]
        {
            "socketsJoin": found.sockets_join,
            "socketsLeave": found.sockets_leave,
            "disconnectSockets": found.disconnect_sockets,
        }[action](argument)

    def control_server_side(self, name: str) -> None:
        io = self.instances["plain"]

        @io.on_server_side("told")
        async def told(*args: Any) -> None:
            self.seen.append(["server", "told", *args])

        io.server_side_emit("told", name)


class _Failures(logging.Handler):
    """Adds exceptions that the server logs to what it saw."""

    def __init__(self, repertoire: Repertoire) -> None:
        super().__init__(logging.ERROR)
        self._repertoire = repertoire

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is not None:
            self._repertoire.seen.append(["process", "exception", str(record.exc_info[1])])


@asynccontextmanager
async def serving_repertoire() -> AsyncIterator[dict[str, int]]:
    """Starts the server, and yields the ports of its instances."""
    repertoire = Repertoire()
    handler = _Failures(repertoire)
    logger = logging.getLogger("rfc6455_server")
    logger.addHandler(handler)
    try:
        yield {name: await repertoire.start(name, options) for name, options in INSTANCES.items()}
    finally:
        for name in list(repertoire.servers):
            await repertoire.stop(name)
        logger.removeHandler(handler)
