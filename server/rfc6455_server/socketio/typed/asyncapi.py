"""The AsyncAPI document of a Socket.IO server: what its clients may send, what they are sent, in which form.

Implements: https://www.asyncapi.com/docs/reference/specification/v3.0.0, as far as Socket.IO needs it. Each
namespace is a channel, and each event a message, whose payload is the array of its arguments; that of an
acknowledgement is the array of its values.
Left to others: the schemas of types (`definitions`), and which events there are (`SocketIO.asyncapi`).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from rfc6455_server.socketio.typed.definitions import Definitions, Schema, free_name, plain_name
from rfc6455_server.socketio.typed.signatures import Signature

_PROBLEM: Final[Schema] = {
    "type": "object",
    "properties": {
        "path": {"type": "string", "examples": ["data.text"]},
        "reason": {"type": "string", "examples": ["got a number"]},
        "expected": {"type": "string", "examples": ["string"]},
    },
    "required": ["path", "reason", "expected"],
}
_ERROR: Final[Schema] = {
    "type": "object",
    "description": "Why an event was refused, or that its answer could not be given.",
    "properties": {
        "code": {
            "enum": ["invalid", "internal"],
            "description": "Missing if the application refused the event by its own rules.",
        },
        "message": {"type": "string"},
        "data": {"description": "What the application adds."},
        "problems": {"type": "array", "items": _PROBLEM},
        "more": {"type": "boolean", "description": "Whether there may be problems that are not listed."},
    },
    "required": ["message"],
}
_ERROR_KEY: Final = object()

_PARAMETER: Final = re.compile(r"\{(\w+)\}")

_OFFSET: Final[Schema] = {
    "type": "string",
    "title": "offset",
    "description": "The event's place among those that a client can be sent again after a lost connection.",
}


@dataclass(frozen=True, slots=True)
class EventDocument:
    """One event in one direction.

    ``signatures``: of all its handlers. ``checked``: whether its arguments are checked, so that it may be
    refused; ``answered``: whether there is an acknowledgement; ``offset``: whether recovery may add an
    argument.
    """

    name: str
    signatures: Sequence[Signature]
    description: str
    checked: bool = False
    answered: bool = True
    offset: bool = False


@dataclass(frozen=True, slots=True)
class NamespaceDocument:
    """The events of a namespace: those that clients send, and those that the server sends.

    ``address``: its name, which may have parameters in braces; ``None`` if it cannot be told.
    """

    name: str
    received: Sequence[EventDocument]
    sent: Sequence[EventDocument]
    address: str | None


def asyncapi_document(
    *,
    title: str,
    version: str,
    description: str,
    servers: Mapping[str, str],
    path: str,
    namespaces: Iterable[NamespaceDocument],
) -> dict[str, Any]:
    """Returns the document. ``servers``: their URLs, by name; ``path``: that of Socket.IO on each."""
    info = {"title": title, "version": version}
    if description:
        info["description"] = description
    builder = _Builder()
    for namespace in namespaces:
        builder.add(namespace)
    components: dict[str, Any] = {"messages": builder.messages, "schemas": builder.definitions.schemas}
    document: dict[str, Any] = {"asyncapi": "3.0.0", "info": info, "defaultContentType": "application/json"}
    if servers:
        document["servers"] = {plain_name(name): _server(url, path) for name, url in servers.items()}
    return {
        **document,
        "channels": builder.channels,
        "operations": builder.operations,
        "components": {name: part for name, part in components.items() if part},
    }


def _with_offset(schema: Schema) -> Schema:
    """Returns the schema of an event's arguments, after which there may be an offset."""
    rest = schema.get("additionalItems", False)
    if not isinstance(schema.get("items"), dict) and rest is False:
        items = [*schema.get("items", ()), _OFFSET]
        return {"type": "array", "items": items, "minItems": len(items) - 1, "additionalItems": False}
    key = "additionalItems" if rest else "items"
    return {**schema, key: {"anyOf": [schema[key], _OFFSET]}}


def _server(url: str, path: str) -> dict[str, Any]:
    parts = urlsplit(url)
    if not parts.scheme or not parts.netloc:
        raise ValueError(f"not a URL: {url!r}")
    return {"host": parts.netloc, "protocol": parts.scheme, "pathname": parts.path.rstrip("/") + path}


class _Builder:
    """Collects the parts of the document."""

    def __init__(self) -> None:
        self.definitions = Definitions("#/components/schemas/")
        self.messages: dict[str, Any] = {}
        self.channels: dict[str, Any] = {}
        self.operations: dict[str, Any] = {}

    def add(self, namespace: NamespaceDocument) -> None:
        channel_id = free_name(namespace.name.strip("/") or "main", self.channels)
        address = namespace.address
        channel: dict[str, Any] = {"address": address, "messages": {}}
        self.channels[channel_id] = channel
        if address is None:
            channel["title"] = namespace.name
        elif parameters := _PARAMETER.findall(address):
            channel["parameters"] = {name: {} for name in parameters}
        for event in namespace.received:
            self._operation(channel_id, channel, event, outgoing=False)
        sent = list(namespace.sent)
        for event in sent:
            self._operation(channel_id, channel, event, outgoing=True)
        if any(event.checked for event in namespace.received) and all(
            event.name != "error" for event in sent
        ):
            self._error_event(channel_id, channel)

    def _operation(
        self, channel_id: str, channel: dict[str, Any], event: EventDocument, *, outgoing: bool
    ) -> None:
        action = "send" if outgoing else "receive"
        operation_id = free_name(f"{action}.{channel_id}.{event.name}", self.operations)
        message = {"name": event.name, "title": event.name, "payload": self._arguments(event, outgoing)}
        if event.description:
            message["description"] = event.description
        operation: dict[str, Any] = {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel_id}"},
            "messages": [self._message(channel_id, channel, operation_id, message)],
        }
        if event.description:
            operation["summary"] = event.description.partition("\n")[0]
        answers = self._answers(event, outgoing)
        if answers:
            references = [
                self._message(channel_id, channel, f"{operation_id}.{suffix}", answer)
                for suffix, answer in answers.items()
            ]
            operation["reply"] = {"channel": {"$ref": f"#/channels/{channel_id}"}, "messages": references}
        self.operations[operation_id] = operation

    def _message(
        self, channel_id: str, channel: dict[str, Any], name: str, message: dict[str, Any]
    ) -> dict[str, str]:
        name = free_name(name, self.messages)
        self.messages[name] = message
        channel["messages"][name] = {"$ref": f"#/components/messages/{name}"}
        return {"$ref": f"#/channels/{channel_id}/messages/{name}"}

    def _arguments(self, event: EventDocument, outgoing: bool) -> Schema:
        schemas = []
        for signature in event.signatures:
            local = Definitions()
            schemas.append(self._adopt(signature.arguments_schema(local, outgoing=outgoing), local))
        schema = schemas[0] if len(schemas) == 1 else {"allOf": schemas}
        return _with_offset(schema) if event.offset else schema

    def _answers(self, event: EventDocument, outgoing: bool) -> dict[str, dict[str, Any]]:
        """Returns the messages of the acknowledgement, which goes in the other direction."""
        answers: dict[str, dict[str, Any]] = {}
        if event.answered:
            schemas = []
            for signature in event.signatures:
                local = Definitions()
                schemas.append(self._adopt(signature.answer_schema(local, outgoing=not outgoing), local))
            payload = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
            answers["answer"] = {"title": f"Answer to {event.name}", "payload": payload}
        if event.checked:
            error = {"type": "object", "properties": {"error": self._error()}, "required": ["error"]}
            answers["error"] = {
                "title": f"{event.name} was refused",
                "payload": {"type": "array", "items": [error], "minItems": 1, "additionalItems": False},
            }
        return answers

    def _error_event(self, channel_id: str, channel: dict[str, Any]) -> None:
        payload = {
            "type": "object",
            "properties": {"event": {"type": "string"}, "error": self._error()},
            "required": ["event", "error"],
        }
        message = {
            "name": "error",
            "title": "error",
            "description": "An event was refused that asked for no acknowledgement.",
            "payload": {"type": "array", "items": [payload], "minItems": 1, "additionalItems": False},
        }
        operation_id = free_name(f"send.{channel_id}.error", self.operations)
        self.operations[operation_id] = {
            "action": "send",
            "channel": {"$ref": f"#/channels/{channel_id}"},
            "messages": [self._message(channel_id, channel, operation_id, message)],
        }

    def _error(self) -> Schema:
        return self.definitions.reference(_ERROR_KEY, "Error", lambda: _ERROR)

    def _adopt(self, schema: Schema, local: Definitions) -> Schema:
        return self.definitions.adopt({**schema, "$defs": local.schemas})
