"""The clock that a server runs by: an event loop, or a manual clock in tests."""

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
