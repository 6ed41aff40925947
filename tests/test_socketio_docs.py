"""Runs the examples of docs/socketio.md, and checks its tables."""

import asyncio
import dataclasses
import inspect
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import engineio.base_server  # type: ignore[import-untyped]
import pytest
import socketio
from playwright.sync_api import Page, expect, sync_playwright

import rfc6455_server.socketio as exported
from rfc6455 import ClientHandshake
from rfc6455_server import HandshakeRejectedError, Server, connect
from rfc6455_server.limits import LimitOptions, Limits
from rfc6455_server.socketio import (
    ConnectError,
    EngineOptions,
    Handshake,
    Namespace,
    PacketOptions,
    Socket,
    SocketIO,
    SocketTarget,
    Target,
)
from rfc6455_server.socketio.clients import MAX_NAMESPACES
from rfc6455_server.socketio.handlers import EVENT_OVERHEAD
from rfc6455_server.socketio.inflow import MAX_PENDING, MAX_PENDING_BEFORE_ACK
from rfc6455_server.socketio.parents import MAX_CHILDREN
from rfc6455_server.socketio.reasons import RECOVERABLE
from rfc6455_server.socketio.recovery import DEFAULT_MAX_BYTES, MAX_LOST_SOCKETS
from rfc6455_server.testing import ManualClock, TestClient, settle
from rfc6455_server.websocket.outbox import MIN_PROGRESS
from tests.server_helpers import (
    BROWSER_ARGUMENTS,
    PATIENCE,
    ROOT,
    RawPeer,
    find_program,
    free_port,
    listens,
    need,
    serving,
    until,
)
from tests.test_socketio_server import Client, ask

DOCUMENT = (ROOT / "docs" / "socketio.md").read_text()
EXAMPLES: dict[str, str] = dict(
    re.findall(
        r"<!-- run by tests/test_socketio_docs.py: (\w+) -->\n```python\n(.*?)```", DOCUMENT, re.DOTALL
    )
)
NODE = ROOT / "tests" / "node" / "node_modules"

expect.set_options(timeout=PATIENCE * 1000)


def test_every_example_is_run() -> None:
    source = Path(__file__).read_text()
    assert len(EXAMPLES) == DOCUMENT.count("```python")
    for name in EXAMPLES:
        assert f'"{name}"' in source, name


def section(title: str) -> str:
    """Returns the text under a heading."""
    return DOCUMENT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def words(title: str) -> str:
    """Returns the text under a heading in one line."""
    return " ".join(section(title).split())


def table(title: str, *heads: str) -> list[list[str]]:
    """Returns the rows of the table with these heads in a section."""
    rows = section(title).split(f"| {' | '.join(heads)} |\n")[1].splitlines()[1:]
    cells = []
    for row in rows:
        if not row.startswith("|"):
            break
        cells.append([cell.strip() for cell in row.strip("|").split(" | ")])
    assert all(len(row) == len(heads) for row in cells)
    return cells


def test_links_lead_to_headings_and_files() -> None:
    anchors = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", DOCUMENT, re.MULTILINE)
    }
    links = re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", DOCUMENT)
    assert len(links) > len(anchors) / 2
    for file, anchor in links:
        if file:
            path = ROOT / "docs" / file
            assert path.exists(), file
            if anchor:
                headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
                assert anchor in {heading.lower().replace(" ", "-") for heading in headings}
        else:
            assert anchor in anchors, anchor


# The first example, in a browser.


@contextmanager
def running_chat(folder: Path) -> Iterator[str]:
    """Runs the chat with its page, in a folder as the text says."""
    (folder / "node_modules").symlink_to(NODE)
    (folder / "public").mkdir()
    for language, name in (("html", "index.html"), ("js", "chat.js")):
        (found,) = re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
        (folder / "public" / name).write_text(found)
    port = free_port()
    program = EXAMPLES["chat"].replace("8765", str(port))
    process = subprocess.Popen([sys.executable, "-c", program], cwd=folder, stderr=subprocess.PIPE)
    try:
        asyncio.run(until(lambda: process.poll() is not None or listens(port)))
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        _, log = process.communicate(timeout=30)
    assert process.returncode == 0
    assert log == b""


def test_the_chat_in_a_browser(tmp_path: Path) -> None:
    chromium = find_program("chromium", "chromium-browser", "google-chrome")
    need("Chromium", chromium is not None)
    need("the official client", (NODE / "socket.io-client").exists())
    picture = tmp_path / "picture.svg"
    picture.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    with running_chat(tmp_path) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=BROWSER_ARGUMENTS)
        problems: list[str] = []

        def enter(name: str, state: str) -> Page:
            page = browser.new_page()
            page.on("dialog", lambda dialog: dialog.accept(name))
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.goto(url)
            expect(page.locator("#state")).to_have_text(state)
            return page

        def say(page: Page, text: str) -> None:
            page.get_by_label("Message").fill(text)
            page.get_by_role("button", name="Send").click()

        enter("", "who are you?")
        ann, bob = enter("Ann", "online"), enter("Bob", "online")
        expect(ann.locator("#log")).to_contain_text("Bob has joined")
        expect(bob.locator("#log")).to_contain_text("here: Ann,Bob")
        say(ann, "hello <b>")
        for page in (ann, bob):
            expect(page.locator("#log li").last).to_have_text(
                re.compile(r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00 Ann: hello <b>$")
            )
        say(bob, "@Ann for you")
        expect(ann.locator("#log li").last).to_have_text("Bob, to you only: for you")
        ann.get_by_label("Image").set_input_files(picture)
        expect(bob.locator("#log img")).to_have_count(1)
        assert "to you only" not in bob.locator("#log").inner_text()
        # A lost connection: what is said meanwhile arrives later.
        ann.evaluate("socket.io.reconnectionDelay(2000), socket.io.engine.close()")
        expect(ann.locator("#state")).to_contain_text("offline: ")
        say(bob, "are you there?")
        expect(ann.locator("#state")).to_have_text("back")
        expect(ann.locator("#log li").last).to_contain_text("Bob: are you there?")
        expect(bob.locator("#log")).to_contain_text("Ann has left")
        expect(bob.locator("#log li").last).to_have_text("Ann has joined")
        bob.close()
        expect(ann.locator("#log li").last).to_have_text("Bob has left")
        browser.close()
    assert problems == []


# The other examples, in memory.


class Peer(Client):
    """A client in memory that speaks of events."""

    _asked = 0

    @classmethod
    async def enter(cls, test: TestClient, namespace: str = "/", **auth: object) -> "Peer":
        """Returns a client that is connected, or was refused: `answer` is what the server said."""
        peer = cls((await Client.open(test, auth=auth or None, namespace=namespace)).ws)
        peer.prefix = "" if namespace == "/" else namespace + ","
        peer.answer = await peer.recv()
        return peer

    prefix = ""
    answer = ""

    @property
    def settings(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.answer[self.answer.index("{") :])
        return found

    def emit(self, *event: object) -> None:
        self.say(f"42{self.prefix}{json.dumps(event)}")

    async def call(self, *event: object) -> list[Any]:
        """Sends an event and returns the values of the acknowledgement, which must come next."""
        self._asked += 1
        self.say(f"42{self.prefix}{self._asked}{json.dumps(event)}")
        answer = await self.recv()
        head = f"43{self.prefix}{self._asked}"
        assert answer.startswith(head + "["), answer
        values: list[Any] = json.loads(answer[len(head) :])
        return values

    async def heard(self) -> list[Any]:
        """Returns the next event."""
        message = await self.recv()
        assert message.startswith(f"42{self.prefix}["), message
        event: list[Any] = json.loads(message[2 + len(self.prefix) :])
        return event

    async def question(self) -> tuple[str, list[Any]]:
        """Returns the id and the event of the next question."""
        found = re.fullmatch(r"42(\d+)(\[.*)", await self.recv())
        assert found is not None
        return found[1], json.loads(found[2])


class Example:
    """An example of the page, in a server in memory. Its names are attributes."""

    def __init__(self, *names: str, **given: Any) -> None:
        self.clock = ManualClock()
        self.server = Server(clock=self.clock)
        self.names: dict[str, Any] = {
            "io": SocketIO(),
            "server": self.server,
            "SocketIO": SocketIO,
            "ConnectError": ConnectError,
            **given,
        }
        for name in names:
            exec(EXAMPLES[name], self.names)
        self.io: SocketIO = self.names["io"]
        if self.io._mounted_on is None:
            self.server.mount(self.io)
        self.test = TestClient(self.server, self.clock)

    def __getattr__(self, name: str) -> Any:
        return self.names[name]

    def socket(self, peer: Peer) -> Socket:
        return self.io.sockets[peer.settings["sid"]]


@asynccontextmanager
async def example(*names: str, **given: Any) -> AsyncIterator[Example]:
    made = Example(*names, **given)
    async with made.test:
        yield made


async def test_handlers(capsys: pytest.CaptureFixture[str]) -> None:
    found = asyncio.Event()

    async def slow_search(words: str) -> str:
        await found.wait()
        return words.upper()

    async with example("handlers", slow_search=slow_search, counts={}) as it:
        ann, bob = await Peer.enter(it.test), await Peer.enter(it.test)
        ann.emit("hello", "hi")
        ann.emit("hello", "again")
        ann.say('427["search","words"]')
        ann.emit("draw", 1, 2)
        assert await ann.heard() == ["hello", "hi"]
        assert await bob.heard() == ["draw", 1, 2]  # the search does not hold it up
        found.set()
        assert await ann.recv() == '437["WORDS"]'
        assert it.counts == {"hello": 2, "search": 1, "draw": 1, "sent": 2}
        it.io.off("draw", it.show)
        ann.emit("draw", 3, 4)
        sid = ann.settings["sid"]
        ann.say("41")
        await settle()
        assert capsys.readouterr().out == f"{sid} drew 2 times: client namespace disconnect\n"
        it.io.off("draw")
        bob.emit("draw", 5, 6)
        await settle()
        assert it.socket(bob).data["drawn"] == 0


def test_work_in_the_background() -> None:
    setting = """
import os, signal
from rfc6455_server import Server
from rfc6455_server.socketio import SocketIO

class Io(SocketIO):
    def emit(self, event, *args):
        print(event)
        os.kill(os.getpid(), signal.SIGTERM)

io, server = Io(), Server()
server.mount(io)
"""
    code = setting + EXAMPLES["background"].replace("8765", "0")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "time\ntime\n"  # the first signal drains, and the second ends the process
    assert done.stderr == "stopping at once\n"


def test_work_that_is_spawned_too_early_is_refused() -> None:
    async def work() -> None:
        pass

    coroutine = work()
    with pytest.raises(RuntimeError, match="started="):
        SocketIO().spawn(coroutine)
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


def test_what_targets_have() -> None:
    text = words("Rooms and targets")
    named = re.findall(
        r"`(\w+)`", text.partition("`socket.broadcast` give has ")[2].partition(". So has `io`")[0]
    )
    assert len(named) == 9
    assert all(has(Target, name) and has(SocketIO, name) and has(Namespace, name) for name in named)
    assert [name for name in named if has(Socket, name)] == named[:4]
    for name in ("join", "leave", "disconnect"):
        assert has(Socket, name)


async def test_acknowledgements() -> None:
    converted = asyncio.Event()

    async def slow_conversion(text: str) -> str:
        await converted.wait()
        return text.upper()

    async with example("acknowledgements", slow_conversion=slow_conversion) as it:
        ann, bob = await Peer.enter(it.test), await Peer.enter(it.test)
        assert await ann.call("save", "four") == [{"saved": 4}]
        assert await ann.call("convert", "x") == ["queued"]
        converted.set()
        assert await ann.heard() == ["converted", "X"]
        ann.say('429["typing"]')
        assert await bob.heard() == ["typing", ann.settings["sid"]]
        assert await ann.call("save", "") == [{"saved": 0}]  # "typing" had no answer


async def test_questions() -> None:
    async with example("questions") as it:
        ann, bob = await Peer.enter(it.test), await Peer.enter(it.test)
        asking = asyncio.create_task(it.ask_one(it.socket(ann)))
        id_, event = await ann.question()
        assert event == ["ready?"]
        ann.say(f'43{id_}["yes"]')
        assert await asking == "yes"
        asking = asyncio.create_task(it.ask_one(it.socket(ann)))
        await ann.question()
        await it.clock.advance(5)
        assert await asking == "no answer within 5 seconds"

        for peer in (ann, bob):
            it.socket(peer).join("room")
        asking = asyncio.create_task(it.ask_all("room"))
        for peer in (ann, bob):
            peer.say(f"43{(await peer.question())[0]}[1]")
        assert await asking == [1, 1]
        asking = asyncio.create_task(it.ask_all("room"))
        bob.say(f"43{(await bob.question())[0]}[2]")
        await it.clock.advance(5)
        assert await asking == [2]
        await ann.question()
        asking = asyncio.create_task(it.ask_one(it.socket(ann)))
        await ann.question()
        ann.say("41")
        assert await asking == "gone: client namespace disconnect"


async def test_a_handler_may_ask_its_own_client_while_events_wait() -> None:
    async with example() as it:

        @it.io.on("ask me")
        async def ask_me(socket: Socket) -> Any:
            return await socket.emit_with_ack("well?")

        ann = await Peer.enter(it.test)
        ann.say('421["ask me"]', '422["ask me"]')
        for number in (1, 2):
            id_, _ = await ann.question()
            ann.say(f"43{id_}[{number}]")
            assert await ann.recv() == f"43{number}[{number}]"


async def test_refusing() -> None:
    async with example("refusing") as it:
        stranger = await Peer.enter(it.test)
        assert stranger.answer == '44{"message":"who are you?","data":{"code":7}}'
        ann = await Peer.enter(it.test, token="s3cret")
        assert (await Peer.enter(it.test, token="s3cret")).answer == '44{"message":"full"}'
        assert await ann.call("delete") == [{"error": {"message": "not allowed"}}]
        error = {"message": "too many", "data": {"maximum": 10}}
        assert json.dumps({"error": error}) in words("Refusing")
        assert await ann.call("buy", 11) == [{"error": error}]
        assert await ann.call("buy", 1) == ["bought"]
        ann.emit("buy", 11)
        assert await ann.heard() == ["error", {"event": "buy", "error": error}]


async def test_rooms() -> None:
    async with example("rooms") as it:
        rooms = {"red": ["red"], "blue": ["blue"], "both": ["red", "blue"], "muted": ["red", "muted"]}
        peers = {name: await Peer.enter(it.test) for name in rooms}
        for name, peer in peers.items():
            for room in rooms[name]:
                peer.emit("join", room)
        await settle()
        it.announce("hello")
        for name, peer in peers.items():
            assert await peer.heard() == ["news", "hello"]
            if name != "muted":
                assert await peer.heard() == ["score", "hello"]
        peers["blue"].emit("say", "red", "not heard")
        peers["both"].emit("say", "red", "hello")
        assert await peers["red"].heard() == ["said", "hello"]
        assert await peers["muted"].heard() == ["said", "hello"]  # and no score before
        it.close_game("blue")
        assert await peers["blue"].heard() == ["game over"]
        assert set(it.io.rooms) == {"red", "muted", "lobby"}
        lobby = it.io.rooms["lobby"]
        lobby.join(it.socket(peers["blue"]), show={"name": "Ann"})
        assert lobby.presence[peers["blue"].settings["sid"]] == {"name": "Ann"}
        it.io.to("lobby").emit("here")
        assert await peers["blue"].heard() == ["here"]
        assert await peers["both"].heard() == ["game over"]
        assert await peers["both"].heard() == ["left", peers["blue"].settings["sid"]]
        assert await peers["both"].heard() == ["here"]
        it.dismiss(peers["both"].settings["sid"])
        assert await peers["both"].recv() == "41"
        assert await peers["red"].heard() == ["left", peers["both"].settings["sid"]]


@pytest.mark.parametrize(
    ("target", "reached"),
    [
        ("io", "xyz"),
        ("io.to('a', 'b')", "xy"),
        ("io.in_('a', 'b')", "xy"),
        ("io.to(*[])", ""),
        ("io.to('a').except_('b')", "x"),
        ("socket", "x"),
        ("socket.broadcast", "yz"),
        ("socket.to('a')", "y"),
    ],
)
async def test_targets(target: str, reached: str) -> None:
    shown = re.findall(r"`([^`]*)`", str(table("Rooms and targets", "target", "reaches")))
    assert target.replace("'", '"').replace("in_", "to") in shown
    async with example() as it:
        peers = {name: await Peer.enter(it.test) for name in "xyz"}
        it.socket(peers["x"]).join("a")
        it.socket(peers["y"]).join("a", "b")
        it.names["socket"] = it.socket(peers["x"])
        eval(target, it.names).emit("event")
        it.io.emit("end")
        heard = ""
        for name, peer in peers.items():
            while (await peer.heard()) != ["end"]:
                heard += name
        assert heard == reached


async def test_the_engine() -> None:
    async with example("engine") as it:
        ws = await it.test.connect("/engine.io/?EIO=4&transport=websocket")
        assert str(await ws.recv()).startswith("0{")
        await ws.send("4hello")
        assert await ws.recv() == "4hello"


async def test_policies() -> None:
    async with example("policies") as it:
        assert it.io.rooms["news"].policy == "drop_oldest"
        assert it.io.rooms["chat-7"].policy == "drop_newest"
        ann, bob = await Peer.enter(it.test), await Peer.enter(it.test)
        socket = it.socket(bob)
        socket.join("arena")
        it.test.transports[1].pause_reading()
        for number in range(30):
            ann.emit("move", number, 0)
            ann.emit("cursor", number, 0)
            it.io.to("arena").emit("fill", "x" * 20_000)
            await settle()
        assert socket.dropped > 10
        it.test.transports[1].resume_reading()
        it.io.emit("end")
        moves, cursors, fills = [], [], 0
        while (event := await bob.heard()) != ["end"]:
            moves += [event[2]] if event[0] == "move" else []
            cursors += [event[1]] if event[0] == "cursor" else []
            fills += event[0] == "fill"
        assert fills == 30  # the default drops nothing
        assert moves[-1] == 29
        assert len(moves) < 29
        assert cursors[-1] < 29

        assert await ann.heard() == ["end"]
        ann.emit("download")
        assert await ann.recv() == '451-["part",0,{"_placeholder":true,"num":0}]'
        assert len(await ann.recv()) == 100_000
        for part in range(1, 100):
            assert (await ann.recv()).startswith(f'451-["part",{part},')
            await ann.recv()


async def test_namespaces() -> None:
    async with example("namespaces") as it:
        assert "admins only" in (await Peer.enter(it.test, "/admin")).answer
        admin = await Peer.enter(it.test, "/admin", token="s3cret")
        user = await Peer.enter(it.test)
        admin.emit("dismiss", user.settings["sid"])
        assert await user.recv() == "41"
        one, other, elsewhere = [await Peer.enter(it.test, f"/shops/{id_}") for id_ in (7, 7, 8)]
        one.say('42/shops/7,1["order","tea"]')
        for peer in (one, other):
            assert await peer.heard() == ["ordered", "tea"]
        assert await one.recv() == '43/shops/7,1["7"]'
        it.shops.emit("all")
        assert await elsewhere.heard() == ["all"]
        assert {"/", "/admin", "/shops/7", "/shops/8"} == set(it.io.namespaces)
        for peer in (one, other):
            peer.say("41/shops/7")
        await settle()
        assert "/shops/7" not in it.io.namespaces
        assert f"`max_children` ({MAX_CHILDREN:,})" in DOCUMENT


async def test_a_namespace_by_pattern() -> None:
    async with example() as it:
        (pattern,) = re.findall(r"`(io\.of\(re\.[^`]*)`", DOCUMENT)
        shops = eval(pattern, {"io": it.io, "re": re})
        shops.on("which")(lambda socket: socket.namespace.parameters["id"])
        assert await (await Peer.enter(it.test, "/shops/12")).call("which") == ["12"]
        assert "Invalid namespace" in (await Peer.enter(it.test, "/shops/x")).answer


async def test_classes() -> None:
    async with example("classes") as it:
        ann = await Peer.enter(it.test, "/game")
        assert ann.answer == '42/game,["moves",0]' or await ann.heard() == ["moves", 0]
        ann.emit("move", 1, 2)
        assert await ann.heard() == ["moves", 1]
        assert await ann.call("new game") == []
        ann.emit("move", 1, 2)
        assert await ann.heard() == ["moves", 1]


async def get(url: str, target: str, fields: str = "") -> tuple[bytes, bytes]:
    """Sends a request; returns the head and the body of the answer."""
    peer = await RawPeer.connect(url)
    peer.writer.write(f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n".encode())
    head, _, body = (await peer.read_to_end()).partition(b"\r\n\r\n")
    await peer.close()
    return head, body


async def test_types() -> None:
    async with example("types") as it:
        ann, bob = await Peer.enter(it.test), await Peer.enter(it.test)
        assert await ann.call("message", {"text": "hello"}) == [{"number": 7}]
        assert await bob.heard() == ["said", {"text": "hello", "kind": "text", "sent": None}]
        (shown,) = re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
        error = json.loads(shown)
        assert await ann.call("message", {"text": 5}) == [error]
        ann.emit("message", {"text": 5})
        assert await ann.heard() == ["error", {"event": "message", **error}]
        document = it.io.asyncapi(title="Chat", version="1.0")
        assert document["asyncapi"].startswith("3.")
    it = Example("types")
    async with serving(it.server) as url:
        for path, start in (("/events", b"<!doctype html>"), ("/events.json", b"{")):
            head, body = await get(url, path)
            assert head.startswith(b"HTTP/1.1 200 ")
            assert body.lower().startswith(start)
            assert b"Somebody has said something." in body


async def test_authentication() -> None:
    async with example("authentication") as it:
        assert "who are you?" in (await Peer.enter(it.test)).answer
        ann = await Peer.enter(it.test, token="s3cret")
        assert it.socket(ann).data["user"] == "Ann"
    it = Example("authentication")
    async with serving(it.server) as url:
        for options, user in (({"auth": {"token": "s3cret"}}, "Ann"), ({"headers": BEARER}, "Bob")):
            for transport in ("polling", "websocket"):
                client = socketio.AsyncClient(reconnection=False)
                await client.connect(url, transports=[transport], **options)
                assert it.io.sockets[client.get_sid()].data["user"] == user
                await client.disconnect()
        path, blocked = "/socket.io/?EIO=4&transport=", ("X-Blocked", "1")
        head, _ = await get(url, path + "polling", ": ".join(blocked) + "\r\n")
        assert head.startswith(b"HTTP/1.1 403 ")
        with pytest.raises(HandshakeRejectedError) as caught:
            await connect(url + path + "websocket", headers=[blocked])
        assert caught.value.response.status == 403


BEARER: Final = {"Authorization": "Bearer secret2"}


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("one", ["https://app.example"], ["https://other.example", "http://app.example"]),
        ("several", ["https://app.example", "https://x.example"], ["https://x1.example"]),
        ("any_origin", ["https://anything.test"], []),
        ("decided", ["https://a.example"], ["https://a.test"]),
    ],
)
async def test_cors(name: str, allowed: list[str], refused: list[str]) -> None:
    names: dict[str, Any] = {"SocketIO": SocketIO}
    exec(EXAMPLES["cors"], names)
    server = Server()
    server.mount(names[name])
    async with serving(server) as url:
        for origin, status in [*((one, 200) for one in allowed), *((one, 403) for one in refused)]:
            answer = await ask(url, "EIO=4&transport=polling", headers=f"Origin: {origin}\r\n")
            assert answer.status == status, origin
        assert (await ask(url, "EIO=4&transport=polling")).status == 200


async def test_recovery() -> None:
    async with example("recovery", messages=[f"old {number}" for number in range(60)]) as it:
        ann, bob = await Peer.enter(it.test), await Peer.enter(it.test)
        for peer in (ann, bob):
            if peer.answer.startswith("40"):
                await peer.heard()
        sids = list(it.io.sockets)
        ann.emit("message", "first")
        first = await bob.heard()
        assert first[:2] == ["message", "first"]
        pid = it.io.sockets[sids[1]].private_id
        it.test.transports[1].abort()
        await settle()
        for number in range(100):
            ann.emit("message", number)
        it.io.to("lobby").volatile.emit("volatile")
        await settle()
        bob = await Peer.enter(it.test, pid=pid, offset=first[-1])
        assert bob.settings["sid"] == sids[1]
        assert [(await bob.heard())[:2] for _ in range(100)] == [["message", number] for number in range(100)]
        ann.emit("message", "live")
        assert (await bob.heard())[:2] == ["message", "live"]
        # Too late: a new client, which is shown the history.
        it.test.transports[-1].abort()
        await it.clock.advance(121)
        bob = await Peer.enter(it.test, pid=pid, offset=first[-1])
        history = json.loads(bob.answer[2:]) if bob.answer.startswith("42") else await bob.heard()
        assert len(history[1]) == 50
        assert sids[1] not in it.io.sockets


async def test_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    it = Example("options")
    async with serving(it.server) as url:
        async with connect(url + "/chat/?EIO=4&transport=websocket") as ws:
            assert str(await ws.recv()).startswith('0{"sid":')
        peer = await RawPeer.connect(url)
        peer.writer.write(ClientHandshake("a", "/chat/?EIO=4&transport=websocket").data_to_send())
        head = await peer.reader.readuntil(b"\r\n\r\n")
        assert b"\r\nX-Version: 7\r\n" in head
        assert re.search(rb"Set-Cookie: chat=\S+; .*Secure", head)
        await peer.close()
        _, body = await get(url, "/chat/?EIO=4&transport=polling")
        assert body == b'{"code":0,"message":"Transport unknown"}'
    assert capsys.readouterr().out == "0 Transport unknown\n"


async def test_stopping() -> None:
    saved = []

    async def save(data: object) -> None:
        saved.append(data)

    async with example("stopping", save=save) as it:
        ann = await Peer.enter(it.test)
        it.socket(ann).data["x"] = 1
        draining = asyncio.create_task(it.server.drain(5))
        await it.clock.advance(5)
        await draining
    assert saved == [{"x": 1}]


async def test_paths() -> None:
    it = Example("paths")
    async with serving(it.server) as url:
        for io, path in ((it.chat, "/chat/"), (it.game, "/game/")):
            client = socketio.AsyncClient(reconnection=False)
            await client.connect(url, socketio_path=path)
            assert list(io.sockets) == [client.get_sid()]
            await client.disconnect()


def test_the_test() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXAMPLES["testing"]], capture_output=True, text=True, check=True
    )
    assert done.stdout == "ping timeout\n"
    assert "It prints `ping timeout`." in DOCUMENT


# What is bounded, and the tables.


def test_the_figures_are_those_of_the_code() -> None:
    limits = Limits()
    bounded, lost = words("What is bounded"), words("Lost connections")
    assert limits.max_queue == 1 << 20
    assert "`max_queue` (1 MiB)" in bounded
    assert f"`send_timeout` ({limits.send_timeout:g} s)" in bounded
    assert f"takes {MIN_PROGRESS >> 10} KiB or more" in bounded
    assert f"`max_total_queue` ({limits.max_total_queue >> 20} MiB)" in bounded
    assert MAX_PENDING == 1 << 20
    assert "more than 1 MiB of them waits" in bounded
    assert f"each counts {EVENT_OVERHEAD} bytes" in bounded
    assert f"up to {MAX_PENDING_BEFORE_ACK >> 20} MiB are read" in bounded
    assert f"at most {MAX_NAMESPACES} namespaces" in bounded
    assert f"`recovery_bytes` ({DEFAULT_MAX_BYTES >> 20} MiB" in lost
    assert f"at most {MAX_LOST_SOCKETS:,} clients" in lost


def test_the_limits_have_these_defaults() -> None:
    limits = Limits()
    for option, default, _ in table("What is bounded", "option", "default", "limits"):
        value = getattr(limits, option.strip("`"))
        assert option.strip("`") in LimitOptions.__annotations__
        shown = {"none": None, "1 MiB": 1 << 20, "256 MiB": 256 << 20, "20 s": 20.0, "60 s": 60.0}
        assert value == (shown[default] if default in shown else int(default.replace(",", "")))


def defaults() -> dict[str, Any]:
    """Returns the options of `SocketIO`, with their defaults."""
    own = inspect.signature(SocketIO).parameters.values()
    found = {one.name: one.default for one in own if one.kind is inspect.Parameter.KEYWORD_ONLY}
    for options in (EngineOptions, PacketOptions):
        fields = dataclasses.fields(options)
        found = {**{field.name: field.default for field in fields}, **found}
    return found


def test_the_options_have_these_defaults() -> None:
    rows = table("Options", "option", "default", "in Node", "its default")
    assert {option.strip("`"): eval(default.strip("`")) for option, default, *_ in rows} == defaults()


REASONS: Final = {reason.strip("`"): later for reason, _, later in table(
    "Why a socket ended", "reason", "when", "may be recovered"
)}  # fmt: skip


async def end(reason: str, it: Example, peer: Peer) -> None:
    """Ends a socket for a reason."""
    match reason:
        case "client namespace disconnect":
            peer.say("41")
        case "server namespace disconnect":
            it.io.disconnect_sockets(close=True)
        case "transport close":
            peer.ws.abort()
        case "parse error":
            peer.say("42[")
        case "ping timeout":
            await it.clock.advance(45)
        case "too slow":
            it.test.transports[0].pause_reading()
            for _ in range(30):
                it.io.emit("event", "x" * 100_000)
                await settle()
            await it.clock.advance(21)
        case "server shutting down":
            it.io.close()
    await settle()


@pytest.mark.parametrize("reason", [reason for reason in REASONS if reason != "transport error"])
async def test_the_reasons(reason: str) -> None:
    reasons = []
    io = SocketIO(recovery=1000, ping_interval=25, ping_timeout=20)
    io.on("disconnect")(lambda _, why: reasons.append(why))
    io.on("event")(lambda _: None)
    async with example(io=io) as it:
        peer = await Peer.enter(it.test)
        socket = it.socket(peer)
        await end(reason, it, peer)
        assert reasons == [reason]
        assert socket.closed is not None
        assert socket.closed.reason == reason
        assert io._main.recovery is not None
        assert io._main.recovery.has_lost(it.clock.time()) is (REASONS[reason] == "yes")


async def test_the_reason_of_polling() -> None:
    reasons = []
    io = SocketIO(max_payload=1000)
    io.on("disconnect")(lambda _, why: reasons.append(why))
    server = Server()
    server.mount(io)
    async with serving(server) as url:
        opening = json.loads((await ask(url, "EIO=4&transport=polling")).body[1:])
        query = f"EIO=4&transport=polling&sid={opening['sid']}"
        await ask(url, query, "POST", b"40")
        await until(lambda: io.sockets)
        assert (await ask(url, query, "POST", b"4" * 2000)).status == 413
        await until(lambda: reasons)
    assert reasons == ["transport error"]
    assert "transport error" in REASONS


def test_all_reasons_after_which_a_client_may_be_recovered_are_listed() -> None:
    # "forced close" ends sessions that have no socket.
    assert {reason for reason, later in REASONS.items() if later == "yes"} == RECOVERABLE - {"forced close"}


# The tables of other servers.

OWNERS: Final[dict[str, type]] = {
    "io": SocketIO,
    "namespace": Namespace,
    "target": Target,
    "socket": Socket,
    "handshake": Handshake,
    "server": Server,
}


def has(owner: type, name: str) -> bool:
    """Whether the objects of a class have a public attribute, also one that its ``__init__`` sets."""
    if name.startswith("_"):
        return False
    if hasattr(owner, name):
        return True
    sources = [inspect.getsource(cls) for cls in owner.__mro__ if cls.__module__.startswith("rfc6455_server")]
    return any(re.search(rf"^        self\.{name}\b[^=\n]* = ", source, re.MULTILINE) for source in sources)


def check_ours(cell: str) -> int:
    """Checks that what a cell names exists; returns how many names it has."""
    names = 0
    for code in re.findall(r"`([^`]+)`", cell):
        first, *more = re.sub(r"^len\(|\([^()]*\)|\)$", "", code).split(".")
        if option := re.match(r"(SocketIO|Server)\((\w+)=", code):
            expected = defaults() if option[1] == "SocketIO" else inspect.signature(Server).parameters
            assert option[2] in expected, code
        elif first in OWNERS:
            owner = OWNERS[first]
            for name in more:
                assert has(owner, name), f"{code}: {name}"
                owner = Target if name in ("to", "everybody", "except_") else SocketTarget
        elif code[0].isupper():
            assert code in exported.__all__, code
        else:
            continue
        names += 1
    return names


@pytest.mark.parametrize(
    ("title", "head"), [("From Node's server", "Node"), ("From python-socketio", "python-socketio")]
)
def test_what_the_tables_name_exists(title: str, head: str) -> None:
    rows = table(title, head, "ours")
    for theirs, ours in rows:
        assert check_ours(ours) or re.match("none|handler of", ours), theirs
    assert len({theirs for theirs, _ in rows}) == len(rows)


def test_a_name_that_does_not_exist_is_noticed() -> None:
    for wrong in ("`io.emitt`", "`socket.to(room).joined`", "`SocketIO(corss=…)`", "`ConnectErrorr`"):
        with pytest.raises(AssertionError):
            check_ours(wrong)


def node_members() -> set[str]:
    """Returns the public calls and options of Node's server, from its declarations."""
    need("socket.io", (NODE / "socket.io").exists())
    found = set()
    classes = {
        ("socket.io/dist/index.d.ts", "class Server"): "io.",
        ("socket.io/dist/namespace.d.ts", "class Namespace"): "nsp.",
        ("socket.io/dist/parent-namespace.d.ts", "class ParentNamespace"): "io.of(…).",
        ("socket.io/dist/socket.d.ts", "class Socket"): "socket.",
        ("socket.io/dist/broadcast-operator.d.ts", "class BroadcastOperator"): "target.",
        ("socket.io/dist/broadcast-operator.d.ts", "class RemoteSocket"): "remote.",
        ("socket.io/dist/socket-types.d.ts", "interface Handshake"): "handshake.",
        ("socket.io/dist/index.d.ts", "interface ServerOptions"): "option ",
        ("engine.io/build/server.d.ts", "interface AttachOptions"): "option ",
        ("engine.io/build/server.d.ts", "interface ServerOptions"): "option ",
    }
    for (file, name), prefix in classes.items():
        text = re.sub(r"/\*.*?\*/", "", (NODE / file).read_text(), flags=re.DOTALL)
        body = re.split(rf"{name}\b", text)[1].split("\n}")[0]
        members = re.findall(r"^    (?:readonly |get )?([a-z]\w*)\??[(:<]", body, re.MULTILINE)
        assert members, name
        inherited = ("constructor", "emit", "fetchSockets") if "Parent" in name else ("constructor",)
        found |= {prefix + member for member in members if member not in inherited}
    return found


def test_every_call_of_node_is_in_the_table() -> None:
    listed = set()
    for theirs, _ in table("From Node's server", "Node", "ours"):
        option = "option " if theirs.startswith("option ") else ""
        calls = re.findall(r"`([^`]+)`", theirs)
        listed |= {option + re.sub(r"\([^()]*\)$", "", call) for call in calls}
    assert node_members() - listed == set()


def test_every_call_of_python_socketio_is_in_the_table() -> None:
    calls: set[str] = set()
    options: set[str] = set()
    for theirs, _ in table("From python-socketio", "python-socketio", "ours"):
        for code in re.findall(r"`([^`]+)`", theirs):
            (options if theirs.startswith("option ") else calls).add(code.split("(")[0].split(".")[-1])
    for owner in (socketio.AsyncServer, socketio.AsyncNamespace):
        members = {name for name, _ in inspect.getmembers(owner, callable) if not name.startswith("_")}
        assert members - calls == set()
    parameters = {
        *inspect.signature(socketio.AsyncServer.__init__).parameters,
        *inspect.signature(socketio.server.base_server.BaseServer.__init__).parameters,
        *inspect.signature(engineio.base_server.BaseServer.__init__).parameters,
    } - {"self", "kwargs"}
    assert parameters - options == set()
