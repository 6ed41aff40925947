import asyncio
import logging

import pytest

from rfc6455 import ClientHandshake
from rfc6455_server import HandshakeRejectedError, Server, WebSocket, connect, listener
from tests.helpers import close_payload
from tests.server_helpers import RawPeer, echo_server, serving


async def answer_to(url: str, request: bytes) -> bytes:
    peer = await RawPeer.connect(url)
    peer.writer.write(request)
    answer = await peer.read_to_end()
    await peer.close()
    return answer


@pytest.mark.parametrize(
    ("template", "path", "expected"),
    [
        ("/", "/", {}),
        ("/rooms/{name}", "/rooms/lobby", {"name": "lobby"}),
        ("/rooms/{name}", "/rooms/a%2Fb%20%C3%A9", {"name": "a/b é"}),
        ("/a.b/{x}-{y}", "/a.b/1-2", {"x": "1", "y": "2"}),
        ("/rooms/{name}", "/rooms/", None),
        ("/rooms/{name}", "/rooms/a/b", None),
        ("/a.b", "/aXb", None),
    ],
)
async def test_paths(template: str, path: str, expected: dict[str, str] | None) -> None:
    server = Server()
    seen: list[dict[str, str]] = []

    @server.websocket(template)
    async def handler(ws: WebSocket, **parts: str) -> None:
        seen.append(parts)

    async with serving(server) as url:
        if expected is None:
            with pytest.raises(HandshakeRejectedError) as caught:
                await connect(url + path)
            assert caught.value.response.status == 404
        else:
            ws = await connect(url + path)
            await ws.wait_closed()
            assert seen == [expected]


@pytest.mark.parametrize("template", ["", "rooms", "/{", "/{1}", "/}", "/a?b", "/#", "/{a b}"])
def test_a_path_of_bad_form(template: str) -> None:
    with pytest.raises(ValueError, match="path template"):
        Server().websocket(template)(lambda ws: asyncio.sleep(0))


async def test_the_request_reaches_the_handler() -> None:
    server = Server()

    @server.websocket("/x")
    async def handler(ws: WebSocket) -> None:
        assert ws.request is not None
        await ws.send(f"{ws.request.query} {ws.request.headers['X-Test']} {ws.subprotocol}")

    async with serving(server) as url:
        ws = await connect(url + "/x?a=b", headers=[("X-Test", "yes")])
        assert await ws.recv() == "a=b yes None"
        await ws.close()


@pytest.mark.parametrize(
    ("origins", "origin", "welcome"),
    [
        (None, None, True),
        (None, "http://{host}", True),
        (None, "HTTP://{host}", True),
        (None, "http://example.com", False),
        (None, "null", False),
        (None, "http://[", False),
        (None, "http://]{host}", False),
        (None, "http://{host}.example.com", False),
        (["https://example.com"], "https://Example.com", True),
        (["https://example.com"], "http://example.com", False),
        (["https://example.com"], "http://{host}", False),
        (["https://example.com"], None, True),
        (["*"], "https://anything.example", True),
    ],
)
async def test_origins(origins: list[str] | None, origin: str | None, welcome: bool) -> None:
    async with serving(echo_server(origins=origins)) as url:
        origin = origin and origin.format(host=url.removeprefix("ws://"))
        if welcome:
            async with connect(url + "/echo", origin=origin) as ws:
                await ws.send("x")
                assert await ws.recv() == "x"
        else:
            with pytest.raises(HandshakeRejectedError) as caught:
                await connect(url + "/echo", origin=origin)
            assert caught.value.response.status == 403


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n", 426),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET /" + b"a" * 9000, 414),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 9000, 431),
        (b"GET /echo HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", 426),
    ],
)
async def test_requests_that_open_no_websocket(request_: bytes, status: int) -> None:
    async with serving(echo_server()) as url:
        assert (await answer_to(url, request_)).startswith(b"HTTP/1.1 %d " % status)


async def test_pages() -> None:
    server = echo_server()
    server.page("/hello", b"<p>hi", "text/html")
    async with serving(server) as url:
        answer = await answer_to(url, b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"\r\n\r\n<p>hi")


async def test_a_request_has_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "HANDSHAKE_TIMEOUT", 0.3)
    async with serving(echo_server()) as url:
        peer = await RawPeer.connect(url)

        async def drip() -> None:
            for octet in ClientHandshake("h", "/echo").data_to_send():
                peer.writer.write(bytes([octet]))
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        assert await peer.read_to_end() == b""
        dripping.cancel()
        await peer.close()


async def test_a_peer_that_leaves_before_its_request_is_complete() -> None:
    async with serving(echo_server()) as url:
        peer = await RawPeer.connect(url)
        peer.writer.write(b"GET / HT")
        peer.writer.write_eof()
        assert await peer.read_to_end() == b""
        await peer.close()


async def test_an_exception_in_a_handler_is_1011_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    server = echo_server()

    @server.websocket("/broken")
    async def handler(ws: WebSocket) -> None:
        raise ZeroDivisionError("in the handler")

    async with serving(server) as url:
        with caplog.at_level(logging.ERROR, logger="rfc6455_server"):
            peer = await RawPeer.upgraded(url, "/broken")
            assert await peer.read(4) == b"\x88\x02" + close_payload(1011)
            await peer.close()
        assert "ZeroDivisionError: in the handler" in caplog.text
        async with connect(url + "/echo") as ws:
            await ws.send("the server lives")
            assert await ws.recv() == "the server lives"


async def test_a_handler_that_does_not_take_its_path_is_1011(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()

    @server.websocket("/rooms/{name}")
    async def handler(ws: WebSocket) -> None:
        """The parameter ``name`` was forgotten."""

    async with serving(server) as url:
        with caplog.at_level(logging.ERROR, logger="rfc6455_server"):
            peer = await RawPeer.upgraded(url, "/rooms/x")
            assert await peer.read(4) == b"\x88\x02" + close_payload(1011)
            await peer.close()
    assert "unexpected keyword argument 'name'" in caplog.text


async def test_a_failure_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="rfc6455_server"):
        async with serving(echo_server()) as url:
            peer = await RawPeer.upgraded(url)
            peer.writer.write(b"\x83\x80")
            await peer.read_to_end()
            await peer.close()
    assert "a peer failed: reserved opcode 0x3 (bad-opcode)" in caplog.text


async def test_a_handler_that_sends_too_late_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    done = asyncio.Event()

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        try:
            await ws.recv()
            await asyncio.sleep(0.1)
            await ws.send("too late")
        finally:
            done.set()

    async with serving(server) as url:
        peer = await RawPeer.upgraded(url, "/")
        peer.send(1, b"go")
        await asyncio.sleep(0.02)
        peer.writer.transport.abort()
        async with asyncio.timeout(10):
            await done.wait()
        await asyncio.sleep(0.05)
    assert caplog.records == []


async def test_stop_cancels_handlers_that_do_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "CLOSE_TIMEOUT", 0.1)
    server = Server()
    cancelled = asyncio.Event()
    started = asyncio.Event()

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        started.set()
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.set()

    async with serving(server) as url:
        peer = await RawPeer.upgraded(url, "/")
        await started.wait()
        async with asyncio.timeout(20):
            await server.stop()
        assert cancelled.is_set()
        assert await peer.read(4) == b"\x88\x12\x03\xe9"
        await peer.close()
