"""Incoming messages: how their size is counted, and when reading pauses."""

import asyncio
import zlib

import pytest

from rfc6455 import Connection, DeflateParameters, Opcode, Role, encode_frame
from rfc6455_server import Cause, ConnectionClosedError, Server, WebSocket
from rfc6455_server.limits import Limits
from rfc6455_server.testing import ManualClock, MemoryTransport, TestClient, settle
from rfc6455_server.websocket.hub import Hub
from rfc6455_server.websocket.inbox import MAX_UNREAD, Inbox
from rfc6455_server.websocket.outbox import Outbox
from rfc6455_server.websocket.streams import READ_SIZE, CodecReader
from tests.helpers import KEY, raw_frame

SMALL = encode_frame(Opcode.TEXT, b"x" * 32, mask_key=KEY)


class Reader(CodecReader):
    """Records when reading is paused and resumed."""

    def __init__(self) -> None:
        super().__init__(asyncio.get_running_loop())
        self.paused: list[bool] = []

    def pause(self) -> None:
        self.paused.append(True)

    def resume(self) -> None:
        self.paused.append(False)


class Owner:
    def __init__(self) -> None:
        self.events: list[object] = []
        self.too_fast = 0

    def handle_event(self, event: object) -> None:
        self.events.append(event)

    def disconnect_fast(self) -> None:
        self.too_fast += 1

    def disconnect_slow(self, slowness: str) -> None: ...


class Rig:
    """An inbox with the objects that it uses."""

    def __init__(self, connection: Connection | None = None, **limits: float) -> None:
        self.clock = ManualClock()
        self.connection = connection or Connection(Role.SERVER)
        self.reader, self.owner = Reader(), Owner()
        hub = Hub(Limits(**limits), clock=self.clock)  # type: ignore[arg-type]
        outbox = Outbox(self.connection, MemoryTransport("192.0.2.1"), self.owner, hub)
        self.inbox = Inbox(self.connection, self.reader, outbox, self.owner, hub)

    def read(self, data: bytes) -> None:
        """Receives ``data``, in pieces of the size that asyncio reads."""
        for start in range(0, len(data), READ_SIZE):
            self.connection.receive_data(data[start : start + READ_SIZE])
            self.inbox.pull()

    async def take_all(self) -> int:
        """Takes every message as a handler does; returns their number."""
        count = 0
        while self.inbox.unread_bytes:
            if self.inbox.messages or await self.inbox.wait():
                self.inbox.take()
                count += 1
        return count


async def test_small_messages_count_their_own_size_and_not_that_of_the_read() -> None:
    rig = Rig()
    rig.read(SMALL * 1000)
    await settle()  # the second batch is pulled in the next turn of the loop
    assert rig.reader.paused == []
    assert rig.inbox.unread_bytes == 1000 * (len(SMALL) + 64)
    assert await rig.take_all() == 1000
    assert rig.inbox.unread_bytes == 0


async def test_reading_pauses_until_the_handler_takes_messages() -> None:
    rig = Rig()
    rig.read(encode_frame(Opcode.BINARY, bytes(200_000), mask_key=KEY) * 3)
    assert rig.reader.paused == [True]
    assert MAX_UNREAD < rig.inbox.unread_bytes <= MAX_UNREAD + 200_000
    assert await rig.take_all() == 3
    assert rig.reader.paused == [True, False] * (len(rig.reader.paused) // 2)


async def test_small_messages_stay_within_the_byte_rate() -> None:
    rig = Rig(byte_rate=1_000_000)
    rig.read(SMALL * (200_000 // len(SMALL)))
    await settle()
    assert rig.owner.too_fast == 0


async def test_the_byte_rate_counts_frame_headers_and_whole_messages() -> None:
    rig = Rig(byte_rate=1000)
    rig.read(SMALL * 40)
    assert rig.owner.too_fast == 0
    rig.clock.jump(2)
    rig.read(SMALL * 53)  # 2,014 bytes: over the burst of 2,000, and allowed because the bucket is full
    assert rig.owner.too_fast == 0
    rig.read(SMALL)
    assert rig.owner.too_fast == 1


@pytest.mark.parametrize("fragment", [10, 100_000])
async def test_a_fragmented_message_counts_its_own_size(fragment: int) -> None:
    rig = Rig()
    text = ("안녕" * 50_000).encode()
    pieces = [text[start : start + fragment] for start in range(0, len(text), fragment)]
    for number, piece in enumerate(pieces):
        opcode = Opcode.CONTINUATION if number else Opcode.TEXT
        rig.read(encode_frame(opcode, piece, fin=number == len(pieces) - 1, mask_key=KEY))
    assert rig.inbox.unread_bytes == len(text) + 64


async def test_a_byte_rate_disconnects_only_a_client_that_exceeds_it() -> None:
    clock = ManualClock()
    server = Server(clock=clock, byte_rate=100_000)
    taken = 0

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        nonlocal taken
        async for _ in ws:
            taken += 1

    async with TestClient(server, clock) as client:
        ws = await client.connect("/")
        for _ in range(4000):
            await ws.send("x" * 32)
        await settle()
        assert taken == 4000
        with pytest.raises(ConnectionClosedError, match="too fast"):
            for _ in range(4000):
                await ws.send("x" * 32)
        await settle()
        assert ws.closed is not None
        assert ws.closed.code == 1008
        assert taken < 8000
        assert server.stats.closes[1006, Cause.LIMIT.value] == 1


async def test_others_have_a_turn_while_a_large_message_is_inflated() -> None:
    """However often input arrives, one MiB is inflated in each turn."""
    compressor = zlib.compressobj(wbits=-15)
    payload = (compressor.compress(bytes(9 << 20)) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    rig = Rig(Connection(Role.SERVER, deflate=DeflateParameters(), max_message_size=16 << 20))
    rig.read(raw_frame(Role.SERVER, Opcode.BINARY, payload, rsv=4))
    for _ in range(3):
        rig.inbox.pull()  # as if more had arrived
    inflated = []
    while rig.connection.inflating:
        inflated.append(rig.connection._reader._message._inflated >> 20)
        assert rig.inbox.unread_bytes == 0
        await asyncio.sleep(0)
    assert inflated == [4, 5, 6, 7, 8, 9]
    assert rig.inbox.unread_bytes >= 9 << 20
