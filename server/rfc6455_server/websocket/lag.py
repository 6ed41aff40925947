"""How late the event loop is: one timer for a server while it has connections, and one for each client.

A handler that blocks, or a full garbage collection, makes every connection wait. A block that lasts for
longer than `BLOCKED` and `INTERVAL` together is always found, and logged once for each event loop.
"""

import logging
from typing import Final
from weakref import WeakKeyDictionary

from rfc6455_server.clock import Clock, Timer
from rfc6455_server.logs import log
from rfc6455_server.websocket.hub import Hub

INTERVAL: Final = 0.5
"""Seconds between two measurements."""

BLOCKED: Final = 0.5
"""A lag of this many seconds or more is logged."""

LAG_MEMORY: Final = 60.0
"""Seconds for which the largest lag is remembered, for the reports of connections that end then."""

_logged_at: Final["WeakKeyDictionary[Clock, float]"] = WeakKeyDictionary()
"""When the last block of each event loop was logged: every client and server on that loop measures it."""


class LoopLag:
    """Measures by how much a timer is late: for the metrics, the reports, the log and `keepalive`."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._timer: Timer | None = None
        self._due = 0.0
        self._lagged_at = float("-inf")
        self.total = 0.0
        """Seconds by which the loop was late, in all measurements together."""

    def start(self) -> None:
        """Measures until `stop`; does nothing if it is measuring."""
        if self._timer is None:
            self._schedule()

    def stop(self) -> None:
        """Stops measuring."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        self._due = self._hub.clock.time() + INTERVAL
        self._timer = self._hub.clock.call_later(INTERVAL, self._measure)

    def _measure(self) -> None:
        now = self._hub.clock.time()
        lag = max(0.0, now - self._due)
        self.total += lag
        self._hub.stats.loop_lag.observe(lag)
        if lag >= self._hub.loop_lag or now - self._lagged_at > LAG_MEMORY:
            self._hub.loop_lag = lag
            self._lagged_at = now
        if lag >= BLOCKED and self._due > _logged_at.get(self._hub.clock, float("-inf")):
            _logged_at[self._hub.clock] = now
            log(logging.WARNING, "event loop was blocked", seconds=lag)
        self._schedule()
