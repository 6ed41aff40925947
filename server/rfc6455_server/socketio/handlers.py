"""Handlers of events, and the order in which those of one socket run.

Left to others: which handler an event has (`namespaces`), and what a failure does to the socket (`sockets`).
"""

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, NamedTuple

from rfc6455_server.socketio.session import Session

EVENT_OVERHEAD: Final = 256
"""Bytes counted for each event besides its message, so that small events are not free."""

EventHandler = Callable[..., Any]
"""A function of the socket and the event's arguments, async or not."""


class RegisteredHandler(NamedTuple):
    """An event's handler, and whether it runs beside the socket's other handlers."""

    handler: EventHandler
    concurrent: bool


async def call_handler(handler: EventHandler, *arguments: Any) -> Any:
    """Calls ``handler``, async or not, and returns its result."""
    result = handler(*arguments)
    return await result if inspect.isawaitable(result) else result


Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]
"""Runs a coroutine in a task that the server waits for when it stops."""


Call = Callable[[], Awaitable[object]]


class HandlerQueue:
    """The handlers of one socket that wait to run. Their events count against the session until then."""

    __slots__ = ("_session", "_spawn", "_waiting", "_worker")

    def __init__(self, session: Session, spawn: Spawn) -> None:
        self._session = session
        self._spawn = spawn
        self._waiting: deque[tuple[Call, int]] = deque()
        self._worker: asyncio.Task[None] | None = None

    def append(self, call: Call, size: int) -> None:
        """Runs ``call``, which never raises, after those before it; its event counts for ``size`` bytes."""
        self._session.charge(size)
        self._waiting.append((call, size))
        if self._worker is None:
            self._worker = self._spawn(self._work())

    def start(self, call: Call, size: int) -> None:
        """Runs ``call`` in a task of its own."""
        self._session.charge(size)
        self._spawn(self._run(call, size))

    async def _work(self) -> None:
        """Runs what waits, one after the other. A socket has a task only while something waits."""
        try:
            while self._waiting:
                await self._run(*self._waiting.popleft())
        finally:
            self._worker = None

    async def _run(self, call: Call, size: int) -> None:
        try:
            await call()
        finally:
            self._session.release(size)
