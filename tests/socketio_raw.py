"""Raw requests and packets, as no official client sends them, to a server with the repertoire's instances.

What both protocols' own test suites ask is among them. `raw_transcript` returns what the server answers, step
by step; random ids are replaced.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

from rfc6455_server import ConnectionClosedError, WebSocket, connect
from tests.server_helpers import PATIENCE

Steps = dict[str, Any]
Ports = dict[str, int]

POLLING = "/socket.io/?EIO=4&transport=polling"
WEBSOCKET = "/socket.io/?EIO=4&transport=websocket"
UPGRADE_FIELDS = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
QUIET = 4.0
"""Seconds without a message after which a transcript says that nothing came."""

_ID = re.compile(r'((?:sid|pid)\\?":\\?")[^"\\]+')


_BINARY = '["echo",{"_placeholder":true,"num":0}]'


class Answer(NamedTuple):
    """The answer to a request."""

    status: int
    fields: dict[str, str]
    body: str

    @property
    def shown(self) -> list[Any]:
        """The status and the body, without random ids."""
        return [self.status, _ID.sub(r"\1…", self.body)]

    def named(self, *names: str) -> dict[str, str | None]:
        return {name: self.fields.get(name) for name in names}


async def request(
    port: int,
    path: str,
    method: str = "GET",
    body: str | bytes | None = None,
    fields: Iterable[tuple[str, str]] | dict[str, str] = (),
) -> Answer:
    """Sends a request, and reads its answer until the server closes, or until the switch to WebSocket."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    pairs = list(fields.items()) if isinstance(fields, dict) else list(fields)
    if not any(name == "Connection" for name, _ in pairs):
        pairs.append(("Connection", "close"))
    content = body.encode() if isinstance(body, str) else body
    if content is not None and not any(name == "Transfer-Encoding" for name, _ in pairs):
        pairs.append(("Content-Length", str(len(content))))
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in pairs)]
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode() + (content or b""))
        async with asyncio.timeout(PATIENCE):
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
            except asyncio.IncompleteReadError:
                return Answer(0, {}, "closed without an answer")
            status = int(head.split(" ", 2)[1])
            rest = b"" if status == 101 else await reader.read()
    finally:
        writer.close()
    found = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
    found = {name.lower(): value for name, value in found.items()}
    if found.get("transfer-encoding") == "chunked":
        rest = b"".join(rest.split(b"\r\n")[1::2])
    return Answer(status, found, rest.decode(errors="replace"))


async def round_trip(port: int) -> None:
    """Waits until the server has handled what it was sent before."""
    await request(port, "/other/")


class Polling:
    """A session over polling."""

    def __init__(self, port: int, sid: str) -> None:
        self.port = port
        self.path = f"{POLLING}&sid={sid}"
        self.sid = sid

    @classmethod
    async def open(cls, port: int, *, connected: bool = True) -> "Polling":
        answer = await request(port, POLLING)
        session = cls(port, json.loads(answer.body[1:])["sid"])
        if connected:
            await session.post("40")
            await session.get()
        return session

    async def get(self) -> Answer:
        return await request(self.port, self.path)

    async def post(self, body: str | bytes, fields: Iterable[tuple[str, str]] = ()) -> Answer:
        return await request(self.port, self.path, "POST", body, fields)

    async def packets(self, number: int) -> list[str]:
        """Returns this number of packets, from as many answers as they take."""
        found: list[str] = []
        while len(found) < number:
            found += (await self.get()).body.split("\x1e")
        return found

    async def alive(self) -> list[Any]:
        """Returns what an event's acknowledgement looks like, or the refusal if the session has ended."""
        await self.post('4299["echo","alive"]')
        return (await self.get()).shown


class Wire:
    """A WebSocket of a session."""

    def __init__(self, websocket: WebSocket) -> None:
        self.websocket = websocket

    @classmethod
    async def open(cls, port: int, sid: str | None = None, *, connected: bool = True) -> "Wire":
        path = WEBSOCKET if sid is None else f"{WEBSOCKET}&sid={sid}"
        wire = cls(await connect(f"ws://127.0.0.1:{port}{path}"))
        if sid is None:
            await wire.next()
            if connected:
                await wire.send("40")
                await wire.next()
        return wire

    async def send(self, *messages: str | bytes) -> None:
        for message in messages:
            try:
                await self.websocket.send(message)
            except ConnectionClosedError:
                return

    async def next(self) -> Any:
        """Returns the next message, or how the WebSocket was closed, or that nothing comes."""
        try:
            async with asyncio.timeout(QUIET):
                message = await self.websocket.recv()
        except ConnectionClosedError:
            return ["closed"]
        except TimeoutError:
            return ["nothing"]
        return _ID.sub(r"\1…", message) if isinstance(message, str) else {"hex": message.hex()}

    async def until(self, last: str) -> list[Any]:
        """Returns the messages until one is ``last``, or until the end."""
        found = [await self.next()]
        while found[-1] != last and not isinstance(found[-1], list):
            found.append(await self.next())
        return found

    async def close(self) -> None:
        await self.websocket.close()


# Engine.IO: requests.


async def opening(ports: Ports) -> Steps:
    port = ports["plain"]
    steps: Steps = {}
    answer = await request(port, POLLING)
    steps["polling"] = answer.shown
    steps["fields"] = answer.named(
        "content-type", "cache-control", "set-cookie", "access-control-allow-origin"
    )
    for name, query in {
        "EIO is missing": "transport=polling",
        "EIO=abc": "EIO=abc&transport=polling",
        "EIO=3": "EIO=3&transport=polling",
        "EIO=5": "EIO=5&transport=polling",
        "transport is missing": "EIO=4",
        "transport=abc": "EIO=4&transport=abc",
        "transport=websocket": "EIO=4&transport=websocket",
        "transport=constructor": "EIO=4&transport=constructor",
        "an unknown sid": "EIO=4&transport=polling&sid=abc",
        "an empty sid": "EIO=4&transport=polling&sid=",
        "b64": "EIO=4&transport=polling&b64=1",
        "j": "EIO=4&transport=polling&j=0",
        "t": "EIO=4&transport=polling&t=abc",
        "two transports": "EIO=4&transport=polling&transport=websocket",
    }.items():
        steps[name] = (await request(port, f"/socket.io/?{query}")).shown
    for method in ("POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"):
        body = "40" if method in ("POST", "PUT", "PATCH") else None
        steps[method] = (await request(port, POLLING, method, body)).shown
    return steps


async def methods_of_a_session(ports: Ports) -> Steps:
    steps: Steps = {}
    for method in ("PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"):
        session = await Polling.open(ports["plain"])
        answer = await request(
            session.port, session.path, method, "40" if method in ("PUT", "PATCH") else None
        )
        steps[method] = answer.shown
        steps[f"after {method}"] = await session.alive()
    return steps


async def paths(ports: Ports) -> Steps:
    steps: Steps = {}
    query = POLLING.split("?")[1]
    for path in (
        "/socket.io",
        "/socket.io/",
        "/socket.io/extra",
        "/socket.io-docs/",
        "/socket.ioFOO",
        "/other/",
    ):
        steps[path] = (await request(ports["plain"], f"{path}?{query}")).shown[0]
        upgrade = f"{path}?{WEBSOCKET.split('?')[1]}"
        steps[f"WebSocket: {path}"] = (await request(ports["plain"], upgrade, fields=UPGRADE_FIELDS)).status
    steps["the client's bundle"] = (await request(ports["plain"], "/socket.io/socket.io.min.js")).status
    return steps


async def websocket_requests(ports: Ports) -> Steps:
    port = ports["plain"]
    steps: Steps = {}
    wire = Wire(await connect(f"ws://127.0.0.1:{port}{WEBSOCKET}"))
    steps["opening"] = await wire.next()
    await wire.close()
    for name, query in {
        "EIO is missing": "transport=websocket",
        "EIO=abc": "EIO=abc&transport=websocket",
        "EIO=3": "EIO=3&transport=websocket",
        "transport is missing": "EIO=4",
        "transport=abc": "EIO=4&transport=abc",
        "transport=polling": "EIO=4&transport=polling",
        "an unknown sid": "EIO=4&transport=websocket&sid=abc",
    }.items():
        answer = await request(port, f"/socket.io/?{query}", fields=UPGRADE_FIELDS)
        steps[name] = answer.shown
    return steps


async def cors(ports: Ports) -> Steps:
    steps: Steps = {}
    names = ("access-control-allow-origin", "access-control-allow-credentials", "vary")
    friend, other = [("Origin", "http://friend.example")], [("Origin", "http://other.example")]
    asked = [("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "x-one, X-Two")]
    for instance in ("cors", "plain"):
        for who, fields in (("friend", friend), ("other", other)):
            answer = await request(ports[instance], POLLING, fields=fields)
            steps[f"{instance}: {who}"] = [answer.status, answer.named(*names)]
            answer = await request(ports[instance], POLLING, "OPTIONS", fields=[*fields, *asked])
            more = ("access-control-allow-methods", "access-control-allow-headers")
            steps[f"{instance}: {who} asks"] = [answer.status, answer.named(*names, *more)]
            answer = await request(ports[instance], WEBSOCKET, fields=[*fields, *UPGRADE_FIELDS.items()])
            steps[f"{instance}: {who}, WebSocket"] = answer.status
    answer = await request(ports["cors"], POLLING, fields=[*friend, *other])
    steps["two origins"] = answer.status
    answer = await request(ports["cors"], POLLING, "OPTIONS", fields=[*friend, *asked, asked[1]])
    steps["two lists of fields"] = answer.status
    answer = await request(
        ports["cors"], POLLING, "OPTIONS", fields=[*friend, ("Access-Control-Request-Headers", 'a"; b\t<>')]
    )
    steps["a list that is none"] = [answer.status, answer.fields.get("access-control-allow-headers")]
    return steps


async def compression(ports: Ports) -> Steps:
    session = await Polling.open(ports["plain"])
    await session.post(f'421["echo","{"x" * 5000}"]')
    answer = await request(session.port, session.path, fields=[("Accept-Encoding", "gzip, deflate")])
    steps: Steps = {"large": [answer.status, answer.fields.get("content-encoding")]}
    await session.post('421["echo","x"]')
    answer = await request(session.port, session.path, fields=[("Accept-Encoding", "gzip, deflate")])
    return {**steps, "small": [answer.status, answer.fields.get("content-encoding")]}


async def options(ports: Ports) -> Steps:
    port = ports["options"]
    names = ("set-cookie", "x-initial", "x-each")
    answer = await request(port, POLLING)
    steps: Steps = {"opening": answer.shown}
    sid = json.loads(answer.body[1:])["sid"]
    shown = {name: value and value.replace(sid, "…") for name, value in answer.named(*names).items()}
    steps["fields"] = shown
    session = Polling(port, sid)
    await session.post("40")
    steps["later fields"] = (await session.get()).named(*names)
    upgrade = f"{WEBSOCKET}&sid={sid}"
    steps["an upgrade"] = (await request(port, upgrade, fields=UPGRADE_FIELDS)).status
    answer = await request(port, WEBSOCKET, fields=UPGRADE_FIELDS)
    cookie = answer.fields.get("set-cookie")
    steps["WebSocket"] = [answer.status, cookie and cookie.split("=")[0], answer.named(*names[1:])]
    steps["a transport that is off"] = (
        await request(ports["polling only"], WEBSOCKET, fields=UPGRADE_FIELDS)
    ).status
    steps["its upgrades"] = (await request(ports["polling only"], POLLING)).shown
    return steps


# Engine.IO: polling.


async def polling(ports: Ports) -> Steps:
    port = ports["plain"]
    steps: Steps = {}
    session = await Polling.open(port, connected=False)
    answer = await session.post("40")
    steps["POST"] = [*answer.shown, answer.fields.get("content-type")]
    answer = await session.get()
    steps["GET"] = [*answer.shown, answer.fields.get("content-type")]
    steps["two packets"] = (await session.post('421["echo",1]\x1e422["echo",2]')).shown
    steps["answers"] = await session.packets(2)
    await session.post(f"451-7{_BINARY}\x1ebAQID")
    steps["binary"] = await session.packets(2)
    await session.post(f'421["echo","{"세" * 10}"]')
    steps["UTF-8"] = (await session.get()).shown
    pending = asyncio.create_task(session.get())
    await session.post('421["echo","answers the GET"]')
    steps["a GET that waits"] = (await pending).shown
    return steps


async def bad_payloads(ports: Ports) -> Steps:
    steps: Steps = {}
    bodies: dict[str, str | bytes] = {
        "unknown type": "abc",
        "type 9": "9",
        "empty": "",
        "an empty packet": '421["echo",1]\x1e',
        "bad base64": "b***",
        "not UTF-8": b'421["echo","\xff"]',
        "PING": "2",
        "a PONG that nobody asked for": "3",
        "UPGRADE": "5",
        "NOOP": "6",
        "PING with data": "2probe",
        "OPEN": "0",
    }
    for name, body in bodies.items():
        session = await Polling.open(ports["plain"])
        steps[name] = (await session.post(body)).shown
        steps[f"after {name}"] = await session.alive()
    session = await Polling.open(ports["plain"])
    fields = [("Content-Type", "application/octet-stream")]
    steps["as octets"] = (await session.post('421["echo",1]', fields)).shown
    steps["after as octets"] = (await session.get()).shown
    session = await Polling.open(ports["plain"])
    steps["too large"] = (await session.post("4" + "x" * 1_200_000)).status
    steps["after too large"] = await session.alive()
    return steps


async def overlapping(ports: Ports) -> Steps:
    session = await Polling.open(ports["plain"])
    first = asyncio.create_task(session.get())
    await round_trip(session.port)
    second = await session.get()
    steps: Steps = {"the second GET": second.shown[0], "the first": (await first).status}
    steps["afterwards"] = (await session.get()).shown
    return steps


async def closing(ports: Ports) -> Steps:
    session = await Polling.open(ports["plain"])
    pending = asyncio.create_task(session.get())
    await round_trip(session.port)
    steps: Steps = {"polling: CLOSE": (await session.post("1")).shown, "the GET": (await pending).shown}
    steps["then GET"] = (await session.get()).shown
    steps["then POST"] = (await session.post("40")).shown
    session = await Polling.open(ports["plain"])
    await session.post("1")
    steps["no GET waits"] = (await session.get()).shown
    wire = await Wire.open(ports["plain"])
    await wire.send("1")
    steps["WebSocket: CLOSE"] = await wire.next()
    return steps


async def heartbeats(ports: Ports) -> Steps:
    steps: Steps = {}
    session = await Polling.open(ports["short"])
    steps["polling: PING"] = (await session.get()).shown
    await session.post("3")
    steps["PING again"] = (await session.get()).shown
    answer = await session.get()  # no PONG
    steps["polling: no PONG"] = answer.status
    steps["then"] = (await session.get()).shown
    wire = await Wire.open(ports["short"])
    steps["WebSocket: PING"] = await wire.next()
    await wire.send("3")
    steps["WebSocket: PING again"] = await wire.next()
    steps["WebSocket: no PONG"] = await wire.next()
    return steps


# Engine.IO: upgrades.


async def upgrades(ports: Ports) -> Steps:
    port = ports["plain"]
    steps: Steps = {}
    session = await Polling.open(port)
    wire = await Wire.open(port, session.sid)
    await wire.send("2probe")
    steps["probe"] = await wire.next()
    steps["a GET meanwhile"] = (await session.get()).shown
    await session.post('421["echo","meanwhile"]')
    steps["a message meanwhile"] = (await session.get()).shown
    await wire.send("5")
    await wire.send('422["echo","upgraded"]')
    steps["after the upgrade"] = await wire.next()
    steps["GET then"] = (await session.get()).shown
    steps["POST then"] = (await session.post('423["echo",1]')).shown
    second = await Wire.open(port, session.sid)
    await second.send("2probe")
    steps["a second WebSocket"] = await second.next()
    await wire.send('424["echo","still"]')
    steps["the first"] = await wire.next()
    await wire.close()

    probes: dict[str, list[str | bytes]] = {
        "another PING": ["2other"],
        "no probe": ["5"],
        "a message instead": ['421["echo",1]'],
        "twice": ["2probe", "2probe"],
        "octets": [b"abc"],
    }
    for name, messages in probes.items():
        session = await Polling.open(port)
        wire = await Wire.open(port, session.sid)
        await wire.send(*messages)
        answers = await wire.until("no such message") if name != "twice" else [await wire.next()]
        steps[name] = answers
        steps[f"{name}: polling goes on"] = await session.alive()
        await wire.close()

    session = await Polling.open(port)
    wire = await Wire.open(port, session.sid)
    await wire.send("2probe")
    await wire.next()
    await wire.close()
    while (shown := await session.alive()) == [200, "6"]:
        pass
    steps["the probe is closed"] = shown
    session = await Polling.open(port)
    wires = [await Wire.open(port, session.sid), await Wire.open(port, session.sid)]
    for wire in wires:
        await wire.send("2probe")
    steps["two probes"] = [await wire.next() for wire in wires]
    for wire in wires:
        await wire.close()
    return steps


# Packets. After each of them, an event asks whether the session still lives.

PACKETS: dict[str, list[str | bytes]] = {
    # Engine.IO
    "an unknown type": ["abc"],
    "an empty message": [""],
    "type 9": ["9"],
    "OPEN": ["0"],
    "PING": ["2"],
    "PONG": ["3"],
    "UPGRADE": ["5"],
    "NOOP": ["6"],
    # Socket.IO
    "an event": ['42["back",1,"2",{"3":[true]}]'],
    "an event with an id": ['42456["values"]'],
    "id 0": ['420["echo"]'],
    "a large id": ['429007199254740991["echo"]'],
    "an id above all": ['429007199254740993["echo"]'],
    "an id that starts with 0": ['42012["echo"]'],
    "white space": ['42[ "back" , 1 ]'],
    "the namespace is named": ['42/,["back",1]'],
    "another namespace": ['42/admin,["back",1]'],
    "an unknown namespace": ['42/nowhere,["back",1]'],
    "a query in a namespace": ["40/admin?token=1,"],
    "CONNECT twice": ["40"],
    "CONNECT another": ["40/admin,"],
    "CONNECT without a comma": ["40/admin"],
    "CONNECT with auth": ['40/admin,{"token":"123"}'],
    "CONNECT with a list": ["40/admin,[]"],
    "CONNECT with a string": ['40/admin,"x"'],
    "CONNECT with null": ["40/admin,null"],
    "CONNECT an unknown one": ["40/random"],
    "DISCONNECT from another": ["40/admin,", "41/admin,", '42/admin,["back",1]'],
    "DISCONNECT from an unknown one": ["41/nowhere,"],
    "DISCONNECT with data": ["41{}"],
    "CONNECT_ERROR": ['44{"message":"x"}'],
    "an ACK that nobody asked for": ["43123[1]"],
    "an ACK without an id": ["43[1]"],
    "an ACK with an object": ["431{}"],
    "no packet": ["4"],
    "an unknown packet": ["4abc"],
    "type 7": ['47["echo"]'],
    "no data": ["42"],
    "an object": ["42{}"],
    "an object with toString": ['42{"toString":"toString"}'],
    "an empty list": ["42[]"],
    "a name that is an object": ["42[{}]"],
    "a name that is null": ["42[null]"],
    "a name that is a number": ["42[1]"],
    "a name that is a fraction": ["42[1.5]"],
    "bad JSON": ['42["back"'],
    "more after the JSON": ['42["back"]x'],
    "only an id": ["421"],
    "NaN": ['42["back",NaN]'],
    "a huge number": ['42["back",1e999]'],
    "a reserved name": ['42["connect",1]'],
    "the reserved disconnect": ['42["disconnect","x"]'],
    "a key twice": ['42["back",{"a":1,"a":2}]'],
    "control characters in a text": ['42["back","a\x01b"]'],
    "U+001E in a text": ['42["back","a\x1eb"]'],
    "a surrogate": ['42["back","\\ud83d"]'],
    "a placeholder in a text packet": ['42["back",{"_placeholder":true,"num":0}]'],
    # Binary
    "binary": ["451-" + _BINARY.replace("echo", "back"), b"\x01"],
    "binary with an id": ["451-7" + _BINARY, b"\x01"],
    "octets that nobody announced": [b"\x01"],
    "text instead of octets": ["451-" + _BINARY, "42[1]"],
    "PING among the octets": ["451-7" + _BINARY, "3", b"\x01"],
    "no attachments": ['450-["back"]'],
    "no number of attachments": ['45["back"]'],
    "a bad number of attachments": ['45x-["back"]'],
    "more attachments than placeholders": ['452-7["echo",{"_placeholder":true,"num":0}]', b"1", b"2"],
    "fewer attachments than placeholders": [
        '451-7["echo",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]',
        b"1",
    ],
    "a placeholder out of range": ['451-7["echo",{"_placeholder":true,"num":9}]', b"1"],
    "a placeholder that is a text": ['451-7["echo",{"_placeholder":true,"num":"0"}]', b"1"],
    "a negative placeholder": ['451-7["echo",{"_placeholder":true,"num":-1}]', b"1"],
}


async def packets(ports: Ports) -> Steps:
    steps: Steps = {}
    for name, messages in PACKETS.items():
        wire = await Wire.open(ports["plain"])
        for message in messages:
            await wire.send(message)
            await round_trip(ports["plain"])
        await wire.send('4299["echo","alive"]')
        steps[name] = [
            "alive" if item == '4399["alive"]' else item for item in await wire.until('4399["alive"]')
        ]
        await wire.close()
    return steps


async def first_packets(ports: Ports) -> Steps:
    """What a session that is not connected to a namespace may send."""
    steps: Steps = {}
    cases: dict[str, list[str | bytes]] = {
        "CONNECT": ["40"],
        "CONNECT with auth": ['40{"token":"123"}'],
        "CONNECT another": ["40/admin,"],
        "CONNECT an unknown one": ["40/random,"],
        "an unknown packet": ["4abc"],
        "an event": ['42["echo"]'],
        "DISCONNECT": ["41"],
        "an ACK": ["431[]"],
        "octets": [b"\x00"],
        "msgpack": [b"\x83\xa4type\x00\xa3nsp\xa1/\xa4data\xc0"],
    }
    for name, messages in cases.items():
        wire = await Wire.open(ports["plain"], connected=False)
        await wire.send(*messages)
        steps[name] = await wire.next()
        await wire.close()
    wire = await Wire.open(ports["short"], connected=False)
    await wire.send("40/random,")
    steps["nothing in time"] = [item for item in await wire.until("never") if item != "2"]
    return steps


async def close_codes(ports: Ports) -> Steps:
    """How the server closes a WebSocket, in the other parts."""
    steps: Steps = {}
    for name, messages in {
        "CLOSE of the client": ["1"],
        "disconnected": ['42["kick",true]'],
        "an unknown packet": ["4abc"],
        "an unknown type": ["abc"],
        "too large": ["4" + "x" * 1_200_000],
    }.items():
        wire = await Wire.open(ports["plain"])
        await wire.send(*messages)
        await wire.until("never")
        closed = wire.websocket.closed
        steps[name] = None if closed is None else closed.code
        await wire.close()
    wire = await Wire.open(ports["short"])
    await wire.until("never")
    closed = wire.websocket.closed
    steps["no PONG"] = None if closed is None else closed.code
    return steps


async def disconnecting(ports: Ports) -> Steps:
    steps: Steps = {}
    wire = await Wire.open(ports["plain"])
    await wire.send("40/admin,")
    await wire.next()
    await wire.send("41", '42/admin,7["echo","still"]')
    steps["from one of two"] = await wire.next()
    await wire.send("40")
    steps["and back"] = await wire.next()
    await wire.close()
    wire = await Wire.open(ports["plain"])
    await wire.send("41")
    await round_trip(ports["plain"])
    await wire.send("40")
    steps["from the only one, and back"] = await wire.next()
    await wire.close()
    wire = await Wire.open(ports["plain"])
    await wire.send("41", '42["echo"]', "40")
    steps["an event after it"] = await wire.next()
    await wire.close()
    wire = await Wire.open(ports["plain"])
    await wire.send('42["kick",false]')
    steps["by the server"] = await wire.next()
    await wire.send("40")
    steps["by the server, and back"] = await wire.next()
    await wire.send('42["kick",true]')
    steps["by the server, which closes"] = await wire.until("never")
    return steps


PARTS: list[Callable[[Ports], Awaitable[Steps]]] = [
    opening,
    methods_of_a_session,
    paths,
    websocket_requests,
    cors,
    compression,
    options,
    polling,
    bad_payloads,
    overlapping,
    closing,
    heartbeats,
    upgrades,
    packets,
    first_packets,
    disconnecting,
    close_codes,
]


async def raw_transcript(ports: Ports) -> dict[str, Steps]:
    """Returns the steps of each part."""
    # Together, because some wait for what does not come.
    found = await asyncio.gather(*(part(ports) for part in PARTS))
    return {
        f"raw: {part.__name__.replace('_', ' ')}": steps for part, steps in zip(PARTS, found, strict=True)
    }
