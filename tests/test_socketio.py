"""The Socket.IO server with the official clients: Node's, Python's, and the browser's bundle in Chromium."""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import socketio
from playwright.async_api import async_playwright

from rfc6455_server import Server
from rfc6455_server.socketio import AckTimeoutError, ConnectError, Socket, SocketIO
from rfc6455_server.testing import ManualClock
from tests.server_helpers import (
    BROWSER_ARGUMENTS,
    PATIENCE,
    ROOT,
    find_program,
    need,
    serving,
    until,
)
from tests.socketio_relay import Relay

NODE = ROOT / "tests" / "node"
TRANSPORTS = {
    "default": {},
    "websocket": {"transports": ["websocket"]},
    "polling": {"transports": ["polling"]},
}


def chat_server(clock: ManualClock | None = None, **options: Any) -> tuple[Server, SocketIO]:
    """Returns the server that `node/socketio.js` and the other clients' tests talk to."""
    io = SocketIO(**{"max_payload": 2 << 20, **options})
    server = Server(clock=clock)
    server.mount(io)

    @io.use
    async def check(socket: Socket) -> None:
        if socket.handshake.auth.get("token") != "s3cret":
            raise ConnectError("who are you?", {"code": 7})

    @io.on("echo")
    async def echo(socket: Socket, *args: Any) -> Any:
        return list(args)

    @io.on("several")
    async def several(socket: Socket) -> Any:
        return 1, "two", {"three": 3}

    @io.on("ask me")
    async def ask_me(socket: Socket, text: str) -> Any:
        return await socket.timeout(5).emit_with_ack("question", text)

    @io.on("silence", concurrent=True)
    async def silence(socket: Socket) -> Any:
        await until(lambda: not socket.connected)

    @io.on("be silent")
    async def be_silent(socket: Socket) -> str:
        try:
            await socket.timeout(0.1).emit_with_ack("nobody answers this")
        except AckTimeoutError:
            return "too late"
        return "answered"

    @io.on("join")
    async def join(socket: Socket, room: str) -> bool:
        socket.join(room)
        return True

    @io.on("say")
    async def say(socket: Socket, room: str, text: str) -> None:
        socket.to(room).emit("said", text)

    @io.on("tell")
    async def tell(socket: Socket, id_: str, text: str) -> None:
        io.to(id_).emit("direct", text)

    @io.on("ask all")
    async def ask_all(socket: Socket, room: str) -> Any:
        return await io.to(room).timeout(5).emit_with_ack("question", "all")

    @io.on("binary")
    async def binary(socket: Socket, message: Any) -> Any:
        assert message["more"] == [b"x"]
        return {"name": message["name"], "data": bytes((octet + 1) % 251 for octet in message["data"])}

    @io.on("share")
    async def share(socket: Socket, data: bytes) -> None:
        socket.broadcast.emit("picture", data)

    @io.on("count")
    async def count(socket: Socket, number: int) -> int:
        for i in range(number):
            socket.emit("number", i)
        return number

    @io.on("leave me")
    async def leave_me(socket: Socket) -> None:
        socket.disconnect()

    admin = io.of("/admin")

    @admin.on("who")
    async def who(socket: Socket) -> str:
        return socket.namespace.name

    @admin.on("close me")
    async def close_me(socket: Socket) -> None:
        socket.disconnect(close=True)

    return server, io


class Script:
    """A running ``socketio.js``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def next(self) -> list[Any]:
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            line = await self._process.stdout.readline()
        value: list[Any] = json.loads(line)
        return value

    async def until(self, *beginning: object) -> list[Any]:
        """Reads lines until one starts with `beginning`, and returns it."""
        while (said := await self.next())[: len(beginning)] != list(beginning):
            pass
        return said

    def tell(self, *values: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(values).encode() + b"\n")

    async def lines(self) -> list[list[Any]]:
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            output = await self._process.stdout.read()
        return [json.loads(line) for line in output.splitlines()]


@asynccontextmanager
async def script(
    url: str, options: object, scenario: str, program: str = "socketio.js"
) -> AsyncIterator[Script]:
    node = shutil.which("node")
    need("Node", node is not None and (NODE / "node_modules" / "socket.io-client").exists())
    process = await asyncio.create_subprocess_exec(
        *(str(node), str(NODE / program), url.replace("ws", "http", 1), json.dumps(options), scenario),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Script(process)
    finally:
        if process.returncode is None:
            try:
                process.kill()
            except ProcessLookupError:
                pass
        await process.wait()


@pytest.mark.parametrize("transports", list(TRANSPORTS))
async def test_the_official_client(transports: str) -> None:
    server, io = chat_server()
    gone: list[str] = []

    @io.on("disconnect")
    async def left(socket: Socket, reason: str) -> None:
        gone.append(reason)

    async with serving(server) as url:
        async with script(url, TRANSPORTS[transports], "tour") as client:
            said = {line[0]: line[1:] for line in await client.lines()}
        await until(lambda: len(gone) == 2)
        assert io.sockets == {}
        assert len(io.rooms) == 0
    assert said == {
        "ids": [True, True],
        "refused": ["who are you?", {"code": 7}],
        "ack": [["안녕 😀", {"a": [1, None, True]}]],
        "several": [[1, "two", {"three": 3}]],
        "ask me": ["well!"],
        "timeout": ["operation has timed out"],
        "server's timeout": ["too late"],
        "room": ["hello", 0],
        "direct": ["psst"],
        "broadcast with acks": [["all!", "all?"]],
        "binary": [1 << 20, True, "image"],
        "pushed": [1 << 20],
        "namespace": ["/admin", True],
        "invalid": ["Invalid namespace"],
        "transport": ["polling" if transports == "polling" else "websocket"],
        "order": [200, 200, True],
        "kicked": ["io server disconnect"],
        "closed": ["io server disconnect"],
    }
    assert sorted(gone) == ["client namespace disconnect", "server namespace disconnect"]


@pytest.mark.parametrize("transports", list(TRANSPORTS))
async def test_what_an_official_client_may_send_ends_no_session(transports: str) -> None:
    server, io = chat_server()
    connected: list[str] = []

    @io.on("half")
    async def half(socket: Socket) -> str:
        return "\ud83d"

    @io.on("1")
    async def one(socket: Socket, word: str) -> list[str]:
        return ["1", word]

    @io.on("2.5")
    async def two_and_a_half(socket: Socket) -> str:
        return "2.5"

    @io.on("long " * 2000)
    async def long(socket: Socket) -> str:
        return "long"

    @io.on("sum")
    async def sum_(socket: Socket, *parts: bytes) -> list[int]:
        return list(b"".join(parts))

    @io.of("/admin").on("connect")
    async def admin(socket: Socket) -> None:
        connected.append(socket.id)

    async with serving(server) as url, script(url, TRANSPORTS[transports], "odd") as client:
        said = await client.lines()
    assert said == [
        ["half", "\ufffd", {"\ufffd": "a\ufffd😀"}],
        ["half back", True],
        ["number", ["1", "one"], "2.5"],
        ["long", "long"],
        ["deep", True],
        ["eleven", list(range(11))],
        ["twice", "/admin", True],
        ["disconnect", "io client disconnect"],
    ]
    assert len(connected) == 1


# Lost connections.


async def test_a_client_reconnects_after_the_server_was_killed() -> None:
    program = (
        "import sys; from tests.test_socketio import chat_server\n"
        "server, io = chat_server()\n"
        "server.run('127.0.0.1', int(sys.argv[1]), started=lambda: print(server.port, flush=True))"
    )

    async def start(port: int) -> tuple[asyncio.subprocess.Process, int]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, str(port)), stdout=asyncio.subprocess.PIPE, cwd=ROOT
        )
        assert process.stdout is not None
        return process, int(await process.stdout.readline())

    process, port = await start(0)
    try:
        async with script(f"ws://127.0.0.1:{port}", {}, "listen") as client:
            first = await client.until("connect")
            await client.until("upgrade")
            process.kill()
            await process.wait()
            assert (await client.until("disconnect"))[1] in ("transport close", "transport error")
            client.tell("tell", "nobody", "while it is away")
            process, _ = await start(port)
            again = await client.until("connect")
            assert again[1] != first[1]
            assert not again[2]
            client.tell("count", 2)
            assert await client.until("event") == ["event", "number", 0]
            client.tell("end")
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("server_notices", [True, False])
@pytest.mark.parametrize("transports", ["default", "websocket", "polling"])
async def test_a_client_recovers_its_session_after_the_network_was_cut(
    transports: str, server_notices: bool
) -> None:
    server, io = chat_server(recovery=60)
    reasons: list[str] = []
    connected: list[tuple[bool, set[str], object]] = []

    @io.on("connect")
    async def connect(socket: Socket) -> None:
        connected.append((socket.recovered, socket.rooms - {socket.id}, socket.data.get("name")))

    @io.on("name")
    async def name(socket: Socket, value: str) -> None:
        socket.data["name"] = value
        socket.join("lobby")

    @io.on("disconnect")
    async def gone(socket: Socket, reason: str) -> None:
        reasons.append(reason)

    async with serving(server):
        relay = Relay(server.port)
        async with (
            relay.running() as url,
            script(url, TRANSPORTS[transports], "listen") as client,
        ):
            first = await client.until("connect")
            client.tell("name", "Ann")
            await until(lambda: "lobby" in io.rooms)
            if transports == "default":
                await client.until("upgrade")
            io.to("lobby").emit("news", 0)
            assert await client.until("event") == ["event", "news", 0]
            relay.open = False
            relay.cut(server_notices=server_notices)
            assert (await client.until("disconnect"))[1] in ("transport close", "transport error")
            for number in (1, 2):
                io.to("lobby").emit("news", number)
            io.to("elsewhere").emit("news", "not for it")
            io.volatile.emit("news", "nor this")
            io.to("lobby").except_(first[1]).emit("news", "not that")
            io.to(first[1]).emit("news", {"direct": b"\x01".hex()})
            relay.open = True
            said = [await client.next() for _ in range(4)]
            assert ["connect", first[1], True] in said
            said.remove(["connect", first[1], True])
            assert said == [["event", "news", 1], ["event", "news", 2], ["event", "news", {"direct": "01"}]]
            io.to("lobby").emit("news", 3)
            assert await client.next() == ["event", "news", 3]
            client.tell("end")
            await until(lambda: not io.sockets)
    assert connected == [(False, set(), None), (True, {"lobby"}, "Ann")]
    assert len(reasons) == 2
    assert reasons[0] in ("transport close", "transport error")


async def test_recovery_fails_after_too_long_a_disconnection() -> None:
    clock = ManualClock()
    server, io = chat_server(clock, recovery=60)
    async with serving(server) as url, script(url, TRANSPORTS["websocket"], "listen") as client:
        first = await client.until("connect")
        io.emit("news", 0)
        await client.until("event")
        server.websockets[0].abort()
        await until(lambda: not io.sockets)
        server.make_ready().draining = True
        await clock.advance(61)
        server.make_ready().draining = False
        again = await client.until("connect")
        assert again[1] != first[1]
        assert again[2] is False


# Other clients.


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # from aiohttp, about the client
@pytest.mark.parametrize("transports", [None, ["websocket"], ["polling"]])
async def test_the_python_client(transports: list[str] | None) -> None:
    server, io = chat_server()
    async with serving(server) as url:
        http = url.replace("ws", "http", 1)
        heard: asyncio.Queue[Any] = asyncio.Queue()
        one, two = (socketio.AsyncClient(reconnection=False) for _ in range(2))
        two.on("said", heard.put)
        two.on("picture", heard.put)
        one.on("direct", heard.put)
        one.on("question", lambda text: text + "!")
        stranger = socketio.AsyncClient(reconnection=False)
        with pytest.raises(socketio.exceptions.ConnectionError):
            await stranger.connect(http, auth={"token": "wrong"}, transports=transports)
        await stranger.disconnect()
        for client in (one, two):
            await client.connect(
                http, auth={"token": "s3cret"}, transports=transports, namespaces=["/", "/admin"]
            )
        assert await one.call("echo", ("안녕", {"a": [1, None]})) == ["안녕", {"a": [1, None]}]
        assert await one.call("ask me", "well") == "well!"
        with pytest.raises(socketio.exceptions.TimeoutError):
            await one.call("silence", timeout=0.1)
        await one.call("join", "lobby")
        await two.call("join", "lobby")
        await one.emit("say", ("lobby", "hello"))
        async with asyncio.timeout(PATIENCE):
            assert await heard.get() == "hello"
            await two.emit("tell", (one.get_sid(), "psst"))
            assert await heard.get() == "psst"
            data = (bytes(range(251)) * 4200)[: 1 << 20]
            answer = await one.call("binary", {"name": "image", "data": data, "more": [b"x"]})
            assert answer == {"name": "image", "data": bytes((octet + 1) % 251 for octet in data)}
            await one.emit("share", data)
            assert await heard.get() == data
        assert await one.call("who", namespace="/admin") == "/admin"
        await two.emit("leave me")
        await until(lambda: len(io.sockets) == 1)
        for client in (one, two):
            await client.disconnect()
        await until(lambda: not io.sockets)


async def test_the_official_bundle_in_chromium() -> None:
    chromium = find_program("chromium", "chromium-browser", "google-chrome")
    bundle = NODE / "node_modules" / "socket.io-client" / "dist" / "socket.io.min.js"
    need("Chromium", chromium is not None)
    need("socket.io-client", bundle.exists())
    server, _ = chat_server()
    server.page("/", b"<script src=/bundle.js></script>", "text/html")
    server.page("/bundle.js", bundle.read_bytes(), "text/javascript")
    async with serving(server) as url, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=BROWSER_ARGUMENTS)
        page = await browser.new_page()
        await page.goto(url.replace("ws", "http", 1))
        said = await page.evaluate(
            """async () => {
                const socket = io({auth: {token: "s3cret"}});
                const echo = await socket.emitWithAck("echo", "안녕", {a: 1});
                const data = new Uint8Array(1 << 20).fill(7);
                const more = [new Uint8Array([120])];
                const answer = await socket.emitWithAck("binary", {name: "n", data, more});
                while (socket.io.engine.transport.name !== "websocket")
                    await new Promise((resolve) => setTimeout(resolve, 10));
                const back = new Uint8Array(answer.data);
                socket.on("number", (n) => (socket.last = n));
                await socket.emitWithAck("count", 10);
                return [echo, back.length, back[0], socket.last, socket.io.engine.transport.name];
            }"""
        )
        await browser.close()
    assert said == [["안녕", {"a": 1}], 1 << 20, 8, 9, "websocket"]
