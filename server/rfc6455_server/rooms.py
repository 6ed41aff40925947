"""Rooms: named sets of connections, and messages to all in one.

A room exists while it has members. A member leaves by itself when its connection ends, whatever ended it.
A broadcast is encoded once; every queue holds the same bytes object.
"""

import logging
from collections.abc import Callable, Collection, Iterator
from typing import Protocol, TypeVar
from weakref import WeakValueDictionary

from rfc6455 import ConnectionClosed, PreparedMessage
from rfc6455_server.limits import LimitExceededError
from rfc6455_server.logs import log
from rfc6455_server.outbox import Coalesce, Policy, check_policy
from rfc6455_server.stats import Stats


class Member(Protocol):
    """What a room needs of a member; a `WebSocket` is one."""

    @property
    def id(self) -> str:
        """What it is known by."""

    @property
    def closed(self) -> ConnectionClosed | None:
        """How the connection ended, ``None`` while it is open."""

    @property
    def memberships(self) -> "list[Room]":
        """The rooms that it is in. Rooms keep this list; when the connection ends, it leaves them all."""

    def may_join(self) -> bool:
        """Whether it may join one more room now; counts it."""

    def post_prepared(self, message: PreparedMessage, policy: Policy | None) -> None:
        """Queues a message without waiting. ``None`` is the server's policy."""


RoomCallback = Callable[["Room", Member], object]
_AnyCallback = TypeVar("_AnyCallback", bound=RoomCallback)


class Room:
    """Who is in it, and a way to reach all of them.

    ``policy`` is what happens to a broadcast for a member that is behind; ``None`` is the server's policy. It
    lasts as long as the room.
    """

    __slots__ = ("__weakref__", "_members", "_rooms", "name", "policy")

    def __init__(self, name: str, rooms: "Rooms") -> None:
        self.name = name
        self.policy: Policy | None = None
        self._rooms = rooms
        self._members: dict[Member, object] = {}  # in the order of joining, with what each shows

    @property
    def members(self) -> list[Member]:
        """Who is in the room, in the order of joining."""
        return list(self._members)

    @property
    def presence(self) -> dict[str, object]:
        """Who is in the room: each member's id, with what it chose to show (``None``: nothing)."""
        return {member.id: shown for member, shown in self._members.items()}

    def __contains__(self, member: object) -> bool:
        return member in self._members

    def __len__(self) -> int:
        return len(self._members)

    def join(self, member: Member, show: object = None) -> None:
        """Adds a member, with what it shows to the others.

        Joining twice is joining once (and showing something else); joining after the end is not joining.
        Raises `LimitExceededError` when it is in too many rooms, or joins too fast.
        """
        if member.closed is not None:
            return
        if member in self._members:
            self._members[member] = show
            return
        if not member.may_join():
            raise LimitExceededError("too many rooms, or too fast")
        self._members[member] = show
        member.memberships.append(self)
        self._rooms.tell(self._rooms.join_callbacks, self, member)

    def leave(self, member: Member) -> None:
        """Removes a member; who is none is ignored."""
        if member in self._members:
            del self._members[member]
            member.memberships.remove(self)
            self._rooms.tell(self._rooms.leave_callbacks, self, member)

    def broadcast(
        self,
        message: str | bytes | PreparedMessage,
        *,
        exclude: Collection[Member] = (),
        policy: Policy | None = None,
    ) -> None:
        """Sends ``message`` to every member that is not in ``exclude``, without waiting for any.

        ``policy`` is what happens to it at a member that is behind; the room's if it is not given.
        """
        if policy is not None:
            check_policy(policy)
        prepared = message if isinstance(message, PreparedMessage) else PreparedMessage(message)
        policy = policy or self.policy
        if isinstance(policy, Coalesce):
            policy = policy.resolve(prepared.message)
        # A list of its own: who is posted to may leave.
        members = self.members
        if exclude:
            excluded = set(exclude)
            members = [member for member in members if member not in excluded]
        self._rooms.stats.messages_out += len(members)
        for member in members:
            member.post_prepared(prepared, policy)

    def __repr__(self) -> str:
        return f"<Room {self.name!r} {len(self)}>"


class Rooms:
    """The rooms of a server: ``rooms[name]`` is the room of that name, whether or not anybody is in it.

    Iterating gives the names of the rooms that have members, and ``len`` counts these.
    """

    def __init__(self, stats: Stats | None = None) -> None:
        # A member's ``memberships`` keep its room alive; an empty room that nobody holds vanishes.
        self._rooms: WeakValueDictionary[str, Room] = WeakValueDictionary()
        self.stats = stats or Stats()
        self.join_callbacks: list[RoomCallback] = []
        self.leave_callbacks: list[RoomCallback] = []

    def __getitem__(self, name: str) -> Room:
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = Room(name, self)
        return room

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self._rooms.get(name))

    def __iter__(self) -> Iterator[str]:
        return iter([room.name for room in self._rooms.values() if room])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def on_join(self, callback: _AnyCallback) -> _AnyCallback:
        """Decorates a function of room and member, called after each joining."""
        self.join_callbacks.append(callback)
        return callback

    def on_leave(self, callback: _AnyCallback) -> _AnyCallback:
        """Decorates a function of room and member, called after each leaving, whatever its cause."""
        self.leave_callbacks.append(callback)
        return callback

    def tell(self, callbacks: list[RoomCallback], room: Room, member: Member) -> None:
        """Calls back. What one raises is logged, and holds up nobody."""
        for callback in callbacks:
            try:
                callback(room, member)
            except Exception:  # noqa: BLE001 - whatever a callback raises
                log(logging.ERROR, "a callback of a room failed", exception=True, room=room.name)
