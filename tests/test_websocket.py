"""One WebSocket over real TCP: our server, and a peer that sends and receives raw bytes."""

import asyncio
import errno
import itertools

import pytest

from rfc6455 import ConnectionClosed, LocalProtocolError, Opcode, encode_frame
from rfc6455_server import ConnectionClosedError, Server, WebSocket, coalesce, connect
from rfc6455_server.testing import ManualClock, TestClient, settle
from rfc6455_server.websocket.backlog import CALL_COST
from rfc6455_server.websocket.outbox import FRAME_COST
from rfc6455_server.websocket.streams import LINGER_TIMEOUT
from tests.helpers import close_payload
from tests.server_helpers import RawPeer, echo_server, serving, talk_meanwhile, until


async def test_messages_and_control_frames() -> None:
    async with serving(echo_server()) as url:
        peer = await RawPeer.upgraded(url)
        peer.send(1, "hé".encode())
        peer.send(9, b"ping")
        peer.send(2, b"\xff", fin=False)
        peer.send(0, b"\xfe")
        assert sorted([await peer.read(5), await peer.read(6)]) == [b"\x81\x03h\xc3\xa9", b"\x8a\x04ping"]
        assert await peer.read(4) == b"\x82\x02\xff\xfe"
        peer.send(8, close_payload(1000))
        # RFC 6455 §7.1.1: the server closes TCP first.
        assert await peer.read_to_end() == b"\x88\x02\x03\xe8"
        await peer.close()


async def test_frames_in_the_same_read_as_the_request() -> None:
    async with serving(echo_server()) as url:
        peer = await RawPeer.upgraded(url, early=bytes.fromhex("818537fa213d7f9f4d5158"))
        assert await peer.read(7) == b"\x81\x05Hello"
        await peer.close()


async def test_a_valid_message_before_an_invalid_frame_is_answered() -> None:
    async with serving(echo_server()) as url:
        peer = await RawPeer.upgraded(url)
        peer.writer.write(bytes.fromhex("818537fa213d7f9f4d5158") * 2 + b"\x83\x80")
        answer = await peer.read_to_end()
        assert answer.startswith(b"\x81\x05Hello\x81\x05Hello\x88")
        assert close_payload(1002) in answer
        await peer.close()


async def test_a_peer_that_continues_to_send_receives_our_close() -> None:
    """A TCP reset would discard the Close, so the server reads and discards later data."""
    async with serving(echo_server(max_message_size=1000)) as url:
        peer = await RawPeer.upgraded(url)
        peer.writer.write(b"\x82\xfe\xff\xff\0\0\0\0" + bytes(2_000_000))
        answer = await peer.read_to_end()
        assert answer[:1] == b"\x88"
        assert answer[2:4] == close_payload(1009)
        await peer.close()


async def test_recv_and_iteration_end_with_the_connection() -> None:
    server = Server()
    seen: list[object] = []

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        seen.extend([message async for message in ws])
        with pytest.raises(ConnectionClosedError) as caught:
            await ws.recv()
        seen.append((caught.value.code, caught.value.reason, caught.value.clean, caught.value.slug))
        with pytest.raises(ConnectionClosedError):
            await ws.send("too late")
        with pytest.raises(ConnectionClosedError):
            await ws.ping()
        seen.append(ws.closed)

    async with serving(server) as url:
        peer = await RawPeer.upgraded(url, "/")
        peer.send(1, b"last")
        peer.send(8, close_payload(3000, b"why"))
        await peer.read_to_end()
        await until(lambda: len(seen) == 3)
        await peer.close()
    assert seen == ["last", (3000, "why", True, "closed"), ConnectionClosed(3000, "why", True)]


async def test_a_peer_that_vanishes_is_1006() -> None:
    server = Server()
    closed: list[ConnectionClosed | None] = []

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        async for _ in ws:
            pass
        closed.append(ws.closed)

    async with serving(server) as url:
        for abort in (False, True):
            peer = await RawPeer.upgraded(url, "/")
            if abort:
                peer.writer.transport.abort()
            else:
                await peer.close()
        await until(lambda: len(closed) == 2)
    assert closed == [ConnectionClosed(1006, "", False)] * 2


async def test_recv_can_be_cancelled_without_losing_a_message() -> None:
    server = Server()
    results: list[object] = []
    cancelled = 0

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        nonlocal cancelled
        for turns in itertools.cycle(range(4)):
            receiving = asyncio.create_task(ws.recv())
            for _ in range(turns):
                await asyncio.sleep(0)
            receiving.cancel()
            await asyncio.wait([receiving])
            if receiving.cancelled():
                cancelled += 1
            elif receiving.exception() is None:
                results.append(receiving.result())
            else:
                break

    async with serving(server) as url:
        peer = await RawPeer.upgraded(url, "/")
        for i in range(100):
            peer.send(1, b"%d" % i)
            for _ in range(i % 3):
                await asyncio.sleep(0)
        peer.send(8)
        await peer.read_to_end()
        await until(lambda: not server.websockets)
        await peer.close()
    assert results == [str(i) for i in range(100)]
    assert cancelled > 10


async def test_two_tasks_cannot_wait_in_recv() -> None:
    server = Server()
    slugs = []

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        first = asyncio.create_task(ws.recv())
        await asyncio.sleep(0)
        with pytest.raises(LocalProtocolError) as caught:
            await ws.recv()
        slugs.append(caught.value.slug)
        assert await first == "x"

    async with serving(server) as url:
        peer = await RawPeer.upgraded(url, "/")
        await until(lambda: slugs)
        peer.send(1, b"x")
        await peer.read(4)
        await peer.close()
    assert slugs == ["concurrent-recv"]


async def test_control_frames_are_answered_while_the_handler_is_busy() -> None:
    server = Server()
    release = asyncio.Event()

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        await release.wait()

    async with serving(server) as url:
        peer = await RawPeer.upgraded(url, "/")
        for _ in range(3):
            peer.send(1, b"unread")
        peer.send(9, b"still there?")
        assert await peer.read(14) == b"\x8a\x0cstill there?"
        peer.send(8, close_payload(1000))
        assert await peer.read_to_end() == b"\x88\x02\x03\xe8"
        release.set()
        await peer.close()


async def test_a_handler_that_does_not_read_stops_only_its_own_peer() -> None:
    server = echo_server()
    release = asyncio.Event()
    sizes: list[int] = []

    @server.websocket("/lazy")
    async def handler(ws: WebSocket) -> None:
        await release.wait()
        sizes.extend([len(message) async for message in ws])

    async with serving(server) as url:
        peer = await RawPeer.upgraded(url, "/lazy")
        for _ in range(400):
            peer.send(2, bytes(50_000))
        await talk_meanwhile(url)
        assert server.stats.bytes_in < 1_000_000
        # The transport of the peer is full: backpressure.
        assert peer.writer.transport.get_write_buffer_size() > 10_000_000
        release.set()
        peer.send(8)
        await peer.read_to_end()
        await until(lambda: len(sizes) == 400)
        await peer.close()
    assert sizes == [50_000] * 400


async def test_send_waits_for_a_peer_that_does_not_read() -> None:
    server = echo_server()
    sent: list[int] = []
    errors: list[int] = []

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        try:
            for _ in range(1000):
                await ws.send(bytes(100_000))
                sent.append(1)
        except ConnectionClosedError as error:
            errors.append(error.code)

    async with serving(server) as url:
        peer = await RawPeer.upgraded(url, "/")
        await until(lambda: server.queued)
        await talk_meanwhile(url)
        assert len(sent) < 300
        stuck = len(sent)
        await talk_meanwhile(url)
        assert len(sent) == stuck
        await peer.read(10_000_000)
        await until(lambda: len(sent) > stuck)
        peer.writer.transport.abort()
        await until(lambda: errors)
    assert errors == [1006]


async def test_many_small_messages_arrive_in_order() -> None:
    server = Server()

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        for i in range(100):
            await ws.send(str(i))
        await ws.recv()

    async with serving(server) as url:
        ws = await connect(url)
        assert [await ws.recv() for _ in range(100)] == [str(i) for i in range(100)]
        await ws.send("done")
        await ws.wait_closed()
        assert ws.closed == ConnectionClosed(1000, "", True)


async def test_ping_returns_the_round_trip_time() -> None:
    clock = ManualClock()
    async with TestClient(echo_server(clock=clock), clock) as client:
        ws = await client.connect("/echo")
        (transport,) = client.transports
        transport.pause_reading()
        first = asyncio.create_task(ws.ping())
        await clock.advance(3)
        second = asyncio.create_task(ws.ping())
        await clock.advance(2)
        transport.resume_reading()
        assert (await first, await second) == (5, 2)
        assert not ws._pings


async def test_a_ping_ends_with_the_connection() -> None:
    server = Server()
    caught: list[ConnectionClosedError] = []

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        try:
            await ws.ping()
        except ConnectionClosedError as error:
            caught.append(error)

    async with serving(server) as url:
        peer = await RawPeer.upgraded(url, "/")
        await peer.read(6)
        peer.send(10, b"nobody asked")
        peer.send(8, close_payload(1001))
        await peer.read_to_end()
        await until(lambda: caught)
        await peer.close()
    assert caught[0].code == 1001


async def test_close_waits_for_the_peer() -> None:
    server = Server()
    seen: list[object] = []

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        await ws.close(4000, "enough")
        seen.append(ws.closed)

    async with serving(server) as url, connect(url) as ws:
        with pytest.raises(ConnectionClosedError) as caught:
            await ws.recv()
        assert (caught.value.code, caught.value.reason, caught.value.clean) == (4000, "enough", True)
        await until(lambda: seen)
    assert seen == [ConnectionClosed(4000, "", True)]


async def test_close_finds_the_peers_close_behind_unread_messages() -> None:
    server = echo_server()
    seen: list[object] = []
    go_on = asyncio.Event()

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        await go_on.wait()
        await ws.close()
        seen.append(ws.closed)

    async with serving(server) as url:
        peer = await RawPeer.upgraded(url, "/")
        for _ in range(300):
            peer.send(2, bytes(50_000))
        peer.send(8, close_payload(1000))
        await talk_meanwhile(url)
        go_on.set()
        await peer.read_to_end()
        await until(lambda: seen)
        await peer.close()
    assert seen == [ConnectionClosed(1000, "", True)]


async def test_a_peer_that_never_answers_our_close() -> None:
    server = Server(close_timeout=0.1)
    seen: list[object] = []

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        await ws.close(1000)
        seen.append(ws.closed)

    async with serving(server) as url:
        peer = await RawPeer.upgraded(url, "/")
        await until(lambda: seen)
        await peer.close()
    assert seen == [ConnectionClosed(1006, "", False)]


async def test_a_peer_that_never_closes_tcp_after_a_failure() -> None:
    clock = ManualClock()
    server = echo_server(clock=clock)
    async with serving(server) as url:
        peer = await RawPeer.upgraded(url)
        peer.writer.write(b"\x83\x80")
        await peer.read_to_end()
        await clock.advance(LINGER_TIMEOUT - 0.1)
        peer.writer.write(b"x")
        await peer.writer.drain()
        assert server.make_ready().connections == 1
        await clock.advance(0.2)
        assert server.make_ready().connections == 0
        with pytest.raises(ConnectionError):
            while True:
                peer.writer.write(b"x" * 1000)
                await peer.writer.drain()
                await asyncio.sleep(0)
        await peer.close()


async def test_a_bad_close_code_changes_nothing() -> None:
    async with serving(echo_server()) as url, connect(url + "/echo") as ws:
        with pytest.raises(LocalProtocolError):
            await ws.close(1006)
        with pytest.raises(LocalProtocolError):
            await ws.send("\ud800")
        await ws.send("still open")
        assert await ws.recv() == "still open"


async def test_a_member_that_does_not_read_is_disconnected() -> None:
    server = Server(send_timeout=0.5)
    ended: list[object] = []

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        server.rooms["all"].join(ws)
        async for _ in ws:
            pass
        ended.append(ws.closed)

    async with serving(server) as url:
        slow = await RawPeer.upgraded(url, "/")
        await until(lambda: len(server.rooms["all"]) == 1)
        for _ in range(100):
            server.rooms["all"].broadcast(bytes(100_000))
            await asyncio.sleep(0)
        await until(lambda: bool(ended))
        assert ended == [ConnectionClosed(1006, "", False)]
        assert len(server.rooms["all"]) == 0
        await slow.close()


async def test_a_reset_that_asyncio_has_not_reported_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    seen: list[WebSocket] = []
    begun = asyncio.Event()

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        def write_eof() -> None:
            raise OSError(errno.ENOTCONN, "not connected")

        monkeypatch.setattr(ws._transport, "write_eof", write_eof)
        begun.set()
        async for _ in ws:
            pass
        await ws.wait_closed()
        seen.append(ws)

    async with serving(server) as url:
        peer = await RawPeer.upgraded(url, "/")
        await begun.wait()
        peer.writer.write(b"\x83\x80")
        await until(lambda: seen)
        await peer.close()
    assert seen[0].failure is not None


async def test_eof_waits_until_all_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio would let it wait too, but raise in the event loop if the peer resets the connection then."""
    unsent: list[int] = []
    server = echo_server()
    async with serving(server) as url:
        peer = await RawPeer.upgraded(url)
        (ws,) = server.websockets
        write_eof, size = ws._transport.write_eof, ws._transport.get_write_buffer_size

        def record() -> None:
            unsent.append(size())
            write_eof()

        monkeypatch.setattr(ws._transport, "write_eof", record)
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a reading transport as well
        while not ws.behind:
            ws.post(bytes(1_000_000))
        peer.writer.write(b"\x83\x80")  # a reserved opcode
        await until(lambda: ws.closed is not None)
        assert size() > 0
        assert unsent == []
        peer.writer.transport.resume_reading()  # type: ignore[attr-defined]  # as above
        assert b"reserved opcode" in (await peer.read_to_end())[-30:]
        assert unsent == [0]
        await peer.close()


async def test_repr_shows_role_and_state() -> None:
    async with serving(echo_server()) as url:
        async with connect(url + "/echo") as ws:
            assert repr(ws) == "<WebSocket client open>"
        assert repr(ws) == "<WebSocket client closed>"


@pytest.mark.parametrize("reset", [True, False])
async def test_the_end_is_found_behind_many_unread_messages(reset: bool) -> None:
    """One read has many batches, of which one is taken a turn; TCP is lost before the last one."""
    server = Server()
    ended: list[object] = []

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        server.rooms["all"].join(ws)
        ws.on_closed.append(lambda _: ended.append("closed"))
        count = 0
        async for _ in ws:
            count += 1
        ended.append(count)

    async with serving(server) as url:
        peer = await RawPeer.upgraded(url, "/")
        await until(lambda: len(server.rooms["all"]) == 1)
        peer.writer.write(encode_frame(Opcode.TEXT, b"", mask_key=b"abcd") * 5000)
        if reset:
            peer.writer.transport.abort()
        else:
            await peer.close()
        await until(lambda: server.websockets == [])
        assert ended[0] == "closed" or ended[1] == "closed"
        assert len(server.rooms) == 0
        assert server.make_ready().connections == 0


async def fall_behind(server: Server, client: TestClient) -> WebSocket:
    """Stops the only client from reading, and sends to it until it is behind."""
    client.transports[0].pause_reading()
    await settle()
    (member,) = server.websockets
    while not member.behind:
        member.post("x" * 10_000)
        await settle()
    return member


async def test_the_key_function_of_the_servers_policy_is_called() -> None:
    clock = ManualClock()
    server = Server(clock=clock, slow_consumer=coalesce(lambda message: message[:1]))

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        server.rooms["all"].join(ws)
        await ws.wait_closed()

    async with TestClient(server, clock) as client:
        ws = await client.connect("/")
        member = await fall_behind(server, client)
        for message in ("a1", "b1", "a2"):
            server.rooms["all"].broadcast(message)
            member.post(message.upper())
        client.transports[0].resume_reading()
        await settle()
        seen = [message for message in await take_all(ws) if not str(message).startswith("x")]
        assert seen == ["b1", "B1", "a2", "A2"]


async def take_all(ws: WebSocket) -> list[str | bytes]:
    messages = []
    while ws.unread_bytes:
        messages.append(await ws.recv())
        await settle()
    return messages


async def test_pings_to_a_peer_that_is_behind_count() -> None:
    clock = ManualClock()
    server = Server(clock=clock)

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        await ws.wait_closed()

    async with TestClient(server, clock) as client:
        await client.connect("/")
        member = await fall_behind(server, client)
        before = member.queued
        pings = [asyncio.create_task(member.ping()) for _ in range(10)]
        await settle()
        assert member.queued >= before + 10 * FRAME_COST
        assert server.queued >= member.queued + 10 * CALL_COST
        for ping in pings:
            ping.cancel()
