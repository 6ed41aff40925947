"""Incoming messages: they wait here, in the batches in which the codec returned them, until they are taken.

When too many bytes wait, reading stops, and TCP pushes back on the peer. `Inbox.pull` is the one place that
asks the codec for events: it queues messages, and passes everything else to the owner, so that control
frames are answered whatever the handler is doing.

What waits counts against the server's budget, and so does what the codec holds of an unfinished message.
Such a message has to go on arriving.
"""

import asyncio
import logging
from collections import deque
from operator import attrgetter
from sys import getsizeof
from typing import ClassVar, Final

from rfc6455 import BinaryMessage, Connection, Event, LocalProtocolError, State, TextMessage
from rfc6455_server.clock import Timer
from rfc6455_server.limits import ReceiveRates
from rfc6455_server.logs import log
from rfc6455_server.websocket.hub import FEW_BYTES, Hub, NoOwner, Owner, Slowness
from rfc6455_server.websocket.outbox import MIN_PROGRESS, Outbox
from rfc6455_server.websocket.streams import CodecReader

MAX_UNREAD: Final = 1 << 18
"""Reading stops when more bytes of messages than this are unread; one read may exceed it."""

MESSAGE_COST: Final = 128
"""Bytes counted for each message besides its payload, so that empty messages are not free."""

BATCH_COST: Final = 896
"""Bytes counted for each batch of messages besides them: for the queue that holds it."""

_SMALL: Final = 64
_LARGE: Final = 1 << 12
"""Messages of fewer bytes on average count by their bytes on the wire: what holds them takes more. Those of
fewer than `_LARGE` do so too if nothing else is unread. Looking at each takes a tenth of an echo of 1 KiB
(``benchmarks/before_after.py``)."""

_data_of = attrgetter("data")

_NO_MESSAGES: Final[deque[Event]] = deque(maxlen=0)
_NO_OWNER: Final = NoOwner()


class Inbox:
    """The unread messages of one connection."""

    # Whether `_passed_on` does anything: a call for each message would take longer than looking here.
    _calls: ClassVar = False

    __slots__ = (
        "_charged",
        "_connection",
        "_finished",
        "_handled",
        "_hub",
        "_later",
        "_mark",
        "_outbox",
        "_owner",
        "_partial",
        "_pull_scheduled",
        "_rates",
        "_reader",
        "_taken_size",
        "_timer",
        "_unread",
        "_waiter",
        "_waits_turn",
        "messages",
        "paused",
    )

    def __init__(
        self, connection: Connection, reader: CodecReader, outbox: Outbox, owner: Owner, hub: Hub
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._outbox = outbox
        self._owner: Owner = owner
        self._hub = hub
        limits = hub.limits
        rated = limits.message_rate is not None or limits.byte_rate is not None
        self._rates = ReceiveRates(limits, hub.clock.time()) if rated else None
        self.messages: deque[Event] = _NO_MESSAGES
        """The batch that is being taken; empty before `wait`, and after the last message of a batch."""
        self._taken_size = 0  # the bytes that this batch counts for
        self._later: list[tuple[deque[Event], int]] = []  # the batches behind it
        self._unread = 0  # bytes of all batches
        self._partial = 0  # bytes that the codec holds
        self._charged = 0  # bytes of both that count in the budget
        self._handled = False  # the handler has ended
        self._timer: Timer | None = None  # runs at least while a message is unfinished
        self._mark: int | None = None  # `_partial` when it was started, unless a message has ended since
        self.paused = False
        """Whether reading has stopped because too much is unread."""
        self._waiter: asyncio.Future[None] | None = None
        self._finished = False
        self._pull_scheduled = False
        self._waits_turn = False  # reading has stopped until it has parsed what has come

    @property
    def unread_bytes(self) -> int:
        """Bytes of memory of unread messages, with what holds them."""
        return self._unread

    async def wait(self) -> bool:
        """Waits until ``messages`` has one to take; returns False if there is none and input has ended.

        Raises `LocalProtocolError` if another task is waiting.
        """
        if self._waiter is not None:
            raise LocalProtocolError("another task is waiting in recv()", slug="concurrent-recv")
        while not self._later:
            if self._finished:
                return False
            # What the handler has sent leaves before the handler waits.
            self._outbox.flush_scheduled()
            self._waiter = self._hub.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self.messages, self._taken_size = self._later.pop(0)
        return True

    def take(self) -> str | bytes:
        """Removes the next of ``messages`` and returns it."""
        messages = self.messages
        message = messages.popleft().data  # type: ignore[union-attr]  # batches hold messages only
        if not messages:
            self.messages = _NO_MESSAGES
            self._unread -= self._taken_size
            if self._charged:
                self._charge()
            if self.paused and self._unread <= MAX_UNREAD:
                self.resume()
        return message

    def resume(self) -> None:
        """Resumes reading, and processes the input that is there."""
        self.paused = False
        self._mark = None  # while it was paused, nothing could arrive
        self._reader.resume()
        self.pull()

    def stop(self) -> None:
        """This side has begun to close: finds the peer's Close behind unread messages."""
        self.resume()

    def go_on(self) -> None:
        """The peer has caught up, or will never."""

    def _passed_on(self, batch: deque[Event]) -> bool:
        """Whether all messages have gone another way than through the queue (`calls`)."""
        return False

    def pull(self) -> None:
        """Takes events from the codec: queues messages, and passes other events to the owner."""
        connection = self._connection
        while not self.paused:
            batch = connection.next_batch()
            if not batch:
                self._count_partial(connection.held)
                if connection.yielded:
                    self._reader.pause()  # what else arrives would wait, and grow
                    self._waits_turn = True
                    self._pull_later()
                return
            kind = type(batch[0])
            if kind is not TextMessage and kind is not BinaryMessage:
                for event in batch:
                    self._owner.handle_event(event)
                if connection.unread:
                    continue
                self._count_partial(connection.held)
                return
            self._queue(batch)
            waiter = self._waiter
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
            self._mark = None
            self._partial = 0
            if connection.unread:
                self._partial = connection.held
                if not self.paused:
                    # The handler answers these messages before a frame is read that may end the connection.
                    self._pull_later()
            if self._charged or self._unread + self._partial > FEW_BYTES:
                self._charge()
            return

    def _pull_later(self) -> None:
        """Pulls again after others have had a turn, once, however often input arrives until then."""
        if not self._pull_scheduled:
            self._pull_scheduled = True
            self._hub.loop.call_soon(self._pull_again)

    def _pull_again(self) -> None:
        self._pull_scheduled = False
        if self._waits_turn:
            self._waits_turn = False
            if not self.paused:
                self._reader.resume()
        self.pull()

    def receive_eof(self) -> None:
        """Processes the remaining input even if reading was paused: at most one read is left."""
        self.paused = False
        self.pull()

    def finish(self) -> None:
        """The connection has ended: `wait` returns False once all messages are taken."""
        self._finished = True
        if self._timer is not None:
            self._timer.cancel()
        self._count_partial(0)  # the codec has dropped it
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def release(self) -> None:
        """Drops the reference to the owner. Call it when TCP is closed."""
        self._owner = _NO_OWNER

    # The budget, and the time that a message may take.

    def _charge(self) -> None:
        size = self._unread + self._partial
        if size <= FEW_BYTES or self._handled:
            size = 0
        if size != self._charged:
            budget = self._hub.budget
            budget.incoming += size - self._charged
            self._charged = size
            budget.charge(self, size)

    def stop_counting(self) -> None:
        """Records that the handler has ended: what is unread waits for nobody, and no longer counts."""
        self._handled = True
        self._charge()

    def disconnect_slow(self, slowness: Slowness) -> None:
        """Drops what is unread, and ends the connection: of all peers, most bytes wait for its handler."""
        dropped = len(self.messages) + sum([len(batch) for batch, _ in self._later])
        if dropped:
            log(logging.INFO, "unread messages dropped", messages=dropped, reason=slowness)
        self.messages = _NO_MESSAGES
        self._later.clear()
        self._unread = self._partial = 0
        self._charge()
        self._owner.disconnect_slow(slowness)

    def _count_partial(self, size: int) -> None:
        """Records what the codec holds of a message that has not arrived whole."""
        self._partial = size
        if size and self._timer is None and not self._finished:
            self._start_timer()
        if self._charged or size > FEW_BYTES:
            self._charge()

    def _start_timer(self) -> None:
        self._mark = self._partial
        self._timer = self._hub.clock.call_later(self._hub.limits.receive_timeout, self._check_progress)

    def _check_progress(self) -> None:
        """Ends the connection if a message is unfinished, and was at the last check, and hardly grew."""
        self._timer = None
        if not self._partial:
            return
        if self.paused or self._mark is None or self._partial - self._mark >= MIN_PROGRESS:
            self._start_timer()
        else:
            self._owner.disconnect_slow("receive timeout")

    def _queue(self, batch: deque[Event]) -> None:
        """Queues messages. Above `MAX_UNREAD` it stops reading, or, after our Close, drops them."""
        count, size = len(batch), self._connection.batch_size
        self._hub.stats.messages_in += count
        if self._rates is not None and not self._rates.take(count, size, self._hub.clock.time()):
            self._owner.disconnect_fast()
            return
        if self._calls and self._passed_on(batch):
            return
        if size > _LARGE * count or (self._later and size > _SMALL * count):
            # Text takes up to four bytes for each byte on the wire.
            size = sum(map(getsizeof, map(_data_of, batch)))
        size += MESSAGE_COST * count + BATCH_COST
        if self._unread > MAX_UNREAD and self._connection.state is not State.OPEN:
            return  # nobody reads any more, and only the peer's Close matters
        self._later.append((batch, size))
        self._unread += size
        if self._unread > MAX_UNREAD and self._connection.state is State.OPEN:
            self.paused = True
            self._reader.pause()
