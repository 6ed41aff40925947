"""Pings, and the time-outs after them: one timer for all connections of a server.

Implements: RFC 6455 §5.5.2 (a Ping as a keepalive).
Left to others: answering Pings (the codec), matching Pongs (`websocket`), how late the event loop is (`lag`).

The connections are spread over a few groups, and each turn of the timer sends a Ping to one group, so the
work is spread over the interval. A whole group gets the same Ping: its Pong shows that the peer is alive and
how long it took to answer, and nothing has to be stored for each connection.
"""

from typing import Final, NamedTuple

from rfc6455 import CloseCode, new_mask_key
from rfc6455_server.clock import Timer
from rfc6455_server.websocket.hub import Hub
from rfc6455_server.websocket.lag import LoopLag
from rfc6455_server.websocket.outbox import MIN_PROGRESS
from rfc6455_server.websocket.reports import Cause
from rfc6455_server.websocket.websocket import WebSocket

MAX_GROUPS: Final = 20
"""Maximum number of groups."""

MIN_TURN: Final = 0.05
"""Minimum seconds between two turns."""


class _PingRound(NamedTuple):
    """A Ping that was sent to a group."""

    data: bytes
    websockets: list[WebSocket]
    lag_before: float  # total lag of the loop when the Ping was sent
    due: float
    repeated: bool  # the group has had one timeout already, but the loop was late
    taken: dict[WebSocket, int]  # what those who were behind had taken when the Ping was sent


class Keepalive:
    """Sends a Ping to every connection once an interval; ends those from which nothing arrives after it."""

    def __init__(self, hub: Hub, max_groups: int = MAX_GROUPS) -> None:
        self._hub = hub
        interval = hub.limits.ping_interval
        self._group_count = max(1, min(max_groups, int(interval / MIN_TURN)))
        self._turn = interval / self._group_count
        # Searched once a turn; connections come and go more often than that.
        self._group_of: dict[WebSocket, int] = {}
        self._next_group = 0
        self._timer: Timer | None = None
        self._answer_timers: set[Timer] = set()
        self.lag = LoopLag(hub)
        """Measures while there are connections here; `Listener` lets it measure for other ones, too."""

    def __len__(self) -> int:
        return len(self._group_of)

    def add(self, websocket: WebSocket) -> None:
        """Adds a connection; its first Ping follows after one interval."""
        # The group whose turn was last.
        self._group_of[websocket] = (self._next_group - 1) % self._group_count
        self.lag.start()
        if self._timer is None:
            self._start_timer()

    def discard(self, websocket: WebSocket) -> None:
        """Removes a connection; does nothing if it was not added."""
        self._group_of.pop(websocket, None)

    def stop(self) -> None:
        """Removes all connections and cancels the timers."""
        self._group_of.clear()
        for timer in (self._timer, *self._answer_timers):
            if timer is not None:
                timer.cancel()
        self._timer = None
        self._answer_timers.clear()
        self.lag.stop()

    def _start_timer(self) -> None:
        self._timer = self._hub.clock.call_later(self._turn, self._take_turn)

    def _take_turn(self) -> None:
        group = [websocket for websocket, number in self._group_of.items() if number == self._next_group]
        self._next_group = (self._next_group + 1) % self._group_count
        if group:
            self._ping(group, self._hub.clock.time(), repeated=False)
        if self._group_of:
            self._start_timer()
        else:
            self._timer = None

    def _ping(self, websockets: list[WebSocket], now: float, *, repeated: bool) -> None:
        data = new_mask_key()
        self._hub.pings[data] = now
        taken: dict[WebSocket, int] = {}
        for websocket in websockets:
            websocket.heard = False
            if (bytes_taken := websocket.taken) is not None:
                taken[websocket] = bytes_taken
            websocket.send_ping(data)
        timeout = self._hub.limits.ping_timeout
        round_ = _PingRound(data, websockets, self.lag.total, now + timeout, repeated, taken)
        timer: Timer | None = None

        def check() -> None:
            if timer is not None:
                self._answer_timers.discard(timer)
            self._check_answers(round_)

        timer = self._hub.clock.call_later(timeout, check)
        self._answer_timers.add(timer)

    def _check_answers(self, round_: _PingRound) -> None:
        """Ends the connections that sent nothing since the Ping, unless the loop was too late to read it."""
        now = self._hub.clock.time()
        suspects = [ws for ws in round_.websockets if not ws.heard and ws.closed is None]
        silent = [ws for ws in suspects if not _is_excused(ws, round_)]
        # How late the loop was since the Ping: as measured until now, and in this very call.
        lag = self.lag.total - round_.lag_before + max(0.0, now - round_.due)
        lagged = lag > self._hub.limits.ping_timeout / 2
        if silent and lagged and not round_.repeated:
            # Once more, with the full timeout: what arrived may not even have been read.
            self._ping(silent, now, repeated=True)
        else:
            cause = Cause.LOOP_LAG if round_.repeated or lagged else Cause.PING_TIMEOUT
            for websocket in silent:
                websocket.fail(CloseCode.INTERNAL_ERROR, str(cause), cause=cause)
        del self._hub.pings[round_.data]


def _is_excused(websocket: WebSocket, round_: _PingRound) -> bool:
    """Whether a peer's silence says nothing.

    Its Pong may be unread, because its messages wait for the handler. Or the Ping may still be behind a large
    message that it is taking.
    """
    before, now = round_.taken.get(websocket), websocket.taken
    is_taking = before is not None and now is not None and now - before >= MIN_PROGRESS
    return websocket.reading_paused or is_taking
