"""What a Socket.IO client never answers or never ends

Acknowledgements that do not come, requests whose answer waits, and the tasks that wait for them.
"""

import asyncio
import logging
from contextlib import suppress
from typing import Any

import pytest

from rfc6455_server import ConnectionClosedError
from rfc6455_server.socketio import DisconnectedError, Socket
from rfc6455_server.socketio.handlers import EVENT_OVERHEAD
from rfc6455_server.socketio.inflow import MAX_PENDING
from rfc6455_server.testing import settle
from rfc6455_server.websocket.hub import Budget
from tests.helpers import measured
from tests.hostile.flaws import flaw
from tests.server_helpers import until
from tests.test_socketio_attacks import connect, polled, request, sessions
from tests.test_socketio_server import PATH, rig


class Forgetful(list[Any]):
    """Keeps nothing that is appended."""

    def append(self, _: Any) -> None:
        pass


@flaw(
    "GHSA-2m8v-j782-fhvr",
    what="never sends the acknowledgements that the server waits for, and makes it ask for more",
    here="each that is awaited counts in `max_total_queue`; above, the client that holds most goes",
)
@pytest.mark.parametrize("asked_by", ["the server", "the client"])
async def test_acknowledgements_that_never_come_are_in_the_budget(asked_by: str) -> None:
    async with rig() as r:
        r.server.hub.budget = Budget(3_000_000)
        r.handled = Forgetful()

        @r.io.on("ask", concurrent=True)
        async def ask(socket: Socket) -> None:
            with suppress(DisconnectedError):
                await socket.emit_with_ack("question")

        client = await r.client()
        (socket,) = r.io.sockets.values()
        asking: list[asyncio.Task[None]] = []
        with measured() as held:
            most = 0
            for _ in range(20):
                if asked_by == "the client":
                    client.say(*['42["ask"]'] * 250)
                else:
                    asking += [asyncio.ensure_future(ask(socket)) for _ in range(250)]
                with suppress(ConnectionClosedError):
                    for _ in range(250):
                        await client.recv()  # the question, which it ignores
                await settle()
                if not socket.connected:
                    break
                most = r.server.queued
                # The tasks that wait are the test's own, if the server asks.
                assert held() < most + 200_000 + 1500 * len(asking)
            assert 2_000_000 < most <= 3_000_000
        assert r.reasons == ["too slow"]
        await until(lambda: r.server.queued == 0)
        await asyncio.gather(*asking)


@flaw(
    "GHSA-2m8v-j782-fhvr",
    what="is asked for acknowledgements, answers others than those, or answers twice",
    here="changes nothing: an id counts once, and only for the socket that was asked",
)
async def test_acknowledgements_that_nobody_awaits_change_nothing() -> None:
    async with rig() as r:
        client, other = await r.client(), await r.client()
        first, second = r.io.sockets.values()
        kept = [session._kept for session in sessions(r)]
        asking = asyncio.ensure_future(first.emit_with_ack("question"))
        assert (await client.recv()).startswith("42")
        for id_ in range(5):
            other.say(f'43{id_}["forged"]')
        await settle()
        assert not asking.done()
        for _ in range(3):
            client.say('431["true"]')
        assert await asking == "true"
        assert (first._acks, second._acks) == ({}, {})
        assert [session._kept for session in sessions(r)] == kept
        assert len(r.io.sockets) == 2


@flaw(
    "CVE-2026-48802",
    what="sends events whose concurrent handlers do not end, and each becomes a task",
    here="each task counts; above 1 MiB of them and their events, nothing more is read from the client",
)
async def test_the_tasks_of_one_client_are_bounded() -> None:
    async with rig() as r:
        r.handled = Forgetful()
        go_on = asyncio.Event()

        @r.io.on("slow", concurrent=True)
        async def slow(socket: Socket) -> None:
            await go_on.wait()

        client = await r.client()
        with measured() as held:
            client.say(*['42["slow"]'] * 5000)
            for _ in range(20):
                await settle()
            assert 100 < len(r.io._running) < MAX_PENDING / EVENT_OVERHEAD / 2
            # The client's messages that are not read yet are in this process too.
            assert held() < r.server.queued + 1_500_000
        go_on.set()
        await until(lambda: not r.io._running)
        assert r.server.queued == 0


@flaw(
    "CVE-2026-48802",
    what="sends PONGs that no PING asked for, and each starts a heartbeat",
    here="ends the session; a session has one timer, and no task",
)
@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_pongs_start_nothing(transport: str) -> None:
    async with rig() as r:
        tasks = len(asyncio.all_tasks())
        if transport == "websocket":
            client = await r.client()
            assert len(asyncio.all_tasks()) == tasks + 1  # that of its WebSocket
            client.say(*["3"] * 1000)
            assert await client.recv_all() == []
        else:
            query, wire, _ = await polled(r)
            await connect(r, query, wire)
            assert len(asyncio.all_tasks()) == tasks
            wire.write(request(query, "POST", "\x1e".join(["3"] * 1000)))
            await settle()
        await settle()
        assert r.reasons == ["parse error"]
        assert len(asyncio.all_tasks()) == tasks


MALFORMED_BODIES = {
    "not UTF-8": b"\xff\xfe\x00",
    "no base64": b"b!!!!",
    "base64 cut short": b"bQ",
    "a binary packet of the old protocol": b"\x01\x05\xff4\x00\x01",
    "nothing": b"",
    "separators only": b"\x1e\x1e\x1e",
    "no packet": b"x",
    "a PING": b"2",
    "an OPEN": b'0{"sid":"x"}',
    "a length": b"5:4abcd",
    "NUL": b"\x00" * 1000,
}


@flaw(
    "CVE-2026-59725",
    what="sends a POST that is no payload, as bytes too, and the request, its body and its session stay",
    here="each is answered, and its session ends",
)
@pytest.mark.parametrize("kind", ["application/octet-stream", "text/plain"])
@pytest.mark.parametrize("body", MALFORMED_BODIES.values(), ids=list(MALFORMED_BODIES))
async def test_a_post_that_is_no_payload_is_answered(kind: str, body: bytes) -> None:
    async with rig() as r:
        query, wire, recorder = await polled(r)
        await connect(r, query, wire)
        recorder.received.clear()
        head = f"POST {PATH}{query} HTTP/1.1\r\nHost: test\r\nContent-Type: {kind}\r\n"
        wire.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await settle()
        assert recorder.received.count(b"HTTP/1.1 ") == 1
        assert r.reasons == ["parse error"]
        assert (sessions(r), r.io.sockets, r.server.queued) == ([], {}, 0)


@flaw(
    "CVE-2026-59725",
    what="sends a POST whose events are never handled, and more of them behind it",
    here="one POST waits, and counts; the next one ends the session; nothing is left when the client goes",
)
@pytest.mark.parametrize("end", ["another POST", "the client leaves", "the server stops"])
async def test_a_post_that_is_never_answered(end: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with rig() as r:
        r.handled = Forgetful()
        never = asyncio.Event()

        @r.io.on("hang")
        async def hang(socket: Socket, *_: object) -> None:
            await never.wait()

        query, wire, recorder = await polled(r)
        await connect(r, query, wire)
        recorder.received.clear()
        wire.write(request(query, "POST", "\x1e".join(['42["hang","' + "x" * 200_000 + '"]'] * 4)))
        wire.write(request(query, "POST", "\x1e".join(['42["hang"]'] * 900)))
        await until(lambda: MAX_PENDING < r.server.queued < 4 * MAX_PENDING)
        for _ in range(20):
            await settle()
        assert r.server.queued < 4 * MAX_PENDING
        match end:
            case "another POST":
                other = r.test.open(recorder)
                other.write(request(query, "POST", '42["more"]'))
                await until(lambda: b"HTTP/1.1 400 " in recorder.received)
                wire.abort()
            case "the client leaves":
                wire.abort()
            case _:
                await r.clock.advance(0)
                stopping = asyncio.ensure_future(r.server.stop())
                while not stopping.done():
                    await r.clock.advance(1)
        await settle()
        assert (sessions(r), r.io.sockets) == ([], {})
        assert len(r.reasons) == 1
        never.set()
        await until(lambda: not r.io._running)
        assert r.server.queued == 0


@flaw(
    "CVE-2020-36048",
    "CVE-2026-48809",
    what="sends a body above the limit, declared or not, to make the server hold it",
    here="413 at its length, or as soon as one byte too many has come; its session ends",
)
@pytest.mark.parametrize("way", ["declared", "in chunks", "declared, and only some of it"])
async def test_a_body_above_the_limit_is_not_held(way: str) -> None:
    async with rig(max_payload=100_000) as r:
        query, wire, recorder = await polled(r)
        await connect(r, query, wire)
        recorder.received.clear()
        head = f"POST {PATH}{query} HTTP/1.1\r\nHost: test\r\n".encode()
        with measured() as held:
            if way == "in chunks":
                wire.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
                for _ in range(300):
                    wire.write(b"3e8\r\n" + b"4" * 1000 + b"\r\n")
                    await asyncio.sleep(0)
            else:
                wire.write(head + b"Content-Length: 900000000\r\n\r\n")
                wire.write(b"4" * (5_000_000 if way == "declared" else 10))
            await settle()
            assert b"HTTP/1.1 413 " in recorder.received
            assert r.server.queued < 100_000
            wire.abort()
            await settle()
            assert held() < 250_000
        assert r.io.sockets == {}
