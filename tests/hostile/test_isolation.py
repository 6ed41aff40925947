"""An error in one connection, and what others notice of it."""

import asyncio
import logging
import struct
from socket import SO_LINGER, SOL_SOCKET

import pytest

from rfc6455 import ClientHandshake
from rfc6455_server import CloseReport, HttpRequest, HttpResponse, Server, WebSocket, connect
from tests.helpers import KEY
from tests.hostile.flaws import flaw
from tests.server_helpers import RawPeer, serving, until

BAD_INPUT = {
    "no HTTP": b"\x16\x03\x01\x02\x00",
    "a bad head": b"GET / HTTP/1.1\r\n\x00: x\r\n\r\n",
    "a bad handshake": b"GET /echo HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
    "a failing page": b"GET /fails HTTP/1.1\r\nHost: a\r\n\r\n",
    "a reserved opcode": ClientHandshake("a", "/echo").data_to_send() + b"\x83\x80" + KEY,
    "no mask": ClientHandshake("a", "/echo").data_to_send() + b"\x81\x01x",
    "bad UTF-8": ClientHandshake("a", "/echo").data_to_send() + b"\x81\x81\0\0\0\0\xff",
    "a failing handler": ClientHandshake("a", "/fails").data_to_send(),
    "a failing callback": ClientHandshake("a", "/callback").data_to_send() + b"\x88\x80" + KEY,
    "half a frame": ClientHandshake("a", "/echo").data_to_send() + b"\x81\xfe",
}


def fragile_server() -> Server:
    server = Server()

    @server.websocket("/echo")
    async def echo(ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    @server.websocket("/fails")
    async def fails(ws: WebSocket) -> None:
        raise ZeroDivisionError

    @server.websocket("/callback")
    async def callback(ws: WebSocket) -> None:
        def bad(_: WebSocket) -> None:
            raise ZeroDivisionError

        ws.on_closed.append(bad)
        await ws.wait_closed()

    @server.http("/fails")
    async def page(request: HttpRequest) -> HttpResponse:
        raise ZeroDivisionError

    return server


@flaw(
    "CVE-2022-21676",
    "CVE-2024-38355",
    what="makes an exception that nobody catches, and so ends the process and all connections in it",
    here="its own connection ends; the others talk on, and the event loop reports nothing",
)
@pytest.mark.parametrize("kind", BAD_INPUT)
@pytest.mark.parametrize("how", ["waits", "resets"])
async def test_an_error_ends_its_own_connection_only(kind: str, how: str) -> None:
    problems: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    server = fragile_server()
    async with serving(server) as url, connect(url + "/echo") as other:
        for _ in range(5):
            peer = await RawPeer.connect(url)
            peer.writer.write(BAD_INPUT[kind])
            if how == "waits":
                await other.send("x")
                assert await other.recv() == "x"
                peer.writer.write_eof()
                await peer.reader.read()
            else:
                peer.writer.get_extra_info("socket").setsockopt(
                    SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0)
                )
                await asyncio.sleep(0)
                peer.writer.transport.abort()
            await peer.close()
        await other.send("still there")
        assert await other.recv() == "still there"
        await until(lambda: server.make_ready().connections == 1)
    assert problems == []


@flaw(
    "found here",
    what="ends while a callback of `on_closed` raises: later callbacks and the report were skipped",
    here="logged; every callback is called, and the report is made",
)
async def test_a_callback_that_raises_skips_nothing(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    called: list[str] = []
    reports: list[CloseReport] = []
    server.on_report(reports.append)

    def bad(_: WebSocket) -> None:
        called.append("bad")
        raise ZeroDivisionError("in the callback")

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        ws.on_closed.extend([bad, lambda _: called.append("good")])
        await ws.wait_closed()

    async with serving(server) as url:
        with caplog.at_level(logging.ERROR, logger="rfc6455_server"):
            async with connect(url + "/"):
                await until(lambda: server.websockets)
            await until(lambda: reports)
    assert called == ["bad", "good"]
    assert "ZeroDivisionError: in the callback" in caplog.text
    assert reports[0].code_received == 1000
