"""Limits that are configured and not passed on

Each option that bounds something is set very low, on a whole server, and a client shows that it works.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import fields
from inspect import signature
from typing import Any, Final

import pytest

from rfc6455_server import HttpRequest, HttpResponse, Refusal, Server, WebSocket
from rfc6455_server.limits import FEW_ROOMS, Limits
from rfc6455_server.socketio import Socket, SocketIO
from rfc6455_server.socketio.options import EngineOptions
from rfc6455_server.socketio.packets import PacketOptions
from rfc6455_server.testing import ManualClock, TestClient, settle
from tests.hostile.flaws import flaw
from tests.server_helpers import Recorder, until
from tests.test_socketio_attacks import connect as connect_polling
from tests.test_socketio_attacks import polled, request, sessions
from tests.test_socketio_server import PATH, Client, Rig, rig

Show = Callable[["Site"], Awaitable[None]]


class Site:
    """A server with the options of a test, in memory: echo, rooms by name, and a handler that never reads."""

    def __init__(self, **limits: Any) -> None:
        self.clock = ManualClock()
        self.server = Server(clock=self.clock, **limits)
        self.test = TestClient(self.server, self.clock)

        @self.server.websocket("/echo")
        async def echo(ws: WebSocket) -> None:
            async for message in ws:
                await ws.send(message)

        @self.server.websocket("/join")
        async def join(ws: WebSocket) -> None:
            self.server.rooms["all"].join(ws)
            async for name in ws:
                self.server.rooms[str(name)].join(ws)

        @self.server.websocket("/deaf")
        async def deaf(ws: WebSocket) -> None:
            await ws.wait_closed()

        @self.server.authorize
        async def decide(request: Any) -> Refusal | None:
            if request.path == "/deaf" and "slow" in request.query:
                await asyncio.Event().wait()
            return None

    async def ended(self, ws: WebSocket) -> int:
        await until(lambda: ws.closed)
        assert ws.closed is not None
        return ws.closed.code

    async def stalled(self, count: int = 1) -> list[WebSocket]:
        """Returns members of the room "all" that read nothing."""
        members = []
        for _ in range(count):
            members.append(await self.test.connect("/join"))
            self.test.transports[-1].pause_reading()
        await until(lambda: len(self.server.rooms["all"]) == count)
        return members


# Limits of the server.

LOW: Final[dict[str, Any]] = {}
SHOWN: Final[dict[str, Show]] = {}


def shows(name: str, **low: Any) -> Callable[[Show], Show]:
    """Registers how an option of `Limits` shows that has this low value."""

    def register(show: Show) -> Show:
        LOW[name], SHOWN[name] = low, show
        return show

    return register


@shows("max_message_size", max_message_size=10)
async def _(site: Site) -> None:
    ws = await site.test.connect("/echo")
    await ws.send("x" * 10)
    assert await ws.recv() == "x" * 10
    await ws.send("x" * 11)
    assert await site.ended(ws) == 1009


@shows("max_queue", max_queue=1000, send_timeout=5)
async def _(site: Site) -> None:
    await site.stalled()
    site.server.rooms["all"].broadcast(bytes(200_000))
    site.server.rooms["all"].broadcast(bytes(2_000))
    await site.clock.advance(11)
    await until(lambda: not site.server.rooms["all"])


@shows("max_total_queue", max_total_queue=300_000)
async def _(site: Site) -> None:
    await site.stalled(2)
    for _ in range(5):
        site.server.rooms["all"].broadcast(bytes(100_000))
        await settle()
        assert site.server.queued <= 300_000
    assert not site.server.rooms["all"]


@shows("max_connections", max_connections=2)
async def _(site: Site) -> None:
    for number in range(2):
        await site.test.connect("/echo", address=f"192.0.2.{number}")
    with pytest.raises(ConnectionRefusedError, match="503"):
        await site.test.connect("/echo", address="192.0.2.9")


@shows("max_connections_per_address", max_connections_per_address=2)
async def _(site: Site) -> None:
    for _ in range(2):
        await site.test.connect("/echo")
    with pytest.raises(ConnectionRefusedError, match="429"):
        await site.test.connect("/echo")
    await site.test.connect("/echo", address="192.0.2.9")


@shows("join_rate", join_rate=1)
@shows("max_rooms", max_rooms=2)
async def _(site: Site) -> None:
    ws = await site.test.connect("/join")
    await ws.send("one")
    await until(lambda: "one" in site.server.rooms)
    await ws.send("two")
    assert await site.ended(ws) == 1008


@shows("max_total_rooms", max_total_rooms=1)
async def _(site: Site) -> None:
    ws = await site.test.connect("/join")
    for number in range(1, FEW_ROOMS):
        await ws.send(str(number))
    await until(lambda: len(site.server.rooms) == FEW_ROOMS)
    await ws.send("one more")
    assert await site.ended(ws) == 1008


@shows("max_room_name", max_room_name=5)
async def _(site: Site) -> None:
    ws = await site.test.connect("/join")
    await ws.send("12345")
    await until(lambda: "12345" in site.server.rooms)
    await ws.send("123456")
    assert await site.ended(ws) == 1008


@shows("message_rate", message_rate=2)
async def _(site: Site) -> None:
    ws = await site.test.connect("/echo")
    for _ in range(4):  # the burst
        await ws.send("x")
        await ws.recv()
    await ws.send("x")
    assert await site.ended(ws) == 1008


@shows("byte_rate", byte_rate=100)
async def _(site: Site) -> None:
    ws = await site.test.connect("/echo")
    await ws.send("x" * 150)
    await ws.recv()
    await ws.send("x" * 100)
    assert await site.ended(ws) == 1008


@shows("connection_rate", connection_rate=1)
async def _(site: Site) -> None:
    for _ in range(2):  # the burst
        await site.test.connect("/echo")
    with pytest.raises(ConnectionRefusedError, match="429"):
        await site.test.connect("/echo")
    await site.clock.advance(1)
    await site.test.connect("/echo")


@shows("handshake_timeout", handshake_timeout=2)
async def _(site: Site) -> None:
    recorders = []
    for head in (b"GET / HT", b"GET /deaf?slow HTTP/1.1\r\n" + UPGRADE):
        recorders.append(Recorder(site.clock))
        site.test.open(recorders[-1]).write(head)
    await site.clock.advance(1.9)
    assert [recorder.ended for recorder in recorders] == [None, None]
    await site.clock.advance(0.2)
    assert all(recorder.ended for recorder in recorders)


@shows("send_timeout", send_timeout=2, max_queue=1000)
async def _(site: Site) -> None:
    await site.stalled()
    for _ in range(3):
        site.server.rooms["all"].broadcast(bytes(100_000))
    await site.clock.advance(1.9)
    assert site.server.rooms["all"]
    await site.clock.advance(0.2)
    assert not site.server.rooms["all"]


@shows("close_timeout", close_timeout=2, ping_interval=3600)
async def _(site: Site) -> None:
    ws = await site.test.connect("/deaf")
    site.test.transports[-1].pause_reading()
    await settle()
    (ours,) = site.server.websockets
    ours.start_close()
    await site.clock.advance(1.9)
    assert not ours.lost
    await site.clock.advance(0.2)
    assert ours.lost
    assert ws.closed is None  # it was never told


@shows("ping_interval", ping_interval=2, ping_timeout=3600)
async def _(site: Site) -> None:
    await site.test.connect("/echo")
    (ours,) = site.server.websockets
    await site.clock.advance(1.5)
    assert ours.latency is None
    await site.clock.advance(3)
    assert ours.latency is not None


@shows("ping_timeout", ping_interval=2, ping_timeout=3)
async def _(site: Site) -> None:
    await site.test.connect("/echo")
    site.test.transports[-1].pause_reading()
    (ours,) = site.server.websockets
    await site.clock.advance(4.5)
    assert ours.closed is None
    await site.clock.advance(3)
    assert ours.closed is not None


@shows("receive_timeout", receive_timeout=2, ping_interval=3600)
async def _(site: Site) -> None:
    wire = site.test.open(Recorder(site.clock))
    wire.write(b"GET /echo HTTP/1.1\r\n" + UPGRADE)
    await settle()
    wire.write(b"\x82\xfe\xff\xff\0\0\0\0x")  # a message that does not go on
    await site.clock.advance(1.9)
    (ours,) = site.server.websockets
    await site.clock.advance(3)
    assert ours.closed is not None


@shows("answer_timeout", answer_timeout=2)
async def _(site: Site) -> None:
    @site.server.http("/never")
    async def never(_: HttpRequest) -> HttpResponse:
        await asyncio.Event().wait()
        raise AssertionError

    recorder = Recorder(site.clock)
    site.test.open(recorder).write(b"GET /never HTTP/1.1\r\nHost: test\r\n\r\n")
    await site.clock.advance(1.9)
    assert not recorder.received
    await site.clock.advance(0.2)
    assert recorder.received.startswith(b"HTTP/1.1 503 ")


UPGRADE: Final = (
    b"Host: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@flaw(
    "CVE-2026-44545",
    what="relies on a limit of the server that is configured and reaches nothing",
    here="each option of `Limits`, set low on a server, is seen by a client",
)
@pytest.mark.parametrize("name", [field.name for field in fields(Limits)])
async def test_each_limit_of_a_server(name: str) -> None:
    assert name in SHOWN, f"show here what {name} does"
    site = Site(**LOW[name])
    async with site.test:
        await SHOWN[name](site)


@flaw(
    "CVE-2026-44545",
    what="relies on a limit that holds for WebSockets, and not for what is mounted",
    here="a limit of the server holds for the sockets of Socket.IO, over both transports",
)
@pytest.mark.parametrize(
    "low",
    [
        {"max_rooms": 2},
        {"max_room_name": 5},
        {"join_rate": 1},
        {"message_rate": 1},
        {"max_connections": 1},
        {"max_connections_per_address": 1},
        {"connection_rate": 0.2},
        {"max_total_queue": 10_000},
    ],
    ids=str,
)
async def test_limits_of_the_server_hold_for_what_is_mounted(low: dict[str, Any]) -> None:
    async with socketio(low) as r:

        @r.io.on("join")
        def join(socket: Socket) -> None:
            socket.join("room-1")
            socket.join("room-2", "room-3")

        client = await r.client()
        (socket,) = r.io.sockets.values()
        (name,) = low
        if name.startswith(("max_connections", "connection")):
            with pytest.raises(ConnectionRefusedError):
                await r.client()
            r.test.transports[-1].abort()
            await settle()
            await r.clock.advance(5)
            for _ in range(3):
                with suppress(ConnectionRefusedError):
                    wire = r.test.open(Recorder(r.clock))
                    wire.write(f"GET {PATH}polling HTTP/1.1\r\nHost: test\r\n\r\n".encode())
                    await settle()
                    wire.abort()  # a session by polling needs no connection
                await r.clock.advance(1)
            assert len(sessions(r)) == 1
            return
        if name == "max_total_queue":
            r.test.transports[-1].pause_reading()
            for _ in range(30):
                socket.emit("x", "x" * 10_000)
                await settle()
                assert r.server.queued <= 10_000
        elif name == "message_rate":
            client.say(*['42["x"]'] * 5)
        else:
            client.say('42["join"]')
        await settle()
        assert r.io.sockets == {}


@asynccontextmanager
async def socketio(limits: dict[str, Any], **options: Any) -> AsyncIterator[Rig]:
    """A `Rig` whose server has limits."""
    r = Rig(**options)
    r.server = Server(clock=r.clock, **limits)
    io, r.io = r.io, SocketIO(**options)
    for event, handlers in io.of("/").handlers.by_event.items():
        for registered in handlers:
            r.io.on(event)(registered.handler)
    r.server.mount(r.io)
    r.test = TestClient(r.server, r.clock)
    async with r.test:
        yield r


# Options of Socket.IO.

ShowRig = Callable[[Rig], Awaitable[None]]
LOW_IN_SOCKETIO: Final[dict[str, dict[str, Any]]] = {}
SHOWN_IN_SOCKETIO: Final[dict[str, ShowRig]] = {}


def shows_in_socketio(name: str, **low: Any) -> Callable[[ShowRig], ShowRig]:
    """Registers how an option of `SocketIO` shows that has this low value."""

    def register(show: ShowRig) -> ShowRig:
        LOW_IN_SOCKETIO[name], SHOWN_IN_SOCKETIO[name] = low, show
        return show

    return register


async def is_ended_by(r: Rig, *messages: str | bytes) -> None:
    client = await r.client()
    client.say(*messages)
    assert await client.recv_all() == []
    assert r.handled == []


@shows_in_socketio("ping_interval", ping_interval=2)
async def _(r: Rig) -> None:
    client = await r.client()
    taking = asyncio.ensure_future(client.ws.recv())
    await r.clock.advance(1.9)
    assert not taking.done()
    await r.clock.advance(0.2)
    assert await taking == "2"


@shows_in_socketio("ping_timeout", ping_interval=2, ping_timeout=3)
async def _(r: Rig) -> None:
    await r.client()
    await r.clock.advance(4.9)
    assert r.reasons == []
    await r.clock.advance(0.2)
    assert r.reasons == ["ping timeout"]


@shows_in_socketio("upgrade_timeout", upgrade_timeout=2)
async def _(r: Rig) -> None:
    query, _, _ = await polled(r)
    probe = await r.test.connect(f"{PATH}websocket&{query.partition('&')[2]}")
    await r.clock.advance(1.9)
    assert probe.closed is None
    await r.clock.advance(0.2)
    assert [message async for message in probe] == []


@shows_in_socketio("connect_timeout", connect_timeout=2)
async def _(r: Rig) -> None:
    await r.test.connect(PATH + "websocket")
    await r.clock.advance(1.9)
    assert len(sessions(r)) == 1
    await r.clock.advance(0.2)
    assert sessions(r) == []


@shows_in_socketio("recovery", recovery=2)
async def _(r: Rig) -> None:
    await r.client()
    recovery = r.io.of("/").recovery
    assert recovery is not None
    r.test.transports[-1].abort()
    await settle()
    assert recovery.has_lost(r.clock.time() + 1.9)
    assert not recovery.has_lost(r.clock.time() + 2.1)


@shows_in_socketio("recovery_bytes", recovery=60, recovery_bytes=2_000)
async def _(r: Rig) -> None:
    recovery = r.io.of("/").recovery
    assert recovery is not None
    for number in range(10):
        r.io.emit("x", number)
    assert 0 < len(recovery._log) < 10
    assert recovery.size <= 2_000


@shows_in_socketio("max_payload", max_payload=1_000)
async def _(r: Rig) -> None:
    await is_ended_by(r, '42["x","' + "x" * 1_000 + '"]')
    query, transport, recorder = await polled(r)
    transport.write(request(query, "POST", "4" * 1_001))
    await settle()
    assert b"HTTP/1.1 413 " in recorder.received


@shows_in_socketio("http_compression", http_compression=50)
async def _(r: Rig) -> None:
    query, transport, recorder = await polled(r)
    await connect_polling(r, query, transport)
    for size, compressed in ((10, False), (100, True)):
        r.io.emit("x", "x" * size)
        recorder.received.clear()
        get = request(query).replace(b"\r\n\r\n", b"\r\nAccept-Encoding: gzip\r\n\r\n")
        transport.write(get)
        await until(lambda: b"\r\n\r\n" in recorder.received)
        assert (b"content-encoding: gzip" in recorder.received.lower()) is compressed


@shows_in_socketio("max_attachments", max_attachments=1)
async def _(r: Rig) -> None:
    places = ",".join(f'{{"_placeholder":true,"num":{number}}}' for number in range(2))
    await is_ended_by(r, f'452-["x",{places}]', b"x", b"y")


@shows_in_socketio("max_attachments_sent", max_attachments_sent=1)
async def _(r: Rig) -> None:
    r.io.emit("x", b"x")
    with pytest.raises(ValueError, match="more than 1 attachments"):
        r.io.emit("x", b"x", b"y")


@shows_in_socketio("max_nesting", max_nesting=2)
async def _(r: Rig) -> None:
    await is_ended_by(r, '42["x",[[]]]')


@shows_in_socketio("max_event_name", max_event_name=2)
async def _(r: Rig) -> None:
    await is_ended_by(r, '42["abc"]')


@shows_in_socketio("max_namespace_length", max_namespace_length=3)
async def _(r: Rig) -> None:
    await is_ended_by(r, "40/abc,")


@shows_in_socketio("max_packet_size", max_packet_size=1_000)
async def _(r: Rig) -> None:
    await is_ended_by(r, '451-["x",{"_placeholder":true,"num":0}]', b"x" * 1_000)


@shows_in_socketio("max_auth_size", max_auth_size=400)
async def _(r: Rig) -> None:
    for size, answer in ((10, '40{"sid"'), (400, '44{"message":"auth is too large"}')):
        client = await Client.open(r.test, auth={"token": "x" * size})
        assert (await client.recv()).startswith(answer)


def with_numbers() -> list[str]:
    """Returns the options of `SocketIO` whose values are numbers."""
    options = [field for kind in (EngineOptions, PacketOptions) for field in fields(kind)]
    named = [field.name for field in options if type(field.default) in (int, float)]
    own = [one.name for one in signature(SocketIO).parameters.values() if type(one.default) in (int, float)]
    return [*named, *own, "recovery"]


@flaw(
    "CVE-2026-44545",
    what="relies on a limit of Socket.IO that is configured and reaches nothing",
    here="each option that is a number, set low, is seen by a client",
)
@pytest.mark.parametrize("name", with_numbers())
async def test_each_limit_of_socketio(name: str) -> None:
    assert name in SHOWN_IN_SOCKETIO, f"show here what {name} does"
    async with rig(**LOW_IN_SOCKETIO[name]) as r:
        await SHOWN_IN_SOCKETIO[name](r)


@flaw(
    "CVE-2026-44545",
    what="relies on the limit of a dynamic namespace that is configured and reaches nothing",
    here="one more name than `max_children` is refused",
)
async def test_the_limit_of_a_dynamic_namespace() -> None:
    async with rig() as r:
        r.io.of("/shop-{id}", max_children=1)
        client = await Client.open(r.test, namespace="/shop-1")
        assert (await client.recv()).startswith("40/shop-1,")
        client.say("40/shop-2,")
        assert await client.recv() == '44/shop-2,{"message":"too many namespaces"}'
