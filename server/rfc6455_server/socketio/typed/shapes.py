"""Shapes: for one type, how a JSON value becomes it, how it becomes a JSON value again, and its JSON Schema.

Implements: simple values.
Left to others: what is made of other shapes (`containers`, `records`), types of pydantic and msgspec
(`models`), and which shape an annotation has (`annotations`).

No value is converted to another type than JSON gave it: ``"1"`` is no number, 1 is no string, ``true`` is
neither. JSON has one type of numbers, so that 1.0 is an integer and 1 may be a float. A value that JSON does
not have is a string: a date, or a UUID. Bytes are attachments, and never strings.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from rfc6455_server.socketio.typed.definitions import Definitions, Schema
from rfc6455_server.socketio.typed.problems import Checker, Path, Problems, describe, wrong

_BYTES: Final = (bytes, bytearray, memoryview)


class Shape(ABC):
    """How values of one type are converted. ``label`` names the type for people."""

    label: str
    hashable = False
    """Whether a set can hold such values."""

    def claims(self, value: Any, *, encoding: bool) -> bool:
        """Whether a value has the outer form of the type, so that what is wrong can only be inside.

        ``encoding``: the value is Python's; otherwise it is JSON's.
        """
        return True

    def contradicts(self, value: Any) -> bool:
        """Whether a field of a JSON value that tells types apart says that it is of another type."""
        return False

    @abstractmethod
    def convert(self, value: Any, path: Path, problems: Problems) -> Any:
        """Returns the value of this type that a JSON value stands for."""

    @abstractmethod
    def encode(self, value: Any, path: Path, problems: Problems) -> Any:
        """Returns the JSON value, with bytes as they are, that stands for a value of this type."""

    def check(self, encoding: bool) -> Checker:
        """Returns `encode` or `convert`."""
        return self.encode if encoding else self.convert

    @abstractmethod
    def schema(self, definitions: Definitions, *, outgoing: bool) -> Schema:
        """Returns the JSON Schema; named types are added to ``definitions``."""


class AnyShape(Shape):
    """Everything: nothing is checked."""

    label = "anything"

    def convert(self, value: Any, path: Path, problems: Problems) -> Any:
        return value

    def encode(self, value: Any, path: Path, problems: Problems) -> Any:
        return value

    def schema(self, definitions: Definitions, *, outgoing: bool) -> Schema:
        return {}


class AsIs:
    """Marks a type that JSON does not have: ``Annotated[Decimal, AsIs]``.

    It is for values that the application's own ``json_decoder`` makes, and its ``json_encoder`` takes: only
    their class is checked.
    """


class InstanceShape(Shape):
    """The values of a class, which are not converted."""

    def __init__(self, type_: type) -> None:
        self.label = type_.__name__
        self._type = type_

    def claims(self, value: Any, *, encoding: bool) -> bool:
        return isinstance(value, self._type)

    def convert(self, value: Any, path: Path, problems: Problems) -> Any:
        if not isinstance(value, self._type):
            wrong(value, path, self.label, problems)
        return value

    encode = convert

    def schema(self, definitions: Definitions, *, outgoing: bool) -> Schema:
        return {"description": f"A value of the type {self.label}, which is not one of JSON's."}


class NoneShape(Shape):
    """``None``."""

    label = "null"
    hashable = True

    def claims(self, value: Any, *, encoding: bool) -> bool:
        return value is None

    def convert(self, value: Any, path: Path, problems: Problems) -> Any:
        if value is not None:
            wrong(value, path, self.label, problems)

    encode = convert

    def schema(self, definitions: Definitions, *, outgoing: bool) -> Schema:
        return {"type": "null"}


class BoolShape(Shape):
    """True or False."""

    label = "boolean"
    hashable = True

    def claims(self, value: Any, *, encoding: bool) -> bool:
        return isinstance(value, bool)

    def convert(self, value: Any, path: Path, problems: Problems) -> Any:
        if not isinstance(value, bool):
            wrong(value, path, self.label, problems)
        return value

    encode = convert

    def schema(self, definitions: Definitions, *, outgoing: bool) -> Schema:
        return {"type": "boolean"}


class IntShape(Shape):
    """An integer. To Python, a bool is one; here it is not."""

    label = "integer"
    hashable = True

    def claims(self, value: Any, *, encoding: bool) -> bool:
        if isinstance(value, bool):
            return False
        return isinstance(value, int) or (not encoding and isinstance(value, float) and value.is_integer())

    def convert(self, value: Any, path: Path, problems: Problems) -> Any:
        if type(value) is int:
            return value
        if not self.claims(value, encoding=False):
            reason = "got a fraction" if isinstance(value, float) else f"got {describe(value)}"
            problems.add(path, reason, self.label)
            return value
        return int(value)

    def encode(self, value: Any, path: Path, problems: Problems) -> Any:
        if not self.claims(value, encoding=True):
            wrong(value, path, self.label, problems)
        return value

    def schema(self, definitions: Definitions, *, outgoing: bool) -> Schema:
        return {"type": "integer"}


class FloatShape(Shape):
    """A finite number."""

    label = "number"
    hashable = True

    def claims(self, value: Any, *, encoding: bool) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    def convert(self, value: Any, path: Path, problems: Problems) -> Any:
        if not self.claims(value, encoding=False):
            wrong(value, path, self.label, problems)
            return value
        try:
            return float(value)
        except OverflowError:
            problems.add(path, "too large", "number of 64 bits")
            return value

    def encode(self, value: Any, path: Path, problems: Problems) -> Any:
        if not self.claims(value, encoding=True):
            wrong(value, path, self.label, problems)
        elif isinstance(value, float) and not math.isfinite(value):
            problems.add(path, "not finite", self.label)
        return value

    def schema(self, definitions: Definitions, *, outgoing: bool) -> Schema:
        return {"type": "number"}


class StrShape(Shape):
    """A text."""

    label = "string"
    hashable = True

    def claims(self, value: Any, *, encoding: bool) -> bool:
        return isinstance(value, str)

    def convert(self, value: Any, path: Path, problems: Problems) -> Any:
        if not isinstance(value, str):
            wrong(value, path, self.label, problems)
        return value

    encode = convert

    def schema(self, definitions: Definitions, *, outgoing: bool) -> Schema:
        return {"type": "string"}


class BytesShape(Shape):
    """Bytes, which an attachment carries."""

    label = "bytes"
    hashable = True

    def claims(self, value: Any, *, encoding: bool) -> bool:
        return isinstance(value, _BYTES)

    def convert(self, value: Any, path: Path, problems: Problems) -> Any:
        if not isinstance(value, _BYTES):
            wrong(value, path, self.label, problems)
            return value
        return bytes(value)

    def encode(self, value: Any, path: Path, problems: Problems) -> Any:
        if not isinstance(value, _BYTES):
            wrong(value, path, self.label, problems)
        return value

    def schema(self, definitions: Definitions, *, outgoing: bool) -> Schema:
        return {"type": "string", "format": "binary"}


class TextShape(Shape):
    """A type whose values are strings in JSON, in one exact form.

    ``pattern``: the form; ``parse`` raises `ValueError` for what has the form and is still no value;
    ``check`` returns why a value has no such form, or ``None``.
    """

    hashable = True

    def __init__(  # noqa: PLR0917 - what makes a type
        self,
        type_: type,
        label: str,
        pattern: str,
        parse: Callable[[str], Any],
        text: Callable[[Any], str],
        check: Callable[[Any], str | None] = lambda _: None,
    ) -> None:
        self.label = label
        self._type = type_
        self._pattern = re.compile(pattern, re.ASCII)
        self._parse = parse
        self._text = text
        self._check = check

    def claims(self, value: Any, *, encoding: bool) -> bool:
        return type(value) is self._type if encoding else isinstance(value, str)

    def convert(self, value: Any, path: Path, problems: Problems) -> Any:
        if not isinstance(value, str):
            wrong(value, path, self.label, problems)
        elif self._pattern.fullmatch(value) is None:
            problems.add(path, "got a string of another form", self.label)
        else:
            try:
                return self._parse(value)
            except ValueError:
                problems.add(path, "out of range", self.label)
        return value

    def encode(self, value: Any, path: Path, problems: Problems) -> Any:
        if type(value) is not self._type:
            wrong(value, path, self.label, problems)
            return value
        reason = self._check(value)
        if reason is not None:
            problems.add(path, reason, self.label)
            return value
        return self._text(value)

    def schema(self, definitions: Definitions, *, outgoing: bool) -> Schema:
        return {"type": "string", "format": self.label}


def _check_offset(value: datetime) -> str | None:
    offset = value.utcoffset()
    if offset is None:
        return "no time zone"
    return "an offset with seconds" if offset.seconds % 60 or offset.microseconds else None


_DATE: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_OFFSET: Final = r"(?:Z|[+-][0-9]{2}:[0-9]{2})"

# RFC 3339, with an offset. Python would take many other forms of ISO 8601.
DATETIME: Final = TextShape(
    datetime,
    "date-time",
    rf"{_DATE}T[0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}(?:\.[0-9]+)?{_OFFSET}",
    datetime.fromisoformat,
    datetime.isoformat,
    _check_offset,
)
DATE: Final = TextShape(date, "date", _DATE, date.fromisoformat, date.isoformat)
IDENTIFIER: Final = TextShape(
    UUID, "uuid", r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", UUID, str
)
