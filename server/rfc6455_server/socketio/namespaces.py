"""Sockets, namespaces, and what is sent to many: the Socket.IO server's vocabulary.

Implements: https://socket.io/docs/v4/server-api, as Python writes it, over protocol version 5.
Left to others: packets (`packets`), sessions and their transports (`session`, `transports`), what is kept
for clients that come back (`recovery`).

A client has one session, and in it a `Socket` for each `Namespace` that it is connected to. A socket is a
member of rooms like any WebSocket (`rfc6455_server.rooms`), so that policies, bounds and counters are the
same.
"""

import asyncio
import inspect
import logging
from base64 import urlsafe_b64encode
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, replace
from os import urandom
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from rfc6455 import ConnectionClosed, Headers, WebSocketError
from rfc6455_server.clock import Clock
from rfc6455_server.limits import LimitExceededError, Limits, TokenBucket
from rfc6455_server.logs import log
from rfc6455_server.policies import Policy, check_policy
from rfc6455_server.rooms import Room, Rooms
from rfc6455_server.socketio.packets import Decoder, Packet, PacketError, PacketType, encode
from rfc6455_server.socketio.recovery import LostSession, Recovery
from rfc6455_server.socketio.session import EncodedPacket, SendPrepared, Session
from rfc6455_server.stats import Stats

RECOVERABLE: Final = frozenset(
    ("transport error", "transport close", "forced close", "ping timeout", "server shutting down")
)
"""Reasons after which a client may come back as who it was: nobody wanted the connection to end."""

MAX_NAMESPACES: Final = 64
"""Namespaces that one client may be connected to."""

_EVENT_OVERHEAD: Final = 256
"""Bytes that an event counts for besides its message: small ones are not free."""

_CONNECTION_EVENTS: Final = {"connection": "connect"}

Handler = Callable[..., Any]
Middleware = Callable[["Socket"], Any]
_AnyHandler = TypeVar("_AnyHandler", bound=Handler)


class DisconnectedError(WebSocketError):
    """The socket was disconnected before the acknowledgement came; ``reason`` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"disconnected: {reason}", slug="disconnected")
        self.reason = reason


class AckTimeoutError(TimeoutError):
    """Not all acknowledgements came in time; ``responses`` are those that did."""

    def __init__(self, responses: list[Any]) -> None:
        super().__init__("the acknowledgement did not come in time")
        self.responses = responses


class ConnectError(Exception):
    """Raised by a middleware: the client is refused, with this message and data."""

    def __init__(self, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.data = data


@dataclass(frozen=True, slots=True)
class Handshake:
    """What a client came with."""

    headers: Headers
    query: Mapping[str, str]
    auth: dict[str, Any]
    address: str
    url: str
    secure: bool
    time: float
    """Seconds of the server's clock."""


class Host(Protocol):
    """What namespaces need of whom they belong to: the `SocketIO`."""

    limits: Limits
    stats: Stats
    recovery_seconds: float | None
    recovery_bytes: int

    @property
    def clock(self) -> Clock:
        """What tells the time."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Runs ``work`` in a task that is waited for when the server stops."""


class _Registered(NamedTuple):
    """A handler of an event."""

    handler: Handler
    concurrent: bool


def new_id() -> str:
    """Twenty characters that nobody guesses."""
    return urlsafe_b64encode(urandom(15)).decode()


async def _run(handler: Handler, *arguments: Any) -> Any:
    """Calls a handler, async or not."""
    result = handler(*arguments)
    return await result if inspect.isawaitable(result) else result


@dataclass(frozen=True, slots=True)
class Target:
    """Whom something is sent to, and how: ``io.to("a").except_("b").volatile.emit(…)``.

    Each method gives a new one.
    """

    namespace: "Namespace"
    rooms: frozenset[str] = frozenset()
    excluded: frozenset[str] = frozenset()
    policy: Policy | None = None
    ack_timeout: float | None = None

    def to(self, *rooms: str) -> "Target":
        """Also to these rooms; the id of a socket is a room that only it is in."""
        return replace(self, rooms=self.rooms.union(rooms))

    in_ = to

    def except_(self, *rooms: str) -> "Target":
        """Not to who is in one of these rooms."""
        return replace(self, excluded=self.excluded.union(rooms))

    @property
    def volatile(self) -> "Target":
        """Who is behind, or is not there at the moment, misses it."""
        return replace(self, policy="volatile")

    def with_policy(self, policy: Policy) -> "Target":
        """What happens at who is behind; raises `ValueError` for what is no policy."""
        return replace(self, policy=check_policy(policy))

    def timeout(self, seconds: float) -> "Target":
        """How long `emit_with_ack` waits."""
        return replace(self, ack_timeout=seconds)

    def emit(self, event: str, *args: Any) -> None:
        """Sends an event to all of them, encoded once, without waiting. Raises as `packets.encode` does."""
        self.namespace.deliver(self, Packet(PacketType.EVENT, self.namespace.name, [event, *args]))

    async def emit_with_ack(self, event: str, *args: Any) -> list[Any]:
        """Sends an event to all of them, and gives their acknowledgements.

        Raises `AckTimeoutError`, with those that came, after `timeout` seconds. Who is disconnected meanwhile
        is left out.
        """
        namespace = self.namespace
        id_ = namespace.next_ack_id()
        sockets = namespace.select(self)
        waiting = [socket.expect_ack(id_) for socket in sockets]
        namespace.deliver(self, Packet(PacketType.EVENT, namespace.name, [event, *args], id_))
        _, late = await asyncio.wait(waiting, timeout=self.ack_timeout) if waiting else (set(), set())
        for socket in sockets:
            socket.forget_ack(id_)
        responses = [future.result() for future in waiting if future.done() and future.exception() is None]
        if late:
            raise AckTimeoutError(responses)
        return responses

    def fetch_sockets(self) -> "list[Socket]":
        """The sockets that it is about."""
        return self.namespace.select(self)

    def disconnect_sockets(self, close: bool = False) -> None:
        """Disconnects all of them; with ``close``, their sessions too."""
        for socket in self.namespace.select(self):
            socket.disconnect(close)

    def sockets_join(self, *rooms: str) -> None:
        """Has all of them join these rooms."""
        for socket in self.namespace.select(self):
            socket.join(*rooms)

    def sockets_leave(self, *rooms: str) -> None:
        """Has all of them leave these rooms."""
        for socket in self.namespace.select(self):
            socket.leave(*rooms)


class Namespace:
    """A channel of its own within each client's session: handlers, rooms, sockets."""

    def __init__(self, name: str, host: Host) -> None:
        self.name = name
        self.host = host
        self.rooms = Rooms(host.stats)
        """Its rooms; a `Room` of Socket.IO is one of the server's."""
        self.sockets: dict[str, Socket] = {}
        """The connected sockets, by id."""
        self.by_private_id: dict[str, Socket] = {}
        self.recovery = (
            None if host.recovery_seconds is None else Recovery(host.recovery_seconds, host.recovery_bytes)
        )
        self.middlewares: list[Middleware] = []
        self.handlers: dict[str, _Registered] = {}
        self.any_handlers: list[_Registered] = []
        self._ack_id = 0

    # Registering.

    def on(self, event: str, *, concurrent: bool = False) -> Callable[[_AnyHandler], _AnyHandler]:
        """Decorates the handler of an event: a function, async or not, of the socket and the event's
        arguments.

        What it returns is the acknowledgement, where the client asked for one: a tuple is several values,
        ``None`` is none. Events of one socket are handled one after the other; ``concurrent`` ones beside the
        others.

        ``"connect"`` (or ``"connection"``): called with the socket, before any of its events.
        ``"disconnect"``: called with the socket and the reason, last. ``"disconnecting"``: just before, and
        with the names of the rooms that it was in, too.
        """

        def register(handler: _AnyHandler) -> _AnyHandler:
            name = _CONNECTION_EVENTS.get(event, event)
            self.handlers[name] = _Registered(handler, concurrent)
            return handler

        return register

    def on_any(self, handler: _AnyHandler) -> _AnyHandler:
        """Decorates a function of the socket, an event's name and arguments; it comes before the handler."""
        self.any_handlers.append(_Registered(handler, concurrent=False))
        return handler

    def use(self, middleware: Middleware) -> Middleware:
        """Decorates a function of a socket before it is connected; it raises `ConnectError` to refuse it."""
        self.middlewares.append(middleware)
        return middleware

    # Sending.

    def to(self, *rooms: str) -> Target:
        """Whoever is in one of these rooms."""
        return Target(self).to(*rooms)

    in_ = to

    def except_(self, *rooms: str) -> Target:
        """Everybody who is in none of these rooms."""
        return Target(self).except_(*rooms)

    @property
    def volatile(self) -> Target:
        """Everybody who keeps up."""
        return Target(self).volatile

    def timeout(self, seconds: float) -> Target:
        """Everybody, with a time for their acknowledgements."""
        return Target(self).timeout(seconds)

    def emit(self, event: str, *args: Any) -> None:
        """Sends an event to everybody."""
        Target(self).emit(event, *args)

    async def emit_with_ack(self, event: str, *args: Any) -> list[Any]:
        """Sends an event to everybody, and gives their acknowledgements."""
        return await Target(self).emit_with_ack(event, *args)

    def fetch_sockets(self) -> "list[Socket]":
        """All sockets."""
        return list(self.sockets.values())

    def disconnect_sockets(self, close: bool = False) -> None:
        """Disconnects everybody."""
        Target(self).disconnect_sockets(close)

    def next_ack_id(self) -> int:
        """An id for an event that is to be acknowledged."""
        self._ack_id += 1
        return self._ack_id

    def select(self, target: Target) -> "list[Socket]":
        """The sockets of a target."""
        if target.rooms:
            members = {member: None for name in target.rooms for member in self._in_room(name)}
        else:
            members = dict.fromkeys(self.sockets.values())
        for name in target.excluded:
            for member in self._in_room(name):
                members.pop(member, None)
        return list(members)

    def deliver(self, target: Target, packet: Packet) -> None:
        """Sends a packet to a target."""
        recovery = self.recovery
        # What may be dropped on the way to who is here is not kept for who is away.
        recorded = recovery is not None and packet.id is None and target.policy in (None, "disconnect")
        if recorded and recovery is not None:
            packet = replace(packet, data=[*packet.data, recovery.next_offset()])
        encoded = EncodedPacket(encode(packet))
        if recorded and recovery is not None:
            recovery.log(encoded, target.rooms, target.excluded, self.host.clock.time())
        if len(target.rooms) == 1 and not target.excluded:
            (name,) = target.rooms
            if name not in self.sockets:
                self.rooms[name].broadcast(encoded, policy=target.policy)
                return
        sockets = self.select(target)
        self.host.stats.messages_out += len(sockets)
        for socket in sockets:
            socket.post_prepared(encoded, target.policy)

    def _in_room(self, name: str) -> "Collection[Socket]":
        socket = self.sockets.get(name)
        if socket is not None:
            return (socket,)
        return self.rooms[name].members if name in self.rooms else ()  # type: ignore[return-value]


class Socket:
    """A client, in one namespace."""

    def __init__(self, namespace: Namespace, client: "Client", id_: str, handshake: Handshake) -> None:
        self.id = id_
        """What it is known by; as a room, it is that of this socket alone."""
        self.private_id = new_id()
        self.namespace = namespace
        self.handshake = handshake
        self.data: dict[str, Any] = {}
        """Whatever the application keeps with it."""
        self.recovered = False
        """Whether it is a client that came back as who it was."""
        self.connected = False
        self.closed: ConnectionClosed | None = None
        self.memberships: list[Room] = []
        self.post_prepared: SendPrepared = client.session.send_prepared
        """Sends an `EncodedPacket` without waiting: over a WebSocket, it is the WebSocket's own method."""
        self._client = client
        self._position = 0
        self._acks: dict[int, asyncio.Future[Any]] = {}
        self._events: deque[tuple[Callable[[], Awaitable[None]], int]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._join_rate: TokenBucket | None = None

    # As a member of rooms.

    @property
    def rooms(self) -> set[str]:
        """The names of the rooms that it is in, its own id among them."""
        return {self.id, *(room.name for room in self.memberships)}

    def may_join(self) -> bool:
        """Whether it may join one more room now; counts it."""
        limits = self.namespace.host.limits
        if len(self.memberships) >= limits.max_rooms:
            return False
        if limits.join_rate is None:
            return True
        now = self.namespace.host.clock.time()
        if self._join_rate is None:
            self._join_rate = TokenBucket(limits.join_rate, now)
        return self._join_rate.take(1, now)

    @property
    def dropped(self) -> int:
        """Messages that its client did not get over this connection, because it was too slow."""
        return self._client.session.dropped

    def join(self, *rooms: str) -> None:
        """Joins rooms. Raises `LimitExceededError` when it is in too many, or joins too fast."""
        for name in rooms:
            if name != self.id:
                self.namespace.rooms[name].join(self)

    def leave(self, *rooms: str) -> None:
        """Leaves rooms."""
        for name in rooms:
            self.namespace.rooms[name].leave(self)

    # Sending.

    def emit(self, event: str, *args: Any) -> None:
        """Sends an event to this client, without waiting; nothing happens when it is disconnected."""
        self._target().emit(event, *args)

    async def emit_with_ack(self, event: str, *args: Any) -> Any:
        """Sends an event, and gives its acknowledgement: the value, a tuple of several, or ``None``.

        Raises `DisconnectedError` when the client is gone before.
        """
        return await SocketTarget(self).emit_with_ack(event, *args)

    def timeout(self, seconds: float) -> "SocketTarget":
        """This client, with a time for its acknowledgement."""
        return SocketTarget(self, seconds)

    @property
    def volatile(self) -> Target:
        """This client, if it keeps up."""
        return self._target().volatile

    @property
    def broadcast(self) -> Target:
        """Everybody else."""
        return Target(self.namespace, excluded=frozenset((self.id,)))

    def to(self, *rooms: str) -> Target:
        """Everybody else in these rooms."""
        return self.broadcast.to(*rooms)

    in_ = to

    def except_(self, *rooms: str) -> Target:
        """Everybody else who is in none of these rooms."""
        return self.broadcast.except_(*rooms)

    def disconnect(self, close: bool = False) -> None:
        """Disconnects this socket; with ``close``, the client's whole session."""
        if close:
            self._client.disconnect()
        elif self.connected:
            self._client.send(Packet(PacketType.DISCONNECT, self.namespace.name))
            self.end("server namespace disconnect")

    async def drain(self) -> None:
        """Waits until all that was sent to this client has left."""
        await self._client.session.drain()

    def expect_ack(self, id_: int) -> "asyncio.Future[Any]":
        """What an acknowledgement will give."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.connected:
            self._acks[id_] = future
        else:
            future.set_exception(DisconnectedError("not connected"))
        return future

    def forget_ack(self, id_: int) -> None:
        """It is not waited for any more."""
        self._acks.pop(id_, None)

    def _target(self) -> Target:
        return Target(self.namespace, frozenset((self.id,)))

    # Receiving.

    def receive(self, packet: Packet, size: int) -> None:
        """Takes an event or an acknowledgement."""
        if packet.type is PacketType.ACK:
            future = self._acks.pop(packet.id, None) if packet.id is not None else None
            if future is not None and not future.done():
                values = packet.data
                future.set_result(values[0] if len(values) == 1 else tuple(values) if values else None)
            return
        self._schedule(packet.data[0], packet.data, packet.id, size + _EVENT_OVERHEAD)

    def _schedule(self, event: str, data: list[Any], id_: int | None, size: int) -> None:
        registered = self.namespace.handlers.get(event)

        async def handle() -> None:
            for any_handler, _ in self.namespace.any_handlers:
                await _run(any_handler, self, *data)
            if registered is not None:
                result = await _run(registered.handler, self, *data[1:])
                if id_ is not None:
                    self._acknowledge(id_, result)

        if registered is not None and registered.concurrent:
            self._client.session.hold(size)
            self.namespace.host.spawn(self._guard(handle, event, size))
        elif registered is not None or self.namespace.any_handlers:
            self._enqueue(handle, event, size)

    def _enqueue(self, handle: Callable[[], Awaitable[None]], event: str, size: int) -> None:
        self._client.session.hold(size)
        self._events.append((lambda: self._guard(handle, event, size), size))
        if self._worker is None:
            self._worker = self.namespace.host.spawn(self._work())

    async def _work(self) -> None:
        """Handles what has come, one after the other; there is a task only while there is work."""
        try:
            while self._events:
                handle, _ = self._events.popleft()
                await handle()
        finally:
            self._worker = None

    async def _guard(self, handle: Callable[[], Awaitable[None]], event: str, size: int) -> None:
        """What a handler raises is logged, and ends neither the server nor the order of events."""
        try:
            await handle()
        except LimitExceededError as error:
            log(logging.INFO, "a socket went beyond its limits", id=self.id, reason=str(error))
            self.disconnect(close=True)
        except Exception:  # noqa: BLE001 - whatever a handler raises
            log(logging.ERROR, "a handler failed", exception=True, id=self.id, handler=event)
            if event == "connect":
                self.disconnect()
        finally:
            self._client.session.release(size)

    def _acknowledge(self, id_: int, result: Any) -> None:
        if not self.connected:
            return
        values = list(result) if isinstance(result, tuple) else [] if result is None else [result]
        self._client.send(Packet(PacketType.ACK, self.namespace.name, values, id_))

    # Beginning and end.

    def start(self) -> None:
        """The client is let in."""
        namespace = self.namespace
        self.connected = True
        self._position = namespace.recovery.position if namespace.recovery else 0
        namespace.sockets[self.id] = self
        answer: dict[str, Any] = {"sid": self.id}
        if namespace.recovery is not None:
            namespace.by_private_id[self.private_id] = self
            answer["pid"] = self.private_id
        self._client.send(Packet(PacketType.CONNECT, namespace.name, answer))
        registered = namespace.handlers.get("connect")
        if registered is not None:
            handler = registered.handler
            self._enqueue(lambda: _run(handler, self), "connect", _EVENT_OVERHEAD)

    def restore(self, session: LostSession) -> None:
        """It is a client that came back."""
        self.recovered = True
        self.private_id = session.private_id
        self.data = session.data
        for name in session.rooms:
            self.namespace.rooms[name].join(self)

    def lose_session(self) -> None:
        """Its client has come back over another connection: this one is lost."""
        self._client.session.fail("transport close")

    def end(self, reason: str) -> None:
        """The socket is disconnected, whoever did it; once."""
        if not self.connected:
            return
        namespace = self.namespace
        self._tell("disconnecting", reason, self.rooms)
        self.connected = False
        self.closed = ConnectionClosed(1000, reason, clean=True)
        if namespace.recovery is not None:
            namespace.by_private_id.pop(self.private_id, None)
            if reason in RECOVERABLE:
                rooms = [room.name for room in self.memberships]
                lost = LostSession(self.id, self.private_id, rooms, self.data, self._position)
                namespace.recovery.keep(lost, namespace.host.clock.time())
        namespace.sockets.pop(self.id, None)
        self._client.forget(self)
        for room in list(self.memberships):
            room.leave(self)
        for future in self._acks.values():
            if not future.done():
                future.set_exception(DisconnectedError(reason))
                future.exception()  # it is retrieved: nobody has to wait for it
        self._acks.clear()
        self._tell("disconnect", reason, None)

    def _tell(self, event: str, reason: str, rooms: set[str] | None) -> None:
        registered = self.namespace.handlers.get(event)
        if registered is not None:
            handler = registered.handler
            arguments = (self, reason) if rooms is None else (self, reason, rooms)
            self._enqueue(lambda: _run(handler, *arguments), event, 0)

    def __repr__(self) -> str:
        return f"<Socket {self.id} {self.namespace.name}>"


@dataclass(frozen=True, slots=True)
class SocketTarget:
    """One client, with a time for its acknowledgement."""

    socket: Socket
    ack_timeout: float | None = None

    async def emit_with_ack(self, event: str, *args: Any) -> Any:
        """As `Socket.emit_with_ack`; raises `AckTimeoutError` after the time."""
        socket = self.socket
        id_ = socket.namespace.next_ack_id()
        future = socket.expect_ack(id_)
        packet = Packet(PacketType.EVENT, socket.namespace.name, [event, *args], id_)
        socket.namespace.deliver(Target(socket.namespace, frozenset((socket.id,))), packet)
        try:
            async with asyncio.timeout(self.ack_timeout):
                return await future
        except TimeoutError:
            raise AckTimeoutError([]) from None
        finally:
            socket.forget_ack(id_)


class Client:
    """A client's session, and its sockets, one for each namespace."""

    def __init__(
        self,
        session: Session,
        namespaces: Mapping[str, Namespace],
        make_handshake: Callable[[dict[str, Any]], Handshake],
        connect_timeout: float,
        clock: Clock,
    ) -> None:
        self.session = session
        self._namespaces = namespaces
        self._make_handshake = make_handshake
        self._decoder = Decoder()
        self._sockets: dict[str, Socket] = {}
        self._connecting: dict[str, asyncio.Task[None]] = {}
        self._size = 0
        self._timer = clock.call_later(connect_timeout, self._give_up)
        session.receiver = self

    def receive(self, message: str | bytes) -> None:
        """Takes a message of the session."""
        self._size += len(message)
        try:
            packet = self._decoder.receive(message)
            if packet is not None:
                size, self._size = self._size, 0
                self._receive_packet(packet, size)
        except PacketError as error:
            log(logging.INFO, "a client broke the protocol", address=self.session.address, reason=str(error))
            self.session.fail("parse error")

    def _receive_packet(self, packet: Packet, size: int) -> None:
        name = packet.namespace
        socket = self._sockets.get(name)
        match packet.type:
            case PacketType.CONNECT:
                self._connect(name, packet.data or {})
            case PacketType.EVENT | PacketType.ACK if socket is not None:
                socket.receive(packet, size)
            case PacketType.DISCONNECT if socket is not None:
                socket.end("client namespace disconnect")
            case PacketType.CONNECT_ERROR:
                raise PacketError("a CONNECT_ERROR from a client", slug="unexpected-packet")
            case _ if not self._sockets and not self._connecting:
                raise PacketError("a packet before CONNECT", slug="unexpected-packet")
            case _:
                pass  # for a namespace that was left just now

    def _connect(self, name: str, auth: dict[str, Any]) -> None:
        if name in self._sockets or name in self._connecting:
            raise PacketError("a second CONNECT", slug="unexpected-packet")
        if len(self._sockets) + len(self._connecting) >= MAX_NAMESPACES:
            raise PacketError("too many namespaces", slug="too-many-namespaces")
        namespace = self._namespaces.get(name)
        if namespace is None:
            self.send(Packet(PacketType.CONNECT_ERROR, name, {"message": "Invalid namespace"}))
            return
        self._timer.cancel()
        handshake = self._make_handshake(auth)
        if self._recover(namespace, auth, handshake):
            return
        socket = Socket(namespace, self, new_id(), handshake)
        if not namespace.middlewares:
            self._let_in(socket)
            return
        self._connecting[name] = namespace.host.spawn(self._ask_middlewares(socket))

    def _recover(self, namespace: Namespace, auth: dict[str, Any], handshake: Handshake) -> bool:
        """Lets in a client that comes back as who it was, with what it missed; False when it cannot be."""
        recovery, private_id = namespace.recovery, auth.get("pid")
        if recovery is None or not isinstance(private_id, str):
            return False
        ghost = namespace.by_private_id.get(private_id)
        if ghost is not None:
            # We have not noticed yet that its connection is lost.
            ghost.lose_session()
        recovered = recovery.restore(private_id, auth.get("offset"), namespace.host.clock.time())
        if recovered is None:
            return False
        socket = Socket(namespace, self, recovered.session.id, handshake)
        socket.restore(recovered.session)
        for message in recovered.missed:
            self.session.send_prepared(message, "disconnect")
        self._let_in(socket)
        return True

    async def _ask_middlewares(self, socket: Socket) -> None:
        name = socket.namespace.name
        try:
            for middleware in socket.namespace.middlewares:
                await _run(middleware, socket)
        except Exception as error:  # noqa: BLE001 - whatever a middleware raises refuses the client
            answer: dict[str, Any] = {"message": "internal error"}
            if isinstance(error, ConnectError):
                answer = {"message": str(error)}
                if error.data is not None:
                    answer["data"] = error.data
            else:
                log(logging.ERROR, "a middleware failed", exception=True, address=self.session.address)
            self.send(Packet(PacketType.CONNECT_ERROR, name, answer))
        else:
            self._let_in(socket)
        finally:
            self._connecting.pop(name, None)

    def _let_in(self, socket: Socket) -> None:
        socket.post_prepared = self.session.send_prepared  # it may have changed while a middleware decided
        self._sockets[socket.namespace.name] = socket
        socket.start()

    def send(self, packet: Packet) -> None:
        """Sends a packet to the client."""
        self.session.send_prepared(EncodedPacket(encode(packet)), "disconnect")

    def redirect(self, send_prepared: SendPrepared) -> None:
        """What sends has changed, with the transport."""
        for socket in self._sockets.values():
            socket.post_prepared = send_prepared

    def forget(self, socket: Socket) -> None:
        """The socket is disconnected."""
        self._sockets.pop(socket.namespace.name, None)

    def disconnect(self) -> None:
        """Disconnects all sockets and closes the session."""
        for socket in list(self._sockets.values()):
            socket.disconnect()
        self.session.close()

    def session_closed(self, reason: str) -> None:
        """The session is over."""
        self._timer.cancel()
        for task in self._connecting.values():
            task.cancel()
        for socket in list(self._sockets.values()):
            socket.end("forced server close" if reason == "forced close" else reason)

    def _give_up(self) -> None:
        if not self._sockets and not self._connecting:
            log(logging.INFO, "no CONNECT in time", address=self.session.address)
            self.session.close()
