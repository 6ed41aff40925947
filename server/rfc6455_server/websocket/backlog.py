"""The messages that wait for a peer that is behind, whole and not yet compressed.

Left to others: when a message is queued, dropped or encoded (`outbox`).
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Final

from rfc6455 import PreparedMessage
from rfc6455_server.clock import Timer

NO_KEY: Final = object()
"""The key of a message that is not coalesced; ``None`` is a key."""


class Waiting:
    """A waiting message. ``sent`` is resolved when it leaves (True) or the connection ends (False)."""

    __slots__ = ("droppable", "key", "message", "sent", "size")

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
        self.size = size  # bytes
        self.droppable = droppable
        self.key = key
        self.sent = sent

    def resolve(self, *, sent: bool) -> None:
        """Tells the caller of `send` whether the message has left."""
        if self.sent is not None and not self.sent.done():
            self.sent.set_result(sent)


class Backlog:
    """Waiting messages in the order of sending, and the calls of `send` that wait for room."""

    __slots__ = (
        "_by_key",
        "_droppable",
        "_next_number",
        "_waiting",
        "progress_timer",
        "senders",
        "size",
        "waiting_calls",
        "written",
    )

    def __init__(self, written: int) -> None:
        # Ordered dictionaries: removing the first or any other message takes constant time.
        self._waiting: OrderedDict[int, Waiting] = OrderedDict()
        self._droppable: OrderedDict[int, None] = OrderedDict()
        self._by_key: dict[Hashable, int] = {}
        self._next_number = 0
        self.size = 0
        """Bytes of all messages here."""
        self.written = written
        """Bytes given to the transport since the peer fell behind."""
        self.senders: deque[Waiting] = deque()
        """Messages of `send` that have no room yet."""
        self.waiting_calls = 0
        """Calls of `send` that wait."""
        self.progress_timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def append(self, waiting: Waiting) -> None:
        number = self._next_number
        self._next_number += 1
        self._waiting[number] = waiting
        self.size += waiting.size
        if waiting.droppable:
            self._droppable[number] = None
        if waiting.key is not NO_KEY:
            self._by_key[waiting.key] = number

    def popleft(self) -> Waiting:
        return self._remove(next(iter(self._waiting)))

    def drop_key(self, key: Hashable) -> bool:
        """Drops the message with this key; returns False if there is none."""
        number = self._by_key.get(key)
        if number is None:
            return False
        self._remove(number)
        return True

    def drop_oldest(self) -> bool:
        """Drops the oldest message that may be dropped; returns False if there is none."""
        if not self._droppable:
            return False
        self._remove(next(iter(self._droppable)))
        return True

    def clear(self) -> None:
        """Drops everything; every waiting call of `send` learns that its message was not sent."""
        if self.progress_timer is not None:
            self.progress_timer.cancel()
        while self._waiting:
            self.popleft().resolve(sent=False)
        for waiting in self.senders:
            waiting.resolve(sent=False)

    def _remove(self, number: int) -> Waiting:
        waiting = self._waiting.pop(number)
        self.size -= waiting.size
        self._droppable.pop(number, None)
        if waiting.key is not NO_KEY:
            del self._by_key[waiting.key]
        return waiting
