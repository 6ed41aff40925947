"""What arrives for one socket: its events and their answers, from the packet to the handlers.

Left to others: the order in which handlers run (`handlers`), how they are registered (`registering`), the
rest of a socket (`sockets`).
"""

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, Protocol

from rfc6455_server.limits import LimitExceededError
from rfc6455_server.logs import log
from rfc6455_server.socketio.handlers import EVENT_OVERHEAD, EventAck, HandlerQueue, Spawn
from rfc6455_server.socketio.packets import Packet, PacketType
from rfc6455_server.socketio.registering import (
    ConnectError,
    Handlers,
    Registered,
    RegisteredHandler,
    Registering,
)
from rfc6455_server.socketio.session import Session

_NO_ACK: Final = EventAck(None, lambda _id, _values: False)


class HandlingNamespace(Protocol):
    """What a receiver needs of its namespace."""

    handlers: Handlers
    ending: dict[str, "asyncio.Task[None]"]
    """The tasks that run the ``disconnect`` handlers of sockets, by the sockets' ids."""


class EventReceiver(Registering):
    """The receiving half of a socket."""

    id: str

    def __init__(self, session: Session, spawn: Spawn, shared: HandlingNamespace) -> None:
        self._acks: dict[int, asyncio.Future[Any]] = {}
        self._shared = shared
        self._handlers: Handlers | None = None
        self._queue = HandlerQueue(session, spawn)

    @abstractmethod
    def disconnect(self, close: bool = False) -> None:
        """Disconnects the socket; with ``close``, also the client's session."""

    @abstractmethod
    def _acknowledge(self, id_: int, values: Sequence[Any]) -> bool:
        """Sends an acknowledgement; returns whether the client is still there."""

    @abstractmethod
    def _refuse(self, error: ConnectError) -> None:
        """Ends the socket, because a handler of ``connect`` refused the client."""

    # Handlers.

    def _own_handlers(self) -> Handlers:
        if self._handlers is None:
            self._handlers = Handlers()
        return self._handlers

    def _all_handlers(self) -> Iterable[Handlers]:
        shared, own = self._shared.handlers, self._handlers
        return (shared,) if own is None else (shared, own)

    def _take(self, event: str) -> Registered:
        """Returns the handlers to call for one event."""
        taken = self._shared.handlers.take(event)
        return taken if self._handlers is None else (*taken, *self._handlers.take(event))

    # Packets.

    def receive(self, packet: Packet, size: int) -> None:
        """Handles an EVENT or an ACK, which arrived in ``size`` bytes."""
        if packet.type is PacketType.ACK:
            future = self._acks.pop(packet.id, None) if packet.id is not None else None
            if future is not None and not future.done():
                values = packet.data
                future.set_result(values[0] if len(values) == 1 else tuple(values) if values else None)
            return
        event = packet.data[0]
        if self._queue.opening or self._is_handled(event):
            call = partial(self._handle, packet)
            self._queue.append(call, size + EVENT_OVERHEAD, partial(self._is_concurrent, event))

    def _is_handled(self, event: str) -> bool:
        return any(handlers.catch_all or event in handlers.by_event for handlers in self._all_handlers())

    def _is_concurrent(self, event: str) -> bool:
        """Whether an event need not wait for its turn, because all its handlers are concurrent."""
        found = False
        for handlers in self._all_handlers():
            for registered in handlers.by_event.get(event, ()):
                if not registered.concurrent:
                    return False
                found = True
        return found

    async def _handle(self, packet: Packet) -> None:
        """Runs the handlers of an event."""
        event = packet.data[0]
        ack = _NO_ACK if packet.id is None else EventAck(packet.id, self._acknowledge)
        handlers = self._take(event)
        for each in self._all_handlers():
            for registered in each.catch_all:
                await self._run_catch_all(registered, packet, None if handlers else ack)
        ack.expect(sum(registered.ack for registered in handlers))
        for registered in handlers:
            if registered.concurrent and len(handlers) > 1:
                self._queue.start(partial(self._run, registered, packet, ack))
            else:
                await self._run(registered, packet, ack)

    async def _run(self, registered: RegisteredHandler, packet: Packet, ack: EventAck) -> None:
        """Runs one handler of an event."""
        try:
            result = await registered.call(self, *packet.data[1:], ack=ack)
            if registered.ack:
                ack.offer(result)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises
            if registered.ack:
                ack.fail()
            self._handle_failure(packet.data[0], error)

    async def _run_catch_all(
        self, registered: RegisteredHandler, packet: Packet, ack: EventAck | None
    ) -> None:
        """Runs a handler of all events, whose result answers if ``ack`` is given."""
        try:
            result = await registered.call(self, *packet.data, ack=ack or _NO_ACK)
            if result is not None and ack is not None:
                ack.offer(result)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises
            self._handle_failure(packet.data[0], error)

    def _handle_failure(self, event: str, error: Exception) -> None:
        """Logs the exception that is being handled. It stops neither the server nor the next handler."""
        if isinstance(error, LimitExceededError):
            log(logging.INFO, "socket exceeded a limit", id=self.id, reason=str(error))
            self.disconnect(close=True)
        else:
            log(logging.ERROR, "handler failed", exception=True, id=self.id, handler=event)

    # Beginning and end.

    def _open(self, then: Callable[[], None]) -> None:
        """Runs the handlers of ``connect`` before all others, and then calls ``then``."""
        predecessor = self._shared.ending.get(self.id)
        if predecessor is None and "connect" not in self._shared.handlers.by_event:
            then()
        else:
            self._queue.open(partial(self._run_connect, predecessor, then))

    async def _run_connect(self, predecessor: "asyncio.Task[None] | None", then: Callable[[], None]) -> None:
        if predecessor is not None:
            await asyncio.wait([predecessor])
        for registered in self._take("connect"):
            try:
                await registered.call(self)
            except ConnectError as error:
                self._refuse(error)
                return
            except Exception as error:  # noqa: BLE001 - whatever a handler raises
                self._handle_failure("connect", error)
                self._refuse(ConnectError("internal error"))
                return
        then()

    def _finish(self, reason: str, rooms: set[str], *, handles_waiting: bool) -> None:
        """Runs the handlers of ``disconnecting`` and ``disconnect``. Drops the events that wait, unless they
        are still handled."""
        dropped = 0 if handles_waiting else self._queue.drop()
        if dropped:
            log(logging.INFO, "unhandled events dropped", id=self.id, reason=reason, events=dropped)
        handled = any(
            not handlers.by_event.keys().isdisjoint(("disconnecting", "disconnect"))
            for handlers in self._all_handlers()
        )
        if not handled and not self._queue.opening:
            return
        ending, id_ = self._shared.ending, self.id
        task = ending[id_] = self._queue.finish(partial(self._run_ending, reason, rooms))
        task.add_done_callback(lambda _: ending.get(id_) is task and ending.pop(id_))

    async def _run_ending(self, reason: str, rooms: set[str]) -> None:
        """Calls all handlers at once: none waits for another."""
        calls = [self._run_one("disconnecting", one, reason, rooms) for one in self._take("disconnecting")]
        calls += [self._run_one("disconnect", one, reason) for one in self._take("disconnect")]
        await asyncio.gather(*calls)

    async def _run_one(self, event: str, registered: RegisteredHandler, *arguments: object) -> None:
        try:
            await registered.call(self, *arguments)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises
            self._handle_failure(event, error)
