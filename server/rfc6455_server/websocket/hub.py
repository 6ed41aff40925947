"""What the connections of one server share: limits, clock, counters, one write a tick, one queue budget."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Literal, Protocol

from rfc6455 import Event, PreparedMessage, Request
from rfc6455_server.clock import Clock
from rfc6455_server.limits import Limits
from rfc6455_server.policies import Policy
from rfc6455_server.stats import Stats
from rfc6455_server.websocket.lingering import Lingering
from rfc6455_server.websocket.reports import Cause, CloseReport

Slowness = Literal["backlog full", "budget exceeded", "send timeout", "receive timeout"]
"""Why a slow peer is disconnected: its backlog is full, or all that waits; `send` waits too long; a message
takes too long to arrive."""

SLOWNESS_CAUSES: Final[dict[Slowness, Cause]] = {
    "backlog full": Cause.SLOW_CONSUMER,
    "budget exceeded": Cause.BUDGET,
    "send timeout": Cause.SEND_TIMEOUT,
    "receive timeout": Cause.RECEIVE_TIMEOUT,
}

FEW_BYTES: Final = 1 << 12
"""Fewer bytes than this, of messages or of a head, are not counted in the budget: a connection takes more."""

_FIELD_COST: Final = 256
"""Bytes counted for each field of a head besides its characters."""


def head_size(request: Request) -> int:
    """Returns the bytes of memory that the head of a request takes."""
    return len(request.target) + sum(
        [_FIELD_COST + len(name) + len(value) for name, value in request.headers]
    )


class Owner(Protocol):
    """What an inbox and an outbox need of their `WebSocket`."""

    def handle_event(self, event: Event) -> None:
        """Handles an event that is not a message."""

    def disconnect_fast(self) -> None:
        """Ends the connection: the peer sends faster than its rate allows."""

    def disconnect_slow(self, slowness: Slowness) -> None:
        """Ends the connection: the peer does not read."""

    def caught_up(self) -> None:
        """The peer has taken all that waited."""

    def end_after(self, error: BaseException) -> None:
        """Ends the connection: its handler has raised ``error``."""


class NoOwner:
    """Replaces the owner when TCP is closed, so that the `WebSocket` is freed at once."""

    def handle_event(self, event: Event) -> None:
        """Does nothing."""

    def disconnect_fast(self) -> None:
        """Does nothing."""

    def disconnect_slow(self, slowness: Slowness) -> None:
        """Does nothing."""

    def caught_up(self) -> None:
        """Does nothing."""

    def end_after(self, error: BaseException) -> None:
        """Does nothing."""


class Writing(Protocol):
    """What `Tick` needs of an `Outbox`."""

    def flush_scheduled(self) -> None:
        """Writes what was scheduled for the end of this tick."""


class Holder(Protocol):
    """What `Budget` needs of whatever holds bytes for a peer, such as an `Outbox`."""

    def disconnect_slow(self, slowness: Slowness) -> None:
        """Drops all that it holds, and ends the connection."""


class Tick:
    """Flushes, at the end of this tick of the loop, every outbox that has frames to write."""

    __slots__ = ("_loop", "_scheduled")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._scheduled: list[Writing] = []

    def schedule(self, outbox: Writing) -> None:
        """Flushes ``outbox`` at the end of this tick."""
        if not self._scheduled:
            self._loop.call_soon(self._flush)
        self._scheduled.append(outbox)

    def _flush(self) -> None:
        scheduled, self._scheduled = self._scheduled, []
        for outbox in scheduled:
            outbox.flush_scheduled()


class Budget:
    """The bytes that wait for, or from, all peers of a server together, and their limit.

    A message that waits for many peers counts once here, besides the objects that hold it for each of them,
    and with its compressed forms.
    """

    __slots__ = ("_compressed", "_holders", "_limit", "_shared", "_sizes", "_total", "_trimming", "incoming")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._total = 0
        self._sizes: dict[Holder, int] = {}
        self._holders: dict[PreparedMessage, int] = {}
        self._compressed: dict[PreparedMessage, int] = {}  # bytes of the compressed forms of these
        self._shared = 0  # bytes that `_total` counts once too often
        self._trimming = False
        self.incoming = 0
        """Bytes of messages that no handler has taken, and of unfinished ones: a part of ``queued``."""

    @property
    def queued(self) -> int:
        """Bytes that wait now."""
        return self._total - self._shared

    def hold(self, message: PreparedMessage) -> None:
        """Records that a backlog holds ``message``, which other ones may hold too."""
        holders = self._holders.get(message, 0)
        self._holders[message] = holders + 1
        if holders:
            self._shared += message.size
        else:
            self.recount(message)

    def recount(self, message: PreparedMessage) -> None:
        """Records that ``message`` may have been compressed, for a connection that need not be behind."""
        if message in self._holders and (size := message.compressed_size):
            self._total += size - self._compressed.get(message, 0)
            self._compressed[message] = size

    def drop(self, message: PreparedMessage) -> None:
        """Records that a backlog no longer holds ``message``."""
        holders = self._holders[message] - 1
        if holders:
            self._holders[message] = holders
            self._shared -= message.size
        else:
            del self._holders[message]
            self._total -= self._compressed.pop(message, 0)

    def charge(self, holder: Holder, size: int) -> None:
        """Records that ``size`` bytes wait in ``holder``.

        Over the limit, the peer for which most bytes wait is disconnected.
        """
        if not size:
            self.release(holder)
            return
        self._total += size - self._sizes.get(holder, 0)
        self._sizes[holder] = size
        if self._trimming:
            return  # a callback of a peer that is being disconnected has posted; the loop below goes on
        self._trimming = True
        try:
            while self.queued > self._limit:
                max(self._sizes, key=self._sizes.__getitem__).disconnect_slow("budget exceeded")
        finally:
            self._trimming = False

    def release(self, holder: Holder) -> None:
        """Records that nothing waits in ``holder``."""
        self._total -= self._sizes.pop(holder, 0)


class Hub:
    """What the connections of one server share; a client connection has a hub of its own."""

    __slots__ = (
        "budget",
        "by_id",
        "clock",
        "limits",
        "lingering",
        "loop",
        "loop_lag",
        "on_ended",
        "on_report",
        "pings",
        "policy",
        "stats",
        "tick",
        "wants_reports",
    )

    def __init__(
        self,
        limits: Limits,
        *,
        stats: Stats | None = None,
        clock: Clock | None = None,
        policy: Policy = "disconnect",
        on_report: Callable[[CloseReport], None] | None = None,
        wants_reports: Callable[[], bool] = lambda: True,
    ) -> None:
        # Kept, because ``asyncio.get_running_loop()`` is a system call before Python 3.12.
        self.loop = loop = asyncio.get_running_loop()
        self.limits = limits
        self.clock: Clock = clock or loop
        self.policy = policy
        self.stats = stats or Stats()
        self.tick = Tick(loop)
        self.budget = Budget(limits.max_total_queue)
        self.lingering = Lingering()
        self.on_report = on_report
        self.on_ended: Callable[[Any], object] = lambda _: None
        """Called with each `WebSocket` that has ended."""
        self.wants_reports = wants_reports
        self.by_id: dict[str, object] = {}
        """The open `WebSocket` of each id that was asked for."""
        self.pings: dict[bytes, float] = {}
        """When `keepalive` sent each Ping that can still be answered."""
        self.loop_lag = 0.0
        """The largest recent delay of the event loop, in seconds."""
