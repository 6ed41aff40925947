"""Types with named fields: dataclasses and TypedDicts, which are objects in JSON, and named tuples, which are
arrays, as in Python.

A field that the type does not have is a problem, not ignored: it may be a misspelt one.
Left to others: the types of the fields (`annotations`).
"""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from rfc6455_server.socketio.typed.containers import ChoiceShape, array_schema
from rfc6455_server.socketio.typed.definitions import Definitions, Schema
from rfc6455_server.socketio.typed.problems import Path, Problems, wrong
from rfc6455_server.socketio.typed.shapes import Shape

NO_DEFAULT: Final = object()


class Field(NamedTuple):
    """A field of a type, or an argument of a handler. ``default`` is for the schema only."""

    name: str
    shape: Shape
    required: bool = True
    default: Any = NO_DEFAULT
    description: str = ""

    def schema(self, definitions: Definitions, *, outgoing: bool, title: bool = False) -> Schema:
        """Returns the schema of the field's type, with what is known of the field itself."""
        schema = self.shape.schema(definitions, outgoing=outgoing)
        extra: Schema = {"title": self.name} if title else {}
        if self.description:
            extra["description"] = self.description
        if isinstance(self.default, str | int | float | bool | None):
            extra["default"] = self.default
        # In draft 7, what stands beside a reference is ignored.
        return {**({"allOf": [schema]} if extra and "$ref" in schema else schema), **extra}


class RecordShape(Shape):
    """What the types with named fields share. A type may refer to itself, so `fields` are set later."""

    def __init__(self, type_: type) -> None:
        self.label = type_.__name__
        self._type = type_
        self.fields: dict[str, Field] = {}
        self._tags: list[Field] = []

    def set_fields(self, fields: Iterable[Field]) -> None:
        self.fields = {field.name: field for field in fields}
        self._tags = [field for field in self.fields.values() if isinstance(field.shape, ChoiceShape)]

    def claims(self, value: Any, *, encoding: bool) -> bool:
        return isinstance(value, self._type if encoding else dict)

    def contradicts(self, value: Any) -> bool:
        return isinstance(value, dict) and any(
            tag.name in value and tag.shape.contradicts(value[tag.name]) for tag in self._tags
        )

    def _check_fields(
        self, value: dict[Any, Any], path: Path, problems: Problems, *, encoding: bool
    ) -> dict[str, Any]:
        result = {}
        for name, field in self.fields.items():
            if name in value:
                result[name] = field.shape.check(encoding)(value[name], (path, name), problems)
            elif field.required:
                problems.add((path, name), "missing", field.shape.label)
        if len(result) < len(value):
            for name in value:
                if name not in self.fields:
                    problems.add((path, str(name)), "unknown", f"only fields of {self.label}")
        return result

    def _make(self, make: Callable[[], Any], path: Path, problems: Problems) -> Any:
        """Calls the type, whose own checks may raise `ValueError`."""
        try:
            return make()
        except ValueError as error:
            problems.add(path, str(error) or "refused", self.label)
            return None

    def schema(self, definitions: Definitions, *, outgoing: bool) -> Schema:
        return definitions.reference(self._type, self.label, lambda: self._schema(definitions, outgoing))

    def _schema(self, definitions: Definitions, outgoing: bool) -> Schema:
        schema: Schema = {
            "type": "object",
            **self._described(),
            "properties": {
                name: field.schema(definitions, outgoing=outgoing) for name, field in self.fields.items()
            },
            "additionalProperties": False,
        }
        required = [name for name, field in self.fields.items() if field.required]
        return {**schema, "required": required} if required else schema

    def _described(self) -> Schema:
        text = inspect.cleandoc(self._type.__doc__ or "")
        # Dataclasses and named tuples without a docstring have one that repeats their fields.
        return {} if not text or text.startswith(f"{self.label}(") else {"description": text}


class DataclassShape(RecordShape):
    """A dataclass. Its ``__post_init__`` may raise `ValueError`, with a message for the client."""

    def convert(self, value: Any, path: Path, problems: Problems) -> Any:
        if not isinstance(value, dict):
            wrong(value, path, self.label, problems)
            return value
        before = len(problems.found)
        fields = self._check_fields(value, path, problems, encoding=False)
        if len(problems.found) > before:
            return value
        return self._make(lambda: self._type(**fields), path, problems)

    def encode(self, value: Any, path: Path, problems: Problems) -> Any:
        if not isinstance(value, self._type):
            wrong(value, path, self.label, problems)
            return value
        return {
            name: field.shape.encode(getattr(value, name), (path, name), problems)
            for name, field in self.fields.items()
        }


class TypedDictShape(RecordShape):
    """A TypedDict."""

    def claims(self, value: Any, *, encoding: bool) -> bool:
        return isinstance(value, dict)

    def convert(self, value: Any, path: Path, problems: Problems) -> Any:
        if not isinstance(value, dict):
            wrong(value, path, self.label, problems)
            return value
        return self._check_fields(value, path, problems, encoding=False)

    def encode(self, value: Any, path: Path, problems: Problems) -> Any:
        if not isinstance(value, dict):
            wrong(value, path, self.label, problems)
            return value
        return self._check_fields(value, path, problems, encoding=True)


class NamedTupleShape(RecordShape):
    """A named tuple: an array, whose last values may be missing if they have defaults."""

    def claims(self, value: Any, *, encoding: bool) -> bool:
        return isinstance(value, self._type if encoding else list)

    def contradicts(self, value: Any) -> bool:
        return False

    def convert(self, value: Any, path: Path, problems: Problems) -> Any:
        if not isinstance(value, list):
            wrong(value, path, self.label, problems)
            return value
        before = len(problems.found)
        fields = list(self.fields.values())
        items = [
            field.shape.convert(item, (path, i), problems)
            for i, (field, item) in enumerate(zip(fields, value, strict=False))
        ]
        for i, field in enumerate(fields[len(value) :], len(value)):
            if field.required:
                problems.add((path, i), "missing", field.shape.label)
        if len(value) > len(fields):
            problems.add(path, f"got {len(value)} items", f"{self.label} of {len(fields)} items")
        if len(problems.found) > before:
            return value
        return self._make(lambda: self._type(*items), path, problems)

    def encode(self, value: Any, path: Path, problems: Problems) -> Any:
        if not isinstance(value, self._type):
            wrong(value, path, self.label, problems)
            return value
        items = zip(self.fields.values(), value, strict=True)  # type: ignore[call-overload]  # a tuple
        return [field.shape.encode(item, (path, i), problems) for i, (field, item) in enumerate(items)]

    def _schema(self, definitions: Definitions, outgoing: bool) -> Schema:
        items = [field.schema(definitions, outgoing=outgoing, title=True) for field in self.fields.values()]
        required = sum(field.required for field in self.fields.values())
        return {**array_schema(items, required), **self._described()}
