"""Test a server without sockets and without waiting: with connections in memory and a manual clock.

    clock = ManualClock()
    server = Server(clock=clock)
    ...
    async with TestClient(server, clock) as client:
        ws = await client.connect("/echo")
        await ws.send("hello")
        assert await ws.recv() == "hello"
        await clock.advance(60)  # runs the Pings and timeouts of a minute

Only TCP and time are replaced; everything else is the real server and the real client.
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
"""Bytes that a connection takes while the other end does not read, as an operating system's buffers do."""

_TURNS: Final = 50
"""Turns of the event loop after which nothing is left to do, unless the clock moves."""


class ManualClock:
    """A clock that stands still until `advance`. Callbacks run in the order of their times."""

    def __init__(self, now: float = 1000.0) -> None:
        self._now = now
        self._timers: list[tuple[float, int, _ManualTimer]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        """Returns seconds."""
        return self._now

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> "_ManualTimer":
        """Calls ``callback(*args)`` when the clock has advanced by ``delay`` seconds."""
        timer = _ManualTimer(callback, args)
        heapq.heappush(self._timers, (self._now + delay, next(self._numbers), timer))
        return timer

    async def advance(self, seconds: float) -> None:
        """Moves the clock by ``seconds``, and runs the callbacks that are due. Tasks run between them."""
        end = self._now + seconds
        await settle()
        while self._timers and self._timers[0][0] <= end:
            due, _, timer = heapq.heappop(self._timers)
            self._now = max(self._now, due)
            timer.run()
            await settle()
        self._now = end

    def jump(self, seconds: float) -> None:
        """Moves the clock and runs nothing, as if the event loop were blocked for ``seconds``."""
        self._now += seconds


class _ManualTimer:
    def __init__(self, callback: Callable[..., object], args: tuple[object, ...]) -> None:
        self._callback: Callable[..., object] | None = callback
        self._args = args

    def cancel(self) -> None:
        # As in asyncio, a cancelled timer keeps nothing alive.
        self._callback = None
        self._args = ()

    def run(self) -> None:
        if self._callback is not None:
            self._callback(*self._args)


async def settle() -> None:
    """Runs the event loop until all tasks wait for the clock or for each other."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


class MemoryTransport(asyncio.Transport):
    """One end of a connection in memory. `pair` makes both ends."""

    def __init__(self, address: str) -> None:
        super().__init__(extra={"peername": (address, 0)})
        self._loop = asyncio.get_running_loop()
        self._peer: MemoryTransport | None = None
        self._protocol: asyncio.Protocol | None = None
        self._buffer = bytearray()  # written here, and not yet in the peer's inbox
        self._inbox = bytearray()  # received, and not yet read
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
        """Returns the client's end, whose address is ``address``, and the server's end."""
        one, other = cls(address), cls("server")
        one._peer, other._peer = other, one
        return one, other

    def start(self, protocol: asyncio.Protocol) -> None:
        """Connects this end to ``protocol``. Call it for both ends."""
        self._protocol = protocol
        protocol.connection_made(self)
        self._schedule()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)  # noqa: S101 - for the type
        self._protocol = protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or self._eof_written:
            return
        if self._peer is not None and self._peer._lost:
            self.abort()  # as after a reset
            return
        self._buffer += data
        self._schedule()
        self._move()
        if len(self._buffer) > self._high and not self._writing_paused and self._protocol is not None:
            self._writing_paused = True
            self._protocol.pause_writing()

    def write_eof(self) -> None:
        self._eof_written = True
        self._schedule()

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self._closing = self._eof_written = True
        self._schedule()

    def abort(self) -> None:
        self._closing = self._eof_written = True
        self._buffer.clear()
        self._schedule()

    def vanish(self) -> None:
        """Stops sending and reading without EOF, as if the cable were cut."""
        self._reading_paused = self._eof_written = True
        self._buffer.clear()
        if self._peer is not None:
            self._peer._peer = None
        self._peer = None

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._reading_paused = True

    def resume_reading(self) -> None:
        self._reading_paused = False
        self._schedule()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = PIPE_SIZE if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        return len(self._buffer)

    def _move(self) -> None:
        """Moves as many bytes into the peer's inbox as fit."""
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
        """Delivers received bytes, moves written ones, resumes writing, and handles the end."""
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
        self._handle_end()

    def _deliver(self, protocol: asyncio.Protocol, data: bytes) -> None:
        if isinstance(protocol, asyncio.BufferedProtocol):
            protocol.get_buffer(len(data))[: len(data)] = data  # type: ignore[index]  # it is writable
            protocol.buffer_updated(len(data))
        else:
            protocol.data_received(data)

    def _handle_end(self) -> None:
        peer, protocol = self._peer, self._protocol
        assert protocol is not None  # noqa: S101 - it has started
        at_eof = peer is not None and peer._eof_written and not peer._buffer and not self._inbox
        if at_eof and not self._eof_delivered and not self._closing and not self._reading_paused:
            self._eof_delivered = True
            if not protocol.eof_received():
                self.close()
        if self._closing and not self._buffer and not self._lost:
            self._lost = True
            protocol.connection_lost(None)
            self._schedule()


class TestClient:
    """Connects to a server in memory. As a context manager, it stops the server at the end.

    ``clock`` is the clock of the clients; make the server with the same one.
    """

    __test__ = False  # keeps pytest from collecting it

    def __init__(self, server: Server, clock: Clock | None = None) -> None:
        self._server = server
        self.clock: Any = clock or ManualClock()
        """The clock of the clients: a new `ManualClock` by default."""
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
        stopping = asyncio.ensure_future(self._server.stop())
        await settle()
        if isinstance(self.clock, ManualClock):
            while not stopping.done():  # it waits for a handler, until its time is up
                await self.clock.advance(1)
        await stopping

    def open(self, protocol: asyncio.Protocol, address: str = "192.0.2.1") -> MemoryTransport:
        """Connects ``protocol``; raises `ConnectionRefusedError` if the server refuses the connection."""
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
