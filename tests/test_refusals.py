"""What is refused, and what fails before it can be refused: counted by a bounded number of reasons."""

import asyncio

import pytest

from rfc6455 import ClientHandshake, Request
from rfc6455_server import Endpoint, Refusal, Server
from rfc6455_server.http.refusals import MAX_REASON_LENGTH, MAX_REASONS, record_refusal
from rfc6455_server.stats import Stats
from rfc6455_server.testing import ManualClock, TestClient, settle
from tests.server_helpers import Certificate, RawPeer, Recorder, echo_server, until


def test_reasons_that_an_application_makes_up_are_bounded() -> None:
    stats = Stats()
    for number in range(3 * MAX_REASONS):
        record_refusal(stats, 403, address="", path="", reason=f"user {number}")
        record_refusal(stats, 403, address="", path="", reason="user 0")
    assert len(stats.refused) == MAX_REASONS + 1
    assert stats.refused[403, "user 0"] == 3 * MAX_REASONS + 1
    assert stats.refused[403, "other"] == 2 * MAX_REASONS
    record_refusal(stats, 403, address="", path="")
    assert sum(stats.refused.values()) == 6 * MAX_REASONS + 1


def test_a_reason_is_short_and_never_empty() -> None:
    stats = Stats()
    record_refusal(stats, 403, address="", path="", reason="x" * 1000)
    record_refusal(stats, 403, address="", path="")
    assert set(stats.refused) == {(403, "x" * MAX_REASON_LENGTH), (403, "unspecified")}


async def test_each_refusal_before_a_handler_has_a_reason() -> None:
    clock = ManualClock()
    server = echo_server(clock=clock, max_connections_per_address=1)

    @server.authorize
    async def authorize(request: Request) -> Refusal | None:
        if request.query == "raise":
            raise ZeroDivisionError
        return Refusal(401, reason="no token") if request.query == "refuse" else None

    async with TestClient(server, clock) as client:

        async def ask(target: str, **options: str) -> None:
            transport = client.open(Recorder(clock))
            transport.write(ClientHandshake("a", target, **options).data_to_send())  # type: ignore[arg-type]
            await settle()
            transport.abort()
            await settle()

        await ask("/none")
        await ask("/echo", origin="https://evil.example")
        await ask("/echo?raise")
        await ask("/echo?refuse")
        first = client.open(Recorder(clock))
        with pytest.raises(ConnectionRefusedError):
            client.open(Recorder(clock))
        first.abort()
        await settle()
        server.make_ready().draining = True
        await ask("/echo")
    assert server.stats.refused == {
        (404, "not found"): 1,
        (403, "origin"): 1,
        (500, "authorize failed"): 1,
        (401, "no token"): 1,
        (429, "too many of the address"): 1,
        (503, "stopping"): 1,
    }


async def test_a_trickled_request_is_counted_when_its_time_is_up_and_a_silent_connection_is_not() -> None:
    clock = ManualClock()
    server = echo_server(clock=clock, handshake_timeout=10)
    async with TestClient(server, clock) as client:
        client.open(Recorder(clock))
        trickled = client.open(Recorder(clock))
        for _ in range(12):
            trickled.write(b"G")
            await clock.advance(1)
    assert server.stats.unanswered == {"timeout": 1}


async def test_connections_that_fail_before_their_request_are_counted(certificate: Certificate) -> None:
    server = Server(trusted=["127.0.0.1"], handshake_timeout=0.2)
    await server.listen(Endpoint("127.0.0.1", ssl_context=certificate.server_context()))
    secure = server.port
    try:
        peer = await RawPeer.connect(f"ws://127.0.0.1:{secure}")
        peer.writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await until(lambda: server.stats.unanswered["tls"])
        await peer.close()
    finally:
        await server.stop()
    await server.listen(Endpoint("127.0.0.1", proxy_protocol=True))
    try:
        url = f"ws://127.0.0.1:{server.port}"
        wrong, silent = await RawPeer.connect(url), await RawPeer.connect(url)
        wrong.writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await until(lambda: sum(server.stats.unanswered.values()) == 3)
        await asyncio.gather(wrong.close(), silent.close())
    finally:
        await server.stop()
    assert server.stats.unanswered == {"tls": 1, "proxy header": 1, "timeout": 1}
