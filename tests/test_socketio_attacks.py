"""Hostile and unlucky clients of the Socket.IO server: what they send, and what they must not reach."""

import asyncio
import gc
import json
from contextlib import suppress

import pytest

from rfc6455 import Headers, Request
from rfc6455_server import Server
from rfc6455_server.http.connection import HttpConnection
from rfc6455_server.socketio import DisconnectedError, Engine, EngineSocket, Socket
from rfc6455_server.socketio.compression import Compressor, choose_coding
from rfc6455_server.socketio.inflow import MAX_PENDING
from rfc6455_server.socketio.polling import Answer
from rfc6455_server.socketio.session import Session
from rfc6455_server.testing import ManualClock, MemoryTransport, TestClient, settle
from rfc6455_server.websocket.hub import Budget
from tests.helpers import measured
from tests.server_helpers import PATIENCE, RawPeer, Recorder, until
from tests.test_http import read_answer
from tests.test_socketio_server import PATH, Client, Rig, polling, rig


def sessions(r: Rig) -> list[Session]:
    assert r.io._transports is not None
    return list(r.io._transports.sessions.values())


async def test_a_session_that_ends_before_its_attachments_leaves_nothing_in_the_budget() -> None:
    async with rig() as r:
        for number in range(3):
            client = await r.client()
            places = ",".join(json.dumps({"_placeholder": True, "num": place}) for place in range(2))
            client.say(f'452-["x",{places}]', b"x" * 500_000)
            await settle()
            assert r.server.queued > 500_000
            if number == 0:
                r.test.transports[-1].abort()
            else:
                client.say("bad" if number == 1 else "41")
            await settle()
            assert r.server.queued == 0
        assert sessions(r) == []


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
async def test_an_origin_that_is_not_ascii_is_refused(method: str) -> None:
    async with polling(cors=lambda origin, request: True) as (url, io, _):
        peer = await RawPeer.connect(url)
        target = f"{method} /socket.io/?EIO=4&transport=polling HTTP/1.1"
        peer.writer.write(target.encode() + b"\r\nHost: test\r\nOrigin: http://\xe9\r\n\r\n")
        assert (await read_answer(peer)).status == 403
        await peer.close()
        assert io._transports is not None
        assert not io._transports.sessions


async def test_a_client_cannot_choose_the_offset_of_another_one() -> None:
    async with rig(recovery=60) as r:
        client = await Client.open(r.test)
        private_id = json.loads((await client.recv())[2:])["pid"]
        r.io.emit("one")
        offset = (await client.event())[-1]
        tag, number = offset[:8], int(offset[8:], 16)
        for forged in (f"{tag}{number + 2:x}", f"{tag}0", tag):
            r.io.volatile.emit("typing", forged)  # what another client has sent, and the application relays
            offset = (await client.event())[-1]
        r.test.transports[-1].abort()
        await settle()
        r.io.emit("missed", 1)
        r.io.emit("missed", 2)
        client = await Client.open(r.test, auth={"pid": private_id, "offset": offset})
        assert (await client.recv()).startswith("40")
        (socket,) = r.io.sockets.values()
        assert socket.recovered
        assert [(await client.event())[:2] for _ in range(2)] == [["missed", 1], ["missed", 2]]


async def test_two_namespaces_whose_middlewares_decide_together_are_recovered_whole() -> None:
    async with rig(recovery=60, recovery_skips_middlewares=False) as r:
        other = r.io.of("/b")
        decided = asyncio.Event()
        decided.set()
        for namespace in (r.io.of("/"), other):

            @namespace.use
            async def decide(socket: Socket) -> None:
                await decided.wait()

        client = await Client.open(r.test)
        first = json.loads((await client.recv())[2:])["pid"]
        client.say("40/b,")
        second = json.loads((await client.recv())[5:])["pid"]
        r.test.transports[-1].abort()
        await settle()
        for number in range(300):
            r.io.emit("a", number)
            other.emit("b", number)
        decided.clear()
        client = await Client.open(r.test, auth={"pid": first})
        client.say("40/b," + json.dumps({"pid": second}))
        await settle()
        decided.set()
        received: dict[str, list[int]] = {"a": [], "b": []}
        async with asyncio.timeout(PATIENCE):
            while len(received["a"]) < 300 or len(received["b"]) < 300:
                message = await client.recv()
                if message.startswith("42"):
                    name, number, _ = json.loads(message[message.index("[") :])
                    received[name].append(number)
        assert received == {"a": list(range(300)), "b": list(range(300))}
        assert all(socket.recovered for one in (r.io, other) for socket in one.sockets.values())


async def polled(r: Rig) -> tuple[str, MemoryTransport, Recorder]:
    """Opens a session by polling; returns its query, and a connection for more requests."""
    recorder = Recorder(r.clock)
    transport = r.test.open(recorder)
    transport.write(f"GET {PATH}polling HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    await settle()
    sid = json.loads(bytes(recorder.received).split(b"\r\n\r\n0", 1)[1])["sid"]
    recorder.received.clear()
    return f"polling&sid={sid}", transport, recorder


def request(query: str, method: str = "GET", body: str = "") -> bytes:
    head = f"{method} {PATH}{query} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


async def connect(r: Rig, query: str, transport: MemoryTransport) -> Socket:
    """Connects a session that has only been opened, and fetches the answer; returns the socket."""
    transport.write(request(query, "POST", "40"))
    transport.write(request(query))
    await settle()
    (socket,) = r.io.sockets.values()
    return socket


async def test_the_second_probe_is_not_closed_for_the_end_of_the_first() -> None:
    async with rig() as r:
        query, _, _ = await polled(r)
        sid = query.rsplit("=", 1)[1]
        first = await r.test.connect(f"{PATH}websocket&sid={sid}")
        await settle()
        r.clock.jump(r.io.options.upgrade_timeout)
        second = Client(await r.test.connect(f"{PATH}websocket&sid={sid}"))
        second.say("2probe")
        assert await second.recv() == "3probe"
        assert [message async for message in first] == []
        assert first.closed is not None


async def test_a_session_ends_if_its_client_leaves_while_it_is_answered() -> None:
    async with rig() as r:
        query, transport, recorder = await polled(r)
        socket = await connect(r, query, transport)
        assert b'40{"sid"' in recorder.received
        transport.write(request(query))
        await settle()
        assert r.server._listener is not None
        (connection,) = r.server._listener._http.values()
        socket.emit("lost")
        connection.receive_eof()  # before the request's task has its turn
        await settle()
        assert r.io.sockets == {}
        assert r.reasons == ["transport error"]


async def test_a_request_that_comes_with_the_answer_to_the_last_one_is_answered_too() -> None:
    async with rig() as r:
        query, transport, _ = await polled(r)
        socket = await connect(r, query, transport)
        (session,) = sessions(r)

        async def fetch() -> str:
            session.start_poll()
            await session.wait_poll()
            return session.take_poll()

        first = asyncio.ensure_future(fetch())
        await settle()
        socket.emit("a")
        await asyncio.sleep(0)  # the first one takes its answer, which no client has yet
        second = asyncio.ensure_future(fetch())
        await settle()
        socket.emit("b")
        await settle()
        assert (first.done(), second.done()) == (True, True)
        assert [first.result(), second.result()] == ['42["a"]', '42["b"]']


async def wait_for_nothing() -> None:
    """Awaits what was cancelled."""
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def test_a_handler_that_awaits_what_was_cancelled_has_failed_like_any_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with rig() as r:
        ended: list[str] = []

        @r.io.on("disconnecting")
        @r.io.on("lose")
        async def lose(socket: Socket, *_: object) -> None:
            await wait_for_nothing()

        @r.io.on("disconnect")
        async def end(socket: Socket, reason: str) -> None:
            ended.append(reason)

        @r.io.on("next")
        async def go_on(socket: Socket) -> int:
            return len(r.handled)

        client = await r.client()
        client.say('421["lose"]', '422["next"]', '423["next"]')
        await settle()
        assert [event for event, *_ in r.handled] == ["lose", "next", "next"]
        assert [await client.recv() for _ in range(2)] == ["432[2]", "433[3]"]
        assert r.server.queued == 0
        client.say("41")
        await settle()
        assert ended == ["client namespace disconnect"]
        assert caplog.text.count("handler failed") == 2


@pytest.mark.parametrize("place", ["middleware", "connect", "namespace"])
async def test_who_connects_while_what_is_awaited_is_cancelled_is_refused(place: str) -> None:
    async with rig() as r:

        async def lose(*_: object) -> bool:
            await wait_for_nothing()
            return True

        namespace = r.io.of(lose if place == "namespace" else "/x")
        if place == "middleware":
            namespace.use(lose)
        elif place == "connect":
            namespace.on("connect")(lose)
        client = await Client.open(r.test, namespace="/x")
        for _ in range(2):
            assert await client.recv() == '44/x,{"message":"internal error"}'
            client.say("40/x,")


@pytest.mark.parametrize("waits", [False, True])
async def test_a_session_that_polls_and_does_not_connect_in_time_is_gone_at_once(waits: bool) -> None:
    async with rig(connect_timeout=10) as r:
        query, transport, recorder = await polled(r)
        if waits:
            transport.write(request(query))
        await r.clock.advance(10)
        assert sessions(r) == []
        assert recorder.received.endswith(b"\r\n\r\n1") is waits


@pytest.mark.parametrize("value", ["[]", '{"":0}', '"ab"', "[[0]]", '{"ab":[1.5],"cd":"ef"}'])
@pytest.mark.parametrize("size", [20, 300, 200_000])
async def test_events_that_wait_count_for_what_they_take_in_memory(value: str, size: int) -> None:
    async with rig() as r:
        go_on = asyncio.Event()

        @r.io.on("slow")
        async def slow(socket: Socket, *_: object) -> None:
            await go_on.wait()

        client = await r.client()
        message = f'42["slow",[{",".join([value] * (size // (len(value) + 1)))}]]'
        with measured() as memory:
            client.say(*[message] * min(2_000_000 // size, 1500))
            await until(lambda: r.server.queued > MAX_PENDING)
            await settle()
            held = memory()
        assert held < r.server.queued + 3_000_000  # what is not read yet is in this process too
        go_on.set()


async def test_a_client_that_connects_and_disconnects_in_turn_is_held_back_by_its_handlers() -> None:
    async with rig() as r:
        go_on = asyncio.Event()

        @r.io.on("connect")
        async def connected(socket: Socket) -> None:
            await go_on.wait()

        client = await Client.open(r.test)
        for _ in range(2000):
            client.say("41", "40")
        for _ in range(20):
            await settle()
        assert len(r.io._running) < 600
        assert r.server.queued > MAX_PENDING
        go_on.set()
        await until(lambda: len(r.reasons) == 2000)
        await until(lambda: r.server.queued == 0)
        assert len(r.io.sockets) == 1


async def test_over_the_budget_the_events_of_clients_that_have_gone_are_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with rig() as r:
        r.server.hub.budget = Budget(3_000_000)
        go_on = asyncio.Event()
        handled = 0

        @r.io.on("slow")
        async def slow(socket: Socket, _: object) -> None:
            nonlocal handled
            await go_on.wait()
            handled += 1

        with caplog.at_level("INFO"):
            for _ in range(9):
                client = await r.client()
                client.say(*['42["slow","' + "x" * 90_000 + '"]'] * 10, "41")
                await settle()
                r.test.transports[-1].abort()
                await settle()
                assert r.server.queued <= 3_000_000
        assert caplog.text.count("unhandled events dropped") == 6
        go_on.set()
        await until(lambda: r.server.queued == 0)
        assert handled == 3 * 10 + 6  # of the others, the one that ran


async def test_over_the_budget_the_unread_messages_of_engine_sessions_that_have_ended_are_dropped() -> None:
    engine = Engine()
    go_on = asyncio.Event()
    read: list[int] = []

    @engine.on_session
    async def serve(socket: EngineSocket) -> None:
        await go_on.wait()
        read.append(len([message async for message in socket]))

    clock = ManualClock()
    server = Server(clock=clock, max_total_queue=3_000_000)
    server.mount(engine)
    async with TestClient(server, clock) as test:
        for _ in range(6):
            client = Client(await test.connect("/engine.io/?EIO=4&transport=websocket"))
            client.say(*["4" + "x" * 90_000] * 10)
            await settle()
            test.transports[-1].abort()
            await settle()
            assert server.queued <= 3_000_000
        go_on.set()
        await until(lambda: len(read) == 6)
        assert sorted(read) == [0, 0, 0, 10, 10, 10]
        assert server.queued == 0


async def test_requests_that_wait_behind_a_poll_count_against_the_budget() -> None:
    async with rig() as r:
        query, transport, recorder = await polled(r)
        await connect(r, query, transport)
        transport.write(request(query) + request(query, "POST", "4" * 40_000)[:-1])
        await settle()
        assert 40_000 < r.server.queued < 41_000
        r.io.emit("answer")
        await settle()
        assert b'42["answer"]' in recorder.received
        assert 39_999 <= r.server.queued < 41_000  # it is the body of the next request now
        transport.abort()
        await settle()
        assert r.server.queued == 0


async def fetch(r: Rig, query: str) -> Recorder:
    """Sends a GET over a connection of its own; returns what answers it."""
    recorder = Recorder(r.clock)
    r.test.open(recorder).write(request(query))
    await settle()
    return recorder


@pytest.mark.parametrize("way", ["FIN", "RST", "it vanishes"])
async def test_a_session_ends_if_its_client_leaves_while_its_answer_is_written(way: str) -> None:
    async with rig() as r:
        query, transport, _ = await polled(r)
        socket = await connect(r, query, transport)
        transport.pause_reading()
        transport.write(request(query))
        await settle()
        socket.emit("lost", "x" * 500_000)
        await settle()
        if way == "FIN":
            transport.write_eof()
        elif way == "RST":
            transport.abort()
        else:
            transport.vanish()
            await r.clock.advance(20)
        await settle()
        assert r.reasons == ["too slow" if way == "it vanishes" else "transport error"]
        socket.emit("next")
        assert b"HTTP/1.1 400" in (await fetch(r, query)).received  # and not the next event
        assert r.server.queued == 0


class Hasty(Recorder):
    """Closes the connection with the last byte of an answer."""

    transport: MemoryTransport

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.received.endswith(b'"]'):
            self.transport.abort()


async def test_a_client_that_has_taken_its_answer_may_close_the_connection_at_once() -> None:
    async with rig() as r:
        query, transport, _ = await polled(r)
        socket = await connect(r, query, transport)
        for size in range(100_000, 300_000, 20_000):
            socket.emit("large", "x" * size)
            hasty = Hasty(r.clock)
            hasty.transport = r.test.open(hasty)
            hasty.transport.pause_reading()
            hasty.transport.write(request(query))
            await settle()
            hasty.transport.resume_reading()
            await settle()
            assert len(hasty.received) > size
            assert r.reasons == []


async def test_a_client_that_leaves_while_its_answer_waits_to_be_compressed_ends_its_session() -> None:
    async with rig() as r:
        query, transport, _ = await polled(r)
        socket = await connect(r, query, transport)
        assert r.io._transports is not None
        async with r.io._transports._compressor.turn:
            transport.write(request(query).replace(b"Host", b"Accept-Encoding: gzip\r\nHost"))
            socket.emit("lost", "x" * 5000)
            await settle()
            assert r.reasons == []
            transport.abort()
            await settle()
        assert r.reasons == ["transport error"]


async def test_a_get_that_waits_to_be_compressed_during_an_upgrade_keeps_no_timer_running(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checks: list[None] = []
    check = Session._check_deadlines

    def count(session: Session) -> None:
        checks.append(None)
        assert len(checks) < 100
        check(session)

    monkeypatch.setattr(Session, "_check_deadlines", count)
    async with rig() as r:
        query, transport, recorder = await polled(r)
        socket = await connect(r, query, transport)
        sid = query.rsplit("=", 1)[1]
        assert r.io._transports is not None
        async with r.io._transports._compressor.turn:
            transport.write(request(query).replace(b"Host", b"Accept-Encoding: gzip\r\nHost"))
            socket.emit("large", "x" * 5000)
            client = Client(await r.test.connect(f"{PATH}websocket&sid={sid}"))
            client.say("2probe")
            assert await client.recv() == "3probe"
            await r.clock.advance(5)
        await settle()
        assert b"Content-Encoding: gzip" in recorder.received
        assert len(checks) < 5


async def test_a_client_that_polls_but_sends_no_pong_loses_its_session() -> None:
    async with rig() as r:
        query, transport, _ = await polled(r)
        socket = await connect(r, query, transport)
        pings = 0
        for number in range(8):
            socket.emit("event", number)
            pings += b"\r\n\r\n2" in (await fetch(r, query)).received
            await r.clock.advance(5)
        assert (pings, r.reasons) == (1, [])  # it is fetched after 25 s
        await r.clock.advance(5)
        assert r.reasons == ["ping timeout"]


async def test_a_lost_noop_ends_no_session_that_has_its_websocket(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig() as r:
        query, transport, _ = await polled(r)
        socket = await connect(r, query, transport)
        transport.write(request(query))
        client = Client(await r.test.connect(f"{PATH}websocket&sid={query.rsplit('=', 1)[1]}"))
        await settle()
        monkeypatch.setattr(HttpConnection, "_head_of", lambda *_: 1 / 0)  # whatever fails to be sent
        client.say("2probe", "5")
        await settle()
        monkeypatch.undo()
        assert socket.transport == "websocket"
        assert await client.recv() == "3probe"
        socket.emit("event")
        assert await client.event() == ["event"]


async def test_a_get_is_answered_although_the_one_before_it_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async def compress(*_: object) -> bytes:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    monkeypatch.setattr(Compressor, "compress", compress)
    async with rig() as r:
        query, transport, _ = await polled(r)
        socket = await connect(r, query, transport)
        socket.emit("lost", "x" * 5000)
        transport.write(request(query).replace(b"Host", b"Accept-Encoding: gzip\r\nHost"))
        await settle()
        recorder = await fetch(r, query)
        assert not recorder.received
        transport.abort()
        await settle()
        assert recorder.received.endswith(b"\r\n\r\n1")


@pytest.mark.parametrize("kind", ["polling", "websocket"])
async def test_who_is_authorized_while_the_server_closes_for_good_is_refused(kind: str) -> None:
    async with rig() as r:
        decided = asyncio.Event()

        @r.server.authorize
        async def authorize(request: object) -> None:
            await decided.wait()

        if kind == "websocket":
            opening = asyncio.ensure_future(r.test.connect(PATH + "websocket"))
            await settle()
        else:
            recorder = await fetch(r, "polling")
        r.io.close()
        decided.set()
        await settle()
        assert sessions(r) == []
        if kind == "websocket":
            assert [message async for message in await opening] == []
        else:
            assert recorder.received.startswith(b"HTTP/1.1 503")


async def test_text_that_is_not_ascii_counts_for_what_it_takes_in_memory() -> None:
    assert Answer.of("😀" * 1000).size == 4000
    body = b"x" * 100_000 + "😀".encode()  # as text, it takes four bytes for each code point
    async with rig() as r:
        go_on = asyncio.Event()

        @r.io.on("slow")
        async def slow(socket: Socket, *_: object) -> None:
            await go_on.wait()

        query, transport, _ = await polled(r)
        await connect(r, query, transport)
        packet = b'42["slow","' + body + b'"]'
        payload = b"\x1e".join([packet] * (1_300_000 // len(packet) // 2))
        head = f"POST {PATH}{query} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(payload)}\r\n\r\n"
        transport.write(head.encode() + payload)
        await until(lambda: sessions(r)[0].pending > MAX_PENDING)
        assert r.server.queued >= sessions(r)[0].pending + 5 * len(payload)
        go_on.set()
        await until(lambda: r.server.queued == 0)


def test_a_very_long_list_of_codings_is_not_read() -> None:
    def accepting(value: str) -> Request:
        return Request("GET", "/", Headers([("Accept-Encoding", value)]))

    assert choose_coding(accepting("gzip" + "," * 1000)) == "gzip"
    assert choose_coding(accepting("gzip" + "," * 60_000)) is None


def living_sessions() -> int:
    return sum(isinstance(each, Session) for each in gc.get_objects())


@pytest.mark.parametrize("place", ["GET", "answer", "POST", "acknowledgement"])
async def test_what_a_lost_request_has_held_is_freed_without_the_collector(place: str) -> None:
    gc.collect()
    gc.disable()
    try:
        before = living_sessions()
        async with rig() as r:

            @r.io.on("slow")
            async def slow(socket: Socket, *_: object) -> None:
                with suppress(DisconnectedError):
                    await socket.emit_with_ack("never answered")

            query, transport, _ = await polled(r)
            await connect(r, query, transport)
            if place == "answer":
                r.io.emit("large", "x" * 500_000)
                transport.pause_reading()
            if place == "POST":
                transport.write(request(query, "POST", "4" + "x" * 50_000)[:-1])
            elif place == "acknowledgement":
                transport.write(request(query, "POST", '42["slow"]') + 2 * request(query))
            else:
                transport.write(request(query))
            await settle()
            assert living_sessions() == before + 1
            transport.abort()
            await settle()
            assert sessions(r) == []
            assert living_sessions() == before
    finally:
        gc.enable()
