"""Our server as ``benchmarks/held.py`` needs it: sends what it is asked to, to all its members."""

import asyncio
import dataclasses
import json
import os
import time
from collections.abc import Coroutine
from typing import Any

from rfc6455 import PerMessageDeflate
from rfc6455_server import Server, WebSocket
from rfc6455_server.limits import Limits
from rfc6455_server.socketio import Socket, SocketIO

FOR_EVER = 3600.0
TURN = 1000  # messages that are sent before others have their turn


class Senders:
    """The members, and each way to send to them."""

    def __init__(self, server: Server, io: SocketIO) -> None:
        self._room = server.rooms["all"]
        self._io = io
        self.members: list[WebSocket] = []
        self.sockets: list[Socket] = []
        self._waiting: set[asyncio.Task[Any]] = set()

    async def send(self, way: str, count: int, size: int) -> float:
        """Sends ``count`` messages to each member; returns the seconds of CPU that this took."""
        text = "x" * size
        begin = time.process_time()
        for number in range(count):
            self._send(way, text)
            if number % TURN == TURN - 1:
                await asyncio.sleep(0)
        used = time.process_time() - begin
        await asyncio.sleep(0.1)
        return used

    def _send(self, way: str, text: str) -> None:
        if way == "room":
            self._room.broadcast(text)
        elif way == "event":
            self._io.to("all").emit("e", text)
        for member in self.members:
            if way == "post":
                member.post(text)
            elif way == "send":
                self._wait(member.send(text))
            elif way == "ping":
                self._wait(member.ping())
        for socket in self.sockets:
            if way == "ack":
                self._wait(socket.emit_with_ack("e", text))

    def _wait(self, waiting: Coroutine[Any, Any, Any]) -> None:
        self._waiting.add(asyncio.get_running_loop().create_task(waiting))


def make_server(settings: dict[str, Any]) -> Server:
    """Returns the server. Limits that this version does not have are left out."""
    known = {field.name for field in dataclasses.fields(Limits)}
    limits = {name: value for name, value in settings.items() if name in known}
    deflate = PerMessageDeflate(server_no_context_takeover=True) if settings.get("compression") else None
    return Server(compression=deflate, ping_interval=FOR_EVER, ping_timeout=FOR_EVER, **limits)


async def main() -> None:
    """Serves until the process is stopped; ``HELD`` holds the settings as JSON."""
    server = make_server(json.loads(os.environ["HELD"]))
    io = SocketIO(ping_interval=FOR_EVER, ping_timeout=FOR_EVER)
    server.mount(io)
    senders = Senders(server, io)

    @server.websocket("/member")
    async def member(ws: WebSocket) -> None:
        senders.members.append(ws)
        server.rooms["all"].join(ws)
        await ws.recv()

    @server.websocket("/silent")
    async def silent(ws: WebSocket) -> None:
        async for _ in ws:
            pass

    @io.on("connect")
    def connected(socket: Socket) -> None:
        senders.sockets.append(socket)
        socket.join("all")

    @server.websocket("/control")
    async def control(ws: WebSocket) -> None:
        async for message in ws:
            seconds = await senders.send(**json.loads(message)) if message else 0.0
            state = {"seconds": seconds, "queued": server.queued, "connections": len(server.websockets)}
            await ws.send(json.dumps(state))

    await server.start()
    print(server.port, flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
