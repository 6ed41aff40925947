"""The client of python-socketio goes through what it can do, with a server of the repertoire.

`python_transcript` returns what the client and the server see, as `node/repertoire.js` prints it for the
official client. It leaves out the server's reasons of a disconnection, which depend on the transport.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import socketio

from tests.server_helpers import until
from tests.socketio_relay import Relay

Ports = dict[str, int]
TRANSPORTS = {"python-polling": ["polling"], "python-websocket": ["websocket"], "python-upgrade": None}
LATE = 20.0
"""Seconds after which a scenario has failed."""


class Run:
    """One scenario's clients, and what it says."""

    def __init__(self, ports: Ports, transports: list[str] | None, control: socketio.AsyncClient) -> None:
        self.ports = ports
        self.steps: dict[str, Any] = {}
        self._transports = transports
        self._control = control
        self._clients: list[socketio.AsyncClient] = []

    def say(self, label: str, value: Any) -> None:
        assert label not in self.steps
        self.steps[label] = _shown(value)

    async def control(self, command: str, *args: Any) -> Any:
        return await self._control.call(command, args, namespace="/control")

    def client(self, **options: Any) -> socketio.AsyncClient:
        client = socketio.AsyncClient(**{"reconnection": False, **options})
        self._clients.append(client)
        return client

    async def connect(self, client: socketio.AsyncClient, name: str, **options: Any) -> None:
        port = options.pop("port", self.ports["plain"])
        auth = {"name": name, **options.pop("auth", {})}
        url = f"http://127.0.0.1:{port}"
        await client.connect(url, auth=auth, transports=self._transports, wait_timeout=LATE, **options)

    async def open(self, name: str, **options: Any) -> socketio.AsyncClient:
        """Returns a client that is connected."""
        client = self.client()
        await self.connect(client, name, **options)
        return client

    async def end(self) -> None:
        for client in self._clients:
            await client.shutdown()

        async def nobody() -> bool:
            return bool(await self.control("count") == 0)

        try:
            async with asyncio.timeout(LATE / 4):
                await until(nobody)
        except TimeoutError:
            self.steps["sockets left"] = await self.control("count")
        log: dict[str, list[Any]] = {}
        for client, what, *values in await self.control("log"):
            if what in ("disconnecting", "disconnect"):
                del values[0]  # the reason
            log.setdefault(client, []).append([what, *values])
        for client in sorted(log):
            self.steps[f"server's log of {client}"] = log[client]


def _shown(value: Any) -> Any:
    """Returns a value as JSON can show it."""
    match value:
        case bytes():
            return {"hex": value.hex()} if len(value) <= 16 else {"bytes": len(value)}
        case list() | tuple():
            return [_shown(item) for item in value]
        case dict():
            return {key: _shown(item) for key, item in value.items()}
        case _:
            return value


def recorded(client: socketio.AsyncClient, event: str, namespace: str = "/") -> list[Any]:
    """Returns a list that gets the events of this name as they arrive."""
    heard: list[Any] = []

    def hear(*args: Any) -> None:
        heard.append(args[0] if len(args) == 1 else list(args))

    client.on(event, hear, namespace=namespace)
    return heard


async def in_time(call: Awaitable[Any]) -> Any:
    """Awaits an acknowledgement, which may not arrive."""
    try:
        return await call
    except socketio.exceptions.TimeoutError:
        return "timed out"


async def talking(run: Run) -> None:
    one = await run.open("one")
    run.say("a text", await one.call("echo", "안녕 😀"))
    run.say("values", await one.call("echo", {"a": [1, None, True, 1.5, {}], "": ""}))
    run.say("several arguments", await one.call("echo", ("x", 2, [3])))
    run.say("several values", await one.call("values"))
    run.say("no value", await one.call("noop"))
    run.say("no answer", await in_time(one.call("never", timeout=0.1)))
    run.say("unknown event", await in_time(one.call("no such event", timeout=0.1)))
    back = recorded(one, "back")
    await one.emit("back", ("there", {"and": "back"}))
    await one.emit("back")
    await one.emit("back", {"a": "\u0000\u001e\u2028"})
    await one.call("noop")
    run.say("without acknowledgement", back)
    answered: asyncio.Queue[Any] = asyncio.Queue()
    await one.emit("values", callback=lambda *values: answered.put_nowait(values))
    run.say("a callback", await answered.get())
    run.say("large", len(await one.call("echo", "x" * 500_000)))
    fields, _ = await one.call("handshake")
    run.say("auth", fields["auth"])


async def binary(run: Run) -> None:
    one = await run.open("one")
    run.say("bytes", await one.call("echo", b"\x00\xff"))
    run.say("nested", await one.call("echo", {"a": [b"1", {"b": b"2"}], "c": "text"}))
    run.say("several arguments", await one.call("echo", (b"1", "two", b"3")))
    run.say("empty", await one.call("echo", b""))
    run.say("large", await one.call("echo", bytes(300_000)))
    back = recorded(one, "back")
    for number in range(8):
        await one.emit("back", bytes([number]) if number % 2 else number)
    await one.call("noop")
    run.say("order", back)


async def asked(run: Run) -> None:
    one, two = await run.open("one"), await run.open("two")
    for client, end in ((one, "!"), (two, "?")):
        client.on("question", lambda text, end=end: text + end)
        await client.call("join", "lobby")
    one.on("several", lambda: (1, 2))
    one.on("nothing", lambda: None)
    one.on("binary", lambda data: [data, b"more"])
    run.say("itself", await one.call("ask", ({}, "question", "well")))
    run.say("several values", await one.call("ask", ({}, "several")))
    run.say("no value", await one.call("ask", ({}, "nothing")))
    run.say("binary", await one.call("ask", ({}, "binary", b"in")))
    run.say("nobody answers", await one.call("ask", ({"timeout": 50}, "no such event")))
    how, answers = await run.control("ask", {"to": ["lobby"], "timeout": 2000}, "question", "all")
    run.say("all", [how, sorted(answers)])


async def rooms(run: Run) -> None:
    clients = {name: await run.open(name) for name in ("one", "two", "three")}
    heard = {name: recorded(client, "said") for name, client in clients.items()}
    await clients["one"].call("join", ("red", "blue"))
    run.say("join", await clients["two"].call("join", "red"))

    async def emit(label: str, name: str, spec: dict[str, Any]) -> None:
        await clients[name].call("emit", (spec, "said", label))
        for client in clients.values():
            await client.call("noop")
        run.say(label, [name for name, said in heard.items() if label in said])

    await emit("a room", "three", {"to": ["red"]})
    await emit("others of the room", "one", {"to": ["red"]})
    await emit("except a room", "three", {"except": ["blue"]})
    await emit("one", "three", {"to": ["@two"]})
    await emit("all others", "two", {"broadcast": True})
    await clients["one"].call("leave", "red")
    await emit("after leaving", "three", {"to": ["red"]})


async def namespaces(run: Run) -> None:
    one = await run.open("one", namespaces=["/", "/admin"])
    run.say("both", sorted(one.namespaces))
    run.say("ids differ", one.get_sid("/") != one.get_sid("/admin"))
    heard = [recorded(one, "said"), recorded(one, "said", "/admin")]
    await run.control("emit", {"nsp": "/admin"}, "said", b"admin")
    await run.control("emit", {}, "said", "/")
    await one.call("noop", namespace="/admin")
    await one.call("noop")
    run.say("heard", heard)
    gone = recorded(one, "disconnect", "/admin")
    await one.emit("kick", False, namespace="/admin")
    await until(lambda: gone)
    run.say("kicked from one", gone)
    run.say("the other stays", await one.call("echo", 1))


async def refused(run: Run) -> None:
    for label, path, auth in (
        ("by a middleware", "/guarded", {"token": "wrong"}),
        ("without data", "/guarded", {"token": "plain"}),
        ("unknown namespace", "/nowhere", {}),
    ):
        client = run.client()
        errors = recorded(client, "connect_error", path)
        try:
            await run.connect(client, label, auth=auth, namespaces=[path])
            run.say(label, "connected")
        except socketio.exceptions.ConnectionError as error:
            run.say(label, [str(error), errors])
    allowed = await run.open("allowed", auth={"token": "s3cret"}, namespaces=["/guarded"])
    run.say("allowed", await allowed.call("get", namespace="/guarded"))


async def bursts_of_the_client(run: Run) -> None:
    one = await run.open("one")
    back = recorded(one, "back")
    for number in range(100):
        await one.emit("back", number)
    run.say("answers", await asyncio.gather(*(one.call("echo", number) for number in range(40))))
    run.say("events", back)


async def bursts_of_the_server(run: Run) -> None:
    one = await run.open("one")
    heard = recorded(one, "burst")
    for count, size in ((17, 10), (200, 100), (30, 50_000)):
        await in_time(one.call("burst", (count, size), timeout=5))
        run.say(f"{count} of {size}", [number for number, _ in heard] == list(range(count)))
        heard.clear()
    run.say("connected", one.connected)


async def disconnections(run: Run) -> None:
    for label, close in (("one namespace", False), ("the session", True)):
        client = await run.open(label)
        gone = recorded(client, "disconnect")
        await client.emit("kick", close)
        await until(partial(len, gone))
        run.say(label, gone)
    client = await run.open("leaves")
    gone = recorded(client, "disconnect")
    await client.emit("back", "just before leaving")
    await client.disconnect()
    await until(lambda: gone)
    run.say("by itself", gone)


async def reconnecting(run: Run) -> None:
    relay = Relay(run.ports["plain"])
    async with relay.running() as url:
        one = run.client(reconnection=True, reconnection_delay=0.05, reconnection_delay_max=0.1)
        connected = recorded(one, "connect")
        await run.connect(one, "one", port=int(url.rsplit(":", 1)[1]))
        await until(lambda: len(connected) == 1)
        first = one.get_sid()
        await one.call("join", "lobby")
        await asyncio.sleep(0.5)  # over polling, only a GET that waits shows that the client is lost
        relay.open = False
        relay.cut(server_notices=True)
        await until(lambda: not one.connected)
        relay.open = True
        await until(lambda: len(connected) == 2)
        run.say("another id", one.get_sid() != first)
        run.say("rooms", await one.call("rooms"))
        run.say("talks again", await one.call("echo", b"again"))
        await one.shutdown()


async def heartbeats(run: Run) -> None:
    one = await run.open("one", port=run.ports["short"])
    await asyncio.sleep(3)  # the server would have ended a session that does not answer
    run.say("connected", one.connected)
    run.say("talks", await one.call("echo", 1))


SCENARIOS: list[Callable[[Run], Awaitable[None]]] = [
    talking,
    binary,
    asked,
    rooms,
    namespaces,
    refused,
    bursts_of_the_client,
    bursts_of_the_server,
    disconnections,
    reconnecting,
    heartbeats,
]


async def python_transcript(ports: Ports, mode: str) -> dict[str, dict[str, Any]]:
    """Returns the steps of each scenario, over the transports of ``mode``."""
    control = socketio.AsyncClient(reconnection=False)
    url = f"http://127.0.0.1:{ports['plain']}"
    await control.connect(url, transports=["websocket"], namespaces=["/control"], wait_timeout=LATE)
    found = {}
    for scenario in SCENARIOS:
        run = Run(ports, TRANSPORTS[mode], control)
        await run.control("clear")
        try:
            async with asyncio.timeout(LATE):
                await scenario(run)
        except (TimeoutError, socketio.exceptions.SocketIOError) as error:
            run.say("failed", repr(error))
        await run.end()
        found[f"python-socketio: {scenario.__name__.replace('_', ' ')}"] = run.steps
    await control.disconnect()
    return found
