"""Shapes that are made of other shapes or of given values: literals, enumerations, arrays, mappings, unions.

Left to others: simple values (`shapes`), types with named fields (`records`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rfc6455_server.socketio.typed.definitions import Definitions, Schema
from rfc6455_server.socketio.typed.problems import Path, Problems, describe, wrong
from rfc6455_server.socketio.typed.shapes import Shape

_SHOWN: Final = 10
"""Maximum values that a label names."""

_NO_ARRAYS: Final = (str, bytes, bytearray, memoryview, Mapping)


class ChoiceShape(Shape):
    """One of given values: a ``Literal``, or an ``Enum``, whose members' values are sent.

    ``choices``: each value, and the JSON value that stands for it: a string, a number, a boolean or ``None``.
    """

    hashable = True

    def __init__(self, choices: Sequence[tuple[Any, Any]]) -> None:
        self.values = [encoded for _, encoded in choices]
        self._by_json = {_json_key(encoded): value for value, encoded in choices}
        self._by_value = {(type(value), value): encoded for value, encoded in choices}
        shown = [json.dumps(value, ensure_ascii=False) for value in self.values[:_SHOWN]]
        self.label = " or ".join([*shown, "…"] if len(self.values) > _SHOWN else shown)

    def claims(self, value: Any, *, encoding: bool) -> bool:
        try:
            return (type(value), value) in self._by_value if encoding else _json_key(value) in self._by_json
        except TypeError:
            return False  # an array or an object has no hash

    def contradicts(self, value: Any) -> bool:
        return not self.claims(value, encoding=False)

    def convert(self, value: Any, path: Path, problems: Problems) -> Any:
        if self.claims(value, encoding=False):
            return self._by_json[_json_key(value)]
        self._refuse(value, path, problems)
        return value

    def encode(self, value: Any, path: Path, problems: Problems) -> Any:
        if self.claims(value, encoding=True):
            return self._by_value[type(value), value]
        self._refuse(value, path, problems)
        return value

    def _refuse(self, value: Any, path: Path, problems: Problems) -> None:
        kind = describe(value)
        same_kind = any(describe(choice) == kind for choice in self.values)
        problems.add(path, "got another value" if same_kind else f"got {kind}", self.label)

    def schema(self, definitions: Definitions, *, outgoing: bool) -> Schema:
        return {"enum": self.values}


def _json_key(value: Any) -> tuple[bool, Any]:
    """Returns a key that is equal for equal JSON values: 1 is 1.0, but not true."""
    return isinstance(value, bool), value


class ArrayShape(Shape):
    """An array of any length: a list, a tuple or a set, in Python.

    ``accepted``: the type that a value to be encoded has; ``make``: the type that a converted value has.
    """

    def __init__(self, item: Shape, accepted: type, make: type) -> None:
        self.label = f"array of {item.label}"
        self.is_tuple = make is tuple
        self._item = item
        self._accepted = accepted
        self._make = make

    def claims(self, value: Any, *, encoding: bool) -> bool:
        if not encoding:
            return isinstance(value, list)
        return isinstance(value, self._accepted) and not isinstance(value, _NO_ARRAYS)

    def convert(self, value: Any, path: Path, problems: Problems) -> Any:
        if not isinstance(value, list):
            wrong(value, path, self.label, problems)
            return value
        convert = self._item.convert
        items = [convert(item, (path, i), problems) for i, item in enumerate(value)]
        return items if self._make is list else self._make(items)

    def encode(self, value: Any, path: Path, problems: Problems) -> Any:
        if not self.claims(value, encoding=True):
            wrong(value, path, self.label, problems)
            return value
        encode = self._item.encode
        return [encode(item, (path, i), problems) for i, item in enumerate(value)]

    def schema(self, definitions: Definitions, *, outgoing: bool) -> Schema:
        return {"type": "array", "items": self._item.schema(definitions, outgoing=outgoing)}


class SetShape(ArrayShape):
    """An array in which no value occurs twice, in any order. ``item`` must be hashable."""

    def __init__(self, item: Shape, accepted: type, make: type) -> None:
        super().__init__(item, accepted, make)
        self.label = f"array of different {item.label}"

    def convert(self, value: Any, path: Path, problems: Problems) -> Any:
        if not isinstance(value, list):
            wrong(value, path, self.label, problems)
            return value
        found = set()
        for i, item in enumerate(value):
            before = len(problems.found)
            converted = self._item.convert(item, (path, i), problems)
            if len(problems.found) > before:
                continue  # it may have no hash
            if converted in found:
                problems.add((path, i), "occurs twice", self.label)
            found.add(converted)
        return self._make(found)

    def schema(self, definitions: Definitions, *, outgoing: bool) -> Schema:
        return {**super().schema(definitions, outgoing=outgoing), "uniqueItems": True}


class TupleShape(Shape):
    """An array with a type for each place."""

    def __init__(self, items: Sequence[Shape]) -> None:
        self._items = items
        self.label = f"array of ({', '.join(item.label for item in items)})"
        self.hashable = all(item.hashable for item in items)

    def claims(self, value: Any, *, encoding: bool) -> bool:
        return isinstance(value, tuple if encoding else list)

    def convert(self, value: Any, path: Path, problems: Problems) -> Any:
        if not self._fits(value, path, problems, encoding=False):
            return value
        items = zip(self._items, value, strict=True)
        return tuple(shape.convert(item, (path, i), problems) for i, (shape, item) in enumerate(items))

    def encode(self, value: Any, path: Path, problems: Problems) -> Any:
        if not self._fits(value, path, problems, encoding=True):
            return value
        items = zip(self._items, value, strict=True)
        return [shape.encode(item, (path, i), problems) for i, (shape, item) in enumerate(items)]

    def _fits(self, value: Any, path: Path, problems: Problems, *, encoding: bool) -> bool:
        if not self.claims(value, encoding=encoding):
            wrong(value, path, self.label, problems)
        elif len(value) != len(self._items):
            problems.add(path, f"got {len(value)} items", self.label)
        else:
            return True
        return False

    def schema(self, definitions: Definitions, *, outgoing: bool) -> Schema:
        return array_schema([item.schema(definitions, outgoing=outgoing) for item in self._items])


def array_schema(items: Sequence[Schema], required: int | None = None, rest: Schema | None = None) -> Schema:
    """Returns the schema of an array with a schema for each place; all are required unless ``required``
    says how many. ``rest``: that of all further places, if there may be any."""
    minimum = len(items) if required is None else required
    if not items:
        schema: Schema = {"type": "array"}
        schema.update({"maxItems": 0} if rest is None else {"items": rest})
        return schema
    schema = {"type": "array", "items": list(items), "minItems": minimum}
    schema["additionalItems"] = False if rest is None else rest
    return schema


class MappingShape(Shape):
    """An object with any keys. ``key`` is the shape of strings."""

    def __init__(self, key: Shape, item: Shape, accepted: type[Mapping[Any, Any]]) -> None:
        self.label = f"object of {item.label}"
        self._key = key
        self._item = item
        self._accepted = accepted

    def claims(self, value: Any, *, encoding: bool) -> bool:
        return isinstance(value, self._accepted if encoding else dict)

    def convert(self, value: Any, path: Path, problems: Problems) -> Any:
        if not isinstance(value, dict):
            wrong(value, path, self.label, problems)
            return value
        return self._each(value, path, problems, self._key.convert, self._item.convert)

    def encode(self, value: Any, path: Path, problems: Problems) -> Any:
        if not isinstance(value, self._accepted):
            wrong(value, path, self.label, problems)
            return value
        return self._each(value, path, problems, self._key.encode, self._item.encode)

    @staticmethod
    def _each(value: Mapping[Any, Any], path: Path, problems: Problems, key: Any, item: Any) -> Any:
        result: dict[Any, Any] = {}
        for name, one in value.items():
            here = (path, str(name))
            converted = key(name, here, problems)
            if converted in result:
                problems.add(here, "occurs twice", "different keys")
            result[converted] = item(one, here, problems)
        return result

    def schema(self, definitions: Definitions, *, outgoing: bool) -> Schema:
        schema = {"type": "object", "additionalProperties": self._item.schema(definitions, outgoing=outgoing)}
        key = self._key.schema(definitions, outgoing=outgoing)
        return schema if key == {"type": "string"} else {**schema, "propertyNames": key}


class UnionShape(Shape):
    """One of several types: the first that fits."""

    def __init__(self, alternatives: Sequence[Shape]) -> None:
        self.alternatives = alternatives
        self.label = " or ".join(alternative.label for alternative in alternatives)
        self.hashable = all(alternative.hashable for alternative in alternatives)

    def claims(self, value: Any, *, encoding: bool) -> bool:
        return any(alternative.claims(value, encoding=encoding) for alternative in self.alternatives)

    def contradicts(self, value: Any) -> bool:
        return all(alternative.contradicts(value) for alternative in self.alternatives)

    def convert(self, value: Any, path: Path, problems: Problems) -> Any:
        return self._check(value, path, problems, encoding=False)

    def encode(self, value: Any, path: Path, problems: Problems) -> Any:
        return self._check(value, path, problems, encoding=True)

    def _check(self, value: Any, path: Path, problems: Problems, *, encoding: bool) -> Any:
        fits, shape, result = self.choose(value, problems, encoding=encoding)
        if fits:
            return result
        if shape is None:
            problems.add(path, f"got {describe(value)} that is none of these", self.label)
            return value
        return shape.check(encoding)(value, path, problems)

    def choose(self, value: Any, problems: Problems, *, encoding: bool) -> tuple[bool, Shape | None, Any]:
        """Returns the type that a value is of. The first part says that it is certain, and the third is the
        result; otherwise the second is the only type that the value may be of, or there is none."""
        claiming = [shape for shape in self.alternatives if shape.claims(value, encoding=encoding)]
        if len(claiming) > 1:
            for shape in claiming:
                fits, result = problems.attempt(shape, shape.check(encoding), value)
                if fits:
                    return True, shape, result
            if not encoding:
                claiming = [shape for shape in claiming if not shape.contradicts(value)]
        return False, claiming[0] if len(claiming) == 1 else None, None

    def schema(self, definitions: Definitions, *, outgoing: bool) -> Schema:
        return {"anyOf": [one.schema(definitions, outgoing=outgoing) for one in self.alternatives]}


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of a value, in an annotation: ``Annotated[str, Bounds(min_length=1, max_length=2000)]``.

    ``gt``, ``ge``, ``lt``, ``le``: a number is above, at least, below, at most this. ``min_length``,
    ``max_length``: code points of a string, bytes, items of an array, keys of an object.
    """

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None
    min_length: int | None = None
    max_length: int | None = None

    @property
    def of_numbers(self) -> bool:
        return not self.gt is self.ge is self.lt is self.le is None

    @property
    def of_lengths(self) -> bool:
        return not self.min_length is self.max_length is None

    def broken(self, value: Any) -> str | None:
        """Returns which bound a value breaks."""
        if self.gt is not None and not value > self.gt:
            return f"above {self.gt}"
        if self.ge is not None and not value >= self.ge:
            return f"at least {self.ge}"
        if self.lt is not None and not value < self.lt:
            return f"below {self.lt}"
        if self.le is not None and not value <= self.le:
            return f"at most {self.le}"
        if self.min_length is not None and len(value) < self.min_length:
            return f"a length of at least {self.min_length}"
        if self.max_length is not None and len(value) > self.max_length:
            return f"a length of at most {self.max_length}"
        return None


# Where JSON Schema has a bound of a length, by the type that is bounded.
_LENGTHS: Final = {
    "string": ("minLength", "maxLength"),
    "array": ("minItems", "maxItems"),
    "object": ("minProperties", "maxProperties"),
}


class BoundedShape(Shape):
    """A number within bounds, or a string, an array or an object with a bounded length."""

    def __init__(self, inner: Shape, bounds: Bounds) -> None:
        self.label = inner.label
        self.hashable = inner.hashable
        self.inner = inner
        self._bounds = bounds

    def claims(self, value: Any, *, encoding: bool) -> bool:
        return self.inner.claims(value, encoding=encoding)

    def convert(self, value: Any, path: Path, problems: Problems) -> Any:
        before = len(problems.found)
        converted = self.inner.convert(value, path, problems)
        if len(problems.found) == before:
            self._check(converted, path, problems)
        return converted

    def encode(self, value: Any, path: Path, problems: Problems) -> Any:
        before = len(problems.found)
        encoded = self.inner.encode(value, path, problems)
        if len(problems.found) == before:
            self._check(value, path, problems)
        return encoded

    def _check(self, value: Any, path: Path, problems: Problems) -> None:
        broken = self._bounds.broken(value)
        if broken is not None:
            problems.add(path, "out of bounds", broken)

    def schema(self, definitions: Definitions, *, outgoing: bool) -> Schema:
        schema = dict(self.inner.schema(definitions, outgoing=outgoing))
        bounds = self._bounds
        least, most = _LENGTHS.get(schema.get("type", ""), ("", ""))
        named = {
            "exclusiveMinimum": bounds.gt,
            "minimum": bounds.ge,
            "exclusiveMaximum": bounds.lt,
            "maximum": bounds.le,
            least: bounds.min_length,
            most: bounds.max_length,
        }
        return {**schema, **{name: bound for name, bound in named.items() if bound is not None}}
