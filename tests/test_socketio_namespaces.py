"""Namespaces of the Socket.IO server: dynamic ones, classes of handlers; and what belongs to all of it."""

import asyncio
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from rfc6455 import Request
from rfc6455_server import HandshakeRejectedError, Server, coalesce, connect
from rfc6455_server.socketio import (
    Ack,
    ConnectError,
    EventError,
    Namespace,
    NamespaceHandlers,
    ParentNamespace,
    Socket,
    SocketIO,
    handles,
)
from rfc6455_server.testing import settle
from tests.server_helpers import serving, until
from tests.test_socketio import script
from tests.test_socketio_handlers import Gate, connect_answer
from tests.test_socketio_server import PATH, Client, Rig, ask, opened, rig


async def enter(client: Client, name: str, auth: object = None) -> str:
    """Connects a client to a namespace too, and returns the answer."""
    client.say(f"40{name}," + (json.dumps(auth) if auth else ""))
    answer: str = await client.recv()
    return answer


def children(r: Rig) -> list[str]:
    """Returns the names of all dynamic namespaces that exist, after a look at what they must not leave."""
    names = sorted(name for parent in r.io._namespaces.parents for name in parent.children)
    assert set(r.io.namespaces) >= {"/", *names}
    assert len(r.server.registries) == 1 + len(r.io.namespaces)
    return names


# Dynamic namespaces.


async def test_a_template_makes_a_namespace_for_each_name() -> None:
    async with rig() as r:
        shops = r.io.of("/shop-{shop}/{part}")
        assert isinstance(shops, ParentNamespace)
        assert r.io.of("/shop-{shop}/{part}") is shops
        seen: list[Any] = []

        @shops.use
        async def check(socket: Socket) -> None:
            if socket.namespace.parameters["shop"] == "closed":
                raise ConnectError("closed")

        @shops.on("connect")
        def connected(socket: Socket) -> None:
            assert r.io.of(socket.namespace.name).parent is shops
            socket.namespace.once("own")(lambda socket: "own " + socket.namespace.name)

        @shops.on("buy")
        async def buy(socket: Socket, what: str) -> str:
            seen.append((socket.namespace.name, dict(socket.namespace.parameters), what))
            return "bought"

        client = await r.client()
        for name in ("/shop-1/toys", "/shop-2/toys"):
            assert (await enter(client, name)).startswith(f'40{name},{{"sid":')
        client.say('42/shop-1/toys,1["buy","ball"]', '42/shop-2/toys,2["buy","car"]', '42["buy","x"]')
        assert [await client.recv(), await client.recv()] == [
            '43/shop-1/toys,1["bought"]',
            '43/shop-2/toys,2["bought"]',
        ]
        assert seen == [
            ("/shop-1/toys", {"shop": "1", "part": "toys"}, "ball"),
            ("/shop-2/toys", {"shop": "2", "part": "toys"}, "car"),
        ]
        client.say('42/shop-1/toys,3["own"]', '42/shop-1/toys,4["own"]', '42/shop-2/toys,5["own"]')
        heard = [await client.recv(), await client.recv()]
        assert heard == ['43/shop-1/toys,3["own /shop-1/toys"]', '43/shop-2/toys,5["own /shop-2/toys"]']
        assert await enter(client, "/shop-closed/x") == '44/shop-closed/x,{"message":"closed"}'
        for other in ("/shop-1", "/shop-1/toys/x", "/x/shop-1/toys"):
            assert await enter(client, other) == f'44{other},{{"message":"Invalid namespace"}}'
        await settle()
        assert children(r) == ["/shop-1/toys", "/shop-2/toys"]

        @shops.on("late")
        def late(socket: Socket) -> str:
            return "late"

        client.say('42/shop-1/toys,6["late"]')
        assert await client.recv() == '43/shop-1/toys,6["late"]'


async def test_patterns_and_functions_are_asked_in_their_order() -> None:
    async with rig(recovery=60) as r:
        asked: list[Any] = []

        @r.io.of(re.compile(r"/n-(?P<number>\d+)(?P<more>x)?")).on("who")
        def first(socket: Socket) -> Any:
            return "pattern", dict(socket.namespace.parameters)

        async def allowed(name: str, auth: dict[str, Any]) -> bool:
            asked.append((name, auth))
            await asyncio.sleep(0)
            if auth.get("bug"):
                raise ZeroDivisionError
            if auth.get("refused"):
                raise ConnectError("not you", 1)
            return bool(auth.get("ok"))

        @r.io.of(allowed).on("who")
        def second(socket: Socket) -> Any:
            return "function", dict(socket.namespace.parameters)

        @r.io.of(lambda name, auth: name == "/last").on("who")
        def third(socket: Socket) -> Any:
            return "last"

        @r.io.of("/n-0").on("who")
        def static(socket: Socket) -> Any:
            return "by name"

        client = await r.client()
        for name, auth, answer in (
            ("/n-0", None, '["by name"]'),
            ("/n-12", None, '["pattern",{"number":"12","more":""}]'),
            ("/x", {"ok": 1, "pid": "p"}, '["function",{}]'),
            ("/last", {"no": 1}, '["last"]'),
        ):
            assert (await enter(client, name, auth)).startswith(f"40{name},{{"), name
            client.say(f'42{name},1["who"]')
            assert await client.recv() == f"43{name},1{answer}"
        assert asked == [("/x", {"ok": 1}), ("/last", {"no": 1})]
        assert await enter(client, "/n-12/") == '44/n-12/,{"message":"Invalid namespace"}'
        assert await enter(client, "/y", {"bug": 1}) == '44/y,{"message":"internal error"}'
        assert await enter(client, "/y", {"refused": 1}) == '44/y,{"message":"not you","data":1}'
        assert children(r) == ["/last", "/n-12", "/x"]


async def test_a_dynamic_namespace_is_removed_when_nobody_is_in_it() -> None:
    async with rig() as r:
        shops, gate = r.io.of("/shop-{id}"), Gate()

        @shops.use
        async def check(socket: Socket) -> None:
            if socket.handshake.auth.get("wait"):
                await gate.wait()
            if socket.handshake.auth.get("refused"):
                raise ConnectError("no")

        @shops.on("disconnect")
        async def gone(socket: Socket, reason: str) -> None:
            if socket.handshake.auth.get("linger"):
                await gate.wait()

        first, second = await r.client(), await r.client()
        assert (await enter(first, "/shop-1")).startswith("40")
        assert (await enter(second, "/shop-1", {"linger": 1})).startswith("40")
        assert await enter(first, "/shop-2", {"refused": 1}) == '44/shop-2,{"message":"no"}'
        await settle()
        assert children(r) == ["/shop-1"]
        first.say("41/shop-1,")
        await settle()
        assert children(r) == ["/shop-1"]
        first.say('40/shop-1,{"wait":1}')
        second.say("41/shop-1,")
        await settle()
        assert children(r) == ["/shop-1"]  # one client waits for a middleware, and a handler runs
        first.say("41/shop-1,")
        await settle()
        assert children(r) == ["/shop-1"]
        gate.open()
        await settle()
        assert children(r) == []
        assert "40" in await enter(first, "/shop-1")
        assert children(r) == ["/shop-1"]
        await first.ws.close()
        await settle()
        assert children(r) == []


async def test_a_client_that_goes_while_a_function_decides() -> None:
    async with rig() as r:
        gate = Gate()

        async def slow(name: str, auth: dict[str, Any]) -> bool:
            try:
                await gate.wait()
            except asyncio.CancelledError:
                await gate.wait()
            return True

        parent = r.io.of(slow)
        client = await r.client()
        client.say('40/x,{"n":1}', "40/y,")
        await settle()
        client.say("41/x,", "41/y,")
        await settle()
        client.say('40/x,{"n":2}')
        await settle()
        assert gate.waiting == 3  # the first two do not give up
        gate.open()
        assert (await client.recv()).startswith("40/x,")
        await settle()
        assert [socket.handshake.auth for socket in parent.fetch_sockets()] == [{"n": 2}]
        assert children(r) == ["/x"]
        client.say('42["fine"]')
        await settle()
        assert r.handled == [["fine"]]


async def test_two_clients_that_come_together_are_in_one_namespace() -> None:
    async with rig() as r:
        gate = Gate()

        async def slow(name: str, auth: dict[str, Any]) -> bool:
            await gate.wait()
            return True

        parent = r.io.of(slow)
        clients = [await r.client() for _ in range(2)]
        for client in clients:
            client.say("40/x,")
        await settle()
        assert gate.waiting == 2
        gate.open()
        await settle()
        assert len(parent.children["/x"].sockets) == 2
        r.io.of("/x").emit("hello")
        for client in clients:
            assert (await client.recv()).startswith("40/x,")
            assert await client.recv() == '42/x,["hello"]'


async def test_what_a_dynamic_namespace_sends_reaches_all_its_children() -> None:
    async with rig() as r:
        shops = r.io.of("/shop-{id}")
        outgoing: list[Any] = []
        clients = [await r.client() for _ in range(3)]
        assert shops.fetch_sockets() == []
        shops.emit("nobody")
        for client, name in zip(clients, ("/shop-1", "/shop-1", "/shop-2"), strict=True):
            assert (await enter(client, name)).startswith("40")
        a, b, c = shops.fetch_sockets()
        shops.on_any_outgoing(lambda socket, *event: outgoing.append((socket.id, *event)))
        for socket in (a, c):
            socket.join("vip")
        shops.to("vip").except_(c.id).emit("x", 1)
        shops.emit("y")
        assert outgoing == [(a.id, "x", 1), (a.id, "y"), (b.id, "y"), (c.id, "y")]
        assert await clients[0].recv() == '42/shop-1,["x",1]'
        for client, name in zip(clients, ("/shop-1", "/shop-1", "/shop-2"), strict=True):
            assert await client.recv() == f'42{name},["y"]'
        own = asyncio.create_task(a.emit_with_ack("own"))
        asking = asyncio.create_task(shops.to("vip").timeout(10).emit_with_ack("all"))
        await settle()
        assert [await clients[0].recv() for _ in range(2)] == ['42/shop-1,1["own"]', '42/shop-1,2["all"]']
        assert await clients[2].recv() == '42/shop-2,2["all"]'
        clients[0].say('43/shop-1,2["a"]', '43/shop-1,1["own"]')
        clients[2].say('43/shop-2,2["c"]')
        assert sorted(await asking) == ["a", "c"]
        assert await own == "own"
        shops.to(b.id).disconnect_sockets()
        assert await clients[1].recv() == "41/shop-1,"
        assert shops.fetch_sockets() == [a, c]


async def test_the_rooms_of_a_dynamic_namespace() -> None:
    async with rig() as r:
        shops = r.io.of("/shop-{id}")
        joined: list[Any] = []
        positions = coalesce("position")
        shops.rooms.policies["vip*"] = positions
        shops.rooms.on_join(lambda room, socket: joined.append((room.name, socket.id)))
        client = await r.client()
        await enter(client, "/shop-1")
        (socket,) = shops.fetch_sockets()
        socket.join("vip-1")
        assert joined == [("vip-1", socket.id)]
        assert socket.namespace.rooms["vip-2"].policy == positions
        assert r.server._gauges()["rooms"][1] == 1
        sent = r.server.stats.messages_out
        shops.to("vip-1").emit("x")
        assert r.server.stats.messages_out == sent + 1


async def test_the_children_of_a_dynamic_namespace_are_limited(caplog: pytest.LogCaptureFixture) -> None:
    async with rig() as r:
        shops = r.io.of("/shop-{id}", max_children=2)
        client = await r.client()
        for number in range(3):
            answer = await enter(client, f"/shop-{number}")
            assert answer.startswith(f"40/shop-{number},") == (number < 2)
        assert answer == '44/shop-2,{"message":"too many namespaces"}'
        assert "too many namespaces" in caplog.text
        client.say("41/shop-0,")
        await settle()
        assert (await enter(client, "/shop-2")).startswith("40")
        assert isinstance(shops, ParentNamespace)
        assert sorted(shops.children) == ["/shop-1", "/shop-2"]
        with pytest.raises(ValueError, match="max_children"):
            r.io.of("/x-{id}", max_children=0)
        for malformed in ("shop-{id}", "/{id}?", "/{"):
            with pytest.raises(ValueError, match=r"\{"):
                r.io.of(malformed)


async def test_a_lost_socket_keeps_its_dynamic_namespace_until_it_cannot_come_back() -> None:
    async with rig(recovery=60) as r:
        r.io.of("/shop-{id}")
        client = await r.client()
        answer = json.loads((await enter(client, "/shop-1")).partition(",")[2])
        await client.ws.close()
        await settle()
        assert children(r) == ["/shop-1"]
        r.io.of("/shop-1").emit("missed")
        await r.clock.advance(30)
        client = await r.client()
        again = await enter(client, "/shop-1", {"pid": answer["pid"]})
        assert json.loads(again.partition(",")[2])["sid"] == answer["sid"]
        assert (await client.recv()).startswith('42/shop-1,["missed"')
        await client.ws.close()
        await r.clock.advance(59)
        assert children(r) == ["/shop-1"]
        await r.clock.advance(90)
        assert children(r) == []


async def test_the_children_of_a_dynamic_namespace_share_what_recovery_keeps() -> None:
    async with rig(recovery=60, recovery_bytes=40_000) as r:
        shops = r.io.of("/shop-{id}")
        assert isinstance(shops, ParentNamespace)
        client = await r.client()

        def kept() -> int:
            return sum(child.recovery.size for child in shops.children.values() if child.recovery)

        await enter(client, "/shop-0")
        for _ in range(30):
            r.io.of("/shop-0").emit("x", "x" * 1000)
        assert 30_000 < kept() <= 40_000
        for number in range(1, 16):
            await enter(client, f"/shop-{number}")
            assert kept() <= 40_000
            shops.emit("x", "x" * 1000)
            while not (await client.recv()).startswith(f"42/shop-{number},"):
                pass
        for _ in range(30):
            shops.emit("x", "x" * 100)
        assert 20_000 < kept() <= 40_000
        client.say(*(f"41/shop-{number}," for number in range(1, 16)))
        await settle()
        assert list(shops.children) == ["/shop-0"]
        for _ in range(30):
            r.io.of("/shop-0").emit("x", "x" * 1000)
        assert 5_000 < kept() <= 40_000  # its share has grown again from a sixteenth


async def test_the_official_client_in_a_dynamic_namespace() -> None:
    io, server, gate = SocketIO(), Server(), Gate()
    server.mount(io)

    class Shop(NamespaceHandlers):
        def on_connect(self, socket: Socket) -> None:
            @socket.use
            def check(socket: Socket, event: str, *args: Any) -> None:
                if args == ("bad",):
                    raise EventError("not allowed", {"code": 7})

        def on_who(self, socket: Socket) -> str:
            return socket.namespace.parameters["id"]

        @handles("work", concurrent=True)
        async def work(self, socket: Socket, *, ack: Ack) -> None:
            ack("queued")
            await gate.wait()
            socket.emit("done", gate.waiting)

        @handles("go on")
        def go_on(self, socket: Socket) -> None:
            gate.open()

        def on_any(self, socket: Socket, event: str, *args: Any) -> list[str]:
            return ["unknown", event]

    io.register(Shop("/shop-{id}"))
    refused = {"message": "not allowed", "data": {"code": 7}}
    async with serving(server) as url, script(url, {}, "vocabulary") as run:
        assert await run.lines() == [
            ["namespace", "7", True],
            ["nowhere", "Invalid namespace"],
            ["refused", {"error": refused}],
            ["error", {"event": "say", "error": refused}],
            ["early", "queued"],
            ["done", 0],
            ["unknown", ["unknown", "what is this"]],
        ]


# Classes of handlers.


async def test_a_class_of_handlers() -> None:
    async with rig() as r:
        seen: list[Any] = []

        class Base(NamespaceHandlers):
            async def on_connect(self, socket: Socket) -> None:
                seen.append(("connect", self.namespace.name))

            def on_any(self, socket: Socket, event: str, *args: Any) -> None:
                seen.append(("any", event))

            async def on_say(self, socket: Socket, text: str) -> str:
                return "overridden"

            @property
            def trap(self) -> Any:
                raise AssertionError("a property is not a handler")

        class Chat(Base):
            on_purpose = "not a method"

            async def on_say(self, socket: Socket, text: str) -> str:
                self.namespace.emit("said", text)
                return "said"

            @handles("ask me", concurrent=True)
            @handles("ask")
            async def ask(self, socket: Socket, text: str) -> str:
                return text + "?"

            @handles("quiet", ack=False)
            def on_something(self, socket: Socket) -> str:
                return "not sent"

            def on_disconnect(self, socket: Socket, reason: str) -> None:
                seen.append(("disconnect", reason))

            def on_any_outgoing(self, socket: Socket, event: str, *args: Any) -> None:
                seen.append(("outgoing", event))

            def helper(self) -> None:
                raise AssertionError("not a handler")

        chat = Chat("/chat")
        assert r.io.register(chat) is chat.namespace is r.io.of("/chat")
        assert [one.concurrent for one in chat.namespace.handlers.by_event["ask me"]] == [True]
        client = await r.client()
        await enter(client, "/chat")
        client.say('42/chat,1["say","hi"]', '42/chat,2["ask me","a"]', '42/chat,3["ask","b"]')
        heard = [await client.recv() for _ in range(4)]
        assert sorted(heard) == [
            '42/chat,["said","hi"]',
            '43/chat,1["said"]',
            '43/chat,2["a?"]',
            '43/chat,3["b?"]',
        ]
        client.say('42/chat,4["quiet"]', '42/chat,5["something"]', "41/chat,")
        await settle()
        assert seen[0] == ("connect", "/chat")
        assert ("outgoing", "said") in seen
        assert ("any", "say") in seen
        assert seen[-1] == ("disconnect", "client namespace disconnect")

        class Empty(NamespaceHandlers): ...

        with pytest.raises(ValueError, match="Empty"):
            r.io.register(Empty("/empty"))


async def test_a_class_of_handlers_for_a_dynamic_namespace() -> None:
    async with rig() as r:

        class Shop(NamespaceHandlers):
            def on_who(self, socket: Socket) -> str:
                return socket.namespace.parameters["id"]

        r.io.register(Shop(re.compile(r"/shop-(?P<id>\d+)")))
        r.io.register(Shop("/store-{id}"))

        class Main(NamespaceHandlers):
            def on_who(self, socket: Socket) -> str:
                return "main"

        r.io.register(Main())
        client = await r.client()
        await enter(client, "/shop-7")
        await enter(client, "/store-8")
        client.say('421["who"]', '42/shop-7,2["who"]', '42/store-8,3["who"]')
        heard = [await client.recv() for _ in range(3)]
        assert sorted(heard) == ['43/shop-7,2["7"]', '43/store-8,3["8"]', '431["main"]']


# Other servers.


class Pair:
    """A cluster of two servers in one process."""

    def __init__(self, *servers: SocketIO) -> None:
        self.servers = servers
        self.tasks: list[asyncio.Task[Any]] = []
        for server in servers:
            server.cluster = PairEnd(self, server)

    def others(self, server: SocketIO) -> list[SocketIO]:
        return [other for other in self.servers if other is not server]


class PairEnd:
    def __init__(self, pair: Pair, server: SocketIO) -> None:
        self.pair = pair
        self.server = server

    def publish(self, namespace: str, event: str, args: Sequence[Any]) -> None:
        self.pair.tasks += [
            asyncio.create_task(other.of(namespace).receive_server_side(event, args))
            for other in self.pair.others(self.server)
        ]

    async def ask(self, namespace: str, event: str, args: Sequence[Any]) -> list[Any]:
        others = self.pair.others(self.server)
        return [await other.of(namespace).receive_server_side(event, args) for other in others]


async def test_events_between_servers(caplog: pytest.LogCaptureFixture) -> None:
    one, two = SocketIO(), SocketIO()
    heard: list[Any] = []

    for name, io in (("one", one), ("two", two)):

        @io.on_server_side("hello")
        async def hello(*args: Any, name: str = name) -> str:
            heard.append((name, *args))
            return "answer of " + name

        @io.of("/admin").on_server_side("count")
        def count(*, name: str = name) -> None:
            heard.append((name, "count"))

        io.of("/admin").on_server_side("count")(lambda: 0)
        io.of("/admin").on_server_side("count")(lambda: 1)

    # Alone, a server reaches nobody: not itself either.
    one.server_side_emit("hello", 1)
    assert await one.server_side_emit_with_ack("hello", 1) == []
    assert heard == []

    pair = Pair(one, two)
    one.server_side_emit("hello", 1, b"x")
    await asyncio.gather(*pair.tasks)
    assert heard == [("two", 1, b"x")]
    assert await two.server_side_emit_with_ack("hello") == ["answer of one"]
    assert await two.of("/admin").server_side_emit_with_ack("count") == [0]
    assert await one.server_side_emit_with_ack("count") == [None]  # another namespace
    assert heard[1:] == [("one",), ("one", "count")]

    @two.on_server_side("bug")
    def bug() -> None:
        raise ZeroDivisionError

    assert await one.server_side_emit_with_ack("bug") == [None]
    assert "handler=bug" in caplog.text


# The server as a whole, and what a socket knows of its request.


async def test_close_disconnects_all_and_refuses_new_clients() -> None:
    async with rig() as r:
        client = await r.client()
        r.io.close()
        await client.recv_all()
        await settle()
        assert (r.reasons, r.io.sockets) == (["server shutting down"], {})
        with pytest.raises(HandshakeRejectedError) as caught:
            await r.test.connect(PATH + "websocket")
        assert caught.value.response.status == 503
        r.io.close()
    unmounted = SocketIO()
    unmounted.close()
    server = Server()
    server.mount(unmounted)
    async with serving(server) as url:
        assert (await ask(url, "EIO=4&transport=polling")).status == 503
        with pytest.raises(HandshakeRejectedError):
            await connect(f"{url}{PATH}websocket")


async def test_a_socket_knows_its_request_its_user_and_its_transport() -> None:
    io = SocketIO(cors=["https://other.example"])
    server = Server()
    server.mount(io)

    @server.authorize
    async def authorize(request: Request) -> str:
        return "user of " + (request.headers.get("X-Name") or "nobody")

    async with serving(server) as url:
        before = time.time()
        async with connect(f"{url}{PATH}websocket", headers=[("X-Name", "ann")]) as ws:
            await ws.send("40")
            await until(lambda: io.sockets)
            (socket,) = io.fetch_sockets()
            assert (socket.user, socket.handshake.user, socket.transport) == (
                "user of ann",
                "user of ann",
                "websocket",
            )
            assert socket.request.headers["X-Name"] == "ann"
            assert socket.request.path == "/socket.io/"
            assert before <= socket.handshake.issued <= time.time()
            assert not socket.handshake.xdomain
            await ws.send("40/none,")
        await until(lambda: not io.sockets)
        async with connect(f"{url}{PATH}websocket", origin="https://other.example") as ws:
            await ws.send("40")
            await until(lambda: io.sockets)
            assert io.fetch_sockets()[0].handshake.xdomain
        await until(lambda: not io.sockets)
        query = await opened(url)
        (socket,) = io.fetch_sockets()
        assert (socket.user, socket.transport, socket.request.method) == (
            "user of nobody",
            "polling",
            "POST",
        )
        async with connect(f"{url}/socket.io/?{query.replace('polling', 'websocket')}") as ws:
            await ws.send("2probe")
            assert await ws.recv() == "3probe"
            await ws.send("5")
            await until(lambda: socket.transport == "websocket")


def test_a_namespace_without_a_parent_has_no_parameters() -> None:
    namespace: Namespace = SocketIO().of("/plain")
    assert (namespace.parameters, namespace.parent) == ({}, None)


async def test_connect_answer_of_a_dynamic_namespace_has_its_own_id() -> None:
    async with rig() as r:
        r.io.of("/shop-{id}")
        client = await Client.open(r.test)
        main = connect_answer(await client.recv())["sid"]
        inside = json.loads((await enter(client, "/shop-1")).partition(",")[2])["sid"]
        assert main != inside


# What an application may get wrong is said at once: it would otherwise be ignored.


@pytest.mark.parametrize("name", ["on", "once", "emits", "on_server_side"])
def test_a_decorator_without_its_event_is_refused(name: str) -> None:
    for owner in (SocketIO(), SocketIO().of("/chat")):
        with pytest.raises(TypeError, match=f'@{name}\\("name"\\)'):
            getattr(owner, name)(lambda socket: None)
    with pytest.raises(TypeError, match=r'@handles\("name"\)'):
        handles(lambda self, socket: None)  # type: ignore[arg-type]


async def test_the_name_of_a_room_is_a_string() -> None:
    async with rig() as r:
        client = await r.client()
        (socket,) = r.io.sockets.values()
        rooms: list[Any] = [["a", "b"], 5, None]
        for room in rooms:
            for use in (r.io.to, r.io.in_, r.io.except_, socket.to, socket.except_):
                with pytest.raises(TypeError, match="the name of a room is a string"):
                    use(room)
        with pytest.raises(TypeError, match="the name of a room is a string"):
            socket.join(5)  # type: ignore[arg-type]
        socket.join("a")
        assert socket.rooms == {socket.id, "a"}
        r.io.to("a").emit("hello")
        assert await client.event() == ["hello"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"recovery": True}, "seconds"),
        ({"cors": True}, "any"),
        ({"cors": "app.example"}, "such as https://example.com: 'app.example'"),
        ({"cors": ["https://a.example", "https://app.example/"]}, "'https://app.example/'"),
    ],
)
def test_options_of_other_servers_are_refused_that_would_mean_something_else(
    options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        SocketIO(**options)


def test_origins_are_those_that_browsers_name() -> None:
    SocketIO(cors=["*", "https://app.example:8443", "http://[::1]:80", "chrome-extension://abc"])


def test_a_second_one_at_the_same_path_is_refused() -> None:
    server = Server()
    server.mount(SocketIO())
    server.mount(SocketIO(path="/chat/"))
    for path in ("/socket.io", "/chat"):
        with pytest.raises(ValueError, match=f"already served: {path}"):
            server.mount(SocketIO(path=path))


def handler_with_unknown_types() -> Callable[..., Any]:
    # From 3.14 on, Python looks for the types only when somebody asks for them.
    lazy = "" if sys.version_info >= (3, 14) else "from __future__ import annotations\n"
    names: dict[str, Any] = {}
    exec(lazy + "def gone(socket: Absent, reason: Absent): ...", names)
    handler: Callable[..., Any] = names["gone"]
    return handler


def test_handlers_of_the_sockets_own_events_must_take_what_they_are_called_with() -> None:
    def one(socket: Any) -> None: ...

    def two(socket: Any, reason: Any) -> None: ...

    def three(socket: Any, reason: Any, rooms: Any, more: Any = None) -> None: ...

    def any_number(*args: Any) -> None: ...

    def acknowledging(socket: Any, *, ack: Any) -> None: ...

    class Methods:
        def gone(self, socket: Any, reason: Any) -> None: ...

    taken: list[tuple[str, Callable[..., Any]]] = [
        ("connect", one),
        ("connection", acknowledging),
        ("connect", any_number),
        ("disconnect", two),
        ("disconnect", Methods().gone),
        ("disconnect", print),
        ("disconnect", handler_with_unknown_types()),
        ("disconnecting", three),
    ]
    io = SocketIO()
    for event, handler in taken:
        io.on(event)(handler)
    refused: list[tuple[str, Callable[..., Any], str]] = [
        ("connect", two, "socket"),  # as in python-socketio, with the environ
        ("connection", two, "socket"),
        ("disconnect", one, "socket, reason"),  # as it is often written for Node's server
        ("disconnect", three, "socket, reason"),
        ("disconnecting", two, "socket, reason, rooms"),
    ]
    for event, handler, arguments in refused:
        for register in (io.on, io.once):
            with pytest.raises(TypeError, match=f"is called with {arguments}$"):
                register(event)(handler)
