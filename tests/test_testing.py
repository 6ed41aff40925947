"""`rfc6455_server.testing`, as users of the server use it."""

import asyncio

import pytest

from rfc6455 import HandshakeError
from rfc6455_server import HandshakeRejectedError, Server, WebSocket
from rfc6455_server.testing import PIPE_SIZE, ManualClock, MemoryTransport, TestClient, settle
from tests.server_helpers import Recorder, echo_server


async def test_a_conversation_in_memory() -> None:
    async with TestClient(echo_server()) as client:
        one, two = await client.connect("/echo"), await client.connect("/echo", address="198.51.100.1")
        await one.send("hello")
        await two.send("x" * 500_000)
        assert await one.recv() == "hello"
        assert await two.recv() == "x" * 500_000
        await one.close()
        assert one.closed is not None
        assert (one.closed.code, one.closed.clean) == (1000, True)


async def test_a_refusal_in_memory() -> None:
    async with TestClient(echo_server(max_connections_per_address=1)) as client:
        with pytest.raises(HandshakeRejectedError) as caught:
            await client.connect("/none")
        assert caught.value.response.status == 404
        await settle()
        await client.connect("/echo")
        with pytest.raises(ConnectionRefusedError, match="429"):
            await client.connect("/echo")
        await client.connect("/echo", address="198.51.100.1")


async def test_a_server_that_hangs_up_during_the_handshake() -> None:
    server = echo_server(clock=(clock := ManualClock()))

    @server.authorize
    async def never(_: object) -> None:
        await asyncio.sleep(3600)

    async with TestClient(server, clock) as client:
        opening = asyncio.create_task(client.connect("/echo"))
        await clock.advance(11)
        with pytest.raises(HandshakeError):
            await opening


async def test_the_clock_advances_by_a_minute() -> None:
    clock = ManualClock()
    server = echo_server(clock=clock)
    async with TestClient(server, clock) as client:
        await client.connect("/echo")
        await clock.advance(60)
        assert server.websockets[0].latency == 0
        client.transports[0].vanish()
        await clock.advance(60)
        assert server.websockets == []


async def test_a_peer_that_does_not_read_makes_a_sender_wait() -> None:
    clock = ManualClock()
    server = Server(clock=clock, send_timeout=20, ping_interval=1000)
    sent: list[int] = []

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        for number in range(1000):
            await ws.send(bytes(10_000))
            sent.append(number)

    async with TestClient(server, clock) as client:
        ws = await client.connect("/")
        client.transports[0].pause_reading()
        await settle()
        first = len(sent)
        assert first * 10_000 <= 4 * PIPE_SIZE
        client.transports[0].resume_reading()
        for _ in range(first + 10):
            await ws.recv()
        assert len(sent) > first
        client.transports[0].pause_reading()
        await clock.advance(45)
        assert server.websockets == []
        (report,) = [key for key in server.stats.closes if server.stats.closes[key]]
        assert report == (1008, "send timeout")


async def test_timers_run_in_order_unless_cancelled() -> None:
    clock = ManualClock(0)
    seen: list[tuple[str, float]] = []
    clock.call_later(2, lambda: seen.append(("two", clock.time())))
    clock.call_later(1, lambda: clock.call_later(0.5, lambda: seen.append(("between", clock.time()))))
    clock.call_later(1, seen.append, ("one", 1.0))
    clock.call_later(1, seen.append, ("never", 1.0)).cancel()
    await clock.advance(1.75)
    assert seen == [("one", 1.0), ("between", 1.5)]
    assert clock.time() == 1.75
    clock.jump(10)
    assert len(seen) == 2
    await clock.advance(0)
    assert seen[2:] == [("two", 11.75)]


async def test_half_a_connection_can_be_closed() -> None:
    ours, theirs = MemoryTransport.pair()
    reader = asyncio.StreamReader()
    ours.start(asyncio.StreamReaderProtocol(asyncio.StreamReader()))
    theirs.start(asyncio.StreamReaderProtocol(reader))
    ours.write(b"last")
    ours.write_eof()
    ours.write(b"too late")
    assert await reader.read() == b"last"
    theirs.write(b"answer")
    assert not theirs.is_closing()
    theirs.close()
    ours.close()
    await settle()
    assert ours.is_closing()


async def test_writing_to_an_end_that_is_closed_ends_the_connection() -> None:
    clock = ManualClock()
    recorders = [Recorder(clock), Recorder(clock)]
    one, other = MemoryTransport.pair()
    one.start(recorders[0])
    other.start(recorders[1])
    other.pause_reading()  # so that it does not see the EOF
    one.abort()
    await settle()
    assert recorders[1].ended is None
    other.write(b"x")
    await settle()
    assert recorders[1].ended is not None
