"""Rooms: named sets of connections, and messages to all members.

A room exists while it has members. A member leaves automatically when its connection ends, for any cause.
A broadcast is encoded once, and every queue holds the same bytes object.
"""

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, MutableMapping
from fnmatch import fnmatchcase
from glob import escape
from typing import Final, Protocol, TypeVar
from weakref import WeakValueDictionary

from rfc6455 import ConnectionClosed, PreparedMessage
from rfc6455_server.limits import FEW_ROOMS, LimitExceededError, Limits, TokenBucket
from rfc6455_server.logs import log
from rfc6455_server.policies import Coalesce, Policy, check_policy
from rfc6455_server.stats import Stats

# A character that `glob.escape` has put into brackets.
_ESCAPED: Final = re.compile(r"\[([*?[])\]")


class Member(Protocol):
    """What a room needs of a member; a `WebSocket` is one."""

    @property
    def id(self) -> str:
        """The member's id."""

    @property
    def closed(self) -> ConnectionClosed | None:
        """How the connection ended; ``None`` while it is open."""

    @property
    def memberships(self) -> "list[Room]":
        """The rooms that it is in. Rooms keep this list; the member leaves them all when it ends."""

    def may_join(self, name: str) -> bool:
        """Whether it may join one more room now, of that name; counts the attempt against its rate."""

    def post_prepared(self, message: PreparedMessage, policy: Policy | None) -> None:
        """Queues a message without waiting. ``None`` stands for the server's policy."""


def name_size(name: str) -> int:
    """Returns the bytes that the characters of a name take in memory, at most: one such as an emoji widens
    all others."""
    return len(name) if name.isascii() else 4 * len(name)


class RoomMember(ABC):
    """What every member keeps about its rooms: the list of them, and the rate at which it joins."""

    __slots__ = ("_join_rate", "_memberships")

    def __init__(self) -> None:
        # Made when they are needed, because most members of a server are in no room or in one.
        self._memberships: list[Room] | None = None
        self._join_rate: TokenBucket | None = None

    @property
    def memberships(self) -> "list[Room]":
        """The rooms that this member is in."""
        if self._memberships is None:
            self._memberships = []
        return self._memberships

    @abstractmethod
    def joining_limits(self) -> tuple[Limits, int, float]:
        """Returns the limits that apply, the memberships of all in all rooms, and the time."""

    def may_join(self, name: str) -> bool:
        """Whether this member may join one more room now, of that name; counts the attempt against its
        rate."""
        limits, total, now = self.joining_limits()
        rooms = len(self.memberships)
        if rooms >= limits.max_rooms or name_size(name) > limits.max_room_name:
            return False
        if total >= limits.max_total_rooms and rooms >= FEW_ROOMS:
            return False
        if limits.join_rate is None:
            return True
        if self._join_rate is None:
            self._join_rate = TokenBucket(limits.join_rate, now)
        return self._join_rate.take(1, now)


RoomCallback = Callable[["Room", Member], object]
_AnyCallback = TypeVar("_AnyCallback", bound=RoomCallback)


class RoomPolicies(MutableMapping[str, Policy]):
    """The slow-consumer policies of rooms, by name or by pattern; they outlast empty rooms.

    ``policies["chat-*"] = "drop_oldest"`` applies to every room whose name matches the shell-style pattern
    (``*``, ``?``, ``[abc]``). A room's own name wins over patterns, and the pattern that was set first over
    later ones. Iterating yields names, and then patterns in that order. A name stays until it is deleted:
    where peers choose the names of rooms, set a pattern. Setting raises `ValueError` for what is not a
    policy.
    """

    def __init__(self, changed: Callable[[str | None], None]) -> None:
        self._by_name: dict[str, Policy] = {}  # each name escaped as a pattern
        self._by_pattern: dict[str, Policy] = {}
        self._changed = changed  # takes the name of the room, or ``None`` for any

    def __getitem__(self, pattern: str) -> Policy:
        return self._holder(pattern)[pattern]

    def __setitem__(self, pattern: str, policy: Policy) -> None:
        self._holder(pattern)[pattern] = check_policy(policy)
        self._changed(_literal_name(pattern))

    def __delitem__(self, pattern: str) -> None:
        del self._holder(pattern)[pattern]
        self._changed(_literal_name(pattern))

    def __iter__(self) -> Iterator[str]:
        return iter([*self._by_name, *self._by_pattern])

    def __len__(self) -> int:
        return len(self._by_name) + len(self._by_pattern)

    def find(self, name: str) -> Policy | None:
        """Returns the policy of the room ``name``, or ``None``, which stands for the server's."""
        if self._by_name:
            own = self._by_name.get(escape(name))
            if own is not None:
                return own
        matching = (policy for pattern, policy in self._by_pattern.items() if fnmatchcase(name, pattern))
        return next(matching, None)

    def _holder(self, pattern: str) -> dict[str, Policy]:
        return self._by_pattern if _literal_name(pattern) is None else self._by_name


def _literal_name(pattern: str) -> str | None:
    """Returns the name that ``pattern`` is the escaped form of, or ``None`` if it matches more than one."""
    name = _ESCAPED.sub(r"\1", pattern)
    return name if escape(name) == pattern else None


class Room:
    """The members of a room, and `broadcast`."""

    __slots__ = ("__weakref__", "_effective_policy", "_members", "_rooms", "name")

    def __init__(self, name: str, rooms: "Rooms") -> None:
        self.name = name
        self._rooms = rooms
        self._members: dict[Member, object] = {}  # in the order of joining, with what each shows
        self._effective_policy: Policy | None = None
        self.update_policy()

    @property
    def policy(self) -> Policy | None:
        """What happens to a broadcast for a member that is behind; ``None`` stands for the server's policy.

        Setting it sets ``rooms.policies`` for this name, which outlasts the room; ``None`` removes it there.
        Raises `ValueError` for a bad policy.
        """
        return self._effective_policy

    @policy.setter
    def policy(self, policy: Policy | None) -> None:
        if policy is None:
            self._rooms.policies.pop(escape(self.name), None)
        else:
            self._rooms.policies[escape(self.name)] = policy

    def update_policy(self) -> None:
        """Looks the policy up again: ``rooms.policies`` has changed."""
        self._effective_policy = self._rooms.policies.find(self.name)

    @property
    def members(self) -> list[Member]:
        """The members in the order of joining."""
        return list(self._members)

    @property
    def presence(self) -> dict[str, object]:
        """What each member shows to the others, by its id; ``None`` if it shows nothing."""
        return {member.id: shown for member, shown in self._members.items()}

    def __contains__(self, member: object) -> bool:
        return member in self._members

    def __len__(self) -> int:
        return len(self._members)

    def join(self, member: Member, show: object = None) -> None:
        """Adds ``member``, with what it shows to the others.

        A member that joins again only replaces what it shows. Does nothing if the connection has ended.
        Raises `LimitExceededError` if the member is in too many rooms or joins too fast, or the name is too
        long.
        """
        if member.closed is not None:
            return
        if member in self._members:
            self._members[member] = show
            return
        if not member.may_join(self.name):
            raise LimitExceededError(
                "in too many rooms, joining too fast, or the name of the room is too long"
            )
        self._add(member, show)

    def rejoin(self, member: Member, show: object = None) -> None:
        """Does the same as `join`, without limits: for a member that was in the room before."""
        if member.closed is None and member not in self._members:
            self._add(member, show)

    def _add(self, member: Member, show: object) -> None:
        self._members[member] = show
        member.memberships.append(self)
        self._rooms.stats.memberships += 1
        self._rooms.call_back(self._rooms.join_callbacks, self, member)

    def shown(self, member: Member) -> object:
        """Returns what a member shows to the others; ``None`` if it shows nothing, or is no member."""
        return self._members.get(member)

    def leave(self, member: Member) -> None:
        """Removes ``member``; does nothing if it is not in the room."""
        if member in self._members:
            del self._members[member]
            member.memberships.remove(self)
            self._rooms.stats.memberships -= 1
            self._rooms.call_back(self._rooms.leave_callbacks, self, member)

    def broadcast(
        self,
        message: str | bytes | PreparedMessage,
        *,
        exclude: Collection[Member] = (),
        policy: Policy | None = None,
    ) -> None:
        """Sends ``message`` to every member except those in ``exclude``, without waiting for any.

        ``policy`` applies to members that are behind; the default is the room's. Raises `ValueError` for a
        bad policy, and `rfc6455.LocalProtocolError` for text with a surrogate.
        """
        if policy is not None:
            check_policy(policy)
        prepared = self._rooms.prepare(message)
        policy = policy or self._effective_policy
        if isinstance(policy, Coalesce):
            policy = policy.resolve(prepared.message)
        # A copy: posting to a member may end its connection, and then it leaves.
        members = self.members
        if exclude:
            excluded = set(exclude)
            members = [member for member in members if member not in excluded]
        self._rooms.stats.messages_out += len(members)
        for member in members:
            member.post_prepared(prepared, policy)

    def __repr__(self) -> str:
        return f"<Room {self.name!r} {len(self)}>"


def prepare_message(message: str | bytes | PreparedMessage) -> PreparedMessage:
    """Encodes ``message`` once for all members."""
    return message if isinstance(message, PreparedMessage) else PreparedMessage(message)


class Rooms:
    """The rooms of a server. ``rooms[name]`` is the room of that name, whether or not it has members.

    Iterating yields the names of the rooms that have members, and ``len`` counts these. ``prepare`` turns
    what `Room.broadcast` is given into frames.
    """

    def __init__(
        self,
        stats: Stats | None = None,
        prepare: Callable[[str | bytes | PreparedMessage], PreparedMessage] = prepare_message,
    ) -> None:
        # A member's ``memberships`` keep its room alive; an empty room that nobody refers to is freed.
        self._rooms: WeakValueDictionary[str, Room] = WeakValueDictionary()
        self.policies = RoomPolicies(self._update_policies)
        """The slow-consumer policies, by room name or pattern."""
        self.stats = stats or Stats()
        self.prepare = prepare
        self.join_callbacks: list[RoomCallback] = []
        self.leave_callbacks: list[RoomCallback] = []

    def __getitem__(self, name: str) -> Room:
        room = self._rooms.get(name)
        if room is None:
            if not isinstance(name, str):
                raise TypeError(f"the name of a room is a string: {name!r}")
            room = self._rooms[name] = Room(name, self)
        return room

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self._rooms.get(name))

    def __iter__(self) -> Iterator[str]:
        return iter([room.name for room in self._rooms.values() if room])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def on_join(self, callback: _AnyCallback) -> _AnyCallback:
        """Registers a function of room and member that is called after each join."""
        self.join_callbacks.append(callback)
        return callback

    def on_leave(self, callback: _AnyCallback) -> _AnyCallback:
        """Registers a function of room and member that is called after each leave, for any cause."""
        self.leave_callbacks.append(callback)
        return callback

    def call_back(self, callbacks: list[RoomCallback], room: Room, member: Member) -> None:
        """Calls each of ``callbacks``. An exception is logged and does not stop the others."""
        for callback in callbacks:
            try:
                callback(room, member)
            except Exception:  # noqa: BLE001 - whatever a callback raises
                log(logging.ERROR, "room callback failed", exception=True, room=room.name)

    def _update_policies(self, name: str | None) -> None:
        rooms = list(self._rooms.values()) if name is None else [self._rooms.get(name)]
        for room in rooms:
            if room is not None:
                room.update_policy()
