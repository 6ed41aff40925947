"""`Engine`: Engine.IO without Socket.IO."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rfc6455 import LocalProtocolError, Request
from rfc6455_server import LimitExceededError, Refusal, Server, WebSocket, connect
from rfc6455_server.socketio import Engine, EngineError, EngineSocket
from rfc6455_server.testing import ManualClock, TestClient, settle
from tests.server_helpers import RawPeer, serving, until
from tests.test_http import Answer, read_answer

PATH = "/engine.io/?EIO=4&transport="


@asynccontextmanager
async def engine_client(engine: Engine, **limits: Any) -> AsyncIterator[tuple[TestClient, WebSocket]]:
    """Yields a client in memory, and its WebSocket."""
    clock = ManualClock()
    server = Server(clock=clock, **limits)
    server.mount(engine)
    async with TestClient(server, clock) as test:
        ws = await test.connect(PATH + "websocket")
        assert (await ws.recv())[:8] == '0{"sid":'
        yield test, ws


async def request(url: str, method: str, query: str, body: bytes = b"") -> Answer:
    peer = await RawPeer.connect(url)
    head = f"{method} /engine.io/?EIO=4&transport=polling{query} HTTP/1.1\r\nHost: a\r\n"
    peer.writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = await read_answer(peer)
    await peer.close()
    return answer


def echo_engine(seen: list[EngineSocket], **options: Any) -> Engine:
    engine = Engine(**options)

    @engine.on_session
    async def echo(socket: EngineSocket) -> None:
        seen.append(socket)
        async for message in socket:
            await socket.send(message)

    return engine


async def test_an_echo_over_a_websocket() -> None:
    seen: list[EngineSocket] = []
    async with engine_client(echo_engine(seen)) as (_, ws):
        messages: list[str | bytes] = ["4text", b"bytes", "4"]
        for message in messages:
            await ws.send(message)
            assert await ws.recv() == message
        (socket,) = seen
        assert socket.transport == "websocket"
        assert socket.address == "192.0.2.1"
        assert socket.request.path == "/engine.io/"
        assert socket.reason is None
        assert repr(socket) == "<EngineSocket websocket 192.0.2.1>"
        await ws.close()
        await until(lambda: socket.reason)
        assert socket.reason == "transport close"


async def test_an_echo_over_polling_and_after_the_upgrade() -> None:
    seen: list[EngineSocket] = []
    engine = echo_engine(seen, path="/engine.io")
    server = Server()
    server.mount(engine)

    @server.authorize
    async def authorize(request: Request) -> object:
        return "someone" if "polling" in request.target else None

    async with serving(server) as url:
        opening = await request(url, "GET", "")
        sid = json.loads(opening.body[1:])["sid"]
        (socket,) = seen
        assert socket.id == sid
        assert socket.user == "someone"
        assert socket.transport == "polling"
        assert (await request(url, "POST", f"&sid={sid}", b"4a\x1ebAQ==")).body == b"ok"
        assert (await request(url, "GET", f"&sid={sid}")).body == b"4a"
        assert (await request(url, "GET", f"&sid={sid}")).body == b"bAQ=="
        async with connect(f"{url}{PATH}websocket&sid={sid}") as ws:
            await ws.send("2probe")
            assert await ws.recv() == "3probe"
            await ws.send("5")
            await ws.send("4b")
            assert await ws.recv() == "4b"
            assert str(socket.transport) == "websocket"


async def test_a_session_ends_with_its_handler_and_its_messages_leave_first() -> None:
    engine = Engine()

    @engine.on_session
    async def greet(socket: EngineSocket) -> None:
        socket.post("hello")
        socket.post(b"bytes", policy="drop_oldest")

    async with engine_client(engine) as (_, ws):
        assert [message async for message in ws] == ["4hello", b"bytes"]


async def test_without_a_handler_a_session_ends_at_once() -> None:
    async with engine_client(Engine()) as (_, ws):
        assert [message async for message in ws] == []


@pytest.mark.parametrize(
    ("error", "logged"),
    [
        (RuntimeError("broken"), "broken"),
        (EngineError("two tasks", slug="concurrent-recv"), "two tasks"),
        (LimitExceededError("too fast"), "too fast"),
        (None, ""),
    ],
)
async def test_a_handler_that_fails_is_logged_and_ends_its_session(
    error: Exception | None, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine()

    @engine.on_session
    async def fail(socket: EngineSocket) -> None:
        if error is not None:
            raise error
        socket.close()
        await socket.recv()  # raises, because the session has ended

    with caplog.at_level("INFO"):
        async with engine_client(engine) as (_, ws):
            assert [message async for message in ws] == []
    assert logged in caplog.text
    assert ("handler failed" in caplog.text) is isinstance(error, RuntimeError | EngineError)


async def test_misuse_raises() -> None:
    engine = Engine()
    done = asyncio.Event()

    @engine.on_session
    async def use(socket: EngineSocket) -> None:
        with pytest.raises(ValueError, match=r"U\+001E"):
            socket.post("a\x1eb")
        with pytest.raises(ValueError, match="not a policy"):
            socket.post("a", policy="sometimes")  # type: ignore[arg-type]
        with pytest.raises(LocalProtocolError):
            socket.post("\ud800")
        waiting = asyncio.create_task(socket.recv())
        await settle()
        with pytest.raises(EngineError) as caught:
            await socket.recv()
        assert caught.value.slug == "concurrent-recv"
        with pytest.raises(EngineError):
            async for _ in socket:
                pass
        waiting.cancel()
        await settle()
        assert await socket.recv() == "kept"
        socket.close()
        with pytest.raises(EngineError) as caught:
            await socket.send("late")
        assert caught.value.slug == "closed"
        socket.post("late")  # nothing happens
        await socket.drain()
        done.set()

    async with engine_client(engine) as (_, ws):
        await settle()
        await ws.send("4kept")
        assert [message async for message in ws] == []
        assert done.is_set()


async def test_a_handler_that_reads_slowly_holds_back_its_client_only() -> None:
    engine = Engine()
    go_on = asyncio.Event()
    received: list[str | bytes] = []

    @engine.on_session
    async def slow(socket: EngineSocket) -> None:
        await go_on.wait()
        received.extend([message async for message in socket])

    async with engine_client(engine) as (test, ws):
        for _ in range(30):
            ws._connection.send_text("4" + "x" * 100_000)
        ws._outbox.flush()
        await until(lambda: test._server.queued > 1_000_000)
        await settle()
        assert test._server.queued < 1_500_000
        go_on.set()
        await until(lambda: test._server.queued == 0)
        await ws.close()
        await until(lambda: len(received) == 30)


async def test_what_a_handler_leaves_unread_no_longer_counts() -> None:
    engine = Engine()
    go_on = asyncio.Event()

    @engine.on_session
    async def leave(socket: EngineSocket) -> None:
        await go_on.wait()

    async with engine_client(engine) as (test, ws):
        await ws.send("4" + "x" * 10_000)
        await until(lambda: test._server.queued > 10_000)
        go_on.set()
        await until(lambda: test._server.queued == 0)


async def test_a_closed_engine_and_a_stopping_server_end_the_sessions() -> None:
    seen: list[EngineSocket] = []
    engine = echo_engine(seen)
    async with engine_client(engine) as (test, ws):
        engine.close()
        assert [message async for message in ws] == []
        assert seen[0].reason == "server shutting down"
        with pytest.raises(Exception, match="503"):
            await test.connect(PATH + "websocket")


async def test_a_session_can_be_refused() -> None:
    server = Server()
    server.mount(Engine())

    @server.authorize
    async def authorize(request: Request) -> object:
        return Refusal(401)

    async with serving(server) as url:
        assert (await request(url, "GET", "")).status == 401


@pytest.mark.parametrize(
    "options", [{"path": "engine"}, {"path": "/"}, {"ping_interval": 0}, {"max_payload": 0}]
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Engine(**options)


def test_an_engine_is_mounted_once() -> None:
    engine = Engine()
    Server().mount(engine)
    with pytest.raises(RuntimeError):
        Server().mount(engine)
