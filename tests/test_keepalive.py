"""Keepalive, with a clock that moves only when the test moves it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rfc6455_server import Cause, CloseReport, Server, WebSocket
from rfc6455_server.testing import ManualClock, TestClient, settle


@asynccontextmanager
async def rig(**limits: float) -> AsyncIterator[tuple[Server, TestClient, list[CloseReport]]]:
    clock = ManualClock()
    server = Server(clock=clock, **limits)  # type: ignore[arg-type]
    reports: list[CloseReport] = []
    server.on_report(reports.append)

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    async with TestClient(server, clock) as client:
        yield server, client, reports


async def test_an_idle_connection_is_pinged_and_stays_open() -> None:
    async with rig(ping_interval=20, ping_timeout=20) as (server, client, reports):
        ws = await client.connect("/")
        assert server.websockets[0].latency is None
        await client.clock.advance(19)
        assert server.websockets[0].latency is None
        await client.clock.advance(3)
        assert server.websockets[0].latency == 0
        await client.clock.advance(600)
        assert reports == []
        assert ws.closed is None
        assert sum(server.stats.latency.counts) >= 29


async def test_silence_after_a_ping_ends_the_connection() -> None:
    async with rig(ping_interval=20, ping_timeout=15) as (server, client, reports):
        await client.connect("/")
        client.transports[0].vanish()
        await client.clock.advance(19.9 + 15)
        assert reports == []
        await client.clock.advance(1.2)
        assert [(r.cause, r.closed_by, r.code_sent, r.code_received) for r in reports] == [
            (Cause.PING_TIMEOUT, "us", 1011, None)
        ]
        await client.clock.advance(12)  # until TCP is closed
        assert server.make_ready().connections == 0


async def test_any_received_byte_keeps_the_connection() -> None:
    """A peer that is sending one long message can send a Pong only after it."""
    async with rig(ping_interval=20, ping_timeout=15, receive_timeout=3600) as (_, client, reports):
        await client.connect("/")
        client.transports[0].pause_reading()
        for _ in range(20):
            client.transports[0].write(b"\x82\xfe\xff\x00" if _ == 0 else b"x")
            await client.clock.advance(10)
        assert reports == []


async def test_a_peer_is_not_disconnected_because_the_loop_lags() -> None:
    async with rig(ping_interval=20, ping_timeout=15) as (server, client, reports):
        await client.connect("/")
        await client.clock.advance(19.5)
        client.transports[0].pause_reading()  # delays the Pong
        await client.clock.advance(1)
        client.clock.jump(60)
        await client.clock.advance(0.1)
        client.transports[0].resume_reading()
        await client.clock.advance(30)
        assert reports == []
        assert server.make_ready().hub.loop_lag > 40
        assert max(i for i, count in enumerate(server.stats.loop_lag.counts) if count) == 13


async def test_a_silent_peer_after_a_lag_is_reported_as_lag() -> None:
    async with rig(ping_interval=20, ping_timeout=15) as (_, client, reports):
        await client.connect("/")
        await client.clock.advance(19.5)
        client.transports[0].vanish()
        await client.clock.advance(1)
        client.clock.jump(60)
        await client.clock.advance(14)
        assert reports == []
        await client.clock.advance(2)
        assert [r.cause for r in reports] == [Cause.LOOP_LAG]
        assert reports[0].loop_lag > 40


async def test_a_peer_that_closes_after_a_lag_is_reported_with_the_lag() -> None:
    async with rig() as (_, client, reports):
        ws = await client.connect("/")
        client.clock.jump(30)
        await client.clock.advance(0.1)
        await ws.close()
        assert reports[0].cause is Cause.PEER
        assert reports[0].loop_lag > 25


async def test_an_old_lag_is_not_reported() -> None:
    async with rig() as (server, client, _):
        await client.connect("/")
        client.clock.jump(30)
        await client.clock.advance(120)
        assert server.make_ready().hub.loop_lag == 0


async def test_all_connections_share_one_timer() -> None:
    async with rig(ping_interval=20) as (_, client, _):
        sockets = [await client.connect("/") for _ in range(50)]
        timers = [t for t in client.clock._timers if "keepalive" in repr(t[2]._callback)]
        assert len(timers) <= 1
        await asyncio.gather(*(ws.close() for ws in sockets))
        await client.clock.advance(100)
        await settle()
        assert client.clock._timers == []


async def test_an_unexpected_pong_is_ignored() -> None:
    async with rig(ping_interval=20) as (server, client, _):
        ws = await client.connect("/")
        ws._connection.send_pong(b"1234")
        ws._outbox.flush()
        await settle()
        assert server.websockets[0].latency is None


async def test_a_peer_that_is_still_taking_a_large_message_is_not_silent() -> None:
    limits = {"ping_interval": 20.0, "ping_timeout": 20.0, "send_timeout": 1000.0}
    async with rig(**limits) as (server, client, reports):
        ws = await client.connect("/")
        server.websockets[0].post(bytes(1_000_000))  # the Ping stands behind it
        transport = client.transports[0]
        for _ in range(12):
            transport.pause_reading()
            await client.clock.advance(5)
            transport.resume_reading()
            await asyncio.sleep(0)  # takes 64 KiB
        assert reports == []
        assert server.websockets[0].taken is not None
        await settle()
        assert len(await ws.recv()) == 1_000_000
        assert server.websockets[0].taken is None
        server.websockets[0].post(bytes(1_000_000))
        transport.pause_reading()  # now it takes nothing
        await client.clock.advance(45)
        assert [report.cause for report in reports] == [Cause.PING_TIMEOUT]


async def test_a_peer_from_which_nothing_is_read_is_not_silent() -> None:
    clock = ManualClock()
    server = Server(clock=clock, ping_interval=20, ping_timeout=20)
    reports: list[CloseReport] = []
    server.on_report(reports.append)
    go_on = asyncio.Event()
    received: list[str | bytes] = []

    @server.websocket("/")
    async def slow(ws: WebSocket) -> None:
        await go_on.wait()
        received.extend([message async for message in ws])

    async with TestClient(server, clock) as client:
        ws = await client.connect("/")
        for _ in range(20):
            ws._connection.send_binary(bytes(50_000))
        ws._outbox.flush()
        await settle()
        assert server.websockets[0].reading_paused
        await clock.advance(300)
        assert reports == []
        go_on.set()
        await settle()
        await ws.close()
        assert len(received) == 20
