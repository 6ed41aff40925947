"""Classes of handlers: the handlers of a namespace as the methods of an object.

Left to others: what the options of a handler mean (`registering`).
"""

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

from rfc6455_server.socketio.namespaces import Namespace
from rfc6455_server.socketio.parents import NamespaceMatch
from rfc6455_server.socketio.registering import EventHandler, check_event_name

_AnyHandler = TypeVar("_AnyHandler", bound=EventHandler)

_MARKS: Final = "_socketio_events"


def handles(
    event: str, *, concurrent: bool = False, ack: bool = True
) -> Callable[[_AnyHandler], _AnyHandler]:
    """Marks a method of a `NamespaceHandlers` as a handler; the options are those of `Namespace.on`."""
    check_event_name(event, "handles")

    def mark(method: _AnyHandler) -> _AnyHandler:
        marks = [*getattr(method, _MARKS, ()), (event, {"concurrent": concurrent, "ack": ack})]
        setattr(method, _MARKS, marks)
        return method

    return mark


class NamespaceHandlers:
    """The base of a class whose methods are the handlers of a namespace. `SocketIO.register` registers them.

        class Chat(NamespaceHandlers):
            async def on_connect(self, socket): ...

            async def on_message(self, socket, data): ...

            @handles("ask me", concurrent=True)
            async def ask(self, socket, text): ...

        io.register(Chat("/chat"))

    A method whose name begins with ``on_`` handles the event that the rest of its name says; ``on_any`` and
    ``on_any_outgoing`` are registered as by the methods of `Namespace` with these names. A method with
    `handles` handles only what that says.

    ``where``: what `SocketIO.of` takes.
    """

    namespace: Namespace
    """The namespace, once the object is registered."""

    def __init__(self, where: str | re.Pattern[str] | NamespaceMatch = "/") -> None:
        self.where = where

    def register(self, namespace: Namespace) -> None:
        """Registers the methods, base classes first, in the order in which they are written.

        Raises `ValueError` if there is none to register.
        """
        self.namespace = namespace
        names = {name: None for cls in reversed(type(self).__mro__) for name in vars(cls)}
        found = [getattr(self, name) for name in names if name.startswith("on_") or _is_marked(self, name)]
        methods = [method for method in found if callable(method)]
        if not methods:
            raise ValueError(f"{type(self).__name__} has no handlers")
        for method in methods:
            _register(namespace, method)


def _is_marked(owner: object, name: str) -> bool:
    # Looked up in the class, so that no property is called.
    return hasattr(getattr(type(owner), name, None), _MARKS)


def _register(namespace: Namespace, method: Callable[..., Any]) -> None:
    marks = getattr(method, _MARKS, None)
    name: str = getattr(method, "__name__", "")
    if marks is not None:
        for event, options in marks:
            namespace.on(event, **options)(method)
    elif name == "on_any":
        namespace.on_any(method)
    elif name == "on_any_outgoing":
        namespace.on_any_outgoing(method)
    else:
        namespace.on(name.removeprefix("on_"))(method)
