"""Peers that do not read, and what waits for them."""

import asyncio
import json
from collections.abc import Coroutine
from itertools import product
from typing import Any

import pytest

from rfc6455 import ClientHandshake, DeflateParameters, PerMessageDeflate, PreparedMessage, Role, TextMessage
from rfc6455_server import Server, WebSocket
from rfc6455_server.limits import Limits
from rfc6455_server.policies import Coalesce
from rfc6455_server.socketio import SocketIO
from rfc6455_server.testing import ManualClock, TestClient, settle
from rfc6455_server.websocket.backlog import ENTRY_COST, Backlog, Waiting
from rfc6455_server.websocket.hub import Budget, NoOwner
from tests.helpers import feed, make_connection, measured
from tests.hostile.flaws import flaw
from tests.server_helpers import Recorder

MEMBERS = 5
SIZES = {"empty": (2000, 0), "tiny": (2000, 20), "large": (20, 100_000)}
WAYS = ["post", "send", "room", "ping", "event", "polled event", "ack"]


class Rig:
    """A server with five clients that do not read, in each of its protocols."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.server = Server(clock=self.clock, max_queue=1 << 40, max_total_queue=1 << 40, send_timeout=3600)
        self.io = SocketIO(ping_interval=3600, ping_timeout=3600)
        self.server.mount(self.io)
        self.client = TestClient(self.server, self.clock)
        self.members: list[WebSocket] = []
        self._ours: list[WebSocket] = []
        self._waiting: list[asyncio.Task[Any]] = []

        @self.server.websocket("/")
        async def handler(ws: WebSocket) -> None:
            self.members.append(ws)
            self.server.rooms["all"].join(ws)
            await ws.wait_closed()

    async def open(self, way: str) -> None:
        """Opens the connections that ``way`` sends to. They stop reading, and are behind."""
        for _ in range(MEMBERS):
            if way == "polled event":
                await self._poll()
            elif way in ("event", "ack"):
                ws = await self.client.connect("/socket.io/?EIO=4&transport=websocket")
                await ws.send("40")
                self._ours.append(ws)
            else:
                self._ours.append(await self.client.connect("/"))
        await settle()
        for transport in self.client.transports:
            transport.pause_reading()
        self.server.rooms["all"].broadcast("x" * 300_000)
        self.io.emit("first", "x" * 300_000)
        await settle()

    async def _poll(self) -> None:
        recorder = Recorder(self.clock)
        transport = self.client.open(recorder)
        path = "/socket.io/?EIO=4&transport=polling"
        transport.write(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        await settle()
        sid = json.loads(recorder.received[recorder.received.index(b"0{") + 1 :])["sid"]
        head = f"POST {path}&sid={sid} HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\n"
        transport.write(head.encode() + b"40")
        await settle()

    async def send(self, way: str, count: int, size: int) -> None:
        """Sends ``count`` messages, all different, to each member."""
        for number in range(count):
            self._send(way, (f"{number:04}" + "x" * size)[:size])
            if number % 100 == 99:
                await settle()
        await settle()

    def _send(self, way: str, text: str) -> None:
        if way == "room":
            self.server.rooms["all"].broadcast(text)
        elif way.endswith("event"):
            self.io.emit("e", text)
        elif way == "ack":
            for socket in self.io.fetch_sockets():
                self._wait(socket.emit_with_ack("e", text))
        for member in self.members:
            if way == "post":
                member.post(text)
            elif way == "send":
                self._wait(member.send(text))
            elif way == "ping":
                self._wait(member.ping())

    def _wait(self, waiting: Coroutine[Any, Any, Any]) -> None:
        self._waiting.append(asyncio.ensure_future(waiting))

    async def end(self) -> None:
        for task in self._waiting:
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)


@flaw(
    "found here",
    what="does not read; empty and tiny messages, Pings and calls that wait took 130 × what was counted",
    here="what waits counts with what holds it: at most 1.5 × as many bytes are held",
)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("way", WAYS)
async def test_what_waits_counts_what_it_takes(way: str, size: str) -> None:
    rig = Rig()
    async with rig.client:
        await rig.open(way)
        before = rig.server.queued
        with measured() as held:
            await rig.send(way, *SIZES[size])
            grown, counted = held(), rig.server.queued - before
        assert counted / 4 < grown < 1.5 * counted
        await rig.end()
        budget = rig.server.hub.budget
        assert budget.queued > 0
    assert budget.queued == 0


@flaw(
    "found here",
    what="is sent any number of empty messages in one turn of the event loop, which counted as nothing",
    here="each frame counts for its objects, so that they are written before they are many",
)
async def test_empty_messages_of_one_turn_are_few() -> None:
    clock = ManualClock()
    server = Server(clock=clock)
    handling: asyncio.Future[WebSocket] = asyncio.get_running_loop().create_future()

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        handling.set_result(ws)
        await ws.wait_closed()

    async with TestClient(server, clock) as client:
        await client.connect("/")
        ws = await handling
        client.transports[0].pause_reading()
        most = 0
        for _ in range(10_000):
            ws.post("")
            most = max(most, len(ws._connection._output))
        assert most < 1000
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count_turns())
        for _ in range(2000):
            await ws.send("")
        counting.cancel()
        assert turns > 1


@flaw(
    "found here",
    what="takes all of a large message but its last byte: the transport holds all of it, one byte counted",
    here="a write counts whole until its last byte is taken",
)
async def test_a_write_counts_until_it_is_taken() -> None:
    clock = ManualClock()
    server = Server(clock=clock)
    room = server.rooms["all"]

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        room.join(ws)
        await ws.wait_closed()

    async with TestClient(server, clock) as client:
        ws = await client.connect("/")
        transport = client.transports[0]
        await settle()
        transport.pause_reading()
        room.broadcast(bytes(200_000))
        await settle()
        (member,) = server.websockets
        assert 0 < member.queued < 140_000  # what the operating system has taken does not wait here
        assert server.queued == 200_010
        transport.resume_reading()
        await ws.recv()
        await settle()
        assert server.queued == 0


@flaw(
    "found here",
    what="falls behind where messages coalesce by keys that it chose, of any size",
    here="a key counts with all that it holds",
)
def test_keys_of_messages_that_coalesce_count() -> None:
    budget = Budget(1 << 40)
    backlog = Backlog(0, budget)
    with measured() as held:
        for number in range(1000):
            key = (number, "x" * (1000 + number), ("y" * (1000 + number),))
            backlog.post(PreparedMessage(""), Coalesce(key), 1 << 40, print)
        grown = held()
    assert backlog.size / 1.5 < grown < 1.5 * backlog.size


OFFERS = [
    DeflateParameters(
        server_no_context_takeover=True,
        client_no_context_takeover=reset,
        server_max_window_bits=server,
        client_max_window_bits=client,
    )
    for server, client, reset in product(range(8, 16), range(8, 16), (False, True))
]


@flaw(
    "found here",
    what="128 members agree on 128 sets of deflate parameters: each broadcast was compressed 128 times",
    here="what the client compresses with does not matter, and windows are rounded down: three times at most",
)
def test_a_broadcast_is_compressed_a_few_times_whatever_the_parameters() -> None:
    text = "hello, all of you; " * 5000
    message = PreparedMessage(text)
    frames = {}
    for deflate in OFFERS:
        frame = message.frame(deflate)
        assert frame is not None
        frames[id(frame)] = frame
        client = make_connection(Role.CLIENT, deflate=deflate)
        assert feed(client, [frame]) == [TextMessage(text)]
    assert len(OFFERS) == 128
    assert len(frames) == 3
    assert message.compressed_size == sum(map(len, frames.values()))


@flaw(
    "found here",
    what="does not read, while others have the same message compressed: its compressed forms did not count",
    here="they count for as long as the message waits",
)
async def test_compressed_forms_of_what_waits_count() -> None:
    clock = ManualClock()
    deflate = PerMessageDeflate(server_no_context_takeover=True)
    server = Server(clock=clock, compression=deflate, max_queue=1 << 40)

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        server.rooms["all"].join(ws)
        await ws.wait_closed()

    async with TestClient(server, clock) as client:
        await client.connect("/")
        client.transports[0].pause_reading()
        await settle()
        (behind,) = server.websockets
        while not behind.behind:
            behind.post(bytes(100_000))
            await settle()
        recorder = Recorder(clock)
        client.open(recorder).write(ClientHandshake("test", "/", deflate=deflate).data_to_send())
        await settle()
        assert len(server.websockets) == 2
        recorder.received.clear()
        before = server.queued
        frames = 0
        with measured() as held:
            for number in range(20):
                text = "".join(str(number * digit) for digit in range(20_000))
                server.rooms["all"].broadcast(text)
                await settle()
                assert recorder.received[0] == 0xC1
                frames += len(text) + len(recorder.received)
                recorder.received.clear()
            del text
            grown, counted = held(), server.queued - before
        assert frames < counted < frames + 20 * 2 * ENTRY_COST
        assert counted / 1.5 < grown < 1.5 * counted


@flaw(
    "found here",
    what="many peers fall behind together, each within its own limit",
    here="over `max_total_queue`, the peer for which most bytes wait is disconnected",
)
def test_the_total_is_bounded_and_the_largest_goes_first() -> None:
    budget = Budget(Limits(max_total_queue=1_000_000).max_total_queue)

    class Peer(NoOwner):
        gone = False

        def disconnect_slow(self, slowness: str) -> None:
            self.gone = True
            budget.release(self)

    peers = [Peer() for _ in range(5)]
    for number, peer in enumerate(peers):
        budget.charge(peer, 100_000 + 100_000 * number)
    assert [peer.gone for peer in peers] == [False, False, False, False, True]
    assert budget.queued == 1_000_000


@flaw(
    "found here",
    what="reads slowly what thousands of others send to it, so that each message that leaves costs a search "
    "of all calls of `send` that wait: 118 µs with 16,000 of them",
    here="only a call that is cancelled is searched for",
)
async def test_calls_that_wait_are_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    searched = 0

    def compare(waiting: Waiting, other: object) -> bool:
        nonlocal searched
        searched += 1
        return waiting is other

    monkeypatch.setattr(Waiting, "__eq__", compare)
    opened: list[WebSocket] = []
    clock = ManualClock()
    server = Server(clock=clock)  # with a queue for a MiB: most of the calls wait for room

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        opened.append(ws)
        await ws.wait_closed()

    async with TestClient(server, clock) as client:
        transport = client.open(Recorder(clock))
        transport.write(ClientHandshake("a", "/").data_to_send())
        await settle()
        transport.pause_reading()
        (ws,) = opened
        ws.post(bytes(200_000))
        await settle()
        calls = [asyncio.create_task(ws.send(bytes(1000))) for _ in range(2000)]
        await settle()
        assert not any(call.done() for call in calls)
        transport.resume_reading()
        await asyncio.gather(*calls)
    assert searched < 2000
