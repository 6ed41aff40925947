"""Faults over real TCP: peers that stall, vanish, send slowly or reconnect; a blocked loop; a crowd."""

import asyncio
import gc
import logging
import resource
import signal
import socket
import weakref
from collections import Counter
from contextlib import suppress

import pytest

from rfc6455 import ClientHandshake, ConnectionClosed, PerMessageDeflate
from rfc6455_server import Cause, CloseReport, ConnectionClosedError, Server, WebSocket, coalesce, connect
from rfc6455_server.testing import ManualClock
from tests.helpers import close_payload
from tests.server_helpers import PATIENCE, RawPeer, echo_server, running_command, serving, until


def room_server(**options: object) -> Server:
    server = Server(**options)  # type: ignore[arg-type]

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        server.rooms["all"].join(ws)
        async for message in ws:
            server.rooms["all"].broadcast(message)

    return server


async def stalled(url: str, path: str = "/") -> RawPeer:
    """Returns a peer that does not read."""
    peer = await RawPeer.upgraded(url, path)
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]  # also a ReadTransport
    return peer


# A peer that stops reading.


async def test_stalled_members_cost_only_their_queues_and_delay_nobody() -> None:
    server = room_server(max_queue=200_000, send_timeout=1)
    reports: list[CloseReport] = []
    server.on_report(reports.append)
    async with serving(server) as url:
        slow = [await stalled(url) for _ in range(5)]
        healthy = [await connect(url) for _ in range(5)]
        await until(lambda: len(server.rooms["all"]) == 10)
        for number in range(1500):
            server.rooms["all"].broadcast(number.to_bytes(10_000, "big"))
            await asyncio.sleep(0)
            for ws in healthy:
                assert await ws.recv() == number.to_bytes(10_000, "big")
        await until(lambda: len(reports) == 5)
        assert {report.cause for report in reports} == {Cause.SLOW_CONSUMER}
        assert {report.code_sent for report in reports} == {1008}
        for peer in slow:
            await peer.close()
        await until(lambda: server.queued == 0)


async def test_a_slow_member_gets_the_newest_and_a_healthy_one_all_messages() -> None:
    server = room_server()
    async with serving(server) as url:
        slow = await stalled(url)
        fast = await connect(url)
        await until(lambda: len(server.rooms["all"]) == 2)
        count = 3000
        seen = []
        for number in range(count):
            tick = number.to_bytes(4, "big") + bytes(4000)
            server.rooms["all"].broadcast(tick, policy=coalesce("price"))
            await asyncio.sleep(0)
            seen.append(int.from_bytes((await fast.recv())[:4], "big"))  # type: ignore[arg-type]
        assert seen == list(range(count))
        behind = server.websockets[0]
        assert behind.dropped > count / 2
        assert server.stats.dropped["coalesce"] == behind.dropped
        assert behind.queued < 500_000
        slow.writer.transport.resume_reading()  # type: ignore[attr-defined]  # also a ReadTransport
        got: list[int] = []
        while not got or got[-1] < count - 1:
            head = await slow.read(4)
            assert head == b"\x82\x7e" + (4004).to_bytes(2, "big")
            got.append(int.from_bytes((await slow.read(4004))[:4], "big"))
        assert got == sorted(set(got))
        assert len(got) + behind.dropped == count
        await slow.close()
        await fast.close()


async def test_send_disconnects_a_peer_that_does_not_read() -> None:
    server = Server(send_timeout=0.3)
    ended: list[object] = []

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        try:
            while True:
                await ws.send(bytes(100_000))
        except ConnectionClosedError as error:
            ended.append((error.code, ws.report and ws.report.cause))

    async with serving(server) as url:
        peer = await stalled(url)
        await until(lambda: ended)
        await until(lambda: server.make_ready().connections == 0)
        await peer.close()
    assert ended == [(1006, Cause.SEND_TIMEOUT)]


async def test_over_the_total_limit_the_largest_backlog_is_disconnected(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server(max_total_queue=1_500_000, max_queue=4_000_000)
    reports: list[CloseReport] = []
    server.on_report(reports.append)

    @server.websocket("/{name}")
    async def handler(ws: WebSocket, name: str) -> None:
        server.rooms[name].join(ws)
        async for _ in ws:
            pass

    async with serving(server) as url:
        peers = [await stalled(url, path) for path in ("/little", "/much")]
        await until(lambda: len(server.rooms) == 2)
        while server.queued < 300_000:
            server.rooms["little"].broadcast(bytes(50_000))
            await asyncio.sleep(0)
        with caplog.at_level(logging.INFO, logger="rfc6455_server"):
            while not reports:
                server.rooms["much"].broadcast(bytes(50_000))
                await asyncio.sleep(0)
        assert [(report.path, report.cause) for report in reports] == [("/much", Cause.BUDGET)]
        assert 'cause="queue budget"' in caplog.text
        assert 0 < server.queued < 1_500_000
        for peer in peers:
            await peer.close()


async def test_a_peer_that_pings_and_never_reads_is_disconnected() -> None:
    """Every Ping is answered, so the server has to limit the Pongs that wait."""
    server = room_server()
    reports: list[CloseReport] = []
    server.on_report(reports.append)
    async with serving(server) as url:
        peer = await stalled(url)
        await until(lambda: len(server.rooms["all"]) == 1)
        while not server.queued:
            server.rooms["all"].broadcast(bytes(100_000))
            await asyncio.sleep(0)
        for _ in range(1100):
            peer.send(9, bytes(125))
        await until(lambda: reports)
        assert reports[0].cause is Cause.PROTOCOL_ERROR
        assert reports[0].code_sent == 1008
        await peer.close()


# Peers that vanish or send slowly.


async def test_a_peer_that_vanishes_without_a_fin_is_disconnected() -> None:
    clock = ManualClock()
    server = room_server(clock=clock, ping_interval=20, ping_timeout=20)
    reports: list[CloseReport] = []
    server.on_report(reports.append)
    async with serving(server) as url:
        # The server cannot tell a stopped process from a cut cable.
        peer = await stalled(url)
        alive = await connect(url)
        await until(lambda: len(server.rooms["all"]) == 2)
        await clock.advance(41)
        await until(lambda: reports)
        assert [report.cause for report in reports] == [Cause.PING_TIMEOUT]
        assert alive.closed is None
        assert len(server.rooms["all"]) == 1
        await peer.close()
        await alive.close()


async def test_a_slow_message_keeps_the_connection_and_a_slow_request_does_not() -> None:
    clock = ManualClock()
    server = echo_server(
        clock=clock, ping_interval=20, ping_timeout=20, handshake_timeout=40, receive_timeout=3600
    )
    async with serving(server) as url:
        peer = await stalled(url, "/echo")
        peer.writer.write(b"\x82\xfe\x00\xff\0\0\0\0")
        for number in range(15):
            peer.writer.write(b"x")
            await until(lambda: server.stats.bytes_in == 9 + number)  # noqa: B023 - it is called at once
            await clock.advance(15)
        assert len(server.websockets) == 1
        dripping = await RawPeer.connect(url)
        await until(lambda: server.make_ready().connections == 2)
        request = ClientHandshake("h", "/echo").data_to_send()
        for octet in request[:39]:
            dripping.writer.write(bytes([octet]))
            peer.writer.write(b"x")
            await clock.advance(1)
        assert server.make_ready().connections == 2
        await clock.advance(1)
        await until(lambda: server.make_ready().connections == 1)
        with suppress(ConnectionResetError):  # if a byte was unread
            assert await dripping.read_to_end() == b""
        await dripping.close()
        await peer.close()


# A blocked loop, a handler that raises.


async def test_a_handler_that_blocks_the_loop_disconnects_nobody() -> None:
    clock = ManualClock()
    server = echo_server(clock=clock, ping_interval=20, ping_timeout=30)
    reports: list[CloseReport] = []
    server.on_report(reports.append)

    @server.websocket("/block")
    async def block(ws: WebSocket) -> None:
        await ws.recv()
        clock.jump(150)  # nobody else has a turn
        await ws.send("done")
        await ws.recv()

    async with serving(server) as url:
        async with connect(url + "/block") as blocking, connect(url + "/echo") as other:
            await clock.advance(20)
            await blocking.send("go")
            assert await blocking.recv() == "done"
            await clock.advance(50)
            await other.send("still here")
            assert await other.recv() == "still here"
        await until(lambda: len(reports) == 2)
        assert {report.cause for report in reports} == {Cause.PEER}
        assert max(report.loop_lag for report in reports) > 100


async def test_a_handler_that_raises_disconnects_only_its_own_peer(caplog: pytest.LogCaptureFixture) -> None:
    server = room_server()

    @server.websocket("/broken")
    async def broken(ws: WebSocket) -> None:
        server.rooms["all"].join(ws)
        raise ZeroDivisionError(ws.id)

    async with serving(server) as url, connect(url) as healthy:
        for _ in range(20):
            ws = await connect(url + "/broken")
            await ws.wait_closed()
            assert ws.closed == ConnectionClosed(1011, "", True)
        await healthy.send("x")
        assert await healthy.recv() == "x"
        assert len(server.rooms["all"]) == 1
    problems = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(problems) == 20
    fields = problems[0].__dict__["fields"]
    assert f"ZeroDivisionError: {fields['id']}" in caplog.text


# A crowd.


async def test_five_thousand_join_one_room_and_leave_together() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 10_500
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.fail(f"this test needs {needed} file descriptors, and the limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    server = room_server(handshake_timeout=60, ping_interval=1000)
    left: list[object] = []
    server.rooms.on_leave(lambda room, member: left.append(member))
    request = ClientHandshake("h", "/").data_to_send()
    sockets: list[socket.socket] = []
    try:
        async with serving(server) as url:
            port = int(url.rsplit(":", 1)[1])
            for _ in range(5000):
                peer = socket.create_connection(("127.0.0.1", port))
                peer.setblocking(False)
                peer.send(request)
                sockets.append(peer)
                await asyncio.sleep(0)
            await until(lambda: len(server.rooms["all"]) == 5000)
            server.rooms["all"].broadcast("all of you")
            await asyncio.sleep(0)
            assert len(server.rooms["all"].members) == 5000
            for peer in sockets:
                peer.close()
            await until(lambda: server.make_ready().connections == 0)
            assert len(left) == len(set(left)) == 5000
            assert len(server.rooms) == 0
            assert server.queued == 0
            async with connect(url) as ws:
                await ws.send("the next one")
                assert await ws.recv() == "the next one"
    finally:
        for peer in sockets:
            peer.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Stopping under load.


async def test_drain_under_load_closes_every_connection_in_time() -> None:
    server = echo_server(close_timeout=0.5)
    answers: Counter[WebSocket] = Counter()
    async with serving(server) as url:
        chatty = [await connect(url + "/echo") for _ in range(20)]
        silent = [await stalled(url, "/echo") for _ in range(3)]  # do not answer our Close

        async def chat(ws: WebSocket) -> None:
            try:
                while True:
                    await ws.send("x" * 100)
                    await ws.recv()
                    answers[ws] += 1
            except ConnectionClosedError:
                pass

        tasks = [asyncio.create_task(chat(ws)) for ws in chatty]
        await until(lambda: len(answers) == 20)
        await server.drain(0.5)
        await server.stop()
        assert server.make_ready().connections == 0  # the silent ones, too
        await asyncio.gather(*tasks)
        for ws in chatty:
            await ws.wait_closed()
            assert ws.closed is not None
            assert (ws.closed.code, ws.closed.clean) == (1001, True)
        for peer in silent:
            await peer.close()


async def test_a_second_signal_stops_the_server_at_once() -> None:
    with running_command("--drain-time", "600") as (process, url):
        sockets = [await connect(url.replace("http", "ws") + "/echo") for _ in range(3)]
        process.send_signal(signal.SIGTERM)
        await until(lambda: [ws.closed is None for ws in sockets].count(True) == 2)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        for ws in sockets:
            await ws.wait_closed()
        assert sorted(ws.closed.code for ws in sockets if ws.closed) == [1001, 1006, 1006]
        assert "stopping at once" in process.communicate()[1]


async def test_a_close_is_sent_after_the_queue() -> None:
    """Messages that were posted before the close arrive before it, even at a slow peer."""
    server = Server()
    closing = asyncio.Event()

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        for number in range(200):
            ws.post(number.to_bytes(5000, "big"))
            if number == 100:
                await ws.recv()
        ws.start_close(4000, "enough")
        closing.set()

    async with serving(server) as url:
        peer = await stalled(url)
        peer.send(1, b"go")
        await closing.wait()
        peer.writer.transport.resume_reading()  # type: ignore[attr-defined]  # also a ReadTransport
        for number in range(200):
            assert (await peer.read(5004))[4:] == number.to_bytes(5000, "big")
        assert await peer.read(4) == b"\x88\x08" + close_payload(4000)
        await peer.close()


async def test_endless_sending_blocks_nobody_and_ends_with_the_peer() -> None:
    server = echo_server()
    ended: list[object] = []

    @server.websocket("/stream")
    async def stream(ws: WebSocket) -> None:
        try:
            while True:
                await ws.send(bytes(30_000))
        except ConnectionClosedError as error:
            ended.append(error.code)

    async with serving(server) as url:
        reading = await RawPeer.upgraded(url, "/stream")
        taking = asyncio.create_task(reading.read_to_end())
        async with connect(url + "/echo") as other:
            for _ in range(20):
                await other.send("x")
                assert await other.recv() == "x"
        reading.writer.transport.abort()
        with suppress(OSError):
            await taking
        await until(lambda: ended)
        for _ in range(10):
            peer = await RawPeer.upgraded(url, "/stream")
            await peer.read(100_000)
            peer.writer.transport.abort()
        await until(lambda: len(ended) == 11)
        assert server.websockets == []


@pytest.mark.parametrize("how", ["close", "vanish", "violation", "cancelled"])
async def test_a_connection_is_freed_without_the_garbage_collector(how: str) -> None:
    server = Server(compression=PerMessageDeflate())
    seen: list[weakref.ref[object]] = []

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        seen.extend(map(weakref.ref, (ws, ws._protocol, ws._protocol.reader, ws._transport)))
        server.rooms["all"].join(ws)
        async for message in ws:
            if message == "cancel":
                raise asyncio.CancelledError
            await ws.send(message)

    async with serving(server) as url:
        gc.collect()
        gc.disable()
        try:
            peer = await RawPeer.upgraded(url, "/")
            peer.send(1, b"hello")
            assert await peer.read(7) == b"\x81\x05hello"
            match how:
                case "close":
                    peer.send(8, close_payload(1000))
                case "vanish":
                    peer.writer.transport.abort()
                case "violation":
                    peer.writer.write(b"\x83\x80")
                case _:
                    peer.send(1, b"cancel")
                    await peer.read(4)
            await peer.close()
            await until(lambda: server.make_ready().connections == 0)
            await until(lambda: [left() for left in seen] == [None] * 4)
        finally:
            gc.enable()
        assert len(server.make_ready()._keepalive) == 0
