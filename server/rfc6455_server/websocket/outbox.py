"""Outgoing messages: written once a tick of the event loop, bounded in bytes.

Left to others: what is sent (`websocket`, `rooms`), and ending the connection of a slow peer (`websocket`).

While the peer keeps up, the queue is the output of the `Connection`: frames leave in the order of the calls,
whoever made them, and many messages cost one write. When the operating system takes no more, the peer is
*behind*, and messages wait in a `Backlog`, whole and not yet compressed, so that a policy can drop one
without harm to the others. The transport's own buffer never holds more than the one write that did not fit.
"""

import asyncio
from typing import Final

from rfc6455 import Connection, PreparedMessage
from rfc6455_server.policies import Policy
from rfc6455_server.websocket.backlog import CALL_COST, Backlog, Waiting
from rfc6455_server.websocket.hub import Hub, NoOwner, Owner, Slowness

MAX_UNWRITTEN: Final = 1 << 16
"""More bytes than this are written at once, and not at the end of the tick."""

_MAX_HELD: Final = 3 << 15
"""The same of several frames, with what holds them: room for 64 of 1 KiB, the answers to what one read may
bring. Writing some of these earlier costs a tenth of an echo (``benchmarks/echo.py``)."""

MIN_PROGRESS: Final = 1 << 16
"""Bytes that a peer must take within the send timeout if its backlog is full, or a call of `send` or what the
peer itself has sent waits."""

FRAME_COST: Final = 128
"""Bytes counted for a frame in the codec besides its payload: for the objects that hold it."""

_MAX_ENCODED: Final = 1 << 20
"""Bytes of the backlog that are encoded before others have their turn."""

_NO_OWNER: Final = NoOwner()


class Outbox:
    """The outgoing messages of one connection."""

    __slots__ = (
        "_backlog",
        "_connection",
        "_finished",
        "_hub",
        "_lost",
        "_owner",
        "_reserved",
        "_scheduled",
        "_transport",
        "_unwritten",
        "_write_first",
        "_written",
        "behind",
        "dropped",
    )

    def __init__(
        self, connection: Connection, transport: asyncio.WriteTransport, owner: Owner, hub: Hub
    ) -> None:
        self._connection = connection
        self._transport = transport
        self._owner: Owner = owner
        self._hub = hub
        self._scheduled = False
        self._write_first = True
        self._unwritten = 0  # bytes queued in the codec since the last write, with what holds them
        self._written = 0  # bytes of the last write
        self._reserved = 0  # bytes held for this peer elsewhere
        self._backlog: Backlog | None = None
        self._finished = False
        self._lost = False
        self.behind = False
        """Whether the peer is behind: messages then go through `post` and `send`."""
        self.dropped = 0
        """Messages that were dropped because the peer was behind."""

    # A peer that keeps up.

    def send_soon(self, size: int) -> bool:
        """Writes what is queued: now if it is the first call since `flush_scheduled`, else at the tick's end.

        So the answer to a single message leaves without a turn of the loop, and many answers leave together.
        Returns True if the caller should let others run before it sends more: much was written, or the
        connection is lost.
        """
        if self._write_first:
            self._write_first = False
            self._write()
            return self._lost or size > MAX_UNWRITTEN
        return self.schedule(size)

    def hold(self) -> None:
        """Writes nothing but much until `flush_scheduled`, which the caller calls in this tick."""
        self._scheduled = True

    def flush_scheduled(self) -> None:
        """Writes what was scheduled. Called at the end of a tick, and before a handler waits."""
        self._write_first = True
        if self._scheduled:
            self._scheduled = False
            self.flush()

    def schedule(self, size: int) -> bool:
        """Writes what is queued, a frame of ``size`` bytes more than before, at the end of this tick.

        If it is much, writes it at once and returns True. Empty frames are not free: a tick could have any
        number of them.
        """
        self._unwritten += size + FRAME_COST
        if self.behind:
            # Control frames, and heartbeats of a protocol above: messages wait in the backlog.
            self._charge()
            return False
        if self._unwritten > _MAX_HELD:
            self.flush()
            return True
        if not self._scheduled:
            self._scheduled = True
            self._hub.tick.schedule(self)
        return False

    def schedule_control(self, size: int) -> None:
        """Writes an answer to a control frame at the end of this tick, and not before.

        Between two writes, the codec counts the control frames that arrive: a flood is one in a single tick.
        """
        self._unwritten += size + FRAME_COST
        if self.behind:
            self._charge()
        elif not self._scheduled:
            self._scheduled = True
            self._hub.tick.schedule(self)

    def flush(self) -> None:
        """Writes what is queued now, unless the peer is behind."""
        if not self.behind:
            self._write()

    def _write(self) -> int:
        """Gives the codec's output to the transport, which may call `pause`. Returns the bytes written."""
        self._unwritten = 0
        data = self._connection.data_to_send()
        if not data:
            return 0
        if self._transport.is_closing():
            self._lost = True  # TCP is closed; `connection_lost` follows
            return 0
        self._hub.stats.bytes_out += len(data)
        self._written = len(data)
        if len(data) <= MAX_UNWRITTEN or self._transport.get_extra_info("ssl_object") is None:
            self._transport.write(data)
        else:
            self._write_tls(data)
        return len(data)

    def _write_tls(self, data: bytes) -> None:
        """Writes in pieces: asyncio's TLS transport takes a write whole, and does not count what it holds."""
        self._written = 0  # TLS keeps none of it, but what it was encrypted to
        view = memoryview(data)
        for start in range(0, len(data), MAX_UNWRITTEN):
            self._transport.write(view[start : start + MAX_UNWRITTEN])
        if self.behind:
            self._charge()  # `pause` was called after one of the pieces

    # A peer that is behind.

    @property
    def size(self) -> int:
        """Bytes that wait here, in the codec and in the transport, with what holds them."""
        waiting = self._backlog.size if self._backlog else 0
        return waiting + self._in_codec_and_transport

    @property
    def _in_codec_and_transport(self) -> int:
        return self._unwritten + self._transport.get_write_buffer_size()

    @property
    def held(self) -> int:
        """Bytes of memory that this peer takes: what waits, and the calls that wait for it.

        A transport frees a write when it has written the last byte of it, and not before.
        """
        held = self._unwritten + self._reserved
        backlog = self._backlog
        if backlog is not None:
            held += backlog.size + backlog.senders_size + CALL_COST * backlog.waiting_calls
        unsent = self._transport.get_write_buffer_size()
        return held + max(unsent, self._written) if unsent else held

    def reserve(self, size: int) -> None:
        """Records that ``size`` more bytes are held for this peer elsewhere: its request, calls that wait."""
        self._reserved += size
        self._charge()

    def _charge(self) -> None:
        if self._owner is not _NO_OWNER:  # else TCP is closed
            self._hub.budget.charge(self, self.held)

    def pause(self) -> None:
        """The transport could not write all that it was given."""
        if self._finished:
            return
        self.behind = True
        if self._backlog is None:
            self._backlog = Backlog(self._transport.get_write_buffer_size(), self._hub.budget)
        if self.size > self._hub.limits.max_queue:
            self._start_progress_timer(self._backlog)
        self._charge()

    def resume(self) -> None:
        """The transport has written all that it was given: writes from the backlog until it pauses again.

        After `_MAX_ENCODED` bytes, it lets others run, and continues in the next turn of the loop.
        """
        backlog = self._backlog
        if backlog is None:
            self._charge()  # all that `finish` left has been written
            return
        self.behind = False
        encoded = 0
        while not self.behind and self._backlog is backlog:
            if encoded > _MAX_ENCODED:
                self.behind = True  # so that nothing overtakes the backlog
                self._charge()
                self._hub.loop.call_soon(self.resume)
                return
            size = 0
            while backlog and size < MAX_UNWRITTEN:
                size += self._encode(backlog.popleft())
            encoded += size
            self._admit_senders(backlog)
            written = self._write()
            backlog.written += written
            if not written:
                self._drop_backlog()
                self._owner.caught_up()
                return
        if self._backlog is backlog:
            self._charge()

    def post(self, message: PreparedMessage, policy: Policy) -> None:
        """Queues a message for a peer that is behind, if the policy finds room. Never waits."""
        backlog = self._backlog
        assert backlog is not None  # noqa: S101 - the peer is behind
        room = self._hub.limits.max_queue - self._in_codec_and_transport
        if backlog.post(message, policy, room, self._count_drop):
            # Nothing is dropped for a peer that keeps reading; one that does not is disconnected in time.
            self._start_progress_timer(backlog)
        self._charge()

    def await_peer(self) -> None:
        """Messages of a peer that is behind wait until it has caught up: it has to keep reading."""
        backlog = self._backlog
        assert backlog is not None  # noqa: S101 - the peer is behind
        backlog.awaited = True
        self._start_progress_timer(backlog)

    async def send(self, message: PreparedMessage | str | bytes | None, size: int) -> bool:
        """Queues a message for a peer that is behind as soon as there is room; waits until it has left.

        Returns False if the connection ended first. If the call is cancelled while there is no room, the
        message is not sent.
        """
        backlog = self._backlog
        assert backlog is not None  # noqa: S101 - the peer is behind
        sent: asyncio.Future[bool] = self._hub.loop.create_future()
        waiting = Waiting(message, size, droppable=False, sent=sent)
        backlog.add_sender(waiting)
        backlog.waiting_calls += 1
        self._admit_senders(backlog)
        self._start_progress_timer(backlog)
        try:
            self._charge()
            return await sent
        except asyncio.CancelledError:
            # Only then may it still wait for room. A search after each call would take quadratic time.
            backlog.remove_sender(waiting)
            raise
        finally:
            backlog.waiting_calls -= 1
            if self._backlog is backlog:
                self._charge()

    async def wait_sent(self) -> bool:
        """Waits until all that is queued now has left; returns False if the connection ended first."""
        self._write_first = True
        self.flush()
        if self.behind:
            return await self.send(None, 0)
        return not self._finished

    def disconnect_slow(self, slowness: Slowness) -> None:
        """Drops the backlog and ends the connection; at once if it is ending already."""
        self._drop_backlog()
        self._hub.budget.release(self)
        if self._finished:
            self._transport.abort()
        else:
            self._owner.disconnect_slow(slowness)

    def encode_backlog(self) -> None:
        """Encodes all that waits, so that a Close can follow it."""
        backlog = self._backlog
        while backlog:
            self._encode(backlog.popleft())

    def finish(self) -> None:
        """Writes what the codec still has, its Close last, and drops the backlog."""
        self._finished = True
        self._drop_backlog()
        before = self._written if self._transport.get_write_buffer_size() else 0
        if self._write():
            self._written += before
        self._charge()  # until the peer has read it, or TCP is closed

    def release(self) -> None:
        """Drops everything, the reference to the owner too. Call it when TCP is closed."""
        self._finished = True
        self._owner = _NO_OWNER
        self._drop_backlog()
        self._hub.budget.release(self)

    def _encode(self, waiting: Waiting) -> int:
        message = waiting.message
        if isinstance(message, PreparedMessage):
            self._connection.send_prepared(message)
            self._hub.budget.recount(message)  # others may still hold it
        elif isinstance(message, str):
            self._connection.send_text(message)
        elif message is not None:  # `wait_sent` waits for a place in the queue, without a message
            self._connection.send_binary(message)
        waiting.resolve(sent=True)
        return waiting.size

    def _admit_senders(self, backlog: Backlog) -> None:
        """Moves messages of `send` into the backlog while there is room, in the order of the calls."""
        while backlog.senders:
            if backlog and self.size + backlog.senders[0].size > self._hub.limits.max_queue:
                return
            backlog.admit_sender()

    def _start_progress_timer(self, backlog: Backlog) -> None:
        """Starts a timer that checks whether the peer takes `MIN_PROGRESS`, unless one is running."""
        if backlog.progress_timer is None:
            taken = self._taken(backlog)
            timeout = self._hub.limits.send_timeout
            backlog.progress_timer = self._hub.clock.call_later(timeout, self._check_progress, backlog, taken)

    def _check_progress(self, backlog: Backlog, taken: int) -> None:
        backlog.progress_timer = None
        full = self.size > self._hub.limits.max_queue
        waited_for = backlog.awaited or backlog.waiting_calls > 0
        if not waited_for and not full:
            return
        if self._taken(backlog) - taken < MIN_PROGRESS:
            self.disconnect_slow("send timeout" if waited_for else "backlog full")
        else:
            self._start_progress_timer(backlog)

    @property
    def taken(self) -> int | None:
        """Bytes that the peer has taken since it fell behind; ``None`` if it is not behind."""
        return self._taken(self._backlog) if self.behind and self._backlog is not None else None

    def _taken(self, backlog: Backlog) -> int:
        """Bytes that the peer has taken since it fell behind."""
        return backlog.written - self._transport.get_write_buffer_size()

    def _drop_backlog(self) -> None:
        backlog, self._backlog = self._backlog, None
        self.behind = False
        if backlog is not None:
            backlog.clear()
            self._charge()

    def _count_drop(self, policy: str) -> None:
        self.dropped += 1
        self._hub.stats.dropped[policy] += 1
