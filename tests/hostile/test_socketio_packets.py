"""Packets of Socket.IO

What a client writes into a packet: types, names, numbers and nesting that no client of the library sends.
"""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from rfc6455_server.socketio import ConnectError, Socket
from rfc6455_server.socketio.packets import Decoder, PacketError, PacketOptions
from rfc6455_server.testing import settle
from tests.helpers import bytes_held, peak_bytes
from tests.hostile.flaws import flaw
from tests.test_socketio_server import Rig, rig

# Names that mean something to an interpreter, of this language or of the library's own.
SPECIAL_NAMES = [
    "__class__",
    "__dict__",
    "__init__",
    "__proto__",
    "constructor",
    "hasOwnProperty",
    "self",
    "socket",
    "emit",
    "rooms",
    "",
    " ",
    "%s%n",
    "{0.__class__}",
    "*",
    "[abc]",
    "on_any",
]


def with_places(count: int, announced: object) -> str:
    places = ",".join(f'{{"_placeholder":true,"num":{number}}}' for number in range(count))
    return f'5{announced}-["x",{places}]'


def decode(message: str, **options: Any) -> None:
    Decoder(PacketOptions(**options)).receive(message)


async def ended_alone(r: Rig, *messages: str | bytes) -> None:
    """Sends messages that end the session, and asserts that they reach no handler and nobody else."""
    other, client = await r.client(), await r.client()
    client.say(*messages)
    assert await client.recv_all() == []
    assert r.handled == []
    other.say('421["still there"]')
    await settle()
    assert r.handled == [["still there"]]
    assert len(r.io.sockets) == 1


@flaw(
    "CVE-2026-33151",
    "CVE-2026-69185",
    "CVE-2026-48804",
    what="announces attachments by the thousand, and the server waits for them and holds what comes",
    here="refused at the packet's text above `max_attachments`, however long the number",
)
@pytest.mark.parametrize("announced", [101, 1000, 10**9, "9" * 100_000])
def test_attachments_by_the_thousand_are_refused_before_the_first(announced: object) -> None:
    message = with_places(min(announced, 1000) if isinstance(announced, int) else 1000, announced)

    def receive() -> None:
        with pytest.raises(PacketError) as caught:
            decode(message)
        assert caught.value.slug == "too-many-attachments"

    receive()
    assert peak_bytes(receive) < 250_000


@flaw(
    "CVE-2026-69185",
    "CVE-2020-36049",
    what="sends large attachments and never the last one",
    here="all messages of a packet together are at most `max_packet_size`, with the objects of its JSON",
)
def test_a_packet_that_is_never_complete_holds_no_more_than_its_limit() -> None:
    def fill() -> Decoder:
        decoder = Decoder(PacketOptions(max_packet_size=3_000_000))
        decoder.receive(with_places(100, 100))
        with pytest.raises(PacketError) as caught:
            for _ in range(99):
                decoder.receive(bytes(100_000))
        assert caught.value.slug == "packet-too-large"
        return decoder

    assert bytes_held(fill) < 3_000_000

    lists = ",".join(["[]"] * 300_000)
    with pytest.raises(PacketError, match="too large"):
        decode(f'51-["x",{{"_placeholder":true,"num":0}},[{lists}]]', max_packet_size=20_000_000)


@flaw(
    "CVE-2022-2421",
    what="gives an attachment a place that is no number, and changes what the server reads as the packet",
    here="ends the session: each place is a number below the count, and occurs once",
)
@pytest.mark.parametrize(
    "number", ['"0"', '"splice"', '"__proto__"', "-1", "1", "0.0", "true", "null", "[0]", "{}"]
)
async def test_a_forged_place_of_an_attachment(number: str) -> None:
    async with rig() as r:
        await ended_alone(r, f'451-["x",{{"_placeholder":true,"num":{number}}}]', b"x")


@flaw(
    "CVE-2026-69185",
    what="nests arrays and objects until a parser, or a copy of its result, runs out of stack",
    here="ends the session above `max_nesting`; nobody else notices",
)
@pytest.mark.parametrize("levels", [257, 5000, 400_000])
@pytest.mark.parametrize("kind", ["[]", '{"a":}', '[{"a":}]'])
async def test_nesting(levels: int, kind: str) -> None:
    opening, closing = kind.partition(":")[::2] if ":" in kind else ("[", "]")
    opening += ":" if ":" in kind else ""
    levels = min(levels, 900_000 // len(kind))
    async with rig() as r:
        await ended_alone(r, '42["x",' + opening * levels + "1" + closing * levels + "]")


@flaw(
    "CVE-2023-32695",
    "CVE-2024-38355",
    what="sends a name or data of another type, and an exception that nobody catches ends the process",
    here="ends the session that sent it, as a violation: no exception, no traceback in the log",
)
@pytest.mark.parametrize(
    "message",
    [
        '42[{"toString":1}]',
        '42[{"toString":"rce","length":1}]',
        "42[[]]",
        "42[null]",
        "42[true,1]",
        "42[1e400]",
        '42{"0":"x"}',
        '42"x"',
        "42null",
        "42",
        "43[]",
        '431{"0":1}',
        "40[]",
        '40"x"',
        "40null",
        "401",
        "41[]",
        '41{"a":1}',
        "44[]",
        "44",
        '44"error"',
        "4",
        "45[]",
        "451-",
        '450-["x"]',
        '46["x"]',
        '461-["x"]',
        "42/x",
        '42/x["x"]',
        '42\\u0030["x"]',
        '42١["x"]',
        '42１["x"]',
        '42-1["x"]',
        '421_0["x"]',
        '4201["x"]',
        '429007199254740992["x"]',
        "42" + "9" * 500_000 + '["x"]',
        "43" + "9" * 500_000 + "[]",
    ],
    ids=lambda message: message[:20],
)
async def test_a_packet_of_other_types(message: str, caplog: pytest.LogCaptureFixture) -> None:
    async with rig() as r:
        await ended_alone(r, message)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@flaw(
    "socketio/socket.io#569",
    what="sends an event with the name of one of the library's own, to call its handlers",
    here="ends the session as a violation; the handlers of `disconnect` are called once, by its end",
)
@pytest.mark.parametrize("name", ["connect", "connect_error", "disconnect", "disconnecting", "newListener"])
@pytest.mark.parametrize("binary", [False, True])
async def test_a_forged_event_of_the_library(name: str, binary: bool) -> None:
    async with rig() as r:
        calls: list[tuple[object, ...]] = []

        @r.io.on("connect")
        def connected(socket: Socket) -> None:
            calls.append(("connect",))

        @r.io.on("disconnecting")
        def leaving(socket: Socket, reason: str, rooms: set[str]) -> None:
            calls.append(("disconnecting", reason))

        @r.io.on("disconnect")
        def left(socket: Socket, reason: str) -> None:
            calls.append(("disconnect", reason))

        client = await r.client()
        data = json.dumps([name, "forged"])
        if binary:
            client.say(f'451-{data[:-1]},{{"_placeholder":true,"num":0}}]', b"x")
        else:
            client.say(f"42{data}")
        assert await client.recv_all() == []
        await settle()
        assert calls == [("connect",), ("disconnecting", "parse error"), ("disconnect", "parse error")]


@flaw(
    "miguelgrinberg/python-socketio#333",
    what="sends events to a namespace before it is connected there, or after it was refused, past its checks",
    here="no handler sees them",
)
async def test_an_event_for_a_namespace_that_has_not_let_the_client_in() -> None:
    async with rig() as r:
        secret = r.io.of("/secret")
        seen: list[str] = []

        @secret.on_any
        def note(socket: Socket, event: str, *_: object) -> None:
            seen.append(event)

        @secret.use
        async def refuse(socket: Socket) -> None:
            raise ConnectError("no")

        client = await r.client()
        client.say('42/secret,["early"]', "40/secret,", '42/secret,["while it decides"]')
        assert await client.recv() == '44/secret,{"message":"no"}'
        client.say('42/secret,["late"]', '43/secret,1["late"]', '42/other,["x"]')
        await settle()
        assert seen == []
        assert len(r.io.sockets) == 1  # it may have sent them before it knew


@flaw(
    "socketio/socket.io-redis-emitter#137",
    what="names an event, a namespace or a field like an attribute of all objects, such as `__proto__`",
    here="is a name like any other: it finds nothing but what the application registered under it",
)
@pytest.mark.parametrize("name", SPECIAL_NAMES)
async def test_names_of_attributes(name: str, caplog: pytest.LogCaptureFixture) -> None:
    @dataclass
    class Point:
        x: int

    async with rig() as r:
        points: list[Point] = []
        r.io.of("/of-{id}")

        @r.io.on("point")
        def point(socket: Socket, data: Point) -> None:
            points.append(data)

        quoted = json.dumps(name)
        client = await r.client(auth={name: {name: 1}})
        (socket,) = r.io.sockets.values()
        assert socket.handshake.auth == {name: {name: 1}}
        client.say(f'421["point",{{"x":1,{quoted}:2}}]', f"422[{quoted},{{{quoted}:{quoted}}}]")
        assert "only fields of Point" in await client.recv()
        await settle()
        assert points == []
        assert r.handled[-1] == [name, {name: name}]

        @r.io.on(name)
        def answer(socket: Socket, *_: object) -> str:
            return "registered"

        client.say(f"423[{quoted}]")
        assert await client.recv() == '433["registered"]'
        client.say(f"40/{name}x,")
        assert json.loads((await client.recv()).partition(",")[2]) == {"message": "Invalid namespace"}
        client.say(f"40/of-{name}x,")
        assert (await client.recv()).startswith(f"40/of-{name}x,")
        assert r.io.namespaces[f"/of-{name}x"].parameters == {"id": f"{name}x"}
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
