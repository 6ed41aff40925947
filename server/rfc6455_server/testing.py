"""Tests without sockets and without waiting: connections in memory, and a clock that the test moves.

    async with TestClient(server) as client:
        ws = await client.connect("/echo")
        await ws.send("hello")
        assert await ws.recv() == "hello"
        await client.clock.advance(60)  # pings, time-outs: all that the server would do in a minute

Make the server with ``clock=client.clock``, or with a `ManualClock` of your own that the client is given.
Left to others: everything that is tested; only TCP and time are stood in for.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Final

from rfc6455 import ClientHandshake
from rfc6455_server.app import Server
from rfc6455_server.client import shake_hands
from rfc6455_server.clock import Clock
from rfc6455_server.limits import Limits
from rfc6455_server.websocket.hub import Hub
from rfc6455_server.websocket.streams import CodecProtocol
from rfc6455_server.websocket.websocket import WebSocket

PIPE_SIZE: Final = 1 << 16
"""Bytes that one end takes while the other does not read, as an operating system would."""

_TURNS: Final = 50
"""Turns of the event loop in which whatever is due comes to rest."""


class ManualClock:
    """A clock that stands still until `advance`; callbacks run in the order of their time."""

    def __init__(self, now: float = 1000.0) -> None:
        self._now = now
        self._timers: list[tuple[float, int, _ManualTimer]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        """Seconds."""
        return self._now

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> "_ManualTimer":
        """Calls back when the clock has been moved by ``delay`` seconds."""
        timer = _ManualTimer(callback, args)
        heapq.heappush(self._timers, (self._now + delay, next(self._numbers), timer))
        return timer

    async def advance(self, seconds: float) -> None:
        """Moves the clock; between two callbacks, everybody has their turn."""
        end = self._now + seconds
        await settle()
        while self._timers and self._timers[0][0] <= end:
            due, _, timer = heapq.heappop(self._timers)
            self._now = max(self._now, due)
            timer.run()
            await settle()
        self._now = end

    def jump(self, seconds: float) -> None:
        """Moves the clock while nobody has a turn: the event loop hangs, and is late with what was due."""
        self._now += seconds


class _ManualTimer:
    """A callback that waits."""

    def __init__(self, callback: Callable[..., object], args: tuple[object, ...]) -> None:
        self._callback = callback
        self._args = args
        self._cancelled = False

    def cancel(self) -> None:
        """Has the call left out."""
        self._cancelled = True

    def run(self) -> None:
        """Calls back."""
        if not self._cancelled:
            self._callback(*self._args)


async def settle() -> None:
    """Lets everybody have their turns until nothing moves that needs no time."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


class MemoryTransport(asyncio.Transport):
    """One end of a connection in memory. `pair` makes two that belong together."""

    def __init__(self, address: str) -> None:
        super().__init__(extra={"peername": (address, 0)})
        self._loop = asyncio.get_running_loop()
        self._peer: MemoryTransport | None = None
        self._protocol: asyncio.Protocol | None = None
        self._buffer = bytearray()  # written here, and not yet taken by the peer
        self._inbox = bytearray()  # taken, and not yet read
        self._high, self._low = PIPE_SIZE, PIPE_SIZE // 4
        self._writing_paused = False
        self._reading_paused = False
        self._eof_written = False
        self._eof_delivered = False
        self._closing = False
        self._lost = False
        self._scheduled = False

    @classmethod
    def pair(cls, address: str = "192.0.2.1") -> tuple["MemoryTransport", "MemoryTransport"]:
        """Two ends; ``address`` is that of whoever connects."""
        one, other = cls(address), cls("server")
        one._peer, other._peer = other, one
        return one, other

    def start(self, protocol: asyncio.Protocol) -> None:
        """Begins to be the transport of ``protocol``."""
        self._protocol = protocol
        protocol.connection_made(self)
        self._schedule()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Changes the protocol."""
        assert isinstance(protocol, asyncio.Protocol)  # noqa: S101 - for the type
        self._protocol = protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Sends."""
        if self._closing or self._eof_written:
            return
        self._buffer += data
        self._schedule()
        self._move()
        if len(self._buffer) > self._high and not self._writing_paused and self._protocol is not None:
            self._writing_paused = True
            self._protocol.pause_writing()

    def write_eof(self) -> None:
        """Sends no more."""
        self._eof_written = True
        self._schedule()

    def can_write_eof(self) -> bool:
        """Half a connection can be closed."""
        return True

    def close(self) -> None:
        """Closes, once all is sent."""
        self._closing = self._eof_written = True
        self._schedule()

    def abort(self) -> None:
        """Closes at once; what is unsent is lost."""
        self._closing = self._eof_written = True
        self._buffer.clear()
        self._schedule()

    def vanish(self) -> None:
        """Neither sends nor reads any more, and tells nobody: the cable is cut."""
        self._reading_paused = self._eof_written = True
        self._buffer.clear()
        if self._peer is not None:
            self._peer._peer = None
        self._peer = None

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._closing

    def pause_reading(self) -> None:
        """Takes what fits the pipe, and gives it to nobody."""
        self._reading_paused = True

    def resume_reading(self) -> None:
        """Reads on."""
        self._reading_paused = False
        self._schedule()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """As in asyncio."""
        self._high = PIPE_SIZE if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        """Bytes that the peer has yet to take."""
        return len(self._buffer)

    def _move(self) -> None:
        """Moves into the peer's inbox what fits."""
        if self._peer is not None:
            room = PIPE_SIZE - len(self._peer._inbox)
            self._peer._inbox += self._buffer[:room]
            del self._buffer[:room]

    def _schedule(self) -> None:
        for end in (self, self._peer):
            if end is not None and not end._scheduled:
                end._scheduled = True
                self._loop.call_soon(end._run)

    def _run(self) -> None:
        """One turn: delivers what has come, moves on what is to go, and ends what is over."""
        self._scheduled = False
        if self._protocol is None or self._lost:
            return
        if self._inbox and not self._reading_paused and not self._closing:
            data = bytes(self._inbox)
            self._inbox.clear()
            self._deliver(self._protocol, data)
            self._schedule()
        before = len(self._buffer)
        self._move()
        if len(self._buffer) < before:
            self._schedule()
        if self._writing_paused and len(self._buffer) <= self._low:
            self._writing_paused = False
            self._protocol.resume_writing()
        self._end_what_is_over()

    def _deliver(self, protocol: asyncio.Protocol, data: bytes) -> None:
        if isinstance(protocol, asyncio.BufferedProtocol):
            protocol.get_buffer(len(data))[: len(data)] = data  # type: ignore[index]  # it can be written to
            protocol.buffer_updated(len(data))
        else:
            protocol.data_received(data)

    def _end_what_is_over(self) -> None:
        peer, protocol = self._peer, self._protocol
        assert protocol is not None  # noqa: S101 - it runs
        over = peer is not None and peer._eof_written and not peer._buffer and not self._inbox
        if over and not self._eof_delivered and not self._closing and not self._reading_paused:
            self._eof_delivered = True
            if not protocol.eof_received():
                self.close()
        if self._closing and not self._buffer and not self._lost:
            self._lost = True
            protocol.connection_lost(None)
            self._schedule()


class TestClient:
    """Connects to a server in memory; closes all connections and stops the server at the end."""

    __test__ = False  # pytest: no test case

    def __init__(self, server: Server, clock: Clock | None = None) -> None:
        self._server = server
        self.clock: Any = clock or ManualClock()
        """The clock of the clients, and of the server if it was given to it."""
        self.transports: list[MemoryTransport] = []
        """The clients' ends, in the order of connecting."""

    async def __aenter__(self) -> "TestClient":
        self._server.make_ready()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for transport in self.transports:
            transport.abort()
        await settle()
        await self._server.stop()

    def open(self, protocol: asyncio.Protocol, address: str = "192.0.2.1") -> MemoryTransport:
        """Connects a protocol of your own; raises `ConnectionRefusedError` when the server takes no more."""
        listener = self._server.make_ready()
        ours, theirs = MemoryTransport.pair(address)
        deadline = listener.hub.clock.time() + listener.hub.limits.handshake_timeout
        made = listener.make_protocol(address, deadline)
        if isinstance(made, bytes):
            raise ConnectionRefusedError(made.split(b"\r\n")[0].decode())
        self.transports.append(ours)
        theirs.start(made)
        ours.start(protocol)
        return ours

    async def connect(
        self,
        target: str,
        *,
        subprotocols: Sequence[str] = (),
        origin: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
        address: str = "192.0.2.1",
    ) -> WebSocket:
        """Opens a WebSocket; raises as `rfc6455_server.connect` does."""
        protocol = CodecProtocol(asyncio.get_running_loop())
        transport = self.open(protocol, address)
        handshake = ClientHandshake("test", target, subprotocols=subprotocols, origin=origin, headers=headers)
        return await shake_hands(handshake, transport, protocol, Hub(Limits(), clock=self.clock))
