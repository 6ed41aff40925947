"""The bounds of a server, each finite, and what measures rates.

Left to others: refusing what is beyond them (`listener`, `websocket`, `rooms`).
"""

from collections import OrderedDict
from dataclasses import dataclass, fields
from typing import Final, TypedDict

from rfc6455 import WebSocketError
from rfc6455.constants import DEFAULT_MAX_MESSAGE_SIZE

BURST: Final = 2.0
"""Seconds' worth of a rate that may come at once."""

_MAX_ADDRESSES: Final = 65536
"""Addresses whose rate of connections is remembered; the one longest unseen is forgotten first."""


class LimitExceededError(WebSocketError):
    """A peer asked for more than it may have; in a handler, it ends the connection with 1008."""

    def __init__(self, message: str) -> None:
        super().__init__(message, slug="limit")


class LimitOptions(TypedDict, total=False):
    """The names of `Limits`, for keyword arguments."""

    max_message_size: int
    max_queue: int
    max_total_queue: int
    max_connections: int
    max_connections_per_address: int
    max_rooms: int
    message_rate: float | None
    byte_rate: float | None
    join_rate: float | None
    connection_rate: float | None
    handshake_timeout: float
    send_timeout: float
    close_timeout: float
    ping_interval: float
    ping_timeout: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bytes, counts, seconds, and rates a second. Raises `ValueError` for one that is not above 0.

    Rates are off (``None``): a peer that sends faster than its handler reads is held back by TCP, which loses
    nothing. Where one is set, `BURST` seconds' worth may come at once, and more ends the connection (1008).
    """

    max_message_size: int = DEFAULT_MAX_MESSAGE_SIZE
    """Bytes of a message; a larger one ends the connection with 1009."""
    max_queue: int = 1 << 20
    """Bytes that wait for one peer; one message may go beyond where nothing else waits."""
    max_total_queue: int = 256 << 20
    """Bytes that wait for all peers together; beyond, who has most is let go."""
    max_connections: int = 20_000
    max_connections_per_address: int = 10_000
    max_rooms: int = 1000
    """Rooms that a connection may be in."""
    message_rate: float | None = None
    """Messages a second from one connection."""
    byte_rate: float | None = None
    """Bytes of messages a second from one connection."""
    join_rate: float | None = None
    """Rooms a second that one connection may join."""
    connection_rate: float | None = None
    """Connections a second from one address."""
    handshake_timeout: float = 10.0
    """Seconds from accepting a connection to the end of its request's head, TLS included."""
    send_timeout: float = 20.0
    """Seconds without progress after which a peer that `WebSocket.send` waits for is given up."""
    close_timeout: float = 10.0
    """Seconds that a peer has for its half of the closing handshake, and to read what we sent."""
    ping_interval: float = 20.0
    """Seconds between Pings: below the 60 s after which many proxies end what is silent."""
    ping_timeout: float = 20.0
    """Seconds after a Ping in which something must come."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{field.name} is a number above 0, not {value!r}")


class TokenBucket:
    """Lets ``rate`` a second pass, and `BURST` seconds' worth at once. Time is passed in, in seconds."""

    __slots__ = ("_rate", "_seen", "_tokens")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._tokens = self._most
        self._seen = now

    @property
    def _most(self) -> float:
        return max(1.0, self._rate * BURST)

    def take(self, amount: float, now: float) -> bool:
        """Whether ``amount`` more may pass now; if not, nothing is taken.

        What is more than the bucket ever holds passes when it is full: it could not pass otherwise.
        """
        self._tokens = min(self._most, self._tokens + (now - self._seen) * self._rate)
        self._seen = now
        if self._tokens < min(amount, self._most):
            return False
        self._tokens -= amount
        return True


class ReceiveRates:
    """What one connection may send: messages and bytes."""

    __slots__ = ("_bytes", "_messages")

    def __init__(self, limits: Limits, now: float) -> None:
        self._messages = None if limits.message_rate is None else TokenBucket(limits.message_rate, now)
        self._bytes = None if limits.byte_rate is None else TokenBucket(limits.byte_rate, now)

    def take(self, messages: int, size: int, now: float) -> bool:
        """Whether that many messages, of that many bytes together, may come now."""
        if self._messages is not None and not self._messages.take(messages, now):
            return False
        return self._bytes is None or self._bytes.take(size, now)


class Addresses:
    """How many connections each address has, and how fast it opens them."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._counts: dict[str, int] = {}
        self._rates: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counts)

    def admit(self, address: str, now: float) -> bool:
        """Counts one more connection, if it may come; each that was admitted is to be `release`d."""
        count = self._counts.get(address, 0)
        if count >= self._limits.max_connections_per_address:
            return False
        if self._limits.connection_rate is not None:
            bucket = self._rates.get(address) or TokenBucket(self._limits.connection_rate, now)
            self._rates[address] = bucket
            self._rates.move_to_end(address)
            if len(self._rates) > _MAX_ADDRESSES:
                self._rates.popitem(last=False)
            if not bucket.take(1, now):
                return False
        self._counts[address] = count + 1
        return True

    def release(self, address: str) -> None:
        """One that was admitted is gone."""
        count = self._counts[address] - 1
        if count:
            self._counts[address] = count
        else:
            del self._counts[address]
