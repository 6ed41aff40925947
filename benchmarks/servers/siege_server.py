"""A server with small limits for ``benchmarks/siege.py``. Prints its port; ``/state`` tells what it holds.

It needs nothing but this project, so that any supported Python runs it.
"""

import asyncio
import gc
import json
import logging
import os
import resource
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from rfc6455 import PerMessageDeflate
from rfc6455_server import Handler, Server, WebSocket
from rfc6455_server.limits import LimitOptions
from rfc6455_server.socketio import DisconnectedError, Socket, SocketIO

LIMITS: LimitOptions = {
    "max_message_size": 256 << 10,
    "max_queue": 128 << 10,
    "max_total_queue": 16 << 20,
    "max_connections": 800,
    "max_connections_per_address": 150,
    "max_rooms": 100,
    "message_rate": 500.0,
    "byte_rate": 1_000_000.0,
    "connection_rate": 60.0,
    "handshake_timeout": 3.0,
    "send_timeout": 5.0,
    "close_timeout": 3.0,
    "ping_interval": 5.0,
    "ping_timeout": 10.0,
}


def serve_websockets(server: Server) -> None:
    """Adds two echoes, rooms, and what the server holds."""

    @server.websocket("/echo")
    async def echo(ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    @server.websocket("/called")
    class Called(Handler):
        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            ws.post(message)

    @server.websocket("/rooms/{name}")
    async def member(ws: WebSocket, name: str) -> None:
        room = server.rooms[name]
        room.join(ws)
        async for message in ws:
            if message == "join":
                for number in range(200):
                    server.rooms[f"{name}-{number}"].join(ws)  # above `max_rooms`: 1008
            room.broadcast(message)

    @server.websocket("/state")
    async def state(ws: WebSocket) -> None:
        async for _ in ws:
            gc.collect()
            await ws.send(json.dumps(held(server)))


def held(server: Server) -> dict[str, Any]:
    """Returns what the server holds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "connections": len(server.websockets),
        "tasks": len(asyncio.all_tasks()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "queued": server.queued,
        "blocks": sys.getallocatedblocks(),
        "cpu": usage.ru_utime + usage.ru_stime,
        "closes": {f"{cause} ({code})": count for (code, cause), count in server.stats.closes.items()},
    }


def serve_events(server: Server) -> None:
    """Adds Socket.IO, with recovery."""
    io = SocketIO(ping_interval=5, ping_timeout=10, connect_timeout=3, recovery=10, max_payload=256 << 10)
    server.mount(io)

    @io.on("join")
    def join(socket: Socket, room: str) -> None:
        socket.join(room)

    @io.on("say")
    def say(socket: Socket, room: str, what: Any) -> str:
        io.to(room).emit("said", what)
        return "ok"

    @io.on("ask")
    async def ask(socket: Socket) -> None:
        with suppress(TimeoutError, DisconnectedError):
            await socket.timeout(5).emit_with_ack("answer?")


async def main(pages: str) -> None:
    """Serves until the process is stopped."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    server = Server(compression=PerMessageDeflate(), **LIMITS)
    serve_websockets(server)
    serve_events(server)
    server.static("/", pages)
    await server.start()
    print(server.port, flush=True)
    await asyncio.Event().wait()


with tempfile.TemporaryDirectory() as directory:
    Path(directory, "index.html").write_text("<!doctype html>" + "x" * 10_000)
    asyncio.run(main(directory))
