"""The counters of a server: numbers that other modules increase and `http.metrics` reads."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Histogram:
    """Counts values in buckets. ``bounds`` are their upper bounds; one more bucket takes larger values."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = _SECONDS) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Stats:
    """The counters of one server. Bytes are network bytes, frame headers included."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "closes",
        "connections",
        "dropped",
        "latency",
        "loop_lag",
        "memberships",
        "messages_in",
        "messages_out",
        "refused",
        "session_closes",
        "session_counts",
        "socket_connects",
        "socket_recoveries",
        "unanswered",
    )

    def __init__(self) -> None:
        self.connections = 0
        """WebSocket connections opened."""
        self.messages_in = 0
        self.messages_out = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.dropped: Counter[str] = Counter()
        """Messages dropped for peers that were behind, by policy."""
        self.closes: Counter[tuple[int | None, str]] = Counter()
        """Ended WebSockets, by the code that we sent (``None`` without a Close) and cause."""
        self.refused: Counter[tuple[int, str]] = Counter()
        """Connections and requests refused, by HTTP status and reason."""
        self.unanswered: Counter[str] = Counter()
        """Connections that ended without an answer to their first request, by reason."""
        self.memberships = 0
        """Rooms that all connections together are in now, each connection counted."""
        self.latency = Histogram()
        """Seconds between the Pings of `keepalive` and their Pongs."""
        self.loop_lag = Histogram()
        """Seconds by which the event loop was late."""
        self.session_counts: list[Callable[[], Mapping[str, int]]] = []
        """Functions that return the number of open sessions of Socket.IO, by transport."""
        self.session_closes: Counter[str] = Counter()
        """Ended sessions, by reason."""
        self.socket_connects: Counter[str] = Counter()
        """Clients that asked for a namespace: ``accepted`` or ``refused``."""
        self.socket_recoveries: Counter[str] = Counter()
        """Clients that came back: ``recovered``, or ``not recovered``."""
