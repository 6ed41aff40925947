"""What Socket.IO clients make the server hold

Each is measured in bytes that are held, or counted: events and answers that wait, sessions, handshakes,
acknowledgements, tasks, and what recovery keeps.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import pytest

from rfc6455_server.socketio import Socket, SocketIO
from tests.helpers import Held, measured
from tests.hostile.flaws import flaw
from tests.model_client import ModelClient, TransportName, come_to_rest
from tests.test_socketio_hostile import BOTH, Memory

BUDGET: Final = 1 << 20
SLACK: Final = 300_000  # for sockets and connections


def unique(io: SocketIO) -> None:
    for number in range(4_000):
        for socket in io.fetch_sockets():
            socket.emit("news", number, f"{number}" * 20)


def shared(io: SocketIO) -> None:
    for number in range(10_000):
        io.emit("news", number)


def with_attachments(io: SocketIO) -> None:
    for number in range(300):
        for socket in io.fetch_sockets():
            socket.emit("news", number, bytes(2_000), bytes(2_000))


@flaw(
    "CVE-2020-36048",
    what="does not take what it is sent, over either transport",
    here="counts with its objects in `max_total_queue`; above, the client with the largest backlog goes",
)
@pytest.mark.parametrize("emit", [unique, shared, with_attachments])
@pytest.mark.parametrize("transport", BOTH)
async def test_what_waits_for_clients_is_in_the_budget_with_its_real_cost(
    transport: TransportName, emit: Callable[[SocketIO], None]
) -> None:
    memory = Memory.make(SocketIO(ping_interval=3600), max_queue=1 << 24, max_total_queue=BUDGET)
    async with memory.test:
        clients = [await memory.client(transport) for _ in range(5)]
        for client in clients:
            client.stall()
        with measured() as held:
            emit(memory.io)
            await come_to_rest()
            assert memory.server.queued <= BUDGET
            assert held() <= BUDGET + SLACK
            assert "too slow" in memory.reasons
            assert set(memory.reasons) == {"too slow"}
        await memory.clock.advance(60)


@flaw(
    "GHSA-2m8v-j782-fhvr",
    what="asks for acknowledgements and never reads them",
    here="the answers count; the client is disconnected above `max_queue` or `max_total_queue`",
)
@pytest.mark.parametrize("transport", BOTH)
async def test_answers_to_a_client_that_never_reads_are_in_the_budget(transport: TransportName) -> None:
    io = SocketIO(ping_interval=3600)
    memory = Memory.make(io, max_queue=1 << 24, max_total_queue=BUDGET)

    @io.on("x")
    def answer(socket: Socket) -> int:
        return 1

    async with memory.test:
        client = await memory.client(transport)
        if transport == "websocket":
            client.stall()
        elif client._get is not None:
            client._get.transport.pause_reading()
        with measured() as held:
            for _ in range(10):
                if client.open and client.id in io.sockets:
                    client.send_raw(*(f'42{number}["x"]' for number in range(2_000)))
                    await come_to_rest()
            assert memory.server.queued <= BUDGET
            assert held() <= BUDGET + SLACK + 500_000  # what the test's own client holds
        assert memory.reasons in ([], ["too slow"])


@flaw(
    "found here",
    what="polls, and does not read its large answers; those beyond the budget were held, and not counted",
    here="an answer counts until its connection holds nothing of it, and is dropped with its connection",
)
async def test_answers_over_the_budget_are_freed() -> None:
    io = SocketIO(http_compression=None)
    memory = Memory.make(io, max_total_queue=4 << 20)
    async with memory.test:
        clients = [await memory.client("polling") for _ in range(8)]
        with measured() as held:
            for client in clients:
                assert client._get is not None
                client._get.transport.pause_reading()
            for client in clients:
                io.to(client.id or "").emit("large", "x" * 900_000)
                await come_to_rest()
                assert held() <= 1.5 * memory.server.queued
                assert memory.server.queued <= 4 << 20
        assert set(memory.reasons) == {"too slow"}
        assert 0 < len(io.sockets) < 8


@flaw(
    "CVE-2026-48802",
    what="sends events faster than their handlers run",
    here="above 1 MiB of them, with 1024 bytes for each, nothing more is read from it",
)
@pytest.mark.parametrize("transport", BOTH)
async def test_events_that_wait_for_handlers_are_bounded_and_end_with_their_session(
    transport: TransportName,
) -> None:
    io = SocketIO()
    memory = Memory.make(io, max_total_queue=8 << 20)
    go = asyncio.Event()

    @io.on("x")
    async def wait(socket: Socket, number: int) -> None:
        await go.wait()

    async with memory.test:
        with measured():
            for _ in range(3):
                held = Held()
                client = await memory.client(transport)
                before = held()
                client.send_raw(*(f'42["x",{number}]' for number in range(60_000)))
                await come_to_rest()
                assert held() - before <= (8 << 20) + SLACK
                assert memory.server.queued > 500_000
                client.cut("reset")
                await memory.clock.advance(60)  # over a WebSocket, the server asks
                assert io.sockets == {}
                assert memory.server.queued <= 5_000  # the handler that runs still has its event
                assert held() <= SLACK + 2_000_000  # what the test's connections have not passed on
        go.set()


@flaw(
    "CVE-2026-48804",
    "CVE-2026-33151",
    what="holds packets open from many connections, each just below the limit of one",
    here="they count in `max_total_queue` together",
)
@pytest.mark.parametrize("count", [1, 9])
async def test_attachments_that_wait_for_others_are_in_the_budget(count: int) -> None:
    memory = Memory.make(SocketIO(ping_interval=3600), max_total_queue=4 << 20)
    places = ",".join(f'{{"_placeholder":true,"num":{number}}}' for number in range(10))
    async with memory.test:
        clients = [await memory.client("websocket") for _ in range(10)]
        with measured() as held:
            for client in clients:
                client.send_raw(f'4510-["x",{places}]')
                for _ in range(count):
                    if client.open:
                        client.send_raw(bytes(990_000))
                        await come_to_rest()
            assert memory.server.queued <= 4 << 20
            assert held() <= (4 << 20) + SLACK
            assert set(memory.reasons) == {"too slow"}


def to_all(io: SocketIO, number: int) -> None:
    io.emit("x", number)


def to_a_room(io: SocketIO, number: int) -> None:
    io.to("room").emit("x", number)


def to_many_rooms(io: SocketIO, number: int) -> None:
    io.to(*(f"room-{number % 7}-{other}" for other in range(10))).except_("a", "b").emit("x", number)


def to_a_room_of_its_own(io: SocketIO, number: int) -> None:
    io.to(f"room-{number}").emit("x", number)


@flaw(
    "found here",
    what="makes the server send events while clients are away that may come back",
    here="at most `recovery_bytes` are kept, with all that holds them",
)
@pytest.mark.parametrize(
    ("emit", "count"),
    [(to_all, 9_000), (to_a_room, 9_000), (to_many_rooms, 3_000), (to_a_room_of_its_own, 5_000)],
)
async def test_what_recovery_keeps_is_bounded_in_real_bytes(
    emit: Callable[[SocketIO, int], None], count: int
) -> None:
    memory = Memory.make(SocketIO(recovery=60, recovery_bytes=2 << 20, ping_interval=3600))
    async with memory.test:
        client = await memory.client("websocket")
        client.cut("reset")
        await come_to_rest()
        with measured() as held:
            for number in range(count):
                emit(memory.io, number)
            await come_to_rest()
            # Some of it is in objects that all events share, or that are not made anew.
            assert (1 << 20) < held() <= (2 << 20) + SLACK


# Sessions by address.


def forwarded(address: str) -> dict[str, Any]:
    return {"headers": [("X-Forwarded-For", address)]}


@flaw(
    "CVE-2020-36048",
    what="opens sessions by polling, which need no connection",
    here="they count for `max_connections_per_address`, behind a proxy too",
)
@pytest.mark.parametrize("proxy", [False, True])
async def test_one_address_cannot_open_all_sessions(proxy: bool) -> None:
    trusted = ["192.0.2.1"] if proxy else []
    memory = Memory.make(SocketIO(), max_connections_per_address=20, max_connections=50, trusted=trusted)

    def at(address: str) -> dict[str, Any]:
        return forwarded(address) if proxy else {"address": address}

    async with memory.test:
        greedy = []
        for _ in range(30):
            client = await memory.client("polling", stall_after_connect=True, **at("198.51.100.1"))
            greedy.append(client)
            for wire in client.wires:
                wire.close("fin")  # sessions are what it wants, and it needs no connections for them
            await come_to_rest()
        sessions = memory.io._transports.sessions  # type: ignore[union-attr]
        assert len(sessions) <= 20
        for transport in BOTH:
            other = await memory.client(transport, **at("198.51.100.2"))
            assert other.connected
        await memory.clock.advance(60)
        again = await memory.client("polling", **at("198.51.100.1"))
        assert again.connected  # what it had opened has ended


@flaw(
    "CVE-2026-48802",
    what="opens sessions and never connects to a namespace",
    here="the session ends after `connect_timeout`, and has no task before",
)
async def test_a_session_that_never_connects_lives_for_seconds() -> None:
    memory = Memory.make(SocketIO())
    async with memory.test:
        sessions = memory.io._transports.sessions  # type: ignore[union-attr]
        for transport in BOTH:
            silent = ModelClient(memory.test)
            silent._say_connect = lambda: None  # type: ignore[method-assign]
            silent.start(transport)
            await come_to_rest()
            assert len(sessions) == 1
            await memory.clock.advance(15)
            assert len(sessions) == 0
