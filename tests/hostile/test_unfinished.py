"""Messages that do not end, and messages that no handler takes."""

import asyncio

import pytest

from rfc6455 import ClientHandshake, Opcode, Request, encode_frame
from rfc6455_server import Cause, CloseReport, Server, WebSocket
from rfc6455_server.http.routes import HttpRequest, HttpResponse
from rfc6455_server.testing import ManualClock, MemoryTransport, TestClient, settle
from rfc6455_server.websocket.inbox import MAX_UNREAD
from tests.helpers import KEY, measured
from tests.hostile.flaws import flaw
from tests.server_helpers import Recorder

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
        with measured() as memory:
            for transport in rig.client.transports:
                transport.write(UNFINISHED)
                await settle()
            held = memory()
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
        with measured() as memory:
            (ws,) = rig.server.websockets
            count = 0
            while not ws.reading_paused:
                transport.write(frame)
                await asyncio.sleep(0)
                count += 1
            held = memory()
        assert count > 200
        assert held < 1.5 * ws.unread_bytes < 1.5 * MAX_UNREAD + 2000
        assert rig.server.incoming == ws.unread_bytes


def long_request(size: int, fields: int = 50) -> bytes:
    """Returns a request with a head of some ``size`` bytes."""
    added = [(f"X-{number}", "x" * (size // fields)) for number in range(fields)]
    return ClientHandshake("test", "/", headers=added).data_to_send()


@flaw(
    "found here",
    what="sends a large head, and then data, while the server decides",
    here="all of it counts against `max_total_queue` until the request is answered",
)
async def test_the_heads_of_requests_count() -> None:
    rig = Rig()
    deciding = asyncio.Event()

    @rig.server.authorize
    async def authorize(request: Request) -> None:
        await deciding.wait()

    async with rig.client:
        recorders = [Recorder(rig.clock) for _ in range(10)]
        transports = [rig.client.open(recorder) for recorder in recorders]
        await settle()
        with measured() as memory:
            for transport in transports:
                transport.write(long_request(12_000) + bytes(40_000))
            await settle()
            held = memory()
        assert rig.server.queued / 2 < held < 1.5 * rig.server.queued
        for transport in transports[1:]:
            transport.abort()
        await settle()
        assert 100_000 < rig.server.queued < 200_000
        deciding.set()
        await settle()
        assert recorders[0].received.startswith(b"HTTP/1.1 101 ")
        transports[0].abort()
        await settle()
        await rig.clock.advance(20)
        assert rig.server.queued == 0


@flaw(
    "found here",
    what="holds many connections open whose requests had large heads, which are kept",
    here="they count against `max_total_queue`; over it, the largest are ended",
)
async def test_the_heads_of_open_connections_are_bounded() -> None:
    rig = Rig(max_total_queue=200_000)
    async with rig.client:
        recorders = [Recorder(rig.clock) for _ in range(20)]
        for recorder in recorders:
            rig.client.open(recorder).write(long_request(12_000))
            await settle()
        assert 4 < len(rig.server.websockets) < 10
        assert sum(recorder.ended is not None for recorder in recorders) == 20 - len(rig.server.websockets)
        assert 100_000 < rig.server.queued <= 200_000


@flaw(
    "found here",
    what="sends a request while the server is over its budget",
    here="the largest is ended first, and it need not be the newest",
)
async def test_over_the_budget_a_request_that_is_not_answered_is_dropped() -> None:
    rig = Rig(max_total_queue=100_000)
    rig.server.authorize(lambda request: asyncio.Event().wait())
    async with rig.client:
        recorders = [Recorder(rig.clock) for _ in range(2)]
        for recorder, size in zip(recorders, (12_000, 8_000), strict=True):
            rig.client.open(recorder).write(long_request(size) + bytes(15_000))
            await settle()
        assert [recorder.ended is not None for recorder in recorders] == [True, False]
        assert 0 < rig.server.queued <= 100_000


@flaw(
    "found here",
    what="sends a request over HTTP with a large head, and its answer takes long",
    here="the head counts until the answer is read",
)
async def test_the_head_of_an_http_request_counts() -> None:
    rig = Rig()
    done = asyncio.Event()

    @rig.server.http("/slow")
    async def slow(request: HttpRequest) -> HttpResponse:
        await done.wait()
        return HttpResponse(b"done")

    async with rig.client:
        recorder = Recorder(rig.clock)
        fields = "".join(f"X-{number}: {'x' * 200}\r\n" for number in range(50))
        rig.client.open(recorder).write(f"GET /slow HTTP/1.1\r\nHost: test\r\n{fields}\r\n".encode())
        await settle()
        assert 20_000 < rig.server.queued < 30_000
        done.set()
        await settle()
        assert recorder.received.endswith(b"done")
        assert rig.server.queued == 0


@flaw(
    "found here",
    what="begins the header of a chunk, or trailers, and never ends them: 64 KiB were held and not counted",
    here="they count, and go at the latest with the deadline of the body",
)
@pytest.mark.parametrize("rest", [b"1;" + b"x" * 60_000, b"0\r\n" + b"X: y\r\n" * 10_000])
async def test_a_chunk_without_end_counts(rest: bytes) -> None:
    rig = Rig()

    @rig.server.http("/", "POST")
    async def answer(_: HttpRequest) -> HttpResponse:
        return HttpResponse(b"answered")

    async with rig.client:
        recorder = Recorder(rig.clock)
        transport = rig.client.open(recorder)
        transport.write(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        await settle()
        for start in range(0, len(rest), 10_000):
            transport.write(rest[start : start + 10_000])
            await settle()
        assert rig.server.queued >= 60_000
        assert rig.server.queued < len(rest) + 1000
        transport.write(b"\r\nx\r\n0\r\n\r\n" if rest.startswith(b"1") else b"\r\n")
        await settle()
        assert recorder.received.endswith(b"answered")
        assert rig.server.queued == 0
