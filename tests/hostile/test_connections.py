"""Connections: many, slow in pieces, or broken

An error in one connection never ends another; many reads and many connections leave nothing behind.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import pytest

from rfc6455 import ClientHandshake
from rfc6455_server import Server, WebSocket
from rfc6455_server.rooms import Member, Room
from rfc6455_server.socketio import Socket
from rfc6455_server.testing import ManualClock, TestClient, settle
from tests.helpers import measured
from tests.hostile.flaws import flaw
from tests.server_helpers import RawPeer, Recorder, serving, until
from tests.test_faults import room_server
from tests.test_socketio_attacks import connect as connect_polling
from tests.test_socketio_attacks import polled, request
from tests.test_socketio_server import PATH, Rig, rig

UPGRADE: Final = b"Host: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
KEY: Final = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
HANDSHAKE: Final = b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n" + UPGRADE + KEY


def masked(*octets: int) -> bytes:
    """Returns a frame header with a mask of zeros, and a payload."""
    first, second, *payload = octets
    return bytes([first, second | 0x80, 0, 0, 0, 0, *payload])


# What one peer sends, byte for byte, on a connection of its own.
BROKEN: Final[dict[str, bytes]] = {
    "RSV2 and RSV3": HANDSHAKE + masked(0xB1, 0),
    "RSV1": HANDSHAKE + masked(0xC1, 0),
    "a reserved opcode": HANDSHAKE + masked(0x83, 0),
    "a Close of one byte": HANDSHAKE + masked(0x88, 1, 3),
    "a Close with a bad code": HANDSHAKE + masked(0x88, 2, 0x03, 0xED),
    "a Close whose reason is no text": HANDSHAKE + masked(0x88, 3, 0x03, 0xE8, 0xFF),
    "no mask": HANDSHAKE + b"\x81\x01x",
    "bad UTF-8": HANDSHAKE + masked(0x81, 1, 0xFF),
    "2**63 bytes": HANDSHAKE + b"\x81\xff\x80" + bytes(11),
    "no upgrade": b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: test\r\n\r\n",
    "an upgrade to polling": HANDSHAKE.replace(b"=websocket HTTP", b"=polling HTTP"),
    "an unknown session": HANDSHAKE.replace(b"EIO=4", b"EIO=4&sid=__proto__"),
    "percent signs": HANDSHAKE.replace(b"EIO=4", b"EIO=%00%ff%zz&sid=%"),
    "another version": HANDSHAKE.replace(b"EIO=4", b"EIO=3"),
    "a method": b"BREW /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: test\r\n\r\n",
    "a path": b"GET /socket.io/%2e%2e/%00?EIO=4 HTTP/1.1\r\nHost: test\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "half a head": b"GET /socket.io/?EIO=4 HTTP/1.1\r\nHost: te",
    "a chunk without a length": (
        b"POST /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: test\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"
    ),
    "a length that is none": (
        b"POST /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: test\r\nContent-Length: -1\r\n\r\n"
    ),
}

# What one Socket.IO client sends, which makes something of the application raise.
RAISING: Final = ["raise", "raise in the ack", "join too much", "emit NaN", "loop", "cancel", "group"]


class Witness:
    """A client over each transport, which must go on as if nothing had happened."""

    def __init__(self, r: Rig) -> None:
        self._r = r
        self._count = 0

    async def begin(self) -> None:
        self._ws = await self._r.client()
        self._query, self._wire, self._recorder = await polled(self._r)
        self._wire.write(request(self._query, "POST", "40"))
        await settle()
        self._wire.write(request(self._query))
        await settle()
        self._recorder.received.clear()

    async def is_served(self) -> None:
        self._count += 1
        self._ws.say(f'421["echo",{self._count}]')
        assert await self._ws.recv() == f"431[{self._count}]"
        self._recorder.received.clear()
        self._wire.write(request(self._query, "POST", f'422["echo",{self._count}]'))
        self._wire.write(request(self._query))
        await until(lambda: f"432[{self._count}]".encode() in self._recorder.received)


def application(r: Rig) -> None:
    """Registers handlers and callbacks, most of which raise."""

    @r.io.on("echo")
    def echo(socket: Socket, number: int) -> int:
        return number

    @r.io.on("fail")
    async def fail(socket: Socket, how: str) -> Any:
        match how:
            case "raise":
                raise ZeroDivisionError
            case "raise in the ack":
                return {1: object()}
            case "join too much":
                socket.join(*map(str, range(2000)))
            case "emit NaN":
                r.io.emit("x", float("nan"))
            case "loop":
                nested: list[Any] = []
                nested.append(nested)
                r.io.emit("x", nested)
            case "cancel":
                raise asyncio.CancelledError
            case _:
                raise ExceptionGroup("several", [ValueError(), ZeroDivisionError()])
        return None

    @r.io.use
    def check(socket: Socket) -> None:
        if "fail" in socket.handshake.auth:
            raise ZeroDivisionError

    def fail_for_some(room: Room, member: Member) -> None:
        raise ZeroDivisionError

    r.io.rooms.on_join(fail_for_some)
    r.io.rooms.on_leave(fail_for_some)
    r.server.on_report(lambda report: 1 / 0)
    r.io.on_connection_error(lambda refused: 1 / 0)


@flaw(
    "CVE-2022-21676",
    "CVE-2022-41940",
    "CVE-2023-31125",
    what="sends a request or a frame that makes the server raise, and the process or the other clients end",
    here="ends its own connection; clients over both transports go on",
)
@pytest.mark.parametrize("data", BROKEN.values(), ids=list(BROKEN))
async def test_a_broken_connection_ends_alone(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with rig() as r:
        application(r)
        witness = Witness(r)
        await witness.begin()
        recorder = Recorder(r.clock)
        r.test.open(recorder).write(data)
        await settle()
        await witness.is_served()
        await r.clock.advance(15)
        await settle()
        assert recorder.ended is not None
        assert len(r.io.sockets) == 2
        errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
        assert {error.split(" id=")[0] for error in errors} <= {
            "a connection error callback failed",
            "a report callback failed",
        }


@flaw(
    "CVE-2024-38355",
    what="sends an event whose handler raises, and an exception that nobody catches ends the process",
    here="it is logged; the client stays, or it alone ends",
)
@pytest.mark.parametrize("how", RAISING)
async def test_a_handler_that_raises_ends_nobody_else(how: str) -> None:
    async with rig() as r:
        application(r)
        witness = Witness(r)
        await witness.begin()
        client = await r.client()
        client.say(f'421["fail","{how}"]', '42["fail"]', '42["fail",1,2,3]')
        await settle()
        await witness.is_served()
        refused = await r.test.connect(PATH + "websocket")
        refused._connection.send_text('40{"fail":1}')
        refused._outbox.flush()
        await settle()
        await witness.is_served()
        assert len(r.io.sockets) == (2 if how == "join too much" else 3)


@flaw(
    "CVE-2026-123817",
    what="sends a message, or a body, one byte in each packet, and the server keeps an object for each read",
    here="what has come of a message or a body is one buffer",
)
@pytest.mark.parametrize("kind", ["a message", "fragments", "a body", "a body in chunks"])
async def test_many_small_reads_are_one_buffer(kind: str) -> None:
    count = 10_000
    async with rig() as r:

        @r.server.websocket("/deaf")
        async def deaf(ws: WebSocket) -> None:
            await ws.wait_closed()

        receive: Callable[[bytes], None]
        if kind in ("a message", "fragments"):
            await r.test.connect("/deaf")
            (ours,) = r.server.websockets
            receive = ours.receive_data
            receive(bytes([0x02, 0xFE]) + count.to_bytes(2, "big") + bytes(4) if kind == "a message" else b"")
            piece = b"x" if kind == "a message" else bytes([0, 0x81, 0, 0, 0, 0]) + b"x"
            if kind == "fragments":
                receive(bytes([0x02, 0x80, 0, 0, 0, 0]))
        else:
            query, wire, _ = await polled(r)
            await connect_polling(r, query, wire)
            length = "Transfer-Encoding: chunked" if "chunks" in kind else f"Content-Length: {count * 2}"
            post = r.test.open(Recorder(r.clock))
            post.write(f"POST {PATH}{query} HTTP/1.1\r\nHost: test\r\n{length}\r\n\r\n".encode())
            await settle()
            assert r.server._listener is not None
            receive = list(r.server._listener._http.values())[-1].receive_data
            piece = b"1\r\nx\r\n" if "chunks" in kind else b"x"
        with measured() as held:
            for _ in range(count):
                for octet in piece:
                    receive(bytes([octet]))
            assert held() < count * 1.5 + 30_000


@flaw(
    "CVE-2026-48802",
    what="opens and drops WebSockets without end",
    here="nothing is left of them; `connection_rate` refuses an address that does it too fast",
)
@pytest.mark.parametrize("how", ["reset", "vanish", "close", "refused", "no request"])
async def test_a_flood_of_connections_leaves_nothing(how: str) -> None:
    clock = ManualClock()
    server = Server(clock=clock)
    joined = 0

    @server.websocket("/")
    async def join(ws: WebSocket) -> None:
        nonlocal joined
        joined += 1
        server.rooms[f"room-{joined}"].join(ws)
        async for _ in ws:
            pass

    test = TestClient(server, clock)

    async def come_and_go() -> None:
        wire = test.open(Recorder(clock))
        if how == "no request":
            wire.write(b"GET / HT")
        else:
            wire.write(b"GET /" + (b"no" if how == "refused" else b"") + b" HTTP/1.1\r\n" + UPGRADE + KEY)
        await settle()
        match how:
            case "vanish":
                wire.vanish()
            case "close":
                wire.write(masked(0x88, 2, 0x03, 0xE8))
            case _:
                wire.abort()
        await clock.advance(50)  # the time for an answer to the Ping
        test.transports.clear()

    async with test:
        for _ in range(5):
            await come_and_go()
        with measured() as held:
            for _ in range(60):
                await come_and_go()
            assert held() < 30_000
        assert (joined, list(server.rooms)) == (0 if how in ("refused", "no request") else 65, [])
        assert server.make_ready().connections == server.stats.memberships == server.queued == 0
        assert len(server.make_ready()._addresses) == len(server.make_ready()._openings) == 0


@flaw(
    "CVE-2026-48802",
    what="reconnects faster than a client has a reason to",
    here="429 above `connection_rate`, a second and by address",
)
async def test_a_peer_that_reconnects_too_fast_is_refused() -> None:
    clock = ManualClock()
    server = room_server(clock=clock, connection_rate=10)
    async with serving(server) as url:
        statuses = []
        for number in range(60):
            if number == 50:
                await clock.advance(0.5)
            peer = await RawPeer.connect(url)
            peer.writer.write(ClientHandshake("h", "/").data_to_send())
            head = await peer.reader.readline()
            statuses.append(int(head.split()[1]))
            peer.writer.transport.abort()
        assert statuses == [101] * 20 + [429] * 30 + [101] * 5 + [429] * 5
        await until(lambda: not server.websockets)
        assert len(server.rooms) == 0
