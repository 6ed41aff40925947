"""Ours."""

import asyncio

from rfc6455_server import Server, WebSocket


async def main() -> None:
    """Serves until it is ended."""
    server = Server(max_message_size=1 << 24)
    room = server.rooms["all"]

    @server.websocket("/echo")
    async def echo(ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    @server.websocket("/room")
    async def member(ws: WebSocket) -> None:
        room.join(ws)
        async for message in ws:
            room.broadcast(message)

    await server.start()
    print(server.port, flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
