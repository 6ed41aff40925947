"""The life of a Socket.IO socket: middlewares, the order of its handlers, their answers, and its end."""

import asyncio
import gc
import json
from typing import Any

import pytest

from rfc6455_server import Server
from rfc6455_server.socketio import Ack, ConnectError, EventError, Socket, SocketIO
from rfc6455_server.testing import ManualClock, TestClient, settle
from tests.server_helpers import serving
from tests.test_socketio import script
from tests.test_socketio_server import Client, Rig, rig


class Gate:
    """Holds handlers back until it is opened, and counts those that it holds."""

    def __init__(self) -> None:
        self.waiting = 0
        self._opened = asyncio.Event()

    async def wait(self) -> None:
        self.waiting += 1
        try:
            await self._opened.wait()
        finally:
            self.waiting -= 1

    def open(self) -> None:
        self._opened.set()


def connect_answer(message: Any) -> dict[str, Any]:
    assert message.startswith("40{"), message
    answer: dict[str, Any] = json.loads(message[2:])
    return answer


# Middlewares.


async def test_a_client_that_a_middleware_refuses_leaves_the_rooms_that_it_joined() -> None:
    async with rig() as r:
        seen: list[Socket] = []

        @r.io.use
        def join(socket: Socket) -> None:
            seen.append(socket)
            socket.join("lobby")

        @r.io.use
        async def refuse(socket: Socket) -> None:
            await asyncio.sleep(0)
            raise ConnectError("no")

        client = await Client.open(r.test)
        assert await client.recv() == '44{"message":"no"}'
        assert "lobby" not in r.io.rooms
        r.io.to("lobby").emit("secret")
        seen[0].join("lobby")  # too late: nothing would ever make it leave
        assert "lobby" not in r.io.rooms
        await client.ws.close()
        assert await client.recv_all() == []


@pytest.mark.parametrize("way", ["close", "leave", "vanish"])
async def test_a_client_that_goes_while_a_middleware_decides_is_not_let_in(way: str) -> None:
    async with rig(ping_interval=25, ping_timeout=20) as r:
        gate = Gate()
        connected: list[Socket] = []

        @r.io.use
        async def slow(socket: Socket) -> None:
            socket.join("lobby")
            try:
                await gate.wait()
            except asyncio.CancelledError:
                pass  # a middleware that does not give up

        r.io.on("connect")(connected.append)
        client = await Client.open(r.test)
        await settle()
        assert gate.waiting == 1
        if way == "close":
            await client.ws.close()
        elif way == "leave":
            client.say("41")
        else:
            r.test.transports[0].vanish()
            await r.clock.advance(46)
        await settle()
        assert "lobby" not in r.io.rooms
        gate.open()
        await settle()
        assert r.io.sockets == {}
        assert connected == []
        if way == "leave":
            client.say("40")
            answer = connect_answer(await client.recv())
            assert [socket.id for socket in connected] == [answer["sid"]]


async def test_a_second_attempt_is_decided_on_its_own() -> None:
    async with rig() as r:
        gates = {"first": Gate(), "second": Gate()}

        @r.io.use
        async def slow(socket: Socket) -> None:
            await gates[socket.handshake.auth["name"]].wait()

        client = await Client.open(r.test, auth={"name": "first"})
        await settle()
        client.say("41", '40{"name":"second"}')
        await settle()
        assert [gate.waiting for gate in gates.values()] == [0, 1]  # the first one was cancelled
        gates["first"].open()
        await settle()
        assert r.io.sockets == {}
        gates["second"].open()
        answer = connect_answer(await client.recv())
        assert list(r.io.sockets) == [answer["sid"]]


async def test_an_attempt_that_does_not_give_up_cannot_decide_about_the_next_one() -> None:
    async with rig() as r:
        gates = {"first": Gate(), "second": Gate()}

        @r.io.use
        async def slow(socket: Socket) -> None:
            gate = gates[socket.handshake.auth["name"]]
            try:
                await gate.wait()
            except asyncio.CancelledError:
                await gate.wait()

        client = await Client.open(r.test, auth={"name": "first"})
        await settle()
        client.say("41", '40{"name":"second"}')
        await settle()
        assert [gate.waiting for gate in gates.values()] == [1, 1]
        gates["first"].open()
        await settle()
        assert r.io.sockets == {}
        gates["second"].open()
        connect_answer(await client.recv())
        assert [socket.handshake.auth["name"] for socket in r.io.fetch_sockets()] == ["second"]


async def test_a_client_that_was_refused_only_is_closed_in_time() -> None:
    async with rig(connect_timeout=45) as r:

        @r.io.use
        def refuse(socket: Socket) -> None:
            raise ConnectError("no")

        client = await Client.open(r.test)
        assert await client.recv() == '44{"message":"no"}'
        ending = asyncio.create_task(client.recv_all())
        await r.clock.advance(44)
        client.say("3")
        await r.clock.advance(2)
        assert client.ws.closed is not None
        await ending


# The handlers of `connect`.


async def test_no_handler_runs_before_connect_has_ended() -> None:
    async with rig() as r:
        gate = Gate()
        order: list[str] = []

        @r.io.on("connect")
        async def connected(socket: Socket) -> None:
            socket.emit("hello")
            await gate.wait()
            order.append("connect")

        @r.io.on("beside", concurrent=True)
        def beside(socket: Socket) -> None:
            order.append("beside")

        @r.io.on("plain")
        def plain(socket: Socket) -> None:
            order.append("plain")

        client = await r.client()
        client.say('42["plain"]', '42["beside"]')
        await settle()
        assert (order, r.handled) == ([], [])
        gate.open()
        await settle()
        assert order[0] == "connect"
        assert sorted(order[1:]) == ["beside", "plain"]


async def test_the_client_is_connected_when_connect_has_ended_or_something_was_sent() -> None:
    async with rig() as r:
        gate = Gate()

        @r.io.on("connect")
        async def connected(socket: Socket) -> None:
            socket.join("room")
            await gate.wait()
            socket.emit("welcome")

        first, second, third = [await Client.open(r.test) for _ in range(3)]
        await settle()
        r.io.to("room").emit("before")
        for client in (first, second):
            connect_answer(await client.recv())
            assert await client.event() == ["before"]
        gate.open()
        assert await first.event() == ["welcome"]
        fourth = await r.client()
        assert await fourth.event() == ["welcome"]
        connect_answer(await third.recv())
        assert await third.event() == ["before"]


async def test_an_acknowledgement_may_be_awaited_in_connect() -> None:
    async with rig() as r:
        names: list[str] = []

        @r.io.on("connect")
        async def connected(socket: Socket) -> None:
            names.append(await socket.emit_with_ack("who?"))

        client = await r.client()
        assert await client.recv() == '421["who?"]'
        client.say('431["ann"]')
        await settle()
        assert names == ["ann"]


async def test_connect_may_refuse_the_client(caplog: pytest.LogCaptureFixture) -> None:
    async with rig() as r:
        called: list[str] = []

        @r.io.on("connect")
        async def check(socket: Socket) -> None:
            socket.join("lobby")
            if socket.handshake.auth.get("hear"):
                socket.emit("hello")
            await asyncio.sleep(0)
            if not socket.handshake.auth.get("name"):
                raise ConnectError("no name", {"code": 1})

        @r.io.on("connect")
        async def after(socket: Socket) -> None:
            called.append(socket.handshake.auth["name"])

        client = await Client.open(r.test)
        client.say('42["never"]')
        assert await client.recv() == '44{"message":"no name","data":{"code":1}}'
        await settle()
        assert (r.io.sockets, list(r.io.rooms), r.handled) == ({}, [], [])
        assert r.reasons == ["server namespace disconnect"]
        client.say('40{"name":"ann"}')
        connect_answer(await client.recv())
        client = await r.client(auth={"hear": True})
        assert await client.event() == ["hello"]
        assert await client.recv() == "41"  # it knew already that it was connected
        assert called == ["ann"]
        assert "handler failed" not in caplog.text


async def test_a_socket_that_connect_disconnects_was_connected() -> None:
    async with rig() as r:

        @r.io.on("connect")
        async def leave(socket: Socket) -> None:
            socket.disconnect(close=socket.handshake.auth.get("close", False))

        client = await r.client()
        assert await client.recv() == "41"
        client = await r.client(auth={"close": True})
        assert await client.recv_all() == ["41"]


async def test_the_official_client_sees_a_refusal_in_connect_as_connect_error() -> None:
    io, server = SocketIO(), Server()
    server.mount(io)

    @io.on("connect")
    async def check(socket: Socket) -> None:
        if socket.handshake.auth.get("token") != "s3cret":
            raise ConnectError("who are you?", {"code": 7})

    async with serving(server) as url, script(url, {}, "refused") as run:
        assert await run.lines() == [["refused", "who are you?", {"code": 7}, False], ["connected", True]]


# The end.


async def test_a_handler_that_hangs_does_not_hold_up_disconnect() -> None:
    async with rig() as r:
        gate = Gate()
        events: list[str] = []

        @r.io.on("hang")
        async def hang(socket: Socket) -> None:
            await gate.wait()
            events.append("went on")

        @r.io.on("disconnecting")
        async def leaving(socket: Socket, reason: str, rooms: set[str]) -> None:
            events.append("disconnecting")
            await gate.wait()

        @r.io.on("disconnect")
        async def gone(socket: Socket, reason: str) -> None:
            events.append("disconnect")

        client = await r.client()
        client.say('42["hang"]')
        await settle()
        await client.ws.close()
        await settle()
        assert r.reasons == ["transport close"]
        assert events == ["disconnecting", "disconnect"]
        gate.open()
        await settle()
        assert events[2:] == ["went on"]


async def test_disconnect_waits_for_connect() -> None:
    async with rig() as r:
        gate = Gate()
        events: list[str] = []

        @r.io.on("connect")
        async def connected(socket: Socket) -> None:
            socket.on("disconnect")(lambda socket, reason: events.append("own disconnect"))
            socket.emit("hello")
            await gate.wait()
            events.append("connect")

        @r.io.on("disconnect")
        def gone(socket: Socket, reason: str) -> None:
            events.append("disconnect")

        client = await r.client()
        client.say('42["never"]')
        await settle()
        await client.ws.close()
        await settle()
        assert (events, r.io.sockets) == ([], {})
        gate.open()
        await settle()
        assert events == ["connect", "disconnect", "own disconnect"]
        assert r.handled == []


async def test_connect_of_a_recovered_socket_waits_for_disconnect_of_its_predecessor() -> None:
    async with rig(recovery=60) as r:
        gate = Gate()
        events: list[Any] = []

        @r.io.on("connect")
        def connected(socket: Socket) -> None:
            events.append(("connect", socket.recovered))

        @r.io.on("disconnect")
        async def gone(socket: Socket, reason: str) -> None:
            events.append("disconnect")
            await gate.wait()
            events.append("gone")

        client = await Client.open(r.test)
        answer = connect_answer(await client.recv())
        r.test.transports[0].vanish()
        back = await Client.open(r.test, auth={"pid": answer["pid"]})
        assert connect_answer(await back.recv())["sid"] == answer["sid"]
        back.say('42["event"]')
        await settle()
        assert events == [("connect", False), "disconnect"]
        assert r.handled == []
        gate.open()
        await settle()
        assert events == [("connect", False), "disconnect", "gone", ("connect", True)]
        assert r.handled == [["event"]]
        assert r.io.of("/")._endings == {}


def slow_handler(r: Rig) -> tuple[Gate, list[int]]:
    """Registers a handler of "slow"; returns the gate at which it waits, and what it has handled."""
    gate = Gate()
    handled: list[int] = []

    @r.io.on("slow")
    async def slow(socket: Socket, n: int) -> None:
        await gate.wait()
        handled.append(n)

    return gate, handled


async def test_what_a_client_sent_before_it_left_is_still_handled() -> None:
    async with rig() as r:
        gate, handled = slow_handler(r)
        client = await r.client()
        client.say(*(f'42["slow",{n}]' for n in range(3)), "41")
        await settle()
        assert r.reasons == ["client namespace disconnect"]
        gate.open()
        await settle()
        assert handled == [0, 1, 2]


@pytest.mark.parametrize("way", ["close", "kick"])
async def test_what_waits_is_dropped_with_the_connection(way: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with rig() as r:
        gate, handled = slow_handler(r)
        client = await r.client()
        client.say(*(f'42["slow",{n}]' for n in range(4)))
        await settle()
        (socket,) = r.io.fetch_sockets()
        session = socket._client.session
        held = session._inflow.pending
        if way == "close":
            await client.ws.close()
        else:
            socket.disconnect()
        await settle()
        assert 0 < session._inflow.pending <= held / 4  # of the event that is being handled
        gate.open()
        await settle()
        assert handled == [0]
        assert session._inflow.pending == 0
        assert caplog.text.count("unhandled events dropped") == 1
        assert "events=3" in caplog.text


async def test_the_rooms_of_a_socket_that_has_ended() -> None:
    async with rig() as r:
        seen: list[Any] = []

        @r.io.on("disconnecting")
        async def leaving(socket: Socket, reason: str, rooms: set[str]) -> None:
            seen.append(("disconnecting", socket.rooms, rooms, r.io.to("a").fetch_sockets()))
            socket.to("a").emit("left", socket.id)

        client, other = await r.client(), await r.client()
        socket, stays = r.io.fetch_sockets()
        for one in (socket, stays):
            one.join("a", "b")
        await client.ws.close()
        assert await other.event() == ["left", socket.id]
        rooms = {socket.id, "a", "b"}
        assert seen == [("disconnecting", rooms, rooms, [stays])]


# Several handlers, and their answers.


async def test_handlers_of_one_event_run_in_the_order_of_registering() -> None:
    async with rig() as r:
        order: list[str] = []

        @r.io.on("x")
        async def first(socket: Socket) -> None:
            await asyncio.sleep(0)
            order.append("first")

        @r.io.on("x")
        def failing(socket: Socket) -> None:
            order.append("failing")
            raise ZeroDivisionError

        @r.io.once("x")
        def only_once(socket: Socket) -> str:
            order.append("once")
            return "one"

        @r.io.on("x")
        def last(socket: Socket) -> str:
            order.append("last")
            return "two"

        client = await r.client()
        client.say('427["x"]', '428["x"]')
        assert [await client.recv(), await client.recv()] == ['437["one"]', '438["two"]']
        await settle()
        assert order == ["first", "failing", "once", "last", "first", "failing", "last"]
        r.io.off("x", failing)
        r.io.off("x", only_once)  # it is gone already
        client.say('429["x"]')
        assert await client.recv() == '439["two"]'
        assert order[7:] == ["first", "last"]
        r.io.off("x")
        r.io.off("unknown")
        order.clear()
        client.say('42["x"]')
        await settle()
        assert order == []


async def test_which_acknowledgement_is_sent() -> None:
    async with rig() as r:
        results: dict[str, list[Any]] = {
            "nothing": [None],
            "nothing twice": [None, None],
            "no values": [()],
            "several": [(1, 2)],
            "the first": [None, 0, 1],
            "failed": [ZeroDivisionError],
            "failed first": [ZeroDivisionError, None],
            "failed last": [None, ZeroDivisionError],
            "failed, then": [ZeroDivisionError, "fine"],
        }
        for name, values in results.items():
            for value in values:

                @r.io.on(name)
                async def handler(socket: Socket, value: Any = value) -> Any:
                    if value is ZeroDivisionError:
                        raise value
                    return value

        @r.io.on("end")
        def end(socket: Socket) -> bool:
            return True

        client = await r.client()
        for id_, name in enumerate(results):
            client.say(f"42{id_}" + json.dumps([name]))
        client.say('42["several"]', '4299["end"]')
        answers = []
        while (answer := await client.recv()) != "4399[true]":
            answers.append(answer)
        assert answers == ["430[]", "431[]", "432[]", "433[1,2]", "434[0]", '438["fine"]']


async def test_concurrent_handlers_beside_others_of_the_same_event() -> None:
    async with rig() as r:
        gate = Gate()
        order: list[str] = []

        @r.io.on("x", concurrent=True)
        async def beside(socket: Socket) -> str:
            await gate.wait()
            return "beside"

        @r.io.on("x")
        async def plain(socket: Socket) -> None:
            order.append("plain")

        @r.io.on("y", concurrent=True)
        @r.io.on("y", concurrent=True)
        async def both(socket: Socket) -> None:
            await gate.wait()

        client = await r.client()
        client.say('421["x"]', '422["y"]', '42["z"]')
        await settle()
        assert order == ["plain"]
        assert gate.waiting == 3
        assert ["z"] in r.handled
        gate.open()
        assert sorted([await client.recv(), await client.recv()]) == ['431["beside"]', "432[]"]


async def test_a_handler_without_an_acknowledgement() -> None:
    async with rig() as r:

        @r.io.on("quiet", ack=False)
        def quiet(socket: Socket) -> str:
            return "not sent"

        @r.io.on("failing", ack=False)
        def failing(socket: Socket) -> str:
            raise ZeroDivisionError

        @r.io.on("failing")
        @r.io.on("end")
        def end(socket: Socket) -> None:
            return None

        client = await r.client()
        client.say('421["quiet"]', '422["failing"]', '423["end"]')
        assert [await client.recv(), await client.recv()] == ["432[]", "433[]"]


async def test_an_acknowledgement_before_the_handler_ends() -> None:
    async with rig() as r:
        gate = Gate()
        answered: list[bool] = []
        kept: list[Ack] = []

        @r.io.on("save", concurrent=True)
        async def save(socket: Socket, name: str, *, ack: Ack) -> str:
            answered.extend([ack.wanted, ack("queued", name), ack("twice"), ack.wanted])
            await gate.wait()
            return "not sent"

        @r.io.on("later", ack=False)
        def later(socket: Socket, *, ack: Ack) -> None:
            kept.append(ack)

        client = await r.client()
        client.say('421["save","a"]', '422["save","b"]', '42["save","c"]', '423["later"]')
        assert [await client.recv(), await client.recv()] == ['431["queued","a"]', '432["queued","b"]']
        await settle()
        assert gate.waiting == 3  # the answers came before the ends
        assert answered == [True, True, False, False] * 2 + [False] * 4
        gate.open()
        await settle()
        assert kept[0]()
        assert await client.recv() == "433[]"
        client.say('424["later"]')
        await settle()
        await client.ws.close()
        await settle()
        assert not kept[1]("too late")


async def test_an_acknowledgement_that_cannot_be_encoded_may_be_replaced() -> None:
    async with rig() as r:

        @r.io.on("x")
        def handler(socket: Socket, *, ack: Ack) -> None:
            with pytest.raises(TypeError):
                ack(object())
            assert ack("fine")

        client = await r.client()
        client.say('421["x"]')
        assert await client.recv() == '431["fine"]'


async def test_a_callable_without_a_signature_is_a_handler() -> None:
    async with rig() as r:
        r.io.on("x")(print)
        r.io.on("x")(dict)  # its signature cannot be read
        r.io.on("x")(lambda *_: "fine")
        client = await r.client()
        client.say('421["x"]')
        assert await client.recv() == '431["fine"]'


async def test_a_catch_all_may_answer_what_has_no_handler() -> None:
    r = Rig()
    asked: list[str] = []

    @r.io.on_any
    async def answer(socket: Socket, event: str, *args: Any) -> Any:
        asked.append(event)
        return {"unknown": event} if event != "ignored" else None

    @r.io.on_any
    async def second(socket: Socket, event: str, *args: Any) -> Any:
        return "second"

    @r.io.on("known")
    async def known(socket: Socket) -> str:
        return "known"

    async with r.test:
        client = await r.client()
        client.say('421["new"]', '422["known"]', '423["ignored"]', '42["new"]')
        heard = [await client.recv() for _ in range(3)]
        assert heard == ['431[{"unknown":"new"}]', '432["known"]', '433["second"]']
        r.io.off_any(second)
        client.say('424["ignored"]', '425["known"]')
        assert await client.recv() == '435["known"]'  # a result of None is no answer
        r.io.off_any()
        asked.clear()
        client.say('426["new"]', '427["known"]')
        assert await client.recv() == '437["known"]'
        assert asked == []


# The middlewares of a socket, and refused events.


async def test_a_middleware_of_a_socket_refuses_events() -> None:
    async with rig() as r:
        gate = Gate()

        @r.io.on("connect")
        def connected(socket: Socket) -> None:
            if socket.handshake.auth.get("free"):
                return

            @socket.use
            async def check(socket: Socket, event: str, *args: Any) -> None:
                if event == "slow":
                    await gate.wait()
                if event == "bug":
                    raise ZeroDivisionError
                if args == ("bad",):
                    raise EventError("not allowed", {"event": event})

            @socket.use
            def second(socket: Socket, event: str, *args: Any) -> None:
                if args == ("worse",):
                    raise EventError("never")

        @r.io.on("say")
        def say(socket: Socket, text: str) -> str:
            return text

        @r.io.on("beside", concurrent=True)
        def beside(socket: Socket, *args: Any) -> str:
            return "beside"

        client, other = await r.client(), await r.client(auth={"free": True})
        client.say('421["say","fine"]', '422["say","bad"]', '42["say","bad"]', '423["say","worse"]')
        client.say('424["bug"]', '42["unknown","bad"]', '425["beside","bad"]')
        heard = sorted([await client.recv() for _ in range(7)])
        refused = '{"message":"not allowed","data":{"event":"%s"}}'
        assert heard == [
            '42["error",{"event":"say","error":' + refused % "say" + "}]",
            '42["error",{"event":"unknown","error":' + refused % "unknown" + "}]",
            '431["fine"]',
            '432[{"error":' + refused % "say" + "}]",
            '433[{"error":{"message":"never"}}]',
            '434[{"error":{"code":"internal","message":"internal error"}}]',
            '435[{"error":' + refused % "beside" + "}]",
        ]
        assert r.handled == [["say", "fine"]]
        other.say('421["say","bad"]')
        assert await other.recv() == '431["bad"]'
        client.say('421["slow"]', '422["say","in order"]', '423["beside"]')
        assert await client.recv() == '433["beside"]'
        assert gate.waiting == 1
        gate.open()
        assert await client.recv() == '432["in order"]'


async def test_a_middleware_of_a_socket_sees_events_without_handlers() -> None:
    async with rig() as r:
        r.io.off_any()
        client = await r.client()
        seen: list[Any] = []
        (socket,) = r.io.fetch_sockets()
        socket.use(lambda socket, *event: seen.append(event))
        client.say('42["unknown",1]', '421["unknown"]')
        await settle()
        assert seen == [("unknown", 1), ("unknown",)]


async def test_a_handler_may_refuse_an_event(caplog: pytest.LogCaptureFixture) -> None:
    async with rig() as r:

        @r.io.on_any
        def check(socket: Socket, event: str, *args: Any) -> None:
            if event == "unknown":
                raise EventError("unknown event")

        @r.io.on("say")
        def say(socket: Socket, text: str) -> None:
            raise EventError("too long", [len(text)])

        @r.io.on("say")
        def after(socket: Socket, text: str) -> str:
            return "not sent"

        @r.io.on("quiet", ack=False)
        def quiet(socket: Socket) -> None:
            raise EventError("no")

        @r.io.on("odd")
        def odd(socket: Socket) -> None:
            raise EventError("odd", object())

        client = await r.client()
        client.say('421["say","abc"]', '42["say","abc"]', '422["quiet"]', '423["unknown"]', '42["unknown"]')
        heard = [await client.recv() for _ in range(5)]
        assert heard == [
            '431[{"error":{"message":"too long","data":[3]}}]',
            '42["error",{"event":"say","error":{"message":"too long","data":[3]}}]',
            '432[{"error":{"message":"no"}}]',
            '433[{"error":{"message":"unknown event"}}]',
            '42["error",{"event":"unknown","error":{"message":"unknown event"}}]',
        ]
        assert "handler failed" not in caplog.text
        client.say('424["odd"]', '425["quiet"]')
        assert await client.recv() == '435[{"error":{"message":"no"}}]'
        assert "handler=odd" in caplog.text


async def test_handlers_of_one_socket() -> None:
    async with rig() as r:
        order: list[Any] = []

        def own(socket: Socket, *args: Any) -> None:
            order.append(("own", *args))

        @r.io.on("connect")
        async def connected(socket: Socket) -> None:
            await asyncio.sleep(0)
            with pytest.raises(ValueError, match="connected"):
                socket.on("connect")
            if not socket.handshake.auth:
                return
            socket.on("x")(own)
            socket.once("x")(lambda socket, *args: order.append(("once", *args)))
            socket.on_any(lambda socket, event, *args: order.append(("any", event)))
            socket.on("disconnect")(lambda socket, reason: order.append(reason))

        @r.io.on("x")
        def shared(socket: Socket, *args: Any) -> None:
            order.append(("shared", *args))

        client = await Client.open(r.test, auth={"own": True})
        client.say('42["x",1]')  # it waits for connect, and so for the handlers that this registers
        await client.recv()
        other = await r.client()
        await settle()
        assert order == [("any", "x"), ("shared", 1), ("own", 1), ("once", 1)]
        order.clear()
        other.say('42["x",2]')
        client.say('42["x",3]')
        await settle()
        assert sorted(order, key=str) == [("any", "x"), ("own", 3), ("shared", 2), ("shared", 3)]
        (socket,) = [socket for socket in r.io.fetch_sockets() if socket.handshake.auth]
        order.clear()
        socket.off("x", own)
        socket.off_any()
        client.say('42["x",4]')
        await settle()
        assert order == [("shared", 4)]
        await client.ws.close()
        await settle()
        assert order[1:] == ["transport close"]


async def test_what_is_sent_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    async with rig(recovery=60) as r:
        seen: list[Any] = []

        def own(socket: Socket, event: str, *args: Any) -> None:
            seen.append(("own", socket.id, event, *args))

        clients = [await r.client() for _ in range(3)]
        a, b, c = r.io.fetch_sockets()
        b.on_any_outgoing(own)
        a.join("room")
        b.join("room")
        r.io.emit("all", 1)
        r.io.to("room").except_(a.id).emit("room", 2)
        a.emit("a")
        asking = asyncio.create_task(b.emit_with_ack("b", b"x"))
        await settle()
        assert seen == [("own", b.id, "all", 1), ("own", b.id, "room", 2), ("own", b.id, "b", b"x")]
        seen.clear()
        asking.cancel()

        @r.io.on_any_outgoing
        def shared(socket: Socket, event: str, *args: Any) -> None:
            seen.append((socket.id, event, *args))
            raise ZeroDivisionError

        r.io.to("room").emit("x", 1)
        assert seen == [(a.id, "x", 1), (b.id, "x", 1), ("own", b.id, "x", 1)]
        assert caplog.text.count("handler failed") == 2
        assert [(await clients[2].event())[0], r.io.of("/").position] == ["all", 4]
        seen.clear()
        with pytest.raises(TypeError):
            r.io.emit("x", object())
        assert seen == []
        b.off_any_outgoing(own)
        r.io.off_any_outgoing()
        r.io.emit("x")
        assert seen == []
        b.on_any_outgoing(own)
        await clients[1].ws.close()
        await settle()
        r.io.emit("x")
        b.on_any_outgoing(own)  # too late
        assert (seen, r.io.of("/").watchers) == ([], set())

        async def later(*_: Any) -> None: ...

        with pytest.raises(TypeError, match="plain"):
            r.io.on_any_outgoing(later)
        c.disconnect()


# Targets.


async def test_a_target_of_no_rooms_is_nobody() -> None:
    async with rig(recovery=60) as r:
        client = await r.client()
        (socket,) = r.io.fetch_sockets()
        rooms: list[str] = []
        recovery = r.io.of("/").recovery
        assert recovery is not None
        for nobody in (r.io.to(*rooms), r.io.in_(*rooms), r.io.except_("x").to(*rooms), socket.to(*rooms)):
            nobody.emit("x")
            nobody.volatile.emit("x")
            assert await nobody.emit_with_ack("x") == []
            assert nobody.fetch_sockets() == []
            nobody.sockets_join("room")
            nobody.sockets_leave("room")
            nobody.disconnect_sockets()
            with pytest.raises(TypeError):
                nobody.emit("x", object())
        assert recovery.size == 0  # nobody can miss it
        assert list(r.io.rooms) == []
        assert r.io.to(*rooms).to(socket.id).fetch_sockets() == [socket]
        assert r.io.except_(*rooms).fetch_sockets() == [socket]
        r.io.emit("end")
        assert (await client.event())[0] == "end"


# The server.


async def test_a_spawned_task_that_fails_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async with rig() as r:

        async def failing() -> None:
            raise ZeroDivisionError("reason")

        r.io.spawn(failing())
        await settle()
        with pytest.raises(ZeroDivisionError):
            await r.io.spawn(failing())
        gc.collect()  # asyncio would now log an exception that nobody has retrieved
        assert len(caplog.records) == caplog.text.count("spawned task failed") == 2
        assert caplog.text.count("ZeroDivisionError: reason") == 2
        assert "failing" in caplog.text
        r.io.spawn(failing()).cancel()  # before it has begun


async def test_an_endless_task_does_not_hold_up_stop() -> None:
    r = Rig()
    ended: list[str] = []

    async def endless(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async with r.test:
        r.io.spawn(endless("task"))
        await settle()
        await r.server.stop()  # the clock stands still
        assert ended == ["task"]


async def test_stop_waits_for_handlers_before_it_cancels_tasks(caplog: pytest.LogCaptureFixture) -> None:
    r = Rig()
    gate = Gate()
    ended: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("task")

    async def stubborn() -> None:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            ended.append("stubborn")
            await gate.wait()

    @r.io.on("disconnect")
    async def gone(socket: Socket, reason: str) -> None:
        await gate.wait()
        ended.append("handler")

    async with r.test:
        await r.client()
        r.io.spawn(endless())
        task = r.io.spawn(stubborn())
        await settle()
        stopping = asyncio.create_task(r.server.stop())
        await r.clock.advance(4)
        assert (ended, r.reasons) == ([], ["server shutting down"])
        await r.clock.advance(1.1)
        assert sorted(ended) == ["stubborn", "task"]
        assert not stopping.done()
        await r.clock.advance(5)
        await stopping
        assert "did not end" in caplog.text
        gate.open()
        await task


async def test_what_waits_for_connect_is_dropped_when_the_server_stops() -> None:
    r = Rig()
    gate = Gate()

    @r.io.on("connect")
    async def connected(socket: Socket) -> None:
        socket.emit("hello")
        await gate.wait()

    async with r.test:
        client = await r.client()
        client.say('42["never"]', "41")
        await settle()
        assert (gate.waiting, r.io.sockets) == (1, {})
        stopping = asyncio.create_task(r.server.stop())
        await r.clock.advance(5.1)
        await stopping
        assert gate.waiting == 0
        await settle()
        assert r.handled == []


async def test_auth_is_as_the_client_sent_it_unless_recovery_uses_it() -> None:
    for options, kept in ({}, {"pid": "a", "offset": "b", "x": 1}), ({"recovery": 60}, {"x": 1}):
        async with rig(**options) as r:
            await r.client(auth={"pid": "a", "offset": "b", "x": 1})
            assert r.io.fetch_sockets()[0].handshake.auth == kept


async def test_the_test_client_stops_a_server_whose_handler_hangs() -> None:
    io, clock = SocketIO(), ManualClock()
    server = Server(clock=clock)
    server.mount(io)
    ended: list[str] = []

    @io.on("connect")
    async def hang(socket: Socket) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(socket.id)

    async with TestClient(server, clock) as test:
        await Client.open(test)
        await settle()
    assert len(ended) == 1


async def test_a_wrong_number_of_arguments_is_the_clients_fault_and_no_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with rig() as r:

        @r.io.on("one")
        def one(socket, argument):  # type: ignore[no-untyped-def]
            return argument

        @r.io.on("broken")
        def broken(socket, argument):  # type: ignore[no-untyped-def]
            raise TypeError("its own")

        client = await r.client()
        client.say('421["one"]', '42["one",1,2]', '422["one",3]')
        reason = "wrong arguments: missing a required argument: 'argument'"
        assert await client.recv() == f'431[{{"error":{{"code":"invalid","message":"{reason}"}}}}]'
        reason = "wrong arguments: too many positional arguments"
        answer = f'{{"event":"one","error":{{"code":"invalid","message":"{reason}"}}}}'
        assert await client.recv() == f'42["error",{answer}]'
        assert await client.recv() == "432[3]"
        assert "handler failed" not in caplog.text
        client.say('42["broken",1]')
        await settle()
        assert "its own" in caplog.text


async def test_what_a_middleware_emits_is_not_sent_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with rig() as r:

        @r.io.use
        def greet(socket: Socket) -> None:
            socket.emit("too early")

        client = await r.client()
        r.io.emit("next")
        assert await client.event() == ["next"]
        assert "not sent: the client is not connected yet" in caplog.text
