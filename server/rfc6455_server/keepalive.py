"""Pings, latency, and the event loop's lag: one timer for all connections of a server.

Implements: RFC 6455 §5.5.2 (a Ping as a keepalive).
Left to others: answering Pings (the codec), matching Pongs (`websocket`).

The connections are spread over a few groups; each turn of the timer pings one group, so that
the work is spread over the interval. All of a group are sent the same Ping: who answers it says
that it lives and how long that took, and nothing of it has to be kept for each connection.
"""

from typing import Final, NamedTuple

from rfc6455 import CloseCode, new_mask_key
from rfc6455_server.outbox import Timer
from rfc6455_server.reports import Cause
from rfc6455_server.websocket import Hub, WebSocket

MAX_GROUPS: Final = 20
"""Groups at the most."""

MIN_TURN: Final = 0.05
"""Seconds between two turns at the least."""

LAG_MEMORY: Final = 60.0
"""Seconds for which a lag of the loop is remembered, for the reports of connections that end then."""


class _Asked(NamedTuple):
    """A group that was sent a Ping."""

    data: bytes
    websockets: list[WebSocket]
    lag_before: float  # how late the loop had been in all when the Ping was sent
    due: float
    again: bool  # it had its time already, but the loop was late


class Keepalive:
    """Pings every connection once an interval; ends those from which nothing comes after a Ping."""

    def __init__(self, hub: Hub, max_groups: int = MAX_GROUPS) -> None:
        self._hub = hub
        interval = hub.limits.ping_interval
        self._count = max(1, min(max_groups, int(interval / MIN_TURN)))
        self._turn = interval / self._count
        self._group_of: dict[WebSocket, int] = {}  # looked through each turn: coming and going are more often
        self._next = 0
        self._timer: Timer | None = None
        self._timers: set[Timer] = set()
        self._due = 0.0
        self._lag = 0.0  # seconds by which the loop was late, of all turns together
        self._lagged_at = float("-inf")

    def __len__(self) -> int:
        return len(self._group_of)

    def add(self, websocket: WebSocket) -> None:
        """Looks after a connection; its first Ping is an interval away."""
        # The group whose turn was last.
        self._group_of[websocket] = (self._next - 1) % self._count
        if self._timer is None:
            self._start_timer()

    def discard(self, websocket: WebSocket) -> None:
        """Looks after it no more."""
        self._group_of.pop(websocket, None)

    def stop(self) -> None:
        """Forgets all connections."""
        self._group_of.clear()
        for timer in (self._timer, *self._timers):
            if timer is not None:
                timer.cancel()
        self._timer = None
        self._timers.clear()

    def _start_timer(self) -> None:
        self._due = self._hub.clock.time() + self._turn
        self._timer = self._hub.clock.call_later(self._turn, self._take_turn)

    def _take_turn(self) -> None:
        now = self._hub.clock.time()
        self._measure_lag(now)
        group = [websocket for websocket, number in self._group_of.items() if number == self._next]
        self._next = (self._next + 1) % self._count
        if group:
            self._ask(group, now, again=False)
        if self._group_of:
            self._start_timer()
        else:
            self._timer = None

    def _measure_lag(self, now: float) -> None:
        lag = max(0.0, now - self._due)
        self._lag += lag
        self._hub.stats.loop_lag.observe(lag)
        if lag >= self._hub.loop_lag or now - self._lagged_at > LAG_MEMORY:
            self._hub.loop_lag = lag
            self._lagged_at = now

    def _ask(self, websockets: list[WebSocket], now: float, *, again: bool) -> None:
        data = new_mask_key()
        self._hub.pings[data] = now
        for websocket in websockets:
            websocket.heard = False
            websocket.send_ping(data)
        timeout = self._hub.limits.ping_timeout
        asked = _Asked(data, websockets, self._lag, now + timeout, again)
        timer: Timer | None = None

        def look() -> None:
            if timer is not None:
                self._timers.discard(timer)
            self._look(asked)

        timer = self._hub.clock.call_later(timeout, look)
        self._timers.add(timer)

    def _look(self, asked: _Asked) -> None:
        """The time is up: whoever was not heard of is gone, unless it was us who did not listen."""
        now = self._hub.clock.time()
        silent = [websocket for websocket in asked.websockets if not websocket.heard and not websocket.closed]
        # How late the loop was while we waited: in turns that are over, and in this very call.
        lag = self._lag - asked.lag_before + max(0.0, now - asked.due)
        lagged = lag > self._hub.limits.ping_timeout / 2
        if silent and lagged and not asked.again:
            # Once more, with the whole time: what came in the meantime may not even have been read.
            self._ask(silent, now, again=True)
        else:
            cause = Cause.LOOP_LAG if asked.again or lagged else Cause.PING_TIMEOUT
            for websocket in silent:
                websocket.fail(CloseCode.INTERNAL_ERROR, str(cause), cause=cause)
        del self._hub.pings[asked.data]
