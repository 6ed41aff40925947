"""Refused connections that are read on for a while, so that the peer receives the answer and not a reset.

Closing TCP while the peer still sends would reset it, and the peer could lose the answer (RFC 9112 §9.6). But
each such connection holds a file descriptor, and so only a few may linger, whoever refused them.
Left to others: sending the answer and EOF, and for how long to read on (`listening`, `http`).
"""

from collections.abc import Callable
from typing import Final

MAX_LINGERING: Final = 64
"""Maximum refused connections of a server that linger; for one more, the oldest is closed."""


class Lingering:
    """The refused connections that linger, oldest first, and how each is closed."""

    __slots__ = ("_closers",)

    def __init__(self) -> None:
        self._closers: dict[object, Callable[[], object]] = {}

    def __len__(self) -> int:
        return len(self._closers)

    def add(self, connection: object, close: Callable[[], object]) -> None:
        """Adds a connection; ``close`` is called if others need its place."""
        self._closers[connection] = close
        if len(self._closers) > MAX_LINGERING:
            self._close(next(iter(self._closers)))

    def discard(self, connection: object) -> None:
        """Removes a connection that has ended; does nothing if it was removed before."""
        self._closers.pop(connection, None)

    def close_all(self) -> bool:
        """Closes all of them; returns whether there were any."""
        any_closed = bool(self._closers)
        while self._closers:
            self._close(next(iter(self._closers)))
        return any_closed

    def _close(self, connection: object) -> None:
        self._closers.pop(connection)()
