"""Connection state recovery: what a client was and missed while its connection was lost.

Implements: https://socket.io/docs/v4/connection-state-recovery, the server's half.
Left to others: sending the missed events (`clients`). Time is passed in, in seconds.

While recovery is on, each event carries an offset, a short string, as its last argument. A client that comes
back sends the last offset that it has seen, and its private id. It is recovered if its session and all events
since then are still kept: they are kept for a time, and events up to a number of bytes.
"""

from collections import OrderedDict, deque
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from rfc6455 import PreparedMessage

DEFAULT_MAX_BYTES: Final = 4 << 20
"""Maximum bytes of events that are kept for a namespace."""

MAX_LOST_SOCKETS: Final = 10_000
"""Maximum lost sessions that are kept for a namespace; the oldest is dropped first."""


@dataclass
class LostSocket:
    """What a socket had when its connection was lost."""

    id: str
    private_id: str
    rooms: list[str]
    data: dict[str, Any]
    position: int
    """The last offset before the socket was connected, for a client that has seen no event since."""
    lost_at: float = 0.0


class _Logged(NamedTuple):
    """An event, when it was sent, and its target."""

    offset: int
    at: float
    message: PreparedMessage
    rooms: AbstractSet[str]  # empty: all sockets
    excluded: AbstractSet[str]


class Recovered(NamedTuple):
    """A session that was recovered, and the events that it missed, in their order."""

    session: LostSocket
    missed: list[PreparedMessage]


@dataclass
class Recovery:
    """The events and the lost sessions of a namespace, for ``seconds``, and ``max_bytes`` of events."""

    seconds: float
    max_bytes: int = DEFAULT_MAX_BYTES
    _log: deque[_Logged] = field(default_factory=deque)
    _bytes: int = 0
    _offset: int = 0
    _sessions: OrderedDict[str, LostSocket] = field(default_factory=OrderedDict)

    @property
    def position(self) -> int:
        """The offset of the last event that was logged."""
        return self._offset

    @property
    def size(self) -> int:
        """Bytes of the kept events."""
        return self._bytes

    def next_offset(self) -> str:
        """Returns the offset of the event that is logged next."""
        return f"{self._offset + 1:x}"

    def log(
        self, message: PreparedMessage, rooms: AbstractSet[str], excluded: AbstractSet[str], now: float
    ) -> None:
        """Keeps an event; ``rooms`` and ``excluded`` hold names of rooms and ids of sockets."""
        self._offset += 1
        self._log.append(_Logged(self._offset, now, message, rooms, excluded))
        self._bytes += message.size
        self._drop_expired(now)

    def keep(self, session: LostSocket, now: float) -> None:
        """Keeps a session whose connection was lost."""
        session.lost_at = now
        self._sessions[session.private_id] = session
        self._drop_expired(now)

    def restore(self, private_id: str, offset: object, now: float) -> Recovered | None:
        """Returns the session and what it missed since ``offset``; ``None`` if either is no longer kept."""
        self._drop_expired(now)
        session = self._sessions.pop(private_id, None)
        if session is None:
            return None
        seen = session.position
        if offset is not None:
            try:
                seen = int(offset, 16) if isinstance(offset, str) and len(offset) <= 16 else -1
            except ValueError:
                return None
        # Offsets are contiguous: if the one after ``seen`` is kept, so are all later ones.
        first = self._log[0].offset if self._log else self._offset + 1
        if not first - 1 <= seen <= self._offset:
            return None
        inside = {session.id, *session.rooms}
        missed = [
            logged.message
            for logged in self._log
            if logged.offset > seen
            and (not logged.rooms or logged.rooms & inside)
            and not logged.excluded & inside
        ]
        return Recovered(session, missed)

    def _drop_expired(self, now: float) -> None:
        while self._log and (self._bytes > self.max_bytes or self._log[0].at < now - self.seconds):
            self._bytes -= self._log.popleft().message.size
        while self._sessions:
            oldest = next(iter(self._sessions.values()))
            if len(self._sessions) <= MAX_LOST_SOCKETS and oldest.lost_at >= now - self.seconds:
                return
            self._sessions.popitem(last=False)
