"""The clock that a server runs by: an event loop, or a manual clock in tests."""

import asyncio
from collections.abc import Callable, Collection
from typing import Any, Protocol, TypeVar

_AnyFuture = TypeVar("_AnyFuture", bound="asyncio.Future[Any]")


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


async def wait_for_all(
    futures: Collection[_AnyFuture], seconds: float | None, clock: Clock
) -> list[_AnyFuture]:
    """Waits until all of ``futures`` are done, or for ``seconds`` of ``clock``; returns those that are not
    done."""
    if not futures:
        return []
    everything = asyncio.ensure_future(asyncio.wait(futures))
    timer = None if seconds is None else clock.call_later(seconds, everything.cancel)
    try:
        # Unlike awaiting the task, this tells our own cancellation from that of the timer.
        await asyncio.wait([everything])
    finally:
        everything.cancel()
        if timer is not None:
            timer.cancel()
    return [future for future in futures if not future.done()]


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
