"""Clients that are slow, stay, or send heartbeats and floods of control frames."""

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from rfc6455 import ClientHandshake, Opcode, encode_frame
from rfc6455_server import CloseReport, HttpRequest, HttpResponse, Server, connect
from rfc6455_server.socketio import SocketIO
from rfc6455_server.testing import PIPE_SIZE, ManualClock, TestClient, settle
from rfc6455_server.websocket import lingering
from rfc6455_server.websocket.streams import LINGER_TIMEOUT
from tests.helpers import KEY
from tests.hostile.flaws import flaw
from tests.server_helpers import Certificate, RawPeer, Recorder, echo_server, serving, until
from tests.test_http import page_server


def connections(server: Server) -> int:
    return server.make_ready().connections


# Deadlines.


@flaw(
    "CVE-2021-32640",
    what="sends a head or a body one byte at a time, and holds a connection for each (slowloris)",
    here="one deadline for the whole head, and one for the whole body: 10 s and 20 s by default",
)
@pytest.mark.parametrize(
    "head", [b"GET / HTTP/1.1\r\nX: ", b"POST /upper HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"]
)
async def test_trickled_bytes_have_one_deadline(head: bytes) -> None:
    clock = ManualClock()
    server = page_server(clock=clock)
    limits = server.limits
    async with TestClient(server, clock) as client:
        peer = Recorder(clock)
        transport = client.open(peer)
        begin = clock.time()
        for octet in head:
            transport.write(bytes([octet]))
            await clock.advance(0.01)
        while peer.ended is None and clock.time() < begin + 100:
            transport.write(b"x")
            await clock.advance(0.5)
        allowed = limits.send_timeout if head.startswith(b"POST") else limits.handshake_timeout
        assert peer.ended is not None
        assert peer.ended - begin < allowed + 1
        assert connections(server) == 0


@flaw(
    "found here",
    what="asks a handler that never answers, or a body whose next piece never comes",
    here="503 after `answer_timeout`, or the end of the connection; a deadline runs at any time",
)
@pytest.mark.parametrize("kind", ["waits", "swallows", "piece"])
async def test_a_handler_has_a_deadline(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    server = page_server(clock=clock, answer_timeout=30, send_timeout=5)

    let_go = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.sleep(3600)

    @server.http("/slow")
    async def slow(request: HttpRequest) -> HttpResponse:
        if kind == "piece":
            return HttpResponse(pieces=pieces(), length=10)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if kind == "waits":
                raise
            await let_go.wait()
        return HttpResponse(b"too late")

    async with TestClient(server, clock) as client:
        peer = Recorder(clock)
        client.open(peer).write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        await clock.advance(29)
        assert peer.ended is None
        await clock.advance(2)
        if kind == "waits":
            assert peer.received.startswith(b"HTTP/1.1 503 ")
            client.transports[0].write(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
            await settle()
            assert peer.received.endswith(b"<p>hi")
            return
        await clock.advance(6)
        assert peer.ended is not None
        assert peer.received.endswith(b"first" if kind == "piece" else b"")
        assert connections(server) == 0
        let_go.set()
        await settle()
        assert peer.received.endswith(b"first" if kind == "piece" else b"")


@flaw(
    "found here",
    what="opens sessions by polling while the `authorize` hook waits, for ever",
    here="503 after `handshake_timeout`, as for a WebSocket",
)
async def test_authorizing_a_session_has_a_deadline() -> None:
    server = Server(handshake_timeout=0.05)
    server.mount(SocketIO())
    cancelled = asyncio.Event()

    @server.authorize
    async def check(request: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with serving(server) as url:
        peer = await RawPeer.connect(url)
        peer.writer.write(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b" 503 " in await peer.reader.readuntil(b"\r\n")
        assert cancelled.is_set()
        await peer.close()


@flaw(
    "found here",
    what="reads none of an answer that asyncio buffers whole: 64 KiB were held and not counted, and the rest "
    "of the answer was lost after `handshake_timeout`",
    here="it counts until the client has taken it, within `send_timeout`; then the next request is read",
)
async def test_an_answer_counts_until_it_is_taken() -> None:
    clock = ManualClock()
    server = page_server(clock=clock, handshake_timeout=5)
    server.page("/big", bytes(100_000), "text/plain")
    async with TestClient(server, clock) as client:
        peer = Recorder(clock)
        transport = client.open(peer)
        transport.pause_reading()
        transport.write(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
        await settle()
        unwritten = 100_000 - PIPE_SIZE
        assert server.queued >= unwritten
        await clock.advance(server.limits.send_timeout - 1)
        assert server.queued >= unwritten
        transport.resume_reading()
        await settle()
        assert peer.received.endswith(b"<p>hi")
        assert peer.received.count(0) == 100_000
        assert server.queued == 0


@flaw(
    "found here",
    what="half-closes after its request, and never reads the answer",
    here="the connection ends when nothing is taken for `send_timeout`",
)
@pytest.mark.parametrize("ends", [True, False])
async def test_an_answer_that_is_never_read_has_a_deadline(ends: bool) -> None:
    clock = ManualClock()
    server = page_server(clock=clock)
    server.page("/big", bytes(100_000), "text/plain")
    async with TestClient(server, clock) as client:
        transport = client.open(Recorder(clock))
        transport.pause_reading()
        transport.write(b"GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        if ends:
            transport.write_eof()
        await settle()
        assert connections(server) == 1
        await clock.advance(server.limits.send_timeout + 1)
        assert connections(server) == 0


# Refused connections that linger.


@flaw(
    "found here",
    what="is refused, stays connected for two seconds, and holds a file descriptor, thousands of times",
    here="at most 64 linger, whoever refused them; for one more the oldest is closed",
)
@pytest.mark.parametrize("kind", ["opening", "page", "address"])
async def test_few_refused_connections_linger(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering, "MAX_LINGERING", 8)
    server = page_server(max_connections_per_address=1 if kind == "address" else 1000)
    async with serving(server) as url:
        first = await RawPeer.connect(url)
        await until(lambda: connections(server) == 1)
        request = ClientHandshake("a", "/none").data_to_send()
        if kind == "page":
            request = b"POST /upper HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n"
        peers = [await RawPeer.connect(url) for _ in range(40)]
        for peer in peers:
            peer.writer.write(request)
        for peer in peers:
            with suppress(ConnectionResetError, asyncio.IncompleteReadError):
                assert b"HTTP/1.1 4" in await peer.reader.readuntil(b"\r\n\r\n")
        held = server.make_ready().hub.lingering
        await until(lambda: sum(server.stats.refused.values()) == 40)
        assert len(held) == 8
        if kind == "address":
            assert len(server._acceptors[0]._refused) == 8
        else:
            await until(lambda: connections(server) == 9)
        for peer in [first, *peers]:
            await peer.close()
        if kind != "address":
            await until(lambda: len(held) == 0)


@flaw(
    "found here",
    what="is refused over TLS, and does not end TLS: that took up to 30 s",
    here="closed after the 2 s for which every refused connection lingers",
)
async def test_a_refused_tls_connection_lingers_no_longer(certificate: Certificate) -> None:
    clock = ManualClock()
    server = echo_server(clock=clock)
    await server.start("127.0.0.1", 0, ssl_context=certificate.server_context())
    client = certificate.client_context()
    opening = asyncio.open_connection("127.0.0.1", server.port, ssl=client, server_hostname="localhost")
    peer = RawPeer(*await opening)
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]  # so that it never answers the end of TLS
    peer.writer.write(ClientHandshake("a", "/none").data_to_send())
    await until(lambda: server.stats.refused[404, "not found"] == 1)
    assert connections(server) == 1
    await clock.advance(LINGER_TIMEOUT + 0.1)
    await until(lambda: connections(server) == 0)
    peer.writer.transport.abort()
    await server.stop()


@flaw(
    "found here",
    what="takes all file descriptors by refused connections: at 256, others waited 4 s",
    here="those that linger give theirs back at once, and accepting goes on without a pause",
)
async def test_lingering_connections_give_their_descriptors_back(caplog: pytest.LogCaptureFixture) -> None:
    server = echo_server(max_connections_per_address=1)
    async with serving(server) as url:
        first = await RawPeer.connect(url)
        peers = [await RawPeer.connect(url) for _ in range(5)]
        (acceptor,) = server._acceptors
        await until(lambda: len(acceptor._refused) == 5)
        listening = acceptor.socket

        class Exhausted:
            fileno = staticmethod(listening.fileno)

            def accept(self) -> None:
                raise OSError(errno.EMFILE, "too many open files")

        acceptor.socket = Exhausted()  # type: ignore[assignment]
        acceptor._accept()
        acceptor.socket = listening
        assert len(acceptor._refused) == len(acceptor._hub.lingering) == 0
        assert "accepting paused" not in caplog.text
        await first.close()
        await until(lambda: connections(server) == 0)
        async with connect(url + "/echo") as ws:  # still accepting
            await ws.send("x")
            assert await ws.recv() == "x"
        for peer in peers:
            await peer.close()


# Control frames.


def frames(opcode: Opcode, count: int) -> bytes:
    return encode_frame(opcode, b"", mask_key=KEY) * count


@flaw(
    "CVE-2019-9512",
    what="floods with Pings or Pongs, each of which costs time, and a Ping an answer",
    here="1008 after 1,024 that arrive at once",
)
@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG])
async def test_a_flood_of_control_frames_ends_its_connection(opcode: Opcode) -> None:
    reports: list[CloseReport] = []
    server = echo_server()
    server.on_report(reports.append)
    async with serving(server) as url, connect(url + "/echo") as other:
        peer = await RawPeer.upgraded(url)
        for _ in range(10):
            peer.writer.write(frames(opcode, 20_000))
        with suppress(ConnectionResetError):
            answer = await peer.read_to_end()
            assert answer.endswith(b"\x03\xf0a flood of control frames")
            assert len(answer) < 2 * 1024 + 100
        await peer.close()
        await until(lambda: reports)
        assert (reports[0].code_sent, reports[0].cause.value) == (1008, "protocol error")
        await other.send("x")
        assert await other.recv() == "x"


@flaw(
    "found here",
    what="sends Pongs as its heartbeat (RFC 6455 §5.5.3) and nothing else, and ends as a flood after 1,024",
    here="a flood is a rate: thousands of them, some at a time, end nothing",
)
@pytest.mark.parametrize("at_once", [1, 1000])
async def test_a_heartbeat_of_pongs_is_no_flood(at_once: int) -> None:
    clock = ManualClock()
    server = echo_server(clock=clock, ping_interval=3600)
    async with TestClient(server, clock) as client:
        ws = await client.connect("/echo")
        for _ in range(3000 // at_once + 2):
            client.transports[0].write(frames(Opcode.PONG, at_once))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await ws.send("still there")
        assert await ws.recv() == "still there"
