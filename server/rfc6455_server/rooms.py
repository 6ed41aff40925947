"""Rooms: named sets of connections, and messages to all in one.

A room exists while it has members. A member leaves by itself when its connection ends, whatever ended it.
A broadcast is encoded once; every queue holds the same bytes object.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any, Protocol
from weakref import WeakValueDictionary

from rfc6455 import ConnectionClosed, PreparedMessage


class Member(Protocol):
    """What a room needs of a member; a `WebSocket` is one."""

    on_closed: list[Callable[[Any], object]]

    @property
    def closed(self) -> ConnectionClosed | None:
        """How the connection ended, ``None`` while it is open."""

    def post(self, message: PreparedMessage) -> None:
        """Queues a message without waiting."""


class Room:
    """Who is in it, and a way to reach all of them."""

    __slots__ = ("__weakref__", "_members", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._members: dict[Member, None] = {}  # in the order of joining

    @property
    def members(self) -> list[Member]:
        """Who is in the room, in the order of joining."""
        return list(self._members)

    def __contains__(self, member: object) -> bool:
        return member in self._members

    def __len__(self) -> int:
        return len(self._members)

    def join(self, member: Member) -> None:
        """Adds a member; joining twice is joining once, and joining after the end is not joining."""
        if member.closed is None and member not in self._members:
            self._members[member] = None
            member.on_closed.append(self.leave)

    def leave(self, member: Member) -> None:
        """Removes a member; who is none is ignored."""
        if member in self._members:
            del self._members[member]
            if member.closed is None:
                member.on_closed.remove(self.leave)

    def broadcast(self, message: str | bytes, *, exclude: Collection[Member] = ()) -> None:
        """Sends ``message`` to every member that is not in ``exclude``, without waiting for any.

        A member that is too far behind loses its connection (`WebSocket.post`).
        """
        prepared = PreparedMessage(message)
        # A list of its own: who is posted to may leave.
        members = self.members
        if exclude:
            excluded = set(exclude)
            members = [member for member in members if member not in excluded]
        for member in members:
            member.post(prepared)


class Rooms:
    """The rooms of a server: ``rooms[name]`` is the room of that name, whether or not anybody is in it.

    Iterating gives the names of the rooms that have members, and ``len`` counts these.
    """

    def __init__(self) -> None:
        # A member's ``on_closed`` keeps its room alive; an empty room that nobody holds vanishes.
        self._rooms: WeakValueDictionary[str, Room] = WeakValueDictionary()

    def __getitem__(self, name: str) -> Room:
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = Room(name)
        return room

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self._rooms.get(name))

    def __iter__(self) -> Iterator[str]:
        return iter([room.name for room in self._rooms.values() if room])

    def __len__(self) -> int:
        return sum(1 for _ in self)
