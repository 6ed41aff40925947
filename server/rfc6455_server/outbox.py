"""Outgoing frames: queued during a tick of the event loop, written once at its end.

Left to others: what is sent (`websocket`, `rooms`), and waiting for the peer to read (`websocket`).

The queue itself is the output of the `Connection`, so that frames leave in the program's order whoever
queued them. What is here decides when they leave: many messages cost one write a connection, and
many connections cost one callback a tick.
"""

import asyncio

from rfc6455 import Connection


class Tick:
    """Flushes, at the end of this tick of the loop, every outbox that has something to send."""

    __slots__ = ("_due", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: list[Outbox] = []

    def add(self, outbox: "Outbox") -> None:
        """Has ``outbox`` flushed at the end of this tick."""
        if not self._due:
            self._loop.call_soon(self._flush)
        self._due.append(outbox)

    def _flush(self) -> None:
        due, self._due = self._due, []
        for outbox in due:
            outbox.rest()


class Outbox:
    """What one connection has to send."""

    __slots__ = ("_connection", "_eager", "_queued", "_tick", "_transport")

    def __init__(self, connection: Connection, transport: asyncio.WriteTransport, tick: Tick) -> None:
        self._connection = connection
        self._transport = transport
        self._tick = tick
        self._queued = False
        self._eager = True

    def send_soon(self) -> None:
        """Has what is queued written now, if this is the first time since `rest`, else at the tick's end.

        The answer to a single message leaves without a turn of the loop, many in a row leave together.
        """
        if self._eager:
            self._eager = False
            self.flush()
        else:
            self.schedule()

    def rest(self) -> None:
        """Writes what is queued: whoever sends is about to wait."""
        self._eager = True
        self._queued = False
        data = self._connection.data_to_send()
        if data:
            self._transport.write(data)

    def schedule(self) -> None:
        """Has what is queued written at the end of this tick."""
        if not self._queued:
            self._queued = True
            self._tick.add(self)

    def flush(self) -> None:
        """Writes what is queued now."""
        eager = self._eager
        self.rest()
        self._eager = eager

    @property
    def size(self) -> int:
        """Bytes that were written and have not left: the peer does not read as fast as they come."""
        return self._transport.get_write_buffer_size()
