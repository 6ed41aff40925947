"""The AsyncAPI document of a Socket.IO server, with the official parser as its judge, and its page."""

import json
import re
import subprocess
from dataclasses import dataclass
from datetime import datetime
from html.parser import HTMLParser
from typing import Annotated, Any, Literal

import msgspec
import pydantic
import pytest
from playwright.async_api import async_playwright

from rfc6455_server import Server
from rfc6455_server.pages import add_pages
from rfc6455_server.socketio import Bounds, Socket, SocketIO
from rfc6455_server.testing import TestClient
from tests.server_helpers import BROWSER_ARGUMENTS, ROOT, find_program, need, serving
from tests.test_http import Answer, ask
from tests.test_socketio_server import Client

PARSER = ROOT / "tests" / "node" / "asyncapi"
AXE = ROOT / "tests" / "node" / "node_modules" / "axe-core" / "axe.min.js"


@dataclass
class ChatMessage:
    """What is said in a room."""

    text: Annotated[str, Bounds(min_length=1, max_length=2000), "The text <itself>."]
    sent: datetime
    answers: "list[ChatMessage] | None" = None


class Order(pydantic.BaseModel):
    size: Literal["small", "large"]
    pair: tuple[int, str] = (1, "x")


class Receipt(msgspec.Struct):
    number: int
    image: bytes = b""


def example() -> SocketIO:
    io = SocketIO()

    @io.on("connect")
    def connected(socket: Socket) -> None: ...

    @io.on("message")
    def message(socket: Socket, data: ChatMessage, times: int = 1) -> Receipt | None:
        """Says something in a room.

        It is sent to all & answered with a receipt.
        """

    @io.on("untyped")
    def untyped(socket, *args):  # type: ignore[no-untyped-def]
        pass

    @io.on("silent", ack=False)
    def silent(socket: Socket) -> None: ...

    @io.on("bounded")
    def bounded(
        socket: Socket,
        text: Annotated[str, Bounds(min_length=1, max_length=9)],
        share: Annotated[float, Bounds(ge=0, lt=1)],
    ) -> None: ...

    @io.emits("message")
    def told(data: ChatMessage) -> None:
        """Something was said."""

    @io.emits("question")
    def question(text: str, *others: bytes) -> tuple[int, str]:
        raise NotImplementedError

    shop = io.of("/shop/한글")

    @shop.on("order a pizza!")
    def order(socket: Socket, order: Order, *extras: Literal["cheese", "olives"]) -> tuple[Receipt, int]:
        raise NotImplementedError

    @shop.on("several")
    def first(socket: Socket, data: int) -> None:
        """The first."""

    @shop.on("several")
    def second(socket: Socket, data: Annotated[int, Bounds(ge=1)]) -> str:
        """The second."""
        return ""

    io.of("/only/untyped").on("x")(untyped)
    return io


def document(io: SocketIO, **options: Any) -> dict[str, Any]:
    return io.asyncapi(title="A chat", version="1.2.3", **options)


def parse(made: dict[str, Any]) -> dict[str, Any]:
    """Returns what the official parser makes of a document."""
    need("the AsyncAPI parser", (PARSER / "node_modules" / "@asyncapi" / "parser").is_dir())
    node = find_program("node")
    need("Node", node is not None)
    run = subprocess.run(
        [str(node), str(PARSER / "check.js")],
        input=json.dumps(made),
        capture_output=True,
        text=True,
        check=True,
        timeout=110,
    )
    parsed: dict[str, Any] = json.loads(run.stdout)
    return parsed


def resolve(made: dict[str, Any], reference: dict[str, str]) -> Any:
    part: Any = made
    for key in reference["$ref"].removeprefix("#/").split("/"):
        part = part[key]
    return resolve(made, part) if isinstance(part, dict) and "$ref" in part else part


def test_the_official_parser_accepts_the_document() -> None:
    made = document(
        example(),
        description="All that it says.",
        servers={"main": "wss://example.com", "a test": "ws://127.0.0.1:8765/behind/"},
    )
    parsed = parse(made)
    # Severity 0 is an error, 1 a warning. The others advise about licences, contacts and newer versions.
    assert [problem for problem in parsed["problems"] if problem["severity"] < 2] == []
    operations = {operation["id"]: operation for operation in parsed["operations"]}
    assert {id_: (one["action"], *one["channels"], *one["messages"]) for id_, one in operations.items()} == {
        "receive.main.message": ("receive", "/", "message"),
        "receive.main.untyped": ("receive", "/", "untyped"),
        "receive.main.silent": ("receive", "/", "silent"),
        "receive.main.bounded": ("receive", "/", "bounded"),
        "send.main.message": ("send", "/", "message"),
        "send.main.question": ("send", "/", "question"),
        "send.main.error": ("send", "/", "error"),
        "receive.shop.order_a_pizza": ("receive", "/shop/한글", "order a pizza!"),
        "receive.shop.several": ("receive", "/shop/한글", "several"),
        "send.shop.error": ("send", "/shop/한글", "error"),
        "receive.only_untyped.x": ("receive", "/only/untyped", "x"),
    }
    assert operations["receive.main.message"]["replies"] == ["Answer to message", "message was refused"]
    assert operations["receive.main.untyped"]["replies"] == ["Answer to untyped"]
    assert operations["receive.main.silent"]["replies"] == []
    assert operations["send.main.message"]["replies"] == []
    assert operations["send.main.question"]["replies"] == ["Answer to question"]


def test_the_parser_sees_what_is_wrong() -> None:
    made = document(example())
    made["operations"]["receive.main.message"]["channel"] = {"$ref": "#/channels/nowhere"}
    assert [problem for problem in parse(made)["problems"] if problem["severity"] == 0]


def test_an_empty_server_has_a_document() -> None:
    parsed = parse(document(SocketIO()))
    assert [problem for problem in parsed["problems"] if problem["severity"] < 2] == []
    assert parsed["operations"] == []


def test_the_servers() -> None:
    io = SocketIO(path="/events/")
    made = document(io, servers={"main": "wss://example.com", "a test": "ws://127.0.0.1:8765/behind/"})
    assert made["servers"] == {
        "main": {"host": "example.com", "protocol": "wss", "pathname": "/events/"},
        "a_test": {"host": "127.0.0.1:8765", "protocol": "ws", "pathname": "/behind/events/"},
    }
    for url in ("example.com", "/path", "wss://"):
        with pytest.raises(ValueError, match="not a URL"):
            document(io, servers={"main": url})


def payloads(made: dict[str, Any], operation_id: str) -> list[Any]:
    operation = made["operations"][operation_id]
    references = [*operation["messages"], *operation.get("reply", {}).get("messages", ())]
    return [resolve(made, reference)["payload"] for reference in references]


def test_the_payloads() -> None:
    made = document(example())
    chat_message = {"$ref": "#/components/schemas/ChatMessage"}
    receipt = {"$ref": "#/components/schemas/Receipt"}
    arguments, answer, error = payloads(made, "receive.main.message")
    assert arguments == {
        "type": "array",
        "items": [
            {"allOf": [chat_message], "title": "data"},
            {"type": "integer", "title": "times", "default": 1},
        ],
        "minItems": 1,
        "additionalItems": False,
    }
    assert answer == {
        "anyOf": [
            {"type": "array", "items": [receipt], "minItems": 1, "additionalItems": False},
            {"type": "array", "maxItems": 0},
        ]
    }
    assert error["items"][0]["properties"]["error"] == {"$ref": "#/components/schemas/Error"}
    assert payloads(made, "receive.main.untyped") == [
        {"type": "array", "items": {"title": "args"}},
        {"type": "array"},
    ]
    assert payloads(made, "receive.main.silent") == [{"type": "array", "maxItems": 0}]
    asked, answered = payloads(made, "send.main.question")
    assert asked == {
        "type": "array",
        "items": [{"type": "string", "title": "text"}],
        "minItems": 1,
        "additionalItems": {"type": "string", "format": "binary", "title": "others"},
    }
    assert answered["items"] == [{"type": "integer"}, {"type": "string"}]
    several, answers, _ = payloads(made, "receive.shop.several")
    assert [one["items"] for one in several["allOf"]] == [
        [{"type": "integer", "title": "data"}],
        [{"type": "integer", "title": "data", "minimum": 1}],
    ]
    assert answers == {
        "anyOf": [
            {"type": "array", "maxItems": 0},
            {"type": "array", "items": [{"type": "string"}], "minItems": 1, "additionalItems": False},
        ]
    }


def test_recovery_adds_an_argument() -> None:
    io = SocketIO(recovery=60)
    io.emits("none")(lambda: None)

    @io.emits("fixed")
    def fixed(text: str) -> None: ...

    @io.emits("any")
    def any_number(text: str, *numbers: int) -> None: ...

    made = document(io)
    none, one, many = (payloads(made, f"send.main.{name}")[0] for name in ("none", "fixed", "any"))
    offset = none["items"][0]
    assert offset["title"] == "offset"
    assert none == {"type": "array", "items": [offset], "minItems": 0, "additionalItems": False}
    assert one["items"] == [{"type": "string", "title": "text"}, offset]
    assert (one["minItems"], one["additionalItems"]) == (1, False)
    assert many["additionalItems"]["anyOf"] == [{"type": "integer", "title": "numbers"}, offset]
    assert [problem for problem in parse(made)["problems"] if problem["severity"] < 2] == []


async def test_dynamic_namespaces() -> None:
    io, server = SocketIO(), Server()
    rooms = io.of("/rooms/{name}/{number}")

    @rooms.on("say")
    def say(socket: Socket, text: str) -> None: ...

    @rooms.emits("said")
    def said(text: str) -> None: ...

    io.of(re.compile(r"/shop-\d{2}")).on("buy")(lambda socket: None)
    server.mount(io)
    async with TestClient(server) as test:
        client = await Client.open(test, namespace="/rooms/a/1")
        assert (await client.recv()).startswith("40/rooms/a/1,")
        made = document(io)  # its children are not shown
    channels = made["channels"]
    assert list(channels) == ["main", "rooms_name_number", "shop-_d_2"]
    assert channels["rooms_name_number"]["address"] == "/rooms/{name}/{number}"
    assert channels["rooms_name_number"]["parameters"] == {"name": {}, "number": {}}
    assert channels["shop-_d_2"]["address"] is None
    assert channels["shop-_d_2"]["title"] == r"/shop-\d{2}"
    parsed = parse(made)
    assert [problem for problem in parsed["problems"] if problem["severity"] < 2] == []
    assert [(one["action"], *one["messages"]) for one in parsed["operations"]] == [
        ("receive", "say"),
        ("send", "said"),
        ("send", "error"),
        ("receive", "buy"),
    ]
    titled(io)
    async with serving(server) as url:
        shown = Page((await get(url, "/events")).body.decode()).text
    assert "Namespace /rooms/{name}/{number}" in shown
    assert r"Namespace /shop-\d{2}" in shown


def test_descriptions_come_from_docstrings() -> None:
    made = document(example())
    operation = made["operations"]["receive.main.message"]
    assert operation["summary"] == "Says something in a room."
    message = resolve(made, operation["messages"][0])
    assert message["description"].endswith("answered with a receipt.")
    several = resolve(made, made["operations"]["receive.shop.several"]["messages"][0])
    assert several["description"] == "The first.\n\nThe second."
    assert made["components"]["schemas"]["ChatMessage"]["description"] == "What is said in a room."


def test_a_declared_error_takes_the_place_of_ours() -> None:
    io = example()

    @io.emits("error")
    def failed(text: str) -> None: ...

    made = document(io)
    (payload,) = payloads(made, "send.main.error")
    assert payload["items"] == [{"type": "string", "title": "text"}]
    assert "send.main.error_2" not in made["operations"]


def test_names_that_look_alike_stay_apart() -> None:
    io = SocketIO()
    for name in ("a b", "a_b", "a!b"):
        io.on(name)(lambda socket: None)
        io.of("/" + name)
        io.of(f"/{name}/")
    made = document(io)
    assert [key for key in made["operations"]] == [  # noqa: C416 - in this order
        "receive.main.a_b", "receive.main.a_b_2", "receive.main.a_b_3"
    ]  # fmt: skip
    assert len(made["channels"]) == 7
    assert [problem for problem in parse(made)["problems"] if problem["severity"] < 2] == []


# The page.


class Page(HTMLParser):
    """What a page is made of; fails for a tag that is not closed."""

    VOID = frozenset(("meta", "link"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert name in {"lang", "charset", "name", "content", "rel", "href", "class", "id"}
            if name == "id":
                self.ids.add(str(value))
            elif name == "href" and tag == "a":
                self.links.add(str(value))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def titled(io: SocketIO, path: str = "/events", **options: Any) -> None:
    io.serve_asyncapi(path, title="A <chat>", version="1", **options)


async def get(url: str, path: str) -> Answer:
    return await ask(url, f"GET {path} HTTP/1.1\nHost: a\n")


async def test_the_page_shows_all_events_both_ways() -> None:
    io, server = example(), Server()
    titled(io, description="Says & hears.")
    server.mount(io)
    async with serving(server) as url:
        answer = await get(url, "/events")
        assert (answer.status, answer.fields["content-type"]) == (200, "text/html; charset=utf-8")
        page = Page(answer.body.decode())
        assert "script" not in page.tags
        assert "A <chat> 1" in page.text
        assert "Says & hears." in page.text
        shown = "".join(page.text.split("\n"))
        for text in (
            "Namespace /shop/한글",
            "order a pizza!",
            "It is sent to all & answered with a receipt.",
            "data: ChatMessage",
            "times: integer, optional",
            "text: string, length at least 1, length at most 9",
            "share: number, at least 0, below 1",
            "any number of others: bytes",
            'any number of extras: "cheese" or "olives"',
            "Answer to questioninteger",
            "The text <itself>.",
            "Clients send",
            "The server sends",
        ):
            assert text in shown, text
        types = {link for link in page.links if link.startswith("#")}
        assert types == {"#type-ChatMessage", "#type-Receipt", "#type-Order", "#type-Error"}
        assert {link.removeprefix("#") for link in types} <= page.ids
        assert page.links - types == {"/events.json"}
        answer = await get(url, "/events.json")
        assert answer.fields["content-type"] == "application/json"
        made = json.loads(answer.body)
        assert made == io.asyncapi(title="A <chat>", version="1", description="Says & hears.")


async def test_the_page_leaves_out_namespaces_without_events() -> None:
    io, server = SocketIO(), Server()
    io.of("/silent")
    io.of("/loud").on("x")(lambda socket: None)
    titled(io)
    server.mount(io)
    async with serving(server) as url:
        body = (await get(url, "/events")).body
    assert b"/silent" not in body
    assert b"/loud" in body


async def test_the_page_shows_what_was_registered_last_and_can_be_added_late() -> None:
    io, server = SocketIO(), Server()
    server.mount(io)
    titled(io)
    async with serving(server) as url:
        assert b"late" not in (await get(url, "/events")).body
        io.on("late")(lambda socket: None)
        assert b"late" in (await get(url, "/events")).body
        assert b"late" in (await get(url, "/events.json")).body


def test_paths_of_the_page() -> None:
    for path in ("events", "/", ""):
        with pytest.raises(ValueError, match="not a path"):
            titled(SocketIO(), path)
    with pytest.raises(ValueError, match="not a URL"):
        titled(SocketIO(), servers={"main": "example.com"})


async def test_nothing_on_the_page_is_markup_of_others() -> None:
    evil = "<script>alert(1)</script>\"'&"
    io, server = SocketIO(), Server()

    @dataclass
    class Evil:
        text: Annotated[str, evil]
        choice: Literal["<script>alert(1)</script>"]

    Evil.__name__ = evil
    Evil.__doc__ = evil

    def handler(socket: Socket, data: Annotated[Evil, evil], choice: Literal["<b>"]) -> None:
        pass

    handler.__doc__ = evil
    io.of("/" + evil).on(evil)(handler)
    io.serve_asyncapi("/events", title=evil, version=evil, description=evil)
    server.mount(io)
    async with serving(server) as url:
        page = Page((await get(url, "/events")).body.decode())
    assert not {"script", "b"} & set(page.tags)
    assert page.text.count(evil) >= 6


async def test_the_page_in_chromium_has_its_style_and_breaks_no_rule_of_its_own() -> None:
    chromium = find_program("chromium", "chromium-browser", "google-chrome")
    need("Chromium", chromium is not None)
    need("axe-core", AXE.exists())
    io, server = example(), Server()
    titled(io)
    server.mount(io)
    async with serving(server) as url, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=BROWSER_ARGUMENTS)
        tab = await browser.new_page()
        said: list[str] = []
        tab.on("console", lambda message: said.append(message.text))
        await tab.goto(url.replace("ws", "http", 1) + "/events")
        assert said == []
        assert await tab.evaluate("getComputedStyle(document.querySelector('h4')).marginTop") == "4.8px"
        await tab.evaluate(AXE.read_text())
        assert (await tab.evaluate("axe.run()"))["violations"] == []
        await tab.get_by_role("link", name="Receipt").first.click()
        assert tab.url.endswith("/events#type-Receipt")
        # Whatever got into the page, nothing runs, and nothing is loaded.
        await tab.evaluate(
            """() => {
                const script = document.createElement("script");
                script.textContent = "window.ran = true";
                document.body.append(script);
                const style = document.createElement("style");
                document.body.append(style);
                style.textContent = "h4 { margin-top: 99px }";
            }"""
        )
        assert await tab.evaluate("window.ran") is None
        assert await tab.evaluate("getComputedStyle(document.querySelector('h4')).marginTop") == "4.8px"
        assert said
        assert all("Content Security Policy" in message for message in said)
        await browser.close()


# The pages of the command.


async def test_the_pages_describe_themselves() -> None:
    server = Server()
    io = add_pages(server)
    parsed = parse(document(io))
    assert [problem for problem in parsed["problems"] if problem["severity"] < 2] == []
    operations = {(one["action"], *one["channels"], *one["messages"]) for one in parsed["operations"]}
    for event in ("join", "say", "image", "direct", "typing"):
        assert ("receive", "/chat", event) in operations
    for event in ("message", "direct", "joined", "left", "typing"):
        assert ("send", "/chat", event) in operations
    async with serving(server) as url:
        assert "Namespace <code>/chat</code>" in (await get(url, "/events")).body.decode()
