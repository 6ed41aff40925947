"""What the annotations of handlers say: which handlers are checked, their arguments and their answers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jsonschema
import pytest

from rfc6455_server.socketio.typed.annotations import AnnotationError
from rfc6455_server.socketio.typed.definitions import Definitions
from rfc6455_server.socketio.typed.problems import InvalidDataError, Problem
from rfc6455_server.socketio.typed.signatures import Signature, read_signature, signature_of

if TYPE_CHECKING:
    from rfc6455_server.socketio import Socket


@dataclass
class Message:
    text: str


class Receipt(NamedTuple):
    number: int


def signature(handler: Callable[..., Any]) -> Signature:
    made = signature_of(handler)
    assert made is not None
    return made


def problems(work: Callable[[], object]) -> tuple[str, list[Problem]]:
    with pytest.raises(InvalidDataError) as caught:
        work()
    return caught.value.message, caught.value.problems


# Which handlers are checked.


async def bare(socket, *args):  # type: ignore[no-untyped-def]
    pass


async def only_the_socket(socket: Socket, data) -> None:  # type: ignore[no-untyped-def]
    pass


def anything(socket: Socket, data: Any, other: object = 1, *rest: Any, ack: Socket) -> Any:
    pass


def unknown(socket: Socket, data: Socket) -> None:
    pass


async def typed(socket: Socket, data: Message, times: int = 1) -> Receipt:
    return Receipt(times)


class Handlers:
    def method(self, socket: Socket, data: Message) -> None:
        pass

    @staticmethod
    def static(socket: Socket, data: Message) -> None:
        pass

    @classmethod
    def of_class(cls, socket: Socket, data: Message) -> None:
        pass

    async def __call__(self, socket: Socket, data: Message) -> None:
        pass


@functools.wraps(typed)
def wrapped(*args: Any) -> Any:
    return typed(*args)


def with_more(prefix: str, socket: Socket, data: Message, *, flag: bool) -> None:
    pass


@pytest.mark.parametrize("handler", [bare, only_the_socket, anything, print, dict.get])
def test_handlers_with_nothing_to_check(handler: Callable[..., Any]) -> None:
    assert signature_of(handler) is None


def test_a_first_argument_that_is_not_the_socket_alone_is_checked() -> None:
    def variable(*args: int) -> None: ...

    def result(socket: Socket) -> int:
        return 1

    def second(socket, data: int):  # type: ignore[no-untyped-def]
        pass

    class Methods:
        def named(self, socket: Socket) -> None: ...

        def second(self: Methods, socket: Socket, data: int) -> None: ...

        @staticmethod
        def bare(socket: Socket) -> None: ...

        @staticmethod
        def static(socket: Socket, data: int) -> None: ...

        @classmethod
        def of_class(cls: type[Methods], socket: Socket, data: int) -> None: ...

    made = Methods()
    assert signature_of(made.named) is None
    assert signature_of(made.bare) is None
    checked: list[Callable[..., Any]] = [variable, result, second, made.second, made.static, made.of_class]
    assert all(signature_of(handler) for handler in checked)


def test_a_name_that_only_type_checkers_know_is_an_error_unless_it_is_the_sockets() -> None:
    with pytest.raises(AnnotationError, match=r"^unknown: an annotation cannot be resolved: .*'Socket'"):
        signature_of(unknown)


@pytest.mark.parametrize(
    "handler",
    [
        Handlers().method,
        Handlers.static,
        Handlers.of_class,
        Handlers(),
        wrapped,
        functools.partial(with_more, "x", flag=True),
        functools.partial(Handlers.method, Handlers()),
        functools.partial(functools.partial(with_more, "x"), flag=True),
        functools.partialmethod(Handlers.method).__get__(Handlers()),
        lambda socket, data: None,
    ],
)
def test_every_kind_of_handler(handler: Callable[..., Any]) -> None:
    if getattr(handler, "__name__", "") == "<lambda>":
        assert signature_of(handler) is None
        handler.__annotations__["data"] = Message
    made = signature(handler)
    assert made.convert([{"text": "x"}]) == [Message("x")]
    assert problems(lambda: made.convert([1]))[1] == [("data", "got a number", "Message")]


def test_a_handler_that_takes_its_socket_among_the_others() -> None:
    def handler(*args: int) -> None: ...

    made = signature(handler)
    assert made.convert([1, 2]) == [1, 2]
    assert problems(lambda: made.convert([1, "2"]))[1] == [("args[1]", "got a string", "integer")]


def test_what_cannot_be_an_event() -> None:
    def number(socket: Socket, data: complex) -> None: ...
    def result(socket: Socket) -> complex:
        return 1j

    with pytest.raises(AnnotationError, match=r"number: its argument 'data': JSON has no values of complex"):
        signature_of(number)
    with pytest.raises(AnnotationError, match=r"result: its result: JSON has no values of complex"):
        signature_of(result)


# Arguments.


def test_arguments_are_converted_and_defaults_are_left_to_the_handler() -> None:
    made = signature(typed)
    assert made.convert([{"text": "x"}]) == [Message("x")]
    assert made.convert([{"text": "x"}, 3.0]) == [Message("x"), 3]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], [("data", "missing", "Message")]),
        ([{"text": 1}, "3"], [("data.text", "got a number", "string"), ("times", "got a string", "integer")]),
        ([{"text": "x"}, None], [("times", "got null", "integer")]),
        ([{"text": "x"}, 1, 2], [("arguments", "got 3", "2 arguments")]),
    ],
)
def test_all_that_is_wrong_is_reported(values: list[Any], expected: list[tuple[str, str, str]]) -> None:
    assert problems(lambda: signature(typed).convert(values)) == ("the arguments are wrong", expected)


def test_further_arguments() -> None:
    def handler(socket: Socket, first: str, *rest: int) -> None: ...

    made = signature(handler)
    assert made.convert(["a"]) == ["a"]
    assert made.convert(["a", 1, 2]) == ["a", 1, 2]
    assert problems(lambda: made.convert([1, 1, "2"]))[1] == [
        ("first", "got a number", "string"),
        ("rest[1]", "got a string", "integer"),
    ]


def test_a_handler_of_no_arguments_says_so() -> None:
    def handler(socket: Socket) -> int:
        return 1

    assert problems(lambda: signature(handler).convert([1]))[1] == [("arguments", "got 1", "0 arguments")]


def test_a_missing_argument_without_a_type_is_reported_too() -> None:
    def handler(socket: Socket, first, second: int) -> None: ...  # type: ignore[no-untyped-def]

    assert problems(lambda: signature(handler).convert([]))[1] == [
        ("first", "missing", "anything"),
        ("second", "missing", "integer"),
    ]


# Answers.


def answering(annotation: Any) -> Signature:
    def handler(socket: Socket, data: Message) -> Any: ...

    handler.__annotations__["return"] = annotation
    return signature(handler)


@pytest.mark.parametrize(
    ("annotation", "result", "values"),
    [
        (Message, Message("x"), ({"text": "x"},)),
        (Message | None, None, None),
        (None, None, None),
        (Receipt, Receipt(1), ([1],)),
        (tuple[int, Message], (1, Message("x")), (1, {"text": "x"})),
        (tuple[int, ...], (1, 2), (1, 2)),
        (tuple[int, str] | Message, (1, "x"), (1, "x")),
        (tuple[int, str] | Message, Message("x"), ({"text": "x"},)),
        (list[int], [1, 2], ([1, 2],)),
        (Any, (1, 2), (1, 2)),
        (Any, 1, (1,)),
        (Any, None, None),
    ],
)
def test_answers(annotation: Any, result: Any, values: tuple[Any, ...] | None) -> None:
    made = answering(annotation)
    assert made.answer(result) == values
    definitions = Definitions()
    schema = made.answer_schema(definitions, outgoing=True)
    whole = {**schema, "$defs": definitions.schemas}
    jsonschema.validate([*(values or ())], whole, jsonschema.Draft7Validator)
    if values is not None and annotation is not Any:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate([*values, "more", 1], whole, jsonschema.Draft7Validator)


@pytest.mark.parametrize(
    ("annotation", "result", "problem"),
    [
        (Message, {"text": "x"}, ("result", "got an object", "Message")),
        (Message, Message(1), ("result.text", "got a number", "string")),  # type: ignore[arg-type]
        (Message, None, ("result", "got null", "Message")),
        (None, 1, ("result", "got a number", "null")),
        (tuple[int, int], (1, "2"), ("result[1]", "got a string", "integer")),
    ],
)
def test_wrong_answers(annotation: Any, result: Any, problem: tuple[str, str, str]) -> None:
    made = answering(annotation)
    assert problems(lambda: made.answer(result)) == ("the result is wrong", [problem])


def test_an_answer_that_is_not_annotated_is_not_checked() -> None:
    def handler(socket: Socket, data: Message): ...  # type: ignore[no-untyped-def]

    assert signature(handler).answer({"any": "thing"}) == ({"any": "thing"},)


# Schemas.


def test_the_schema_of_arguments() -> None:
    def handler(socket: Socket, data: Message, times: int = 2, *rest: str) -> None: ...

    definitions = Definitions()
    schema = read_signature(handler, skip=1).arguments_schema(definitions, outgoing=False)
    assert schema == {
        "type": "array",
        "items": [
            {"allOf": [{"$ref": "#/$defs/Message"}], "title": "data"},
            {"type": "integer", "title": "times", "default": 2},
        ],
        "minItems": 1,
        "additionalItems": {"type": "string", "title": "rest"},
    }
    none = read_signature(lambda socket: None, skip=1).arguments_schema(definitions, outgoing=False)
    assert none == {"type": "array", "maxItems": 0}
    rest = read_signature(bare, skip=1).arguments_schema(definitions, outgoing=False)
    assert rest == {"type": "array", "items": {"title": "args"}}
