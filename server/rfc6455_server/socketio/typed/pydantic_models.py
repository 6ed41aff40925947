"""Types of pydantic. This module is imported only if an annotation has one (`models`)."""

from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from rfc6455_server.socketio.typed.definitions import Definitions, Schema, draft7
from rfc6455_server.socketio.typed.problems import Path, Problems, wrong
from rfc6455_server.socketio.typed.shapes import Shape

_MAX_ERRORS: Final = 1000
"""Maximum errors that pydantic is asked to describe: it describes all or none, at some 300 bytes each."""


class PydanticShape(Shape):
    """A model or a dataclass of pydantic, or a type with its annotations.

    Bytes in it are sent as the model's configuration writes them in JSON (``ser_json_bytes``): as a string.
    """

    def __init__(self, annotation: Any, type_: Any, label: str) -> None:
        self.label = label
        self._type = type_
        self._name = label if isinstance(annotation, type) else ""
        self._adapter: TypeAdapter[Any] = TypeAdapter(annotation)

    def claims(self, value: Any, *, encoding: bool) -> bool:
        return not encoding or not isinstance(self._type, type) or isinstance(value, self._type)

    def convert(self, value: Any, path: Path, problems: Problems) -> Any:
        try:
            return self._adapter.validate_python(value)
        except ValidationError as error:
            self._explain(error, path, problems)
            return value

    @staticmethod
    def _explain(error: ValidationError, path: Path, problems: Problems) -> None:
        if error.error_count() > _MAX_ERRORS:
            problems.add(path, f"{error.error_count()} problems", "none")
            return
        for one in error.errors(include_url=False, include_context=False, include_input=False):
            here = path
            for key in one["loc"]:
                here = here, key
            problems.add(here, one["msg"], one["type"])

    def encode(self, value: Any, path: Path, problems: Problems) -> Any:
        if not self.claims(value, encoding=True):
            wrong(value, path, self.label, problems)
            return value
        try:
            self._adapter.validate_python(value)  # of a model, only its type
            return self._adapter.dump_python(value, mode="json", by_alias=True, warnings="error")
        except ValidationError as error:
            self._explain(error, path, problems)
            return value
        except PydanticSerializationError:
            # Its message has the value.
            problems.add(path, "a field of another type", self.label)
            return value

    def schema(self, definitions: Definitions, *, outgoing: bool) -> Schema:
        schema = self._adapter.json_schema(mode="serialization" if outgoing else "validation")
        return definitions.adopt(_named(draft7(schema), self._name))


def _named(schema: Schema, name: str) -> Schema:
    """Returns a schema whose root is among its definitions, under ``name``."""
    if not name or "$ref" in schema:
        return schema
    own = schema.pop("$defs", {})
    return {"$ref": f"#/$defs/{name}", "$defs": {**own, name: schema}}
