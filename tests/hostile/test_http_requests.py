"""HTTP requests and answers on the port of the WebSockets."""

import asyncio
import gc
from pathlib import Path

import pytest

from rfc6455 import Request
from rfc6455_server import HttpRequest, HttpResponse, Refusal, Server
from rfc6455_server.http import connection as http_connection
from rfc6455_server.http.routes import HttpRoute, Outcome
from rfc6455_server.http.static import _names_tag
from rfc6455_server.listening.routing import Preparation, compile_route
from rfc6455_server.socketio import SocketIO
from rfc6455_server.testing import ManualClock, TestClient, settle
from tests import test_http
from tests.helpers import peak_bytes
from tests.hostile.flaws import flaw
from tests.server_helpers import RawPeer, Recorder, echo_server, serving
from tests.test_http import Answer, page_server, read_answer

HANDSHAKE = (
    "GET /echo HTTP/1.1\nHost: a\nUpgrade: websocket\nConnection: Upgrade\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\n"
)
SECOND = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"


async def ask(server: Server, request: str, rest: bytes = b"") -> tuple[bytes, bool]:
    """Sends a request; returns the bytes of the answer, and whether the server has ended the connection."""
    async with TestClient(server) as client:
        peer = Recorder(client.clock)
        client.open(peer).write(request.replace("\n", "\r\n").encode("latin-1") + b"\r\n" + rest)
        await settle()
        return bytes(peer.received), peer.ended is not None


# Answers.


def location(request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=302, headers=[("Location", "/next\r\nSet-Cookie: a=b")])


def echoed(request: HttpRequest) -> HttpResponse:
    return HttpResponse(headers=[("X-Echo", request.head.headers["X-Echo"])])


def cancels_itself(request: HttpRequest) -> HttpResponse:
    raise asyncio.CancelledError


def nothing(request: HttpRequest) -> HttpResponse:
    return None  # type: ignore[return-value]


def bad_status(request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=1000)


def body_of_text(request: HttpRequest) -> HttpResponse:
    return HttpResponse("text")  # type: ignore[arg-type]


def callback_fails(request: HttpRequest) -> HttpResponse:
    def done(outcome: Outcome) -> None:
        raise ZeroDivisionError

    return HttpResponse(b"hi", done=done)


@flaw(
    "found here",
    what="makes an answer invalid (CR LF or é in a redirect, Latin-1 in an echoed field), or its handler fail"
    " in any way, and the connection stays open for ever",
    here="500, logged, or the end of the connection; the next request is answered",
)
@pytest.mark.parametrize(
    "make", [location, echoed, cancels_itself, nothing, bad_status, body_of_text, callback_fails]
)
async def test_an_answer_that_fails_ends_or_is_an_error(
    make: object, caplog: pytest.LogCaptureFixture
) -> None:
    problems: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    server = page_server()

    @server.http("/fails")
    async def handler(request: HttpRequest) -> HttpResponse:
        response: HttpResponse = make(request)  # type: ignore[operator]
        return response

    async with TestClient(server) as client:
        peer = Recorder(client.clock)
        client.open(peer).write(b"GET /fails HTTP/1.1\r\nHost: a\r\nX-Echo: \xe9\r\n\r\n" + SECOND)
        await settle()
        if make is body_of_text:
            assert peer.ended is not None
            assert peer.received == b""
        else:
            status = b"200" if make is callback_fails else b"500"
            assert peer.received.startswith(b"HTTP/1.1 %b " % status)
            assert peer.received.endswith(b"<p>hi")
            assert b"Set-Cookie" not in peer.received
    assert [record.levelname for record in caplog.records].count("ERROR") == 1
    assert ("HTTP handler failed" in caplog.text) is (make in (cancels_itself, nothing))
    caplog.clear()  # its tracebacks keep tasks alive
    gc.collect()  # a task whose exception nobody retrieved would be a problem
    assert problems == []


@flaw(
    "found here",
    what="makes the check of a route raise, and the exception leaves the protocol",
    here="500, logged, and the end of the connection",
)
@pytest.mark.parametrize("kind", ["http", "websocket", "refusal"])
async def test_a_check_that_fails_is_500(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    server = page_server()

    def fails(request: Request) -> None:
        raise ZeroDivisionError

    async def never(*_: object) -> HttpResponse:
        raise AssertionError

    server.add_http_route("/begins/", HttpRoute(never, begin=fails))
    server.add_websocket_route(compile_route("/checked", never, fails))  # type: ignore[arg-type]
    if kind == "refusal":

        @server.authorize
        async def check(request: Request) -> Refusal:
            return Refusal(403, headers=[("X-Bad", "a\r\nb"), ("only a name",)])  # type: ignore[list-item]

    request = {
        "http": "GET /begins/x HTTP/1.1\nHost: a\n",
        "websocket": HANDSHAKE.replace("/echo", "/checked"),
        "refusal": HANDSHAKE,
    }[kind]
    answer, ended = await ask(server, request)
    assert (answer[:13], ended) == (b"HTTP/1.1 500 ", True)
    assert [record.levelname for record in caplog.records].count("ERROR") == 1


@flaw(
    "CVE-2020-7695",
    "CVE-2026-1527",
    what="gets CR, LF or NUL into a field, a redirect, a content type or a subprotocol of the answer, and so"
    " writes fields or an answer of its own",
    here="500; nothing of the text is written",
)
@pytest.mark.parametrize("character", ["\r", "\n", "\r\n", "\0", "\x0b", "\x85\r\n", "č\n", "Ċ"])
@pytest.mark.parametrize(
    "place", ["name", "value", "content type", "refusal", "refusal name", "prepared", "prepared name"]
)
async def test_line_ends_in_all_that_is_written(place: str, character: str) -> None:
    bad = f"x{character}Set-Cookie: evil"
    server = echo_server()

    @server.http("/page")
    async def page(request: HttpRequest) -> HttpResponse:
        if place == "content type":
            return HttpResponse(b"hi", bad)
        return HttpResponse(b"hi", headers=[(bad, "x") if place == "name" else ("X-Name", bad)])

    if place.startswith("refusal"):

        @server.authorize
        async def check(request: Request) -> Refusal:
            return Refusal(403, headers=[(bad, "x") if place == "refusal name" else ("Location", bad)])

    def prepare(request: Request) -> Preparation:
        return Preparation([(bad, "x") if place == "prepared name" else ("X-Name", bad)])

    async def never(*_: object) -> None:
        raise AssertionError

    server.add_websocket_route(compile_route("/prepared", never)._replace(prepare=prepare))
    request = HANDSHAKE
    if place.startswith("prepared"):
        request = HANDSHAKE.replace("/echo", "/prepared")
    elif not place.startswith("refusal"):
        request = "GET /page HTTP/1.1\nHost: a\n"
    answer, _ = await ask(server, request)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"evil" not in answer


@flaw(
    "CVE-2020-7695",
    what="names fields of a preflight request that end a line of its answer",
    here="400 for anything but a list of tokens",
)
@pytest.mark.parametrize("value", ["x-a\x0bb", "x-a: b", "x-a\xa0", "x-\xe9", "x y", "\x85"])
async def test_what_a_preflight_request_names_is_a_list_of_tokens(value: str) -> None:
    server = Server()
    server.mount(SocketIO(cors="https://a.example"))
    request = (
        "OPTIONS /socket.io/?EIO=4&transport=polling HTTP/1.1\nHost: a\nOrigin: https://a.example\n"
        f"Access-Control-Request-Headers: {value}\n"
    )
    answer, _ = await ask(server, request)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert value.encode("latin-1") not in answer


# Requests.


@flaw(
    "CVE-2026-69243",
    what="sends a body with both lengths, or a chunked one of HTTP/1.0: a proxy may see another end of it,"
    " and take the rest for a request of somebody else (request smuggling)",
    here="400, and the end of the connection (RFC 9112 §6.1); what follows is no request",
)
@pytest.mark.parametrize(
    "fields",
    [
        "HTTP/1.1\nHost: a\nContent-Length: 3\nTransfer-Encoding: chunked\n",
        "HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nContent-Length: 3\n",
        "HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\ncontent-length: 0\n",
        "HTTP/1.0\nTransfer-Encoding: chunked\nConnection: keep-alive\n",
        "HTTP/1.1\nHost: a\nContent-Length: 3\nContent-Length: 4\n",
        "HTTP/1.1\nHost: a\nContent-Length: 3, 4\n",
        "HTTP/1.1\nHost: a\nContent-Length: +3\n",
        "HTTP/1.1\nHost: a\nContent-Length: 0x3\n",
        "HTTP/1.1\nHost: a\nContent-Length: \xb3\n",
        "HTTP/1.1\nHost: a\nContent-Length: 1_0\n",
        "HTTP/1.1\nHost: a\nContent-Length:\n",
    ],
)
async def test_a_body_with_two_lengths_ends_the_connection(fields: str) -> None:
    answer, ended = await ask(page_server(), f"POST /upper {fields}", b"3\r\nabc\r\n0\r\n\r\n" + SECOND)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert (answer.count(b"HTTP/1.1 "), ended) == (1, True)


@flaw(
    "CVE-2026-69243",
    what="puts a body on the request for an upgrade: a proxy takes frames for it, or it for a request",
    here="400, and the end of the connection; the body is neither frames nor a request",
)
@pytest.mark.parametrize(
    "fields",
    [
        "Content-Length: 33\n",
        "Transfer-Encoding: chunked\n",
        "Transfer-Encoding: identity\n",
        "Content-Length: 0\nTransfer-Encoding: chunked\n",
        "Content-Length: 1\nContent-Length: 0\n",
    ],
)
async def test_an_upgrade_has_no_body(fields: str) -> None:
    answer, ended = await ask(page_server(), HANDSHAKE + fields, SECOND)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert (answer.count(b"HTTP/1.1 "), ended) == (1, True)


@flaw(
    "found here",
    what="sends a target without a slash, a foreign scheme, a Host that is none, or HTTP/2.0, and gets pages",
    here="400, or 505 for another version, and the end of the connection (RFC 9112 §3.2)",
)
@pytest.mark.parametrize(
    ("line", "host", "status"),
    [
        ("GET hello HTTP/1.1", "a", b"400"),
        ("POST upper HTTP/1.1", "a", b"400"),
        ("GET ftp://a/hello HTTP/1.1", "a", b"400"),
        ("GET * HTTP/1.1", "a", b"400"),
        ("GET @evil/hello HTTP/1.1", "a", b"400"),
        ("GET a:80 HTTP/1.1", "a", b"400"),
        ("GET /hello HTTP/1.1", "a b", b"400"),
        ("GET /hello HTTP/1.1", "a/b", b"400"),
        ("GET /hello HTTP/1.1", "evil@a", b"400"),
        ("GET /hello HTTP/1.1", "\xe9", b"400"),
        ("GET /hello HTTP/1.1", "a\nHost: b", b"400"),
        ("GET /hello HTTP/2.0", "a", b"505"),
        ("POST /upper HTTP/0.9", "a", b"505"),
        ("GET /hello HTTP/1.1", "a:80", b"200"),
        ("GET /hello HTTP/1.1", "[::1]:80", b"200"),
        ("GET HTTP://a/hello HTTP/1.1", "a", b"200"),
        ("OPTIONS * HTTP/1.1", "a", b"404"),
    ],
)
async def test_only_a_target_with_a_path_gets_pages(line: str, host: str, status: bytes) -> None:
    answer, ended = await ask(page_server(), f"{line}\nHost: {host}\n")
    assert answer.startswith(b"HTTP/1.1 %b " % status)
    assert ended is (status in (b"400", b"505"))


@flaw(
    "found here",
    what="sends a field twice that may occur once (Origin), and the exception leaves the protocol; or one"
    " that is a list (If-None-Match), and gets 500",
    here="a list is read as one (RFC 9110 §5.3); a page needs no origin, and the rest is 400",
)
async def test_fields_that_come_twice(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("x")
    facts = file.stat()
    tag = f'"{facts.st_mtime_ns:x}-{facts.st_size:x}"'
    server = page_server()
    server.static("/files/", tmp_path)
    server.mount(SocketIO())
    twice = "Origin: http://a\nOrigin: http://b\n"
    answer, _ = await ask(server, f"GET /hello HTTP/1.1\nHost: a\n{twice}")
    assert answer.startswith(b"HTTP/1.1 200 ")
    lines = f'If-None-Match: "x"\nIf-None-Match: W/{tag}\n'
    async with serving(server) as url:
        page = await test_http.ask(url, f"GET /files/a HTTP/1.1\nHost: a\n{lines}")
        assert page.status == 304
    answer, _ = await ask(server, HANDSHAKE + twice)
    assert answer.startswith(b"HTTP/1.1 400 ")
    answer, _ = await ask(server, f"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\nHost: a\n{twice}")
    assert answer.startswith(b"HTTP/1.1 400 ")


@flaw(
    "found here",
    what='fills the head with entity tags, `*` or `""`: 57,000 were found and compared in one turn',
    here="the first 100 are compared; without a match, the file is sent",
)
def test_more_entity_tags_than_a_cache_has() -> None:
    for few, many in (('"x", ' * 99, '"x", ' * 100), ('""' * 99, '""' * 100)):
        assert _names_tag([f'{few}"tag"'], '"tag"')
        assert not _names_tag([f'{many}"tag"'], '"tag"')
        assert not _names_tag([many, "*"], '"tag"')


@flaw(
    "found here",
    what="offers another protocol with each request, as curl (`--http2`) and Java do, and gets no page",
    here="only the token `websocket` counts (RFC 9110 §7.8)",
)
async def test_an_offer_of_another_protocol_gets_pages() -> None:
    offer = "Connection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQAAP__\n"
    async with serving(page_server()) as url:
        peer = await RawPeer.connect(url)
        for method, path, body in (("GET", "/hello", b""), ("POST", "/upper", b"abc")):
            head = f"{method} {path} HTTP/1.1\nHost: a\nContent-Length: {len(body)}\n{offer}\n"
            peer.writer.write(head.replace("\n", "\r\n").encode() + body)
            answer: Answer = await read_answer(peer)
            assert (answer.status, answer.body) == (200, body.upper() or b"<p>hi")
        await peer.close()
    answered, _ = await ask(echo_server(), f"GET /echo HTTP/1.1\nHost: a\n{offer}")
    assert answered.startswith(b"HTTP/1.1 426 ")


# Floods.


@flaw(
    "CVE-2021-32640",
    "CVE-2024-37890",
    what="sends a line without an end, thousands of fields, or megabytes of a head",
    here="refused at the limit; at most 400 KB are held, however much comes",
)
@pytest.mark.parametrize(
    ("start", "more", "status"),
    [
        (b"GET /", b"a" * 1000, 414),
        (b"GET / HTTP/1.1\r\nX: ", b"a" * 1000, 431),
        (b"GET / HTTP/1.1\r\n", b"X: y\r\n" * 200, 431),
        (b"GET / HTTP/1.1\r\n", (b"X" * 500 + b": y\r\n") * 2, 431),
        (b"GET / HTTP/1.1\r\nSec-WebSocket-Extensions: ", b"a;" * 500, 431),
    ],
)
async def test_a_flood_of_head_is_refused(start: bytes, more: bytes, status: int) -> None:
    server = echo_server()
    async with TestClient(server) as client:
        listener = server.make_ready()
        protocol = listener.make_protocol("192.0.2.1", client.clock.time() + 10)
        assert not isinstance(protocol, bytes)
        peer = Recorder(client.clock)
        client.open(peer)  # its server side is fed by hand, so that all that is held is counted
        opening = next(iter(listener._openings._deadlines))

        def feed() -> None:
            opening.receive_data(start)
            for _ in range(2000):
                opening.receive_data(more)

        assert peak_bytes(feed) < 400_000
        await settle()
        assert peer.received.startswith(b"HTTP/1.1 %d " % status)


@flaw(
    "CVE-2026-48779",
    what="sends a body in chunks of one byte, each of which costs as much time as a message",
    here="413 after 1,024 small chunks; larger ones have no such limit",
)
@pytest.mark.parametrize(
    ("size", "count", "allowed"), [(1, 40_000, False), (1, 1000, True), (100, 8000, True)]
)
async def test_a_body_in_tiny_chunks_is_refused(
    size: int, count: int, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = 0
    take_body = http_connection.HttpConnection._take_body

    def counted(self: http_connection.HttpConnection, event: object) -> None:
        nonlocal taken
        taken += 1
        take_body(self, event)

    monkeypatch.setattr(http_connection.HttpConnection, "_take_body", counted)
    body = (b"%x\r\n" % size + b"a" * size + b"\r\n") * count + b"0\r\n\r\n"
    request = "POST /upper HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n"
    async with serving(page_server()) as url:
        peer = await RawPeer.connect(url)
        peer.writer.write(request.replace("\n", "\r\n").encode() + b"\r\n" + body)
        answer = await read_answer(peer)
        assert (answer.status, len(answer.body)) == ((200, size * count) if allowed else (413, 22))
        await peer.close()
    if not allowed:
        assert taken < 1100


@flaw(
    "found here",
    what="pipelines thousands of requests and reads no answer",
    here="they wait in TCP while one is answered, and the connection ends when the answer is not taken",
)
async def test_pipelined_requests_wait_in_tcp() -> None:
    clock = ManualClock()
    server = page_server(clock=clock)
    server.page("/big", bytes(200_000), "text/plain")
    async with TestClient(server, clock) as client:
        transport = client.open(Recorder(clock))
        transport.pause_reading()
        transport.write(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n" * 20_000)
        await settle()
        assert transport.get_write_buffer_size() > 400_000
        assert server.queued < 500_000
        await clock.advance(server.limits.send_timeout + 1)
        assert server.make_ready().connections == 0
        assert server.queued == 0
