import asyncio
import logging

import pytest

from rfc6455 import ClientHandshake, HandshakeError, Opcode, Request, encode_frame
from rfc6455_server import (
    Cause,
    CloseReport,
    HandshakeRejectedError,
    HttpRequest,
    HttpResponse,
    Refusal,
    Server,
    WebSocket,
    bearer_token,
    connect,
)
from rfc6455_server.testing import ManualClock, MemoryTransport, TestClient, settle
from rfc6455_server.websocket.streams import CodecProtocol
from tests.helpers import KEY, close_payload
from tests.server_helpers import RawPeer, Recorder, echo_server, serving, until


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
def test_a_malformed_path_template_raises(template: str) -> None:
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
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 404),
        (b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n", 426),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc", 404),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET /" + b"a" * 9000, 414),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 9000, 431),
        (b"GET /echo HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", 426),
    ],
)
async def test_requests_without_a_websocket_handshake(request_: bytes, status: int) -> None:
    async with serving(echo_server()) as url:
        assert (await answer_to(url, request_)).startswith(b"HTTP/1.1 %d " % status)


async def test_pages() -> None:
    server = echo_server()
    server.page("/hello", b"<p>hi", "text/html")
    async with serving(server) as url:
        answer = await answer_to(url, b"GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"\r\n\r\n<p>hi")


async def test_a_request_has_one_deadline() -> None:
    clock = ManualClock()
    async with TestClient(echo_server(clock=clock, handshake_timeout=10), clock) as client:
        peer = Recorder(clock)
        transport = client.open(peer)
        begin = clock.time()
        for octet in ClientHandshake("h", "/echo").data_to_send():
            transport.write(bytes([octet]))
            await clock.advance(0.3)
        assert peer.ended == begin + 10
        assert peer.received == b""


async def test_each_opening_handshake_has_its_own_deadline() -> None:
    clock = ManualClock()
    server = Server(clock=clock, handshake_timeout=10)

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        await ws.recv()

    async with TestClient(server, clock) as client:
        begin = clock.time()
        peers = []
        for _ in range(3):
            peers.append(Recorder(clock))
            client.open(peers[-1])
            ws = await client.connect("/")
            await clock.advance(4)
        # A deadline before those of earlier handshakes, as after a slow TLS handshake.
        protocol = server.make_ready().make_protocol("192.0.2.1", begin + 13)
        assert isinstance(protocol, CodecProtocol)
        end, far_end = MemoryTransport.pair()
        peers.append(Recorder(clock))
        far_end.start(peers[-1])
        end.start(protocol)
        await clock.advance(10)
        assert [peer.ended and round(peer.ended - begin, 1) for peer in peers] == [10, 14, 18, 13]
        assert ws.closed is None
        assert len(server.make_ready()._openings) == 0


async def test_many_deadlines_need_few_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    server = Server(clock=clock, handshake_timeout=10)
    checks = []
    async with TestClient(server, clock) as client:
        begin = clock.time()
        openings = server.make_ready()._openings
        check_deadlines = openings.check_deadlines

        def counted() -> None:
            checks.append(clock.time())
            check_deadlines()

        monkeypatch.setattr(openings, "check_deadlines", counted)
        peers = []
        for _ in range(100):
            peers.append(Recorder(clock))
            client.open(peers[-1])
            await clock.advance(0.001)
        await clock.advance(9.8)
        assert [peer for peer in peers if peer.ended is not None] == []
        await clock.advance(0.3)
        for number, peer in enumerate(peers):
            assert peer.ended is not None
            assert -0.001 < peer.ended - begin - 10 - number / 1000 < 0.06
        assert len(checks) < 5


async def test_an_opening_handshake_while_the_server_stops_has_a_deadline() -> None:
    clock = ManualClock()
    server = Server(clock=clock, handshake_timeout=10)
    async with TestClient(server, clock) as client:
        listener = server.make_ready()
        client.open(Recorder(clock))
        await clock.advance(1)
        await listener.close()
        late = Recorder(clock)
        client.open(late)
        await clock.advance(9.9)
        assert late.ended is None
        await clock.advance(0.2)
        assert late.ended is not None


async def test_a_peer_that_closes_before_its_request_is_complete() -> None:
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


async def test_a_handler_without_the_parameter_of_its_path_is_1011(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()

    @server.websocket("/rooms/{name}")
    async def handler(ws: WebSocket) -> None:
        """Lacks the parameter ``name``."""

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
    assert 'cause="protocol error" reason="reserved opcode 0x3"' in caplog.text


async def test_a_handler_that_sends_after_the_end_logs_no_error(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    begun, done = asyncio.Event(), asyncio.Event()

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        try:
            await ws.recv()
            begun.set()
            await ws.wait_closed()
            await ws.send("too late")
        finally:
            done.set()

    async with serving(server) as url:
        peer = await RawPeer.upgraded(url, "/")
        peer.send(1, b"go")
        await begun.wait()
        peer.writer.transport.abort()
        await done.wait()
        await until(lambda: not server.websockets)
    assert caplog.records == []


async def test_a_handler_that_is_cancelled_while_closing_leaves_nothing_behind() -> None:
    server = Server(close_timeout=20)

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        """Returns at once. The peer does not answer the Close."""

    async with serving(server) as url:
        before = asyncio.all_tasks()
        peer = await RawPeer.upgraded(url, "/")
        assert await peer.read(4) == b"\x88\x02\x03\xe8"
        keepalive = server.make_ready()._keepalive
        assert len(keepalive) == 1
        (closing,) = asyncio.all_tasks() - before
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert len(keepalive) == 0
        await peer.close()


async def test_stop_cancels_handlers_that_do_not_return() -> None:
    server = Server(close_timeout=0.1)
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
        await server.stop()
        assert cancelled.is_set()
        assert await peer.read(4) == b"\x88\x18\x03\xe9"
        await peer.close()


# Authorization and limits.


@pytest.mark.parametrize(
    ("headers", "subprotocols", "query", "expected"),
    [
        ([("Authorization", "Bearer s3cret")], [], "", "s3cret"),
        ([("Authorization", "bearer  s3cret")], [], "", "s3cret"),
        ([("Authorization", "Basic eDp5")], [], "", None),
        ([("Authorization", "Bearer")], [], "", None),
        ([], ["bearer", "s3cret"], "", "s3cret"),
        ([], ["bearer"], "", None),
        ([], ["chat", "s3cret"], "", None),
        ([], [], "?access_token=s3cret&x=y", "s3cret"),
        ([], [], "?access_token=", None),
        ([], [], "", None),
    ],
)
async def test_a_token_by_header_subprotocol_or_query_is_found_and_never_logged(
    headers: list[tuple[str, str]],
    subprotocols: list[str],
    query: str,
    expected: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = echo_server()

    @server.authorize
    async def check(request: Request) -> object:
        token = bearer_token(request)
        return token or Refusal(401, b"who are you?\n", [("WWW-Authenticate", "Bearer")])

    @server.websocket("/who")
    async def who(ws: WebSocket) -> None:
        await ws.send(f"{ws.user} {ws.subprotocol}")

    with caplog.at_level(logging.DEBUG, logger="rfc6455_server"):
        async with serving(server) as url:
            opening = connect(url + "/who" + query, headers=headers, subprotocols=subprotocols)
            if expected is None:
                with pytest.raises(HandshakeRejectedError) as caught:
                    await opening
                assert caught.value.response.status == 401
                assert caught.value.response.headers["WWW-Authenticate"] == "Bearer"
            else:
                async with opening as ws:
                    chosen = "bearer" if subprotocols else None
                    assert await ws.recv() == f"{expected} {chosen}"
                    assert ws.subprotocol == chosen
    assert "s3cret" not in caplog.text
    assert "access_token" not in caplog.text


@pytest.mark.parametrize(
    ("offered", "chosen"), [([], None), (["x"], None), (["x", "b", "a"], "b"), (["a", "b"], "a")]
)
async def test_the_first_subprotocol_of_the_client_that_the_server_supports(
    offered: list[str], chosen: str | None
) -> None:
    async with (
        serving(echo_server(subprotocols=["a", "b"])) as url,
        connect(url + "/echo", subprotocols=offered) as ws,
    ):
        assert ws.subprotocol == chosen


async def test_a_slow_hook_loses_no_data_and_has_the_deadline() -> None:
    clock = ManualClock()
    server = echo_server(clock=clock, handshake_timeout=10)
    decided = asyncio.Event()

    @server.authorize
    async def check(request: Request) -> None:
        await decided.wait()

    async with TestClient(server, clock) as client:
        peer, late = Recorder(clock), Recorder(clock)
        transport = client.open(peer)
        transport.write(ClientHandshake("h", "/echo").data_to_send())
        await clock.advance(9)
        transport.write(encode_frame(Opcode.TEXT, b"x" * 100_000, mask_key=KEY))
        await settle()
        decided.set()
        await settle()
        head, _, rest = peer.received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert rest[10:] == b"x" * 100_000
        decided.clear()
        client.open(late).write(ClientHandshake("h", "/echo").data_to_send())
        await clock.advance(9.9)
        assert late.ended is None
        await clock.advance(0.2)
        assert late.ended is not None
        assert late.received == b""
        assert peer.ended is None


async def test_the_hook_is_cancelled_when_the_peer_closes() -> None:
    server = echo_server()
    asked, cancelled = asyncio.Event(), asyncio.Event()

    @server.authorize
    async def check(request: Request) -> None:
        asked.set()
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.set()

    async with serving(server) as url:
        peer = await RawPeer.connect(url)
        peer.writer.write(ClientHandshake("h", "/echo").data_to_send())
        await asked.wait()
        await peer.close()
        await cancelled.wait()


@pytest.mark.parametrize("verdict", [ZeroDivisionError(), Refusal(99), Refusal(204, b"body")])
async def test_a_hook_that_fails_is_500_and_is_logged(
    verdict: object, caplog: pytest.LogCaptureFixture
) -> None:
    server = echo_server()

    @server.authorize
    async def check(request: Request) -> object:
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    async with serving(server) as url:
        with pytest.raises(HandshakeRejectedError) as caught:
            await connect(url + "/echo")
    assert caught.value.response.status == 500
    failed = "authorize failed" if isinstance(verdict, Exception) else "refusal is not valid HTTP"
    assert failed in caplog.text


async def test_a_hook_may_raise_handshake_error() -> None:
    server = echo_server()

    @server.authorize
    async def check(request: Request) -> None:
        raise HandshakeError("no", slug="no", status=418)

    async with serving(server) as url:
        with pytest.raises(HandshakeRejectedError) as caught:
            await connect(url + "/echo")
    assert caught.value.response.status == 418


async def test_the_forwarded_address_is_used_and_counted_behind_a_trusted_proxy() -> None:
    server = Server(trusted=["127.0.0.1"], max_connections_per_address=1)

    @server.websocket("/")
    async def who(ws: WebSocket) -> None:
        await ws.send(ws.address)
        await ws.recv()

    async with serving(server) as url:
        first = await connect(url, headers=[("X-Forwarded-For", "203.0.113.9")])
        assert await first.recv() == "203.0.113.9"
        with pytest.raises(HandshakeRejectedError) as caught:
            await connect(url, headers=[("X-Forwarded-For", "203.0.113.9")])
        assert caught.value.response.status == 429
        async with connect(url, headers=[("X-Forwarded-For", "203.0.113.10")]) as second:
            assert await second.recv() == "203.0.113.10"
        async with connect(url) as direct:
            assert await direct.recv() == "127.0.0.1"
        await first.close()
        await until(lambda: server.make_ready().connections == 0)
        async with connect(url, headers=[("X-Forwarded-For", "203.0.113.9")]) as again:
            assert await again.recv() == "203.0.113.9"


async def test_each_request_on_a_connection_of_a_proxy_has_its_own_address() -> None:
    server = Server(trusted=["127.0.0.1"])

    @server.http("/who")
    async def page(request: HttpRequest) -> HttpResponse:
        return HttpResponse(request.address.encode())

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        await ws.send(ws.address)

    async with serving(server) as url:
        peer = await RawPeer.connect(url)
        for client in ("203.0.113.9", "203.0.113.10"):
            peer.writer.write(f"GET /who HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {client}\r\n\r\n".encode())
            head = await peer.reader.readuntil(b"\r\n\r\n")
            assert b"200" in head
            assert await peer.read(len(client)) == client.encode()
        forwarded = [("X-Forwarded-For", "203.0.113.11")]
        peer.writer.write(ClientHandshake("h", "/", headers=forwarded).data_to_send())
        await peer.reader.readuntil(b"\r\n\r\n")
        assert (await peer.read(14))[2:] == b"203.0.113.11"
        await peer.close()


async def test_the_forwarded_address_of_an_untrusted_peer_is_ignored() -> None:
    server = Server()

    @server.websocket("/")
    async def who(ws: WebSocket) -> None:
        await ws.send(ws.address)

    async with serving(server) as url, connect(url, headers=[("X-Forwarded-For", "203.0.113.9")]) as ws:
        assert await ws.recv() == "127.0.0.1"


@pytest.mark.parametrize(
    ("limits", "status"),
    [({"max_connections": 2}, 503), ({"max_connections_per_address": 2}, 429), ({"connection_rate": 1}, 429)],
)
async def test_too_many_connections_are_refused(limits: dict[str, float], status: int) -> None:
    server = echo_server(**limits)
    async with serving(server) as url:
        async with connect(url + "/echo") as one, connect(url + "/echo"):
            with pytest.raises(HandshakeRejectedError) as caught:
                await connect(url + "/echo")
            assert caught.value.response.status == status
            await one.send("x")
            assert await one.recv() == "x"
        if "connection_rate" not in limits:
            await until(lambda: server.make_ready().connections == 0)
            async with connect(url + "/echo"):
                pass


# Limits of a connection.


@pytest.mark.parametrize("limits", [{"message_rate": 5}, {"byte_rate": 50}])
async def test_a_peer_that_sends_too_fast_is_1008(limits: dict[str, float]) -> None:
    server = echo_server(**limits)
    reports: list[CloseReport] = []
    server.on_report(reports.append)
    async with serving(server) as url, connect(url + "/echo") as ws:
        for _ in range(10):
            await ws.send("1234567890")
        assert [await ws.recv() for _ in range(10)] == ["1234567890"] * 10
        await ws.send("1234567890")
        await ws.wait_closed()
    assert [(r.cause, r.code_sent) for r in reports] == [(Cause.LIMIT, 1008)]


@pytest.mark.parametrize(("limits", "count"), [({"max_rooms": 3}, 3), ({"join_rate": 2}, 4)])
async def test_a_connection_that_joins_too_many_rooms_is_1008(limits: dict[str, float], count: int) -> None:
    server = Server(**limits)  # type: ignore[arg-type]
    joined: list[str] = []

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        async for name in ws:
            assert isinstance(name, str)
            server.rooms[name].join(ws)
            joined.append(name)

    async with serving(server) as url, connect(url) as ws:
        for i in range(10):
            await ws.send(f"room {i}")
        await ws.wait_closed()
        assert ws.closed is not None
        assert ws.closed.code == 1008
    assert len(joined) == count


# Draining.


async def test_drain_closes_connections_over_time_and_refuses_new_ones() -> None:
    clock = ManualClock()
    server = echo_server(clock=clock)
    async with serving(server) as url:
        sockets = [await connect(url + "/echo") for _ in range(5)]
        draining = asyncio.create_task(server.drain(50))
        await until(lambda: server.draining)
        await clock.advance(19)
        await until(lambda: [ws.closed is not None for ws in sockets] == [True] * 2 + [False] * 3)
        with pytest.raises(HandshakeRejectedError) as caught:
            await connect(url + "/echo")
        assert caught.value.response.status == 503
        ready = await answer_to(url, b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert ready.startswith(b"HTTP/1.1 503 ")
        health = await answer_to(url, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert health.startswith(b"HTTP/1.1 200 ")
        await clock.advance(30.9)
        assert not draining.done()
        await clock.advance(0.2)
        await draining
        for ws in sockets:
            await ws.wait_closed()
            assert ws.closed is not None
            assert (ws.closed.code, ws.closed.clean) == (1001, True)
        await server.stop()
        with pytest.raises(OSError, match="Connect call failed"):
            await connect(url + "/echo")


async def test_a_refused_request_is_logged_without_its_query(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="rfc6455_server"):
        async with serving(echo_server()) as url:
            with pytest.raises(HandshakeRejectedError):
                await connect(url + "/no%0d%0ne?secret=1")
            await answer_to(url, b"GET /a\x01b HTTP/1.1\r\n\r\n")
    assert "request refused status=404 address=127.0.0.1 path=/no%0d%0ne" in caplog.text
    assert "request refused status=400 address=127.0.0.1" in caplog.text
    assert "secret" not in caplog.text
