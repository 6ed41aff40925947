"""The requests of Socket.IO clients: paths, methods, fields, and the options that concern them."""

import asyncio
import gzip
import json
import logging
import re
import zlib
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import socketio
from playwright.async_api import async_playwright

from rfc6455 import Headers, Request
from rfc6455_server import HandshakeRejectedError, Server, WebSocket, connect
from rfc6455_server.http.routes import HttpResponse, HttpRoute, HttpRoutes
from rfc6455_server.listening.routing import compile_route
from rfc6455_server.socketio import (
    Cookie,
    EngineOptions,
    RefusedRequest,
    Socket,
    SocketIO,
    client_files,
)
from rfc6455_server.socketio.compression import Coding, Compressor, choose_coding
from rfc6455_server.socketio.engine import EngineSession
from rfc6455_server.socketio.engine_packets import EnginePacketType
from tests.server_helpers import (
    BROWSER_ARGUMENTS,
    PATIENCE,
    RawPeer,
    echo_server,
    find_program,
    need,
    serving,
    until,
)
from tests.test_http import Answer, read_answer
from tests.test_socketio import NODE, script
from tests.test_socketio_server import BROWSER, ask, opened, polling

POLLING = "EIO=4&transport=polling"
WEBSOCKET = "EIO=4&transport=websocket"


@asynccontextmanager
async def raw(url: str) -> AsyncIterator[RawPeer]:
    peer = await RawPeer.connect(url)
    yield peer
    await peer.close()


async def ask_raw(url: str, head: str) -> Answer:
    """Sends a request without a body, whose lines end with LF here."""
    async with raw(url) as peer:
        peer.writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        return await read_answer(peer, body=not head.startswith("HEAD"))


def upgrade(target: str, fields: str = "") -> str:
    """Returns a request for a WebSocket."""
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    head = f"GET {target} HTTP/1.1\nHost: test\nUpgrade: websocket\nConnection: Upgrade\n"
    return f"{head}Sec-WebSocket-Version: 13\nSec-WebSocket-Key: {key}{fields}"


async def open_websocket(url: str, target: str) -> tuple[Answer, str]:
    """Opens a WebSocket, and returns the 101 and the beginning of what follows it."""
    async with raw(url) as peer:
        peer.writer.write(upgrade(target).replace("\n", "\r\n").encode() + b"\r\n\r\n")
        answer = await read_answer(peer)
        assert answer.status == 101
        return answer, (await peer.reader.read(200)).decode(errors="replace")


def error(answer: Answer) -> Any:
    assert answer.fields["content-type"] == "application/json"
    return json.loads(answer.body)


# Methods and paths.


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "HEAD", "TRACE", "BREW"])
async def test_other_methods_are_400_and_end_no_session(method: str) -> None:
    async with polling() as (url, io, handled):
        answer = await ask(url, POLLING, method)
        assert answer.status == 400
        if method != "HEAD":
            assert error(answer) == {"code": 2, "message": "Bad handshake method"}
        query = await opened(url)
        answer = await ask(url, query, method)
        assert answer.status == 400
        if method != "HEAD":
            assert error(answer) == {"code": 3, "message": "Bad request"}
        assert (await ask(url, query, "POST", b'42["still here"]')).body == b"ok"
        await until(lambda: handled == [["still here"]])
        assert len(io.sockets) == 1


def test_a_prefix_ends_where_a_segment_ends() -> None:
    async def handler(request: object) -> HttpResponse:
        return HttpResponse()

    routes = HttpRoutes()
    whole, below, deeper = (HttpRoute(handler, (name,)) for name in "abc")
    routes.add_prefix("/a", whole)
    routes.add_prefix("/files/", below)
    routes.add_prefix("/a/b", deeper)
    for path in ("/a", "/a/", "/a/c", "/a/bc"):
        assert routes.find(path) is whole, path
    assert routes.find("/a/b") is routes.find("/a/b/c") is deeper
    for path in ("/ab", "/a-docs/", "/a.b", "/aFOO/x", "/", "/files", "/filesystem/x"):
        assert routes.find(path) is None, path
    assert routes.find("/files/x") is routes.find("/files/") is below


@pytest.mark.parametrize("path", ["/socket.io", "/socket.io/", "/socket.io/below", "/socket.io/be/low/"])
async def test_the_paths_of_socketio(path: str) -> None:
    async with polling() as (url, _, _):
        answer = await ask_raw(url, f"GET {path}?{POLLING} HTTP/1.1\nHost: test")
        assert answer.body.startswith(b'0{"sid":')
        async with connect(f"{url}{path}?{WEBSOCKET}") as ws:
            assert str(await ws.recv()).startswith('0{"sid":')


@pytest.mark.parametrize("path", ["/socket.io-docs/", "/socket.io-docs", "/socket.ioFOO", "/socketXio/", "/"])
async def test_paths_that_only_look_like_those_of_socketio(path: str) -> None:
    async with polling() as (url, _, _):
        answer = await ask_raw(url, f"GET {path}?{POLLING} HTTP/1.1\nHost: test")
        assert (answer.status, answer.body) == (404, b"not found\n")
        with pytest.raises(HandshakeRejectedError) as caught:
            await connect(f"{url}{path}?{WEBSOCKET}")
        assert caught.value.response.status == 404


async def test_a_page_beside_socketio(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the manual")
    server = Server()
    server.mount(SocketIO())
    server.static("/socket.io-docs/", tmp_path)
    server.page("/socket.ioFOO", b"foo", "text/plain")
    async with serving(server) as url:
        answer = await ask_raw(url, "GET /socket.io-docs/a.txt HTTP/1.1\nHost: test")
        assert answer.body == b"the manual"
        assert (await ask_raw(url, "GET /socket.ioFOO HTTP/1.1\nHost: test")).body == b"foo"


# Fields.

TWO_ORIGINS = "\nOrigin: http://test\nOrigin: http://test"


async def test_a_field_that_occurs_twice_is_400_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    async with polling(cors=["http://other.example"]) as (url, io, _):
        refused: list[RefusedRequest] = []
        io.on_connection_error(refused.append)
        for head in (
            f"GET /socket.io/?{POLLING} HTTP/1.1\nHost: test{TWO_ORIGINS}",
            f"POST /socket.io/?{POLLING}&sid=x HTTP/1.1\nHost: test{TWO_ORIGINS}\nContent-Length: 0",
            f"OPTIONS /socket.io/?{POLLING} HTTP/1.1\nHost: test{TWO_ORIGINS}",
            f"OPTIONS /socket.io/?{POLLING} HTTP/1.1\nHost: test\nOrigin: http://other.example"
            "\nAccess-Control-Request-Headers: a\nAccess-Control-Request-Headers: b",
        ):
            answer = await ask_raw(url, head)
            assert answer.status == 400, head
            assert error(answer) == {"code": 3, "message": "Bad request"}, head
        assert [one.code for one in refused] == [3] * 4
        assert refused[0].context == {"name": "INVALID_ORIGIN", "origin": ["http://test"] * 2}
        answer = await ask_raw(url, upgrade(f"/socket.io/?{WEBSOCKET}", TWO_ORIGINS))
        assert (answer.status, answer.body) == (400, b"more than one Origin field\n")
    assert problems == []
    assert "Traceback" not in caplog.text


async def test_a_doubled_field_is_400_on_every_path(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "a.txt").write_text("x")
    server = echo_server()
    server.static("/files/", tmp_path)

    def check(request: Request) -> None:
        request.headers.get("X-Key")

    async def handler(ws: WebSocket) -> None:
        raise AssertionError

    server.add_websocket_route(compile_route("/checked", handler, check))
    async with serving(server) as url:
        answer = await ask_raw(url, upgrade("/checked", "\nX-Key: 1\nX-Key: 2"))
        assert (answer.status, answer.body) == (400, b"more than one X-Key field\n")
        answer = await ask_raw(url, upgrade("/echo", TWO_ORIGINS))
        assert (answer.status, answer.body) == (400, b"more than one Origin field\n")
        # Several lines of this field are one list (RFC 9110 §5.3).
        answer = await ask_raw(
            url, 'GET /files/a.txt HTTP/1.1\nHost: test\nIf-None-Match: "a"\nIf-None-Match: "b"'
        )
        assert (answer.status, answer.body) == (200, b"x")
        assert server.stats.refused == {(400, "doubled-field"): 2}
    assert caplog.text.count("reason=doubled-field") == 2
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    ("requested", "status"),
    [
        ("content-type", 204),
        ("x-a, X-B ,x-c", 204),
        ("x" * 1024, 204),
        ("", 204),
        ("x" * 1025, 400),
        ("a b", 400),
        ("a,,b", 400),
        ("<script>", 400),
        ("a: b", 400),
        ("é", 400),
    ],
)
async def test_only_a_list_of_fields_is_echoed(requested: str, status: int) -> None:
    async with polling(cors=["http://other.example"]) as (url, _, _):
        fields = f"Origin: http://other.example\r\nAccess-Control-Request-Headers: {requested}\r\n"
        answer = await ask(url, POLLING, "OPTIONS", headers=fields)
        assert answer.status == status
        expected = requested if status == 204 and requested else None
        assert answer.fields.get("access-control-allow-headers") == expected


# The number of packets in an answer.


@pytest.mark.parametrize(
    ("headers", "query", "limit"),
    [
        (BROWSER, "", 100),
        ("User-Agent: node-XMLHttpRequest\r\n", "&t=lq3k2a", 100),
        ("", "", 16),
        ("User-Agent: python-requests/2.31\r\n", "", 16),
        ("User-Agent: Python/3.11 aiohttp/3.9\r\n", "&t=1700000000.123", 16),
        (BROWSER, "&t=1700000000.123", 16),  # python-socketio's client in a browser's clothes
        ("User-Agent: okhttp/4.9\r\n", "", 100),
        ("User-Agent: Chat/1 CFNetwork/1485 Darwin/23.1.0\r\n", "", 100),
        ("User-Agent: not Mozilla/5.0\r\n", "", 16),
        ("User-Agent: a\r\nUser-Agent: Mozilla/5.0\r\n", "", 16),
    ],
)
async def test_an_answer_has_at_most_16_packets_for_clients_that_may_count_them(
    headers: str, query: str, limit: int
) -> None:
    async with polling() as (url, io, _):
        answer = await ask(url, POLLING + query, headers=headers)
        sid = f"{POLLING}&sid={json.loads(answer.body[1:])['sid']}"
        await ask(url, sid, "POST", b"40")
        await ask(url, sid)
        for number in range(100):
            io.emit("n", number)
        received: list[str] = []
        while len(received) < 100:
            packets = (await ask(url, sid)).body.decode().split("\x1e")
            assert len(packets) == min(limit, 100 - len(received))
            received += packets
        assert received == [f'42["n",{number}]' for number in range(100)]


def test_a_close_packet_is_counted_too() -> None:
    session = EngineSession("x", "polling", 0.0)
    session.max_poll_packets = 2
    session.send("a", "b", "c", "d")
    session.close(0.0)
    answers = []
    for _ in range(3):
        session.start_poll(0.0)
        answers.append([packet.type for packet in session.packets_to_send("polling")])
    message = EnginePacketType.MESSAGE
    assert answers == [[message, message], [message, message], [EnginePacketType.CLOSE]]


async def test_the_python_client_receives_a_burst_over_polling() -> None:
    io = SocketIO()
    server = Server()
    server.mount(io)
    heard: list[int] = []

    @io.on("start")
    async def start(socket: Socket) -> None:
        for number in range(500):
            socket.emit("n", number, "x" * 100)

    async with serving(server) as url:
        client = socketio.AsyncClient(reconnection=False)
        client.on("n", lambda number, text: heard.append(number))
        await client.connect(url.replace("ws", "http", 1), transports=["polling"])
        await client.emit("start")
        await until(lambda: len(heard) == 500)
        assert heard == list(range(500))
        await client.disconnect()


# Clients that are refused.


async def test_another_version_of_the_protocol_is_refused_with_its_code(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with polling() as (url, io, _):
        refused: list[RefusedRequest] = []
        io.on_connection_error(refused.append)
        expected = {"code": 5, "message": "Unsupported protocol version"}
        assert error(await ask(url, "EIO=3&transport=polling")) == expected
        assert error(await ask_raw(url, upgrade("/socket.io/?EIO=3&transport=websocket"))) == expected
        assert [(one.code, one.context) for one in refused] == [(5, {"protocol": "3"})] * 2
        assert refused[1].request.headers["Upgrade"] == "websocket"
    assert caplog.text.count('reason="Unsupported protocol version"') == 2


# As socket.io-msgpack-parser encodes CONNECT, with its options.
MSGPACK_OPTIONS = "a76f7074696f6e7381a8636f6d7072657373c3"
MSGPACK = {
    "/": "84a47479706500a36e7370a12fa464617461d40000",
    "/admin": "84a47479706500a36e7370a62f61646d696ea46461746181a5746f6b656ea6733363726574",
    "/" + "x" * 40: "84a47479706500a36e7370d9292f" + "78" * 40 + "a464617461d40000",
}


@pytest.mark.parametrize("namespace", MSGPACK)
async def test_a_client_that_speaks_msgpack_is_told_so(
    namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    message = b"the server takes JSON, not msgpack: connect without the option parser"
    answer = b"\x83\xa4type\x04\xa3nsp\xd9" + bytes([len(namespace)]) + namespace.encode()
    answer += b"\xa4data\x81\xa7message\xd9" + bytes([len(message)]) + message
    async with polling() as (url, _, _), connect(f"{url}/socket.io/?{WEBSOCKET}") as ws:
        await ws.recv()
        await ws.send(bytes.fromhex(MSGPACK[namespace] + MSGPACK_OPTIONS))
        assert [message async for message in ws] == [answer]
        assert ws.closed is not None
        assert ws.closed.code == 1002
    assert message.decode() in caplog.text


@pytest.mark.parametrize("message", [b"", b"\x84", b"x", b"\x81\xa4type\x02", b"\xff\xa4type\x00"])
async def test_other_binary_messages_break_the_protocol(message: bytes) -> None:
    async with polling() as (url, _, _), connect(f"{url}/socket.io/?{WEBSOCKET}") as ws:
        await ws.recv()
        await ws.send(message)
        assert [message async for message in ws] == []
        assert ws.closed is not None
        assert ws.closed.code == 1002


async def test_a_client_that_polls_in_msgpack_is_told_so_too() -> None:
    async with polling() as (url, io, _):
        opening = await ask(url, POLLING)
        query = f"{POLLING}&sid={json.loads(opening.body[1:])['sid']}"
        packet = bytes.fromhex(MSGPACK["/"] + MSGPACK_OPTIONS)
        await ask(url, query, "POST", b"b" + b64encode(packet))
        answer, end = [(await ask(url, query)).body for _ in range(2)]
        assert b"not msgpack" in b64decode(answer[1:])
        assert end == b"1"
        assert io._transports is not None
        assert io._transports.sessions == {}


async def test_the_official_client_with_msgpack_sees_the_reason() -> None:
    async with polling() as (url, _, _), script(url, {"transports": ["websocket"]}, "msgpack") as client:
        said = await client.lines()
    reason = "the server takes JSON, not msgpack: connect without the option parser"
    assert said == [["/", reason], ["/admin", reason]]


# Options.


async def test_the_transports_are_an_option() -> None:
    async with polling(transports=["polling"]) as (url, _, _):
        opening = json.loads((await ask(url, POLLING)).body[1:])
        assert opening["upgrades"] == []
        with pytest.raises(HandshakeRejectedError) as caught:
            await connect(f"{url}/socket.io/?{WEBSOCKET}")
        assert caught.value.response.status == 400
        expected = {"code": 0, "message": "Transport unknown"}
        assert error(await ask_raw(url, upgrade(f"/socket.io/?{WEBSOCKET}"))) == expected
    async with polling(transports=["websocket"]) as (url, _, _):
        assert error(await ask(url, POLLING)) == expected
        async with connect(f"{url}/socket.io/?{WEBSOCKET}") as ws:
            assert str(await ws.recv()).startswith("0{")


@pytest.mark.parametrize("options", [{"allow_upgrades": False}, {"transports": ["polling"]}])
async def test_without_upgrades_the_official_client_keeps_polling(options: dict[str, Any]) -> None:
    async with polling(**options) as (url, io, _), script(url, {}, "listen") as client:
        await client.until("connect")
        for number in range(10):
            io.emit("n", number)
            assert await client.until("event", "n") == ["event", "n", number]
        assert io._transports is not None
        assert [session.engine.transport for session in io._transports.sessions.values()] == ["polling"]
        client.tell("end")


async def test_a_cookie_carries_the_session_on_both_transports() -> None:
    async with polling(cookie="io") as (url, _, _):
        answer = await ask(url, POLLING)
        sid = json.loads(answer.body[1:])["sid"]
        assert answer.fields["set-cookie"] == f"io={sid}; Path=/; HttpOnly; SameSite=Lax"
        later = await ask(url, f"{POLLING}&sid={sid}", "POST", b"40")
        assert "set-cookie" not in later.fields
        answer, opening = await open_websocket(url, f"/socket.io/?{WEBSOCKET}")
        match = re.fullmatch(r"io=(.{20}); Path=/; HttpOnly; SameSite=Lax", answer.fields["set-cookie"])
        assert match is not None
        assert f'"sid":"{match[1]}"' in opening
        # A probe belongs to a session that has its cookie.
        sid = json.loads((await ask(url, POLLING)).body[1:])["sid"]
        async with raw(url) as peer:
            head = upgrade(f"/socket.io/?{WEBSOCKET}&sid={sid}")
            peer.writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
            answer = await read_answer(peer)
        assert (answer.status, answer.fields.get("set-cookie")) == (101, None)


def test_the_settings_of_a_cookie() -> None:
    cookie = Cookie(name="node", path="/x", domain="a.example", max_age=60, secure=True, same_site="None")
    field = "node=7; Path=/x; Domain=a.example; Max-Age=60; HttpOnly; Secure; SameSite=None"
    assert cookie.field("7") == ("Set-Cookie", field)
    plain = Cookie(path=None, http_only=False, same_site=None)
    assert plain.field("7") == ("Set-Cookie", "io=7")
    settings: list[dict[str, Any]] = [{"name": ""}, {"name": "a b"}, {"name": "a;"}, {"path": "/;x"}]
    settings += [{"domain": "a\r\nb"}, {"same_site": "lax"}]
    for setting in settings:
        with pytest.raises(ValueError, match=r"not|same_site"):
            Cookie(**setting)


async def test_hooks_see_and_change_the_fields_of_answers() -> None:
    calls: list[tuple[str, str, bool]] = []

    def initial(request: Request, fields: list[tuple[str, str]]) -> None:
        calls.append(("initial", request.method, "Upgrade" in request.headers))
        fields.append(("X-Server", "7"))

    def every(request: Request, fields: list[tuple[str, str]]) -> None:
        calls.append(("every", request.method, "Upgrade" in request.headers))
        fields.append(("X-Every", "yes"))
        fields[:] = [field for field in fields if field[0] != "Cache-Control"]

    async with polling(initial_headers=initial, headers=every) as (url, _, _):
        answer = await ask(url, POLLING)
        assert (answer.fields["x-server"], answer.fields["x-every"]) == ("7", "yes")
        assert "cache-control" not in answer.fields
        query = f"{POLLING}&sid={json.loads(answer.body[1:])['sid']}"
        answer = await ask(url, query, "POST", b"40")
        assert (answer.fields.get("x-server"), answer.fields["x-every"]) == (None, "yes")
        answer = await ask(url, query)
        assert (answer.fields.get("x-server"), answer.fields["x-every"]) == (None, "yes")
        assert "x-every" not in (await ask(url, POLLING, "PUT")).fields
        methods = [("initial", "GET"), ("every", "GET"), ("every", "POST"), ("every", "GET")]
        assert calls == [(*call, False) for call in methods]
        calls.clear()
        answer, _ = await open_websocket(url, f"/socket.io/?{WEBSOCKET}")
        assert (answer.fields["x-server"], answer.fields["x-every"]) == ("7", "yes")
        assert calls == [("initial", "GET", True), ("every", "GET", True)]


FAULTS = [
    None,
    ("bad name", "x"),
    ("X-Name", "é"),
    ("X-Name", "x\r\nSet-Cookie: y"),
    ("X-Name", " x"),
    ("Content-Length", "5"),
    ("transfer-encoding", "chunked"),
]


def fail(fault: tuple[str, str] | None, request: Request, fields: list[tuple[str, str]]) -> None:
    if fault is None:
        raise ZeroDivisionError
    fields.append(fault)


@pytest.mark.parametrize("hook", ["initial_headers", "headers"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_hook_that_fails_answers_500_and_leaves_no_session(
    hook: str, fault: tuple[str, str] | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with polling(**{hook: partial(fail, fault)}) as (url, io, _):
        assert io._transports is not None
        assert (await ask(url, POLLING)).status == 500
        assert not io._transports.sessions
        answer = await ask_raw(url, upgrade(f"/socket.io/?{WEBSOCKET}"))
        assert answer.status == 500
        assert "accepting failed" in caplog.text


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_hook_that_fails_later_ends_the_session(method: str, fault: tuple[str, str] | None) -> None:
    failing = False

    def fail_later(request: Request, fields: list[tuple[str, str]]) -> None:
        if failing:
            fail(fault, request, fields)

    async with polling(headers=fail_later) as (url, io, _):
        query = await opened(url)
        io.emit("lost")
        failing = True
        assert (await ask(url, query, method, b'42["x"]' if method == "POST" else b"")).status == 500
        assert io.sockets == {}


@pytest.mark.parametrize(
    ("cors", "allowed", "refused"),
    [
        (re.compile(r"https://[a-z]+\.example"), "https://a.example", "https://a.example.evil"),
        ([re.compile(r"https://a\.example"), "https://b.example"], "https://A.example", "https://c.example"),
        ("https://b.example", "https://b.example", "https://b.exampl"),
        (
            lambda origin, request: origin.endswith("//x") and "token" in request.target,
            "http://X",
            "http://y",
        ),
    ],
    ids=["pattern", "patterns", "text", "function"],
)
async def test_origins_by_pattern_and_function(cors: Any, allowed: str, refused: str) -> None:
    async with polling(cors=cors) as (url, _, _):
        query = POLLING + "&token=1"
        answer = await ask(url, query, headers=f"Origin: {allowed}\r\n")
        assert answer.status == 200
        assert answer.fields["access-control-allow-origin"] == allowed
        assert answer.fields["access-control-allow-credentials"] == "true"
        assert answer.fields["vary"] == "Origin"
        answer = await ask(url, query, headers=f"Origin: {refused}\r\n")
        assert (answer.status, error(answer)["code"]) == (403, 4)
        assert (await ask(url, query, headers="Origin: http://test\r\n")).status == 200
        async with connect(f"{url}/socket.io/?{WEBSOCKET}&token=1", origin=allowed) as ws:
            await ws.recv()
        with pytest.raises(HandshakeRejectedError):
            await connect(f"{url}/socket.io/?{WEBSOCKET}&token=1", origin=refused)


async def test_a_function_of_origins_that_fails_allows_none(caplog: pytest.LogCaptureFixture) -> None:
    def fail(origin: str, request: Request) -> bool:
        raise ZeroDivisionError

    async with polling(cors=fail) as (url, _, _):
        assert (await ask(url, POLLING, headers="Origin: http://other.example\r\n")).status == 403
        assert (await ask(url, POLLING)).status == 200
    assert "cors function failed" in caplog.text


async def test_what_callbacks_of_refused_requests_are_told(caplog: pytest.LogCaptureFixture) -> None:
    async with polling() as (url, io, _):
        refused: list[RefusedRequest] = []

        @io.on_connection_error
        def fail(request: RefusedRequest) -> None:
            raise ZeroDivisionError

        io.on_connection_error(refused.append)
        query = await opened(url)
        await ask(url, "EIO=4&transport=x")
        await ask(url, POLLING + "&sid=y")
        await ask(url, POLLING, "PUT")
        await ask(url, WEBSOCKET)
        await ask(url, POLLING, headers="Origin: http://evil.example\r\n")
        await ask(url, query.replace("polling", "websocket"))
        assert [(one.code, one.message, dict(one.context)) for one in refused] == [
            (0, "Transport unknown", {"transport": "x"}),
            (1, "Session ID unknown", {"sid": "y"}),
            (2, "Bad handshake method", {"method": "PUT"}),
            (3, "Bad request", {"name": "TRANSPORT_HANDSHAKE_ERROR"}),
            (4, "Forbidden", {"origin": "http://evil.example"}),
            (
                3,
                "Bad request",
                {"name": "TRANSPORT_MISMATCH", "transport": "websocket", "previous_transport": "polling"},
            ),
        ]
        assert refused[0].request.query == "EIO=4&transport=x"
        assert caplog.text.count("a connection error callback failed") == 6


@pytest.mark.parametrize(
    "options",
    [
        {"transports": []},
        {"transports": ["webtransport"]},
        {"transports": "polling"},
        {"cookie": "a b"},
        {"cors": [7]},
        {"http_compression": -1},
        {"max_nesting": 0},
    ],
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        SocketIO(**options)


def test_unknown_options() -> None:
    with pytest.raises(TypeError, match="max_nestin"):
        SocketIO(max_nestin=1)  # type: ignore[call-arg]
    assert EngineOptions(path="/x").transports == ("polling", "websocket")


# Compression of answers.

DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "deflate": zlib.decompress}


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, deflate, br", "gzip"),
        ("GZIP", "gzip"),
        ("deflate", "deflate"),
        ("gzip;q=0.5, deflate;q=0.8", "deflate"),
        ("gzip;q=0, *", "deflate"),
        ("*;q=0.1", "gzip"),
        ("gzip;q=0, deflate; q=0", None),
        ("gzip;q=x", None),
        ("br", None),
        ("identity", None),
        ("", None),
        (None, None),
    ],
)
async def test_large_answers_are_compressed_as_the_client_accepts(
    accepted: str | None, coding: str | None
) -> None:
    fields = "" if accepted is None else f"Accept-Encoding: {accepted}\r\n"
    async with polling(max_payload=1 << 20) as (url, io, _):
        query = await opened(url)
        for size in (800, 300_000):
            text = "안녕 " * (size // 7)
            io.emit("x", text)
            answer = await ask(url, query, headers=fields)
            large = size > 1024
            assert answer.fields.get("content-encoding") == (coding if large else None)
            body = DECOMPRESS[coding](answer.body) if coding and large else answer.body
            assert body.decode() == f'42["x","{text}"]'
            if coding and large:
                assert answer.fields["vary"] == "Accept-Encoding"
                assert len(answer.body) < size / 20


async def test_the_threshold_of_compression_is_an_option() -> None:
    fields = "Accept-Encoding: gzip\r\n"
    for threshold, compressed in ((10, True), (0, True), (16, False), (None, False)):
        async with polling(http_compression=threshold) as (url, io, _):
            query = await opened(url)
            io.emit("x", "12345")
            body = b'42["x","12345"]'
            answer = await ask(url, query, headers=fields)
            assert answer.fields.get("content-encoding") == ("gzip" if compressed else None)
            assert (gzip.decompress(answer.body) if compressed else answer.body) == body


def test_codings_in_several_fields() -> None:
    headers = Headers([("Accept-Encoding", "br"), ("Accept-Encoding", "deflate")])
    assert choose_coding(Request("GET", "/", headers)) == "deflate"


async def test_compression_leaves_the_loop_turns_to_others_and_is_done_one_by_one() -> None:
    compressor = Compressor()
    body = bytes(range(256)) * 4096  # 1 MiB: 16 pieces
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def compress(coding: Coding) -> bytes:
        async with compressor.turn:
            return await compressor.compress(body, coding)

    counting = asyncio.create_task(count())
    first, second = await asyncio.gather(compress("gzip"), compress("deflate"))
    counting.cancel()
    assert turns >= 30
    assert gzip.decompress(first) == zlib.decompress(second) == body


async def test_a_client_that_leaves_during_compression_loses_its_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = asyncio.Event()

    async def never(self: Compressor, body: bytes, coding: str) -> bytes:
        started.set()
        await asyncio.Event().wait()
        return body

    monkeypatch.setattr(Compressor, "compress", never)
    async with polling() as (url, io, _):
        query = await opened(url)
        io.emit("x", "x" * 2000)
        peer = await RawPeer.connect(url)
        head = f"GET /socket.io/?{query} HTTP/1.1\r\nHost: test\r\nAccept-Encoding: gzip\r\n\r\n"
        peer.writer.write(head.encode())
        async with asyncio.timeout(PATIENCE):
            await started.wait()
        await peer.close()
        await until(lambda: not io.sockets)


async def test_the_python_client_takes_compressed_answers() -> None:
    codings: list[str] = []

    def note(request: Request, fields: list[tuple[str, str]]) -> None:
        codings.extend(value for name, value in fields if name == "Content-Encoding")

    io = SocketIO(headers=note)
    server = Server()
    server.mount(io)
    heard: list[str] = []
    async with serving(server) as url:
        client = socketio.AsyncClient(reconnection=False)
        client.on("x", heard.append)
        await client.connect(url.replace("ws", "http", 1), transports=["polling"])
        io.emit("x", "안녕" * 1000)
        await until(lambda: heard)
        await client.disconnect()
    assert heard == ["안녕" * 1000]
    assert codings == ["gzip"]


# The client's bundles.


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    folder = tmp_path / "node_modules" / "socket.io-client" / "dist"
    folder.mkdir(parents=True)
    for name in ("socket.io.js", "socket.io.min.js", "socket.io.esm.min.js", "socket.io.msgpack.min.js"):
        (folder / name).write_text(f"/* {name} */")
        (folder / (name + ".map")).write_text("{}")
    (folder / "secret.js").write_text("no")
    return folder


async def test_the_bundles_are_served_below_the_path(bundles: Path) -> None:
    async with polling(serve_client=bundles, cors="https://other.example") as (url, _, _):
        for name in ("socket.io.js", "socket.io.min.js", "socket.io.esm.min.js", "socket.io.msgpack.min.js"):
            answer = await ask_raw(url, f"GET /socket.io/{name} HTTP/1.1\nHost: test")
            assert answer.body.decode() == f"/* {name} */"
            assert answer.fields["content-type"] == "application/javascript; charset=utf-8"
            tag = answer.fields["etag"]
            again = await ask_raw(url, f"GET /socket.io/{name} HTTP/1.1\nHost: test\nIf-None-Match: {tag}")
            assert (again.status, again.body) == (304, b"")
            answer = await ask_raw(url, f"GET /socket.io/{name}.map HTTP/1.1\nHost: test")
            assert (answer.body, answer.fields["content-type"]) == (b"{}", "application/json; charset=utf-8")
        head = await ask_raw(url, "HEAD /socket.io/socket.io.js HTTP/1.1\nHost: test")
        assert head.status == 200
        answer = await ask_raw(
            url, "GET /socket.io/socket.io.js HTTP/1.1\nHost: test\nOrigin: https://other.example"
        )
        assert answer.fields["access-control-allow-origin"] == "https://other.example"
        # Everything else below the path belongs to the protocol.
        answer = await ask_raw(url, "GET /socket.io/secret.js HTTP/1.1\nHost: test")
        assert error(answer) == {"code": 0, "message": "Transport unknown"}
        assert (await ask(url, POLLING)).status == 200


async def test_bundles_that_are_missing_are_an_error_at_once(
    bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"npm install socket\.io-client"):
        SocketIO(serve_client=tmp_path)
    with pytest.raises(ValueError, match="nowhere"):
        SocketIO(serve_client=tmp_path / "nowhere")
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    SocketIO(serve_client=True)  # found in a folder above, as Node does
    (bundles / "socket.io.js").rename(tmp_path / "gone.js")
    SocketIO(serve_client=True)
    (bundles / "socket.io.js.map").unlink()
    for name in client_files.NAMES - {"socket.io.js", "socket.io.js.map"}:
        (bundles / name).unlink()
    with pytest.raises(ValueError, match="serve_client"):
        SocketIO(serve_client=True)
    async with polling() as (url, _, _):
        assert (await ask_raw(url, "GET /socket.io/socket.io.js HTTP/1.1\nHost: test")).status == 400


async def test_a_browser_loads_the_bundles_from_the_server() -> None:
    chromium = find_program("chromium", "chromium-browser", "google-chrome")
    dist = NODE / "node_modules" / "socket.io-client" / "dist"
    need("Chromium and socket.io-client", chromium is not None and dist.exists())
    io = SocketIO(serve_client=dist)
    server = Server()
    server.mount(io)
    server.page("/", b"<script src='/socket.io/socket.io.min.js'></script>", "text/html")
    server.page("/msgpack", b"<script src='/socket.io/socket.io.msgpack.min.js'></script>", "text/html")
    io.on("echo")(lambda socket, word: word)
    async with serving(server) as url, async_playwright() as playwright:
        http = url.replace("ws", "http", 1)
        browser = await playwright.chromium.launch(executable_path=chromium, args=BROWSER_ARGUMENTS)
        page = await browser.new_page()
        await page.goto(http)
        assert await page.evaluate("io().emitWithAck('echo', 'hello')") == "hello"
        module = "import('/socket.io/socket.io.esm.min.js').then(({io}) => io().emitWithAck('echo', 'again'))"
        assert await page.evaluate(module) == "again"
        half = "io().emitWithAck('echo', '😀'.slice(0, -1)).then((answer) => answer === '\\ufffd')"
        assert await page.evaluate(half)
        # The other bundle, over polling and WebSocket.
        await page.goto(http + "/msgpack")
        for transport in ("polling", "websocket"):
            refused = f"new Promise((done) => io({{transports: ['{transport}']}}).on('connect_error', done))"
            assert "not msgpack" in await page.evaluate(f"{refused}.then((error) => error.message)")
        await browser.close()
