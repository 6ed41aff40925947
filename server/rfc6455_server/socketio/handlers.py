"""The order in which the handlers of one socket run, and how the answer to an event comes together.

Left to others: which handlers an event has (`registering`, `sockets`), and what a failure does to the socket
(`sockets`).

A socket's handlers of ``connect`` run first, then those of its events, one after the other, except concurrent
ones. Its end waits for those of ``connect`` only: a handler that hangs does not hide it.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

from rfc6455_server.socketio.session import Session

EVENT_OVERHEAD: Final = 1024
"""Bytes counted for each event besides its data: for the objects that hold it while it waits."""

_TASK_COST: Final = 4096
"""Bytes counted for a task of ``connect`` or of the end, with its share of the socket: a client that connects
and disconnects in turn is held back while such handlers are behind."""

_RUNNING_COST: Final = 2048
"""Bytes counted for the task of a concurrent event besides the event, with what its handler holds."""

Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]
"""Runs a coroutine in a task that the server waits for when it stops."""


Call = Callable[[], Awaitable[object]]


class HandlerQueue:
    """The handlers of one socket that wait to run. Their events count against the session until then.

    The calls that it is given never raise.
    """

    __slots__ = ("_opening", "_outlives", "_session", "_spawn", "_waiting", "_worker")

    def __init__(self, session: Session, spawn: Spawn) -> None:
        self._session = session
        self._spawn = spawn
        self._opening: asyncio.Task[None] | None = None
        # Each with the bytes that its event counts for, and whether it is concurrent (`append`).
        self._waiting: deque[tuple[Call, int, Callable[[], bool]]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._outlives = False

    @property
    def opening(self) -> bool:
        """Whether the first call, that of `open`, has not ended."""
        return self._opening is not None

    def open(self, call: Call) -> None:
        """Runs ``call`` before all others. Call it first, or not at all."""
        self._session.charge(_TASK_COST)
        self._opening = self._spawn(self._open(call))

    def append(self, call: Call, size: int, is_concurrent: Callable[[], bool]) -> None:
        """Runs ``call`` after those before it; its event counts for ``size`` bytes.

        If ``is_concurrent`` then says so, it waits only for that of `open`.
        """
        if self._opening is None and is_concurrent():
            self._session.charge(size + _RUNNING_COST)
            self._spawn(self._run(call, size + _RUNNING_COST))
        else:
            self._session.charge(size)
            self._wait(call, size, is_concurrent)

    def start(self, call: Call) -> None:
        """Runs ``call`` now, in a task of its own."""
        self._spawn(self._run(call, 0))

    def drop(self) -> int:
        """Drops the calls that wait, and returns how many."""
        dropped = list(self._waiting)
        self._waiting.clear()
        self._session.release(sum(size for _, size, _ in dropped))
        return len(dropped)

    def outlive(self) -> None:
        """Goes on with what waits, although the socket has ended."""
        if self._waiting:
            self._outlives = True
            self._session.outliving.add(self)

    def finish(self, call: Call, size: int) -> "asyncio.Task[None]":
        """Runs ``call`` when that of `open` has ended; what it needs counts for ``size`` bytes."""
        cost = (
            _TASK_COST + size if self._session.is_open else 0
        )  # a session that has ended makes no more of them
        self._session.charge(cost)
        return self._spawn(self._finish(call, self._opening, cost))

    async def _open(self, call: Call) -> None:
        try:
            await call()
        except asyncio.CancelledError:
            self.drop()  # the server stops, and waits for no new task
            raise
        finally:
            self._session.release(_TASK_COST)
            self._opening = None
            waiting = list(self._waiting)
            self._waiting.clear()
            for waiting_call, size, is_concurrent in waiting:
                if is_concurrent():
                    self._session.charge(_RUNNING_COST)
                    self._spawn(self._run(waiting_call, size + _RUNNING_COST))
                else:
                    self._wait(waiting_call, size, is_concurrent)

    def _wait(self, call: Call, size: int, is_concurrent: Callable[[], bool]) -> None:
        self._waiting.append((call, size, is_concurrent))
        if self._opening is None and self._worker is None:
            self._worker = self._spawn(self._work())

    async def _work(self) -> None:
        """Runs what waits, one after the other. A socket has a task only while something waits."""
        try:
            while self._waiting:
                call, size, _ = self._waiting.popleft()
                try:
                    await call()
                finally:
                    self._session.release(size)
        finally:
            self._worker = None
            if self._outlives:
                self._session.outliving.discard(self)

    async def _run(self, call: Call, size: int) -> None:
        try:
            await call()
        finally:
            self._session.release(size)

    async def _finish(self, call: Call, opening: "asyncio.Task[None] | None", cost: int) -> None:
        try:
            if opening is not None:
                await asyncio.wait([opening])
            await call()
        finally:
            self._session.release(cost)


class EventAck:
    """The acknowledgement of one event (`registering.Ack`): sent once, if the client asked for it."""

    __slots__ = ("_failed", "_id", "_running", "_send")

    def __init__(
        self, id_: int | None, send: Callable[[int, Sequence[Any]], bool], handlers: int = 0
    ) -> None:
        """``handlers``: how many handlers of the event may answer with their results."""
        self._id = id_
        self._send = send
        self._running = handlers
        self._failed = False

    @property
    def wanted(self) -> bool:
        return self._id is not None

    def __call__(self, *values: Any) -> bool:
        if self._id is None:
            return False
        sent = self._send(self._id, values)
        self._id = None
        return sent

    def offer(self, result: object) -> None:
        """Answers with a handler's result; with ``None``, only if it is the last: then with no value."""
        self._running -= 1
        if result is not None:
            self(*(result if isinstance(result, tuple) else (result,)))
        elif not self._running and not self._failed:
            self()

    def fail(self) -> None:
        """Records that a handler has failed: the client must not take this for an answer."""
        self._running -= 1
        self._failed = True
