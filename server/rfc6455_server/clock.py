"""The clock that a server runs by: an event loop, or a manual clock in tests."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, Protocol, TypeVar

_AnyFuture = TypeVar("_AnyFuture", bound="asyncio.Future[Any]")
_Item = TypeVar("_Item")

_SPREAD_INTERVAL: Final = 0.01
"""Minimum seconds between two batches of `spread`: a timer for each item would take longer than the item."""

_SPREAD_BATCH: Final = 500
"""Maximum items of a batch, so that others have a turn of the event loop."""

_ROUNDING: Final = 1e-6
"""Seconds by which a timer may seem to be early."""


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


async def spread(
    clock: Clock, seconds: float, items: Sequence[_Item], call: Callable[[_Item], object]
) -> None:
    """Calls ``call`` with each of ``items``, the first at once and the others evenly over ``seconds``.

    Returns when these are over, also if there are no items. The elapsed time says how many are due, so that a
    late loop catches up, and lateness does not add up.
    """
    begin, called = clock.time(), 0
    while True:
        elapsed = clock.time() - begin
        is_over = elapsed + _ROUNDING >= seconds
        due = len(items)
        if not is_over:
            due = min(due, int((elapsed + _ROUNDING) / seconds * len(items)) + 1)
        batch = items[called : min(due, called + _SPREAD_BATCH)]
        for item in batch:
            call(item)
        called += len(batch)
        if called < due:
            await asyncio.sleep(0)
        elif is_over:
            return
        else:
            until_next = seconds * called / len(items) - elapsed if called < len(items) else seconds
            await sleep(clock, min(max(_SPREAD_INTERVAL, until_next), seconds - elapsed))


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
