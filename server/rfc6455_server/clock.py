"""The clock that a server runs by: an event loop, or a manual clock in tests."""

import asyncio
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A scheduled call."""

    def cancel(self) -> None:
        """Cancels the call."""


class Clock(Protocol):
    """Tells the time and schedules calls. An event loop is a clock, and so is `testing.ManualClock`."""

    def time(self) -> float:
        """Seconds since an arbitrary point; never goes backwards."""

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> Timer:
        """Calls ``callback(*args)`` after ``delay`` seconds, unless the timer is cancelled."""


async def sleep(clock: Clock, seconds: float) -> None:
    """Waits for ``seconds`` of this clock."""
    woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    timer = clock.call_later(seconds, _wake, woken)
    try:
        await woken
    finally:
        timer.cancel()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
