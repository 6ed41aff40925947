"""The rooms that a socket is in and was in, and when: between which events of its namespace.

Left to others: the events (`recovery`), who joins and leaves (`namespaces`).

A client that comes back may have been in other rooms when an event was sent than when its connection was
lost. It missed exactly the events that were sent to the rooms in which it was at that time.
"""

from collections import deque
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Final

MAX_LEFT: Final = 64
"""Maximum former stays in rooms that are kept for a socket. They are kept as long as events of that time."""


class RoomHistory:
    """The rooms of the socket with that id, which is a room as well.

    Times are offsets of events (`recovery`): each is that of the last event before.
    """

    __slots__ = ("_id", "_joined", "_left", "known_since")

    def __init__(self, id_: str) -> None:
        self._id = id_
        self._joined: dict[str, int] = {}  # the rooms that it is in
        self._left: deque[tuple[str, int, int]] = deque()  # former stays: room, joined, left; in their order
        self.known_since = 0
        """Stays that ended before this are not kept."""

    def __len__(self) -> int:
        return len(self._joined) + len(self._left)

    @property
    def present(self) -> AbstractSet[str]:
        """The rooms that it is in, except that of its id."""
        return self._joined.keys()

    @property
    def names(self) -> set[str]:
        """The names of all rooms that it is in and was in, with its id."""
        return {self._id, *self._joined, *(name for name, _, _ in self._left)}

    def join(self, name: str, now: int) -> None:
        self._joined.setdefault(name, now)

    def leave(self, name: str, now: int, oldest: int) -> None:
        """Leaves a room; forgets the stays before the event ``oldest``, which is the first that is kept."""
        joined = self._joined.pop(name, now)
        if joined < now:
            self._left.append((name, joined, now))
        while self._left and (self._left[0][2] < oldest or len(self._left) > MAX_LEFT):
            self.known_since = self._left.popleft()[2]

    def stays(self) -> Iterator[tuple[str, int]]:
        """Yields each room that it is in and was in, and the last offset before it joined."""
        yield self._id, 0
        yield from self._joined.items()
        for name, joined, _ in self._left:
            yield name, joined

    def contains(self, name: str, offset: int) -> bool:
        """Whether the socket was in a room when an event was sent."""
        if name == self._id or self._joined.get(name, offset) < offset:
            return True
        if not self._left:
            return False
        return any(room == name and joined < offset <= left for room, joined, left in self._left)
