"""Connecting to Socket.IO, often and much

What is kept of each client that connects, leaves, or may come back: handshakes, namespaces, lost sockets.
"""

import asyncio
import gc
import json
from typing import Final

import pytest

from rfc6455_server.socketio import ConnectError, Socket
from rfc6455_server.testing import settle
from rfc6455_server.websocket.hub import Budget
from tests.helpers import measured
from tests.hostile.flaws import flaw
from tests.server_helpers import until
from tests.test_socketio_attacks import polled, request, sessions
from tests.test_socketio_server import PATH, Client, rig

LISTS: Final = ",".join(["[]"] * 20_000)  # 60 KB as text, and 1.3 MB in memory


@flaw(
    "found here",
    what="connects to many namespaces, with an `auth` in each that takes twenty times its size in memory",
    here="refused above `max_auth_size`, which counts what Python holds",
)
async def test_a_large_auth_is_refused_and_not_kept() -> None:
    async with rig() as r:
        client = await r.client()
        for number in range(20):
            r.io.of(f"/{number}")
        with measured() as held:
            for number in range(20):
                client.say(f'40/{number},{{"a":[{LISTS}]}}')
                assert await client.recv() == f'44/{number},{{"message":"auth is too large"}}'
            assert held() < 300_000
        client.say('40/0,{"a":[[]]}')
        assert (await client.recv()).startswith('40/0,{"sid"')


@flaw(
    "found here",
    what="keeps what it sent to connect for as long as it is connected, from many connections",
    here="it counts in `max_total_queue` until the client has left; above, the client that holds most goes",
)
@pytest.mark.parametrize("end", ["refused", "left", "lost"])
async def test_what_is_kept_of_a_handshake_counts(end: str) -> None:
    async with rig(max_auth_size=4_000_000) as r:
        r.server.hub.budget = Budget(7_000_000)
        other = r.io.of("/other")
        go_on = asyncio.Event()

        @other.use
        async def decide(socket: Socket) -> None:
            await go_on.wait()
            if end == "refused":
                raise ConnectError("no")

        with measured() as held:
            for number in range(5):
                client = await r.client()
                client.say(f'40/other,{{"a":[{LISTS}]}}')
                await settle()
                assert r.server.queued < 7_000_000
                assert held() < r.server.queued + 300_000
                assert number > 1 or r.server.queued > 2_000_000 * (number + 1)
        assert set(r.reasons) == {"too slow"}
        go_on.set()
        await settle()
        for socket in other.fetch_sockets():
            if end == "left":
                socket.disconnect()
            else:
                socket.fail_session()
        await settle()
        assert r.server.queued == 0
        assert other.sockets == {}


@flaw(
    "found here",
    what="connects and leaves in turn, with an `auth` that a slow handler of `disconnect` keeps each time",
    here="such handlers count with what they keep; above 1 MiB, nothing more is read from the client",
)
async def test_a_slow_handler_of_the_end_counts_with_what_it_keeps() -> None:
    async with rig(max_auth_size=4_000_000) as r:
        go_on = asyncio.Event()

        @r.io.on("disconnect")
        async def slow(socket: Socket, reason: str) -> None:
            await go_on.wait()

        client = await r.client()
        for _ in range(20):
            client.say("41", f'40{{"a":[{LISTS}]}}')
        for _ in range(20):
            await settle()
        assert len(r.io._running) <= 3
        go_on.set()
        await until(lambda: not r.io._running)


@flaw(
    "found here",
    what="opens sessions by polling, and sends each CONNECT in a request with 10 KB of fields",
    here="the heads that are kept count in `max_total_queue`",
)
async def test_the_heads_of_requests_that_connect_count() -> None:
    async with rig() as r:
        for number in range(20):
            r.io.of(f"/{number}")
        query, transport, _ = await polled(r)
        with measured() as held:
            for number in range(20):
                body = f"40/{number},"
                head = f"POST {PATH}{query} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n"
                fields = "".join(f"X-{number}-{field}: {'x' * 1000}\r\n" for field in range(10))
                transport.write(f"{head}{fields}\r\n{body}".encode())
                await settle()
            assert len(r.io.namespaces) == 21
            assert r.server.queued > 200_000
            assert held() < r.server.queued + 300_000
        transport.abort()
        sessions(r)[0].fail("transport error")
        await settle()
        assert r.server.queued == 0


@flaw(
    "found here",
    what="asks one session for ten thousand names of a dynamic namespace, which has room for as many",
    here="a client is connected to at most 64 namespaces, also while it is being decided",
)
@pytest.mark.parametrize("leaves", [False, True])
async def test_one_session_does_not_fill_a_dynamic_namespace(leaves: bool) -> None:
    async with rig() as r:
        most = 0
        parent = r.io.of(lambda name, auth: name.startswith("/shop-"))

        @parent.on("connect")
        def count(socket: Socket) -> None:
            nonlocal most
            most = max(most, len(r.io.namespaces))

        client = await r.client()
        for number in range(10_000):
            client.say(f"40/shop-{number},")
            if leaves:
                client.say(f"41/shop-{number},")
        for _ in range(50):
            await settle()
        assert max(most, len(r.io.namespaces)) <= 65
        assert len(r.io._running) == 0


@flaw(
    "found here",
    what="loses its connection and comes back under other names, until a dynamic namespace is full",
    here="a namespace that only lost clients need makes room for a new one",
)
async def test_namespaces_of_lost_clients_make_room() -> None:
    async with rig(recovery=60) as r:
        r.io.of("/shop-{id}", max_children=100)
        for number in range(5):
            client = await r.client()
            for name in range(30):
                client.say(f"40/shop-{number}-{name},")
            await settle()
            if number == 0:
                back = r.io.of("/shop-0-29").fetch_sockets()[0].private_id
            r.test.transports[-1].abort()
            await settle()
        assert len(r.io.namespaces) == 101
        honest = await Client.open(r.test, namespace="/shop-honest")
        assert (await honest.recv()).startswith("40/shop-honest,")
        assert len(r.io.namespaces) == 101
        assert "/shop-1-29" in r.io.namespaces  # those go first that were left first
        late = await Client.open(r.test, namespace="/shop-0-29", auth={"pid": back})
        assert back not in await late.recv()
        for _ in range(3):
            await r.clock.advance(61)  # and then those who do not answer pings may not come back either
        assert set(r.io.namespaces) == {"/"}


@flaw(
    "found here",
    what="reconnects without end where clients may come back, under new names of a dynamic namespace",
    here="all children together keep as many lost clients as one namespace, of one address half of them",
)
async def test_lost_clients_of_all_children_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rfc6455_server.socketio.recovery.MAX_LOST_SOCKETS", 40)
    async with rig(recovery=60) as r:
        r.io.of("/shop-{id}")
        for number in range(10):
            client = await r.client()
            for name in range(30):
                client.say(f"40/shop-{number}-{name},")
            await settle()
            r.test.transports[-1].abort()
            await settle()
        children = [child for name, child in r.io.namespaces.items() if name != "/"]
        kept = [child.recovery for child in children if child.recovery is not None]
        assert len(kept) >= 20
        assert sum(len(recovery._sessions) for recovery in kept) == 20


@flaw(
    "CVE-2026-48802",
    what="connects and drops its connection without end, over either transport, before or after CONNECT",
    here="nothing of it is left: no session, socket, task or room, nothing in the budget or in memory",
)
@pytest.mark.parametrize("transport", ["websocket", "polling"])
@pytest.mark.parametrize("connects", [False, True])
async def test_a_flood_of_reconnects_leaves_nothing(transport: str, connects: bool) -> None:
    async with rig() as r:

        @r.io.on("connect")
        def connected(socket: Socket) -> None:
            socket.join(f"room of {socket.id}")

        async def come_and_go() -> None:
            if transport == "polling":
                query, wire, _ = await polled(r)
                if connects:
                    wire.write(request(query, "POST", "40"))
                    await settle()
                wire.abort()
                if connects:
                    sessions(r)[-1].fail("ping timeout")
            else:
                ws = await r.test.connect(PATH + "websocket")
                if connects:
                    Client(ws).say("40")
                    await settle()
                r.test.transports[-1].abort()
            await settle()
            r.test.transports.clear()
            await r.clock.advance(11)  # the time to connect to a namespace

        for _ in range(3):
            await come_and_go()
        with measured() as held:
            for _ in range(100):
                await come_and_go()
            assert held() < 40_000
        assert (sessions(r), r.io.sockets, list(r.io.rooms)) == ([], {}, [])
        assert r.server.queued == r.server.stats.memberships == len(r.io._running) == 0
        assert len(asyncio.all_tasks()) == 1


@flaw(
    "found here",
    what="reconnects without end where clients may come back",
    here="at most 20,000 lost clients are kept, of one address half of them, for the seconds of `recovery`",
)
@flaw(
    "found here",
    what="does so from another address of its IPv6 network each time, and pushes out all others",
    here="the addresses of a /64 count as one",
)
@pytest.mark.parametrize("address", ["198.51.100.1", "2001:db8::{:x}"])
async def test_a_flood_of_reconnects_with_recovery_keeps_little(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rfc6455_server.socketio.recovery.MAX_LOST_SOCKETS", 100)
    async with rig(recovery=60) as r:
        victim = await Client.open(r.test, auth={})
        private_id = json.loads((await victim.recv())[2:])["pid"]
        r.test.transports[-1].abort()
        await settle()
        with measured() as held:
            for number in range(200):
                client = Client(await r.test.connect(PATH + "websocket", address=address.format(number)))
                client.say("40")
                await settle()
                r.test.transports.pop().abort()
                await settle()
            gc.collect()
            assert held() < 50 * 4000 + 150_000
        back = await Client.open(r.test, auth={"pid": private_id})
        assert private_id in await back.recv()
        await r.clock.advance(120)  # the victim does not answer pings
        r.io.emit("x")
        recovery = r.io.of("/").recovery
        assert recovery is not None
        assert not recovery._sessions
