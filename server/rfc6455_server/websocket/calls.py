"""The messages of a called handler: each is passed to a function as it arrives, without a task.

`Calls` is an inbox that empties itself. While the peer is behind, messages wait in it as in any inbox:
answers would pile up. When too much waits, reading stops; when the peer has caught up, the calls go on.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

from rfc6455 import Connection, Event, LocalProtocolError
from rfc6455_server.websocket.hub import Hub, Owner
from rfc6455_server.websocket.inbox import MAX_UNREAD, Inbox
from rfc6455_server.websocket.outbox import Outbox
from rfc6455_server.websocket.streams import CodecReader


def refuse_coroutine(result: object) -> None:
    """Raises `TypeError` if what a function of a handler has returned is a coroutine."""
    if isinstance(result, Coroutine):
        result.close()
        raise TypeError(
            "a called handler has returned a coroutine, which nothing awaits; "
            "to await, register an async function instead of a class"
        )


class Calls(Inbox):
    """The messages of one connection, on their way to a function."""

    _calls: ClassVar = True

    __slots__ = ("_calling", "_on_message", "_pull_wanted", "_stopped")

    def __init__(
        self, connection: Connection, reader: CodecReader, outbox: Outbox, owner: Owner, hub: Hub
    ) -> None:
        super().__init__(connection, reader, outbox, owner, hub)
        self._on_message: Callable[[Any, Any], object] | None = None
        self._calling = False
        self._pull_wanted = False  # while a function was running
        self._stopped = False

    def start(self, on_open: Callable[[Any], object], on_message: Callable[[Any, Any], object]) -> None:
        """Calls ``on_open`` with the owner, and then ``on_message`` with the owner and each message."""
        self._call(on_open, self._owner)
        self._on_message = on_message
        self.go_on()

    async def wait(self) -> bool:
        raise LocalProtocolError("messages are passed to on_message", slug="concurrent-recv")

    def go_on(self) -> None:
        """Passes on the oldest batch that waits, unless the peer is behind; others have a turn after it."""
        if self._later and not self._outbox.behind:
            batch, size = self._later.pop(0)
            self._unread -= size
            self._call(self._pass_on, batch)
            if batch and not self._stopped:
                self._later.insert(0, (batch, size))
                self._unread += size
            if self._charged:
                self._charge()
            if self.paused and self._unread <= MAX_UNREAD:
                self.resume()
            if self._later and not self._outbox.behind:
                self._hub.loop.call_soon(self.go_on)
        if self._later and self._outbox.behind:
            self._outbox.await_peer()
        if self._pull_wanted:
            self.pull()

    def pull(self) -> None:
        if self._calling:
            self._pull_wanted = True  # what is running may have closed the connection
            return
        super().pull()
        while self._pull_wanted:
            self._pull_wanted = False
            super().pull()

    def stop(self) -> None:
        self._stopped = True
        self._later.clear()
        self._unread = 0
        self._charge()
        super().stop()

    def finish(self) -> None:
        super().finish()
        # What the peer sent before the end, and before it had read the answers.
        for batch, _ in self._later:
            self._call(self._pass_on, batch)
        self._later.clear()
        self._unread = 0
        self._charge()

    def _passed_on(self, batch: deque[Event]) -> bool:
        if self._on_message is not None and not self._later and not self._outbox.behind:
            self._call(self._pass_on, batch)
        if not batch or self._stopped:
            return True
        if self._outbox.behind:
            self._outbox.await_peer()
        return False

    def _pass_on(self, batch: deque[Event]) -> None:
        """Takes messages from ``batch`` until the peer is behind, or this side closes."""
        on_message, owner, outbox = self._on_message, self._owner, self._outbox
        assert on_message is not None  # noqa: S101 - it has started
        while batch and not self._stopped:
            data = batch.popleft().data  # type: ignore[union-attr]  # batches hold messages only
            result = on_message(owner, data)
            if result is not None:
                refuse_coroutine(result)
            if outbox.behind:
                return

    def _call(self, function: Callable[..., object], *args: object) -> None:
        """Calls a function; what it sends leaves in one write when it returns."""
        outbox = self._outbox
        self._calling = True
        outbox.hold()
        try:
            refuse_coroutine(function(*args))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever a handler raises
            self._stopped = True  # even if the connection has ended, and messages are left
            self._owner.end_after(error)
        finally:
            self._calling = False
            outbox.flush_scheduled()
