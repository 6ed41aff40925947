"""Our server. The options and the paths below /soak are for ``benchmarks/soak.py``."""

import argparse
import asyncio
import gc
import json
import os
import sys
import time
from collections import Counter
from typing import Any

from rfc6455 import PerMessageDeflate
from rfc6455_server import Handler, Server, WebSocket
from rfc6455_server.listening import acceptor, certificates
from rfc6455_server.socketio import Socket, SocketIO

PIECE = os.urandom(1 << 15)


def options() -> argparse.Namespace:
    """Parses the command line of the soak test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compression", action="store_true")
    parser.add_argument("--called", action="store_true", help="the echo is a called handler")
    parser.add_argument("--max-queue", type=int, default=1 << 20)
    parser.add_argument("--slow-consumer", default="disconnect")
    # No Pings by default, as with the peers: the load does not answer them.
    parser.add_argument("--ping-interval", type=float, default=3600.0)
    parser.add_argument("--ping-timeout", type=float, default=20.0)
    parser.add_argument("--tls", metavar="FILE", help="serve TLS, with the certificate and key in FILE")
    parser.add_argument("--whole-tls-buffers", action="store_true", help="keep asyncio's TLS buffers")
    return parser.parse_args()


def serve_events(server: Server) -> None:
    """Adds a Socket.IO room, and an event that is emitted to all its members."""
    io = SocketIO(ping_interval=3600, max_payload=1 << 24)
    server.mount(io)

    @io.on("connect")
    def connected(socket: Socket) -> None:
        socket.join("all")

    @io.on("message")
    def message(socket: Socket, data: Any) -> None:
        io.to("all").emit("message", data)


def serve_the_soak(server: Server) -> None:
    """Adds the paths of the soak test.

    The speaker's messages go to the room, and the speaker gets the time of each broadcast. A visitor's
    message can make the handler end or send in several ways. The state counts the objects in memory.
    """
    room = server.rooms["all"]

    @server.websocket("/soak/speaker")
    async def speaker(ws: WebSocket) -> None:
        async for message in ws:
            now = time.monotonic()
            room.broadcast(message)
            await ws.send(f"{now:020.9f}")

    @server.websocket("/soak/rooms/{name}")
    async def visitor(ws: WebSocket, name: str) -> None:
        lobby = server.rooms[name]
        lobby.join(ws)
        async for message in ws:
            match message:
                case "leave":
                    return
                case "fail":
                    raise RuntimeError("requested by a visitor")
                case "cancel":
                    raise asyncio.CancelledError  # as when the handler awaits a task that is cancelled
                case "post":
                    for _ in range(64):
                        ws.post(PIECE)
                case "send":
                    while True:
                        await ws.send(PIECE)
                case _:
                    lobby.broadcast(message)

    @server.websocket("/soak/state")
    async def state(ws: WebSocket) -> None:
        async for _ in ws:
            gc.collect()
            stats = server.stats
            found = {
                "objects": Counter(type(thing).__qualname__ for thing in gc.get_objects()),
                "blocks": sys.getallocatedblocks(),
                "connections": len(server.websockets),
                "queued": server.queued,
                "dropped": stats.dropped.total(),
                "closes": {f"{cause} ({code})": count for (code, cause), count in stats.closes.items()},
            }
            await ws.send(json.dumps(found))


async def main() -> None:
    """Serves until the process is stopped."""
    args = options()
    server = Server(
        max_message_size=1 << 24,
        max_queue=args.max_queue,
        slow_consumer=args.slow_consumer,
        compression=PerMessageDeflate() if args.compression else None,
        ping_interval=args.ping_interval,
        ping_timeout=args.ping_timeout,
    )
    room = server.rooms["all"]

    async def echo(ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    class Echo(Handler):
        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            ws.post(message)

    server.websocket("/echo")(Echo if args.called else echo)

    @server.websocket("/room")
    async def member(ws: WebSocket) -> None:
        room.join(ws)
        async for message in ws:
            room.broadcast(message)

    serve_events(server)
    serve_the_soak(server)
    if args.whole_tls_buffers:
        acceptor.shrink_tls_buffer = lambda transport: None  # type: ignore[attr-defined]  # imported there
    await server.start(ssl_context=certificates.make_ssl_context(args.tls) if args.tls else None)
    print(server.port, flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
