"""The limits of a server, finite by default, its rates, off by default, and the token bucket for them.

Left to others: what happens beyond a limit (`listening`, `websocket`, `rooms`).
"""

from collections import OrderedDict
from dataclasses import dataclass, fields
from socket import AF_INET6, inet_pton
from typing import Final, TypedDict

from rfc6455 import DEFAULT_MAX_MESSAGE_SIZE, WebSocketError

BURST: Final = 2.0
"""A burst may use this many seconds' worth of a rate at once."""

FEW_ROOMS: Final = 32
"""Rooms that a connection may join even when there are `Limits.max_total_rooms`."""

MAX_SECONDS: Final = 3600.0
"""Maximum of a time-out or an interval: a larger number is most likely meant as milliseconds."""

_MAX_ADDRESSES: Final = 65536
"""Maximum addresses whose connection rate is remembered; the least recently seen is forgotten first."""


class LimitExceededError(WebSocketError):
    """A peer exceeded a limit. Raised in a handler, it ends the connection with 1008."""

    def __init__(self, message: str) -> None:
        super().__init__(message, slug="limit")


def check_seconds(name: str, seconds: float, maximum: float = MAX_SECONDS) -> None:
    """Raises `ValueError` for a time that is not above 0, or is more than ``maximum`` seconds."""
    if not 0 < seconds <= maximum:
        raise ValueError(f"{name} must be above 0 and at most {maximum:g} seconds, not {seconds!r}")


class LimitOptions(TypedDict, total=False):
    """The fields of `Limits` as keyword arguments."""

    max_message_size: int
    max_queue: int
    max_total_queue: int
    max_connections: int
    max_connections_per_address: int
    max_rooms: int
    max_total_rooms: int
    max_room_name: int
    message_rate: float | None
    byte_rate: float | None
    join_rate: float | None
    connection_rate: float | None
    handshake_timeout: float
    send_timeout: float
    receive_timeout: float
    answer_timeout: float
    close_timeout: float
    ping_interval: float
    ping_timeout: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bytes, counts, seconds, and rates per second. Raises `ValueError` for a value that is not finite
    and above 0, and for a time above `MAX_SECONDS`; `TypeError` for bytes and counts that are no ints.

    Rates are off by default (``None``): TCP pushes back on a peer that sends faster than its handler reads,
    and nothing is lost. With a rate, `BURST` seconds' worth may arrive at once; more ends the connection with
    1008.
    """

    max_message_size: int = DEFAULT_MAX_MESSAGE_SIZE
    """Maximum bytes of a message; a larger one ends the connection with 1009."""
    max_queue: int = 1 << 20
    """Bytes that wait for one peer, some 256 counted for each message besides its frame.

    Above it, a policy drops messages; with ``"disconnect"``, the peer must keep reading (``send_timeout``).
    A single larger message may wait alone.
    """
    max_total_queue: int = 256 << 20
    """Maximum bytes of memory that wait for all peers, or for their handlers, with messages that have not
    arrived whole; above it, the peer for which most bytes wait is disconnected."""
    max_connections: int = 20_000
    """Maximum TCP connections; more are refused with 503."""
    max_connections_per_address: int = 10_000
    """Maximum TCP connections from one address, or from one /64 of IPv6; more are refused with 429."""
    max_rooms: int = 1000
    """Maximum rooms that one connection is in."""
    max_total_rooms: int = 250_000
    """Memberships of all connections in rooms: each takes at most some 550 bytes and the name, together 200
    MB with the longest names. When there are as many, only connections that are in fewer than 32 rooms join
    more: nobody keeps others out."""
    max_room_name: int = 256
    """Maximum bytes of the name of a room that a connection joins: one for each character of an ASCII name,
    four for each of another."""
    message_rate: float | None = None
    """Messages a second from one connection."""
    byte_rate: float | None = None
    """Bytes a second from one connection; counts messages, most of them with their frame headers."""
    join_rate: float | None = None
    """Rooms a second that one connection joins."""
    connection_rate: float | None = None
    """Connections a second from one address, or from one /64 of IPv6."""
    handshake_timeout: float = 10.0
    """Seconds from accepting a connection to the answer to its request, with TLS and ``authorize``."""
    send_timeout: float = 20.0
    """Seconds within which a peer must take 64 KiB if its backlog is over ``max_queue`` or a call of
    `WebSocket.send` waits for it; otherwise it is disconnected."""
    receive_timeout: float = 60.0
    """Seconds within which 64 KiB more of an unfinished message must arrive, or its end; otherwise the peer
    is disconnected. Does not count while the peer is held back, because its messages are unread."""
    answer_timeout: float = 60.0
    """Seconds that an HTTP handler has for its answer, and then for each piece of the body; otherwise 503, or
    the end of the connection."""
    close_timeout: float = 10.0
    """Seconds that the peer has for its half of the closing handshake and for reading what we sent."""
    ping_interval: float = 20.0
    """Seconds between Pings. Many proxies close a connection that is silent for 60 seconds."""
    ping_timeout: float = 20.0
    """Seconds after a Ping within which something must arrive."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{field.name} must be a finite number above 0, not {value!r}")
            if field.type is int and type(value) is not int:
                raise TypeError(f"{field.name} must be an int, not {value!r}")
            if field.name.endswith(("_timeout", "_interval")):
                check_seconds(field.name, value)


class TokenBucket:
    """Allows ``rate`` per second, and `BURST` seconds' worth at once. The caller passes the time."""

    __slots__ = ("_rate", "_seen", "_tokens")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._tokens = self._capacity
        self._seen = now

    @property
    def _capacity(self) -> float:
        return max(1.0, self._rate * BURST)

    def take(self, amount: float, now: float) -> bool:
        """Takes ``amount`` tokens and returns True, or takes none and returns False.

        An amount above the capacity passes when the bucket is full; otherwise it could never pass.
        """
        self._tokens = min(self._capacity, self._tokens + (now - self._seen) * self._rate)
        self._seen = now
        if self._tokens < min(amount, self._capacity):
            return False
        self._tokens -= amount
        return True


class ReceiveRates:
    """The rates at which one connection may send messages and bytes."""

    __slots__ = ("_bytes", "_messages")

    def __init__(self, limits: Limits, now: float) -> None:
        self._messages = None if limits.message_rate is None else TokenBucket(limits.message_rate, now)
        self._bytes = None if limits.byte_rate is None else TokenBucket(limits.byte_rate, now)

    def take(self, messages: int, size: int, now: float) -> bool:
        """Whether ``messages`` messages with ``size`` bytes in all are within the rates."""
        if self._messages is not None and not self._messages.take(messages, now):
            return False
        return self._bytes is None or self._bytes.take(size, now)


def counted_address(address: str) -> str:
    """Returns what the connections of an address count for: the /64 of an IPv6 address.

    One host commonly has all 2**64 addresses of it.
    """
    if ":" not in address:
        return address
    try:
        return f"{inet_pton(AF_INET6, address)[:8].hex()}::/64"
    except OSError:
        return address


class Addresses:
    """The number of connections of each address or IPv6 /64, and the rate at which it opens them."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._counts: dict[str, int] = {}
        self._rates: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counts)

    def admit(self, address: str, now: float) -> bool:
        """Counts one more connection if the limits allow it; the caller must `release` what was admitted."""
        counted = counted_address(address)
        count = self._counts.get(counted, 0)
        if count >= self._limits.max_connections_per_address:
            return False
        if self._limits.connection_rate is not None:
            bucket = self._rates.get(counted) or TokenBucket(self._limits.connection_rate, now)
            self._rates[counted] = bucket
            self._rates.move_to_end(counted)
            if len(self._rates) > _MAX_ADDRESSES:
                self._rates.popitem(last=False)
            if not bucket.take(1, now):
                return False
        self._counts[counted] = count + 1
        return True

    def release(self, address: str) -> None:
        """Counts one connection less."""
        counted = counted_address(address)
        count = self._counts[counted] - 1
        if count:
            self._counts[counted] = count
        else:
            del self._counts[counted]
