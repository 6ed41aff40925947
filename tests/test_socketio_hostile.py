"""What unlucky and hostile clients do to the Socket.IO server, from outside: nothing is lost, doubled or
stuck, and what they make the server hold is bounded in real bytes.

Where one can do it, the client is the official one. `test_socketio_recovery` cuts connections at random.
"""

from dataclasses import dataclass
from typing import Any, Final

import pytest

from rfc6455_server import Server, WebSocket, connect
from rfc6455_server.socketio import Socket, SocketIO
from rfc6455_server.testing import ManualClock, TestClient
from tests.model_client import ModelClient, TransportName, come_to_rest
from tests.server_helpers import serving, until
from tests.socketio_relay import Relay
from tests.test_socketio import TRANSPORTS, Script, chat_server, script

BOTH: Final[list[TransportName]] = ["websocket", "polling"]
NEWS: Final = ["event", "news"]


async def read_news(client: Script, last: int) -> list[int]:
    """Returns the numbers of the events up to the last one; nothing else may happen meanwhile."""
    numbers: list[int] = []
    while numbers[-1:] != [last]:
        said = await client.next()
        assert said[:2] == NEWS, said
        numbers.append(said[2])
    return numbers


# Lost connections.


@pytest.mark.parametrize("noticed", [True, False])
@pytest.mark.parametrize("transports", list(TRANSPORTS))
async def test_the_official_client_recovers_more_than_its_queue_takes(transports: str, noticed: bool) -> None:
    server, io = chat_server(recovery=60)
    async with serving(server):
        relay = Relay(server.port)
        async with relay.running() as url, script(url, TRANSPORTS[transports], "listen") as client:
            first = await client.until("connect")
            if transports == "default":
                await client.until("upgrade")
            io.emit("news", 0)
            await client.until(*NEWS, 0)
            relay.open = False
            relay.cut(server_notices=noticed)
            await client.until("disconnect")
            for number in range(1, 61):
                io.emit("news", number, "x" * 40_000)
            relay.open = True
            said = await client.next()
            if said[0] == "event":  # it prints those that follow CONNECT in the same read before
                numbers = [said[2], *(await read_news(client, 60))] if said[2] != 60 else [60]
                assert await client.next() == ["connect", first[1], True]
            else:
                assert said == ["connect", first[1], True]
                numbers = await read_news(client, 60)
            assert numbers == list(range(1, 61))
            io.emit("news", 61)
            assert await read_news(client, 61) == [61]  # and no disconnect before
            client.tell("end")
            await until(lambda: not io.sockets)


@pytest.mark.parametrize("has_seen", [True, False])
@pytest.mark.parametrize("transports", list(TRANSPORTS))
async def test_the_official_client_loses_each_connection_before_it_has_read_it(
    transports: str, has_seen: bool
) -> None:
    server, io = chat_server(recovery=60)
    cuts = 3

    async with serving(server):
        relay = Relay(server.port)

        @io.on("connect")
        def connected(socket: Socket) -> None:
            nonlocal cuts
            if socket.recovered and cuts:
                cuts -= 1
                relay.cut(server_notices=True)
                io.emit("news", 10 - cuts)

        def all_cut() -> bool:
            if cuts and io.sockets:
                relay.cut(server_notices=True)  # a request of the client may have passed by the other one
            return cuts == 0

        async with relay.running() as url, script(url, TRANSPORTS[transports], "listen") as client:
            first = await client.until("connect")
            if transports == "default":
                await client.until("upgrade")
            if has_seen:
                io.emit("news", 0)
                await client.until(*NEWS, 0)
            relay.open = False
            relay.cut(server_notices=True)
            await client.until("disconnect")
            for number in range(1, 8):
                io.emit("news", number)
            relay.open = True
            await until(all_cut)
            numbers: list[int] = []
            while numbers[-1:] != [10]:
                match await client.next():
                    case ["event", "news", number]:
                        numbers.append(number)
                    case ["connect", id_, recovered]:
                        assert (id_, recovered) == (first[1], True)
                    case other:
                        assert other[0] in ("disconnect", "upgrade")
            assert numbers == list(range(1, 11))
            client.tell("end")
            await until(lambda: not io.sockets)


@pytest.mark.parametrize(
    ("transports", "reason"),
    [("default", "transport close"), ("websocket", "transport close"), ("polling", None)],
)
async def test_why_the_official_client_is_gone(transports: str, reason: str | None) -> None:
    server, io = chat_server()
    reasons: list[str] = []

    @io.on("disconnect")
    def gone(socket: Socket, why: str) -> None:
        reasons.append(why)

    async with serving(server):
        relay = Relay(server.port)
        async with relay.running() as url, script(url, TRANSPORTS[transports], "listen") as client:
            await client.until("connect")
            if transports == "default":
                await client.until("upgrade")
            if reason is not None:
                relay.open = False
                relay.cut(server_notices=True)
                await until(lambda: reasons)
                assert reasons == [reason]
                relay.open = True
                await client.until("connect")
                reasons.clear()
            await server.drain(0.01)
            await until(lambda: reasons)
            assert reasons == ["server shutting down"]


# Bursts.


@pytest.mark.parametrize(("count", "size"), [(60, 50_000), (20_000, 200)])
@pytest.mark.parametrize("transports", list(TRANSPORTS))
async def test_the_official_client_reads_a_burst(transports: str, count: int, size: int) -> None:
    server, io = chat_server()
    async with serving(server) as url, script(url, TRANSPORTS[transports], "listen") as client:
        await client.until("connect")
        if transports != "polling":
            await client.until("upgrade")
        for number in range(count):
            io.emit("news", number, "x" * size)
        assert await read_news(client, count - 1) == list(range(count))
        client.tell("end")
        await until(lambda: not io.sockets)
        assert server.stats.dropped.total() == 0


@pytest.mark.parametrize(("count", "size"), [(60, 50_000), (20_000, 200)])
async def test_a_member_of_a_raw_room_reads_a_burst(count: int, size: int) -> None:
    server = Server()

    @server.websocket("/room")
    async def member(ws: WebSocket) -> None:
        server.rooms["all"].join(ws)
        await ws.wait_closed()

    async with serving(server) as url, connect(url + "/room") as ws:
        await until(lambda: len(server.rooms["all"]) == 1)
        for number in range(count):
            server.rooms["all"].broadcast(f"{number} " + "x" * size)
        assert [int(str(await ws.recv()).split()[0]) for _ in range(count)] == list(range(count))
        assert ws.closed is None


@dataclass
class Memory:
    """A server in memory, with clients whose bytes the test controls."""

    clock: ManualClock
    io: SocketIO
    server: Server
    test: TestClient
    reasons: list[str]

    @classmethod
    def make(cls, io: SocketIO, **limits: Any) -> "Memory":
        clock = ManualClock()
        server = Server(clock=clock, **limits)
        server.mount(io)
        reasons: list[str] = []

        @io.on("disconnect")
        def gone(socket: Socket, reason: str) -> None:
            reasons.append(reason)

        return cls(clock, io, server, TestClient(server, clock), reasons)

    async def client(self, transport: TransportName, **attributes: Any) -> ModelClient:
        client = ModelClient(self.test)
        for name, value in attributes.items():
            setattr(client, name, value)
        client.start(transport)
        await come_to_rest()
        return client


@pytest.mark.parametrize("transport", BOTH)
async def test_a_client_that_takes_nothing_is_disconnected_as_too_slow(transport: TransportName) -> None:
    memory = Memory.make(SocketIO(ping_interval=3600), max_queue=100_000, send_timeout=20)
    async with memory.test:
        slow, quick = await memory.client(transport), await memory.client(transport)
        slow.stall()
        for number in range(40):
            memory.io.emit("news", number, "x" * 10_000)
            await come_to_rest()
        await memory.clock.advance(19)
        assert memory.reasons == []
        assert memory.server.queued > 200_000
        await memory.clock.advance(22)
        assert memory.reasons == ["too slow"]
        assert list(memory.io.sockets) == [quick.id]
        await memory.clock.advance(60)
        assert memory.server.queued == 0


class Counting(ModelClient):
    """A client that notes the numbers of the events that it sees."""

    def __init__(self, test: TestClient) -> None:
        super().__init__(test)
        self.seen: list[int] = []

    def on_event(self, name: str, arguments: list[Any]) -> None:
        self.seen.append(arguments[0])


@pytest.mark.parametrize("transport", BOTH)
async def test_a_client_that_takes_a_little_at_a_time_stays(transport: TransportName) -> None:
    # Without pings, which stand behind what waits.
    memory = Memory.make(SocketIO(ping_interval=3600), ping_interval=3600, max_queue=100_000, send_timeout=20)
    async with memory.test:
        client = Counting(memory.test)
        client.start(transport)
        await come_to_rest()
        client.stall()
        for number in range(100):
            memory.io.emit("news", number, "x" * 10_000)
        for _ in range(10):
            await client.take(80_000)  # more than the 64 KiB that are asked for
            await memory.clock.advance(15)
        assert memory.reasons == []
        assert len(client.seen) < 90
        client.go_on()
        await come_to_rest()
        assert client.seen == list(range(100))


@pytest.mark.parametrize("transport", BOTH)
async def test_a_ping_behind_much_that_waits_ends_no_session_of_a_client_that_reads(
    transport: TransportName,
) -> None:
    memory = Memory.make(SocketIO(ping_interval=25, ping_timeout=20), max_queue=1 << 23)
    async with memory.test:
        client = Counting(memory.test)
        client.start(transport)
        await come_to_rest()
        client.stall()
        for number in range(500):
            memory.io.emit("news", number, "x" * 10_000)
        for _ in range(20):
            await client.take(200_000)
            await memory.clock.advance(4)  # 5 MB at 50 KB/s
        assert memory.reasons == []
        assert len(client.seen) < 450
        client.go_on()
        await come_to_rest()
        assert client.seen == list(range(500))


# Events from clients.


@pytest.mark.parametrize("transports", list(TRANSPORTS))
async def test_an_answer_of_the_official_client_passes_its_own_events(transports: str) -> None:
    server, io = chat_server()
    heard: list[int] = []
    most = 0

    @io.on("ask")
    async def ask(socket: Socket, text: str) -> Any:
        nonlocal most
        answer = await socket.emit_with_ack("question", text)
        most = server.queued
        return answer

    @io.on("noise")
    def noise(socket: Socket, number: int, filler: str) -> int:
        heard.append(number)
        return len(heard)

    async with serving(server) as url:
        async with script(url, TRANSPORTS[transports], "flood") as client:
            assert await client.lines() == [["answered", "well!"], ["heard", 4001]]
        assert heard == list(range(4001))
        assert most < 20_000_000
        await until(lambda: not io.sockets)
