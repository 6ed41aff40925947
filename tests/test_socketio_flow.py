"""How much waits, in either direction, for a Socket.IO client, and what it is sent when it comes back."""

import asyncio
import json
from typing import Any

import pytest

from rfc6455_server import Server
from rfc6455_server.http.routes import Outcome
from rfc6455_server.rooms import Room
from rfc6455_server.socketio import Socket, SocketIO
from rfc6455_server.socketio.handlers import EVENT_OVERHEAD
from rfc6455_server.socketio.inflow import MAX_PENDING, MAX_PENDING_BEFORE_ACK
from rfc6455_server.socketio.polling import Answer
from rfc6455_server.testing import ManualClock, MemoryTransport, settle
from tests.server_helpers import RawPeer, Recorder, serving, until
from tests.test_socketio_attacks import connect, polled, request
from tests.test_socketio_server import Client, Rig, ask, opened, rig


def connected(answer: str) -> tuple[str, str]:
    """Returns the id and the private id in the answer to CONNECT."""
    settings = json.loads(answer[2:] if answer[2] == "{" else answer[answer.index(",") + 1 :])
    return settings["sid"], settings["pid"]


async def cut(client: Client) -> None:
    client.ws.abort()
    await settle()


async def come_back(r: Rig, pid: str, offset: str | None, namespace: str = "/") -> tuple[Client, str]:
    """Returns a client that connects again, and the answer to its CONNECT."""
    auth = {"pid": pid} if offset is None else {"pid": pid, "offset": offset}
    client = await Client.open(r.test, auth=auth, namespace=namespace)
    return client, await client.recv()


async def test_a_client_is_streamed_more_than_its_queue_takes_in_order_and_once() -> None:
    async with rig(recovery=60) as r:
        client = await Client.open(r.test)
        sid, pid = connected(await client.recv())
        await cut(client)
        for number in range(60):
            r.io.emit("missed", number, "x" * 40_000)
        client, answer = await come_back(r, pid, None)
        assert connected(answer) == (sid, pid)
        r.io.emit("live", 60)
        numbers = [(await client.event())[1] for _ in range(61)]
        assert numbers == list(range(61))
        assert r.reasons == ["transport close"]
        assert r.server.queued == 0


async def test_events_of_a_client_that_catches_up_wait_and_count_until_it_takes_them() -> None:
    async with rig(recovery=60, ping_interval=1000, ping_timeout=1000) as r:
        client = await Client.open(r.test)
        _, pid = connected(await client.recv())
        await cut(client)
        for number in range(100):
            r.io.emit("missed", number, "x" * 20_000)
        client, _ = await come_back(r, pid, None)
        (socket,) = r.io.sockets.values()
        client.ws._protocol.reader.pause()
        for number in range(100, 150):
            socket.emit("live", number, "x" * 10_000)
        socket.volatile.emit("volatile")
        answered = asyncio.create_task(socket.emit_with_ack("ack", 150))
        await settle()
        assert 500_000 < r.server.queued < 1_200_000  # the live ones; what was missed is kept for all
        draining = asyncio.create_task(socket.drain())
        await settle()
        assert not draining.done()
        client.ws._protocol.reader.resume()
        numbers = [(await client.event())[1] for _ in range(150)]
        assert numbers == list(range(150))
        number, event = (await client.recv())[2:].split("[", 1)
        assert event.startswith('"ack",150')
        client.say(f'43{number}["yes"]')
        assert await answered == "yes"
        await draining
        assert socket.dropped == 1
        assert r.server.queued == 0
        socket.emit("direct")
        assert (await client.event())[0] == "direct"


async def test_a_client_that_does_not_take_what_it_missed_is_disconnected_and_can_come_back() -> None:
    async with rig(recovery=600, ping_interval=1000, ping_timeout=1000) as r:
        client = await Client.open(r.test)
        sid, pid = connected(await client.recv())
        await cut(client)
        for number in range(100):
            r.io.emit("missed", number, "x" * 20_000)
        client, _ = await come_back(r, pid, None)
        client.ws._protocol.reader.pause()
        await r.clock.advance(30)
        await until(lambda: len(r.reasons) == 2)
        assert r.reasons == ["transport close", "too slow"]
        assert r.io.sockets == {}
        assert r.server.queued == 0
        client, answer = await come_back(r, pid, None)
        assert connected(answer) == (sid, pid)
        assert [(await client.event())[1] for _ in range(100)] == list(range(100))


async def test_a_client_that_is_behind_what_is_kept_is_disconnected_and_not_recovered() -> None:
    async with rig(recovery=60, recovery_bytes=2_100_000, ping_interval=1000) as r:
        client = await Client.open(r.test)
        sid, pid = connected(await client.recv())
        await cut(client)
        for number in range(100):
            r.io.emit("missed", number, "x" * 20_000)
        client, answer = await come_back(r, pid, None)
        assert connected(answer) == (sid, pid)
        client.ws._protocol.reader.pause()
        await settle()
        for number in range(100, 200):
            r.io.emit("live", number, "x" * 20_000)
        client.ws._protocol.reader.resume()
        seen = [message for message in await client.recv_all() if message.startswith("42")]
        numbers = [json.loads(message[2:])[1] for message in seen]
        assert numbers == list(range(len(numbers)))
        offset = json.loads(seen[-1][2:])[-1]
        client, answer = await come_back(r, pid, offset)
        assert connected(answer)[0] != sid
        (socket,) = r.io.sockets.values()
        assert not socket.recovered


async def test_what_was_seen_counts_and_not_what_was_sent() -> None:
    async with rig(recovery=60) as r:
        client = await Client.open(r.test)
        sid, pid = connected(await client.recv())
        await cut(client)
        r.io.emit("missed", 1)
        client, _ = await come_back(r, pid, None)
        await cut(client)  # before it has read anything
        client, answer = await come_back(r, pid, None)
        assert connected(answer) == (sid, pid)
        _, number, offset = await client.event()
        assert number == 1
        r.io.emit("missed", 2)
        await cut(client)
        client, _ = await come_back(r, pid, offset)
        await cut(client)
        client, _ = await come_back(r, pid, offset)
        assert (await client.event())[1] == 2


async def test_a_session_that_closes_sends_the_rest_first() -> None:
    async with rig(recovery=60) as r:
        client = await Client.open(r.test)
        _, pid = connected(await client.recv())
        await cut(client)
        for number in range(300):
            r.io.emit("missed", number, "x" * 2_000)
        client, _ = await come_back(r, pid, None)
        (socket,) = r.io.sockets.values()
        socket.emit("last", 300)
        socket.disconnect(close=True)
        messages = await client.recv_all()
        assert [json.loads(message[2:])[1] for message in messages[:-1]] == list(range(301))
        assert messages[-1] == "41"


async def test_the_namespaces_of_a_client_are_recovered_one_after_the_other() -> None:
    async with rig(recovery=60) as r:
        other = r.io.of("/other")
        client = await Client.open(r.test)
        _, pid = connected(await client.recv())
        client.say("40/other,")
        _, other_pid = connected(await client.recv())
        await cut(client)
        for number in range(100):
            r.io.emit("missed", number, "x" * 2_000)
            other.emit("missed", number, "x" * 2_000)
        client = await Client.open(r.test, auth={"pid": pid})
        client.say(f'40/other,{{"pid":"{other_pid}"}}')
        messages = [await client.recv() for _ in range(202)]
        assert messages[0].startswith("40{")
        mine = [message for message in messages if message.startswith("42[")]
        others = [message for message in messages if message.startswith("42/other,[")]
        assert [json.loads(message[2:])[1] for message in mine] == list(range(100))
        assert [json.loads(message[9:])[1] for message in others] == list(range(100))
        assert messages.index(others[0]) > next(
            index for index, message in enumerate(messages) if message.startswith("40/other,")
        )


async def test_a_rate_of_joins_does_not_break_a_recovery_and_what_a_socket_shows_is_kept() -> None:
    clock = ManualClock()
    r = Rig(recovery=60)
    r.server = Server(clock=clock, join_rate=2, max_rooms=3)
    r.clock = clock
    r.io = SocketIO(recovery=60)
    r.server.mount(r.io)
    r.test = type(r.test)(r.server, clock)
    async with r.test:
        client = await Client.open(r.test)
        _, pid = connected(await client.recv())
        (socket,) = r.io.sockets.values()
        for name in "abc":
            r.io.rooms[name].join(socket, show=name.upper())
            await clock.advance(1)
        await cut(client)
        _, answer = await come_back(r, pid, None)
        (socket,) = r.io.sockets.values()
        assert socket.recovered
        assert socket.rooms == {socket.id, "a", "b", "c"}
        assert r.io.rooms["b"].presence == {socket.id: "B"}
        assert answer.startswith("40{")


async def test_what_a_callback_of_a_room_sends_during_a_recovery_follows_connect_and_what_was_missed() -> (
    None
):
    async with rig(recovery=60) as r:
        client = await Client.open(r.test)
        _, pid = connected(await client.recv())
        (socket,) = r.io.sockets.values()
        socket.join("lobby")
        await cut(client)
        r.io.to("lobby").emit("missed")

        @r.io.rooms.on_join
        def joined(room: Room, member: Any) -> None:
            r.io.to(room.name).emit("joined", member.id)

        client, answer = await come_back(r, pid, None)
        assert answer.startswith("40{")
        assert [(await client.event())[0] for _ in range(2)] == ["missed", "joined"]
        r.io.emit("end")
        assert (await client.event())[0] == "end"


@pytest.mark.parametrize("skips", [True, False])
async def test_middlewares_are_skipped_on_recovery_unless_the_option_says_no(skips: bool) -> None:
    async with rig(recovery=60, recovery_skips_middlewares=skips) as r:
        passed: list[bool] = []

        @r.io.use
        async def check(socket: Socket) -> None:
            passed.append(socket.recovered)

        client = await Client.open(r.test)
        sid, pid = connected(await client.recv())
        await cut(client)
        r.io.emit("missed", 1)
        client, answer = await come_back(r, pid, None)
        assert connected(answer) == (sid, pid)
        assert passed == [False] if skips else [False, True]
        assert (await client.event())[1] == 1


# From the client.


async def test_an_acknowledgement_behind_many_events_is_read_and_the_client_stays() -> None:
    async with rig() as r:
        answers = []
        handled = 0

        @r.io.on("ask")
        async def question(socket: Socket) -> None:
            answers.append(await socket.emit_with_ack("question"))

        @r.io.on("small")
        async def small(socket: Socket) -> None:
            nonlocal handled
            handled += 1

        client = await r.client()
        client.say('42["ask"]')
        question_packet = await client.recv()
        number = question_packet[2 : question_packet.index("[")]
        client.say(*['42["small"]'] * 8_000, f'43{number}["answer"]')
        await until(lambda: handled == 8_000)
        assert answers == ["answer"]
        assert r.server.queued == 0


async def test_a_handler_may_ask_while_the_client_is_held_back() -> None:
    async with rig() as r:
        begin = asyncio.Event()
        answers = []

        @r.io.on("slow")
        async def slow(socket: Socket) -> None:
            await begin.wait()
            answers.append(await socket.emit_with_ack("question"))

        client = await r.client()
        client.say('42["slow"]', *['42["small"]'] * 30_000)
        await until(lambda: r.server.websockets[0].reading_paused)
        queued = r.server.queued
        assert queued > MAX_PENDING
        await settle()
        assert r.server.queued == queued  # nothing more is read
        begin.set()
        question = await client.recv()
        client.say(f"43{question[2 : question.index('[')]}[1]")
        await until(lambda: answers == [1])


async def test_a_client_that_does_not_acknowledge_but_sends_without_end_loses_its_session() -> None:
    async with rig() as r:

        @r.io.on("ask")
        async def ask(socket: Socket) -> None:
            await socket.emit_with_ack("question")

        client = await r.client()
        client.say('42["ask"]')
        await client.recv()
        large = '42["large","' + "x" * 900_000 + '"]'
        for _ in range(90):
            client.say(large)
        await until(lambda: r.server.queued > MAX_PENDING_BEFORE_ACK)
        await settle()
        assert r.server.queued < MAX_PENDING_BEFORE_ACK + 2_000_000
        await r.clock.advance(50)
        await until(lambda: r.reasons)
        assert r.reasons == ["ping timeout"]
        assert r.server.queued == 0


async def with_much_to_handle(r: Rig) -> tuple[Client, asyncio.Event]:
    """Returns a client that has sent more than is read while a handler waits, and what ends that wait."""
    go_on = asyncio.Event()

    @r.io.on("slow")
    async def slow(socket: Socket) -> None:
        await go_on.wait()

    client = await r.client()
    client.say('42["slow"]', *['42["slow","' + "x" * 60_000 + '"]'] * 30)
    return client, go_on


async def test_a_client_whose_handler_takes_long_keeps_its_session_and_gets_its_pings() -> None:
    async with rig() as r:
        client, go_on = await with_much_to_handle(r)
        pings = 0
        for _ in range(10):
            await r.clock.advance(25)
            while client.ws._inbox.unread_bytes:
                if await client.ws.recv() == "2":
                    pings += 1
                    client.say("3")
        assert pings >= 9  # the client does not give up either
        assert r.reasons == []
        go_on.set()
        await until(lambda: r.handled.count(["slow"]) == 1 and len(r.handled) == 31)
        await r.clock.advance(200)
        await settle()


async def test_a_post_is_answered_when_its_events_are_handled_and_another_one_is_refused() -> None:
    io = SocketIO()
    server = Server()
    server.mount(io)
    go_on = asyncio.Event()
    handled = 0

    @io.on("event")
    async def event(socket: Socket) -> None:
        nonlocal handled
        await go_on.wait()
        handled += 1

    async with serving(server) as url:
        query = await opened(url)
        body = b"\x1e".join([b'42["event"]'] * 60_000)
        (session,) = io._transports.sessions.values()  # type: ignore[union-attr]
        post = asyncio.create_task(ask(url, query, "POST", body))
        await until(lambda: session._inflow.pending > MAX_PENDING)
        queued = server.queued
        assert queued < MAX_PENDING + 3 * len(body)
        await settle()
        assert server.queued == queued
        assert not post.done()
        go_on.set()
        assert (await post).status == 200
        await until(lambda: handled == 60_000)
        assert server.queued == 0

        go_on.clear()
        post = asyncio.create_task(ask(url, query, "POST", body))
        await until(lambda: server.queued > MAX_PENDING)
        assert (await ask(url, query, "POST", b"3")).status == 400
        assert (await post).status == 200
        assert io.sockets == {}
        await until(lambda: server.queued < 2 * EVENT_OVERHEAD)  # one is still handled
        go_on.set()


async def test_a_post_whose_client_leaves_before_it_is_handled_ends_the_session() -> None:
    io = SocketIO()
    server = Server()
    server.mount(io)
    reasons: list[str] = []

    go_on = asyncio.Event()

    @io.on("event")
    async def event(socket: Socket) -> None:
        await go_on.wait()

    @io.on("disconnect")
    async def gone(socket: Socket, reason: str) -> None:
        reasons.append(reason)

    async with serving(server) as url:
        query = await opened(url)
        body = b"\x1e".join([b'42["event"]'] * 30_000)
        peer = await RawPeer.connect(url)
        head = f"POST /socket.io/?{query} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
        peer.writer.write(head.encode() + body)
        await until(lambda: server.queued > MAX_PENDING)
        await peer.close()
        await until(lambda: reasons)
        assert reasons == ["transport error"]
        go_on.set()


async def test_other_connections_have_turns_while_a_large_payload_is_handled() -> None:
    io = SocketIO()
    server = Server()
    server.mount(io)
    turns = 0
    seen: list[int] = []

    @io.on("event")
    def event(socket: Socket) -> None:
        seen.append(turns)

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with serving(server) as url:
        query = await opened(url)
        counting = asyncio.create_task(count())
        answer = await ask(url, query, "POST", b"\x1e".join([b'42["event"]'] * 5_000))
        assert answer.body == b"ok"
        await until(lambda: len(seen) == 5_000)
        counting.cancel()
        most = max(seen.count(turn) for turn in set(seen))
        assert most <= 64


async def test_a_packet_that_is_not_complete_counts() -> None:
    async with rig() as r:
        client = await r.client()
        client.say(
            '453-["x",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1},{"_placeholder":true,"num":2}]'
        )
        client.say(b"a" * 300_000, b"b" * 300_000)
        await until(lambda: r.server.queued > 600_000)
        client.say(b"c")
        await until(lambda: len(r.handled) == 1)
        await settle()
        assert r.server.queued == 0


async def test_over_the_budget_the_session_that_holds_most_is_disconnected() -> None:
    clock = ManualClock()
    io = SocketIO()
    server = Server(max_total_queue=1 << 20, clock=clock)
    server.mount(io)
    reasons: list[str] = []

    @io.on("disconnect")
    async def gone(socket: Socket, reason: str) -> None:
        reasons.append(reason)

    async with serving(server) as url:
        for _ in range(20):
            await opened(url)
        most = list(io.sockets.values())[7]
        most.emit("x", "x" * 100_000)
        for _ in range(12):
            for socket in list(io.sockets.values()):
                socket.emit("x", "x" * 4_000)
        await until(lambda: reasons)
        assert reasons == ["too slow"]
        assert most.id not in io.sockets
        assert server.queued <= 1 << 20


async def test_small_acknowledgements_to_a_client_that_never_polls_count() -> None:
    io = SocketIO()
    server = Server(max_total_queue=1 << 20)
    server.mount(io)

    @io.on("event")
    def event(socket: Socket) -> int:
        return 1

    async with serving(server) as url:
        query = await opened(url)
        body = b"\x1e".join(b'42%d["event"]' % number for number in range(2_000))
        assert (await ask(url, query, "POST", body)).body == b"ok"
        await until(lambda: server.queued > 2_000 * 256)
        assert (await ask(url, query, "POST", body)).status in (200, 400)
        await ask(url, query, "POST", body)
        await until(lambda: io.sockets == {})
        await until(lambda: server.queued == 0)


async def test_a_session_that_never_connects_keeps_neither_its_headers_nor_itself_for_long() -> None:
    clock = ManualClock()
    io = SocketIO()
    server = Server(clock=clock)
    server.mount(io)
    async with serving(server) as url:
        await ask(url, "EIO=4&transport=polling", headers="X-Large: " + "x" * 7_000 + "\r\n")
        assert io._transports is not None
        (session,) = io._transports.sessions.values()
        assert session.request is None
        await clock.advance(10.1)
        await settle()
        assert len(io._transports.sessions) == 0 or session.engine.state.value == "closing"
        await clock.advance(31)
        assert len(io._transports.sessions) == 0


@pytest.mark.parametrize("way", ["FIN", "RST", "close"])
async def test_a_lost_websocket_is_a_transport_close(way: str) -> None:
    async with rig() as r:
        client = await r.client()
        if way == "close":
            client.ws.start_close()
        elif way == "FIN":
            client.ws._transport.close()
        else:
            client.ws.abort()
        await until(lambda: r.reasons)
        assert r.reasons == ["transport close"]


async def test_a_drain_says_so_on_both_transports() -> None:
    clock = ManualClock()
    io = SocketIO()
    server = Server(clock=clock)
    server.mount(io)
    reasons: list[str] = []

    @io.on("disconnect")
    async def gone(socket: Socket, reason: str) -> None:
        reasons.append(reason)

    async with serving(server) as url:
        query, other = await opened(url), await opened(url)
        waiting = asyncio.create_task(ask(url, query))
        draining = asyncio.create_task(server.drain(4))
        await settle()
        await clock.advance(1)
        assert (await waiting).body == b"1"
        await until(lambda: reasons)
        assert reasons == ["server shutting down"]
        await clock.advance(1)
        assert (await ask(url, other)).body == b"1"
        await clock.advance(2)
        await draining
        await until(lambda: len(reasons) == 2)
    assert reasons == ["server shutting down"] * 2

    async with rig() as r:
        await r.client()
        draining = asyncio.create_task(r.server.drain(1))
        await r.clock.advance(2)
        await draining
        await until(lambda: r.reasons)
        assert r.reasons == ["server shutting down"]


async def test_a_client_that_is_lost_while_it_is_held_back_is_noticed() -> None:
    async with rig() as r:
        client, go_on = await with_much_to_handle(r)
        await until(lambda: r.server.queued > MAX_PENDING)
        client.ws.abort()
        await r.clock.advance(60)
        assert r.reasons == ["transport close"]
        assert r.io.sockets == {}
        go_on.set()
        await until(lambda: r.server.queued == 0)


async def test_a_ping_passes_what_waits_for_a_websocket() -> None:
    async with rig() as r:
        client = await r.client()
        (socket,) = r.io.sockets.values()
        client.ws._protocol.reader.pause()
        for _ in range(30):
            socket.emit("x", "x" * 20_000)
        await r.clock.advance(25)
        client.ws._protocol.reader.resume()
        messages = [await client.ws.recv() for _ in range(31)]
        assert "2" in messages[:15]
        assert messages[-1] != "2"


async def test_answers_for_many_clients_that_poll_are_held_once_until_their_requests_run() -> None:
    io = SocketIO()
    server = Server()
    server.mount(io)
    async with serving(server) as url:
        queries = [await opened(url) for _ in range(40)]
        polls = [asyncio.create_task(ask(url, query)) for query in queries]
        assert io._transports is not None
        sessions = list(io._transports.sessions.values())
        await until(lambda: all(session._poll is not None for session in sessions))
        io.emit("big", "x" * 500_000)
        assert 500_000 < server.queued < 600_000
        assert len(io.sockets) == 40
        answers = await asyncio.gather(*polls)
        assert all(answer.body.count(b"x") == 500_000 for answer in answers)
        await until(lambda: server.queued == 0)
        assert all(session._answers == session._making == 0 for session in sessions)


async def test_an_answer_counts_until_its_client_has_taken_it() -> None:
    io = SocketIO(http_compression=None)
    server = Server()
    server.mount(io)
    async with serving(server) as url:
        await opened(url)
        io.emit("big", "x" * 900_000)
        assert io._transports is not None
        (session,) = io._transports.sessions.values()
        session.start_poll()
        await session.wait_poll()
        body = session.take_poll()
        assert server.queued == 2 * len(body)
        session.end_poll(Answer.of(body), Outcome.SENT)
        assert server.queued == 0
        assert session._backlog.taken >= len(body)


async def test_over_the_budget_an_answer_that_is_made_does_not_hold_up_the_server() -> None:
    io = SocketIO()
    server = Server(max_total_queue=1 << 20)
    server.mount(io)
    async with serving(server) as url:
        await opened(url)
        assert io._transports is not None
        (session,) = io._transports.sessions.values()
        io.emit("big", "x" * 900_000)
        session.start_poll()
        await session.wait_poll()
        body = session.take_poll()  # its text and its bytes are more than the budget
        assert io.sockets == {}
        assert server.queued == 0
        session.end_poll(Answer.of(body), Outcome.SENT)
        assert server.queued == 0


async def take_a_little(r: Rig, transport: MemoryTransport, seconds: float) -> None:
    """Takes 64 KiB of what waits, after some seconds."""
    await r.clock.advance(seconds)
    transport.resume_reading()
    await asyncio.sleep(0)
    transport.pause_reading()


async def test_a_client_that_is_taking_a_large_event_has_time_for_its_pong() -> None:
    async with rig() as r:
        client = await r.client()
        (socket,) = r.io.sockets.values()
        transport = r.test.transports[0]
        transport.pause_reading()
        socket.emit("large", "x" * 900_000)
        for _ in range(13):
            await take_a_little(r, transport, 5)
        assert r.reasons == []
        transport.resume_reading()
        assert len((await client.event())[1]) == 900_000
        assert await client.ws.recv() == "2"
        client.say("3")
        await r.clock.advance(24)
        transport.pause_reading()
        socket.emit("large", "x" * 900_000)
        await r.clock.advance(46)  # now it takes nothing
        await until(lambda: r.reasons)


async def test_a_client_that_is_taking_a_large_answer_has_time_for_its_pong() -> None:
    async with rig() as r:
        query, transport, recorder = await polled(r)
        socket = await connect(r, query, transport)
        socket.emit("large", "x" * 1_050_000)
        transport.pause_reading()
        transport.write(request(query))
        for _ in range(16):  # the PING comes after 25 s, and would be overdue after 45
            await take_a_little(r, transport, 5)
        transport.resume_reading()
        await settle()
        assert recorder.received.count(b"x") > 1_050_000
        assert r.clock.time() == 1080
        await r.clock.advance(12)  # its time began when it had taken all, and not when it last was extended
        again = Recorder(r.clock)
        transport = r.test.open(again)
        transport.write(request(query))
        transport.write(request(query, "POST", "3"))
        await settle()
        assert b"\r\n\r\n2HTTP/1.1" in again.received
        assert again.received.endswith(b"ok")
        await r.clock.advance(24)
        assert r.reasons == []
