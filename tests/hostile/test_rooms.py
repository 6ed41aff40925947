"""Rooms whose names and number peers choose"""

import asyncio
import gc
from contextlib import suppress
from typing import Any

import pytest

from rfc6455 import CloseCode
from rfc6455_server import ConnectionClosedError, Server, WebSocket
from rfc6455_server.limits import FEW_ROOMS, Limits
from rfc6455_server.rooms import Rooms
from rfc6455_server.socketio import Socket
from rfc6455_server.testing import ManualClock, TestClient, settle
from tests.helpers import Held, bytes_held, measured
from tests.hostile.flaws import flaw
from tests.hostile.test_socketio_packets import SPECIAL_NAMES
from tests.hostile.test_socketio_waiting import Forgetful
from tests.server_helpers import until
from tests.test_socketio_server import rig


def joining_server(**limits: Any) -> tuple[Server, TestClient]:
    """A server whose clients join the rooms that they name."""
    clock = ManualClock()
    server = Server(clock=clock, **limits)

    @server.websocket("/")
    async def join(ws: WebSocket) -> None:
        async for name in ws:
            server.rooms[str(name)].join(ws)

    return server, TestClient(server, clock)


@flaw(
    "CVE-2026-69185",
    what="joins a hundred thousand rooms",
    here="1008 at `max_rooms`; with the connection, its rooms are gone",
)
async def test_a_hundred_thousand_rooms_of_one_connection() -> None:
    server, test = joining_server()

    async def join(held: Held) -> None:
        ws = await test.connect("/")
        for number in range(1_000):
            await ws.send(f"room-{number}")
        await until(lambda: server.stats.memberships == 1_000)
        assert held() < 1_000 * 600 + 300_000
        with suppress(ConnectionClosedError):
            for number in range(1_000, 100_000):
                await ws.send(f"room-{number}")
        await until(lambda: ws.closed)
        assert ws.closed is not None
        assert ws.closed.code == CloseCode.POLICY_VIOLATION
        test.transports.pop().abort()

    async with test:
        await test.connect("/")  # makes what all connections share
        with measured() as held:
            await join(held)
            await settle()
            assert (len(server.rooms), server.stats.memberships) == (0, 0)
            assert held() < 100_000


@flaw(
    "found here",
    what="joins as many rooms as one connection may, from many connections",
    here="at `max_total_rooms`, only connections in fewer than 32 rooms join more: nobody is kept out",
)
async def test_rooms_of_many_connections_are_bounded_and_nobody_is_kept_out() -> None:
    server, test = joining_server(max_total_rooms=5_000)
    async with test:
        greedy = []
        with measured() as held:
            for number in range(10):
                ws = await test.connect("/")
                greedy.append(ws)
                for room in range(1_000):
                    ws._connection.send_text(f"room-{number}-{room}")
                ws._outbox.flush()
                await settle()
            assert server.stats.memberships <= 5_000 + 5 * FEW_ROOMS
            assert held() < 5_000 * 600 + 10 * 100_000
        assert sum(ws.closed is None for ws in greedy) == 5
        honest = await test.connect("/")
        for room in range(FEW_ROOMS):
            await honest.send(f"room-{room}")
        await settle()
        assert honest.closed is None
        assert len(server.rooms["room-0"]) == 1


@flaw(
    "found here",
    what="joins rooms with names of a megabyte: a gigabyte from one connection, counted nowhere",
    here="1008 above `max_room_name`",
)
@pytest.mark.parametrize("text", ["x", "é", "😀"])
async def test_a_name_of_a_megabyte(text: str) -> None:
    server, test = joining_server()
    async with test:
        ws = await test.connect("/")
        longest = text * (256 if text.isascii() else 64)
        await ws.send(longest)
        await settle()
        assert server.rooms[longest].members == server.websockets
        with measured() as held:
            await ws.send(text * 250_000)
            await until(lambda: ws.closed)
            assert ws.closed is not None
            assert ws.closed.code == CloseCode.POLICY_VIOLATION
            await settle()
            assert held() < 50_000
        assert server.stats.memberships == 0


@flaw(
    "found here",
    what="joins as many rooms as all may, under the longest names: 1.1 GB, of which `queued` counts nothing",
    here="256 bytes a name, and what the rooms of all take stays below the default of `max_total_queue`",
)
@pytest.mark.parametrize("rest", ["x" * 251, "😀" * 59, "x" * 58 + "😀"])
async def test_rooms_with_the_longest_names(rest: str) -> None:
    server, test = joining_server()
    limits = Limits()
    async with test:
        ws = await test.connect("/")
        with measured() as held:
            for number in range(1_000):
                ws._connection.send_text(f"{number:05}{rest}")
                if number % 50 == 0:
                    ws._outbox.flush()
                    await settle()
            ws._outbox.flush()
            await settle()
            assert server.stats.memberships == 1_000
            assert held() * limits.max_total_rooms / 1_000 < limits.max_total_queue * 0.8
        with suppress(ConnectionClosedError):
            await ws.send(f"{rest}123456")
            await until(lambda: ws.closed)
        assert ws.closed is not None
        assert ws.closed.code == CloseCode.POLICY_VIOLATION


@flaw(
    "found here",
    what="names rooms of a megabyte as a target, which recovery keeps with the event: 36 MB counted as 38 KB",
    here="nobody can be in such a room, so the event is not kept; names that are kept count",
)
@pytest.mark.parametrize(("size", "rooms"), [(240, 8), (900_000, 1)])  # names that a room can have, and not
@pytest.mark.parametrize("way", ["to", "except_"])
async def test_names_that_recovery_keeps(size: int, rooms: int, way: str) -> None:
    async with rig(recovery=60, recovery_bytes=1 << 20) as r:
        r.handled = Forgetful()
        said = 0

        @r.io.on("say")
        async def say(socket: Socket, room: str) -> None:
            nonlocal said
            getattr(r.io, way)(*[f"{number}{room}" for number in range(rooms)]).emit("said")
            said += 1

        client = await r.client()
        with measured() as held:
            for number in range(min(2_000, 20_000_000 // size)):
                client.say(f'42["say","{number:04}{"x" * size}"]')
                if number % 100 == 0 or size > 1000:
                    await until(lambda: said == number + 1)  # noqa: B023 - it is called at once
            await until(lambda: said == number + 1)
            await drop_received(client.ws)
            assert held() < (1 << 20) * 1.5 + 300_000
        assert len(r.io.sockets) == 1


async def drop_received(ws: WebSocket) -> None:
    """Takes what the client has received, so that only the server's memory is measured."""
    while True:
        taking = asyncio.ensure_future(ws.recv())
        await settle()
        if not taking.done():
            taking.cancel()
            return
        taking.result()


@flaw(
    "socketio/socket.io-redis-emitter#137",
    what="names a room like an attribute of all objects, or like a pattern",
    here="is a name like any other, with its own members only",
)
@pytest.mark.parametrize("name", SPECIAL_NAMES)
async def test_names_of_rooms_that_mean_something_elsewhere(name: str) -> None:
    server, test = joining_server()
    server.rooms.policies["[abc]"] = "drop_newest"
    async with test:
        inside, outside = await test.connect("/"), await test.connect("/")
        await inside.send(name)
        await outside.send("elsewhere")
        await settle()
        assert sorted(server.rooms) == sorted([name, "elsewhere"])
        server.rooms[name].broadcast("hello")
        server.rooms["elsewhere"].broadcast("not hello")
        assert (await inside.recv(), await outside.recv()) == ("hello", "not hello")
        server.rooms[name].policy = "drop_oldest"
        assert [server.rooms[one].policy for one in (name, "elsewhere")] == ["drop_oldest", None]


@flaw(
    "CVE-2026-69185",
    what="makes the server send to rooms without end that nobody is in",
    here="a room that nobody is in is not kept",
)
def test_rooms_that_are_only_asked_for_are_not_kept() -> None:
    def ask() -> Rooms:
        rooms = Rooms()
        rooms.policies["room-*"] = "drop_oldest"
        for number in range(5_000):
            rooms[f"room-{number}"].broadcast("hello")
            assert f"other-{number}" not in rooms
        gc.collect()
        return rooms

    assert bytes_held(ask) < 20_000
