"""Connection state recovery: what a client was and missed while its connection was lost.

Implements: https://socket.io/docs/v4/connection-state-recovery, the server's half.
Left to others: sending the missed events (`catchup`). Time is passed in, in seconds.

While recovery is on, each event carries an offset, a short string, as its last argument. A client that comes
back sends the last offset that it has seen, and its private id. It is recovered if its session and all events
for it since then are still kept: they are kept for a time, and events up to a number of bytes. Of what is no
longer kept, each room remembers the last offset, so that a client is recovered also if nothing was sent to it
for long.

A client takes the last argument of any event for an offset if it is a string, also an application's. So an
offset starts with a tag that nobody can guess, and a client that sends anything else is not recovered. But
each client learns the tag, and may send it on to another one, in an event that carries no offset. Such an
event gets one too: that of the last event before it.

Each event is also listed under every room that it was sent to, so that finding what a client missed takes
time in proportion to what it missed, and not to all that is kept.
"""

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from heapq import merge
from operator import attrgetter
from sys import getsizeof
from typing import Any, Final, NamedTuple

from rfc6455 import WebSocketError
from rfc6455_server.socketio.encoded import EncodedPacket
from rfc6455_server.socketio.history import RoomHistory
from rfc6455_server.socketio.ids import new_id

MAX_RECOVERY: Final = 86_400.0
"""Maximum seconds for which a client may come back, a day: more are most likely meant as milliseconds."""

DEFAULT_MAX_BYTES: Final = 32 << 20
"""Maximum bytes of events that are kept for a namespace, with the objects that hold them."""

MAX_LOST_SOCKETS: Final = 20_000
"""Maximum lost sessions that are kept for a namespace, or for all children of a dynamic one together. When
there is one more, the oldest of its namespace is dropped.

Those of one address may be half of them, so that nobody can push out all others.
"""

_NAME_SIZE: Final = 256  # code points of a name that count as another room

MAX_LOST_ROOMS: Final = 1_000_000
"""Maximum rooms of all lost sessions together, a long name counted as several; the oldest session is dropped
first."""

BYTES_PER_DROPPED_ROOM: Final = 4096
"""For each so many bytes of events, one room is remembered whose events were dropped: some 200 bytes."""

EVENT_COST: Final = 300
"""Bytes counted for each kept event besides its frames."""

NAMES_COST: Final = 220
ROOM_COST: Final = 70
"""Bytes counted for the rooms of a kept event, if it names any, and for each besides its name; the same for
excluded ones."""

ROOM_LOG_COST: Final = 300
"""Bytes counted for each room that has kept events."""

_EVERYBODY: Final = None  # the key of the events that were sent to all sockets of the namespace

_MIN_STALE: Final = 64  # expired entries are removed from a list when there are more of them than this


class MissedEventsDroppedError(WebSocketError):
    """Events that a client missed were dropped before it took them."""

    def __init__(self) -> None:
        super().__init__("events were dropped before the client took them", slug="missed-events-dropped")


@dataclass
class LostSocket:
    """What a socket had when its connection was lost."""

    id: str
    private_id: str
    rooms: dict[str, object]
    """The names of its rooms, with what it shows there (`rooms.Room.join`)."""
    history: RoomHistory
    data: dict[str, Any]
    address: str
    """What the client's address counts for (`limits.counted_address`)."""
    position: int
    """The last offset before the socket was first connected: its client may have seen no event since."""
    lost_at: float = 0.0

    @property
    def weight(self) -> int:
        """The rooms of its history, one more for each `_NAME_SIZE` of a name."""
        return len(self.history) + sum([len(name) // _NAME_SIZE for name in self.history.names])


class LostTotals:
    """How many lost sessions are kept, and the weight of their rooms: in all, and by address.

    The children of a dynamic namespace share one: otherwise, a client could fill each of them.
    """

    __slots__ = ("_by_address", "_rooms", "_sessions")

    def __init__(self) -> None:
        self._sessions = 0
        self._rooms = 0
        self._by_address: dict[str, tuple[int, int]] = {}

    def add(self, session: LostSocket) -> None:
        self._count(session, 1)

    def remove(self, session: LostSocket) -> None:
        self._count(session, -1)

    def _count(self, session: LostSocket, sign: int) -> None:
        rooms = sign * session.weight
        self._sessions += sign
        self._rooms += rooms
        own_sessions, own_rooms = self._by_address.get(session.address, (0, 0))
        if own_sessions + sign:
            self._by_address[session.address] = own_sessions + sign, own_rooms + rooms
        else:
            del self._by_address[session.address]

    @property
    def too_many(self) -> bool:
        """Whether all together are over the limits."""
        return self._sessions > MAX_LOST_SOCKETS or self._rooms > MAX_LOST_ROOMS

    def too_many_of(self, address: str) -> bool:
        """Whether those of one address are over half of the limits."""
        sessions, rooms = self._by_address.get(address, (0, 0))
        return sessions > MAX_LOST_SOCKETS // 2 or rooms > MAX_LOST_ROOMS // 2


class _Logged(NamedTuple):
    """An event, when it was sent, and its target."""

    offset: int
    at: float
    packet: EncodedPacket
    rooms: AbstractSet[str]  # empty: all sockets
    excluded: AbstractSet[str]

    @property
    def keys(self) -> "AbstractSet[str] | tuple[None]":
        return self.rooms or (_EVERYBODY,)

    @property
    def size(self) -> int:
        size = self.packet.size + EVENT_COST
        for names in (self.rooms, self.excluded):
            if names:
                size += NAMES_COST + ROOM_COST * len(names) + sum(map(getsizeof, names))
        return size

    def was_for(self, history: RoomHistory) -> bool:
        """Whether it was sent to a socket with these rooms."""
        offset = self.offset
        # Loops, not `any`: a generator for each event would take a tenth of a recovery.
        for name in self.excluded:
            if history.contains(name, offset):
                return False
        for name in self.rooms:
            if history.contains(name, offset):
                return True
        return not self.rooms


_EXPIRED: Final = _Logged(0, 0.0, EncodedPacket([""]), frozenset(), frozenset())

_offset = attrgetter("offset")


class _RoomLog:
    """The kept events of one room, in their order; those before ``start`` have expired."""

    __slots__ = ("entries", "start")

    def __init__(self) -> None:
        self.entries: list[_Logged] = []
        self.start = 0

    def __len__(self) -> int:
        return len(self.entries) - self.start

    def drop_oldest(self) -> None:
        self.entries[self.start] = _EXPIRED  # so that the event is freed now, and its entry later
        self.start += 1
        if self.start > _MIN_STALE and self.start * 2 > len(self.entries):
            del self.entries[: self.start]
            self.start = 0

    def after(self, offset: int) -> Iterator[_Logged]:
        """Yields the events after ``offset``."""
        entries = self.entries
        first = bisect_right(entries, offset, lo=self.start, key=_offset)
        return (entries[index] for index in range(first, len(entries)))


class Recovered(NamedTuple):
    """A session that can be recovered, and the offset of the last event that its client has seen."""

    session: LostSocket
    seen: int


@dataclass
class Recovery:
    """The events and the lost sessions of a namespace, for ``seconds``, and ``max_bytes`` of events."""

    seconds: float
    max_bytes: int = DEFAULT_MAX_BYTES
    position: int = 0
    """The offset of the last event that was logged."""
    size: int = 0
    """Bytes that the kept events count for."""
    _log: deque[_Logged] = field(default_factory=deque)
    _by_room: dict[str | None, _RoomLog] = field(default_factory=dict)
    _sessions: OrderedDict[str, LostSocket] = field(default_factory=OrderedDict)
    totals: LostTotals = field(default_factory=LostTotals)
    """Counts the lost sessions, maybe with those of other namespaces."""
    _by_address: dict[str, dict[str, LostSocket]] = field(default_factory=dict)
    # The last dropped event of each room, in the order of these; of all other rooms, at most `_forgotten`.
    _dropped: OrderedDict[str | None, int] = field(default_factory=OrderedDict)
    _forgotten: int = 0
    _tag: str = field(default_factory=lambda: new_id()[:8])

    def next_offset(self) -> str:
        """Returns the offset of the event that is logged next."""
        return f"{self._tag}{self.position + 1:x}"

    def current_offset(self) -> str:
        """Returns the offset of the event that was logged last."""
        return f"{self._tag}{self.position:x}"

    def resembles_offset(self, value: object) -> bool:
        """Whether a client could take ``value`` for an offset of this namespace."""
        return isinstance(value, str) and value.startswith(self._tag)

    @property
    def oldest(self) -> int:
        """The number of the first event that is kept."""
        return self._log[0].offset if self._log else self.position + 1

    def log(
        self, packet: EncodedPacket, rooms: AbstractSet[str], excluded: AbstractSet[str], now: float
    ) -> None:
        """Keeps an event; ``rooms`` and ``excluded`` hold names of rooms and ids of sockets."""
        self.position += 1
        packet.offset = self.position
        logged = _Logged(self.position, now, packet, rooms, excluded)
        self._log.append(logged)
        for key in logged.keys:
            room = self._by_room.get(key)
            if room is None:
                room = self._by_room[key] = _RoomLog()
                self.size += ROOM_LOG_COST
            room.entries.append(logged)
        self.size += logged.size
        self._drop_expired(now)

    def keep(self, session: LostSocket, now: float) -> None:
        """Keeps a session whose connection was lost."""
        session.lost_at = now
        self._sessions[session.private_id] = session
        own = self._by_address.setdefault(session.address, {})
        own[session.private_id] = session
        self.totals.add(session)
        while own and self.totals.too_many_of(session.address):
            self._forget(next(iter(own)))
        self._drop_expired(now)

    def _forget(self, private_id: str) -> LostSocket | None:
        session = self._sessions.pop(private_id, None)
        if session is None:
            return None
        self.totals.remove(session)
        own = self._by_address[session.address]
        del own[private_id]
        if not own:
            del self._by_address[session.address]
        return session

    def limit(self, max_bytes: int, now: float) -> None:
        """Changes the maximum bytes of events."""
        self.max_bytes = max_bytes
        self._drop_expired(now)

    def forget_all(self) -> None:
        """Drops all sessions: nobody can come back any more."""
        for private_id in list(self._sessions):
            self._forget(private_id)

    def has_lost(self, now: float) -> bool:
        """Whether a session is kept whose client may come back."""
        self._drop_expired(now)
        return bool(self._sessions)

    def restore(self, private_id: str, offset: object, now: float) -> Recovered | None:
        """Removes a session and returns it; ``None`` if it, or an event since ``offset``, is no longer kept.

        ``offset`` is what the client sent, whatever that is.
        """
        self._drop_expired(now)
        session = self._forget(private_id)
        if session is None:
            return None
        seen = session.position if offset is None else self._parse(offset)
        if not 0 <= seen <= self.position:
            return None
        # The offset may be from an earlier session of this client, which nothing reminds it to forget.
        seen = max(seen, session.position)
        known = self._reaches(seen, session.history) and seen >= session.history.known_since
        return Recovered(session, seen) if known else None

    def missed(self, seen: int, history: RoomHistory) -> "Missed":
        """Returns what a socket with these rooms missed after ``seen``."""
        return Missed(self, seen, self.position, history)

    def find(self, seen: int, until: int, history: RoomHistory) -> Iterator[_Logged]:
        """Yields the events after ``seen``, up to ``until``, that were for a socket with these rooms.

        Raises `MissedEventsDroppedError` if one of them may no longer be kept.
        """
        if not self._reaches(seen, history):
            raise MissedEventsDroppedError
        found = [self._by_room[key].after(seen) for key in self._keys(history.names)]
        for logged in merge(*found, key=_offset):
            if logged.offset > until:
                return
            if logged.offset > seen:  # it is found once for each of its rooms
                seen = logged.offset
                if logged.was_for(history):
                    yield logged

    def _keys(self, names: AbstractSet[str]) -> list[str | None]:
        """Returns the keys of the rooms that have events, and are in ``names`` or stand for all sockets."""
        keys: list[str | None] = [name for name in names if name in self._by_room]
        return [*keys, _EVERYBODY] if _EVERYBODY in self._by_room else keys

    def _parse(self, offset: object) -> int:
        """Returns the number of an offset, or -1 if it is none."""
        tag = self._tag
        if not isinstance(offset, str) or not offset.startswith(tag) or len(offset) > len(tag) + 16:
            return -1
        try:
            return int(offset[len(tag) :], 16)
        except ValueError:
            return -1

    def _reaches(self, seen: int, history: RoomHistory) -> bool:
        """Whether all events after ``seen`` are kept that may have been for a socket with these rooms."""
        if seen >= self.oldest - 1:
            return True
        dropped = self._dropped.get
        return (
            seen >= max(self._forgotten, dropped(_EVERYBODY, 0))
            # What was sent to a room before the socket joined it was not for it.
            and all(dropped(name, 0) <= max(seen, joined) for name, joined in history.stays())
        )

    def _drop_expired(self, now: float) -> None:
        while self._log and (self.size > self.max_bytes or self._log[0].at < now - self.seconds):
            oldest = self._log.popleft()
            self.size -= oldest.size
            for key in oldest.keys:
                room = self._by_room[key]
                room.drop_oldest()
                if not room:
                    del self._by_room[key]
                    self.size -= ROOM_LOG_COST
                self._dropped[key] = oldest.offset
                self._dropped.move_to_end(key)
            while len(self._dropped) * BYTES_PER_DROPPED_ROOM > self.max_bytes:
                _, self._forgotten = self._dropped.popitem(last=False)
        while self._sessions:
            session = next(iter(self._sessions.values()))
            if not self.totals.too_many and session.lost_at >= now - self.seconds:
                return
            self._forget(session.private_id)


class Missed:
    """What one client missed, read piece by piece from what is kept for all."""

    __slots__ = ("_history", "_recovery", "_seen", "_until")

    def __init__(self, recovery: Recovery, seen: int, until: int, history: RoomHistory) -> None:
        self._recovery = recovery
        self._seen = seen
        self._until = until
        self._history = history

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left, as far as was looked."""
        return self._seen == self._until

    def take(self, count: int, size: int) -> list[EncodedPacket]:
        """Returns the next events: at most ``count``, and no more after ``size`` bytes; none at the end.

        Raises `MissedEventsDroppedError` if they are no longer kept.
        """
        taken: list[EncodedPacket] = []
        if self._seen == self._until:
            return taken
        for logged in self._recovery.find(self._seen, self._until, self._history):
            taken.append(logged.packet)
            self._seen = logged.offset
            size -= logged.packet.size
            if len(taken) == count or size <= 0:
                return taken
        self._seen = self._until
        return taken
