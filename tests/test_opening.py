"""The opening handshake where TCP or deadlines matter. `test_listener` tests the other cases."""

import asyncio
import socket

import pytest

from rfc6455 import ClientHandshake, Request
from rfc6455_server import Refusal, Server, WebSocket
from rfc6455_server.http import refusals
from rfc6455_server.testing import ManualClock, TestClient, settle
from rfc6455_server.websocket.streams import LINGER_TIMEOUT
from tests.server_helpers import Recorder, echo_server, serving


class Client(asyncio.Protocol):
    """A peer that records what it receives, and does not close when the server does."""

    def __init__(self) -> None:
        self.received = b""
        self.eof = False
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> bool:
        self.eof = True
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n" + b"X: y\r\n" * 2000,
        b"GET / HTTP/1.1\n",
        ClientHandshake("a", "/none").data_to_send(),
    ],
    ids=["431", "400", "404"],
)
async def test_a_client_that_continues_to_send_receives_its_refusal(head: bytes) -> None:
    """RFC 9112 §9.6: closing TCP with unread bytes would reset it, and the response could be lost."""

    def speak(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), 20) as peer:
            peer.sendall(head)
            answer = peer.recv(65536)
            for _ in range(50):
                peer.sendall(bytes(10_000))
            while piece := peer.recv(65536):
                answer += piece
            return answer

    async with serving(echo_server()) as url:
        port = int(url.rsplit(":", 1)[1])
        for _ in range(10):
            assert (await asyncio.to_thread(speak, port)).startswith(b"HTTP/1.1 4")


async def test_a_refused_client_has_the_linger_time_to_close() -> None:
    clock = ManualClock()
    server = Server(clock=clock, handshake_timeout=10)
    async with TestClient(server, clock) as client:
        peer = Client()
        transport = client.open(peer)
        await clock.advance(9.5)
        transport.write(ClientHandshake("a", "/none").data_to_send())
        await settle()
        assert peer.received.startswith(b"HTTP/1.1 404 ")
        assert (peer.eof, peer.lost) == (True, False)
        transport.write(b"x" * 300_000)  # read and discarded
        await clock.advance(LINGER_TIMEOUT - 0.1)
        assert server.make_ready().connections == 1
        await clock.advance(0.2)
        assert server.make_ready().connections == 0
        assert len(server.make_ready()._openings) == 0


async def test_a_refused_client_that_closes_is_released_at_once() -> None:
    clock = ManualClock()
    server = Server(clock=clock)
    async with TestClient(server, clock) as client:
        peer = Client()
        transport = client.open(peer)
        transport.write(ClientHandshake("a", "/none").data_to_send())
        await settle()
        transport.close()
        await settle()
        assert server.make_ready().connections == 0
        assert len(server.make_ready()._openings) == 0


async def test_reading_resumes_when_a_client_with_much_early_data_is_refused() -> None:
    clock = ManualClock()
    server = echo_server(clock=clock)
    decide = asyncio.Event()

    @server.authorize
    async def check(_: object) -> Refusal:
        await decide.wait()
        return Refusal(403)

    async with TestClient(server, clock) as client:
        peer = Client()
        transport = client.open(peer)
        transport.write(ClientHandshake("a", "/echo").data_to_send() + bytes(500_000))
        await settle()
        assert transport.get_write_buffer_size() > 0  # the data waits in TCP
        decide.set()
        await settle()
        assert peer.received.startswith(b"HTTP/1.1 403 ")
        assert transport.get_write_buffer_size() == 0


async def test_each_refusal_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[dict[str, object]] = []
    monkeypatch.setattr(refusals, "log", lambda *_, **fields: lines.append(fields))
    clock = ManualClock()
    server = Server(clock=clock, max_connections=2)
    async with TestClient(server, clock) as client:
        for request in (
            ClientHandshake("a", "/none").data_to_send(),
            b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n",
        ):
            peer = Client()
            client.open(peer).write(request)
            await settle()
            assert peer.received.startswith(b"HTTP/1.1 404 ")
        with pytest.raises(ConnectionRefusedError):
            client.open(Client())
        assert server.stats.refused == {(404, "not found"): 2, (503, "too many connections"): 1}
        assert [line["status"] for line in lines] == [404, 404, 503]


async def test_a_hook_that_swallows_its_cancellation_gets_no_websocket() -> None:
    clock = ManualClock()
    server = echo_server(clock=clock, handshake_timeout=10)
    handled = []

    @server.websocket("/handled")
    async def handler(ws: WebSocket) -> None:
        handled.append(ws)

    @server.authorize
    async def check(request: Request) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

    async with TestClient(server, clock) as client:
        peer = Recorder(clock)
        client.open(peer).write(ClientHandshake("h", "/handled").data_to_send())
        await clock.advance(11)
        assert peer.ended is not None
        assert peer.received == b""
        assert handled == []
        assert server.websockets == []


async def test_a_refusal_with_a_body_that_is_not_bytes_is_500() -> None:
    server = echo_server()

    @server.authorize
    async def check(request: Request) -> Refusal:
        return Refusal(403, "text")  # type: ignore[arg-type]

    async with TestClient(server) as client:
        peer = Recorder(client.clock)
        client.open(peer).write(ClientHandshake("h", "/echo").data_to_send())
        await settle()
        assert peer.received.startswith(b"HTTP/1.1 500 ")
