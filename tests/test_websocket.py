"""One connection through real sockets: our server at one end, a bare socket at the other."""

import asyncio
import errno
from collections.abc import Callable

import pytest

from rfc6455 import ConnectionClosed, LocalProtocolError
from rfc6455_server import ConnectionClosedError, Server, WebSocket, connect
from rfc6455_server.websocket import ending
from tests.helpers import close_payload
from tests.server_helpers import RawPeer, echo_server, serving


async def eventually(condition: Callable[[], object], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - conditions of any kind
            await asyncio.sleep(0.005)


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


async def test_frames_that_come_with_the_request() -> None:
    async with serving(echo_server()) as url:
        peer = await RawPeer.upgraded(url, early=bytes.fromhex("818537fa213d7f9f4d5158"))
        assert await peer.read(7) == b"\x81\x05Hello"
        await peer.close()


async def test_a_good_message_before_a_bad_frame_is_answered() -> None:
    async with serving(echo_server()) as url:
        peer = await RawPeer.upgraded(url)
        peer.writer.write(bytes.fromhex("818537fa213d7f9f4d5158") * 2 + b"\x83\x80")
        answer = await peer.read_to_end()
        assert answer.startswith(b"\x81\x05Hello\x81\x05Hello\x88")
        assert close_payload(1002) in answer
        await peer.close()


async def test_the_peer_gets_our_close_though_it_goes_on_sending() -> None:
    """A reset would take the Close with it: what still comes is read and dropped."""
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
        await eventually(lambda: len(seen) == 3)
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
        await eventually(lambda: len(closed) == 2)
    assert closed == [ConnectionClosed(1006, "", False)] * 2


async def test_recv_can_be_cancelled_without_losing_a_message() -> None:
    server = Server()
    results: list[object] = []

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        for _ in range(50):
            try:
                async with asyncio.timeout(0.001):
                    results.append(await ws.recv())
            except TimeoutError:
                pass
        results.extend([message async for message in ws])

    async with serving(server) as url:
        peer = await RawPeer.upgraded(url, "/")
        for i in range(100):
            peer.send(1, b"%d" % i)
            await asyncio.sleep(0.0007)
        peer.send(8)
        await peer.read_to_end()
        await eventually(lambda: len(results) == 100)
        await peer.close()
    assert results == [str(i) for i in range(100)]


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
        await eventually(lambda: slugs)
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


async def test_a_handler_that_does_not_read_holds_back_its_own_peer_only() -> None:
    server = echo_server()
    sockets: list[WebSocket] = []
    release = asyncio.Event()
    sizes: list[int] = []

    @server.websocket("/lazy")
    async def handler(ws: WebSocket) -> None:
        sockets.append(ws)
        await release.wait()
        sizes.extend([len(message) async for message in ws])

    async with serving(server) as url:
        peer = await RawPeer.upgraded(url, "/lazy")
        for _ in range(400):
            peer.send(2, bytes(50_000))
        # The transport of the peer fills up: TCP pushes back.
        await eventually(lambda: peer.writer.transport.get_write_buffer_size() > 1_000_000)
        await asyncio.sleep(0.1)
        assert sockets[0].unread < 1_000_000
        other = await RawPeer.upgraded(url)
        other.send(1, b"me")
        assert await other.read(4) == b"\x81\x02me"
        release.set()
        peer.send(8)
        await peer.read_to_end()
        await eventually(lambda: len(sizes) == 400)
        await peer.close()
        await other.close()
    assert sizes == [50_000] * 400


async def test_send_waits_for_a_peer_that_does_not_read() -> None:
    server = Server()
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
        await asyncio.sleep(0.3)
        assert len(sent) < 300
        stuck = len(sent)
        await peer.read(10_000_000)
        await eventually(lambda: len(sent) > stuck)
        peer.writer.transport.abort()
        await eventually(lambda: errors)
    assert errors == [1006]


async def test_small_sends_in_a_row_leave_in_few_writes_and_in_order() -> None:
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


async def test_ping_gives_the_round_trip() -> None:
    async with serving(echo_server()) as url, connect(url + "/echo") as ws:
        first, second = await asyncio.gather(ws.ping(), ws.ping())
        assert 0 < first < 5
        assert 0 < second < 5
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
        await eventually(lambda: caught)
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
        await eventually(lambda: seen)
    assert seen == [ConnectionClosed(4000, "", True)]


async def test_close_finds_the_peers_close_behind_unread_messages() -> None:
    server = Server()
    seen: list[object] = []

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        await asyncio.sleep(0.2)
        await ws.close()
        seen.append(ws.closed)

    async with serving(server) as url:
        peer = await RawPeer.upgraded(url, "/")
        for _ in range(300):
            peer.send(2, bytes(50_000))
        peer.send(8, close_payload(1000))
        await peer.read_to_end()
        await eventually(lambda: seen)
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
        await eventually(lambda: seen)
        await peer.close()
    assert seen == [ConnectionClosed(1006, "", False)]


async def test_a_peer_that_never_closes_tcp_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "LINGER_TIMEOUT", 0.1)
    async with serving(echo_server()) as url:
        peer = await RawPeer.upgraded(url)
        peer.writer.write(b"\x83\x80")
        await peer.read_to_end()
        await asyncio.sleep(0.3)
        peer.writer.write(b"x")
        await asyncio.sleep(0.1)
        with pytest.raises(ConnectionError):
            for _ in range(100):
                peer.writer.write(b"x" * 1000)
                await peer.writer.drain()
                await asyncio.sleep(0.01)
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
        await eventually(lambda: len(server.rooms["all"]) == 1)
        for _ in range(100):
            server.rooms["all"].broadcast(bytes(100_000))
            await asyncio.sleep(0)
        await eventually(lambda: bool(ended))
        assert ended == [ConnectionClosed(1006, "", False)]
        assert len(server.rooms["all"]) == 0
        await slow.close()


async def test_a_reset_that_we_have_yet_to_be_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    seen: list[WebSocket] = []

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        def write_eof() -> None:
            raise OSError(errno.ENOTCONN, "not connected")

        monkeypatch.setattr(ws._writer.transport, "write_eof", write_eof)
        async for _ in ws:
            pass
        await ws.wait_closed()
        seen.append(ws)

    async with serving(server) as url:
        peer = await RawPeer.upgraded(url, "/")
        await asyncio.sleep(0.05)
        peer.writer.write(b"\x83\x80")
        await eventually(lambda: seen)
        await peer.close()
    assert seen[0].failure is not None


async def test_repr_says_role_and_state() -> None:
    async with serving(echo_server()) as url:
        async with connect(url + "/echo") as ws:
            assert repr(ws) == "<WebSocket client open>"
        assert repr(ws) == "<WebSocket client closed>"
