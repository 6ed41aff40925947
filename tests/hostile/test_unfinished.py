"""Messages that do not end, and messages that no handler takes."""

import asyncio
import gc
import tracemalloc

from rfc6455 import Opcode, encode_frame
from rfc6455_server import Cause, CloseReport, Server, WebSocket
from rfc6455_server.testing import ManualClock, MemoryTransport, TestClient, settle
from rfc6455_server.websocket.inbox import MAX_UNREAD
from tests.helpers import KEY
from tests.hostile.flaws import flaw

MIB = 1 << 20
UNFINISHED = encode_frame(Opcode.BINARY, bytes(MIB), mask_key=KEY)[:-1]


class Rig:
    """A server whose handlers wait until `handle` is set, and its reports."""

    def __init__(self, **limits: float) -> None:
        self.clock = ManualClock()
        self.server = Server(clock=self.clock, ping_interval=3600, **limits)  # type: ignore[arg-type]
        self.client = TestClient(self.server, self.clock)
        self.handle = asyncio.Event()
        self.reports: list[CloseReport] = []
        self.server.on_report(self.reports.append)

        @self.server.websocket("/")
        async def handler(ws: WebSocket) -> None:
            await self.handle.wait()
            async for _ in ws:
                pass

    async def connect(self) -> MemoryTransport:
        """Opens a WebSocket, whose client no longer reads, and returns its end of the connection."""
        await self.client.connect("/")
        transport = self.client.transports[-1]
        transport.pause_reading()
        return transport

    @property
    def causes(self) -> set[Cause]:
        return {report.cause for report in self.reports}


@flaw(
    "found here",
    what="200 clients send all of a message but its last byte: nothing bounded what they held, for any time",
    here="the bytes count against `max_total_queue`; over it, the clients for which most is held are ended",
)
async def test_unfinished_messages_are_bounded_together() -> None:
    total = 10 * MIB
    rig = Rig(max_total_queue=total)
    async with rig.client:
        for _ in range(40):
            await rig.connect()
        gc.collect()
        tracemalloc.start()
        for transport in rig.client.transports:
            transport.write(UNFINISHED)
            await settle()
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        counted = rig.server.incoming
        assert total - MIB - 10_000 < counted <= total
        assert held < 1.5 * counted
        assert len(rig.reports) == 40 - 9
        assert rig.causes == {Cause.BUDGET}


@flaw(
    "found here",
    what="sends a message as slowly as it likes, and holds what has arrived",
    here="64 KiB more must arrive within `receive_timeout`, or the end of the message; otherwise 1008",
)
async def test_an_unfinished_message_must_go_on_arriving() -> None:
    rig = Rig(receive_timeout=60)
    async with rig.client:
        still, trickling, steady = [await rig.connect() for _ in range(3)]
        still.write(UNFINISHED)
        trickling.write(UNFINISHED[:1000])
        steady.write(UNFINISHED[:1000])
        for start in range(1000, MIB - 80_000, 80_000):
            trickling.write(UNFINISHED[start : start + 1])
            steady.write(UNFINISHED[start : start + 80_000])
            await rig.clock.advance(59)
        assert [report.cause for report in rig.reports] == [Cause.RECEIVE_TIMEOUT] * 2
        assert [report.code_sent for report in rig.reports] == [1008] * 2
        assert 0.9 * MIB < rig.server.incoming < MIB
        await rig.clock.advance(120)
        assert [report.cause for report in rig.reports] == [Cause.RECEIVE_TIMEOUT] * 3
        assert rig.server.incoming == rig.server.queued == 0


@flaw(
    "found here",
    what="answers our Close with most of a message: it counted nowhere",
    here="it counts, and the close timeout ends it",
)
async def test_what_arrives_while_the_connection_closes_counts() -> None:
    rig = Rig(close_timeout=10)
    async with rig.client:
        transport = await rig.connect()
        (ws,) = rig.server.websockets
        ws.start_close()
        transport.write(UNFINISHED)
        await settle()
        assert rig.server.incoming > MIB - 1000
        await rig.clock.advance(11)
        assert rig.server.incoming == rig.server.queued == 0


@flaw(
    "found here",
    what="sends messages to a handler that is busy, leaves, and does it again",
    here="what is unread counts until its handler has ended; over `max_total_queue` it is dropped",
)
async def test_what_clients_that_have_left_sent_is_bounded() -> None:
    rig = Rig(max_total_queue=MIB)
    async with rig.client:
        for _ in range(20):
            transport = await rig.connect()
            transport.write(encode_frame(Opcode.BINARY, bytes(200_000), mask_key=KEY))
            await settle()
            transport.abort()
            await settle()
        assert len(rig.server.websockets) == 20  # their handlers still run
        assert MIB / 2 < rig.server.incoming <= MIB
        rig.handle.set()
        await settle()
        assert rig.server.incoming == rig.server.queued == 0


@flaw(
    "CVE-2026-123817",
    what="sends each tiny message in a packet of its own: each read leaves objects many times its size",
    here="they count for what they take, and reading stops",
)
async def test_one_tiny_message_a_read() -> None:
    rig = Rig()
    async with rig.client:
        transport = await rig.connect()
        frame = encode_frame(Opcode.TEXT, b"x", mask_key=KEY)
        gc.collect()
        tracemalloc.start()
        (ws,) = rig.server.websockets
        count = 0
        while not ws.reading_paused:
            transport.write(frame)
            await asyncio.sleep(0)
            count += 1
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert count > 200
        assert held < 1.5 * ws.unread_bytes < 1.5 * MAX_UNREAD + 2000
        assert rig.server.incoming == ws.unread_bytes
