"""The Socket.IO server, with clients that send exactly the packets of a test."""

import asyncio
import gc
import json
import logging
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Annotated, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rfc6455 import LocalProtocolError, PreparedMessage, Request
from rfc6455_server import (
    ConnectionClosedError,
    HandshakeRejectedError,
    Refusal,
    Server,
    WebSocket,
    bearer_token,
    coalesce,
    connect,
)
from rfc6455_server.socketio import (
    AckTimeoutError,
    AsIs,
    ConnectError,
    DisconnectedError,
    Socket,
    SocketIO,
)
from rfc6455_server.socketio.encoded import EncodedPacket
from rfc6455_server.socketio.session import Session
from rfc6455_server.testing import ManualClock, TestClient, settle
from tests.server_helpers import Certificate, RawPeer, all_closed, serving, until
from tests.test_http import Answer, read_answer

PATH = "/socket.io/?EIO=4&transport="


class Client:
    """A Socket.IO client over a WebSocket in memory. By itself, it only answers pings."""

    def __init__(self, ws: WebSocket) -> None:
        self.ws = ws

    @classmethod
    async def open(cls, test: TestClient, *, auth: object = None, namespace: str = "/") -> "Client":
        client = cls(await test.connect(PATH + "websocket"))
        assert (await client.recv()).startswith('0{"sid":')
        client.say("40" + (namespace + "," if namespace != "/" else "") + (json.dumps(auth) if auth else ""))
        return client

    def say(self, *messages: str | bytes) -> None:
        for message in messages:
            if isinstance(message, str):
                self.ws._connection.send_text(message)
            else:
                self.ws._connection.send_binary(message)
        self.ws._outbox.flush()

    async def recv(self) -> Any:
        while (message := await self.ws.recv()) == "2":
            self.say("3")
        return message

    async def event(self) -> Any:
        message = await self.recv()
        assert message[:2] == "42", message
        return json.loads(message[2:])

    async def recv_all(self) -> list[Any]:
        """Returns the messages until the end of the connection."""
        return [message async for message in self.ws if message != "2"]


class Rig:
    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock()
        self.io = SocketIO(**options)
        self.server = Server(clock=self.clock)
        self.server.mount(self.io)
        self.test = TestClient(self.server, self.clock)
        self.handled: list[Any] = []
        self.reasons: list[str] = []

        @self.io.on_any
        async def note(socket: Socket, event: str, *args: Any) -> None:
            self.handled.append([event, *args])

        @self.io.on("disconnect")
        async def gone(socket: Socket, reason: str) -> None:
            self.reasons.append(reason)

    async def client(self, **options: Any) -> Client:
        client = await Client.open(self.test, **options)
        answer = await client.recv()
        assert answer.startswith('40{"sid":"'), answer
        return client


@asynccontextmanager
async def rig(**options: Any) -> AsyncIterator[Rig]:
    made = Rig(**options)
    async with made.test:
        yield made


# Violations: the connection ends at once, and no handler runs.

MALFORMED: dict[str, tuple[str | bytes, ...]] = {
    "an unknown packet type": ("47[]",),
    "an unknown Engine.IO type": ("9",),
    "no type": ("",),
    "bad JSON": ('42["event",',),
    "data after the JSON": ('42["event"]x',),
    "NaN": ('42["event",NaN]',),
    "a bool as the name": ("42[true]",),
    "no name": ("42[]",),
    "no data": ("42",),
    "an object as the data": ('42{"event":1}',),
    "fewer attachments than announced": ('452-["event",{"_placeholder":true,"num":0}]', b"x"),
    "more attachments than placeholders": ('452-["event",{"_placeholder":true,"num":0}]', b"x", b"y"),
    "no attachments announced": ('450-["event",{"_placeholder":true,"num":0}]',),
    "a placeholder twice": (
        '452-["event",{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]',
        b"x",
        b"y",
    ),
    "too many attachments": (
        "45101-" + json.dumps(["event", *({"_placeholder": True, "num": i} for i in range(101))]),
        *([b"x"] * 101),
    ),
    "text instead of an attachment": ('451-["event",{"_placeholder":true,"num":0}]', '42["event"]'),
    "unannounced bytes": (b"x",),
    **{
        f"the reserved name {name}": (f'42["{name}"]',)
        for name in (
            "connect",
            "connect_error",
            "disconnect",
            "disconnecting",
            "newListener",
            "removeListener",
        )
    },
    "a ping from the client": ("2",),
    "a probe outside the upgrade": ("2probe",),
    "a pong without a ping": ("3",),
    "an opening from the client": ('0{"sid":"x"}',),
    "a noop from the client": ("6",),
    "an upgrade of a WebSocket": ("5",),
    "a CONNECT_ERROR from the client": ('44{"message":"x"}',),
    "an acknowledgement without an id": ("43[]",),
    "a namespace without its slash": ('42x,["event"]',),
    "100,000 levels of nesting": ("42" + "[" * 100_000,),
    "nesting over the limit": ('42["event",' + "[" * 300 + "]" * 300 + "]",),
    "a name that is too long": ('42["' + "x" * 70_000 + '"]',),
    "a namespace that is too long": ("40/" + "x" * 5000 + ",",),
    "an id that is too large": ('4299999999999999999999["event"]',),
}


@pytest.mark.parametrize("messages", list(MALFORMED.values()), ids=list(MALFORMED))
async def test_a_malformed_packet_ends_the_connection_and_reaches_no_handler(
    messages: tuple[str | bytes, ...],
) -> None:
    async with rig() as r:
        client, other = await r.client(), await r.client()
        client.say(*messages)
        if messages[-1:] == (b"x",) and len(messages) == 2:
            client.say('42["never"]')  # an attachment is expected instead
        await client.recv_all()
        assert client.ws.closed is not None
        assert client.ws.closed.code == 1002
        await settle()
        assert r.handled == []
        assert r.reasons == ["parse error"]
        other.say('42["fine"]')
        await settle()
        assert r.handled == [["fine"]]


async def test_a_second_connect_is_ignored() -> None:
    async with rig() as r:
        client = await r.client()
        client.say("40", '42["event"]', "40")
        await settle()
        assert r.handled == [["event"]]
        assert len(r.io.sockets) == 1
        client.say('421["event"]', "1")
        await client.recv_all()


async def test_a_lone_surrogate_is_sent_over_both_transports() -> None:
    escaped = r'42["half","\ud83d"]'
    async with rig() as r:
        members = [await r.client(), await r.client()]
        r.io.emit("half", "\ud83d")
        assert [await member.recv() for member in members] == [escaped, escaped]
    async with polling() as (url, io, _):
        query = await opened(url)
        io.emit("half", "\ud83d")
        assert (await ask(url, query)).body == escaped.encode()


async def test_the_limits_of_packets_are_options() -> None:
    cases: list[tuple[dict[str, int], tuple[str | bytes, ...]]] = [
        ({"max_nesting": 2}, ('42["event",[[]]]',)),
        ({"max_event_name": 4}, ('42["event"]',)),
        ({"max_namespace_length": 3}, ("40/abc,",)),
        (
            {"max_attachments": 1},
            ('452-["event",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]',),
        ),
        ({"max_packet_size": 1000}, ('451-["event",{"_placeholder":true,"num":0}]', b"x" * 1000)),
    ]
    for options, messages in cases:
        async with rig(**options) as r:
            client = await r.client()
            client.say(*messages)
            await client.recv_all()
            await settle()
            assert r.reasons == ["parse error"]
            assert r.handled == []
    async with rig(max_attachments_sent=11) as r:
        client = await r.client()
        r.io.emit("many", *[b"x"] * 11)
        assert (await client.recv()).startswith('4511-["many",')


async def test_json_can_be_encoded_and_decoded_by_the_application() -> None:
    def encode(value: Any) -> bytes:
        return json.dumps(value, default=str, separators=(",", ":")).encode()

    def decode(text: str) -> Any:
        return json.loads(text, parse_float=Decimal)

    async with rig(json_encoder=encode, json_decoder=decode) as r:

        @r.io.on("add")
        async def add(socket: Socket, number: Annotated[Decimal, AsIs]) -> Annotated[Decimal, AsIs]:
            return number + Decimal("0.2")

        client = await r.client()
        client.say('421["add",0.1]')
        assert await client.recv() == '431["0.3"]'
        r.io.emit("all", Decimal("1.10"), b"x")
        assert await client.recv() == '451-["all","1.10",{"_placeholder":true,"num":0}]'
        assert await client.recv() == b"x"


async def test_a_message_that_is_too_large_is_1009() -> None:
    async with rig(max_payload=1000) as r:
        client = await r.client()
        client.say('42["event","' + "x" * 1000 + '"]')
        await client.recv_all()
        assert client.ws.closed is not None
        assert r.handled == []


async def test_an_event_before_connect_ends_the_connection() -> None:
    async with rig() as r:
        ws = await r.test.connect(PATH + "websocket")
        client = Client(ws)
        await client.recv()
        client.say('42["event"]')
        await client.recv_all()
        await settle()
        assert r.handled == []
        assert r.io.sockets == {}


async def test_a_client_that_does_not_connect_in_time_is_disconnected() -> None:
    async with rig(connect_timeout=45) as r:
        ws = await r.test.connect(PATH + "websocket")
        client = Client(ws)

        async def answer_pings() -> list[Any]:
            return [await client.recv() for _ in range(100)]

        answering = asyncio.create_task(answer_pings())
        await r.clock.advance(44)
        assert ws.closed is None
        await r.clock.advance(2)
        assert ws.closed is not None
        with pytest.raises(ConnectionClosedError):
            await answering
        assert r.io._transports is not None
        assert r.io._transports.sessions == {}


async def test_a_refused_client_that_stays_is_not_said_to_have_sent_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with rig() as r:

        @r.io.use
        def refuse(socket: Socket) -> None:
            raise ConnectError("no")

        client = await Client.open(r.test)
        assert await client.recv() == '44{"message":"no"}'
        with caplog.at_level(logging.INFO):
            await r.clock.advance(10)
        assert await client.recv_all() == []
        assert "refused client did not leave in time" in caplog.text
        assert "no CONNECT" not in caplog.text


@pytest.mark.parametrize("ended_by", ["the server", "the client", "a lost connection"])
async def test_the_log_names_the_connection_of_a_session(
    ended_by: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with rig() as r:
        client = await r.client()
        match ended_by:
            case "the server":
                r.io.disconnect_sockets(close=True)
            case "the client":
                client.say("1")
            case _:
                r.test.transports[-1].abort()
        await client.recv_all()
        await settle()
        lines = [record.__dict__["fields"] for record in caplog.records if "closed" in record.getMessage()]
        assert len(lines) == 2
        (session,) = [line for line in lines if "connection" in line]
        (connection,) = [line for line in lines if "id" in line]
        assert session["connection"] == connection["id"]


async def test_a_client_that_sends_no_pong_in_time_is_disconnected() -> None:
    async with rig(ping_interval=25, ping_timeout=20) as r:
        client = await r.client()
        await r.clock.advance(44.9)
        assert r.reasons == []
        await r.clock.advance(0.2)
        assert r.reasons == ["ping timeout"]
        assert client.ws.closed is not None


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.text(max_size=40),
            st.binary(max_size=10),
            st.sampled_from([message for messages in MALFORMED.values() for message in messages]),
            st.sampled_from(
                ['42["event",1]', '421["event"]', '451-["e",{"_placeholder":true,"num":0}]', "41"]
            ),
        ),
        max_size=8,
    )
)
def test_any_messages_are_handled_or_end_the_connection(messages: list[str | bytes]) -> None:
    async def run() -> None:
        problems: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        async with rig() as r:
            client, other = await r.client(), await r.client()
            client.say(*messages)
            await settle()
            other.say('42["fine"]')
            await settle()
            assert r.handled[-1] == ["fine"]
            assert problems == []

    asyncio.run(run())


# Events, rooms, acknowledgements.


async def test_events_are_handled_in_order_except_concurrent_ones() -> None:
    async with rig() as r:
        order: list[Any] = []
        go = asyncio.Event()

        @r.io.on("slow")
        async def slow(socket: Socket, n: int) -> None:
            await go.wait()
            order.append(n)

        @r.io.on("beside", concurrent=True)
        async def beside(socket: Socket) -> str:
            order.append("beside")
            return "at once"

        @r.io.on("plain")
        def plain(socket: Socket) -> None:
            order.append("plain")

        client = await r.client()
        client.say('42["slow",1]', '42["slow",2]', '42["plain"]', '427["beside"]')
        assert await client.recv() == '437["at once"]'
        assert order == ["beside"]
        go.set()
        await settle()
        assert order == ["beside", 1, 2, "plain"]


async def test_an_acknowledgement_arrives_while_a_handler_waits_for_it() -> None:
    async with rig() as r:

        @r.io.on("question")
        async def question(socket: Socket) -> Any:
            return await socket.emit_with_ack("which?"), await socket.emit_with_ack("and?")

        client = await r.client()
        client.say('420["question"]')
        first = await client.recv()
        assert first == '421["which?"]'
        client.say('431["this",1]')
        assert await client.recv() == '422["and?"]'
        client.say("432[]")
        assert await client.recv() == '430[["this",1],null]'
        client.say("4399[]")  # ignored: it may be the answer to a call that timed out
        client.say('421["question"]')
        assert (await client.recv()).startswith("423")


async def test_missing_acknowledgements_raise() -> None:
    async with rig() as r:
        client = await r.client()
        (socket,) = r.io.sockets.values()
        waiting = asyncio.create_task(socket.timeout(10).emit_with_ack("x"))
        await r.clock.advance(9.9)
        assert not waiting.done()
        await r.clock.advance(0.2)
        with pytest.raises(AckTimeoutError):
            await waiting
        waiting = asyncio.create_task(socket.emit_with_ack("x"))
        await settle()
        await client.ws.close()
        with pytest.raises(DisconnectedError) as caught:
            await waiting
        assert caught.value.reason == "transport close"
        with pytest.raises(DisconnectedError):
            await socket.emit_with_ack("x")


async def test_broadcasts_with_acknowledgements() -> None:
    async with rig() as r:
        clients = [await r.client() for _ in range(3)]
        for socket in r.io.fetch_sockets()[:2]:
            socket.join("room")
        asking = asyncio.create_task(r.io.to("room").timeout(10).emit_with_ack("x", 1))
        for client in clients[:2]:
            packet = await client.recv()
            assert packet == '421["x",1]'
        clients[0].say("431[10]")
        clients[2].say("431[30]")  # it did not receive the event
        await r.clock.advance(9.9)
        assert not asking.done()
        await r.clock.advance(0.2)
        with pytest.raises(AckTimeoutError) as caught:
            await asking
        assert caught.value.responses == [10]
        asking = asyncio.create_task(r.io.emit_with_ack("y"))
        for n, client in enumerate(clients):
            assert await client.recv() == '422["y"]'
            client.say(f"432[{n}]")
        assert sorted(await asking) == [0, 1, 2]
        assert await r.io.to("nobody").emit_with_ack("z") == []


async def test_which_sockets_receive_an_event() -> None:
    async with rig() as r:
        clients = [await r.client() for _ in range(4)]
        a, b, c, d = r.io.fetch_sockets()
        for socket in (a, b, c):
            socket.join("one")
        for socket in (c, d):
            socket.join("two", "three")
        assert a.rooms == {a.id, "one"}
        assert c.rooms == {c.id, "one", "two", "three"}

        async def heard(act: Callable[[], None]) -> str:
            """Returns the names of the clients that receive the event; none may receive it twice."""
            act()
            r.io.emit("end")
            who = ""
            for name, client in zip("abcd", clients, strict=True):
                events = []
                while (event := await client.event()) != ["end"]:
                    events.append(event)
                assert len(events) <= 1
                who += name * len(events)
            return who

        assert await heard(lambda: r.io.emit("x")) == "abcd"
        assert await heard(lambda: r.io.to("one").emit("x")) == "abc"
        assert await heard(lambda: r.io.to("one", "two").emit("x")) == "abcd"
        assert await heard(lambda: r.io.in_("one").to("two").except_("three").emit("x")) == "ab"
        assert await heard(lambda: r.io.except_("one").emit("x")) == "d"
        assert await heard(lambda: r.io.to(b.id).emit("x")) == "b"
        assert await heard(lambda: r.io.to("one").except_(a.id).emit("x")) == "bc"
        assert await heard(lambda: a.emit("x")) == "a"
        assert await heard(lambda: a.to("one").emit("x")) == "bc"
        assert await heard(lambda: a.broadcast.emit("x")) == "bcd"
        assert await heard(lambda: a.except_("two").emit("x")) == "b"
        assert await heard(lambda: r.io.volatile.emit("x")) == "abcd"
        assert await heard(lambda: r.io.to("nobody").emit("x")) == ""
        c.leave("one")
        assert await heard(lambda: r.io.to("one").emit("x")) == "ab"
        assert r.io.to("two").fetch_sockets() == [c, d]
        r.io.to("two").sockets_leave("three")
        r.io.to("two").sockets_join("four")
        assert r.io.to("four").fetch_sockets() == [c, d]
        assert "three" not in r.io.rooms
        r.io.to("two").disconnect_sockets()
        assert [await client.recv() for client in clients[2:]] == ["41", "41"]
        assert set(r.io.sockets) == {a.id, b.id}
        assert sorted(r.io.rooms) == ["one"]


@pytest.mark.parametrize("name", ["/", "/x"])
async def test_io_and_a_namespace_have_what_everybody_has(name: str) -> None:
    async with rig() as r:
        namespace = r.io.of(name)
        sender = r.io if name == "/" else namespace
        for _ in range(2):
            client = await Client.open(r.test, namespace=name)
            await client.recv()
        sender.sockets_join("one", "two")
        assert {len(namespace.rooms[room]) for room in ("one", "two")} == {2}
        sender.sockets_leave("one")
        assert [len(namespace.rooms[room]) for room in ("one", "two")] == [0, 2]
        assert sender.with_policy("drop_newest") == sender.everybody().with_policy("drop_newest")
        with pytest.raises(ValueError, match="not a policy"):
            sender.with_policy("whatever")  # type: ignore[arg-type]


async def test_a_socketio_room_has_policies_and_counters() -> None:
    async with rig() as r:
        clients = [await r.client() for _ in range(2)]
        a, b = r.io.fetch_sockets()
        a.join("room")
        b.join("room")
        before = r.server.stats.messages_out
        r.io.to("room").emit("x")
        assert r.server.stats.messages_out == before + 2
        assert r.server._gauges()["rooms"][1] == 1
        r.test.transports[0].pause_reading()
        big = "x" * 100_000
        r.io.to("room").emit("fill", big)
        r.io.to("room").emit("fill", big)
        await settle()
        r.io.to("room").volatile.emit("missed")
        r.io.to("room").with_policy("drop_oldest").emit("late")
        await settle()
        r.test.transports[0].resume_reading()
        heard = [(await clients[0].event())[0] for _ in range(4)]
        assert heard == ["x", "fill", "fill", "late"]
        heard = [(await clients[1].event())[0] for _ in range(5)]
        assert heard == ["x", "fill", "fill", "missed", "late"]
        assert r.server.stats.dropped == {"volatile": 1}
        with pytest.raises(ValueError, match="policy"):
            r.io.to("room").with_policy("whatever")  # type: ignore[arg-type]


async def test_a_room_sends_only_packets() -> None:
    async with rig() as r:
        client = await r.client()
        (socket,) = r.io.fetch_sockets()
        socket.join("room")
        before = r.server.stats.messages_out
        for message in ("hi", b"hi", PreparedMessage('42["x"]')):
            with pytest.raises(LocalProtocolError, match=r"io\.to\(name\)\.emit") as raised:
                r.io.rooms["room"].broadcast(message)
            assert raised.value.slug == "raw-message"
        assert r.server.stats.messages_out == before
        r.io.rooms["room"].broadcast(EncodedPacket(['2["x"]']))
        assert await client.event() == ["x"]


async def test_the_policy_of_a_room_applies_to_every_way_of_sending_to_it() -> None:
    async with rig() as r:
        slow, quick = await r.client(), await r.client()
        one, other = r.io.fetch_sockets()
        one.join("chat-1", "pos", "plain")
        other.join("chat-1", "pos")
        r.io.rooms.policies["chat-*"] = "volatile"
        r.io.rooms["pos"].policy = coalesce(lambda message: str(message)[:10])
        assert r.io.rooms["chat-1"].policy == "volatile"
        r.test.transports[0].pause_reading()
        for _ in range(2):
            r.io.emit("fill", "x" * 100_000)
        await settle()
        r.io.to("chat-1").emit("dropped")
        other.to("chat-1").emit("dropped")
        r.io.to("chat-1", "nobody").except_("nowhere").emit("dropped")
        assert r.server.stats.dropped == {"volatile": 3}
        r.io.to("pos").emit("moved", 1)
        other.to("pos").emit("moved", 2)
        r.io.to("pos", "quiet").emit("moved", 3)
        r.io.to("pos").emit("turned", 4)
        assert r.server.stats.dropped == {"volatile": 3, "coalesce": 2}
        r.io.to("chat-1").with_policy("disconnect").emit("kept")
        r.io.to("plain", "pos").with_policy("drop_oldest").emit("once")
        await settle()
        r.test.transports[0].resume_reading()
        heard = [await slow.event() for _ in range(6)]
        assert heard[2:] == [["moved", 3], ["turned", 4], ["kept"], ["once"]]
        heard = [await quick.event() for _ in range(9)]
        assert heard[2:] == [
            ["dropped"],
            ["dropped"],
            ["moved", 1],
            ["moved", 3],
            ["turned", 4],
            ["kept"],
            ["once"],
        ]
        with pytest.raises(ValueError, match="policy"):
            r.io.rooms["pos"].policy = "whatever"  # type: ignore[assignment]


async def test_a_key_function_is_called_for_each_event_to_any_target() -> None:
    async with rig() as r:
        client = await r.client()
        (socket,) = r.io.fetch_sockets()
        r.test.transports[0].pause_reading()
        for _ in range(2):
            r.io.emit("fill", "x" * 100_000)
        await settle()
        by_name = coalesce(lambda message: str(message)[:8])
        for price in range(3):
            r.io.volatile.with_policy(by_name).emit("acme", price)
            r.io.to(socket.id).with_policy(by_name).emit("nova", price)
        await settle()
        r.test.transports[0].resume_reading()
        assert [await client.event() for _ in range(4)][2:] == [["acme", 2], ["nova", 2]]


async def test_recovery_keeps_no_event_that_a_policy_may_drop() -> None:
    async with rig(recovery=60) as r:
        await r.client()
        (socket,) = r.io.fetch_sockets()
        socket.join("pos", "chat")
        r.io.rooms.policies["*"] = "disconnect"
        r.io.rooms["pos"].policy = "drop_oldest"
        recovery = r.io.of("/").recovery
        assert recovery is not None
        r.io.to("pos").emit("x")
        r.io.to("pos", "chat").emit("x")
        r.io.to("chat").volatile.emit("x")
        assert recovery.position == recovery.size == 0
        r.io.to("chat").emit("x")
        assert recovery.position == 1
        r.io.rooms.policies["*"] = "drop_oldest"  # it applies to rooms, not to a socket's own id
        socket.emit("x")
        r.io.emit("x")
        assert recovery.position == 3


async def test_drain_waits_until_the_queue_is_written() -> None:
    async with rig() as r:
        await r.client()
        (socket,) = r.io.fetch_sockets()
        r.test.transports[0].pause_reading()
        for _ in range(3):
            socket.emit("x", "x" * 100_000)
        draining = asyncio.create_task(socket.drain())
        await settle()
        assert not draining.done()
        r.test.transports[0].resume_reading()
        await settle()
        assert draining.done()
        r.test.transports[0].pause_reading()
        for _ in range(3):
            socket.emit("x", "x" * 100_000)
        draining = asyncio.create_task(socket.drain())
        await settle()
        r.test.transports[0].abort()
        await draining  # returns, because the connection is gone


async def test_namespaces_are_separate() -> None:
    async with rig() as r:
        admin = r.io.of("/admin")
        assert r.io.of("/admin") is admin
        seen: list[tuple[str, Any]] = []

        @admin.on("x")
        async def handler(socket: Socket, value: Any) -> None:
            seen.append((socket.namespace.name, value))

        client = await r.client()
        client.say("40/admin,")
        assert (await client.recv()).startswith('40/admin,{"sid":"')
        client.say('42/admin,["x",1]', '42["x",2]')
        await settle()
        assert seen == [("/admin", 1)]
        assert r.handled == [["x", 2]]
        (inside,) = admin.fetch_sockets()
        inside.join("room")
        assert "room" not in r.io.rooms
        admin.to("room").emit("hello")
        assert await client.recv() == '42/admin,["hello"]'
        client.say("41/admin,")
        await settle()
        assert admin.sockets == {}
        assert len(r.io.sockets) == 1
        client.say('42/admin,["x",3]')  # ignored: it may have crossed the DISCONNECT
        await settle()
        assert seen == [("/admin", 1)]
        client.say("40/none,")
        assert await client.recv() == '44/none,{"message":"Invalid namespace"}'
        with pytest.raises(ValueError, match="slash"):
            r.io.of("admin")


async def test_a_client_is_refused_in_more_namespaces_than_one_may_have() -> None:
    async with rig() as r:
        for number in range(64):
            r.io.of(f"/{number}")
        client = await r.client()
        client.say(*(f"40/{number}," for number in range(64)))
        for number in range(63):
            assert (await client.recv()).startswith(f'40/{number},{{"sid":')
        assert await client.recv() == '44/63,{"message":"too many namespaces"}'
        client.say("41/7,")
        client.say("40/63,")
        assert (await client.recv()).startswith('40/63,{"sid":')
        assert r.reasons == []


async def test_middlewares_may_refuse_and_connect_runs_before_events() -> None:
    async with rig() as r:
        order: list[str] = []

        @r.io.use
        async def first(socket: Socket) -> None:
            order.append("first")
            await asyncio.sleep(0)
            match socket.handshake.auth.get("name"):
                case None:
                    raise ConnectError("no name")
                case "eve":
                    raise ConnectError("not you", {"code": 1})
                case "bug":
                    raise ZeroDivisionError

        @r.io.use
        def second(socket: Socket) -> None:
            order.append("second")

        @r.io.on("connection")
        async def connected(socket: Socket) -> None:
            await asyncio.sleep(0)
            order.append("connect")

        @r.io.on("x")
        async def event(socket: Socket) -> None:
            order.append("x")

        for auth, answer in (
            (None, '44{"message":"no name"}'),
            ({"name": "eve"}, '44{"message":"not you","data":{"code":1}}'),
            ({"name": "bug"}, '44{"message":"internal error"}'),
        ):
            client = await Client.open(r.test, auth=auth)
            assert await client.recv() == answer
            assert r.io.sockets == {}
        # After a refusal, the client may try again in the same session.
        client.say('40{"name":"ann"}', "41")
        order.clear()
        client = await Client.open(r.test, auth={"name": "ann"})
        await client.recv()
        client.say('42["x"]')
        await settle()
        assert order[-4:] == ["first", "second", "connect", "x"]


async def test_a_client_that_disconnects_while_a_middleware_runs() -> None:
    async with rig() as r:
        go = asyncio.Event()

        @r.io.use
        async def slow(socket: Socket) -> None:
            await go.wait()

        client, other = await Client.open(r.test), await Client.open(r.test)
        other.say("40")  # a second CONNECT is ignored, even before the first is answered
        await settle()
        await client.ws.close()
        await settle()
        go.set()
        assert (await other.recv()).startswith('40{"sid":')
        await settle()
        assert len(r.io.sockets) == 1


async def test_an_exception_in_a_handler_is_logged_and_the_socket_stays(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with rig() as r:

        @r.io.on("bug")
        async def bug(socket: Socket) -> None:
            raise ZeroDivisionError

        @r.io.on("connect")
        async def connected(socket: Socket) -> None:
            if socket.handshake.auth:
                raise ZeroDivisionError

        client = await r.client()
        client.say('421["bug"]', '42["fine"]')
        await settle()
        assert r.handled == [["bug"], ["fine"]]
        assert "handler=bug" in caplog.text
        other = await Client.open(r.test, auth={"x": 1})
        assert await other.recv() == '44{"message":"internal error"}'


async def test_a_handler_that_does_not_return_blocks_only_its_own_client() -> None:
    async with rig(max_payload=1_000_000) as r:
        go = asyncio.Event()

        @r.io.on("slow")
        async def slow(socket: Socket, data: str) -> None:
            await go.wait()

        client, other = await r.client(), await r.client()
        for _ in range(30):
            client.say('42["slow","' + "x" * 100_000 + '"]')
        await settle()
        handled = len(r.handled)
        assert r.test.transports[0].get_write_buffer_size() > 1_000_000  # backpressure
        other.say('42["fine"]')
        await settle()
        assert r.handled[-1] == ["fine"]
        go.set()
        for _ in range(40):
            await settle()
        assert len(r.handled) == 31 > handled


async def test_a_socket_that_joins_too_many_rooms_is_disconnected() -> None:
    r = Rig()
    r.server.limits = r.io.limits = type(r.server.limits)(max_rooms=3)

    @r.io.on("join")
    async def join(socket: Socket, name: str) -> None:
        socket.join(name)

    async with r.test:
        client = await r.client()
        client.say(*(f'42["join","{n}"]' for n in range(5)))
        await client.recv_all()
        await settle()
        assert r.io.sockets == {}
        assert r.reasons == ["server namespace disconnect"]


async def test_the_attributes_of_a_socket() -> None:
    async with rig() as r:
        client = await r.client(auth={"token": "x", "pid": "theirs"})
        (socket,) = r.io.fetch_sockets()
        handshake = socket.handshake
        assert handshake.auth == {"token": "x", "pid": "theirs"}
        assert handshake.query == {"EIO": "4", "transport": "websocket"}
        assert (handshake.address, handshake.secure) == ("192.0.2.1", False)
        assert handshake.headers["Host"] == "test"
        assert handshake.url.startswith("/socket.io/?")
        assert handshake.time <= r.clock.time()
        assert socket.data == {}
        assert not socket.recovered
        assert socket.connected
        assert repr(socket) == f"<Socket {socket.id} />"
        sessions = r.io._transports.sessions  # type: ignore[union-attr]
        assert socket.id not in sessions  # the id of the session is secret
        await client.ws.close()
        await settle()
        assert not socket.connected
        assert r.reasons == ["transport close"]
        socket.emit("too late")
        socket.disconnect()


def sessions_in_memory(others: Sequence[Session] = ()) -> list[Session]:
    return [found for found in gc.get_objects() if isinstance(found, Session) and found not in others]


async def test_a_socket_is_freed_with_its_session_without_the_garbage_collector() -> None:
    others = sessions_in_memory()  # of tests before this one
    io, server = SocketIO(), Server()  # with the loop's clock: the manual one keeps cancelled timers
    server.mount(io)
    io.on("x")(lambda socket: None)
    async with TestClient(server) as test:
        client = await Client.open(test)
        await client.recv()
        client.say('42["x"]')
        await settle()
        (socket,) = io.fetch_sockets()
        freed: list[weakref.ref[Any]] = [weakref.ref(socket), weakref.ref(socket._client)]
        del socket
        gc.collect()
        assert len(sessions_in_memory(others)) == 1
        gc.disable()
        try:
            await client.ws.close()
            await settle()
            assert [reference() for reference in freed] == [None, None]
            assert sessions_in_memory(others) == []
        finally:
            gc.enable()


async def test_a_disconnecting_handler_receives_the_rooms() -> None:
    async with rig() as r:
        seen: list[Any] = []

        @r.io.on("disconnecting")
        async def leaving(socket: Socket, reason: str, rooms: set[str]) -> None:
            seen.append((reason, rooms - {socket.id}))

        client = await r.client()
        r.io.fetch_sockets()[0].join("a", "b")
        client.say("41")
        await settle()
        assert seen == [("client namespace disconnect", {"a", "b"})]
        assert r.reasons == ["client namespace disconnect"]


async def test_stop_disconnects_the_sockets_and_cancels_handlers() -> None:
    async with rig() as r:
        ended = []

        @r.io.on("stay")
        async def stay(socket: Socket) -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append(socket.id)

        client = await r.client()
        client.say('42["stay"]')
        await settle()
        stopping = asyncio.create_task(r.server.stop())
        await client.recv_all()
        await r.clock.advance(4.9)
        assert not ended
        await r.clock.advance(0.2)
        assert len(ended) == 1
        await stopping
        assert r.io.sockets == {}


@pytest.mark.parametrize(
    "options",
    [
        {"path": "socket.io"},
        {"path": "/"},
        {"ping_interval": 0},
        {"ping_timeout": float("inf")},
        {"connect_timeout": -1},
        {"recovery": 0},
        {"recovery_bytes": 0},
        {"max_payload": 0},
        {"ping_interval": 25_000},
        {"ping_timeout": 20_000},
        {"upgrade_timeout": 10_000},
        {"connect_timeout": 45_000},
        {"recovery": 120_000},
    ],
    ids=str,
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match="not a path" if name == "path" else name):
        SocketIO(**options)


@pytest.mark.parametrize("seconds", [5000, 0, float("nan")])
async def test_a_time_for_acknowledgements_is_in_seconds(seconds: float) -> None:
    async with rig() as r:
        await r.client()
        (socket,) = r.io.sockets.values()
        for target in (r.io, r.io.to("room"), socket):
            with pytest.raises(ValueError, match="at most 3600 seconds"):
                target.timeout(seconds)
            assert target.timeout(3600).ack_timeout == 3600


def test_socketio_is_mounted_only_once() -> None:
    io = SocketIO()
    Server().mount(io)
    with pytest.raises(RuntimeError):
        Server().mount(io)


async def test_another_path() -> None:
    r = Rig(path="/events")
    async with r.test:
        for path in ("/events?", "/events/?"):
            ws = await r.test.connect(path + "EIO=4&transport=websocket")
            assert str(await ws.recv()).startswith("0{")
        with pytest.raises(HandshakeRejectedError):
            await r.test.connect(PATH + "websocket")


# Polling, and requests that are refused before a session exists.


async def ask(url: str, query: str, method: str = "GET", body: bytes = b"", headers: str = "") -> Answer:
    peer = await RawPeer.connect(url)
    head = f"{method} /socket.io/?{query} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n"
    peer.writer.write(f"{head}{headers}\r\n".encode() + body)
    answer = await read_answer(peer, body=method != "HEAD")
    await peer.close()
    return answer


async def ask_another(url: str) -> None:
    """Requests another page several times, so that the server has read everything that was sent before."""
    for _ in range(5):
        peer = await RawPeer.connect(url)
        peer.writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await read_answer(peer)).status == 200
        await peer.close()


@asynccontextmanager
async def polling(**options: Any) -> AsyncIterator[tuple[str, SocketIO, list[Any]]]:
    io = SocketIO(**options)
    server = Server()
    server.mount(io)
    handled: list[Any] = []

    @io.on_any
    async def note(socket: Socket, *args: Any) -> None:
        handled.append(list(args))

    async with serving(server) as url:
        yield url, io, handled


BROWSER = "User-Agent: Mozilla/5.0\r\n"


async def opened(url: str, headers: str = BROWSER) -> str:
    """Opens a session over polling, connects it, and returns its query string."""
    answer = await ask(url, "EIO=4&transport=polling", headers=headers)
    opening = json.loads(answer.body[1:])
    query = f"EIO=4&transport=polling&sid={opening['sid']}"
    assert (await ask(url, query, "POST", b"40")).body == b"ok"
    assert (await ask(url, query)).body.startswith(b'40{"sid":')
    return query


@pytest.mark.parametrize(
    ("query", "method", "code", "message"),
    [
        ("EIO=4", "GET", 0, "Transport unknown"),
        ("EIO=4&transport=carrier-pigeon", "GET", 0, "Transport unknown"),
        ("EIO=4&transport=polling&sid=x", "GET", 1, "Session ID unknown"),
        ("EIO=4&transport=polling&sid=x", "POST", 1, "Session ID unknown"),
        ("EIO=4&transport=polling", "POST", 2, "Bad handshake method"),
        ("EIO=4&transport=websocket", "GET", 3, "Bad request"),
        ("EIO=3&transport=polling", "GET", 5, "Unsupported protocol version"),
        ("transport=polling", "GET", 5, "Unsupported protocol version"),
    ],
)
async def test_errors_are_those_of_the_official_server(
    query: str, method: str, code: int, message: str
) -> None:
    async with polling() as (url, _, _):
        answer = await ask(url, query, method, b"40" if method == "POST" else b"")
        assert answer.status == 400
        assert json.loads(answer.body) == {"code": code, "message": message}
        assert answer.fields["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("EIO=4&transport=websocket&sid=x", 400),
        ("EIO=3&transport=websocket", 400),
        ("EIO=4&transport=polling", 400),
        ("EIO=4&transport=x", 400),
    ],
)
async def test_a_websocket_is_refused_in_the_same_way(query: str, status: int) -> None:
    async with polling() as (url, _, _):
        with pytest.raises(HandshakeRejectedError) as caught:
            await connect(f"{url}/socket.io/?{query}")
        assert caught.value.response.status == status
        with pytest.raises(HandshakeRejectedError) as caught:
            await connect(f"{url}/socket.io/?EIO=4&transport=websocket", origin="http://evil.example")
        assert caught.value.response.status == 403


@pytest.mark.parametrize(
    ("cors", "origin", "allowed", "credentials"),
    [
        ((), None, True, None),
        ((), "http://test", True, None),
        ((), "https://other.example", False, None),
        (["https://other.example"], "https://other.example", True, "true"),
        (["https://other.example"], "https://Other.example", True, "true"),
        (["https://other.example"], "http://test", True, None),
        (["https://other.example"], "https://evil.example", False, None),
        (["*"], "https://anything.example", True, None),
    ],
)
async def test_cors(cors: list[str], origin: str | None, allowed: bool, credentials: str | None) -> None:
    async with polling(cors=cors) as (url, _, _):
        fields = f"Origin: {origin}\r\n" if origin else ""
        answer = await ask(url, "EIO=4&transport=polling", headers=fields)
        preflight = await ask(
            url,
            "EIO=4&transport=polling",
            "OPTIONS",
            headers=fields + "Access-Control-Request-Headers: x-a\r\n",
        )
        if not allowed:
            for refused in (answer, preflight):
                assert refused.status == 403
                assert json.loads(refused.body) == {"code": 4, "message": "Forbidden"}
                assert "access-control-allow-origin" not in refused.fields
            return
        assert (answer.status, preflight.status) == (200, 204)
        assert preflight.fields["access-control-allow-headers"] == "x-a"
        assert "POST" in preflight.fields["access-control-allow-methods"]
        listed = origin if credentials else "*" if "*" in cors else None
        for given_ in (answer, preflight):
            assert given_.fields.get("access-control-allow-origin") == listed
            assert given_.fields.get("access-control-allow-credentials") == credentials
        if credentials:
            assert answer.fields["vary"] == "Origin"


async def test_polling_is_authorized_and_refused_like_a_websocket(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    io = SocketIO()
    server = Server()
    server.mount(io)

    @server.authorize
    async def check(request: Request) -> Refusal | None:
        return (
            None
            if bearer_token(request) == "s3cret"
            else Refusal(401, b"who?\n", [("X-Why", "token")], "token")
        )

    async with serving(server) as url:
        answer = await ask(url, "EIO=4&transport=polling")
        assert (answer.status, answer.body, answer.fields["x-why"]) == (401, b"who?\n", "token")
        with pytest.raises(HandshakeRejectedError):
            await connect(f"{url}/socket.io/?EIO=4&transport=websocket")
        assert caplog.text.count("reason=token") == 2
        answer = await ask(url, "EIO=4&transport=polling", headers="Authorization: Bearer s3cret\r\n")
        assert answer.status == 200
        server.make_ready().draining = True
        answer = await ask(url, "EIO=4&transport=polling", headers="Authorization: Bearer s3cret\r\n")
        assert answer.status == 503


async def test_a_polling_session_over_tls_is_secure(certificate: Certificate) -> None:
    io = SocketIO()
    server = Server()
    server.mount(io)
    await server.start("127.0.0.1", 0, ssl_context=certificate.server_context())
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", server.port, ssl=certificate.client_context(), server_hostname="localhost"
    )
    peer = RawPeer(reader, writer)
    writer.write(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: a\r\n\r\n")
    sid = json.loads((await read_answer(peer)).body[1:])["sid"]
    request = f"POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: a\r\n"
    writer.write(request.encode() + b"Content-Length: 2\r\n\r\n40")
    assert (await read_answer(peer)).body == b"ok"
    assert [socket.handshake.secure for socket in io.fetch_sockets()] == [True]
    await peer.close()
    await server.stop()
    await all_closed()


async def test_events_over_polling() -> None:
    async with polling() as (url, io, handled):
        query = await opened(url)
        waiting = asyncio.create_task(ask(url, query))
        await ask_another(url)
        assert not waiting.done()
        io.emit("news", b"\x01")
        answer = await waiting
        assert answer.body.decode() == '451-["news",{"_placeholder":true,"num":0}]\x1ebAQ=='
        assert answer.fields["cache-control"] == "no-store"
        body = b'42["a",1]\x1e42["b",2]'
        assert (await ask(url, query, "POST", body)).body == b"ok"
        assert handled == [["a", 1], ["b", 2]]
        (socket,) = io.fetch_sockets()
        assert not socket.handshake.secure
        socket.emit("queued")
        draining = asyncio.create_task(socket.drain())
        await ask_another(url)
        assert not draining.done()
        socket.volatile.emit("missed")  # dropped: no GET waits
        assert (await ask(url, query)).body == b'42["queued"]'
        await draining
        assert (await ask(url, query, "POST", b"1")).body == b"ok"
        assert io.sockets == {}
        assert json.loads((await ask(url, query)).body)["code"] == 1


async def test_one_get_and_one_post_at_a_time() -> None:
    async with polling() as (url, io, _):
        query = await opened(url)
        first = asyncio.create_task(ask(url, query))
        await ask_another(url)
        assert (await ask(url, query)).status == 400
        assert (await first).status == 200
        assert io.sockets == {}

        query = await opened(url)
        slow = await RawPeer.connect(url)
        slow.writer.write(
            f"POST /socket.io/?{query} HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n42".encode()
        )
        await ask_another(url)
        assert (await ask(url, query, "POST", b"3")).status == 400
        assert io.sockets == {}
        await slow.close()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_aborted_request_ends_the_session(method: str) -> None:
    async with polling() as (url, io, _):
        reasons: list[str] = []

        @io.on("disconnect")
        async def gone(socket: Socket, reason: str) -> None:
            reasons.append(reason)

        query = await opened(url)
        peer = await RawPeer.connect(url)
        length = 10 if method == "POST" else 0
        peer.writer.write(
            f"{method} /socket.io/?{query} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n".encode()
        )
        await ask_another(url)
        assert reasons == []
        await peer.close()
        await until(lambda: reasons)
        assert reasons == ["transport error"]
        assert io.sockets == {}


async def test_a_body_over_the_limit_is_413() -> None:
    async with polling(max_payload=100) as (url, io, handled):
        query = await opened(url)
        answer = await ask(url, query, "POST", b'42["' + b"x" * 100 + b'"]')
        assert answer.status == 413
        await until(lambda: io.sockets == {})
        assert handled == []


@pytest.mark.parametrize("body", [b"", b"\xff", b'42["a"]\x1e', b"9", b"b@@", b"2", b'42["connect"]'])
async def test_a_bad_body_ends_the_session(body: bytes) -> None:
    async with polling() as (url, io, handled):
        query = await opened(url)
        await ask(url, query, "POST", body)
        await until(lambda: io.sockets == {})
        assert handled == []


async def test_a_polling_client_that_fetches_nothing_is_disconnected_and_one_that_fetches_is_not() -> None:
    clock = ManualClock()
    io = SocketIO(ping_interval=1000)
    server = Server(max_queue=10_000, send_timeout=20, clock=clock)
    server.mount(io)
    reasons = []

    @io.on("disconnect")
    async def gone(socket: Socket, reason: str) -> None:
        reasons.append(reason)

    async with serving(server) as url:
        query, _ = await opened(url), await opened(url)
        for _ in range(200):
            io.emit("x", "x" * 1000)
        assert len(io.sockets) == 2  # over the limit, but they may take it
        assert server.queued > 300_000
        await clock.advance(19)
        assert (await ask(url, query)).body.count(b"x" * 1000) == 200
        for _ in range(20):
            io.emit("x", "x" * 1000)
        await clock.advance(2)
        await until(lambda: reasons)
        assert reasons == ["too slow"]
        assert len(io.sockets) == 1
        assert (await ask(url, query)).body.count(b"x" * 1000) == 20
        await clock.advance(20)
        assert reasons == ["too slow"]
        assert server.queued == 0


async def test_policies_apply_to_a_client_that_polls() -> None:
    io = SocketIO()
    server = Server(max_queue=2_200)
    server.mount(io)
    async with serving(server) as url:
        query = await opened(url)
        for number in range(3):
            io.everybody().with_policy(coalesce("position")).emit("position", number)
            io.everybody().with_policy("drop_oldest").emit("chat", number, "x" * 500)
        io.everybody().volatile.emit("volatile")
        body = (await ask(url, query)).body.decode()
        events = [json.loads(packet[2:])[:2] for packet in body.split("\x1e")]
        assert events == [["chat", 1], ["position", 2], ["chat", 2]]
        (socket,) = io.sockets.values()
        assert socket.dropped == 4
        assert server.stats.dropped == {"coalesce": 2, "drop_oldest": 1, "volatile": 1}


async def test_the_upgrade_step_by_step() -> None:
    async with polling() as (url, io, handled):
        query = await opened(url)
        poll = asyncio.create_task(ask(url, query))
        await ask_another(url)
        target = f"{url}/socket.io/?{query.replace('polling', 'websocket')}"
        async with connect(target) as ws:
            await ws.send("2probe")
            assert await ws.recv() == "3probe"
            assert (await poll).body == b"6"
            io.emit("before")
            with pytest.raises(HandshakeRejectedError):
                await connect(target.replace("sid=", "sid=x"))
            async with connect(target) as second:
                await second.wait_closed()  # closed: the session is already being upgraded
            await ws.send("5")
            assert await ws.recv() == '42["before"]'
            await ws.send('42["after"]')
            io.emit("then")
            assert await ws.recv() == '42["then"]'
            assert handled == [["after"]]
            assert json.loads((await ask(url, query)).body)["code"] == 3
        await until(lambda: io.sockets == {})


@pytest.mark.parametrize("said", ["5", "2", "x", "3probe"])
async def test_a_failed_upgrade_does_not_disturb_polling(said: str) -> None:
    async with polling() as (url, io, _):
        query = await opened(url)
        async with connect(f"{url}/socket.io/?{query.replace('polling', 'websocket')}") as ws:
            await ws.send(said)
            await ws.wait_closed()
        io.emit("still here")
        assert (await ask(url, query)).body == b'42["still here"]'


async def test_a_client_with_b64_receives_base64_on_its_websocket() -> None:
    async with rig() as r:
        ws = await r.test.connect(PATH + "websocket&b64=1")
        client = Client(ws)
        await client.recv()
        client.say("40")
        await client.recv()
        r.io.emit("x", b"\x01")
        assert [await client.recv(), await client.recv()] == [
            '451-["x",{"_placeholder":true,"num":0}]',
            "bAQ==",
        ]


async def test_polling_sessions_are_limited_and_do_not_shut_out_websockets() -> None:
    io = SocketIO()
    server = Server(max_connections=2)
    server.mount(io)
    async with serving(server) as url:
        for status in (200, 200, 503):
            assert (await ask(url, "EIO=4&transport=polling")).status == status
        async with connect(f"{url}/socket.io/?EIO=4&transport=websocket") as ws:
            assert str(await ws.recv()).startswith("0{")


async def test_polling_sessions_are_limited_by_address_also_behind_a_proxy() -> None:
    clock = ManualClock()
    io = SocketIO()
    server = Server(max_connections_per_address=2, trusted=["127.0.0.1"], clock=clock)
    server.mount(io)
    async with serving(server) as url:
        for client, status in [("a", 200), ("a", 200), ("a", 429), ("b", 200)]:
            field = f"X-Forwarded-For: 203.0.113.{ord(client)}\r\n"
            assert (await ask(url, "EIO=4&transport=polling", headers=field)).status == status
        for _ in range(3):  # from the proxy itself, on behalf of nobody knows whom
            assert (await ask(url, "EIO=4&transport=polling")).status == 200
        await clock.advance(60)  # sessions that never connected have ended
        field = "X-Forwarded-For: 203.0.113.97\r\n"
        assert (await ask(url, "EIO=4&transport=polling", headers=field)).status == 200
