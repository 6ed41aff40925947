"""Sends a client that came back what it missed, as fast as it takes it, before anything else.

Left to others: what it missed (`recovery`), keeping other messages back meanwhile (`session`).

Clients that return together take turns, so that no other connection waits for long.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

from rfc6455_server.logs import log
from rfc6455_server.socketio.reasons import TOO_SLOW
from rfc6455_server.socketio.recovery import Missed, MissedEventsDroppedError
from rfc6455_server.socketio.session import Session

_TURN_EVENTS: Final = 64
_TURN_BYTES: Final = 1 << 16
"""Events, and bytes of events, that a client is sent before others have their turn."""

_CLIENTS_PER_TURN: Final = 8
"""Clients that go on in one turn of the event loop."""


class Turns:
    """Wakes a few of those that wait, in their order, in each turn of the event loop."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Waits for one's turn."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._wake, loop)
        turn = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        for _ in range(min(_CLIENTS_PER_TURN, len(self._waiting))):
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
        if self._waiting:
            loop.call_soon(self._wake, loop)


class CatchUp:
    """Sends what one client missed. Until it is done, the session holds all other messages back."""

    def __init__(self, session: Session, missed: Missed, turns: Turns) -> None:
        self._session = session
        self._missed = missed
        self._turns = turns

    def start(self, spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        """Sends the first events now, and all others in a task. The session must be held."""
        if self._send_turn():
            spawn(self._send_rest())

    async def _send_rest(self) -> None:
        session = self._session
        await session.drain_transport()
        await self._turns.take()
        while session.held and self._send_turn():
            await session.drain_transport()
            await self._turns.take()

    def _send_turn(self) -> bool:
        """Sends some events; returns whether there are more. After the last, the session goes on."""
        session = self._session
        try:
            events = self._missed.take(_TURN_EVENTS, _TURN_BYTES)
        except MissedEventsDroppedError as error:
            log(logging.INFO, "client too slow", address=session.address, reason=str(error))
            session.fail(TOO_SLOW)
            return False
        session.send_missed(events)
        if not self._missed.is_empty:
            return session.is_open
        session.release_held()
        return False

    def finish(self) -> None:
        """Sends all the rest now: the session is closing."""
        while self._send_turn():
            pass
