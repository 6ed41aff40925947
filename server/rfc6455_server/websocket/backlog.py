"""The messages that wait for a peer that is behind, whole and not yet compressed.

Left to others: when a message is queued or encoded, and how long the peer may take (`outbox`).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from sys import getsizeof
from typing import Final

from rfc6455 import PreparedMessage
from rfc6455_server.clock import Timer
from rfc6455_server.policies import Coalesce, Policy
from rfc6455_server.websocket.hub import Budget

NO_KEY: Final = object()
"""The key of a message that is not coalesced; ``None`` is a key."""


ENTRY_COST: Final = 256
"""Bytes counted for a waiting message besides its frame: for the objects that hold it."""

CALL_COST: Final = 1280
"""Bytes counted for a call that waits, such as one of `WebSocket.send`: its coroutines, future and task."""

KEY_COST: Final = 128
"""Bytes counted for the key of a waiting message besides the key itself: for its place in a table."""

_MIN_REMOVED: Final = 64
"""Entries that were dropped out of order are removed when there are more of them than this."""


def _deep_size(key: object) -> int:
    """Returns the bytes of a key; those of an object that has neither items nor a size are few."""
    size = getsizeof(key, ENTRY_COST)
    if isinstance(key, tuple | frozenset):
        size += sum(map(_deep_size, key))
    return size


class Waiting:
    """A waiting message. ``sent`` is resolved when it leaves (True) or the connection ends (False)."""

    __slots__ = ("droppable", "key", "message", "removed", "sent", "size")

    def __init__(
        self,
        message: PreparedMessage | str | bytes | None,
        size: int,
        *,
        droppable: bool,
        key: Hashable = NO_KEY,
        sent: asyncio.Future[bool] | None = None,
    ) -> None:
        self.message = message
        key_size = 0 if key is NO_KEY else KEY_COST + _deep_size(key)
        self.size = 0 if message is None else size + key_size + ENTRY_COST
        """Bytes that it counts for."""
        self.droppable = droppable
        self.removed = False
        """Whether it was sent or dropped; its entry may still be in a queue of the backlog."""
        self.key = key
        self.sent = sent

    def resolve(self, *, sent: bool) -> None:
        """Tells the caller of `send` whether the message has left."""
        if self.sent is not None and not self.sent.done():
            self.sent.set_result(sent)


class Backlog:
    """Waiting messages in the order of sending, and the calls of `send` that wait for room.

    A message that is dropped out of order stays in the queues as an empty entry until its turn comes, or
    until such entries are the majority. So every operation takes constant time on average.
    """

    __slots__ = (
        "_budget",
        "_by_key",
        "_count",
        "_droppable",
        "_queue",
        "awaited",
        "progress_timer",
        "senders",
        "senders_size",
        "size",
        "waiting_calls",
        "written",
    )

    def __init__(self, written: int, budget: Budget) -> None:
        self._budget = budget
        self._queue: deque[Waiting] = deque()
        self._droppable: deque[Waiting] = deque()
        self._by_key: dict[Hashable, Waiting] = {}
        self._count = 0
        self.size = 0
        """Bytes that all messages here count for."""
        self.written = written
        """Bytes given to the transport since the peer fell behind."""
        self.senders: deque[Waiting] = deque()
        """Messages of `send` that have no room yet."""
        self.senders_size = 0
        """Bytes that these count for."""
        self.waiting_calls = 0
        """Calls of `send` that wait."""
        self.awaited = False
        """Whether what the peer has sent waits until it has caught up."""
        self.progress_timer: Timer | None = None

    def __len__(self) -> int:
        return self._count

    def add_sender(self, waiting: Waiting) -> None:
        """Adds a message of `send`, which waits for room."""
        self.senders.append(waiting)
        self.senders_size += waiting.size

    def remove_sender(self, waiting: Waiting) -> None:
        """Removes a message that waits for room; does nothing if it does not."""
        if waiting in self.senders:
            self.senders.remove(waiting)
            self.senders_size -= waiting.size

    def admit_sender(self) -> None:
        """Queues the first message that waits for room."""
        waiting = self.senders.popleft()
        self.senders_size -= waiting.size
        self.append(waiting)

    def append(self, waiting: Waiting) -> None:
        if isinstance(waiting.message, PreparedMessage):
            self._budget.hold(waiting.message)
        self._queue.append(waiting)
        self._count += 1
        self.size += waiting.size
        if waiting.droppable:
            self._droppable.append(waiting)
        if waiting.key is not NO_KEY:
            self._by_key[waiting.key] = waiting

    def post(
        self, message: PreparedMessage, policy: Policy, room: int, count_drop: Callable[[str], object]
    ) -> bool:
        """Queues a message if the policy finds room: ``room`` bytes for all messages here.

        A single message may wait alone, whatever its size. ``count_drop`` is called for each message that is
        dropped, with its policy. Returns True if there is no room but the policy drops nothing: the peer then
        has to keep reading.
        """
        if policy == "volatile":
            count_drop("volatile")
            return False
        key = NO_KEY
        if isinstance(policy, Coalesce):
            key = policy.key
            if self.drop_key(key):
                count_drop("coalesce")
        waiting = Waiting(message, message.size, droppable=policy != "disconnect", key=key)
        room -= waiting.size
        over = False
        if self.size > room and self:
            if policy == "disconnect":
                over = True
            else:
                while policy != "drop_newest" and self.size > room and self.drop_oldest():
                    count_drop("drop_oldest")
                if self.size > room and self:
                    count_drop("drop_newest")
                    return False
        self.append(waiting)
        return over

    def popleft(self) -> Waiting:
        waiting = self._queue.popleft()
        while waiting.removed:
            waiting = self._queue.popleft()
        self._remove(waiting)
        while self._droppable and self._droppable[0].removed:
            self._droppable.popleft()
        return waiting

    def drop_key(self, key: Hashable) -> bool:
        """Drops the message with this key; returns False if there is none."""
        waiting = self._by_key.get(key)
        if waiting is None:
            return False
        self._drop(waiting)
        return True

    def drop_oldest(self) -> bool:
        """Drops the oldest message that may be dropped; returns False if there is none."""
        while self._droppable:
            waiting = self._droppable.popleft()
            if not waiting.removed:
                self._drop(waiting)
                return True
        return False

    def clear(self) -> None:
        """Drops everything; every waiting call of `send` learns that its message was not sent."""
        if self.progress_timer is not None:
            self.progress_timer.cancel()
        for waiting in self._queue:
            if not waiting.removed:
                self._remove(waiting)
        for waiting in (*self._queue, *self.senders):
            waiting.resolve(sent=False)
        self._queue.clear()
        self._droppable.clear()

    def _drop(self, waiting: Waiting) -> None:
        self._remove(waiting)
        waiting.message = None
        waiting.key = NO_KEY
        if len(self._queue) - self._count > self._count + _MIN_REMOVED:
            self._queue = deque(entry for entry in self._queue if not entry.removed)
            self._droppable = deque(entry for entry in self._droppable if not entry.removed)

    def _remove(self, waiting: Waiting) -> None:
        waiting.removed = True
        self._count -= 1
        self.size -= waiting.size
        if isinstance(waiting.message, PreparedMessage):
            self._budget.drop(waiting.message)
        if waiting.key is not NO_KEY:
            del self._by_key[waiting.key]
