"""Sockets, as an application uses them: a client in one namespace.

Implements: https://socket.io/docs/v4/server-api, as Python writes it.
Left to others: the order of handlers (`handlers`), rooms (`rfc6455_server.rooms`), how a client is connected
(`clients`).

A `Socket` is a member of rooms like any WebSocket, so that policies, limits and counters are the same.
"""

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from rfc6455 import ConnectionClosed, Headers, PreparedMessage, WebSocketError
from rfc6455_server.clock import Clock
from rfc6455_server.limits import LimitExceededError, Limits
from rfc6455_server.logs import log
from rfc6455_server.policies import Policy
from rfc6455_server.rooms import RoomMember, Rooms
from rfc6455_server.socketio.catchup import Turns
from rfc6455_server.socketio.handlers import (
    EVENT_OVERHEAD,
    Call,
    HandlerQueue,
    RegisteredHandler,
    call_handler,
)
from rfc6455_server.socketio.packets import Packet, PacketType
from rfc6455_server.socketio.recovery import LostSocket, Missed, Recovered
from rfc6455_server.socketio.session import Session, new_id
from rfc6455_server.socketio.targets import AckTimeoutError, TargetNamespace, TargetOf
from rfc6455_server.stats import Stats


class DisconnectedError(WebSocketError):
    """The socket was disconnected before the acknowledgement arrived; ``reason`` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"disconnected: {reason}", slug="disconnected")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Handshake:
    """The request that opened the client's session, and what the client sent to connect."""

    headers: Headers
    query: Mapping[str, str]
    auth: dict[str, Any]
    address: str
    url: str
    secure: bool
    time: float
    """Seconds of the server's clock."""


class Target(TargetOf["Socket"]):
    """The sockets that something is sent to, and how: ``io.to("a").except_("b").volatile.emit(…)``.

    Each method but `emit` and its like returns a new target.
    """

    __slots__ = ()


class Broadcaster(Protocol):
    """What a namespace, and a `SocketIO` for its namespace ``"/"``, can send to."""

    def everybody(self) -> Target:
        """Returns the target of all sockets."""

    def to(self, *rooms: str) -> Target:
        """Returns the target of the members of these rooms; a socket's id is a room with that socket only."""
        return self.everybody().to(*rooms)

    def in_(self, *rooms: str) -> Target:
        """Does the same as `to`."""
        return self.to(*rooms)

    def except_(self, *rooms: str) -> Target:
        """Returns the target of all sockets that are in none of these rooms."""
        return self.everybody().except_(*rooms)

    @property
    def volatile(self) -> Target:
        """All sockets, except those whose clients are behind."""
        return self.everybody().volatile

    def timeout(self, seconds: float) -> Target:
        """Returns the target of all sockets, with a time for their acknowledgements."""
        return self.everybody().timeout(seconds)

    def emit(self, event: str, *args: Any) -> None:
        """Sends an event to all sockets, without waiting (`Target.emit`)."""
        self.everybody().emit(event, *args)

    async def emit_with_ack(self, event: str, *args: Any) -> list[Any]:
        """Sends an event to all sockets, and returns their acknowledgements (`Target.emit_with_ack`)."""
        return await self.everybody().emit_with_ack(event, *args)

    def fetch_sockets(self) -> "list[Socket]":
        """Returns all sockets."""
        return self.everybody().fetch_sockets()

    def disconnect_sockets(self, close: bool = False) -> None:
        """Disconnects all sockets; with ``close``, also their clients' sessions."""
        self.everybody().disconnect_sockets(close)


class SocketServer(Protocol):
    """What namespaces and sockets need of their `SocketIO`."""

    limits: Limits
    stats: Stats
    turns: Turns
    """The turns that recovered clients take."""

    @property
    def clock(self) -> Clock:
        """The server's clock."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Runs ``work`` in a task that the server waits for when it stops."""


class SocketNamespace(Broadcaster, TargetNamespace["Socket"], Protocol):
    """What a socket needs of its `Namespace`."""

    server: SocketServer
    rooms: Rooms
    handlers: dict[str, RegisteredHandler]
    any_handlers: list[RegisteredHandler]

    @property
    def position(self) -> int:
        """The offset of the last event that `recovery` keeps; 0 without recovery."""

    def missed(self, seen: int, inside: AbstractSet[str]) -> Missed:
        """Returns what a recovered socket missed that was in the rooms ``inside``."""

    def add(self, socket: "Socket") -> bool:
        """Adds a socket that is connected; returns whether it can be recovered later."""

    def remove(self, socket: "Socket", reason: str) -> None:
        """Removes a socket that was disconnected, and keeps what may be recovered."""


class SocketClient(Protocol):
    """What a socket needs of its `Client`."""

    session: Session

    def send(self, packet: Packet) -> None:
        """Sends a packet."""

    def remove(self, socket: "Socket") -> None:
        """Removes a socket that was disconnected."""

    def disconnect(self) -> None:
        """Disconnects all sockets, and closes the session."""


class Socket(RoomMember):
    """A client in one namespace."""

    def __init__(
        self, namespace: SocketNamespace, client: SocketClient, id_: str, handshake: Handshake
    ) -> None:
        super().__init__()
        self.id = id_
        """A random name, which others may know; it is also a room with this socket only."""
        self.private_id = new_id()
        """The secret with which a client proves that it is the one whose connection was lost."""
        self.namespace = namespace
        self.handshake = handshake
        self.data: dict[str, Any] = {}
        """For the application."""
        self.recovered = False
        """Whether the client came back after a lost connection, with its id, rooms and data."""
        self.connected = False
        self.closed: ConnectionClosed | None = None
        """How the socket was disconnected; ``None`` before that."""
        self.position = 0
        """The offset of the last event that the client is known to have seen (`recovery`)."""
        self.lost: LostSocket | None = None
        """What the socket had when its connection was lost, until it is connected again."""
        self._client = client
        self._session = client.session
        self._acks: dict[int, asyncio.Future[Any]] = {}
        self._queue = HandlerQueue(client.session, namespace.server.spawn)

    # As a member of rooms.

    @property
    def rooms(self) -> set[str]:
        """The names of the rooms that the socket is in, with its own id."""
        return {self.id, *(room.name for room in self.memberships)}

    def joining_limits(self) -> tuple[Limits, float]:
        server = self.namespace.server
        return server.limits, server.clock.time()

    def join(self, *rooms: str) -> None:
        """Joins rooms. Raises `LimitExceededError` if the socket is in too many rooms or joins too fast."""
        for name in rooms:
            if name != self.id:
                self.namespace.rooms[name].join(self)

    def leave(self, *rooms: str) -> None:
        """Leaves rooms; does nothing for those that the socket is not in."""
        for name in rooms:
            self.namespace.rooms[name].leave(self)

    # Sending.

    def emit(self, event: str, *args: Any) -> None:
        """Sends an event to this client without waiting; does nothing if the socket is disconnected."""
        self._target().emit(event, *args)

    async def emit_with_ack(self, event: str, *args: Any) -> Any:
        """Sends an event, and returns its acknowledgement: the value, a tuple of several, or ``None``.

        Raises `DisconnectedError` if the socket is disconnected first.
        """
        return await SocketTarget(self).emit_with_ack(event, *args)

    def timeout(self, seconds: float) -> "SocketTarget":
        """Returns the target of this client, with a time for its acknowledgement."""
        return SocketTarget(self, seconds)

    @property
    def volatile(self) -> Target:
        """This client, unless it is behind."""
        return self._target().volatile

    @property
    def broadcast(self) -> Target:
        """All sockets of the namespace except this one."""
        return self.namespace.except_(self.id)

    def to(self, *rooms: str) -> Target:
        """Returns the target of the members of these rooms except this socket."""
        return self.broadcast.to(*rooms)

    in_ = to

    def except_(self, *rooms: str) -> Target:
        """Returns the target of all other sockets that are in none of these rooms."""
        return self.broadcast.except_(*rooms)

    def disconnect(self, close: bool = False) -> None:
        """Disconnects this socket; with ``close``, all of the client's sockets, and closes its session."""
        if close:
            self._client.disconnect()
        elif self.connected:
            self._client.send(Packet(PacketType.DISCONNECT, self.namespace.name))
            self.end("server namespace disconnect")

    async def drain(self) -> None:
        """Waits until all that was sent to this client has left our queue, or its session has ended."""
        await self._session.drain()

    @property
    def dropped(self) -> int:
        """Messages that the slow-consumer policy dropped on the client's WebSocket."""
        return self._session.dropped

    def post_prepared(self, message: PreparedMessage, policy: Policy | None) -> None:
        """Queues an `EncodedPacket` without waiting. ``policy`` applies if the client is behind."""
        # `Session.post_prepared`, inlined: saves 30 ns of 1.4 µs per delivery of a broadcast, 2 % in
        # `benchmarks.events` (1000 members, 8 in flight).
        websocket = self._session.direct
        if websocket is not None:
            websocket.post_prepared(message, policy)
        else:
            self._session.post_indirectly(message, policy)

    def expect_ack(self, id_: int) -> "asyncio.Future[Any]":
        """Returns a future that the acknowledgement with this id resolves."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.connected:
            self._acks[id_] = future
            self._session.reconsider()  # the answer may stand behind what is not read yet
        else:
            future.set_exception(DisconnectedError("not connected"))
        return future

    @property
    def awaits_ack(self) -> bool:
        """Whether an acknowledgement of this client is awaited."""
        return bool(self._acks)

    def forget_ack(self, id_: int) -> None:
        """Ignores the acknowledgement with this id."""
        self._acks.pop(id_, None)

    def _target(self) -> Target:
        return self.namespace.to(self.id)

    # Receiving.

    def receive(self, packet: Packet, size: int) -> None:
        """Handles an EVENT or an ACK, which arrived in ``size`` bytes."""
        if packet.type is PacketType.ACK:
            future = self._acks.pop(packet.id, None) if packet.id is not None else None
            if future is not None and not future.done():
                values = packet.data
                future.set_result(values[0] if len(values) == 1 else tuple(values) if values else None)
            return
        event = packet.data[0]
        registered = self.namespace.handlers.get(event)

        async def call_handlers() -> None:
            for any_handler, _ in self.namespace.any_handlers:
                await call_handler(any_handler, self, *packet.data)
            if registered is not None:
                result = await call_handler(registered.handler, self, *packet.data[1:])
                if packet.id is not None:
                    self._acknowledge(packet.id, result)

        if registered is not None and registered.concurrent:
            self._queue.start(lambda: self._guard(event, call_handlers), size + EVENT_OVERHEAD)
        elif registered is not None or self.namespace.any_handlers:
            self._queue.append(lambda: self._guard(event, call_handlers), size + EVENT_OVERHEAD)

    def _acknowledge(self, id_: int, result: Any) -> None:
        if not self.connected:
            return
        values = list(result) if isinstance(result, tuple) else [] if result is None else [result]
        self._client.send(Packet(PacketType.ACK, self.namespace.name, values, id_))

    async def _guard(self, event: str, call: Call) -> None:
        """Runs a handler. An exception is logged, and stops neither the server nor the next handler."""
        try:
            await call()
        except LimitExceededError as error:
            log(logging.INFO, "socket exceeded a limit", id=self.id, reason=str(error))
            self.disconnect(close=True)
        except Exception:  # noqa: BLE001 - whatever a handler raises
            log(logging.ERROR, "handler failed", exception=True, id=self.id, handler=event)
            if event == "connect":
                self.disconnect()

    def _call_connection_handler(self, event: str, size: int, *arguments: object) -> None:
        registered = self.namespace.handlers.get(event)
        if registered is not None:
            handler = registered.handler
            call = partial(call_handler, handler, self, *arguments)
            self._queue.append(lambda: self._guard(event, call), size)

    # Beginning and end.

    def start(self) -> None:
        """Connects the socket, and answers the client's CONNECT."""
        self.connected = True
        if self.lost is None:
            self.position = self.namespace.position
        answer = {"sid": self.id}
        if self.namespace.add(self):
            answer["pid"] = self.private_id
        self._client.send(Packet(PacketType.CONNECT, self.namespace.name, answer))
        self._call_connection_handler("connect", EVENT_OVERHEAD)

    def restore(self, recovered: Recovered) -> None:
        """Takes over what a socket of the same client had when its connection was lost."""
        self.recovered = True
        self.lost = lost = recovered.session
        self.private_id = lost.private_id
        self.data = lost.data
        # Not the newest offset: the client may lose this connection too before it has seen anything.
        self.position = recovered.seen

    def rejoin(self, lost: LostSocket) -> None:
        """Joins the rooms that the socket was in. No limit applies: it joined them before."""
        self.lost = None
        for name, shown in lost.rooms.items():
            self.namespace.rooms[name].rejoin(self, shown)

    def fail_session(self) -> None:
        """Ends the session, whose connection must be lost: the client has come back over another one."""
        self._session.fail("transport close")

    def end(self, reason: str) -> None:
        """Disconnects the socket on our side; does nothing if it is disconnected already."""
        if not self.connected:
            return
        self._call_connection_handler("disconnecting", 0, reason, self.rooms)
        self.connected = False
        self.closed = ConnectionClosed(1000, reason, clean=True)
        self.namespace.remove(self, reason)
        self._client.remove(self)
        for room in list(self.memberships):
            room.leave(self)
        for future in self._acks.values():
            if not future.done():
                future.set_exception(DisconnectedError(reason))
                future.exception()  # marks it as retrieved: nobody has to await it
        self._acks.clear()
        self._call_connection_handler("disconnect", 0, reason)

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
        namespace = socket.namespace
        id_ = namespace.next_ack_id()
        future = socket.expect_ack(id_)
        packet = Packet(PacketType.EVENT, namespace.name, [event, *args], id_)
        namespace.deliver(namespace.to(socket.id), packet)
        try:
            async with asyncio.timeout(self.ack_timeout):
                return await future
        except TimeoutError:
            raise AckTimeoutError([]) from None
        finally:
            socket.forget_ack(id_)
