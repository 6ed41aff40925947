"""Sockets, as an application uses them: a client in one namespace.

Implements: https://socket.io/docs/v4/server-api, as Python writes it.
Left to others: the order of handlers (`handlers`), rooms (`rfc6455_server.rooms`), how a client is connected
(`clients`).

A `Socket` is a member of rooms like any WebSocket, so that policies, limits and counters are the same.
"""

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from rfc6455 import ConnectionClosed, PreparedMessage, Request, WebSocketError
from rfc6455_server.clock import wait_for_all
from rfc6455_server.limits import Limits, check_seconds
from rfc6455_server.logs import log
from rfc6455_server.policies import Policy
from rfc6455_server.rooms import RoomMember, Rooms
from rfc6455_server.socketio.engine import Transport
from rfc6455_server.socketio.handshake import Handshake
from rfc6455_server.socketio.history import RoomHistory
from rfc6455_server.socketio.ids import new_id
from rfc6455_server.socketio.packets import Packet, PacketType
from rfc6455_server.socketio.receiving import EventReceiver, HandlingNamespace
from rfc6455_server.socketio.recovery import LostSocket, Missed, Recovered
from rfc6455_server.socketio.registering import ConnectError, EventHandler, Registering
from rfc6455_server.socketio.session import Session
from rfc6455_server.socketio.targets import AckTimeoutError, SocketServer, TargetNamespace, TargetOf

_AnyHandler = TypeVar("_AnyHandler", bound=EventHandler)

ACK_COST: Final = 1536
"""Bytes counted for each acknowledgement that is awaited, for what waits: the client may never send it."""

LEFT_BY_CLIENT: Final = "client namespace disconnect"
"""The reason of a socket that the client disconnected, in an orderly way."""


class DisconnectedError(WebSocketError):
    """The socket was disconnected before the acknowledgement arrived; ``reason`` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"disconnected: {reason}", slug="disconnected")
        self.reason = reason


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

    def with_policy(self, policy: Policy) -> Target:
        """Returns the target of all sockets, with what happens for clients that are behind; raises
        `ValueError` for a bad policy."""
        return self.everybody().with_policy(policy)

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

    def sockets_join(self, *rooms: str) -> None:
        """Makes all sockets join these rooms."""
        self.everybody().sockets_join(*rooms)

    def sockets_leave(self, *rooms: str) -> None:
        """Makes all sockets leave these rooms."""
        self.everybody().sockets_leave(*rooms)


class SocketNamespace(Registering, Broadcaster, TargetNamespace["Socket"], HandlingNamespace):
    """What a socket needs of its `Namespace`."""

    server: SocketServer
    rooms: Rooms
    parameters: Mapping[str, str]
    """What the template or pattern of a dynamic namespace found in the name."""

    @property
    @abstractmethod
    def position(self) -> int:
        """The offset of the last event that `recovery` keeps; 0 without recovery."""

    @abstractmethod
    def missed(self, seen: int, history: RoomHistory) -> Missed:
        """Returns what a recovered socket with these rooms missed."""

    @abstractmethod
    def keep_lost(self, lost: LostSocket, reason: str) -> None:
        """Keeps what may be recovered later, if the reason allows that."""

    @abstractmethod
    def add(self, socket: "Socket") -> bool:
        """Adds a socket that is connected; returns whether it can be recovered later."""

    @abstractmethod
    def remove(self, socket: "Socket", reason: str) -> None:
        """Removes a socket that was disconnected, and keeps what may be recovered."""

    @abstractmethod
    def watch(self, socket: "Socket") -> None:
        """Reports what is sent to a socket that has functions for outgoing events of its own."""


class SocketClient(Protocol):
    """What a socket needs of its `Client`."""

    session: Session

    def send(self, packet: Packet) -> None:
        """Sends a packet."""

    def remove(self, socket: "Socket") -> None:
        """Removes a socket that was disconnected."""

    def disconnect(self) -> None:
        """Disconnects all sockets, and closes the session."""


class _Unconfirmed:
    """Stands in for the session until the client's CONNECT is answered: the answer is sent first.

    Before the socket is connected, nothing is sent: a middleware may have joined rooms.
    """

    __slots__ = ("_socket",)

    direct: Final = None

    def __init__(self, socket: "Socket") -> None:
        self._socket = socket

    def post_indirectly(self, message: PreparedMessage, policy: Policy | None) -> None:
        if self._socket.connected:
            self._socket.confirm()
            self._socket.post_prepared(message, policy)


class Socket(RoomMember, EventReceiver):
    """A client in one namespace."""

    def __init__(
        self, namespace: SocketNamespace, client: SocketClient, id_: str, handshake: Handshake
    ) -> None:
        RoomMember.__init__(self)
        EventReceiver.__init__(self, client.session, namespace.server.run_handlers, namespace)
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
        """The offset of the last event before the socket was first connected (`recovery`)."""
        self.history: RoomHistory | None = None
        """When it was in which rooms; kept with recovery only, and from the first room on."""
        self.seen = 0
        """The offset of the last event that the client had seen when it came back."""
        self.lost: LostSocket | None = None
        """What the socket had when its connection was lost, until it is connected again."""
        self._client = client
        self._session: Session | _Unconfirmed = _Unconfirmed(self)
        self._recoverable = False
        self._last_rooms: set[str] | None = None

    @property
    def request(self) -> Request:
        """The request with which the client came: of its WebSocket, or the POST that carried its CONNECT."""
        return self.handshake.request

    @property
    def user(self) -> Any:
        """What the server's ``authorize`` returned for the request that opened the session."""
        return self.handshake.user

    @property
    def transport(self) -> Transport:
        """The transport of the client now: ``"polling"`` or ``"websocket"``."""
        return self._client.session.engine.transport

    # As a member of rooms.

    @property
    def rooms(self) -> set[str]:
        """The names of the rooms that the socket is in, with its own id; after its end, that it was in."""
        if self._last_rooms is not None:
            return self._last_rooms
        return {self.id, *(room.name for room in self.memberships)}

    def joining_limits(self) -> tuple[Limits, int, float]:
        server = self.namespace.server
        return server.limits, server.stats.memberships, server.clock.time()

    def join(self, *rooms: str) -> None:
        """Joins rooms. Raises `LimitExceededError` if the socket is in too many rooms or joins too fast, or a
        name is too long."""
        for name in rooms:
            if name != self.id:
                self.namespace.rooms[name].join(self)

    def leave(self, *rooms: str) -> None:
        """Leaves rooms; does nothing for those that the socket is not in."""
        for name in rooms:
            self.namespace.rooms[name].leave(self)

    # Sending.

    def emit(self, event: str, *args: Any) -> None:
        """Sends an event to this client without waiting.

        Does nothing if the socket is disconnected, or, in a middleware, not connected yet, which is logged.
        """
        if not self.connected and self.closed is None:
            log(logging.WARNING, "not sent: the client is not connected yet", id=self.id, handler=event)
        self._target().emit(event, *args)

    async def emit_with_ack(self, event: str, *args: Any) -> Any:
        """Sends an event, and returns its acknowledgement: the value, a tuple of several, or ``None``.

        Raises `DisconnectedError` if the socket is disconnected first.
        """
        return await SocketTarget(self).emit_with_ack(event, *args)

    def timeout(self, seconds: float) -> "SocketTarget":
        """Returns the target of this client, with a time for its acknowledgement; raises as
        `Target.timeout`."""
        check_seconds("the time", seconds)
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
            self._send(Packet(PacketType.DISCONNECT, self.namespace.name))
            self.end("server namespace disconnect")

    async def drain(self) -> None:
        """Waits until all that was sent to this client has left our queue, or its session has ended."""
        await self._client.session.drain()

    @property
    def dropped(self) -> int:
        """Messages that the slow-consumer policy dropped on the client's WebSocket."""
        return self._client.session.dropped

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
            self._client.session.keep(ACK_COST)
            self._client.session.reconsider()  # the answer may stand behind what is not read yet
        else:
            future.set_exception(DisconnectedError("not connected"))
        return future

    @property
    def awaits_ack(self) -> bool:
        """Whether an acknowledgement of this client is awaited."""
        return bool(self._acks)

    def forget_ack(self, id_: int) -> None:
        """Ignores the acknowledgement with this id."""
        self._take_ack(id_)

    def _take_ack(self, id_: int) -> "asyncio.Future[Any] | None":
        future = self._acks.pop(id_, None)
        if future is not None:
            self._client.session.keep(-ACK_COST)
        return future

    def _registrar(
        self, event: str, *, concurrent: bool, ack: bool, once: bool
    ) -> Callable[[_AnyHandler], _AnyHandler]:
        if event in ("connect", "connection"):
            raise ValueError("a socket is connected before it can register a handler for that")
        return super()._registrar(event, concurrent=concurrent, ack=ack, once=once)

    def on_any_outgoing(self, handler: _AnyHandler) -> _AnyHandler:
        registered = super().on_any_outgoing(handler)
        if self.closed is None:
            self.namespace.watch(self)
        return registered

    def _target(self) -> Target:
        return self.namespace.to(self.id)

    def _acknowledge(self, id_: int, values: Sequence[Any]) -> bool:
        if not self.connected:
            return False
        self._send(Packet(PacketType.ACK, self.namespace.name, list(values), id_))
        return True

    def _send(self, packet: Packet) -> None:
        self.confirm()
        self._client.send(packet)

    # Beginning and end.

    def start(self) -> None:
        """Connects the socket. The client's CONNECT is answered when the handlers of ``connect`` have ended,
        or with the first packet that is sent."""
        self.connected = True
        if self.lost is None:
            self.position = self.namespace.position
        self._recoverable = self.namespace.add(self)
        if self.recovered:
            self.confirm()
        self._open(self.confirm)

    def confirm(self) -> None:
        """Answers the client's CONNECT; does nothing if it is answered."""
        if not self.connected or isinstance(self._session, Session):
            return
        self._session = self._client.session
        self.namespace.server.stats.socket_connects["accepted"] += 1
        answer = {"sid": self.id}
        if self._recoverable:
            answer["pid"] = self.private_id
        self._client.send(Packet(PacketType.CONNECT, self.namespace.name, answer))

    def _refuse(self, error: ConnectError) -> None:
        if isinstance(self._session, Session):
            self.disconnect()
        elif self.connected:
            self.namespace.server.stats.socket_connects["refused"] += 1
            self._client.send(Packet(PacketType.CONNECT_ERROR, self.namespace.name, error.answer))
            self.end("server namespace disconnect")

    def abandon(self, reason: str) -> None:
        """Ends a socket that was never connected: it leaves the rooms that a middleware joined, for good."""
        self.closed = ConnectionClosed(1000, reason, clean=True)
        self._session = self._client.session
        self._leave_all()
        if self.lost is not None:
            self.namespace.keep_lost(self.lost, reason)

    def restore(self, recovered: Recovered) -> None:
        """Takes over what a socket of the same client had when its connection was lost."""
        self.recovered = True
        self.lost = lost = recovered.session
        self.private_id = lost.private_id
        self.data = lost.data
        # Not the newest offset: the client may lose this connection too before it has seen anything.
        self.position = lost.position
        self.seen = recovered.seen

    def rejoin(self, lost: LostSocket) -> None:
        """Joins the rooms that the socket was in. No limit applies: it joined them before."""
        self.lost = None
        own, self.history = self.history, lost.history
        for name in own.present if own is not None else ():  # those that a middleware joined
            lost.history.join(name, self.namespace.position)
        for name, shown in lost.rooms.items():
            self.namespace.rooms[name].rejoin(self, shown)

    def fail_session(self) -> None:
        """Ends the session, whose connection must be lost: the client has come back over another one."""
        self._client.session.fail("transport close")

    def end(self, reason: str) -> None:
        """Disconnects the socket on our side; does nothing if it is disconnected already."""
        if not self.connected:
            return
        rooms = self._last_rooms = self.rooms
        self.connected = False
        self.closed = ConnectionClosed(1000, reason, clean=True)
        self._session = self._client.session
        self.namespace.remove(self, reason)
        self._client.remove(self)
        self._leave_all()
        for future in self._acks.values():
            if not future.done():
                future.set_exception(DisconnectedError(reason))
                future.exception()  # marks it as retrieved: nobody has to await it
        self._client.session.keep(-ACK_COST * len(self._acks))
        self._acks.clear()
        self._finish(reason, rooms, handles_waiting=reason == LEFT_BY_CLIENT)

    def _leave_all(self) -> None:
        for room in list(self.memberships):
            room.leave(self)

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
        try:
            namespace.deliver(namespace.to(socket.id), packet)
            if self.ack_timeout is not None:
                late = await wait_for_all([future], self.ack_timeout, namespace.clock)
                if late:
                    raise AckTimeoutError([])
            return await future
        finally:
            socket.forget_ack(id_)
            del future  # its exception refers to this call, and would keep both alive
