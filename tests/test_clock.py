"""What is spread over some seconds of the clock."""

import asyncio
from collections.abc import Callable

import pytest

from rfc6455_server.clock import spread
from rfc6455_server.testing import ManualClock, _ManualTimer, settle


class CountingClock(ManualClock):
    """Counts the timers, and makes each of them late."""

    def __init__(self, lateness: float = 0.0) -> None:
        super().__init__()
        self.timers = 0
        self._lateness = lateness

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> _ManualTimer:
        self.timers += 1
        return super().call_later(delay + self._lateness, callback, *args)


async def test_the_first_is_called_at_once_and_the_others_evenly() -> None:
    clock, called = ManualClock(), list[int]()
    spreading = asyncio.create_task(spread(clock, 50, range(5), called.append))
    for second in range(50):
        await settle()
        assert called == list(range(second // 10 + 1))
        assert not spreading.done()
        await clock.advance(1)
    assert spreading.done()


@pytest.mark.parametrize("seconds", [0.3, 5, 7.77])
@pytest.mark.parametrize("items", [0, 1, 3, 1000])
async def test_it_takes_the_time_asked_however_many_items_there_are(seconds: float, items: int) -> None:
    clock, called = ManualClock(), list[int]()
    spreading = asyncio.create_task(spread(clock, seconds, range(items), called.append))
    await clock.advance(seconds - 0.001)
    assert not spreading.done()
    await clock.advance(0.001)
    assert spreading.done()
    assert called == list(range(items))


async def test_many_items_need_few_timers() -> None:
    clock, called = CountingClock(), list[int]()
    spreading = asyncio.create_task(spread(clock, 5, range(20_000), called.append))
    await clock.advance(2.5)
    assert len(called) == pytest.approx(10_000, abs=100)
    await clock.advance(2.5)
    assert spreading.done()
    assert clock.timers <= 501


async def test_late_timers_do_not_add_up() -> None:
    clock, called = CountingClock(lateness=0.5), list[int]()
    spreading = asyncio.create_task(spread(clock, 5, range(20_000), called.append))
    await clock.advance(5.6)
    assert spreading.done()
    assert len(called) == 20_000


async def test_others_have_their_turn_while_many_are_due() -> None:
    clock, sizes, called = ManualClock(), list[int](), list[int]()
    spreading = asyncio.create_task(spread(clock, 0, range(2000), called.append))
    while not spreading.done():
        before = len(called)
        await asyncio.sleep(0)
        sizes.append(len(called) - before)
    assert sum(sizes) == 2000
    assert max(sizes) <= 500
