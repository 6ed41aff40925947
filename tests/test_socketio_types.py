"""The types of events: which JSON values they take, what they make of them, and their JSON Schemas."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, IntFlag
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    Required,
    TypedDict,
    TypeVar,
    Union,
)
from uuid import UUID

import annotated_types
import jsonschema
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfc6455_server.socketio.typed.annotations import AnnotationError, shape_of
from rfc6455_server.socketio.typed.containers import Bounds
from rfc6455_server.socketio.typed.definitions import Definitions
from rfc6455_server.socketio.typed.problems import (
    MAX_PATH,
    MAX_PROBLEMS,
    InvalidDataError,
    Problem,
    run,
)
from rfc6455_server.socketio.typed.shapes import AsIs


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Point(NamedTuple):
    x: int
    y: int = 0


@dataclass
class Person:
    """A person in a room."""

    name: str
    age: int | None = None
    friends: "list[Person]" = field(default_factory=list)


class Receipt(TypedDict):
    number: int
    note: NotRequired[str]


class Partial(TypedDict, total=False):
    name: Required[str]
    size: int


@dataclass
class Circle:
    kind: Literal["circle"]
    radius: float


@dataclass
class Square:
    kind: Literal["square"]
    side: float


@dataclass
class Checked:
    text: str

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError("an empty text")


Name = NewType("Name", str)


class Model(pydantic.BaseModel):
    """A model."""

    number: int
    color: Color = Color.RED
    inner: "list[Model]" = []


class Struct(msgspec.Struct):
    number: int
    data: bytes = b""
    inner: "list[Struct]" = []


def convert(annotation: Any, value: Any) -> Any:
    shape = shape_of(annotation)
    return run("wrong", lambda problems: shape.convert(value, (None, "data"), problems))


def encode(annotation: Any, value: Any) -> Any:
    shape = shape_of(annotation)
    return run("wrong", lambda problems: shape.encode(value, (None, "data"), problems))


def problems(annotation: Any, value: Any, *, encoding: bool = False) -> list[Problem]:
    with pytest.raises(InvalidDataError) as caught:
        (encode if encoding else convert)(annotation, value)
    return caught.value.problems


def schema(annotation: Any, *, outgoing: bool = False) -> dict[str, Any]:
    """Returns the whole JSON Schema, after a check that it is one."""
    definitions = Definitions()
    made = shape_of(annotation).schema(definitions, outgoing=outgoing)
    whole = {**made, "$defs": definitions.schemas} if definitions.schemas else made
    jsonschema.Draft7Validator.check_schema(whole)
    return whole


NOW = datetime(2026, 11, 24, 12, 30, tzinfo=timezone(timedelta(hours=9)))
ID = UUID("6f1a3a2e-97b8-4a52-8d0c-1f5d8a1c8f10")

# An annotation, a JSON value, and what a handler is given.
TAKEN: list[tuple[Any, Any, Any]] = [
    (str, "안녕", "안녕"),
    (bool, True, True),
    (int, 3, 3),
    (int, 3.0, 3),
    (float, 1.5, 1.5),
    (float, 2, 2.0),
    (None, None, None),
    (bytes, b"\0x", b"\0x"),
    (Any, {"a": [1, "x"]}, {"a": [1, "x"]}),
    (object, [None], [None]),
    (datetime, "2026-11-24T12:30:00+09:00", NOW),
    (datetime, "2026-11-24T03:30:00.000Z", NOW),
    (date, "2026-11-24", date(2026, 11, 24)),
    (UUID, str(ID).upper(), ID),
    (Literal["a", 1, None], 1, 1),
    (Literal["a", 1, None], None, None),
    (Literal[Color.RED], "red", Color.RED),
    (Color, "blue", Color.BLUE),
    (Level, 2, Level.HIGH),
    (list[int], [1, 2], [1, 2]),
    (list, [1, "a"], [1, "a"]),
    (Sequence[str], ["a"], ["a"]),
    (Iterable[str], ["a"], ["a"]),
    (set[str], ["a", "b"], {"a", "b"}),
    (frozenset[int], [1], frozenset({1})),
    (AbstractSet[Color], ["red"], {Color.RED}),
    (set[tuple[int, str]], [[1, "a"]], {(1, "a")}),
    (tuple[int, str], [1, "a"], (1, "a")),
    (tuple[int, ...], [1, 2, 3], (1, 2, 3)),
    (tuple[()], [], ()),
    (tuple, [1, "a"], (1, "a")),
    (dict[str, int], {"a": 1}, {"a": 1}),
    (dict, {"a": 1}, {"a": 1}),
    (Mapping[UUID, Color], {str(ID): "red"}, {ID: Color.RED}),
    (dict[Literal["a", "b"], int], {"b": 1}, {"b": 1}),
    (Person, {"name": "a"}, Person("a")),
    (
        Person,
        {"name": "a", "age": 3, "friends": [{"name": "b", "friends": [{"name": "c"}]}]},
        Person("a", 3, [Person("b", None, [Person("c")])]),
    ),
    (Receipt, {"number": 1}, {"number": 1}),
    (Receipt, {"number": 1, "note": "x"}, {"number": 1, "note": "x"}),
    (Partial, {"name": "x"}, {"name": "x"}),
    (Point, [1], Point(1)),
    (Point, [1, 2], Point(1, 2)),
    (int | None, None, None),
    (Optional[Person], {"name": "a"}, Person("a")),  # noqa: UP045 - both forms
    (Circle | Square, {"kind": "square", "side": 1}, Square("square", 1.0)),
    (int | str | list[str], ["x"], ["x"]),
    (Person | Receipt, {"number": 3}, {"number": 3}),
    (Name, "a", "a"),
    (Annotated[str, Bounds(min_length=1, max_length=2)], "안녕", "안녕"),
    (Annotated[int, annotated_types.Interval(ge=1, lt=5)], 1, 1),
    (Annotated[list[int], annotated_types.Len(1, 2)], [1], [1]),
    (Annotated[str, "a description"], "a", "a"),
    (Annotated[str, AsIs], "a", "a"),
    (Model, {"number": 7, "inner": [{"number": 8}]}, Model(number=7, inner=[Model(number=8)])),
    (Annotated[int, pydantic.Field(gt=3)], 4, 4),
    (Struct, {"number": 1, "data": b"x", "inner": [{"number": 2}]}, Struct(1, b"x", [Struct(2)])),
    (Annotated[int, msgspec.Meta(gt=3)], 4, 4),
    (list[Model | Struct], [{"number": 1, "color": "blue"}], [Model(number=1, color=Color.BLUE)]),
]


@pytest.mark.parametrize(("annotation", "value", "expected"), TAKEN, ids=map(str, range(len(TAKEN))))
def test_what_is_taken(annotation: Any, value: Any, expected: Any) -> None:
    converted = convert(annotation, value)
    assert converted == expected
    assert type(converted) is type(expected)
    # It can be sent, and the client's side of the schema allows it.
    encoded = encode(annotation, converted)
    assert convert(annotation, encoded) == expected
    made = schema(annotation)
    if b"x" not in str(value).encode():
        jsonschema.validate(value, made, jsonschema.Draft7Validator)
        jsonschema.validate(encoded, schema(annotation, outgoing=True), jsonschema.Draft7Validator)
        json.dumps(encoded)


# An annotation, a JSON value, and the problems: the path, the reason and what was expected.
NOT_TAKEN: list[tuple[Any, Any, list[tuple[str, str, str]]]] = [
    (str, 1, [("data", "got a number", "string")]),
    (str, b"x", [("data", "got bytes", "string")]),
    (bool, 1, [("data", "got a number", "boolean")]),
    (bool, "true", [("data", "got a string", "boolean")]),
    (int, True, [("data", "got a boolean", "integer")]),
    (int, "1", [("data", "got a string", "integer")]),
    (int, 1.5, [("data", "got a fraction", "integer")]),
    (int, None, [("data", "got null", "integer")]),
    (float, "1", [("data", "got a string", "number")]),
    (float, False, [("data", "got a boolean", "number")]),
    (float, 10**400, [("data", "too large", "number of 64 bits")]),
    (None, 0, [("data", "got a number", "null")]),
    (bytes, "x", [("data", "got a string", "bytes")]),
    (datetime, "2026-11-24T12:30:00", [("data", "got a string of another form", "date-time")]),
    (datetime, "2026-W01-1T00:00:00Z", [("data", "got a string of another form", "date-time")]),
    (datetime, "2026-13-24T12:30:00Z", [("data", "out of range", "date-time")]),
    (datetime, 1, [("data", "got a number", "date-time")]),
    (date, "20261124", [("data", "got a string of another form", "date")]),
    (date, "2026-02-30", [("data", "out of range", "date")]),
    (UUID, "{" + str(ID) + "}", [("data", "got a string of another form", "uuid")]),
    (Literal["a", 1], "b", [("data", "got another value", '"a" or 1')]),
    (Literal["a", 1], True, [("data", "got a boolean", '"a" or 1')]),
    (Literal["a", 1], [], [("data", "got an array", '"a" or 1')]),
    (Color, "RED", [("data", "got another value", '"red" or "blue"')]),
    (
        list[int],
        [1, "2", None],
        [("data[1]", "got a string", "integer"), ("data[2]", "got null", "integer")],
    ),
    (list[int], {"0": 1}, [("data", "got an object", "array of integer")]),
    (Sequence[str], "ab", [("data", "got a string", "array of string")]),
    (set[str], ["a", "b", "a"], [("data[2]", "occurs twice", "array of different string")]),
    (set[str], ["a", []], [("data[1]", "got an array", "string")]),
    (set[str], "a", [("data", "got a string", "array of different string")]),
    (tuple[int, str], [1], [("data", "got 1 items", "array of (integer, string)")]),
    (tuple[()], [1], [("data", "got 1 items", "array of ()")]),
    (tuple[int, str], ["a", 1], [
        ("data[0]", "got a string", "integer"),
        ("data[1]", "got a number", "string"),
    ]),
    (dict[str, int], {"a": "x", "b c": 1.5}, [
        ("data.a", "got a string", "integer"),
        ('data["b c"]', "got a fraction", "integer"),
    ]),
    (dict[str, int], [], [("data", "got an array", "object of integer")]),
    (dict[UUID, int], {str(ID): 1, str(ID).upper(): 2}, [
        (f'data["{str(ID).upper()}"]', "occurs twice", "different keys"),
    ]),
    (Person, [], [("data", "got an array", "Person")]),
    (
        Person,
        {"nmae": "a", "age": "3", "friends": [{"name": None}]},
        [
            ("data.name", "missing", "string"),
            ("data.age", "got a string that is none of these", "integer or null"),
            ("data.friends[0].name", "got null", "string"),
            ("data.nmae", "unknown", "only fields of Person"),
        ],
    ),
    (Receipt, {"note": 1}, [("data.number", "missing", "integer"), ("data.note", "got a number", "string")]),
    (Receipt, {"number": 1, "x": 1}, [("data.x", "unknown", "only fields of Receipt")]),
    (Receipt, 1, [("data", "got a number", "Receipt")]),
    (Partial, {"size": 1}, [("data.name", "missing", "string")]),
    (Point, [], [("data[0]", "missing", "integer")]),
    (Point, [1, "y"], [("data[1]", "got a string", "integer")]),
    (Point, [1, 2, 3], [("data", "got 3 items", "Point of 2 items")]),
    (Point, {"x": 1}, [("data", "got an object", "Point")]),
    (Checked, {"text": " "}, [("data", "an empty text", "Checked")]),
    (Person | None, {}, [("data.name", "missing", "string")]),
    (int | str, [], [("data", "got an array that is none of these", "integer or string")]),
    (
        Circle | Square | None,
        {"kind": "square", "side": "1"},
        [("data.side", "got a string", "number")],
    ),
    (Circle | Square, {"radius": 1}, [("data", "got an object that is none of these", "Circle or Square")]),
    (Annotated[Decimal, AsIs], "1", [("data", "got a string", "Decimal")]),
    (Annotated[str, Bounds(min_length=1)], "", [("data", "out of bounds", "a length of at least 1")]),
    (Annotated[str, Bounds(max_length=1)], "ab", [("data", "out of bounds", "a length of at most 1")]),
    (Annotated[str, Bounds(max_length=1)], 1, [("data", "got a number", "string")]),
    (Annotated[int, Bounds(gt=1)], 1, [("data", "out of bounds", "above 1")]),
    (Annotated[int, annotated_types.Ge(1)], 0, [("data", "out of bounds", "at least 1")]),
    (Annotated[float, Bounds(lt=1)], 1, [("data", "out of bounds", "below 1")]),
    (Annotated[float, Bounds(le=1)], 1.5, [("data", "out of bounds", "at most 1")]),
    (Annotated[dict[str, int], Bounds(max_length=0)], {"a": 1}, [
        ("data", "out of bounds", "a length of at most 0"),
    ]),
    (
        Model,
        {"number": "x", "inner": [{}]},
        [
            (
                "data.number",
                "Input should be a valid integer, unable to parse string as an integer",
                "int_parsing",
            ),
            ("data.inner[0].number", "Field required", "missing"),
        ],
    ),
    (Annotated[int, pydantic.Field(gt=3)], 3, [("data", "Input should be greater than 3", "greater_than")]),
    (Struct, {"number": "1"}, [("data.number", "Expected `int`, got `str`", "Struct")]),
    (Struct, {"number": 1, "data": "eA=="}, [("data.data", "Expected `bytes`, got `str`", "Struct")]),
    (
        Struct,
        {"number": 1, "inner": [{"number": 1}, {}]},
        [("data.inner[1]", "Object missing required field `number`", "Struct")],
    ),
    (Annotated[int, msgspec.Meta(gt=3)], 3, [("data", "Expected `int` >= 4", "int")]),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "value", "expected"), NOT_TAKEN, ids=map(str, range(len(NOT_TAKEN))))
def test_what_is_not_taken(annotation: Any, value: Any, expected: list[tuple[str, str, str]]) -> None:
    assert problems(annotation, value) == expected


# An annotation, a Python value that is not of this type, and the problems.
NOT_SENT: list[tuple[Any, Any, list[tuple[str, str, str]]]] = [
    (str, 1, [("data", "got a number", "string")]),
    (int, 1.0, [("data", "got a number", "integer")]),
    (int, True, [("data", "got a boolean", "integer")]),
    (float, float("nan"), [("data", "not finite", "number")]),
    (float, "1", [("data", "got a string", "number")]),
    (datetime, datetime(2026, 1, 1), [("data", "no time zone", "date-time")]),
    (datetime, datetime(2026, 1, 1, tzinfo=timezone(timedelta(seconds=1))), [
        ("data", "an offset with seconds", "date-time"),
    ]),
    (datetime, "2026-11-24T12:30:00Z", [("data", "got a string", "date-time")]),
    (date, NOW, [("data", "got datetime", "date")]),
    (bytes, "x", [("data", "got a string", "bytes")]),
    (None, 1, [("data", "got a number", "null")]),
    (Literal["a", 1], True, [("data", "got a boolean", '"a" or 1')]),
    (Color, "red", [("data", "got another value", '"red" or "blue"')]),
    (list[int], (1,), [("data", "got tuple", "array of integer")]),
    (list[int], ["1"], [("data[0]", "got a string", "integer")]),
    (Sequence[str], "ab", [("data", "got a string", "array of string")]),
    (tuple[int, str], [1, "a"], [("data", "got an array", "array of (integer, string)")]),
    (tuple[int, str], (1,), [("data", "got 1 items", "array of (integer, string)")]),
    (dict[str, int], {1: 1}, [("data[\"1\"]", "got a number", "string")]),
    (dict[str, int], [], [("data", "got an array", "object of integer")]),
    (Person, {"name": "a"}, [("data", "got an object", "Person")]),
    (Person, Person("a", 3, [Person(7)]), [("data.friends[0].name", "got a number", "string")]),  # type: ignore[arg-type]
    (Receipt, {"number": "x"}, [("data.number", "got a string", "integer")]),
    (Receipt, {}, [("data.number", "missing", "integer")]),
    (Receipt, [], [("data", "got an array", "Receipt")]),
    (Point, (1, 2), [("data", "got tuple", "Point")]),
    (Point, Point(1, "y"), [("data[1]", "got a string", "integer")]),  # type: ignore[arg-type]
    (Person | None, Receipt(number=1), [
        ("data", "got an object that is none of these", "Person or null"),
    ]),
    (Annotated[int, Bounds(ge=1)], 0, [("data", "out of bounds", "at least 1")]),
    (Model, {"number": 1}, [("data", "got an object", "Model")]),
    (Model, Model.model_construct(number="x"), [("data", "a field of another type", "Model")]),
    (Annotated[int, pydantic.Field(gt=3)], 3, [
        ("data", "Input should be greater than 3", "greater_than"),
    ]),
    (Annotated[int, msgspec.Meta(gt=3)], 3, [("data", "Expected `int` >= 4", "int")]),
    (Struct, {"number": 1}, [("data", "got an object", "Struct")]),
    (Struct, Struct("x"), [("data.number", "Expected `int`, got `str`", "Struct")]),  # type: ignore[arg-type]
    (Struct, Struct(object()), [("data", "Encoding objects of type object is unsupported", "Struct")]),  # type: ignore[arg-type]
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "value", "expected"), NOT_SENT, ids=map(str, range(len(NOT_SENT))))
def test_what_is_not_sent(annotation: Any, value: Any, expected: list[tuple[str, str, str]]) -> None:
    assert problems(annotation, value, encoding=True) == expected


def test_what_only_the_application_can_decode_and_encode() -> None:
    number = Decimal("0.1")
    assert convert(Annotated[Decimal, AsIs] | None, number) is number
    assert encode(list[Annotated[Decimal, AsIs]], [number]) == [number]
    assert problems(Annotated[Decimal, AsIs], 0.1, encoding=True) == [("data", "got a number", "Decimal")]
    assert "type" not in schema(Annotated[Decimal, AsIs])


def test_a_pydantic_model_converts_as_its_configuration_says() -> None:
    class Strict(Model, strict=True):
        pass

    assert convert(Model, {"number": "7"}) == Model(number=7)
    assert [path for path, _, _ in problems(Strict, {"number": "7"})] == ["data.number"]


def test_what_is_sent() -> None:
    assert encode(float, 1) == 1
    assert encode(Sequence[int], (1, 2)) == [1, 2]
    assert sorted(encode(set[str], {"b", "a"})) == ["a", "b"]
    assert encode(dict[Color, datetime], {Color.RED: NOW}) == {"red": "2026-11-24T12:30:00+09:00"}
    assert encode(Person, Person("a")) == {"name": "a", "age": None, "friends": []}
    assert encode(Model, Model(number=1, color=Color.BLUE)) == {"number": 1, "color": "blue", "inner": []}
    assert encode(Struct, Struct(1, b"\xff")) == {"number": 1, "data": b"\xff", "inner": []}
    assert encode(datetime, datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00+00:00"


T = TypeVar("T")


@dataclass
class Page(Generic[T]):
    items: list[T]


@dataclass
class WithInitVar:
    name: str
    secret: dataclasses.InitVar[str]


@dataclass
class Unresolved:
    name: "Nowhere"  # type: ignore[name-defined]  # noqa: F821


@dataclass
class Nested:
    price: Decimal


class Bits(IntFlag):
    A = 1


class Odd(Enum):
    A = (1, 2)


# An annotation, and what is said of it.
IMPOSSIBLE: dict[str, tuple[Any, str]] = {
    "a class": (Decimal, "JSON has no values of Decimal"),
    "a class in a field": (Nested, "Nested.price: JSON has no values of Decimal"),
    "a type variable": (T, "JSON has no values of ~T"),
    "a generic dataclass": (Page[int], "JSON has no values of .*Page"),
    "a field with a type variable": (Page, "Page.items: JSON has no values of ~T"),
    "an InitVar": (WithInitVar, "WithInitVar has an InitVar"),
    "an unresolvable field": (Unresolved, "Unresolved: an annotation cannot be resolved: .*Nowhere"),
    "flags": (Bits, "JSON has no values of Bits"),
    "an Enum of tuples": (Odd, "JSON has no values of Odd"),
    "a Literal of bytes": (Literal[b"x"], "each must be a string or a number"),
    "an Enum without members": (Enum("Empty", []), "JSON has no values of Empty"),
    "keys that are numbers": (dict[int, str], "the keys of an object are strings in JSON"),
    "a set of lists": (set[list[int]], "a set cannot hold array of integer"),
    "bounds of a date": (Annotated[date, Bounds(ge=1)], "cannot bound date"),
    "a length of a number": (Annotated[int, Bounds(max_length=1)], "cannot bound int"),
    "bounds of a union": (Annotated[int | None, Bounds(ge=1)], "cannot bound"),
    "as it is, and no class": (Annotated[list[int], AsIs], "AsIs is for a class"),
    "an unknown check": (
        Annotated[int, annotated_types.MultipleOf(3)],
        "MultipleOf.* is not checked here",
    ),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_impossible_annotations(case: str) -> None:
    annotation, message = IMPOSSIBLE[case]
    with pytest.raises(AnnotationError, match=message):
        shape_of(annotation)


class Alias:
    """Stands for ``type name = value``, which is new in Python 3.12."""

    __type_params__ = ()

    def __init__(self, name: str) -> None:
        self.name = name
        self.__value__: Any = str | None

    def __str__(self) -> str:
        return self.name


def test_type_aliases() -> None:
    alias: Any = Alias("Text")
    assert convert(list[alias], ["a", None]) == ["a", None]
    alias = Alias("Endless")
    alias.__value__ = list[alias]
    with pytest.raises(AnnotationError, match="the alias Endless refers to itself"):
        shape_of(alias)


# Bounds.


def test_at_most_twenty_problems_are_reported() -> None:
    with pytest.raises(InvalidDataError) as caught:
        convert(list[int], ["x"] * 100_000)
    assert len(caught.value.problems) == MAX_PROBLEMS
    assert caught.value.more
    assert caught.value.answer["more"] is True
    with pytest.raises(InvalidDataError) as caught:
        convert(list[int], ["x"] * MAX_PROBLEMS)
    assert len(caught.value.problems) == MAX_PROBLEMS
    assert not caught.value.more
    assert "more" not in caught.value.answer


def test_pydantic_does_not_describe_any_number_of_problems() -> None:
    assert problems(Model, {"number": 1, "inner": [{}] * 1001}) == [("data", "1001 problems", "none")]


def test_a_report_is_small_whatever_the_client_sends() -> None:
    key = "\ud800k" * 100_000
    value: Any = {key: "x"}
    for _ in range(50):
        value = {key: value}
    annotation: Any = dict[str, int]
    for _ in range(50):
        annotation = dict[str, annotation]
    with pytest.raises(InvalidDataError) as caught:
        convert(annotation, value)
    problem = caught.value.problems[0]
    assert len(problem.path) == MAX_PATH
    assert problem.path.startswith('data["?k')
    assert problem.reason == "got a string"
    json.dumps(caught.value.answer, ensure_ascii=False).encode()


@dataclass
class Left:
    next: "Left | Right | int"


@dataclass
class Right:
    next: "Left | Right | int"


def test_unions_in_unions_take_linear_time() -> None:
    value: Any = "wrong"
    for _ in range(60):  # without memory of what was tried: 2 ** 60 attempts
        value = {"next": value}
    assert problems(Left | Right, value) == [("data", "got an object that is none of these", "Left or Right")]
    made: Any = "wrong"
    for _ in range(60):
        made = Left(made)
    ((path, reason, _),) = problems(Left | Right, made, encoding=True)
    assert path.startswith("data.next.next.next")
    assert reason == "got a string that is none of these"


def test_a_value_that_is_nested_too_deeply_is_not_taken() -> None:
    value: Any = 1
    for _ in range(2000):
        value = {"next": value}
    assert problems(Left | Right, value) == [("", "nested too deeply", "less nesting")]


def test_a_value_that_contains_itself_is_not_sent() -> None:
    person = Person("a")
    person.friends.append(person)
    assert problems(Person, person, encoding=True) == [("", "nested too deeply", "less nesting")]


# Schemas.


def test_the_schema_of_a_type_that_refers_to_itself() -> None:
    assert schema(Person) == {
        "$ref": "#/$defs/Person",
        "$defs": {
            "Person": {
                "type": "object",
                "description": "A person in a room.",
                "properties": {
                    "name": {"type": "string"},
                    "age": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
                    "friends": {"type": "array", "items": {"$ref": "#/$defs/Person"}},
                },
                "required": ["name"],
                "additionalProperties": False,
            }
        },
    }


def test_bounds_and_descriptions_in_a_schema() -> None:
    @dataclass
    class Described:
        text: Annotated[str, Bounds(min_length=1, max_length=9), "What is said."] = "x"
        numbers: Annotated[list[int], Bounds(max_length=3)] = field(default_factory=list)
        share: Annotated[float, Bounds(ge=0, lt=1)] = 0.5
        other: "Annotated[Person | None, annotated_types.doc('Who else.')]" = None
        point: Annotated[Point, "Where."] = field(default_factory=lambda: Point(0))

    made = schema(Described)["$defs"]
    assert made["Described"]["properties"] == {
        "text": {
            "type": "string", "minLength": 1, "maxLength": 9, "default": "x", "description": "What is said."
        },
        "numbers": {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
        "share": {"type": "number", "minimum": 0, "exclusiveMaximum": 1, "default": 0.5},
        "other": {
            "anyOf": [{"$ref": "#/$defs/Person"}, {"type": "null"}],
            "default": None,
            "description": "Who else.",
        },
        "point": {"allOf": [{"$ref": "#/$defs/Point"}], "description": "Where."},
    }  # fmt: skip
    assert "description" not in made["Described"]
    assert made["Point"] == {
        "type": "array",
        "items": [{"type": "integer", "title": "x"}, {"type": "integer", "title": "y", "default": 0}],
        "minItems": 1,
        "additionalItems": False,
    }


def test_two_types_of_one_name_stay_apart() -> None:
    def other() -> type:
        @dataclass
        class Person:
            number: int

        return Person

    made = schema(tuple[Person, other()])  # type: ignore[misc]
    assert made["items"] == [{"$ref": "#/$defs/Person"}, {"$ref": "#/$defs/Person_2"}]
    assert list(made["$defs"]["Person_2"]["properties"]) == ["number"]


def test_models_share_their_definitions() -> None:
    class Outer(pydantic.BaseModel):
        model: Model

    made = schema(tuple[Model, Outer, list[Model], Struct])
    assert set(made["$defs"]) == {"Model", "Color", "Outer", "Struct"}
    assert made["$defs"]["Outer"]["properties"]["model"] == {"$ref": "#/$defs/Model"}
    assert made["$defs"]["Struct"]["properties"]["data"] == {
        "type": "string", "format": "binary", "default": ""
    }  # fmt: skip


def test_tuples_of_models_are_of_draft_7() -> None:
    class Fixed(pydantic.BaseModel):
        pair: tuple[int, str]

    properties = schema(Fixed)["$defs"]["Fixed"]["properties"]
    assert properties["pair"]["items"] == [{"type": "integer"}, {"type": "string"}]
    assert "prefixItems" not in properties["pair"]


def test_a_model_has_a_schema_for_each_direction() -> None:
    class Both(pydantic.BaseModel):
        number: int = 1

        @pydantic.computed_field  # type: ignore[prop-decorator]
        @property
        def double(self) -> int:
            return 2 * self.number

    assert set(schema(Both)["$defs"]["Both"]["properties"]) == {"number"}
    assert set(schema(Both, outgoing=True)["$defs"]["Both"]["properties"]) == {"number", "double"}


def test_what_a_generated_type_is_called() -> None:
    class Pages(pydantic.BaseModel, Generic[T]):
        items: list[T]

    assert list(schema(Pages[int])["$defs"]) == ["Pages_int"]


# Any type, any value: what is taken is what the schema allows, and can be sent again.

LITERALS = [Literal["a"], Literal["a", 1, None], Literal[True], Color, Level]
SIMPLE = [str, int, float, bool, None, Any, *LITERALS]


def record(annotations: list[Any], required: int, *, as_dict: bool) -> Any:
    names = [f"f{i}" for i in range(len(annotations))]
    if as_dict:
        fields = {
            name: annotation if i < required else NotRequired[annotation]
            for i, (name, annotation) in enumerate(zip(names, annotations, strict=True))
        }
        return TypedDict("D", fields)  # type: ignore[operator]
    return dataclasses.make_dataclass(
        "C",
        [
            (name, annotation) if i < required else (name, annotation, field(default=None))
            for i, (name, annotation) in enumerate(zip(names, annotations, strict=True))
        ],
    )


def compound(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        inner.map(lambda item: list[item]),  # type: ignore[valid-type]
        inner.map(lambda item: tuple[item, ...]),  # type: ignore[valid-type]
        inner.map(lambda item: dict[str, item]),  # type: ignore[valid-type]
        several.map(lambda items: tuple[tuple(items)]),  # type: ignore[misc]
        st.tuples(inner, inner).map(lambda items: Union[(None, *items)]),
        st.builds(record, several, st.integers(0, 3), as_dict=st.booleans()),
    )


ANNOTATIONS = st.recursive(st.sampled_from(SIMPLE), compound, max_leaves=6)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "a", "red", "f0", "x"]), st.sampled_from([0, 1, 2, 1.0]),
)  # fmt: skip
KEYS = st.sampled_from(["f0", "f1", "f2", "x"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def values_of(annotation: Any) -> st.SearchStrategy[Any]:
    """Returns values that a type takes, made from its schema."""
    made = schema(annotation)
    return st.deferred(lambda: from_schema(made, made.get("$defs", {})))


def from_schema(made: dict[str, Any], definitions: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "$ref" in made:
        return from_schema(definitions[made["$ref"].removeprefix("#/$defs/")], definitions)
    if "allOf" in made:  # a reference with a default beside it
        (reference,) = made["allOf"]
        return from_schema(reference, definitions)
    if "anyOf" in made:
        return st.one_of([from_schema(one, definitions) for one in made["anyOf"]])
    if "enum" in made:
        return st.sampled_from(made["enum"])
    match made.get("type"):
        case "array" if isinstance(made.get("items"), list):
            return st.tuples(*(from_schema(one, definitions) for one in made["items"])).map(list)
        case "array":
            return st.lists(from_schema(made.get("items", {}), definitions), max_size=3)
        case "object" if "properties" in made:
            fields = {name: from_schema(one, definitions) for name, one in made["properties"].items()}
            required = set(made.get("required", ()))
            return st.fixed_dictionaries(
                {name: one for name, one in fields.items() if name in required},
                optional={name: one for name, one in fields.items() if name not in required},
            )
        case "object":
            return st.dictionaries(KEYS, from_schema(made["additionalProperties"], definitions), max_size=3)
        case None:
            return VALUES
        case type_:
            return {
                "string": st.text(max_size=3),
                "integer": st.integers(-(2**40), 2**40),
                "number": st.floats(allow_nan=False, allow_infinity=False),
                "boolean": st.booleans(),
                "null": st.none(),
            }[str(type_)]


@given(data=st.data())
def test_what_is_taken_is_what_the_schema_allows(data: st.DataObject) -> None:
    annotation = data.draw(ANNOTATIONS)
    value = data.draw(VALUES | values_of(annotation))
    allowed = jsonschema.Draft7Validator(schema(annotation)).is_valid(value)
    try:
        converted = convert(annotation, value)
    except InvalidDataError as error:
        assert not allowed
        assert error.problems
        assert all(isinstance(problem, Problem) and problem.path for problem in error.problems)
        return
    assert allowed
    try:
        encoded = encode(annotation, converted)
    except InvalidDataError:
        # A default need not be of the field's type: `None`, in `record`.
        assert value != converted
        return
    assert jsonschema.Draft7Validator(schema(annotation, outgoing=True)).is_valid(encoded)
    assert convert(annotation, encoded) == converted


@given(data=st.data())
def test_what_the_schema_allows_is_taken(data: st.DataObject) -> None:
    annotation = data.draw(ANNOTATIONS)
    convert(annotation, data.draw(values_of(annotation)))
