"""Namespaces: the handlers, the rooms and the sockets of one, and how an event reaches its target.

Implements: https://socket.io/docs/v4/server-api, as Python writes it.
Left to others: how a client is connected to a namespace (`clients`), one socket (`sockets`).
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from rfc6455 import LocalProtocolError, PreparedMessage
from rfc6455_server.clock import Clock, Timer
from rfc6455_server.limits import counted_address
from rfc6455_server.policies import Coalesce, Policy
from rfc6455_server.rooms import Member, Room, Rooms, name_size
from rfc6455_server.socketio.cluster import Cluster, ServerSide
from rfc6455_server.socketio.documents import Declarations, Declaring
from rfc6455_server.socketio.encoded import EncodedPacket
from rfc6455_server.socketio.history import RoomHistory
from rfc6455_server.socketio.packets import Packet, PacketOptions, encode
from rfc6455_server.socketio.reasons import RECOVERABLE
from rfc6455_server.socketio.recovery import LostSocket, LostTotals, Missed, Recovery
from rfc6455_server.socketio.registering import Handlers
from rfc6455_server.socketio.sockets import Socket, SocketNamespace, Target
from rfc6455_server.socketio.targets import SocketServer, TargetOf

_NO_ROOMS: Final[frozenset[str]] = frozenset()  # one object for all events

Middleware = Callable[[Socket], Any]
"""A function that is called with a socket before it is connected; it may raise `ConnectError`."""


class NamespaceServer(SocketServer, Protocol):
    """What a namespace needs of its `SocketIO`."""

    recovery_seconds: float | None
    recovery_bytes: int
    recovery_skips_middlewares: bool
    packet_options: PacketOptions
    cluster: Cluster | None


def _require_packet(message: str | bytes | PreparedMessage) -> EncodedPacket:
    """Prepares what `Room.broadcast` is given: a Socket.IO client understands packets only."""
    if not isinstance(message, EncodedPacket):
        raise LocalProtocolError(
            "Socket.IO clients cannot read raw messages; use io.to(name).emit(event, ...)",
            slug="raw-message",
        )
    return message


def _make_recovery(server: NamespaceServer, parent: "Namespace | None") -> Recovery | None:
    if server.recovery_seconds is None:
        return None
    shared = None if parent is None else parent.recovery
    totals = LostTotals() if shared is None else shared.totals
    return Recovery(server.recovery_seconds, server.recovery_bytes, totals=totals)


class Namespace(Declaring, SocketNamespace, ServerSide):
    """A separate channel in each client's session, with its own handlers, rooms and sockets."""

    server: NamespaceServer

    def __init__(
        self,
        name: str,
        server: NamespaceServer,
        *,
        parent: "Namespace | None" = None,
        parameters: Mapping[str, str] | None = None,
        unused: Callable[["Namespace"], None] | None = None,
        idle: Callable[["Namespace"], None] | None = None,
    ) -> None:
        self.name = name
        self.server = server
        self.parent = parent
        """The dynamic namespace that this is a child of, or ``None``."""
        self.parameters = parameters or {}
        self.address: str | None = name
        """Where clients find it: its name, or the template of a dynamic one; ``None`` if only a pattern or a
        function knows."""
        self.rooms = Rooms(server.stats, prepare=_require_packet)
        """The rooms. ``rooms.policies`` apply to events; `Room.broadcast` raises for raw messages."""
        self.sockets: dict[str, Socket] = {}
        """The connected sockets, by id."""
        self.by_private_id: dict[str, Socket] = {}
        """The connected sockets that can be recovered later."""
        self.recovery = _make_recovery(server, parent)
        if self.recovery is not None:
            self.rooms.on_join(self._note_join)
            self.rooms.on_leave(self._note_leave)
        self.middlewares: list[Middleware] = []
        self.handlers = Handlers()
        self.declarations: Declarations = {}
        inherited: Sequence[Handlers] = () if parent is None else parent.handler_groups
        self.handler_groups: Sequence[Handlers] = (*inherited, self.handlers)
        self.server_side_handlers = Handlers()
        self.watchers: set[Socket] = set()
        self._endings: dict[str, asyncio.Task[None]] = {}
        self._last_ack_id = 0
        self._unused = unused
        self._idle = idle
        self._holds = 0
        self._unused_timer: Timer | None = None

    # Registering.

    def _own_handlers(self) -> Handlers:
        return self.handlers

    def _own_declarations(self) -> Declarations:
        return self.declarations

    def use(self, middleware: Middleware) -> Middleware:
        """Registers a function of a socket that is not yet connected; it raises `ConnectError` to refuse it.

        Any other exception is logged and refuses the client too.
        """
        self.middlewares.append(middleware)
        return middleware

    @property
    def all_middlewares(self) -> list[Middleware]:
        """The middlewares of its parent, and its own."""
        return self.middlewares if self.parent is None else [*self.parent.all_middlewares, *self.middlewares]

    def _server_side(self) -> tuple[str, Cluster | None]:
        return self.name, self.server.cluster

    # Sending.

    def everybody(self) -> Target:
        return Target(self)

    def next_ack_id(self) -> int:
        if self.parent is not None:
            return self.parent.next_ack_id()  # which asks all its children with one id
        self._last_ack_id += 1
        return self._last_ack_id

    def select(self, target: TargetOf[Socket]) -> list[Socket]:
        if target.rooms is not None:
            members = {member: None for name in target.rooms for member in self._room_members(name)}
        else:
            members = dict.fromkeys(self.sockets.values())
        for name in target.excluded:
            for member in self._room_members(name):
                members.pop(member, None)
        return list(members)

    def deliver(self, target: TargetOf[Socket], packet: Packet) -> None:
        if self.watchers or self.handlers.outgoing or (self.parent and self.parent.handlers.outgoing):
            self._tell_outgoing(target, packet)
        recovery = self.recovery
        if recovery is not None and (target.rooms or target.excluded):
            target = self._without_impossible(target)
        # Recovery keeps only events that no policy may drop.
        to_nobody = target.rooms is not None and not target.rooms
        if recovery is not None and packet.id is None and not to_nobody and self._never_drops(target):
            packet = replace(packet, data=[*packet.data, recovery.next_offset()])
            encoded = EncodedPacket(encode(packet, self.server.packet_options))
            recovery.log(encoded, target.rooms or _NO_ROOMS, target.excluded, self.server.clock.time())
        else:
            if recovery is not None and packet.id is None and recovery.resembles_offset(packet.data[-1]):
                packet = replace(packet, data=[*packet.data, recovery.current_offset()])
            encoded = EncodedPacket(encode(packet, self.server.packet_options))
        excluded = {member for name in target.excluded for member in self._room_members(name)}
        if target.rooms is None:
            sockets = [socket for socket in self.sockets.values() if socket not in excluded]
            self._post(sockets, encoded, target.policy)
            return
        # Sorted, because the order decides whose policy applies to a member of several rooms.
        for name in sorted(target.rooms) if len(target.rooms) > 1 else target.rooms:
            socket = self.sockets.get(name)
            if socket is None:
                room = self.rooms[name]
                room.broadcast(encoded, exclude=excluded, policy=target.policy)
                if len(target.rooms) > 1:
                    excluded.update(self._room_members(name))
            elif socket not in excluded:
                self._post([socket], encoded, target.policy)
                excluded.add(socket)

    def _without_impossible(self, target: TargetOf[Socket]) -> TargetOf[Socket]:
        """Leaves out the names that are too long for a room, so that recovery does not keep them."""
        longest = self.server.limits.max_room_name
        rooms, excluded = target.rooms or _NO_ROOMS, target.excluded
        if 4 * max(map(len, (*rooms, *excluded))) <= longest:
            return target  # the usual case, whatever the characters
        excluded = frozenset(name for name in excluded if name_size(name) <= longest)
        if target.rooms is None:
            return replace(target, excluded=excluded)
        return replace(
            target, rooms={name for name in rooms if name_size(name) <= longest}, excluded=excluded
        )

    def _never_drops(self, target: TargetOf[Socket]) -> bool:
        """Whether no policy may drop the event: each client receives it or is disconnected."""
        if target.policy is not None or target.rooms is None:
            return target.policy in (None, "disconnect")
        policies = [self.rooms[name].policy for name in target.rooms if name not in self.sockets]
        return all(policy in (None, "disconnect") for policy in policies)

    def _post(self, sockets: Collection[Socket], packet: EncodedPacket, policy: Policy | None) -> None:
        if isinstance(policy, Coalesce):
            policy = policy.resolve(packet.message)
        self.server.stats.messages_out += len(sockets)
        for socket in sockets:
            socket.post_prepared(packet, policy)

    def _tell_outgoing(self, target: TargetOf[Socket], packet: Packet) -> None:
        """Calls the functions of `on_any_outgoing`."""
        encode(packet)  # raises before any of them is called
        for socket in self.select(target):
            socket.tell_outgoing(packet.data)

    def _room_members(self, name: str) -> Collection[Socket]:
        socket = self.sockets.get(name)
        if socket is not None:
            return (socket,)
        return self.rooms[name].members if name in self.rooms else ()  # type: ignore[return-value]  # sockets only

    # Connected sockets.

    @property
    def clock(self) -> Clock:
        return self.server.clock

    @property
    def position(self) -> int:
        return 0 if self.recovery is None else self.recovery.position

    def missed(self, seen: int, history: RoomHistory) -> Missed:
        assert self.recovery is not None  # noqa: S101 - a socket was recovered
        return self.recovery.missed(seen, history)

    def add(self, socket: Socket) -> bool:
        self.sockets[socket.id] = socket
        if self.recovery is None:
            return False
        self.by_private_id[socket.private_id] = socket
        return True

    def remove(self, socket: Socket, reason: str) -> None:
        self.watchers.discard(socket)
        if self.recovery is not None:
            self.by_private_id.pop(socket.private_id, None)
            rooms = {room.name: room.shown(socket) for room in socket.memberships}
            history = socket.history or RoomHistory(socket.id)
            socket.history = None  # it leaves its rooms now, but not for good
            lost = LostSocket(
                id=socket.id,
                private_id=socket.private_id,
                rooms=rooms,
                history=history,
                data=socket.data,
                address=counted_address(socket.handshake.address),
                position=socket.position,
            )
            self.keep_lost(lost, reason)
        self.sockets.pop(socket.id, None)
        self.check_soon()

    def watch(self, socket: Socket) -> None:
        self.watchers.add(socket)

    def ending(self, id_: str) -> "asyncio.Task[None] | None":
        return self._endings.get(id_)

    def keep_ending(self, id_: str, task: "asyncio.Task[None]") -> None:
        def ended(_: "asyncio.Task[None]") -> None:
            if self._endings.get(id_) is task:
                del self._endings[id_]
            self.check_soon()

        self._endings[id_] = task
        task.add_done_callback(ended)

    def _note_join(self, room: Room, member: Member) -> None:
        assert isinstance(member, Socket)  # noqa: S101 - the rooms of a namespace have no others
        if member.history is None:
            member.history = RoomHistory(member.id)
        member.history.join(room.name, self.position)

    def _note_leave(self, room: Room, member: Member) -> None:
        assert isinstance(member, Socket)  # noqa: S101 - as above
        if member.history is not None and self.recovery is not None:
            member.history.leave(room.name, self.position, self.recovery.oldest)

    def keep_lost(self, lost: LostSocket, reason: str) -> None:
        if self.recovery is not None and reason in RECOVERABLE:
            self.recovery.keep(lost, self.server.clock.time())

    # A child of a dynamic namespace, while it is used.

    def hold(self) -> None:
        """Keeps the namespace: a client is about to connect."""
        self._holds += 1

    def release(self) -> None:
        """Ends a `hold`."""
        self._holds -= 1
        self.check_soon()

    def check_soon(self) -> None:
        """Removes the namespace in the next turn of the loop, if nobody uses it then."""
        if self._unused is not None:
            asyncio.get_running_loop().call_soon(self._check_unused)

    def _check_unused(self) -> None:
        unused = self._unused
        if unused is None or self._is_used:
            return
        if self.recovery is not None and self.recovery.has_lost(self.clock.time()):
            if self._idle is not None:
                self._idle(self)
            if self._unused_timer is None:
                # Later than the end of what was lost just now.
                self._unused_timer = self.clock.call_later(self.recovery.seconds + 1, self._check_again)
            return
        self._unused = None
        unused(self)

    @property
    def _is_used(self) -> bool:
        return bool(self.sockets or self._holds or self._endings)

    def discard(self) -> bool:
        """Removes the namespace if only lost clients need it, which cannot be recovered then.

        Returns whether it did.
        """
        unused = self._unused
        if unused is None or self._is_used:
            return False
        self._unused = None
        if self._unused_timer is not None:
            self._unused_timer.cancel()
        if self.recovery is not None:
            self.recovery.forget_all()
        unused(self)
        return True

    def _check_again(self) -> None:
        self._unused_timer = None
        self._check_unused()
