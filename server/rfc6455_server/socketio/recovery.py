"""What a client missed while its connection was lost, and who it was: connection state recovery.

Implements: https://socket.io/docs/v4/connection-state-recovery, the server's half.
Left to others: sending it (`namespaces`). Time is passed in, in seconds.

While recovery is on, each event carries an offset, a short string, as its last argument. A client that comes
back says the last one that it has seen, and its private id. Both its session and all events since then
have to be here still: events are kept for a time, and up to a number of bytes.
"""

from collections import OrderedDict, deque
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from rfc6455 import PreparedMessage

DEFAULT_MAX_BYTES: Final = 4 << 20
"""Bytes of events that are kept for a namespace."""

MAX_SESSIONS: Final = 10_000
"""Lost sessions that are kept for a namespace; the oldest is forgotten first."""


@dataclass
class LostSession:
    """Who a socket was when its connection was lost."""

    id: str
    private_id: str
    rooms: list[str]
    data: dict[str, Any]
    position: int
    """The offset when it was connected, for a client that has seen no event."""
    lost_at: float = 0.0


class _Logged(NamedTuple):
    """An event that was sent: to whom, and when."""

    offset: int
    at: float
    message: PreparedMessage
    rooms: AbstractSet[str]  # empty: to everybody
    excluded: AbstractSet[str]


class Recovered(NamedTuple):
    """A session that was found again, and the events that it missed, in their order."""

    session: LostSession
    missed: list[PreparedMessage]


@dataclass
class Recovery:
    """The events and the lost sessions of a namespace, for ``seconds``, and ``max_bytes`` of events."""

    seconds: float
    max_bytes: int = DEFAULT_MAX_BYTES
    _log: deque[_Logged] = field(default_factory=deque)
    _bytes: int = 0
    _offset: int = 0
    _sessions: OrderedDict[str, LostSession] = field(default_factory=OrderedDict)

    @property
    def position(self) -> int:
        """The offset of the last event."""
        return self._offset

    @property
    def size(self) -> int:
        """Bytes of the events that are kept."""
        return self._bytes

    def next_offset(self) -> str:
        """The offset of the event that is about to be logged."""
        return f"{self._offset + 1:x}"

    def log(
        self, message: PreparedMessage, rooms: AbstractSet[str], excluded: AbstractSet[str], now: float
    ) -> None:
        """Keeps an event; ``rooms`` and ``excluded`` are names of rooms, and ids of sockets."""
        self._offset += 1
        self._log.append(_Logged(self._offset, now, message, rooms, excluded))
        self._bytes += message.size
        self._forget(now)

    def keep(self, session: LostSession, now: float) -> None:
        """Keeps a session whose connection was lost."""
        session.lost_at = now
        self._sessions[session.private_id] = session
        self._forget(now)

    def restore(self, private_id: str, offset: object, now: float) -> Recovered | None:
        """The session, and what it missed since ``offset``; ``None`` when either is not here any more."""
        self._forget(now)
        session = self._sessions.pop(private_id, None)
        if session is None:
            return None
        seen = session.position
        if offset is not None:
            try:
                seen = int(offset, 16) if isinstance(offset, str) and len(offset) <= 16 else -1
            except ValueError:
                return None
        # Contiguous numbers: what followed the last one seen is there, or the first of it is gone.
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

    def _forget(self, now: float) -> None:
        while self._log and (self._bytes > self.max_bytes or self._log[0].at < now - self.seconds):
            self._bytes -= self._log.popleft().message.size
        while self._sessions:
            oldest = next(iter(self._sessions.values()))
            if len(self._sessions) <= MAX_SESSIONS and oldest.lost_at >= now - self.seconds:
                return
            self._sessions.popitem(last=False)
