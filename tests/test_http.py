"""HTTP on the port of the WebSockets: over TCP, and in memory where deadlines matter."""

import asyncio
import gc
import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pytest

from rfc6455 import ClientHandshake, __version__
from rfc6455_server import HttpRequest, HttpResponse, Server, WebSocket, connect
from rfc6455_server.http import connection as http_connection
from rfc6455_server.http import static
from rfc6455_server.http.routes import HttpRoute, HttpRoutes, fixed
from rfc6455_server.testing import ManualClock, TestClient, settle
from tests.server_helpers import PATIENCE, RawPeer, Recorder, echo_server, serving, until


class Answer:
    def __init__(self, head: bytes, body: bytes) -> None:
        lines = head.decode().split("\r\n")
        self.status = int(lines[0].split()[1])
        self.fields = {
            name.lower(): value.strip() for name, _, value in (f.partition(":") for f in lines[1:])
        }
        self.body = body


async def read_answer(peer: RawPeer, *, body: bool = True) -> Answer:
    async with asyncio.timeout(PATIENCE):
        head = (await peer.reader.readuntil(b"\r\n\r\n"))[:-4]
        answer = Answer(head, b"")
        if body:
            answer.body = await peer.reader.readexactly(int(answer.fields.get("content-length", 0)))
    return answer


async def ask(url: str, request: str, body: bytes = b"") -> Answer:
    """Sends one request on a new connection, and returns the response."""
    peer = await RawPeer.connect(url)
    peer.writer.write(request.replace("\n", "\r\n").encode() + b"\r\n" + body)
    answer = await read_answer(peer, body=not request.startswith("HEAD"))
    await peer.close()
    return answer


def page_server(**options: object) -> Server:
    server = echo_server(**options)
    server.page("/hello", b"<p>hi", "text/html")

    @server.http("/upper", "POST")
    async def upper(request: HttpRequest) -> HttpResponse:
        return HttpResponse(request.body.upper(), headers=[("X-Address", request.address)])

    @server.http("/broken")
    async def broken(request: HttpRequest) -> HttpResponse:
        raise ZeroDivisionError

    @server.http("/bad-field")
    async def bad_field(request: HttpRequest) -> HttpResponse:
        return HttpResponse(headers=[("X-Name", "é")])

    @server.http("/broken-body")
    async def broken_body(request: HttpRequest) -> HttpResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"be"
            raise ZeroDivisionError

        return HttpResponse(pieces=pieces(), length=5)

    return server


@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        ("GET /hello HTTP/1.1\nHost: a\n", 200, b"<p>hi"),
        ("GET /hello?x HTTP/1.1\nHost: a\n", 200, b"<p>hi"),
        ("GET http://a/hello HTTP/1.1\nHost: a\n", 200, b"<p>hi"),
        ("GET /hello HTTP/1.0\n", 200, b"<p>hi"),
        ("HEAD /hello HTTP/1.1\nHost: a\n", 200, b""),
        ("POST /hello HTTP/1.1\nHost: a\nContent-Length: 0\n", 405, b"method not allowed\n"),
        ("GET /upper HTTP/1.1\nHost: a\n", 405, b"method not allowed\n"),
        ("GET /other HTTP/1.1\nHost: a\n", 404, b"not found\n"),
        ("DELETE /other HTTP/1.1\nHost: a\n", 404, b"not found\n"),
        ("GET /broken HTTP/1.1\nHost: a\n", 500, b"internal error\n"),
        ("GET /bad-field HTTP/1.1\nHost: a\n", 500, b"internal error\n"),
        ("GET /healthz HTTP/1.1\nHost: a\n", 200, b"ok\n"),
        ("GET /readyz HTTP/1.1\nHost: a\n", 200, b"ready\n"),
        ("GET /hello HTTP/1.1\nHost: a\nHost: b\n", 400, None),
        ("POST /upper HTTP/1.1\nHost: a\nContent-Length: x\n", 400, None),
        ("POST /upper HTTP/1.1\nHost: a\nTransfer-Encoding: gzip\n", 501, None),
    ],
)
async def test_answers(request_: str, status: int, body: bytes | None) -> None:
    async with serving(page_server()) as url:
        answer = await ask(url, request_)
        assert answer.status == status
        assert body is None or answer.body == body
        assert answer.fields["x-content-type-options"] == "nosniff"
        assert answer.fields["date"].endswith("GMT")
        if request_.startswith("HEAD"):
            assert answer.fields["content-length"] == "5"
        if status == 405:
            assert answer.fields["allow"] in ("GET, HEAD", "POST")


async def test_a_body_that_breaks_off_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(page_server()) as url:
        peer = await RawPeer.connect(url)
        peer.writer.write(b"GET /broken-body HTTP/1.1\r\nHost: a\r\n\r\n")
        await peer.reader.readuntil(b"\r\n\r\n")
        with suppress(ConnectionResetError):
            assert await peer.read_to_end() == b"be"
        assert "sending an answer failed" in caplog.text
        await peer.close()


async def test_bodies_with_a_length_and_in_chunks() -> None:
    async with serving(page_server()) as url:
        answer = await ask(url, "POST /upper HTTP/1.1\nHost: a\nContent-Length: 5\n", b"hello")
        assert (answer.status, answer.body) == (200, b"HELLO")
        assert answer.fields["x-address"] == "127.0.0.1"
        chunks = b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
        answer = await ask(url, "POST /upper HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n", chunks)
        assert answer.body == b"HELLO"


async def test_a_client_that_expects_100_continue() -> None:
    async with serving(page_server()) as url:
        peer = await RawPeer.connect(url)
        peer.writer.write(
            b"POST /upper HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        assert await peer.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 \r\n\r\n"
        peer.writer.write(b"hi")
        assert (await read_answer(peer)).body == b"HI"
        await peer.close()


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_large_is_413_before_it_arrives(chunked: bool) -> None:
    server = page_server()

    async def never(request: HttpRequest) -> HttpResponse:
        raise AssertionError

    server.add_http_route("/small/", HttpRoute(never, ("POST",), max_body=10))
    async with serving(server) as url:
        peer = await RawPeer.connect(url)
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 1000000"
        peer.writer.write(b"POST /small/x HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n")
        if chunked:
            peer.writer.write(b"b\r\n12345678901\r\n")
        answer = await read_answer(peer)
        assert (answer.status, answer.fields["connection"]) == (413, "close")
        assert await peer.read_to_end() == b""
        await peer.close()


async def test_a_connection_is_reused_for_requests_and_then_an_upgrade() -> None:
    async with serving(page_server()) as url:
        peer = await RawPeer.connect(url)
        for _ in range(3):
            peer.writer.write(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await read_answer(peer)).body == b"<p>hi"
        peer.writer.write(
            b"GET /echo HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert (await peer.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        peer.send(1, b"hello")
        assert await peer.read(7) == b"\x81\x05hello"
        await peer.close()


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serving(page_server()) as url:
        peer = await RawPeer.connect(url)
        requests = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\nGET /other HTTP/1.1\r\nHost: a\r\n\r\n"
        requests += b"POST /upper HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nConnection: close\r\n\r\nz"
        peer.writer.write(requests)
        answers = [await read_answer(peer) for _ in range(3)]
        assert [answer.body for answer in answers] == [b"<p>hi", b"not found\n", b"Z"]
        assert await peer.read_to_end() == b""
        await peer.close()


async def test_a_flood_of_requests_waits_in_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "MAX_EARLY", 1000)
    server = page_server()
    go = asyncio.Event()

    @server.http("/slow")
    async def slow(request: HttpRequest) -> HttpResponse:
        await go.wait()
        return HttpResponse(b"done")

    async with TestClient(server) as client:
        peer = Recorder(client.clock)
        transport = client.open(peer)
        transport.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        await settle()
        count = 500
        transport.write(b"GET /hello HTTP/1.1\r\nHost: a\r\nX: %s\r\n\r\n" % (b"x" * 500) * count)
        await settle()
        assert transport.get_write_buffer_size() > 50_000
        go.set()
        await until(lambda: peer.received.count(b"<p>hi") == count)
        assert peer.received.count(b"HTTP/1.1 200 ") == 1 + count
        assert peer.received.index(b"done") < peer.received.index(b"<p>hi")


async def test_a_slow_body_has_a_deadline() -> None:
    clock = ManualClock()
    async with TestClient(page_server(clock=clock, send_timeout=30), clock) as client:
        peer = Recorder(client.clock)
        transport = client.open(peer)
        transport.write(b"POST /upper HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n")
        for _ in range(29):
            await clock.advance(1)
            transport.write(b"x")
        assert peer.ended is None
        await clock.advance(1)
        assert peer.ended is not None
        assert peer.received == b""


async def test_an_idle_connection_is_closed_without_a_response() -> None:
    clock = ManualClock()
    async with TestClient(page_server(clock=clock, handshake_timeout=10), clock) as client:
        peer = Recorder(client.clock)
        transport = client.open(peer)
        await clock.advance(5)
        transport.write(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
        await settle()
        answer = bytes(peer.received)
        assert answer.endswith(b"<p>hi")
        await clock.advance(9.9)
        assert peer.ended is None
        await clock.advance(0.2)
        assert peer.ended is not None
        assert peer.received == answer


async def test_eof_cancels_only_a_long_request() -> None:
    server = page_server()
    seen: list[str] = []
    go_on = asyncio.Event()

    async def wait(request: HttpRequest) -> HttpResponse:
        try:
            await go_on.wait()
        except asyncio.CancelledError:
            seen.append("cancelled " + request.head.path)
            raise
        seen.append("done " + request.head.path)
        return HttpResponse(b"ok")

    server.add_http_route("/long/", HttpRoute(wait, long=True))
    server.add_http_route("/short/", HttpRoute(wait))
    async with TestClient(server) as client:
        peers = []
        for path in ("/long/", "/short/"):
            peers.append(Recorder(client.clock))
            transport = client.open(peers[-1])
            transport.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            await settle()
            transport.write_eof()  # half-closes: a short request is still answered
            await settle()
        assert seen == ["cancelled /long/"]
        go_on.set()
        await settle()
    assert seen == ["cancelled /long/", "done /short/"]
    assert peers[0].received == b""
    assert peers[1].received.endswith(b"\r\n\r\nok")


async def test_a_client_that_does_not_read_is_disconnected() -> None:
    server = page_server(send_timeout=0.2)
    server.page("/big", bytes(30_000_000), "text/plain")
    async with serving(server) as url:
        peer = await RawPeer.connect(url)
        peer.writer.write(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: server.make_ready().connections == 1)
        await until(lambda: server.make_ready().connections == 0)
        await peer.close()


async def test_the_time_to_read_runs_by_the_clock_of_the_server() -> None:
    clock = ManualClock()
    server = page_server(clock=clock, send_timeout=30)
    server.page("/big", bytes(1_000_000), "text/plain")
    async with TestClient(server, clock) as client:
        transport = client.open(Recorder(clock))
        transport.pause_reading()
        transport.write(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
        await clock.advance(29)
        assert server.queued > 900_000
        await clock.advance(2)
        assert server.queued == 0
        assert server.make_ready().connections == 0


async def test_a_client_has_time_as_long_as_it_takes_64_kib_within_the_send_timeout() -> None:
    clock = ManualClock()
    server = page_server(clock=clock, send_timeout=20)
    server.page("/big", bytes(1_000_000), "text/plain")
    async with TestClient(server, clock) as client:
        peer = Recorder(clock)
        transport = client.open(peer)
        transport.pause_reading()
        transport.write(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
        for _ in range(8):  # 64 KiB each
            await clock.advance(15)
            transport.resume_reading()
            await asyncio.sleep(0)
            transport.pause_reading()
        assert server.make_ready().connections == 1
        assert 400_000 < len(peer.received) < 700_000
        await clock.advance(41)  # the time of the last ones, and its own
        assert server.make_ready().connections == 0
        assert server.queued == 0


@pytest.mark.parametrize("path", ["/hello", "/nowhere", "/fails", "/invalid"])
async def test_who_made_an_answer_is_told_when_it_is_done(path: str) -> None:
    server = page_server()
    done: list[bool] = []

    async def answer(request: HttpRequest) -> HttpResponse:
        fields = [("X-Bad", "a\nb")] if path == "/invalid" else []
        return HttpResponse(b"hi", headers=fields, done=done.append)

    server.http(path)(answer)
    async with serving(server) as url:
        peer = await RawPeer.connect(url)
        peer.writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        await read_answer(peer)
        await until(lambda: done)
        assert done == [path != "/invalid"]
        await peer.close()


async def test_a_client_that_resets_after_its_response() -> None:
    """Health checks of some proxies do this."""
    problems: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))

    def check(port: int) -> None:
        for _ in range(100):
            with socket.create_connection(("127.0.0.1", port)) as plain:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                plain.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
                assert plain.recv(1000).startswith(b"HTTP/1.1 200 ")

    server = page_server()
    async with serving(server):
        await asyncio.to_thread(check, server.port)
    gc.collect()
    assert problems == []


async def test_a_client_that_closes_after_its_last_response_is_released_at_once() -> None:
    class Client(asyncio.Protocol):
        received = b""

        def data_received(self, data: bytes) -> None:
            self.received += data

        def eof_received(self) -> bool:
            return True  # keeps TCP open when the server closes

    clock = ManualClock()
    server = page_server(clock=clock)
    async with TestClient(server, clock) as client:
        peer = Client()
        transport = client.open(peer)
        transport.write(b"GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        await settle()
        assert peer.received.endswith(b"<p>hi")
        assert server.make_ready().connections == 1
        transport.close()
        await settle()
        assert server.make_ready().connections == 0


async def test_stop_cancels_requests_in_progress() -> None:
    server = page_server()
    cancelled = asyncio.Event()
    started = asyncio.Event()

    @server.http("/slow")
    async def slow(request: HttpRequest) -> HttpResponse:
        started.set()
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.set()
        return HttpResponse()

    async with serving(server) as url:
        peer = await RawPeer.connect(url)
        peer.writer.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        await started.wait()
        await server.stop()
        assert cancelled.is_set()
        await peer.close()


async def test_without_h11_http_is_501_and_websockets_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_connection, "load_h11", lambda: None)
    async with serving(page_server()) as url:
        answer = await ask(url, "GET /hello HTTP/1.1\nHost: a\n")
        assert (answer.status, answer.body) == (501, b"HTTP needs h11: install rfc6455[server]\n")
        async with connect(url + "/echo") as ws:
            await ws.send("x")
            assert await ws.recv() == "x"


# Files.


@pytest.fixture
def files(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "index.html").write_text("<p>index")
    (root / "sub" / "a b.txt").write_text("text")
    (root / "data.bin").write_bytes(bytes(range(256)) * 4096)
    (root / ".hidden").write_text("secret")
    (tmp_path / "outside.txt").write_text("secret")
    (root / "link.txt").symlink_to(tmp_path / "outside.txt")
    return root


@pytest.mark.parametrize(
    ("path", "status", "content_type"),
    [
        ("/files/", 200, "text/html; charset=utf-8"),
        ("/files/index.html", 200, "text/html; charset=utf-8"),
        ("/files/sub/a%20b.txt", 200, "text/plain; charset=utf-8"),
        ("/files/data.bin", 200, "application/octet-stream"),
        ("/files/sub/", 404, None),
        ("/files/sub", 404, None),
        ("/files/none", 404, None),
        ("/files/../outside.txt", 404, None),
        ("/files/%2e%2e/outside.txt", 404, None),
        ("/files/..%2foutside.txt", 404, None),
        ("/files/sub/..%2f..%2f..%2foutside.txt", 404, None),
        ("/files/%2fetc%2fpasswd", 404, None),
        ("/files//etc/passwd", 404, None),
        ("/files/sub%00.txt", 404, None),
        ("/files/sub%5c..%5cdata.bin", 404, None),
        ("/files/link.txt", 404, None),
        ("/files/.hidden", 404, None),
        ("/files/" + "a" * 3000, 404, None),
    ],
)
async def test_files(files: Path, path: str, status: int, content_type: str | None) -> None:
    server = Server()
    server.static("/files/", files)
    async with serving(server) as url:
        answer = await ask(url, f"GET {path} HTTP/1.1\nHost: a\n")
        assert answer.status == status
        assert b"secret" not in answer.body
        if content_type is not None:
            assert answer.fields["content-type"] == content_type
            assert answer.body
            assert "default-src 'self'" in answer.fields["content-security-policy"]
            tag = answer.fields["etag"]
            again = await ask(url, f"GET {path} HTTP/1.1\nHost: a\nIf-None-Match: {tag}\n")
            assert (again.status, again.body) == (304, b"")
            head = await ask(url, f"HEAD {path} HTTP/1.1\nHost: a\n")
            assert int(head.fields["content-length"]) == len(answer.body)


async def test_a_file_that_shrinks_while_it_is_sent(
    files: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()
    server.static("/", files)
    find = static._find_file

    def find_and_cut(root: Path, path: str) -> Path | None:
        file = find(root, path)
        assert file is not None
        stat = file.stat()
        file.write_bytes(b"short")
        monkeypatch.setattr(Path, "stat", lambda self, **_: stat)
        return file

    monkeypatch.setattr(static, "_find_file", find_and_cut)
    async with serving(server) as url:
        peer = await RawPeer.connect(url)
        peer.writer.write(b"GET /data.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await read_answer(peer)  # cut off, so that the client cannot take it for the whole file
        await peer.close()
    assert "OSError: the file was truncated while it was sent" in caplog.text


def test_an_invalid_prefix_or_a_missing_directory_raises(files: Path) -> None:
    for prefix in ("files/", "/files", ""):
        with pytest.raises(ValueError, match="prefix"):
            Server().static(prefix, files)
    with pytest.raises(OSError, match="none"):
        Server().static("/files/", files / "none")
    server = Server()
    server.static("/files/", files)
    with pytest.raises(ValueError, match="already served: /files/"):
        server.static("/files/", files)


def test_the_longest_prefix_and_the_exact_path_win() -> None:
    routes = HttpRoutes()
    a, b, c = (HttpRoute(fixed(b"", "text/plain")) for _ in range(3))
    routes.add_prefix("/", a)
    routes.add_prefix("/x/", b)
    routes.add("/x/y", c)
    assert [routes.find(path) for path in ("/", "/x", "/x/", "/x/z", "/x/y")] == [a, a, b, b, c]
    assert HttpRoutes().find("/") is None


# Metrics.


async def test_metrics_show_the_counters_of_the_server() -> None:
    server = page_server()

    @server.websocket("/lobby")
    async def lobby(ws: WebSocket) -> None:
        server.rooms["lobby"].join(ws)
        async for _ in ws:
            pass

    async with serving(server) as url:
        async with connect(url + "/echo") as one, connect(url + "/lobby") as two:
            await one.send("hello")
            await one.recv()
            await two.ping()
            text = (await ask(url, "GET /metrics HTTP/1.1\nHost: a\n")).body.decode()
            assert "rfc6455_connections 2.0" in text
            assert "rfc6455_rooms 1.0" in text
            assert "rfc6455_queued_bytes 0.0" in text
            assert 'rfc6455_messages_total{direction="in"} 1.0' in text
            assert 'rfc6455_messages_total{direction="out"} 1.0' in text
        await ask(url, "GET /none HTTP/1.1\nHost: a\n")
        answer = await ask(url, "GET /metrics HTTP/1.1\nHost: a\n")
        text = answer.body.decode()
    assert answer.fields["content-type"].startswith("text/plain; version=")
    assert "rfc6455_connections 0.0" in text
    assert "rfc6455_accepted_total 2.0" in text
    assert 'rfc6455_closes_total{cause="peer",code="1000"} 2.0' in text
    assert 'rfc6455_refused_total{reason="not found",status="404"} 1.0' in text
    for name in ("latency", "loop_lag"):
        assert re.search(rf'rfc6455_{name}_seconds_bucket{{le="\+Inf"}} \d', text)
        assert f"rfc6455_{name}_seconds_sum" in text
    assert float(re.findall(r'rfc6455_bytes_total{direction="in"} (\S+)', text)[0]) > 11


async def test_metrics_show_the_limits_and_what_received_messages_hold() -> None:
    server = Server(max_queue=12_345, message_rate=100_000)
    go_on = asyncio.Event()

    @server.websocket("/slow")
    async def slow(ws: WebSocket) -> None:
        await go_on.wait()
        async for _ in ws:
            pass

    async def metrics() -> str:
        return (await ask(url, "GET /metrics HTTP/1.1\nHost: a\n")).body.decode()

    async def incoming() -> float:
        return float(re.findall(r"^rfc6455_incoming_bytes (\S+)$", await metrics(), re.MULTILINE)[0])

    async with serving(server) as url:
        text = await metrics()
        shown = dict(re.findall(r'^rfc6455_limit{option="(\w+)"} (\S+)$', text, re.MULTILINE))
        set_limits = {name: value for name, value in asdict(server.limits).items() if value is not None}
        assert {name: float(value) for name, value in shown.items()} == set_limits
        assert f'rfc6455_info{{version="{__version__}"}} 1.0' in text
        assert await incoming() == 0
        async with connect(url + "/slow") as ws:
            for _ in range(3):
                await ws.send(bytes(10_000))
            await ws.ping()
            assert 30_000 <= await incoming() < 100_000
            go_on.set()
            await until(lambda: not server.websockets[0].unread_bytes)
            assert await incoming() == 0


async def test_metrics_show_failures_and_the_process() -> None:
    server = echo_server()

    @server.http("/broken")
    async def broken(_: HttpRequest) -> HttpResponse:
        raise ZeroDivisionError

    async def metrics() -> dict[str, float]:
        text = (await ask(url, "GET /metrics HTTP/1.1\nHost: a\n")).body.decode()
        return {name: float(value) for name, value in re.findall(r"^([^# ].*) (\S+)$", text, re.MULTILINE)}

    async with serving(server) as url:
        failures = 'rfc6455_errors_total{event="HTTP handler failed"}'
        before = (await metrics()).get(failures, 0)
        for _ in range(2):
            assert (await ask(url, "GET /broken HTTP/1.1\nHost: a\n")).status == 500
        after = await metrics()
    assert after[failures] == before + 2
    assert after['rfc6455_refused_total{reason="handler failed",status="500"}'] == 2
    assert after["process_resident_memory_bytes"] > 1 << 20
    assert after["process_open_fds"] > 3
    assert after["process_cpu_seconds_total"] > 0
    assert 'python_gc_collections_total{generation="0"}' in after


async def test_codes_that_applications_choose_are_one_label() -> None:
    """A peer chooses the code that we send back: it must not make up a time series for each connection."""
    server = echo_server()
    async with serving(server) as url:
        for code in (3000, 4000, 4999):
            ws = await connect(url + "/echo")
            await ws.close(code)
        await connect(url + "/echo")
        server.websockets[0].abort()
        await until(lambda: not server.websockets)
        text = (await ask(url, "GET /metrics HTTP/1.1\nHost: a\n")).body.decode()
    assert 'rfc6455_closes_total{cause="peer",code="private"} 3.0' in text
    assert 'rfc6455_closes_total{cause="connection lost",code="none"} 1.0' in text


async def test_connections_are_counted_until_tcp_is_closed_and_handlers_while_they_run() -> None:
    server = Server()
    go_on = asyncio.Event()

    @server.websocket("/returns")
    async def returns(ws: WebSocket) -> None:
        await ws.recv()

    @server.websocket("/stays")
    async def stays(ws: WebSocket) -> None:
        await go_on.wait()

    async def gauges() -> list[str]:
        text = (await ask(url, "GET /metrics HTTP/1.1\nHost: a\n")).body.decode()
        return re.findall(r"^rfc6455_(?:connections|handlers) (\S+)$", text, re.MULTILINE)

    async with serving(server) as url:
        peer = await RawPeer.upgraded(url, "/returns")
        peer.send(1, b"x")
        await peer.read(4)  # our Close, which the peer does not answer
        assert await gauges() == ["1.0", "0.0"]
        peer.writer.transport.abort()
        await until(lambda: server.make_ready().open_websockets == 0)
        peer = await RawPeer.upgraded(url, "/stays")
        peer.writer.transport.abort()
        await until(lambda: server.make_ready().open_websockets == 0)
        assert await gauges() == ["0.0", "1.0"]
        go_on.set()


async def test_metrics_without_prometheus_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rfc6455_server.http.metrics.load_prometheus", lambda: None)
    async with serving(page_server()) as url:
        assert (await ask(url, "GET /metrics HTTP/1.1\nHost: a\n")).status == 501


async def test_a_slow_client_gets_the_whole_answer_although_the_connection_closes() -> None:
    clock = ManualClock()
    server = Server(clock=clock)
    server.page("/large", bytes(600_000), "text/plain")
    async with TestClient(server, clock) as client:
        peer = Recorder(clock)
        transport = client.open(peer)
        transport.write(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        for _ in range(20):
            transport.pause_reading()
            await clock.advance(1.5)
            transport.resume_reading()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await clock.advance(10)
        head, _, body = peer.received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert len(body) == 600_000


async def test_a_websocket_on_a_connection_that_has_served_http_is_closed_in_order() -> None:
    server = echo_server()
    server.page("/page", b"page", "text/plain")
    async with serving(server) as url:
        peer = await RawPeer.connect(url)
        peer.writer.write(b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await read_answer(peer)).body == b"page"
        peer.writer.write(ClientHandshake("a", "/echo").data_to_send())
        assert (await peer.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        await until(lambda: len(server.websockets) == 1)
        stopping = asyncio.create_task(server.stop())
        assert (await peer.read(4))[2:] == b"\x03\xe9"
        await peer.close()
        await stopping
