"""Handlers with annotations: what clients are told, and events that are declared with their types."""

import asyncio
import json
import logging
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import pytest
import socketio

from rfc6455_server import Server
from rfc6455_server.socketio import (
    Ack,
    AnnotationError,
    DisconnectedError,
    EventError,
    InvalidDataError,
    NamespaceHandlers,
    Socket,
    SocketIO,
    SocketTarget,
)
from rfc6455_server.socketio.registering import RegisteredHandler
from rfc6455_server.testing import settle
from tests.server_helpers import PATIENCE, serving
from tests.test_socketio_server import Client, Rig, rig


@dataclass
class ChatMessage:
    """What is said in a room."""

    text: str
    sent: datetime


@dataclass
class Receipt:
    number: int


SENT = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)
GOOD = {"text": "hello", "sent": "2026-11-24T12:30:00Z"}
BAD = {"text": 1, "sent": "2026-11-24T12:30:00Z"}


def refusal(*problems: tuple[str, str, str]) -> dict[str, Any]:
    keys = ("path", "reason", "expected")
    return {
        "error": {
            "code": "invalid",
            "message": "the arguments are wrong",
            "problems": [dict(zip(keys, problem, strict=True)) for problem in problems],
        }
    }


BAD_TEXT = refusal(("data.text", "got a number", "string"))
INTERNAL = {"error": {"code": "internal", "message": "internal error"}}


def typed_rig(made: Rig, result: Any = Receipt(7), **options: Any) -> list[Any]:  # noqa: B008 - not changed
    """Registers a handler of ``message``, and returns the list of its arguments."""
    taken: list[Any] = []

    @made.io.on("message", **options)
    async def message(socket: Socket, data: ChatMessage, times: int = 1) -> Receipt:
        taken.append((data, times))
        answer: Receipt = result
        return answer

    return taken


async def ask(client: Client, *arguments: Any) -> list[Any]:
    client.say("421" + json.dumps(["message", *arguments]))
    answer = await client.recv()
    assert answer.startswith("431"), answer
    values: list[Any] = json.loads(answer[3:])
    return values


async def test_arguments_are_converted_and_the_answer_is_encoded() -> None:
    async with rig() as made:
        taken = typed_rig(made)
        client = await made.client()
        assert await ask(client, GOOD) == [{"number": 7}]
        assert await ask(client, GOOD, 3) == [{"number": 7}]
        assert taken == [(ChatMessage("hello", SENT), 1), (ChatMessage("hello", SENT), 3)]


@pytest.mark.parametrize(
    ("arguments", "problems"),
    [
        ([BAD], [("data.text", "got a number", "string")]),
        ([], [("data", "missing", "ChatMessage")]),
        ([GOOD, "3"], [("times", "got a string", "integer")]),
        ([GOOD, 3, 4], [("arguments", "got 3", "2 arguments")]),
        (
            [{"txt": "x"}],
            [
                ("data.text", "missing", "string"),
                ("data.sent", "missing", "date-time"),
                ("data.txt", "unknown", "only fields of ChatMessage"),
            ],
        ),
    ],
)
async def test_the_acknowledgement_says_where_and_why(
    arguments: list[Any], problems: list[tuple[str, str, str]]
) -> None:
    async with rig() as made:
        taken = typed_rig(made)
        client = await made.client()
        assert await ask(client, *arguments) == [refusal(*problems)]
        assert taken == []
        assert await ask(client, GOOD) == [{"number": 7}]  # the client is still there


async def test_without_an_acknowledgement_an_event_says_where_and_why() -> None:
    async with rig() as made:
        taken = typed_rig(made)
        client = await made.client()
        client.say("42" + json.dumps(["message", BAD]))
        assert await client.event() == ["error", {"event": "message", **BAD_TEXT}]
        assert taken == []


async def test_a_refused_event_keeps_the_order_of_events() -> None:
    async with rig() as made:
        typed_rig(made)
        client = await made.client()
        for id_, data in enumerate([GOOD, BAD, GOOD]):
            client.say(f"42{id_}" + json.dumps(["message", data]))
        answers = [await client.recv() for _ in range(3)]
        assert [answer[:3] for answer in answers] == ["430", "431", "432"]
        assert [json.loads(answer[3:]) for answer in answers] == [
            [{"number": 7}],
            [BAD_TEXT],
            [{"number": 7}],
        ]


async def test_a_client_that_wants_an_answer_learns_of_a_refusal_whatever_the_handler_answers() -> None:
    async with rig() as made:
        typed_rig(made, ack=False)
        client = await made.client()
        assert await ask(client, BAD) == [BAD_TEXT]


async def test_a_refused_bytes_argument() -> None:
    async with rig() as made:

        @made.io.on("image")
        def image(socket: Socket, data: bytes) -> int:
            return len(data)

        client = await made.client()
        client.say('451-1["image",{"_placeholder":true,"num":0}]', b"abc")
        assert await client.recv() == "431[3]"
        client.say('421["image","abc"]')
        assert json.loads((await client.recv())[3:]) == [refusal(("data", "got a string", "bytes"))]


@pytest.mark.parametrize(
    "result", [{"number": 7}, None, Receipt("7"), Receipt(None), "secret"]  # type: ignore[arg-type]
)  # fmt: skip
async def test_a_wrong_answer_is_logged_and_not_sent(result: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with rig() as made:
        typed_rig(made, result)
        client = await made.client()
        assert await ask(client, GOOD) == [INTERNAL]
        (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert record.getMessage().startswith("wrong result of a handler id=")
        fields = record.__dict__["fields"]
        assert fields["handler"] == "message"
        path = "result.number" if isinstance(result, Receipt) else "result"
        assert fields["reason"].startswith(f"the result is wrong: {path}: got ")
        assert "secret" not in caplog.text


async def test_an_answer_that_cannot_be_sent_is_an_internal_error(caplog: pytest.LogCaptureFixture) -> None:
    async with rig() as made:

        @made.io.on("message")
        def message(socket: Socket, data: ChatMessage) -> Any:
            return object()

        client = await made.client()
        assert await ask(client, GOOD) == [INTERNAL]
        assert "JSON cannot represent object" in caplog.text


async def test_a_wrong_answer_that_nobody_asked_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with rig() as made:
        typed_rig(made, "wrong")
        client = await made.client()
        client.say("42" + json.dumps(["message", GOOD]), '42["end"]')
        await settle()
        assert "the result is wrong" in caplog.text
        made.io.emit("last")
        assert await client.event() == ["last"]  # and nothing before it


async def test_a_handler_that_fails_gives_no_answer_as_without_annotations(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with rig() as made:

        @made.io.on("message")
        async def message(socket: Socket, data: ChatMessage) -> Receipt:
            raise InvalidDataError("the handler's own", [])

        client = await made.client()
        client.say("421" + json.dumps(["message", GOOD]))
        await settle()
        assert "handler failed" in caplog.text
        made.io.emit("last")
        assert await client.event() == ["last"]


async def test_several_handlers_have_their_own_types() -> None:
    async with rig() as made:
        taken: list[Any] = []

        @made.io.on("number")
        def as_number(socket: Socket, data: int) -> None:
            taken.append(data)

        @made.io.on("number")
        def as_anything(socket: Socket, data: Any) -> None:
            taken.append(["any", data])

        client = await made.client()
        client.say('421["number","x"]')
        assert json.loads((await client.recv())[3:]) == [refusal(("data", "got a string", "integer"))]
        client.say('422["number",1]')
        assert await client.recv() == "432[]"
        assert taken == [["any", "x"], 1, ["any", 1]]


async def test_a_handler_that_answers_early() -> None:
    async with rig() as made:

        @made.io.on("message")
        async def message(socket: Socket, data: ChatMessage, *, ack: Ack) -> None:
            ack("queued")

        client = await made.client()
        assert await ask(client, GOOD) == ["queued"]
        assert await ask(client, BAD) == [BAD_TEXT]


async def test_handlers_of_one_socket_and_of_other_namespaces() -> None:
    async with rig() as made:

        @made.io.of("/other").on("connect")
        def connected(socket: Socket) -> None:
            @socket.on("message")
            def message(_: Socket, data: ChatMessage) -> date:
                return data.sent.date()

        client = await Client.open(made.test, namespace="/other")
        assert (await client.recv()).startswith("40/other,")
        client.say("42/other,1" + json.dumps(["message", GOOD]))
        assert await client.recv() == '43/other,1["2026-11-24"]'
        client.say("42/other," + json.dumps(["message", BAD]))
        error = await client.recv()
        assert json.loads(error.removeprefix("42/other,")) == ["error", {"event": "message", **BAD_TEXT}]


async def test_methods_of_a_class_and_children_of_a_dynamic_namespace() -> None:
    class Chat(NamespaceHandlers):
        async def on_message(self, socket: Socket, data: ChatMessage) -> Receipt:
            return Receipt(int(socket.namespace.parameters["id"]))

    async with rig() as made:
        made.io.register(Chat("/shop-{id}"))
        client = await Client.open(made.test, namespace="/shop-7")
        assert (await client.recv()).startswith("40/shop-7,")
        client.say(
            "42/shop-7,1" + json.dumps(["message", GOOD]), "42/shop-7,2" + json.dumps(["message", BAD])
        )
        assert await client.recv() == '43/shop-7,1[{"number":7}]'
        assert json.loads((await client.recv()).removeprefix("43/shop-7,2")) == [BAD_TEXT]


async def test_a_handler_that_refuses_by_its_own_rules() -> None:
    async with rig() as made:

        @made.io.on("message")
        async def message(socket: Socket, data: ChatMessage) -> Receipt:
            raise EventError("not now", {"until": "tomorrow"})

        client = await made.client()
        assert await ask(client, GOOD) == [{"error": {"message": "not now", "data": {"until": "tomorrow"}}}]


async def test_a_middleware_refuses_before_the_arguments_are_checked() -> None:
    async with rig() as made:
        typed_rig(made)
        client = await made.client()
        (socket,) = made.io.sockets.values()

        @socket.use
        def refuse(_: Socket, event: str, *args: Any) -> None:
            raise EventError("not now")

        assert await ask(client, BAD) == [{"error": {"message": "not now"}}]


async def test_a_handler_of_one_time_that_is_refused_is_removed() -> None:
    async with rig() as made:
        taken: list[int] = []

        @made.io.once("number")
        def number(socket: Socket, data: int) -> None:
            taken.append(data)

        client = await made.client()
        client.say('42["number","x"]', '42["number",1]')
        assert (await client.event())[0] == "error"
        await settle()
        assert taken == []


async def test_a_catch_all_sees_what_arrives() -> None:
    async with rig() as made:
        typed_rig(made)
        client = await made.client()
        await ask(client, BAD)
        assert made.handled == [["message", BAD]]


async def test_the_sockets_own_events_are_not_checked() -> None:
    async with rig() as made:

        @made.io.on("disconnecting")
        def ending(socket: Socket, reason: int, rooms: list[str]) -> bytes:  # wrong, and harmless
            made.handled.append([reason, rooms])
            return b""

        client = await made.client()
        client.say("41")
        await settle()
        ((reason, rooms),) = made.handled
        assert (reason, len(rooms)) == ("client namespace disconnect", 1)


def test_annotations_that_cannot_be_used_fail_when_the_handler_is_registered() -> None:
    io = SocketIO()

    def number(socket: Socket, data: complex) -> None:
        pass

    def unknown(socket: Socket, data: "Nowhere") -> None:  # type: ignore[name-defined]  # noqa: F821
        pass

    for register in (io.on("x"), io.once("x"), io.of("/other").on("x", concurrent=True)):
        for handler in (number, unknown):
            with pytest.raises(AnnotationError, match=handler.__name__):
                register(handler)
    assert io._main.handlers.by_event == {}


def test_handlers_without_annotations_cost_nothing() -> None:
    io = SocketIO()

    @io.on("bare")
    def bare(socket, data):  # type: ignore[no-untyped-def]
        pass

    @io.on("any")
    def anything(socket: Socket, *data: Any) -> None:
        pass

    @io.on("typed")
    def typed(socket: Socket, data: int) -> None:
        pass

    signatures = {name: one.signature for name, (one,) in io._main.handlers.by_event.items()}
    assert signatures["bare"] is signatures["any"] is None
    assert signatures["typed"] is not None
    assert RegisteredHandler(typed).signature is None


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_with_the_official_client(transport: str) -> None:
    io, server = SocketIO(), Server()
    server.mount(io)

    @io.on("message")
    async def message(socket: Socket, data: ChatMessage, image: bytes = b"") -> tuple[Receipt, bytes]:
        told.emit(socket, data)
        return Receipt(len(data.text)), image

    @io.emits("told")
    def told(data: ChatMessage) -> None: ...

    client = socketio.AsyncClient(reconnection=False)
    heard: asyncio.Queue[Any] = asyncio.Queue()
    for event in ("told", "error"):
        client.on(event, lambda data, event=event: heard.put_nowait((event, data)))
    async with serving(server) as url, asyncio.timeout(PATIENCE):
        await client.connect(url.replace("ws", "http", 1), transports=[transport])
        assert await client.call("message", (GOOD, b"png")) == ({"number": 5}, b"png")
        assert await heard.get() == ("told", {"text": "hello", "sent": "2026-11-24T12:30:00+00:00"})
        assert await client.call("message", BAD) == BAD_TEXT
        await client.emit("message", BAD)
        assert await heard.get() == ("error", {"event": "message", **BAD_TEXT})
        await client.disconnect()


# Events that are declared.


async def test_a_declared_event_is_encoded() -> None:
    async with rig() as made:

        @made.io.emits("message")
        def message(data: ChatMessage, times: int = 1) -> None:
            """A message in a room."""

        assert (message.name, message.description) == ("message", "A message in a room.")
        client = await made.client()
        message.emit(made.io, ChatMessage("hello", SENT))
        message.emit(made.io.to("nobody"), ChatMessage("unheard", SENT))
        (socket,) = made.io.sockets.values()
        message.emit(socket, data=ChatMessage("hello", SENT), times=2)
        encoded = {"text": "hello", "sent": "2026-11-24T12:30:00+00:00"}
        assert await client.event() == ["message", encoded, 1]
        assert await client.event() == ["message", encoded, 2]


async def test_a_declared_event_with_wrong_arguments_is_not_sent() -> None:
    async with rig() as made:

        @made.io.emits("message")
        def message(data: ChatMessage, times: int = 1) -> None: ...

        client = await made.client()
        with pytest.raises(InvalidDataError, match=r"the arguments are wrong: data.sent: no time zone"):
            message.emit(made.io, ChatMessage("hello", datetime(2026, 1, 1)))
        with pytest.raises(InvalidDataError, match="data: got a string"):
            message.emit(made.io, "hello")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="missing a required argument: 'data'"):
            message.emit(made.io)  # type: ignore[call-arg]
        made.io.emit("message", {"anything": "goes"})  # what is not declared here is not checked
        assert await client.event() == ["message", {"anything": "goes"}]


async def test_the_answer_to_a_declared_event_is_checked() -> None:
    async with rig() as made:

        @made.io.emits("question")
        def question(text: str) -> Receipt:
            raise NotImplementedError

        @made.io.emits("pair")
        def pair() -> tuple[int, str]:
            raise NotImplementedError

        client = await made.client()
        (socket,) = made.io.sockets.values()
        answers: list[Any] = []

        async def put(target: Socket | SocketTarget) -> None:
            try:
                answers.append(await question.emit_with_ack(target, "well?"))
            except (InvalidDataError, DisconnectedError) as error:
                answers.append(error)

        async def put_pair() -> None:
            answers.append(await pair.emit_with_ack(socket))

        async def asked() -> str:
            packet = await client.recv()
            return str(packet[2 : packet.index("[")])

        made.io.spawn(put(socket))
        client.say(f'43{await asked()}[{{"number":7}}]')
        await settle()
        made.io.spawn(put(socket.timeout(5)))
        client.say(f'43{await asked()}[{{"number":"7"}}]')
        await settle()
        made.io.spawn(put_pair())
        client.say(f'43{await asked()}[1,"x"]')
        await settle()
        assert answers[0] == Receipt(7)
        assert answers[1].problems == [("answer.number", "got a string", "integer")]
        assert str(answers[1]) == "the answer is wrong: answer.number: got a string, expected integer"
        assert answers[2] == (1, "x")


async def test_the_answers_of_many() -> None:
    async with rig() as made:

        @made.io.emits("question")
        def question(text: str) -> Receipt:
            raise NotImplementedError

        client = await made.client()
        got: list[Any] = []

        async def put() -> None:
            answers = await made.io.emit_with_ack(question.name, *question.encode("well?"))
            got.extend(map(question.convert_answer, answers))

        made.io.spawn(put())
        packet = await client.recv()
        assert packet.endswith('["question","well?"]')
        client.say("43" + packet[2 : packet.index("[")] + '[{"number":7}]')
        await settle()
        assert got == [Receipt(7)]


def test_declarations_that_cannot_be_made() -> None:
    io = SocketIO()
    declare = io.emits("message")
    declare(lambda: None)
    with pytest.raises(ValueError, match="already declared: message"):
        declare(lambda: None)
    io.of("/other").emits("message")(lambda: None)  # each namespace has its own
    with pytest.raises(ValueError, match="reserved event name: connect"):
        io.emits("connect")(lambda: None)

    def named(*, text: str) -> None: ...
    def keywords(**text: str) -> None: ...
    def number(data: complex) -> None: ...

    for declaration in (named, keywords):
        with pytest.raises(AnnotationError, match="x: events have no named arguments"):
            io.emits("x")(declaration)
    with pytest.raises(AnnotationError, match="number: its argument 'data'"):
        io.emits("x")(number)
