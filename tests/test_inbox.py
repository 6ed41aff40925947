"""Incoming messages: how their size is counted, and when reading pauses."""

import asyncio
import sys
import zlib

import pytest

from rfc6455 import Connection, DeflateParameters, Opcode, Role, encode_frame
from rfc6455_server import Cause, ConnectionClosedError, Server, WebSocket
from rfc6455_server.limits import Limits
from rfc6455_server.testing import ManualClock, MemoryTransport, TestClient, settle
from rfc6455_server.websocket.hub import Hub
from rfc6455_server.websocket.inbox import BATCH_COST, MAX_UNREAD, MESSAGE_COST, Inbox
from rfc6455_server.websocket.outbox import MIN_PROGRESS, Outbox
from rfc6455_server.websocket.streams import READ_SIZE, CodecReader
from tests.helpers import KEY, bytes_held, raw_frame
from tests.server_helpers import echo_server

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
        self.slow: list[str] = []

    def handle_event(self, event: object) -> None:
        self.events.append(event)

    def disconnect_fast(self) -> None:
        self.too_fast += 1

    def disconnect_slow(self, slowness: str) -> None:
        self.slow.append(slowness)

    def caught_up(self) -> None: ...

    def end_after(self, error: BaseException) -> None:
        raise NotImplementedError


class Rig:
    """An inbox with the objects that it uses."""

    def __init__(self, connection: Connection | None = None, **limits: float) -> None:
        self.clock = ManualClock()
        self.connection = connection or Connection(Role.SERVER)
        self.reader, self.owner = Reader(), Owner()
        self.hub = Hub(Limits(**limits), clock=self.clock)  # type: ignore[arg-type]
        outbox = Outbox(self.connection, MemoryTransport("192.0.2.1"), self.owner, self.hub)
        self.inbox = Inbox(self.connection, self.reader, outbox, self.owner, self.hub)

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
    assert rig.inbox.unread_bytes == 1000 * (len(SMALL) + MESSAGE_COST) + 4 * BATCH_COST
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
    assert rig.inbox.unread_bytes == sys.getsizeof(text.decode()) + MESSAGE_COST + BATCH_COST


@pytest.mark.parametrize(
    "messages",
    [
        [b""] * 1000,
        [b"x"] * 1000,
        [b"x" * 200] * 500,
        [b"x" * 100_000] * 2,
        [("x" * 10_000 + "\U0001f600").encode()] * 4,
    ],
    ids=["empty", "tiny", "small", "large", "wide"],
)
@pytest.mark.parametrize("together", [True, False])
async def test_unread_messages_count_what_they_take(messages: list[bytes], together: bool) -> None:
    frames = [encode_frame(Opcode.TEXT, message, mask_key=KEY) for message in messages]
    rig = Rig()

    def receive() -> Inbox:
        nonlocal rig
        rig = Rig()
        for frame in [b"".join(frames)] if together else frames:
            rig.read(frame)
            while rig.connection.unread and not rig.inbox.paused:
                rig.inbox.pull()
        return rig.inbox

    empty = bytes_held(lambda: Rig().inbox)
    held = bytes_held(receive) - empty
    counted = rig.hub.budget.queued
    assert counted == rig.hub.budget.incoming >= rig.inbox.unread_bytes
    assert counted / 3 < held < 1.5 * counted  # the same empty text, and letter, is one object for all


@pytest.mark.parametrize(
    "text", ["x" * 300_000, "x" * 50_000 + "\U0001f600" + "x" * 50_000], ids=["narrow", "wide"]
)
@pytest.mark.parametrize("piece", [100, 60_000])
async def test_an_unfinished_message_counts_what_it_takes(text: str, piece: int) -> None:
    data = text.encode()
    rig = Rig()

    def receive() -> Inbox:
        nonlocal rig
        rig = Rig()
        for start in range(0, len(data), piece):
            opcode = Opcode.CONTINUATION if start else Opcode.TEXT
            rig.read(encode_frame(opcode, data[start : start + piece], fin=False, mask_key=KEY))
        return rig.inbox

    empty = bytes_held(lambda: Rig().inbox)
    held = bytes_held(receive) - empty
    assert rig.connection.held == rig.hub.budget.queued == rig.hub.budget.incoming
    assert held / 1.5 < rig.hub.budget.queued < held * 1.5
    rig.read(encode_frame(Opcode.CONTINUATION, b"", mask_key=KEY))
    assert await rig.take_all() == 1
    assert rig.hub.budget.queued == rig.hub.budget.incoming == 0


async def test_few_bytes_are_not_counted() -> None:
    rig = Rig()
    rig.read(SMALL * 10 + SMALL[:20])
    await settle()
    assert rig.inbox.unread_bytes > 0
    assert rig.hub.budget.queued == rig.hub.budget.incoming == 0
    rig.read(SMALL[20:] + SMALL * 40)
    await settle()
    assert (
        rig.hub.budget.queued == rig.inbox.unread_bytes == 3 * BATCH_COST + 51 * MESSAGE_COST + 50 * 38 + 32
    )
    assert await rig.take_all() == 51
    assert rig.hub.budget.queued == rig.hub.budget.incoming == 0


async def test_over_the_budget_what_is_unread_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rfc6455_server")
    rig = Rig(max_total_queue=500_000)
    frame = encode_frame(Opcode.BINARY, bytes(200_000), mask_key=KEY)
    rig.read(frame * 2 + frame[:150_000])
    await settle()
    assert rig.owner.slow == ["budget exceeded"]
    assert rig.hub.budget.queued == rig.hub.budget.incoming == rig.inbox.unread_bytes == 0
    assert not rig.inbox.messages
    assert 'reason="budget exceeded"' in caplog.text
    assert "messages=2" in caplog.text


async def test_what_is_unread_counts_until_its_handler_has_ended() -> None:
    rig = Rig()
    rig.read(encode_frame(Opcode.BINARY, bytes(100_000), mask_key=KEY) + SMALL[:20])
    rig.inbox.finish()
    rig.inbox.release()
    assert rig.hub.budget.queued > 100_000
    rig.inbox.stop_counting()
    assert rig.hub.budget.queued == rig.hub.budget.incoming == 0
    assert await rig.take_all() == 1
    assert rig.hub.budget.queued == rig.hub.budget.incoming == 0


# The time that a message may take.

UNFINISHED = encode_frame(Opcode.BINARY, bytes(1 << 20), mask_key=KEY)


async def test_a_message_that_does_not_go_on_arriving_ends_the_connection() -> None:
    rig = Rig(receive_timeout=60)
    rig.read(UNFINISHED[:500_000])
    await rig.clock.advance(60)  # 256 KiB were read when the time began, and the rest since then
    rig.read(UNFINISHED[500_000 : 500_000 + MIN_PROGRESS - 1000])
    await rig.clock.advance(59)
    assert rig.owner.slow == []
    await rig.clock.advance(1)
    assert rig.owner.slow == ["receive timeout"]


async def test_a_message_that_goes_on_arriving_may_take_any_time() -> None:
    rig = Rig(receive_timeout=60)
    rig.read(UNFINISHED[:50_000])
    await rig.clock.advance(30)
    for start in range(50_000, 1 << 20, 70_000):
        rig.read(UNFINISHED[start : start + 70_000])
        await rig.clock.advance(60)
    assert rig.owner.slow == []
    assert await rig.take_all() == 1


async def test_a_message_may_begin_just_before_the_check() -> None:
    rig = Rig(receive_timeout=60)
    rig.read(SMALL[:20])
    await rig.clock.advance(59)
    rig.read(SMALL[20:] + SMALL[:20])
    await settle()
    await rig.clock.advance(60)
    assert rig.owner.slow == []
    await rig.clock.advance(1)
    assert rig.owner.slow == ["receive timeout"]


async def test_nothing_is_checked_while_no_message_is_unfinished() -> None:
    rig = Rig(receive_timeout=60)
    rig.read(SMALL[:20])
    rig.read(SMALL[20:])
    await rig.clock.advance(3600)
    assert rig.owner.slow == []
    rig.read(SMALL[:20])
    rig.inbox.finish()
    await rig.clock.advance(3600)
    assert rig.owner.slow == []


async def test_a_client_that_is_held_back_need_not_finish_its_message() -> None:
    rig = Rig(receive_timeout=60)
    rig.read(encode_frame(Opcode.BINARY, bytes(400_000), mask_key=KEY) + SMALL[:20])
    assert rig.inbox.paused
    await rig.clock.advance(190)
    assert rig.owner.slow == []
    assert await rig.take_all() == 1
    await rig.clock.advance(100)
    assert rig.owner.slow == []
    await rig.clock.advance(20)
    assert rig.owner.slow == ["receive timeout"]


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
        assert server.stats.closes[1008, Cause.LIMIT.value] == 1


async def test_a_control_frame_behind_a_message_leaves_nothing_counted() -> None:
    """What the codec held when the message was returned is gone when the Ping behind it is answered."""
    clock = ManualClock()
    server = echo_server(clock=clock, receive_timeout=30)
    async with TestClient(server, clock) as client:
        ws = await client.connect("/echo")
        ws._connection.send_binary(bytes(30_000))
        wire = ws._connection.data_to_send()
        client.transports[0].write(wire[:20_000])
        await settle()  # the timer of an unfinished message runs
        ws._connection.send_binary(bytes(30_000))
        ws._connection.send_ping(b"")
        client.transports[0].write(wire[20_000:] + ws._connection.data_to_send())
        await settle()
        assert [len(await ws.recv()) for _ in range(2)] == [30_000, 30_000]
        assert server.incoming == 0
        await clock.advance(100)
        assert ws.closed is None


async def test_others_have_a_turn_while_a_large_message_is_inflated() -> None:
    """However often input arrives, one MiB is inflated in each turn."""
    compressor = zlib.compressobj(wbits=-15)
    payload = (compressor.compress(bytes(9 << 20)) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    rig = Rig(Connection(Role.SERVER, deflate=DeflateParameters(), max_message_size=16 << 20))
    rig.read(raw_frame(Role.SERVER, Opcode.BINARY, payload, rsv=4))
    for _ in range(3):
        rig.inbox.pull()  # as if more had arrived
    inflated = []
    while rig.connection.yielded:
        inflated.append(rig.connection._reader._message._inflated >> 20)
        assert rig.inbox.unread_bytes == 0
        await asyncio.sleep(0)
    assert inflated == [4, 5, 6, 7, 8, 9]
    assert rig.inbox.unread_bytes == sys.getsizeof(bytes(9 << 20)) + MESSAGE_COST + BATCH_COST


async def test_reading_stops_until_what_has_come_is_parsed() -> None:
    """What arrives between the turns of a read of tiny fragments would wait, and grow."""
    rig = Rig()
    first, fragment = (raw_frame(Role.SERVER, opcode, b"a", fin=False) for opcode in (Opcode.TEXT, 0))
    rig.read(first + fragment * 600)
    assert rig.reader.paused == [True]
    for _ in range(2):
        await asyncio.sleep(0)
    assert rig.reader.paused == [True, False, True, False]
    assert not rig.connection.unread
    rig.read(raw_frame(Role.SERVER, 0, b"a"))
    assert rig.inbox.unread_bytes > 602
    assert rig.reader.paused == [True, False, True, False]
