"""Events between the servers of a cluster, as far as one server can know: a seam, and the handlers.

Implements: ``serverSideEmit`` of https://socket.io/docs/v4/server-api.
Left to others: reaching the other servers (a `Cluster`; without one, there are none).
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from rfc6455_server.logs import log
from rfc6455_server.socketio.registering import (
    EventHandler,
    Handlers,
    RegisteredHandler,
    check_event_name,
)

_AnyHandler = TypeVar("_AnyHandler", bound=EventHandler)


class Cluster(Protocol):
    """Reaches the other servers of a cluster, which call `ServerSide.receive_server_side`."""

    def publish(self, namespace: str, event: str, args: Sequence[Any]) -> None:
        """Sends an event to the namespace of that name on the other servers, without waiting."""

    async def ask(self, namespace: str, event: str, args: Sequence[Any]) -> list[Any]:
        """Sends an event as `publish` does, and returns the answer of each server."""


class ServerSide:
    """The events that a namespace exchanges with itself on the other servers. No client ever sees them."""

    server_side_handlers: Handlers

    def _server_side(self) -> tuple[str, Cluster | None]:
        """Returns the name of the namespace, and how the other servers are reached, if there are any."""
        raise NotImplementedError

    def on_server_side(self, event: str) -> Callable[[_AnyHandler], _AnyHandler]:
        """Registers a handler of an event from other servers: a function, async or not, of its arguments.

        If the other server waits for answers, this server's is the first result that is not ``None``.
        """
        check_event_name(event, "on_server_side")

        def register(handler: _AnyHandler) -> _AnyHandler:
            self.server_side_handlers.add(event, RegisteredHandler(handler))
            return handler

        return register

    def server_side_emit(self, event: str, *args: Any) -> None:
        """Sends an event to the other servers of the cluster, without waiting; not to this one."""
        name, cluster = self._server_side()
        if cluster is not None:
            cluster.publish(name, event, args)

    async def server_side_emit_with_ack(self, event: str, *args: Any) -> list[Any]:
        """Sends an event as `server_side_emit` does, and returns the answers of the other servers."""
        name, cluster = self._server_side()
        return [] if cluster is None else await cluster.ask(name, event, args)

    async def receive_server_side(self, event: str, args: Sequence[Any]) -> Any:
        """Handles an event that another server sent, and returns this server's answer. A `Cluster` calls it.

        An exception of a handler is logged.
        """
        answer = None
        for registered in self.server_side_handlers.take(event):
            try:
                result = await registered.call(*args)
            except Exception:  # noqa: BLE001 - whatever a handler raises
                log(logging.ERROR, "handler failed", exception=True, handler=event)
            else:
                answer = result if answer is None else answer
        return answer
