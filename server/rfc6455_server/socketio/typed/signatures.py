"""Signatures: what a function's annotations say of the arguments of an event and of its answer.

Left to others: annotations (`annotations`), who calls handlers, and how a client is told of problems.
"""

import inspect
import sys
from collections.abc import Callable, Sequence
from functools import partial
from types import FunctionType, SimpleNamespace
from typing import Any, Final

from rfc6455_server.socketio.typed.annotations import ANY, AnnotationError, description_of, resolve, shape_of
from rfc6455_server.socketio.typed.containers import ArrayShape, TupleShape, UnionShape, array_schema
from rfc6455_server.socketio.typed.definitions import Definitions, Schema
from rfc6455_server.socketio.typed.problems import Checker, Path, Problems, run
from rfc6455_server.socketio.typed.records import NO_DEFAULT, Field
from rfc6455_server.socketio.typed.shapes import NoneShape, Shape

_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_REST: Final = inspect.Parameter.VAR_POSITIONAL

_Check = tuple[Checker, Path]
"""How an argument is checked, and what it is called."""


class Signature:
    """The arguments of an event, and the values of its acknowledgement.

    ``rest``: the arguments after ``parameters``, if the function takes any number. ``result`` is ``None``
    if it is not annotated.
    """

    __slots__ = ("_converters", "_encoders", "_required", "parameters", "rest", "result")

    def __init__(self, parameters: Sequence[Field], rest: Field | None, result: Shape | None) -> None:
        self.parameters = parameters
        self.rest = rest
        self.result = result
        self._required = sum(parameter.required for parameter in parameters)
        paths: list[Path] = [(None, parameter.name) for parameter in parameters]
        self._converters = [(one.shape.convert, path) for one, path in zip(parameters, paths, strict=True)]
        self._encoders = [(one.shape.encode, path) for one, path in zip(parameters, paths, strict=True)]

    @property
    def checks(self) -> bool:
        """Whether there is anything to check: some type that is not `typing.Any`."""
        fields = [*self.parameters, self.rest] if self.rest else self.parameters
        unchecked = self.result is None or self.result is ANY or isinstance(self.result, NoneShape)
        return not unchecked or any(field.shape is not ANY for field in fields)

    def convert(self, values: Sequence[Any]) -> list[Any]:
        """Returns the arguments for the function. Raises `InvalidDataError`."""
        return self._check(values, self._converters, self.rest and self.rest.shape.convert)

    def encode(self, arguments: Sequence[Any]) -> list[Any]:
        """Returns the JSON values of arguments. Raises `InvalidDataError`."""
        return self._check(arguments, self._encoders, self.rest and self.rest.shape.encode)

    def _check(self, values: Sequence[Any], checks: Sequence[_Check], rest: Checker | None) -> list[Any]:
        def work(problems: Problems) -> list[Any]:
            result = [
                check(value, path, problems) for (check, path), value in zip(checks, values, strict=False)
            ]
            if len(values) < self._required:
                for parameter in self.parameters[len(values) : self._required]:
                    problems.add((None, parameter.name), "missing", parameter.shape.label)
            elif len(values) > len(checks):
                result += self._check_rest(values[len(checks) :], rest, problems)
            return result

        return run("the arguments are wrong", work)

    def _check_rest(self, values: Sequence[Any], check: Checker | None, problems: Problems) -> list[Any]:
        if self.rest is None or check is None:
            count = len(self.parameters)
            expected = f"{count} argument{'' if count == 1 else 's'}"
            problems.add((None, "arguments"), f"got {count + len(values)}", expected)
            return []
        path: Path = (None, self.rest.name)
        return [check(value, (path, i), problems) for i, value in enumerate(values)]

    def answer(self, result: Any) -> tuple[Any, ...] | None:
        """Returns the values of the acknowledgement for a function's result: ``None`` is none, and a tuple is
        several, but a named tuple is one. Raises `InvalidDataError`."""
        shape = self.result or ANY
        encoded = run(
            "the result is wrong", lambda problems: shape.encode(result, (None, "result"), problems)
        )
        if result is None:
            return None
        if shape is ANY:
            return tuple(encoded) if isinstance(encoded, tuple) else (encoded,)
        return tuple(encoded) if _is_several(shape, result) else (encoded,)

    def receive(self, answer: Any) -> Any:
        """Returns the value of this type that a client's acknowledgement stands for: the value, a tuple of
        several, or ``None``. Raises `InvalidDataError`."""
        value = list(answer) if isinstance(answer, tuple) else answer
        shape = self.result or ANY
        if shape is ANY:
            return answer
        return run("the answer is wrong", lambda problems: shape.convert(value, (None, "answer"), problems))

    # Schemas.

    def arguments_schema(self, definitions: Definitions, *, outgoing: bool) -> Schema:
        """Returns the schema of the array of arguments."""
        items = [field.schema(definitions, outgoing=outgoing, title=True) for field in self.parameters]
        rest = self.rest and self.rest.schema(definitions, outgoing=outgoing, title=True)
        return array_schema(items, self._required, rest)

    def answer_schema(self, definitions: Definitions, *, outgoing: bool) -> Schema:
        """Returns the schema of the array of the acknowledgement's values."""
        shape = self.result
        if shape is None or shape is ANY:
            return {"type": "array"}
        schemas = [
            self._values_schema(one, definitions, outgoing)
            for one in (shape.alternatives if isinstance(shape, UnionShape) else [shape])
        ]
        return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}

    @staticmethod
    def _values_schema(shape: Shape, definitions: Definitions, outgoing: bool) -> Schema:
        if isinstance(shape, NoneShape):
            return {"type": "array", "maxItems": 0}
        schema = shape.schema(definitions, outgoing=outgoing)
        return schema if _is_tuple(shape) else array_schema([schema])


def _is_tuple(shape: Shape) -> bool:
    return isinstance(shape, TupleShape) or (isinstance(shape, ArrayShape) and shape.is_tuple)


def _is_several(shape: Shape, result: Any) -> bool:
    """Whether a result is of a tuple's type."""
    if not isinstance(shape, UnionShape):
        return _is_tuple(shape)
    _, chosen, _ = shape.choose(result, Problems(), encoding=True)
    return chosen is not None and _is_tuple(chosen)


def signature_of(handler: Callable[..., Any]) -> Signature | None:
    """Returns the signature of a handler, without its first argument, the socket.

    Returns ``None`` if its annotations leave nothing to check, so that it can be called as it is. Raises
    `AnnotationError`.
    """
    if _is_bare(handler):
        return None
    signature = read_signature(handler, skip=1)
    return signature if signature.checks else None


def _is_bare(handler: Callable[..., Any]) -> bool:
    """Whether a plain function is not annotated, apart from its socket and ``-> None``: the common case, in a
    hundredth of the time, because a handler may be registered for each socket."""
    function = getattr(handler, "__func__", handler)
    if not isinstance(function, FunctionType) or hasattr(function, "__wrapped__"):
        return False
    if sys.version_info >= (3, 14):
        return function.__annotate__ is None
    code = function.__code__
    first = 0 if function is handler else 1  # of a method, the socket is the second
    socket = code.co_varnames[first : first + 1] if first < code.co_argcount else ()
    annotations = function.__annotations__
    return annotations.get("return") in (None, "None") and annotations.keys() <= {"return", *socket}


def read_signature(function: Callable[..., Any], *, skip: int = 0) -> Signature:
    """Returns the signature of a function without its first ``skip`` arguments. Raises `AnnotationError`."""
    name = getattr(function, "__qualname__", None) or repr(function)
    try:
        parameters = parameters_of(function)
    except (TypeError, ValueError):
        return Signature([], Field("args", ANY, required=False), None)  # a callable in C that does not tell
    while skip and parameters and parameters[0].kind in _POSITIONAL:
        del parameters[0]
        skip -= 1
    # Events have no named arguments.
    parameters = [one for one in parameters if one.kind in _POSITIONAL or one.kind is _REST]
    hints = _hints(function, {"return", *(parameter.name for parameter in parameters)}, name)
    fields, rest = [], None
    for parameter in parameters:
        field = _field(parameter, hints.get(parameter.name, Any), name)
        if parameter.kind is _REST:
            rest = field
        else:
            fields.append(field)
    try:
        result = shape_of(hints["return"]) if "return" in hints else None
    except AnnotationError as error:
        raise AnnotationError(f"{name}: its result: {error}") from None
    return Signature(fields, rest, result)


def _field(parameter: inspect.Parameter, annotation: Any, name: str) -> Field:
    required = parameter.default is inspect.Parameter.empty and parameter.kind is not _REST
    default = NO_DEFAULT if parameter.default is inspect.Parameter.empty else parameter.default
    try:
        return Field(parameter.name, shape_of(annotation), required, default, description_of(annotation))
    except AnnotationError as error:
        raise AnnotationError(f"{name}: its argument {parameter.name!r}: {error}") from None


def _hints(function: Callable[..., Any], names: set[str], name: str) -> dict[str, Any]:
    """Returns those annotations of a function that count: that of the socket need not be resolved."""
    while isinstance(function, partial):
        function = function.func
    annotated: Any = inspect.unwrap(function)
    if not inspect.isroutine(annotated):
        annotated = inspect.unwrap(type(annotated).__call__)
    while isinstance(annotated, partial):
        annotated = annotated.func
    annotated = getattr(annotated, "__func__", annotated)
    given = {key: value for key, value in _raw_annotations(annotated).items() if key in names}
    return resolve(SimpleNamespace(__annotations__=given), name, getattr(annotated, "__globals__", {}))


def parameters_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Returns the parameters of a function; their annotations need not be resolvable.

    Raises `TypeError` or `ValueError` for a callable in C that does not tell.
    """
    if sys.version_info >= (3, 14):
        import annotationlib  # noqa: PLC0415 - new in 3.14

        forward = annotationlib.Format.FORWARDREF
        return list(inspect.signature(function, annotation_format=forward).parameters.values())
    return list(inspect.signature(function).parameters.values())


def _raw_annotations(annotated: Any) -> dict[str, Any]:
    if sys.version_info >= (3, 14):
        import annotationlib  # noqa: PLC0415 - new in 3.14

        return annotationlib.get_annotations(annotated, format=annotationlib.Format.FORWARDREF)
    return inspect.get_annotations(annotated)
