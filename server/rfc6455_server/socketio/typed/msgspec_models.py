"""Types of msgspec. This module is imported only if an annotation has one (`models`)."""

import re
from typing import Any, Final

import msgspec

from rfc6455_server.socketio.typed.definitions import Definitions, Schema, draft7, transform
from rfc6455_server.socketio.typed.problems import Path, Problems, wrong
from rfc6455_server.socketio.typed.shapes import Shape

_PATH: Final = re.compile(r"(?P<reason>.*) - at `(?:key in )?\$(?P<path>.*)`", re.DOTALL)
_KEY: Final = re.compile(r"\.(?P<field>[^.\[]+)|\[(?P<index>[0-9]+|\.\.\.)\]")


class MsgspecShape(Shape):
    """A Struct of msgspec, or a type with its annotations. Bytes in it are attachments."""

    def __init__(self, annotation: Any, type_: Any, label: str) -> None:
        self.label = label
        self._annotation = annotation
        self._type = type_

    def claims(self, value: Any, *, encoding: bool) -> bool:
        return not encoding or not isinstance(self._type, type) or isinstance(value, self._type)

    def convert(self, value: Any, path: Path, problems: Problems) -> Any:
        try:
            return msgspec.convert(value, self._annotation, builtin_types=(bytes,), str_keys=True)
        except msgspec.ValidationError as error:
            # It reports the first problem only.
            found = _PATH.fullmatch(str(error))
            reason, rest = (str(error), "") if found is None else found.group("reason", "path")
            for key in _KEY.finditer(rest):
                index = key["index"]
                path = path, key["field"] or (int(index) if index.isdecimal() else "…")
            problems.add(path, reason, self.label)
            return value

    def encode(self, value: Any, path: Path, problems: Problems) -> Any:
        if not self.claims(value, encoding=True):
            wrong(value, path, self.label, problems)
            return value
        try:
            encoded = msgspec.to_builtins(value, builtin_types=(bytes,), str_keys=True)
        except TypeError as error:
            problems.add(path, str(error), self.label)
            return value
        # A Struct checks nothing when Python makes it or sets its fields.
        self.convert(encoded, path, problems)
        return encoded

    def schema(self, definitions: Definitions, *, outgoing: bool) -> Schema:
        schema = msgspec.json.schema(self._annotation)
        return definitions.adopt(transform(draft7(schema), _bytes_as_attachments))


def _bytes_as_attachments(schema: Schema) -> Schema:
    if schema.pop("contentEncoding", None) is not None:
        schema["format"] = "binary"
    return schema
