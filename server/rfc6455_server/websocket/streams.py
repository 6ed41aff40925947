"""A StreamReader and a StreamReaderProtocol that pass bytes on as they arrive.

asyncio's streams collect bytes until a task reads them. Here, `CodecReader.feed_data` hands them to a `Sink`
in the same turn of the event loop: first to the opening handshake, then to the `WebSocket`.
All connections of a loop read into one buffer (`CodecProtocol.get_buffer`).
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, cast
from weakref import WeakKeyDictionary

from rfc6455_server.asyncio_private import break_reference_cycle, drop_drain_waiters

LINGER_TIMEOUT: Final = 2.0
"""Seconds that we go on reading after our last byte, so that the peer receives it and not a reset."""

READ_SIZE: Final = 1 << 18
"""Maximum bytes of one read, and the size of the buffer that all reads of a loop share."""

_MAX_EARLY: Final = 1 << 18
"""Reading pauses when more bytes than this wait for `CodecReader.read_early`."""


class Sink(Protocol):
    """Takes the bytes of a connection as they arrive: an opening handshake, then a `WebSocket`."""

    def receive_data(self, data: bytes) -> None:
        """Takes bytes from the network."""

    def receive_eof(self) -> None:
        """Takes the end of the input."""


class FlowControlled(Protocol):
    """Notified when the transport's buffer fills and empties, and when TCP is closed: a `WebSocket`."""

    def pause_writing(self) -> None:
        """The transport could not write all that it was given."""

    def resume_writing(self) -> None:
        """The transport has written all that it was given."""

    def connection_lost(self) -> None:
        """TCP is closed."""


class CodecReader(asyncio.StreamReader):
    """A StreamReader that keeps nothing once a `Sink` is attached: bytes go straight to the sink.

    Before that, `read_early` returns them; a client's opening handshake reads this way.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._event_loop = loop
        self.sink: Sink | None = None
        """What `attach` was called with."""
        self._early = bytearray()
        self._early_waiter: asyncio.Future[None] | None = None
        self._eof_received = False
        self._reading: asyncio.ReadTransport | None = None

    def set_transport(self, transport: asyncio.BaseTransport) -> None:
        super().set_transport(transport)
        self._reading = cast("asyncio.ReadTransport", transport)  # uvloop's are of another class

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]  # transports pass bytes
        if self.sink is not None:
            self.sink.receive_data(data)
            return
        self._early += data
        if len(self._early) > _MAX_EARLY:
            self.pause()
        self._wake()

    def feed_eof(self) -> None:
        self._eof_received = True
        if self.sink is not None:
            self.sink.receive_eof()
        self._wake()

    async def read_early(self) -> bytes:
        """Returns the bytes since the last call, at least one; ``b""`` at EOF."""
        while not self._early and not self._eof_received:
            self._early_waiter = self._event_loop.create_future()
            await self._early_waiter
        return self._take_early()

    def attach(self, sink: Sink) -> None:
        """Passes ``sink`` the bytes that `read_early` has not returned, and all that follow."""
        self.sink = sink
        if self._early:
            sink.receive_data(self._take_early())
        if self._eof_received:
            sink.receive_eof()

    def detach(self) -> None:
        """Stops passing bytes on."""
        self.sink = None

    def pause(self) -> None:
        """Stops reading, so that TCP pushes back on the peer."""
        if self._reading is not None:
            self._reading.pause_reading()

    def resume(self) -> None:
        """Resumes reading."""
        if self._reading is not None and not self._reading.is_closing():
            self._reading.resume_reading()

    @property
    def is_closing(self) -> bool:
        """Whether TCP is closing or closed."""
        return self._reading is None or self._reading.is_closing()

    def abort(self) -> None:
        """Closes TCP at once."""
        if self._reading is not None:
            self._reading.abort()  # type: ignore[attr-defined]  # it is a writing transport as well

    def write_eof(self) -> bool:
        """Sends EOF if the transport can; returns False if the peer has reset the connection."""
        writing = cast("asyncio.WriteTransport", self._reading)
        try:
            if not writing.is_closing() and writing.can_write_eof():
                writing.write_eof()
        except OSError:
            writing.abort()  # `connection_lost` follows
            return False
        return True

    def release(self) -> None:
        """Frees the transport without the garbage collector. Call it when TCP is closed."""
        if self._reading is not None:
            break_reference_cycle(self._reading)

    def _take_early(self) -> bytes:
        early = bytes(self._early)
        self._early.clear()
        if len(early) > _MAX_EARLY:
            self.resume()
        return early

    def _wake(self) -> None:
        if self._early_waiter is not None and not self._early_waiter.done():
            self._early_waiter.set_result(None)


_read_buffers: WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = WeakKeyDictionary()


def _shared_read_buffer(loop: asyncio.AbstractEventLoop) -> memoryview:
    """Returns the buffer that all connections of ``loop`` read into.

    Sharing is safe: the bytes are copied out before anything else runs. A buffer for each read would be
    mapped and unmapped by malloc every time, or be so small that a large message arrives in many reads:
    12 % of the CPU time of a 64 KiB echo (``benchmarks/echo.py``).
    """
    buffer = _read_buffers.get(loop)
    if buffer is None:
        buffer = _read_buffers[loop] = memoryview(bytearray(READ_SIZE))
    return buffer


class CodecProtocol(asyncio.StreamReaderProtocol, asyncio.BufferedProtocol):
    """Connects a `CodecReader` to a transport, and passes on the transport's flow control.

    uvloop does not see that it is a BufferedProtocol; there it works by ``data_received``.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connected: "Callable[[CodecProtocol, asyncio.WriteTransport], None] | None" = None,
    ) -> None:
        self.reader = CodecReader(loop)
        self._event_loop = loop
        self._read_buffer = _shared_read_buffer(loop)
        self._connected = connected
        super().__init__(self.reader, loop=loop)
        drop_drain_waiters(self)
        self._writing_paused = False
        self._eof_waits = False
        self._lost = False
        self._drain_waiter: asyncio.Future[None] | None = None
        self.websocket: FlowControlled | None = None
        """The WebSocket of this connection, once it is open."""
        self.on_lost: Callable[[CodecProtocol], None] | None = None
        """Called when TCP is closed."""
        self.peer = ""
        """The address that opened the connection: TCP's, or that of a PROXY header."""
        self.address = ""
        """The client's address: ``peer``, or what a trusted proxy reports in ``X-Forwarded-For``."""
        self.scheme = "http"
        """``https`` if ``peer`` uses TLS: on this connection, or by the PROXY header."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        writing = cast("asyncio.WriteTransport", transport)  # uvloop's are of another class
        # `pause_writing` is called as soon as a write does not fit, `resume_writing` when all of it has left.
        # By default, asyncio lets 64 KiB wait in the transport, where nobody counts them.
        writing.set_write_buffer_limits(high=1, low=0)
        # asyncio's own ``client_connected_cb`` would be kept, and with it all that it refers to.
        connected, self._connected = self._connected, None
        if connected is not None:
            connected(self, writing)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        sink = self.reader.sink
        if sink is not None:
            sink.receive_data(bytes(self._read_buffer[:nbytes]))
        else:
            self.reader.feed_data(bytes(self._read_buffer[:nbytes]))

    def pause_writing(self) -> None:
        self._writing_paused = True
        if self.websocket is not None:
            self.websocket.pause_writing()

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._wake_drain()
        if self._eof_waits:
            self._eof_waits = False
            # Not at once: asyncio is in the middle of a write.
            self._event_loop.call_soon(self.reader.write_eof)
        if self.websocket is not None:
            self.websocket.resume_writing()

    def send_eof(self) -> bool:
        """Sends EOF when all that was written has left, where the transport can (TLS cannot).

        Returns False if the peer has reset the connection, which is then aborted. asyncio also lets EOF wait,
        but raises in the event loop if the peer resets the connection meanwhile.
        """
        self._eof_waits = self._writing_paused
        return self._eof_waits or self.reader.write_eof()

    async def drain(self) -> None:
        """Waits until the transport takes more; one task at a time.

        Raises `ConnectionResetError` if TCP is closed.
        """
        if self.reader.is_closing:
            await asyncio.sleep(0)  # until `connection_lost`
        while self._writing_paused and not self._lost:
            self._drain_waiter = self._event_loop.create_future()
            try:
                await self._drain_waiter
            finally:
                self._drain_waiter = None
        if self._lost:
            raise ConnectionResetError("TCP is closed")

    def _wake_drain(self) -> None:
        if self._drain_waiter is not None and not self._drain_waiter.done():
            self._drain_waiter.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._wake_drain()
        self.reader.release()
        # A lost connection counts as EOF whatever the error: StreamReader would report an exception that
        # nobody retrieves.
        super().connection_lost(None)
        if self.websocket is not None:
            self.websocket.connection_lost()
        if self.on_lost is not None:
            self.on_lost(self)
