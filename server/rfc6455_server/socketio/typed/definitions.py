"""JSON Schemas that refer to each other by name, in the form of JSON Schema draft 7, which AsyncAPI uses.

Implements: the merging of schemas from several sources. Two that have the same name stay apart unless they
are equal, with all that they refer to.
Left to others: the schema of each type (`shapes`, `records`, `models`).
"""

import json
import re
from collections.abc import Callable, Container, Iterator
from typing import Any, Final

Schema = dict[str, Any]

PREFIX: Final = "#/$defs/"

_FOREIGN: Final = re.compile(r"[^a-zA-Z0-9._-]+")

# Where a schema holds other schemas: as one, in a list, in an object whose keys are names.
_ONE: Final = (
    "additionalItems",
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
)
_LIST: Final = ("allOf", "anyOf", "items", "oneOf", "prefixItems")
_NAMED: Final = ("$defs", "definitions", "patternProperties", "properties")


def plain_name(name: str) -> str:
    """Returns a name that AsyncAPI allows as a key."""
    return _FOREIGN.sub("_", name).strip("_") or "_"


def free_name(name: str, taken: Container[str]) -> str:
    """Returns a name that AsyncAPI allows as a key and that is not taken: this one, or with a number."""
    name = plain_name(name)
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


class Definitions:
    """Schemas by name. ``prefix`` and the name are a reference to one."""

    def __init__(self, prefix: str = PREFIX) -> None:
        self.schemas: dict[str, Schema] = {}
        self._prefix = prefix
        self._of: dict[object, str] = {}

    def reference(self, owner: object, name: str, make: Callable[[], Schema]) -> Schema:
        """Returns a reference to the schema of ``owner``, which ``make`` returns when it is needed first."""
        known = self._of.get(owner)
        if known is None:
            known = self._of[owner] = free_name(name, self.schemas)
            self.schemas[known] = {}  # `make` may refer to it
            self.schemas[known] = make()
        return {"$ref": self._prefix + known}

    def adopt(self, schema: Schema) -> Schema:
        """Returns a schema without its own ``$defs``, which are added here."""
        own: dict[str, Schema] = schema.get("$defs", {})
        names: dict[str, str] = {}
        added = []
        for name in own:
            identity = _identity(own, name)
            if identity not in self._of:
                self._of[identity] = free_name(name, self.schemas)
                self.schemas[self._of[identity]] = {}
                added.append(name)
            names[name] = self._of[identity]
        for name in added:
            self.schemas[names[name]] = self._renamed(own[name], names)
        return self._renamed({key: value for key, value in schema.items() if key != "$defs"}, names)

    def _renamed(self, schema: Schema, names: dict[str, str]) -> Schema:
        def rename(one: Schema) -> Schema:
            target = one.get("$ref", "")
            if not target.startswith(PREFIX):
                return one
            return {**one, "$ref": self._prefix + names[target.removeprefix(PREFIX)]}

        renamed: Schema = transform(schema, rename)
        return renamed


def transform(schema: Any, change: Callable[[Schema], Schema]) -> Any:
    """Returns a copy of a schema, with ``change`` applied to it and to all schemas in it."""
    if not isinstance(schema, dict):
        return schema  # true or false
    copied = dict(schema)
    for key in _ONE:
        if isinstance(copied.get(key), dict):
            copied[key] = transform(copied[key], change)
    for key in _LIST:
        if isinstance(copied.get(key), list):
            copied[key] = [transform(one, change) for one in copied[key]]
    for key in _NAMED:
        if isinstance(copied.get(key), dict):
            copied[key] = {name: transform(one, change) for name, one in copied[key].items()}
    return change(copied)


def draft7(schema: Schema) -> Schema:
    """Returns a schema of draft 2020-12, as libraries make it, in the form of draft 7."""
    converted: Schema = transform(schema, _to_draft7)
    return converted


def _to_draft7(schema: Schema) -> Schema:
    schema.pop("discriminator", None)  # OpenAPI's; AsyncAPI's has another form, and ``anyOf`` says the same
    if "prefixItems" in schema:
        rest = schema.pop("items", None)
        schema["items"] = schema.pop("prefixItems")
        if rest is not None:
            schema["additionalItems"] = rest
    if "$ref" in schema and schema.keys() - {"$ref", "$defs"}:
        # In draft 7, what stands beside a reference is ignored.
        return {"allOf": [{"$ref": schema.pop("$ref")}], **schema}
    return schema


def _identity(definitions: dict[str, Schema], name: str) -> str:
    """Returns a text that is equal for equal schemas with equal definitions of all that they refer to."""
    reached = {name: definitions[name]}
    waiting = [definitions[name]]
    while waiting:
        for target in _targets(waiting.pop()):
            if target not in reached:
                reached[target] = definitions[target]
                waiting.append(definitions[target])
    return json.dumps([name, reached], sort_keys=True, default=repr)


def _targets(schema: Schema) -> Iterator[str]:
    found: list[str] = []

    def note(one: Schema) -> Schema:
        if one.get("$ref", "").startswith(PREFIX):
            found.append(one["$ref"].removeprefix(PREFIX))
        return one

    transform(schema, note)
    return iter(found)
