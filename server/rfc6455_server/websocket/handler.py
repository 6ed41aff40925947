"""`Handler`: the plain functions that serve a WebSocket without a task."""

import inspect
from collections.abc import Iterable

from rfc6455_server.websocket.reports import CloseReport
from rfc6455_server.websocket.websocket import WebSocket


class Handler:
    """Base of a called handler: plain functions that the server calls as things happen.

    `Server.websocket` registers the class. Each connection has an object of it, which is made with the
    parameters of the path. Override the functions that are needed. They must not block, and must not be
    coroutine functions: ``ws.post`` sends without waiting. What one of them raises is logged, and closes the
    connection with 1011; if making the object fails, none is called.

    While the peer does not read what was posted to it, ``on_message`` is not called, and soon nothing is read
    from the peer; when it has caught up, the calls go on. So no client can flood an echo.
    """

    def on_open(self, ws: WebSocket) -> None:
        """Called once, before any message."""

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        """Called with each message, in order, until this side closes."""

    def on_close(self, ws: WebSocket, report: CloseReport) -> None:
        """Called once, when the connection has ended and has left its rooms.

        What another connection does may end this one: then it is called inside that one's function.
        """


def check_handler(handler: type[Handler], parameters: Iterable[str]) -> None:
    """Raises `TypeError` for a class that is no `Handler`, that cannot be made with these parameters, or that
    has a coroutine function."""
    if not issubclass(handler, Handler):
        raise TypeError(f"{handler.__name__} is not a subclass of Handler")
    try:
        inspect.signature(handler).bind(**dict.fromkeys(parameters, ""))
    except TypeError as error:
        problem = f"{handler.__name__} is made with the parameters of the path as keyword arguments: {error}"
        raise TypeError(problem) from None
    for name in ("on_open", "on_message", "on_close"):
        function = getattr(handler, name)
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"{handler.__name__}.{name} must be a plain function, because nothing awaits it; "
                "to await, register an async function instead of a class"
            )
