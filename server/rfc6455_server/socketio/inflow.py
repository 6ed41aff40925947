"""What a session's messages are given to, and whether more may be read while their handlers are behind.

Left to others: the events themselves (`handlers`), reading (`session`).
"""

import asyncio
from typing import Final, Protocol

from rfc6455 import State
from rfc6455_server.clock import Clock
from rfc6455_server.socketio.engine import EngineSession

MAX_PENDING: Final = 1 << 20
"""When more bytes of events than this wait for their handlers, nothing more is read from the client, unless
an acknowledgement is awaited from it: that may stand behind the events that are still to come."""

MAX_PENDING_BEFORE_ACK: Final = 64 << 20
"""Maximum bytes of events that are read in search of an acknowledgement."""


class Receiver(Protocol):
    """Receives the messages of a session."""

    @property
    def awaits_acks(self) -> bool:
        """Whether somebody waits for an acknowledgement of this client."""

    def receive(self, message: str | bytes) -> None:
        """Handles a message."""

    def session_closed(self, reason: str) -> None:
        """Handles the end of the session. Called once."""


class Outliving(Protocol):
    """Events that are still handled although their socket, or the session, has ended."""

    def drop(self) -> int:
        """Drops those that wait, and returns how many."""


class Inflow:
    """How much of one client's events waits."""

    __slots__ = ("_clock", "_engine", "_waiters", "outliving", "pending", "receiver")

    def __init__(self, engine: EngineSession, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self.receiver: Receiver | None = None
        """Takes the messages; ``None`` before and after the session."""
        self._waiters: list[asyncio.Future[None]] = []
        self.pending = 0
        """Bytes of the events that wait."""
        self.outliving: set[Outliving] = set()

    def drop_outliving(self) -> int:
        """Drops the events that nothing else would drop, and returns how many."""
        outliving, self.outliving = self.outliving, set()
        return sum([events.drop() for events in outliving])

    def release(self, size: int) -> None:
        """Records that events of ``size`` bytes were handled or dropped."""
        self.pending = max(0, self.pending - size)
        self.reconsider()

    def reconsider(self) -> None:
        """Wakes those who wait, if more may be read."""
        if self._waiters and not self._must_wait():
            self.wake()

    def wake(self) -> None:
        """Wakes those who wait: more may be read, or the session has ended."""
        wake(self._waiters)

    async def wait(self) -> None:
        """Waits while too much is pending, so that the client's sending is held back.

        Meanwhile no PONG is overdue: it may be unread. But a client from which an acknowledgement is awaited
        has to send it within `MAX_PENDING_BEFORE_ACK`, or it is not read, its PONG neither, and the session
        ends.
        """
        engine = self._engine
        while engine.state is not State.CLOSED and self._must_wait():
            engine.held_back = not self._awaits_acks()
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        if engine.held_back:
            engine.read_on(self._clock.time())

    def _awaits_acks(self) -> bool:
        return self.receiver is not None and self.receiver.awaits_acks

    def _must_wait(self) -> bool:
        if self.pending <= MAX_PENDING:
            return False
        return self.pending > MAX_PENDING_BEFORE_ACK or not self._awaits_acks()


def wake(waiters: list[asyncio.Future[None]]) -> None:
    """Resolves all of ``waiters``, and removes them."""
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    waiters.clear()
