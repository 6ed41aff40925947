"""Handlers: how an application registers them for events, and the one place that calls them.

Left to others: when a handler runs (`handlers`), and which handlers an event of a socket has (`sockets`).
"""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from rfc6455_server.socketio.typed.signatures import Signature, parameters_of, signature_of

EventHandler = Callable[..., Any]
"""A function of the socket and the event's arguments, async or not."""

_AnyHandler = TypeVar("_AnyHandler", bound=EventHandler)

_ALIASES: Final = {"connection": "connect"}

_OWN_ARGUMENTS: Final = {
    "connect": ("socket",),
    "disconnecting": ("socket", "reason", "rooms"),
    "disconnect": ("socket", "reason"),
}

OWN_EVENTS: Final = frozenset(_OWN_ARGUMENTS)
"""Events of the socket itself, which no client sends."""


class RefusedError(Exception):
    """What `ConnectError` and `EventError` have in common: a message and ``data`` for the client."""

    def __init__(self, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.data = data

    @property
    def answer(self) -> dict[str, Any]:
        """What the client is sent."""
        return {"message": str(self)} if self.data is None else {"message": str(self), "data": self.data}


class ConnectError(RefusedError):
    """Raised by a middleware or a handler of ``connect`` to refuse a client, which is sent the message and
    ``data``."""


class EventError(RefusedError):
    """Raised by a socket's middleware, or a handler, to refuse an event. The client is told why.

    The acknowledgement is ``{"error": {"message": …, "data": …}}``, without ``data`` if that is ``None``. If
    the client asked for none, it is sent the event ``"error"`` with the same, and the name of the event as
    ``"event"``.
    """


class Ack(Protocol):
    """Answers one event of a client: what a handler takes as its keyword-only argument ``ack``."""

    def __call__(self, *values: Any) -> bool:
        """Sends the acknowledgement. Returns False, and sends nothing, if the client asked for none, has its
        answer already, or is gone. Raises as `packets.encode`."""

    @property
    def wanted(self) -> bool:
        """Whether the client waits for the acknowledgement."""


class AwaitedCancelledError(Exception):
    """A handler awaited something that was cancelled, and let the exception through."""


def check_cancelled(error: asyncio.CancelledError) -> None:
    """Raises `AwaitedCancelledError` unless the running task itself is being cancelled.

    Otherwise, the handler's exception would end the task, in which other handlers wait for their turn.
    """
    task = asyncio.current_task()
    if task is None or not task.cancelling():
        raise AwaitedCancelledError("the handler awaited what was cancelled") from error


def check_event_name(event: object, decorator: str) -> None:
    """Raises `TypeError` if ``event`` is not a name, as in ``@io.on``, which would register nothing."""
    if not isinstance(event, str):
        raise TypeError(f'the name of the event is missing: @{decorator}("name")')


async def call_handler(handler: EventHandler, *arguments: Any) -> Any:
    """Calls ``handler``, async or not, and returns its result."""
    try:
        result = handler(*arguments)
        return await result if inspect.isawaitable(result) else result
    except asyncio.CancelledError as error:
        check_cancelled(error)
        raise


class RegisteredHandler:
    """A handler, and how it was registered: see `Registering.on`. ``signature``: if its arguments and its
    result are checked."""

    __slots__ = ("ack", "concurrent", "handler", "once", "signature", "takes_ack")

    def __init__(
        self,
        handler: EventHandler,
        *,
        concurrent: bool = False,
        ack: bool = True,
        once: bool = False,
        signature: Signature | None = None,
    ) -> None:
        self.handler = handler
        self.concurrent = concurrent
        self.ack = ack
        self.once = once
        self.signature = signature
        self.takes_ack = _takes_ack(handler)

    def mismatch(self, *arguments: Any) -> str:
        """Returns why the handler cannot be called with these arguments; an empty text if it can be."""
        try:
            signature = inspect.Signature(parameters_of(self.handler))
        except (TypeError, ValueError):
            return ""  # a callable in C that does not tell
        try:
            signature.bind(*arguments, **({"ack": None} if self.takes_ack else {}))
        except TypeError as error:
            return str(error)
        return ""

    async def call(self, *arguments: Any, ack: Ack | None = None) -> Any:
        """Calls the handler, and returns its result. ``ack`` is for a handler that takes it."""
        # Not by `call_handler`: passing the arguments on to it would add 0.5 to some 7 µs of an event.
        try:
            result = self.handler(*arguments, ack=ack) if self.takes_ack else self.handler(*arguments)
            return await result if inspect.isawaitable(result) else result
        except asyncio.CancelledError as error:
            check_cancelled(error)
            raise


def _takes_ack(handler: EventHandler) -> bool:
    try:
        parameters = parameters_of(handler)
    except (TypeError, ValueError):
        return False  # a callable in C that does not tell
    return any(one.name == "ack" and one.kind is inspect.Parameter.KEYWORD_ONLY for one in parameters)


Registered = tuple[RegisteredHandler, ...]
"""Handlers in the order in which they were registered."""


class Handlers:
    """The handlers of a namespace or of one socket."""

    __slots__ = ("by_event", "catch_all", "outgoing")

    def __init__(self) -> None:
        self.by_event: dict[str, Registered] = {}
        self.catch_all: Registered = ()
        self.outgoing: Registered = ()

    def add(self, event: str, handler: RegisteredHandler) -> None:
        """Adds a handler of an event, after those that it has."""
        self.by_event[event] = (*self.by_event.get(event, ()), handler)

    def take(self, event: str) -> Registered:
        """Returns the handlers to call for one event, and removes those that are called only once."""
        found = self.by_event.get(event, ())
        for registered in found:
            if registered.once:
                self._keep(event, tuple(other for other in found if not other.once))
                break
        return found

    def remove(self, event: str, handler: EventHandler | None) -> None:
        """Removes a handler of an event, or all of them."""
        found = self.by_event.get(event, ())
        self._keep(event, without(found, handler))

    def _keep(self, event: str, handlers: Registered) -> None:
        if handlers:
            self.by_event[event] = handlers
        else:
            self.by_event.pop(event, None)


def without(handlers: Registered, handler: EventHandler | None) -> Registered:
    """Returns ``handlers`` without ``handler``, or none of them if it is ``None``."""
    if handler is None:
        return ()
    return tuple(registered for registered in handlers if registered.handler != handler)


class Registering:
    """Registers handlers: for a namespace, with a `SocketIO` for its namespace ``"/"``, or for one socket."""

    def _own_handlers(self) -> Handlers:
        """Returns where handlers are registered."""
        raise NotImplementedError

    def on(
        self, event: str, *, concurrent: bool = False, ack: bool = True
    ) -> Callable[[_AnyHandler], _AnyHandler]:
        """Registers a handler of an event: a function, async or not, of the socket and the event's arguments.

        An event may have several. They run one after the other, in the order of registering; those of a
        namespace before those of a socket. So do the events of one socket. A ``concurrent`` handler runs
        beside the others; an event whose handlers all are ``concurrent`` does not wait for its turn. An
        exception is logged, and stops neither the other handlers nor the server.

        The acknowledgement, if the client asked for one, is the first result that is not ``None``; a tuple is
        several values. If all handlers end with ``None``, it has no value; if one of them raised, there is
        none. A handler that raises `EventError` answers with that. ``ack=False``: the handler's result is not
        sent. A handler that wants to answer before it ends takes a keyword-only argument ``ack`` and calls it
        (`Ack`): ``async def save(socket, data, *, ack): ack("queued"); …``

        Arguments and results that are annotated are checked and converted (`typed.annotations` lists the
        types): ``async def message(socket, data: ChatMessage) -> Receipt``. If the arguments are wrong, the
        handler is not called, and the client is sent the acknowledgement ``{"error": {…}}``
        (`typed.problems`) or, if it asked for none, an event ``"error"``: ``{"event": "message", "error":
        {…}}``. If the result is wrong, that is logged, and the client is told only that there was an internal
        error. Raises `AnnotationError` for annotations that cannot be resolved, or whose values JSON does not
        have.

        Three events are the socket's own. The handlers of ``"connect"`` (or ``"connection"``) are called with
        the socket. Its events wait until they have ended. The client learns that it is connected when they
        have ended, or earlier, with the first event that it is sent. A handler that raises `ConnectError`
        before that refuses the client, which sees a ``connect_error``; after that it sees a ``disconnect``.
        Any other exception does the same, and is logged. (To refuse a client before it receives anything,
        use a middleware: `Namespace.use`.)

        When the socket ends, those of ``"disconnecting"`` are called with the socket, the reason and the
        names of the rooms that it was in, which ``socket.rooms`` still has, though it has left them. Those of
        ``"disconnect"`` are called next, with the socket and the reason. They wait until the handlers of
        ``"connect"`` have ended, and for nothing else: neither for handlers of events, which go on if they
        are running, nor for each other. When a client comes back with the same id (``recovery``), its
        ``"connect"`` waits until ``"disconnect"`` has ended. If the client left the namespace, the events
        that it sent before are still handled; after any other end, those that wait are dropped, and counted
        in the log. Raises `TypeError` for a handler of these three that does not take these arguments.
        """
        return self._registrar(event, concurrent=concurrent, ack=ack, once=False)

    def once(
        self, event: str, *, concurrent: bool = False, ack: bool = True
    ) -> Callable[[_AnyHandler], _AnyHandler]:
        """Registers a handler as `on` does, which is removed when the event arrives for the first time."""
        return self._registrar(event, concurrent=concurrent, ack=ack, once=True)

    def off(self, event: str, handler: EventHandler | None = None) -> None:
        """Removes a handler of an event, or all of them; does nothing if there is none."""
        self._own_handlers().remove(_ALIASES.get(event, event), handler)

    def on_any(self, handler: _AnyHandler) -> _AnyHandler:
        """Registers a function of the socket, an event's name and its arguments, for every event of clients.

        It runs before the event's handlers, and its arguments are not checked. If the event has no handler,
        the first result that is not ``None`` is the acknowledgement, as in `on`.
        """
        handlers = self._own_handlers()
        handlers.catch_all = (*handlers.catch_all, RegisteredHandler(handler))
        return handler

    def off_any(self, handler: EventHandler | None = None) -> None:
        """Removes a function that `on_any` registered, or all of them."""
        handlers = self._own_handlers()
        handlers.catch_all = without(handlers.catch_all, handler)

    def on_any_outgoing(self, handler: _AnyHandler) -> _AnyHandler:
        """Registers a function of a socket, an event's name and its arguments, for every event that is sent.

        It is called for each socket that the event is meant for, just before it is sent, whether or not a
        policy then drops it. Events that a recovered client missed are not reported again. It is a plain
        function; its result is ignored, and an exception is logged. Raises `TypeError` for an async one.
        """
        if inspect.iscoroutinefunction(handler):
            raise TypeError("what is called for outgoing events is a plain function: nothing waits for it")
        handlers = self._own_handlers()
        handlers.outgoing = (*handlers.outgoing, RegisteredHandler(handler))
        return handler

    def off_any_outgoing(self, handler: EventHandler | None = None) -> None:
        """Removes a function that `on_any_outgoing` registered, or all of them."""
        handlers = self._own_handlers()
        handlers.outgoing = without(handlers.outgoing, handler)

    def _registrar(
        self, event: str, *, concurrent: bool, ack: bool, once: bool
    ) -> Callable[[_AnyHandler], _AnyHandler]:
        check_event_name(event, "once" if once else "on")
        name = _ALIASES.get(event, event)

        def register(handler: _AnyHandler) -> _AnyHandler:
            own = _OWN_ARGUMENTS.get(name)
            signature = signature_of(handler) if own is None else None
            registered = RegisteredHandler(
                handler, concurrent=concurrent, ack=ack, once=once, signature=signature
            )
            if own is not None and registered.mismatch(*own):
                raise TypeError(f"a handler of {name!r} is called with {', '.join(own)}")
            self._own_handlers().add(name, registered)
            return handler

        return register
