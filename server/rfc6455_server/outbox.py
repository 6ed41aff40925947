"""Outgoing messages: queued during a tick of the event loop, written once at its end; bounded in bytes.

Left to others: what is sent (`websocket`, `rooms`), and ending a connection that is too slow (`websocket`).

While the peer keeps up, the queue is the output of the `Connection`, so that frames leave in the
program's order whoever queued them, and many messages cost one write. When the operating system takes no
more, the connection is *behind*: messages wait in a `Backlog`, whole and not yet compressed, so that a
policy may drop one without harm to the others. The transport's own buffer never holds more than the
write that did not fit.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Literal, Protocol, get_args

from rfc6455 import Connection, PreparedMessage
from rfc6455_server.limits import Limits
from rfc6455_server.stats import Stats

MAX_UNWRITTEN: Final = 1 << 16
"""Bytes from which on frames are written at once, and do not wait for the tick's end."""

MIN_PROGRESS: Final = 1 << 16
"""Bytes that a peer must take within the send time-out, if it has not taken all."""


@dataclass(frozen=True, slots=True)
class Coalesce:
    """The policy `coalesce`."""

    key: Hashable | Callable[[str | bytes], Hashable]

    def resolve(self, message: str | bytes) -> "Coalesce":
        """The policy for this message: its key, if it is a function, is asked once."""
        return Coalesce(self.key(message)) if callable(self.key) else self


_Word = Literal["disconnect", "drop_oldest", "drop_newest", "volatile"]

Policy = _Word | Coalesce
"""What happens to a message for a peer that is behind, once its queue is full.

``"disconnect"``: the connection ends with 1008; nothing is ever dropped. ``"drop_oldest"``: what waits
longest, and may be dropped, makes room. ``"drop_newest"``: the message itself is dropped. Two do not wait for
a full queue: ``"volatile"`` messages never wait, and of those with the same key in `coalesce` only the
newest.
"""


def coalesce(key: Hashable | Callable[[str | bytes], Hashable]) -> Coalesce:
    """The policy that a newer message replaces an older one with the same key that still waits.

    ``key`` is the key, or a function that gives a message's key. With different keys, the queue may be
    full all the same; then what waits longest, and may be dropped, makes room.
    """
    return Coalesce(key)


def check_policy(policy: Policy) -> Policy:
    """Gives ``policy``; raises `ValueError` for what is none."""
    if not isinstance(policy, Coalesce) and policy not in get_args(_Word):
        raise ValueError(f"not a policy: {policy!r}")
    return policy


class Tick:
    """Flushes, at the end of this tick of the loop, every outbox that has something to send."""

    __slots__ = ("_due", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: list[Outbox] = []

    def add(self, outbox: "Outbox") -> None:
        """Has ``outbox`` flushed at the end of this tick."""
        if not self._due:
            self._loop.call_soon(self._flush)
        self._due.append(outbox)

    def _flush(self) -> None:
        due, self._due = self._due, []
        for outbox in due:
            outbox.rest()


class Budget:
    """The bytes that wait for all peers of a server together, and their bound."""

    __slots__ = ("_behind", "_limit", "queued")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.queued = 0
        """Bytes that wait now."""
        self._behind: dict[Outbox, int] = {}

    def charge(self, outbox: "Outbox", size: int) -> None:
        """Says how many bytes wait in an outbox now. Beyond the bound, who has most is let go."""
        self.queued += size - self._behind.get(outbox, 0)
        self._behind[outbox] = size
        while self.queued > self._limit:
            max(self._behind, key=self._behind.__getitem__).give_up("budget")

    def release(self, outbox: "Outbox") -> None:
        """Nothing waits there any more."""
        self.queued -= self._behind.pop(outbox, 0)


class Clock(Protocol):
    """What tells the time, in seconds, and calls back; an event loop does, and so does a test's clock."""

    def time(self) -> float:
        """Seconds since some point."""

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> "Timer":
        """Calls back after ``delay`` seconds, unless the timer is cancelled."""


class Timer(Protocol):
    """What `Clock.call_later` gives."""

    def cancel(self) -> None:
        """Has the call left out."""


class Shared:
    """What the outboxes of one server have in common; a client's connection has its own."""

    __slots__ = ("budget", "clock", "limits", "loop", "policy", "stats", "tick")

    def __init__(
        self, limits: Limits, *, clock: Clock | None = None, policy: Policy = "disconnect", stats: Stats
    ) -> None:
        # Kept, because asking for it is a system call (before Python 3.12).
        self.loop = loop = asyncio.get_running_loop()
        self.limits = limits
        self.clock: Clock = clock or loop
        self.policy = policy
        self.stats = stats
        self.tick = Tick(loop)
        self.budget = Budget(limits.max_total_queue)


GiveUp = Literal["slow", "budget", "send time-out"]
"""Why a peer is given up: its queue is full, all queues are, or somebody waits for too long."""


class Owner(Protocol):
    """What an outbox needs of its `WebSocket`."""

    def give_up(self, why: GiveUp) -> None:
        """Ends the connection: its peer does not read."""


class _Nobody:
    """The owner of an outbox whose connection is over."""

    def give_up(self, why: GiveUp) -> None:
        """Has been given up."""


_NOBODY: Final = _Nobody()


class _Waiting:
    """A message that waits: its size in bytes, the key of `coalesce`, and who is told when it has left."""

    __slots__ = ("droppable", "key", "message", "sent", "size")

    def __init__(
        self,
        message: PreparedMessage | str | bytes | None,
        size: int,
        droppable: bool,
        key: Hashable = None,
        sent: asyncio.Future[bool] | None = None,
    ) -> None:
        self.message = message
        self.size = size
        self.droppable = droppable
        self.key = key
        self.sent = sent

    def tell(self, sent: bool) -> None:
        """Tells who waits whether the message has left."""
        if self.sent is not None and not self.sent.done():
            self.sent.set_result(sent)


class _Backlog:
    """What waits for a peer that is behind, in the program's order; and who waits to add to it."""

    __slots__ = (
        "_by_key",
        "_droppable",
        "_next",
        "_waiting",
        "awaited",
        "handed",
        "senders",
        "size",
        "timer",
    )

    def __init__(self, handed: int) -> None:
        # Ordered dictionaries: the first, or any other, is taken out in constant time.
        self._waiting: OrderedDict[int, _Waiting] = OrderedDict()
        self._droppable: OrderedDict[int, None] = OrderedDict()
        self._by_key: dict[Hashable, int] = {}
        self._next = 0
        self.size = 0  # bytes of all messages here
        self.handed = handed  # bytes that the transport was handed since this began
        self.senders: deque[_Waiting] = deque()  # there is no room for these yet
        self.awaited = 0  # how many calls of send wait
        self.timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def append(self, waiting: _Waiting) -> None:
        number = self._next
        self._next += 1
        self._waiting[number] = waiting
        self.size += waiting.size
        if waiting.droppable:
            self._droppable[number] = None
        if waiting.key is not None:
            self._by_key[waiting.key] = number

    def popleft(self) -> _Waiting:
        return self._remove(next(iter(self._waiting)))

    def drop_key(self, key: Hashable) -> bool:
        """Drops the message with this key; False when there is none."""
        number = self._by_key.get(key)
        if number is None:
            return False
        self._remove(number)
        return True

    def drop_oldest(self) -> bool:
        """Drops the first message that may be dropped; False when there is none."""
        if not self._droppable:
            return False
        self._remove(next(iter(self._droppable)))
        return True

    def _remove(self, number: int) -> _Waiting:
        waiting = self._waiting.pop(number)
        self.size -= waiting.size
        self._droppable.pop(number, None)
        if waiting.key is not None:
            del self._by_key[waiting.key]
        return waiting


class Outbox:
    """What one connection has to send."""

    __slots__ = (
        "_backlog",
        "_connection",
        "_eager",
        "_finished",
        "_lost",
        "_owner",
        "_scheduled",
        "_shared",
        "_transport",
        "_unwritten",
        "behind",
        "dropped",
    )

    def __init__(
        self, connection: Connection, transport: asyncio.WriteTransport, owner: Owner, shared: Shared
    ) -> None:
        self._connection = connection
        self._transport = transport
        self._owner = owner
        self._shared = shared
        self._scheduled = False
        self._eager = True
        self._unwritten = 0  # bytes that were queued since the last write, roughly
        self._backlog: _Backlog | None = None
        self._finished = False
        self._lost = False
        self.behind = False
        """The peer does not keep up: what is to be sent goes through `post` and `send`."""
        self.dropped = 0
        """Messages that this peer did not get, because it was too slow."""
        # We are told as soon as a write does not fit, and again when all of it has left.
        transport.set_write_buffer_limits(high=1, low=0)

    # A peer that keeps up.

    def send_soon(self, size: int) -> bool:
        """Has what is queued written now, if this is the first time since `rest`, else at the tick's end.

        The answer to a single message leaves without a turn of the loop, many in a row leave together. True
        when others should have a turn before more is sent: much was written, or nothing can be any more.
        """
        if self._eager:
            self._eager = False
            self._write()
            return self._lost or size > MAX_UNWRITTEN
        return self.schedule(size)

    def rest(self) -> None:
        """Writes what was scheduled: whoever sends is about to wait."""
        self._eager = True
        if self._scheduled:
            self._scheduled = False
            self.flush()

    def schedule(self, size: int) -> bool:
        """Has what is queued, ``size`` bytes more, written at the end of this tick; at once if it is much.

        True when it was much.
        """
        self._unwritten += size
        if self._unwritten > MAX_UNWRITTEN:
            self.flush()
            return True
        if not self._scheduled:
            self._scheduled = True
            self._shared.tick.add(self)
        return False

    def flush(self) -> None:
        """Writes what is queued now."""
        if not self.behind:
            self._write()

    def _write(self) -> int:
        """Gives the transport what the codec has; it may call `pause`. Gives the number of bytes."""
        self._unwritten = 0
        data = self._connection.data_to_send()
        if not data:
            return 0
        if self._transport.is_closing():
            self._lost = True  # TCP is gone, and we have yet to be told
            return 0
        self._shared.stats.bytes_out += len(data)
        self._transport.write(data)
        return len(data)

    # A peer that is behind.

    @property
    def size(self) -> int:
        """Bytes that wait: here, and in the transport."""
        waiting = self._backlog.size if self._backlog else 0
        return waiting + self._transport.get_write_buffer_size()

    def pause(self) -> None:
        """The transport could not write all that it was given."""
        if self._finished:
            return
        self.behind = True
        if self._backlog is None:
            self._backlog = _Backlog(self._transport.get_write_buffer_size())
        self._shared.budget.charge(self, self.size)

    def resume(self) -> None:
        """The transport has written all that it was given: what waits follows, as far as it goes."""
        backlog = self._backlog
        if backlog is None:
            return
        self.behind = False
        while not self.behind and self._backlog is backlog:
            size = 0
            while backlog and size < MAX_UNWRITTEN:
                size += self._encode(backlog.popleft())
            self._admit(backlog)
            written = self._write()
            backlog.handed += written
            if not written:
                self._forget_backlog()
                return
        if self._backlog is backlog:
            self._shared.budget.charge(self, self.size)

    def post(self, message: PreparedMessage, policy: Policy) -> None:
        """Queues a message for a peer that is behind, if there is room. Never waits."""
        backlog = self._backlog
        assert backlog is not None  # noqa: S101 - it is behind
        if policy == "volatile":
            self._count_drop("volatile")
            return
        size = len(message.plain_frame)
        key = None
        if isinstance(policy, Coalesce):
            key = policy.key
            if backlog.drop_key(key):
                self._count_drop("coalesce")
        in_transport = self._transport.get_write_buffer_size()
        room = self._shared.limits.max_queue - in_transport - size  # for what waits here already
        if backlog.size > room and backlog:
            if policy == "disconnect":
                self.give_up("slow")
                return
            while policy != "drop_newest" and backlog.size > room and backlog.drop_oldest():
                self._count_drop("drop_oldest")
            if backlog.size > room and backlog:
                self._count_drop("drop_newest")
                return
        backlog.append(_Waiting(message, size, policy != "disconnect", key))
        self._shared.budget.charge(self, backlog.size + in_transport)

    async def send(self, message: PreparedMessage | str | bytes | None, size: int) -> bool:
        """Queues a message for a peer that is behind, as soon as there is room, and waits until it has left.

        False when the connection ended before. Cancelled while there is no room, it leaves the message out.
        """
        backlog = self._backlog
        assert backlog is not None  # noqa: S101 - it is behind
        waiting = _Waiting(message, size, droppable=False, sent=self._shared.loop.create_future())
        backlog.senders.append(waiting)
        backlog.awaited += 1
        self._admit(backlog)
        if backlog.timer is None:
            self._watch(backlog)
        assert waiting.sent is not None  # noqa: S101 - for the type
        try:
            self._shared.budget.charge(self, self.size)
            return await waiting.sent
        finally:
            backlog.awaited -= 1
            if waiting in backlog.senders:
                backlog.senders.remove(waiting)

    async def drain(self) -> bool:
        """Waits until all that is queued now has left; False when the connection ended before."""
        self._eager = True
        self.flush()
        if self.behind:
            return await self.send(None, 0)
        return not self._finished

    def give_up(self, why: GiveUp) -> None:
        """Ends the connection."""
        self._forget_backlog()
        self._owner.give_up(why)

    def hand_over(self) -> None:
        """Has the codec encode all that waits: a Close is to follow it."""
        backlog = self._backlog
        while backlog:
            self._encode(backlog.popleft())

    def finish(self) -> None:
        """Writes what the codec still has, its Close the last; what waits is dropped."""
        self._finished = True
        self._forget_backlog()
        self._write()

    def release(self) -> None:
        """TCP is gone: nothing here is needed any more, and nothing keeps its owner alive."""
        self._finished = True
        self._forget_backlog()
        self._owner = _NOBODY

    def _encode(self, waiting: _Waiting) -> int:
        message = waiting.message
        if isinstance(message, PreparedMessage):
            self._connection.send_prepared(message)
        elif isinstance(message, str):
            self._connection.send_text(message)
        elif message is not None:  # nothing marks the place that `drain` waits for
            self._connection.send_binary(message)
        waiting.tell(True)
        return waiting.size

    def _admit(self, backlog: _Backlog) -> None:
        """Queues what `send` was given, as far as there is room: who came first is first."""
        while backlog.senders:
            if backlog and self.size + backlog.senders[0].size > self._shared.limits.max_queue:
                return
            backlog.append(backlog.senders.popleft())

    def _watch(self, backlog: _Backlog) -> None:
        """Looks, after the send time-out, whether the peer has taken anything."""
        taken = self._taken(backlog)
        timeout = self._shared.limits.send_timeout
        backlog.timer = self._shared.clock.call_later(timeout, self._look, backlog, taken)

    def _look(self, backlog: _Backlog, taken: int) -> None:
        backlog.timer = None
        if not backlog.awaited:
            return
        if self._taken(backlog) - taken < MIN_PROGRESS:
            self.give_up("send time-out")
        else:
            self._watch(backlog)

    def _taken(self, backlog: _Backlog) -> int:
        return backlog.handed - self._transport.get_write_buffer_size()

    def _forget_backlog(self) -> None:
        backlog, self._backlog = self._backlog, None
        self.behind = False
        if backlog is None:
            return
        self._shared.budget.release(self)
        if backlog.timer is not None:
            backlog.timer.cancel()
        while backlog:
            backlog.popleft().tell(False)
        for waiting in backlog.senders:
            waiting.tell(False)

    def _count_drop(self, policy: str) -> None:
        self.dropped += 1
        self._shared.stats.dropped[policy] += 1
