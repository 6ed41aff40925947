"""What arrives for one socket: its events and their answers, from the packet to the handlers.

Left to others: the order in which handlers run (`handlers`), how they are registered (`registering`), the
rest of a socket (`sockets`).
"""

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from rfc6455_server.limits import LimitExceededError
from rfc6455_server.logs import log
from rfc6455_server.socketio.handlers import EVENT_OVERHEAD, EventAck, HandlerQueue, Spawn
from rfc6455_server.socketio.handshake import Handshake
from rfc6455_server.socketio.packets import Packet, PacketType
from rfc6455_server.socketio.registering import (
    ConnectError,
    EventError,
    EventHandler,
    Handlers,
    Registered,
    RegisteredHandler,
    Registering,
    call_handler,
)
from rfc6455_server.socketio.session import Session
from rfc6455_server.socketio.typed.problems import INTERNAL_ERROR, InvalidDataError
from rfc6455_server.socketio.typed.signatures import Signature

_AnyMiddleware = TypeVar("_AnyMiddleware", bound=EventHandler)

_NO_ACK: Final = EventAck(None, lambda _id, _values: False)


class HandlingNamespace(Protocol):
    """What a receiver needs of its namespace."""

    handler_groups: Sequence[Handlers]
    """The handlers that all its sockets have; in a child of a dynamic namespace, its parent's come first."""

    def ending(self, id_: str) -> "asyncio.Task[None] | None":
        """Returns the task that runs the ``disconnect`` handlers of the socket with this id, if it runs."""

    def keep_ending(self, id_: str, task: "asyncio.Task[None]") -> None:
        """Remembers such a task while it runs."""


class EventReceiver(Registering):
    """The receiving half of a socket."""

    id: str
    handshake: Handshake
    """What the client sent to connect."""
    _middlewares: Sequence[EventHandler] = ()

    def __init__(self, session: Session, spawn: Spawn, shared: HandlingNamespace) -> None:
        self._acks: dict[int, asyncio.Future[Any]] = {}
        self._shared = shared
        self._handlers: Handlers | None = None
        self._queue = HandlerQueue(session, spawn)

    @abstractmethod
    def disconnect(self, close: bool = False) -> None:
        """Disconnects the socket; with ``close``, also the client's session."""

    @abstractmethod
    def emit(self, event: str, *args: Any) -> None:
        """Sends an event to the client."""

    @abstractmethod
    def _take_ack(self, id_: int) -> "asyncio.Future[Any] | None":
        """Removes what waits for the acknowledgement with this id, and returns it."""

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

    def _all_handlers(self) -> Sequence[Handlers]:
        shared, own = self._shared.handler_groups, self._handlers
        return shared if own is None else (*shared, own)

    def _take(self, event: str) -> Registered:
        """Returns the handlers to call for one event."""
        taken: Registered = ()
        for handlers in self._all_handlers():
            found = handlers.take(event)
            taken = taken + found if taken else found
        return taken

    def use(self, middleware: _AnyMiddleware) -> _AnyMiddleware:
        """Registers a function, async or not, of this socket, an event's name and its arguments.

        It is called for every event of this client, before all handlers, in the event's turn (`on`); several
        run in the order of registering. If it raises `EventError`, no handler sees the event, and the client
        is told why. Any other exception is logged, and the client is told "internal error".
        """
        self._middlewares = (*self._middlewares, middleware)
        return middleware

    def tell_outgoing(self, data: Sequence[Any]) -> None:
        """Calls the functions of `on_any_outgoing`; ``data`` is an event's name and its arguments."""
        for handlers in self._all_handlers():
            for registered in handlers.outgoing:
                try:
                    registered.handler(self, *data)
                except Exception:  # noqa: BLE001 - whatever the function raises
                    log(logging.ERROR, "handler failed", exception=True, id=self.id, handler=data[0])

    # Packets.

    def receive(self, packet: Packet, size: int) -> None:
        """Handles an EVENT or an ACK, which arrived in ``size`` bytes."""
        if packet.type is PacketType.ACK:
            future = self._take_ack(packet.id) if packet.id is not None else None
            if future is not None and not future.done():
                values = packet.data
                future.set_result(values[0] if len(values) == 1 else tuple(values) if values else None)
            return
        event = packet.data[0]
        if self._queue.opening or self._is_handled(event):
            call = partial(self._handle, packet)
            self._queue.append(call, size + EVENT_OVERHEAD, partial(self._is_concurrent, event))

    def _is_handled(self, event: str) -> bool:
        for handlers in self._all_handlers():
            if handlers.catch_all or event in handlers.by_event:
                return True
        return bool(self._middlewares)

    def _has_handler(self, event: str) -> bool:
        return any(event in handlers.by_event for handlers in self._all_handlers())

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
        if self._middlewares and not await self._is_welcome(packet):
            return
        handlers = self._take(packet.data[0])
        ack = _NO_ACK
        if packet.id is not None:
            ack = EventAck(packet.id, self._acknowledge, sum([registered.ack for registered in handlers]))
        for each in self._all_handlers():
            if each.catch_all:
                await self._run_catch_all(each.catch_all, packet, _NO_ACK if handlers else ack)
        for registered in handlers:
            if registered.concurrent and len(handlers) > 1:
                self._queue.start(partial(self._run, registered, packet, ack))
            else:
                await self._run(registered, packet, ack)

    async def _is_welcome(self, packet: Packet) -> bool:
        """Runs the socket's middlewares; answers and returns False if one refuses the event."""
        ack = EventAck(packet.id, self._acknowledge)
        try:
            for middleware in self._middlewares:
                await call_handler(middleware, self, *packet.data)
        except EventError as error:
            self._refuse_event(packet.data[0], error.answer, ack)
            return False
        except Exception as error:  # noqa: BLE001 - whatever a middleware raises refuses the event
            self._handle_failure(packet.data[0], error)
            self._refuse_event(packet.data[0], INTERNAL_ERROR, ack)
            return False
        return True

    def _refuse_event(self, event: str, error: Mapping[str, Any], ack: EventAck) -> None:
        try:
            if ack.wanted:
                ack({"error": error})
            else:
                self.emit("error", {"event": event, "error": error})
        except Exception as failure:  # noqa: BLE001 - it has data that cannot be encoded
            self._handle_failure(event, failure)

    async def _run(self, registered: RegisteredHandler, packet: Packet, ack: EventAck) -> None:
        """Runs one handler of an event."""
        try:
            if registered.signature is not None:
                await self._run_checked(registered, registered.signature, packet, ack)
                return
            result = await registered.call(self, *packet.data[1:], ack=ack)
            if registered.ack and packet.id is not None:
                ack.offer(result)
        except EventError as error:
            self._refuse_event(packet.data[0], error.answer, ack)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises
            if self._refuse_arguments(registered, packet.data[1:], packet.data[0], error, ack):
                return
            if registered.ack and packet.id is not None:
                ack.fail()
            self._handle_failure(packet.data[0], error)

    def _refuse_arguments(
        self,
        registered: RegisteredHandler,
        arguments: Sequence[Any],
        event: str,
        error: Exception,
        ack: EventAck,
    ) -> bool:
        """Tells the client if the handler failed because of the number of its arguments.

        Otherwise any client could fill the log with tracebacks.
        """
        mismatch = registered.mismatch(self, *arguments) if isinstance(error, TypeError) else ""
        if mismatch:
            self._refuse_event(event, {"code": "invalid", "message": f"wrong arguments: {mismatch}"}, ack)
        return bool(mismatch)

    async def _run_checked(
        self, registered: RegisteredHandler, signature: Signature, packet: Packet, ack: EventAck
    ) -> None:
        """Runs one handler of an event, whose arguments and result are checked."""
        event = packet.data[0]
        try:
            arguments = signature.convert(packet.data[1:])
        except InvalidDataError as error:
            self._refuse_event(event, error.answer, ack)
            return
        result = await registered.call(self, *arguments, ack=ack)
        if not registered.ack:
            return
        try:
            ack.offer(signature.answer(result))
        except (TypeError, ValueError) as error:
            # Its type is not that of the annotation; or it is not annotated, and cannot be sent.
            log(logging.ERROR, "wrong result of a handler", id=self.id, handler=event, reason=str(error))
            ack({"error": INTERNAL_ERROR})

    async def _run_catch_all(self, handlers: Registered, packet: Packet, ack: EventAck) -> None:
        """Runs handlers of all events; ``ack`` is for the first result that is not ``None``."""
        for registered in handlers:
            try:
                result = await registered.call(self, *packet.data, ack=ack)
                if result is not None and ack.wanted:
                    ack.offer(result)
            except EventError as error:
                self._refuse_event(packet.data[0], error.answer, ack)
            except Exception as error:  # noqa: BLE001 - whatever a handler raises
                if not self._refuse_arguments(registered, packet.data, packet.data[0], error, ack):
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
        predecessor = self._shared.ending(self.id)
        if predecessor is None and not self._has_handler("connect"):
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
        dropped = 0
        if handles_waiting:
            self._queue.outlive()
        else:
            dropped = self._queue.drop()
        if dropped:
            log(logging.INFO, "unhandled events dropped", id=self.id, reason=reason, events=dropped)
        handled = self._has_handler("disconnecting") or self._has_handler("disconnect")
        if not handled and not self._queue.opening:
            return
        task = self._queue.finish(partial(self._run_ending, reason, rooms), self.handshake.size)
        self._shared.keep_ending(self.id, task)

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
