"""From annotations to shapes: what an annotation can be, and what is said of one that it cannot be.

| annotation | JSON |
|---|---|
| ``str``, ``bool``, ``int``, ``float``, ``None``; ``Literal``, ``Enum`` | as in JSON |
| ``bytes`` | an attachment |
| ``datetime`` with a time zone, ``date``, ``UUID`` | a string: RFC 3339, RFC 9562 |
| ``list``, ``Sequence``, ``Iterable``, ``Collection``, ``set``, ``frozenset``, ``tuple`` | an array |
| ``dict``, ``Mapping`` with keys that are strings in JSON | an object |
| dataclass, TypedDict; named tuple | an object; an array |
| ``A | B``, ``Optional`` | the first that fits |
| ``Annotated[T, Bounds(…)]``, also with annotated_types; ``Annotated[T, "description"]`` | as T |
| ``Annotated[T, AsIs]`` | what ``json_decoder`` and ``json_encoder`` have for this class |
| a model of pydantic, a Struct of msgspec | as they have it (`models`) |
| ``Any``, ``object``, none | anything, unchecked |
"""

import collections.abc
import dataclasses
import types
import typing
from collections.abc import Callable, Sequence
from datetime import date, datetime
from enum import Enum, Flag
from typing import Annotated, Any, Final, Literal, NotRequired, Required, Union, get_args, get_origin
from uuid import UUID

from rfc6455_server.socketio.typed.containers import (
    ArrayShape,
    BoundedShape,
    Bounds,
    ChoiceShape,
    MappingShape,
    SetShape,
    TupleShape,
    UnionShape,
)
from rfc6455_server.socketio.typed.models import model_shape
from rfc6455_server.socketio.typed.records import (
    NO_DEFAULT,
    DataclassShape,
    Field,
    NamedTupleShape,
    RecordShape,
    TypedDictShape,
)
from rfc6455_server.socketio.typed.shapes import (
    DATE,
    DATETIME,
    IDENTIFIER,
    AnyShape,
    AsIs,
    BoolShape,
    BytesShape,
    FloatShape,
    InstanceShape,
    IntShape,
    NoneShape,
    Shape,
    StrShape,
    TextShape,
)


class AnnotationError(TypeError):
    """An annotation of a handler cannot be resolved, or JSON has no values of its type."""


ANY: Final = AnyShape()
_NONE: Final = NoneShape()
_SIMPLE: Final[dict[Any, Shape]] = {
    Any: ANY,
    object: ANY,
    None: _NONE,
    type(None): _NONE,
    bool: BoolShape(),
    int: IntShape(),
    float: FloatShape(),
    str: StrShape(),
    bytes: BytesShape(),
    datetime: DATETIME,
    date: DATE,
    UUID: IDENTIFIER,
}
_UNIONS: Final = (Union, types.UnionType)
_LISTS: Final = (
    list,
    collections.abc.Sequence,
    collections.abc.MutableSequence,
    collections.abc.Iterable,
    collections.abc.Collection,
)
_SETS: Final = (set, frozenset, collections.abc.Set, collections.abc.MutableSet)
_MAPPINGS: Final = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_READ_ONLY: Final = getattr(typing, "ReadOnly", object())


def shape_of(annotation: Any) -> Shape:
    """Returns the shape of an annotation. Raises `AnnotationError`."""
    return _Builder().shape(annotation)


def description_of(annotation: Any) -> str:
    """Returns the description that ``Annotated`` gives: a string, or a ``Doc``."""
    if get_origin(annotation) in (Required, NotRequired):
        annotation = get_args(annotation)[0]
    for one in getattr(annotation, "__metadata__", ()):
        text = one if isinstance(one, str) else getattr(one, "documentation", None)
        if isinstance(text, str):
            return text
    return ""


class _Builder:
    """Makes the shapes of one annotation. It keeps those of records, which may refer to themselves."""

    def __init__(self) -> None:
        self._records: dict[type, RecordShape] = {}
        self._aliases: list[Any] = []

    def shape(self, annotation: Any, metadata: tuple[Any, ...] = ()) -> Shape:
        if get_origin(annotation) is Annotated:
            inner, *more = get_args(annotation)
            return self.shape(inner, (*more, *metadata))
        if AsIs in metadata:
            if not isinstance(annotation, type) or get_args(annotation):
                raise AnnotationError(f"AsIs is for a class: {_name(annotation)}")
            return InstanceShape(annotation)
        if (modelled := model_shape(annotation, metadata)) is not None:
            return modelled
        if isinstance(annotation, typing.NewType):
            return self.shape(annotation.__supertype__, metadata)
        if hasattr(annotation, "__value__") and hasattr(annotation, "__type_params__"):
            return self._alias(annotation, metadata)
        shape = self._unbounded(annotation)
        for bounds in _all_bounds(metadata):
            _check_bounds(bounds, shape, annotation)
            shape = BoundedShape(shape, bounds)
        return shape

    def _alias(self, alias: Any, metadata: tuple[Any, ...]) -> Shape:
        """The shape of ``type X = …``."""
        if alias in self._aliases:
            raise AnnotationError(f"the alias {alias} refers to itself: use a dataclass")
        self._aliases.append(alias)
        try:
            return self.shape(alias.__value__, metadata)
        finally:
            self._aliases.pop()

    def _unbounded(self, annotation: Any) -> Shape:
        if annotation in _SIMPLE:
            return _SIMPLE[annotation]
        origin = get_origin(annotation) or annotation
        arguments = get_args(annotation)
        if origin in _UNIONS:
            return self._union(arguments)
        if origin is Literal:
            return _choice(
                [(one, one.value if isinstance(one, Enum) else one) for one in arguments], annotation
            )
        if origin in _LISTS:
            return ArrayShape(self._item(arguments), _accepted(origin), list)
        if origin in _SETS:
            return self._set(origin, arguments, annotation)
        if origin in _MAPPINGS:
            return self._mapping(origin, arguments, annotation)
        if origin is tuple:
            plain = annotation in (tuple, typing.Tuple)  # noqa: UP006 - other than ``tuple[()]``
            return self._tuple((Any, ...) if plain else arguments)
        if isinstance(annotation, type):
            if issubclass(annotation, Enum) and not issubclass(annotation, Flag):
                return _choice([(member, member.value) for member in annotation], annotation)
            record = self._record(annotation)
            if record is not None:
                return record
        raise AnnotationError(f"JSON has no values of {_name(annotation)}")

    def _item(self, arguments: tuple[Any, ...]) -> Shape:
        return self.shape(arguments[0]) if arguments else ANY

    def _union(self, arguments: tuple[Any, ...]) -> Shape:
        alternatives: list[Shape] = []
        for argument in arguments:
            shape = self.shape(argument)
            alternatives += shape.alternatives if isinstance(shape, UnionShape) else [shape]
        return UnionShape(alternatives)

    def _set(self, origin: Any, arguments: tuple[Any, ...], annotation: Any) -> Shape:
        item = self._item(arguments)
        if not item.hashable:
            raise AnnotationError(
                f"a set cannot hold {item.label}: use a list in place of {_name(annotation)}"
            )
        return SetShape(item, origin, frozenset if origin is frozenset else set)

    def _mapping(self, origin: Any, arguments: tuple[Any, ...], annotation: Any) -> Shape:
        key, item = map(self.shape, arguments or (str, Any))
        if key is ANY:
            key = _SIMPLE[str]
        if not _is_text(key):
            raise AnnotationError(f"the keys of an object are strings in JSON: {_name(annotation)}")
        return MappingShape(key, item, origin)

    def _tuple(self, arguments: tuple[Any, ...]) -> Shape:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return ArrayShape(self.shape(arguments[0]), tuple, tuple)
        return TupleShape([self.shape(argument) for argument in arguments])

    # Types with named fields.

    def _record(self, type_: type) -> RecordShape | None:
        known = self._records.get(type_)
        if known is not None:
            return known
        make: Callable[[type], Sequence[Field]]
        if dataclasses.is_dataclass(type_):
            shape: RecordShape = DataclassShape(type_)
            make = self._dataclass_fields
        elif issubclass(type_, dict) and hasattr(type_, "__required_keys__"):
            shape, make = TypedDictShape(type_), self._typed_dict_fields
        elif issubclass(type_, tuple) and hasattr(type_, "_field_defaults"):
            shape, make = NamedTupleShape(type_), self._named_tuple_fields
        else:
            return None
        self._records[type_] = shape
        shape.set_fields(make(type_))
        return shape

    def _field(self, type_: type, name: str, annotation: Any, *, required: bool, default: Any) -> Field:
        try:
            shape = self.shape(annotation)
        except AnnotationError as error:
            raise AnnotationError(f"{type_.__name__}.{name}: {error}") from None
        return Field(name, shape, required, default, description_of(annotation))

    def _dataclass_fields(self, type_: type) -> list[Field]:
        hints = resolve(type_, type_.__name__)
        if any(isinstance(hint, dataclasses.InitVar) for hint in hints.values()):
            raise AnnotationError(f"{type_.__name__} has an InitVar, which cannot be sent back")
        fields = []
        for field in dataclasses.fields(type_):
            if field.init:
                required = field.default is field.default_factory is dataclasses.MISSING
                default = NO_DEFAULT if field.default is dataclasses.MISSING else field.default
                hint = hints[field.name]
                fields.append(self._field(type_, field.name, hint, required=required, default=default))
        return fields

    def _typed_dict_fields(self, type_: type) -> list[Field]:
        fields = []
        required_keys: frozenset[str] = type_.__required_keys__  # type: ignore[attr-defined]  # a TypedDict
        for name, hint in resolve(type_, type_.__name__).items():
            required, annotation = name in required_keys, hint
            # Python does not see these in an annotation that it resolves late.
            while (origin := get_origin(annotation)) in (Required, NotRequired, _READ_ONLY):
                required = required if origin is _READ_ONLY else origin is Required
                annotation = get_args(annotation)[0]
            fields.append(self._field(type_, name, annotation, required=required, default=NO_DEFAULT))
        return fields

    def _named_tuple_fields(self, type_: type) -> list[Field]:
        hints = resolve(type_, type_.__name__)
        defaults: dict[str, Any] = type_._field_defaults  # type: ignore[attr-defined]  # a named tuple
        names: tuple[str, ...] = type_._fields  # type: ignore[attr-defined]  # a named tuple
        return [
            self._field(
                type_,
                name,
                hints.get(name, Any),
                required=name not in defaults,
                default=defaults.get(name, NO_DEFAULT),
            )
            for name in names
        ]


def resolve(annotated: Any, name: str, globals_: dict[str, Any] | None = None) -> dict[str, Any]:
    """Returns the annotations of something, with strings evaluated. Raises `AnnotationError`."""
    try:
        return typing.get_type_hints(annotated, globalns=globals_, include_extras=True)
    except Exception as error:
        raise AnnotationError(
            f"{name}: an annotation cannot be resolved: {error}; its names must be known in its module, "
            "and not only to type checkers"
        ) from error


def _accepted(origin: Any) -> Any:
    """Returns the type that a value for an array must have: a generator cannot be checked and sent."""
    return collections.abc.Collection if origin is collections.abc.Iterable else origin


def _choice(choices: list[tuple[Any, Any]], annotation: Any) -> Shape:
    if not choices or not all(isinstance(encoded, str | int | float | bool | None) for _, encoded in choices):
        raise AnnotationError(f"JSON has no values of {_name(annotation)}: each must be a string or a number")
    return ChoiceShape(choices)


def _is_text(shape: Shape) -> bool:
    """Whether all values are strings in JSON."""
    if isinstance(shape, BoundedShape):
        return _is_text(shape.inner)
    if isinstance(shape, ChoiceShape):
        return all(isinstance(value, str) for value in shape.values)
    return isinstance(shape, StrShape | TextShape)


def _all_bounds(metadata: tuple[Any, ...]) -> list[Bounds]:
    """Returns the bounds in what ``Annotated`` adds, of ours and of the package annotated_types."""
    found = []
    for one in metadata:
        if isinstance(one, Bounds):
            found.append(one)
        elif type(one).__module__.partition(".")[0] == "annotated_types":
            names = [field.name for field in dataclasses.fields(Bounds) if hasattr(one, field.name)]
            if not names:
                raise AnnotationError(f"{one} is not checked here: use pydantic, msgspec or `Bounds`")
            found.append(Bounds(**{name: getattr(one, name) for name in names}))
    return found


def _check_bounds(bounds: Bounds, shape: Shape, annotation: Any) -> None:
    while isinstance(shape, BoundedShape):
        shape = shape.inner
    numbers = isinstance(shape, IntShape | FloatShape)
    lengths = isinstance(shape, StrShape | BytesShape | ArrayShape | TupleShape | MappingShape)
    if (bounds.of_numbers and not numbers) or (bounds.of_lengths and not lengths):
        raise AnnotationError(f"{bounds} cannot bound {_name(annotation)}")


def _name(annotation: Any) -> str:
    return (
        annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)
    )
