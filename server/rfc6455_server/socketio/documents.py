"""What a Socket.IO server says of itself: the events of its namespaces, as an AsyncAPI document and its page.

Left to others: the form of the document (`typed.asyncapi`) and of the page (`typed.page`).
"""

import inspect
import json
from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeVar

from rfc6455_server.http.routes import HttpHandler, HttpRequest, HttpResponse
from rfc6455_server.socketio.recovery import Recovery
from rfc6455_server.socketio.registering import OWN_EVENTS, Handlers, Registered, check_event_name
from rfc6455_server.socketio.typed.asyncapi import EventDocument, NamespaceDocument
from rfc6455_server.socketio.typed.declared import OutgoingEvent
from rfc6455_server.socketio.typed.page import PAGE_HEADERS, render_page
from rfc6455_server.socketio.typed.signatures import read_signature

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")

Declarations = dict[str, OutgoingEvent[..., Any]]
"""The events that a namespace sends, by name."""


class Declaring:
    """Declares the events that the server sends. A namespace does, and a `SocketIO` for ``"/"``."""

    def _own_declarations(self) -> Declarations:
        """Returns where events are declared."""
        raise NotImplementedError

    def emits(
        self, event: str
    ) -> Callable[[Callable[_Arguments, _Answer]], OutgoingEvent[_Arguments, _Answer]]:
        """Declares an event that the server sends: its arguments, what clients answer, and a description.

            @io.emits("message")
            def message(data: ChatMessage) -> None:
                "A message in a room."

            message.emit(io.to("lobby"), ChatMessage("hello"))

        The function is never called. `OutgoingEvent.emit` checks the arguments and converts them to JSON;
        ``io.emit("message", …)`` sends what it is given, and knows nothing of the declaration, which
        `SocketIO.asyncapi` shows. Raises `ValueError` for an event that is declared already, and as
        `OutgoingEvent`.
        """
        check_event_name(event, "emits")
        declarations = self._own_declarations()

        def declare(
            declaration: Callable[_Arguments, _Answer],
        ) -> OutgoingEvent[_Arguments, _Answer]:
            if event in declarations:
                raise ValueError(f"already declared: {event}")
            outgoing = OutgoingEvent(event, declaration)
            declarations[event] = outgoing
            return outgoing

        return declare


class DocumentedNamespace(Protocol):
    """What is documented of a namespace."""

    name: str
    address: str | None
    handlers: Handlers
    declarations: Declarations
    recovery: Recovery | None


def describe(namespace: DocumentedNamespace) -> NamespaceDocument:
    """Returns the description of a namespace: of its own handlers, and not of those of single sockets."""
    by_event = namespace.handlers.by_event
    received = [_received(name, found) for name, found in by_event.items() if name not in OWN_EVENTS]
    sent = [
        EventDocument(
            name,
            [event.signature],
            event.description,
            answered=event.is_answered,
            offset=namespace.recovery is not None,
        )
        for name, event in namespace.declarations.items()
    ]
    return NamespaceDocument(namespace.name, received, sent, namespace.address)


def _received(name: str, handlers: Registered) -> EventDocument:
    descriptions = [inspect.getdoc(one.handler) or "" for one in handlers]
    return EventDocument(
        name,
        [one.signature or read_signature(one.handler, skip=1) for one in handlers],
        "\n\n".join(filter(None, descriptions)),
        checked=any(one.signature is not None for one in handlers),
        answered=any(one.ack for one in handlers),
    )


def page_handlers(path: str, make: Callable[[], dict[str, Any]]) -> dict[str, HttpHandler]:
    """Returns the HTTP handlers of a document's page at ``path``, and of the document beside it, by path."""
    json_path = path.rstrip("/") + ".json"

    async def page(_: HttpRequest) -> HttpResponse:
        return HttpResponse(
            render_page(make(), json_path), "text/html; charset=utf-8", headers=[*PAGE_HEADERS]
        )

    async def document(_: HttpRequest) -> HttpResponse:
        body = json.dumps(make(), indent=2).encode()
        return HttpResponse(body, "application/json", headers=[*PAGE_HEADERS])

    return {path: page, json_path: document}
