"""aiohttp with its compiled reader. ``--compression`` turns compression on."""

import asyncio
import sys

from aiohttp import WSMsgType, web

COMPRESS = "--compression" in sys.argv

members: set[web.WebSocketResponse] = set()


async def echo(request: web.Request) -> web.WebSocketResponse:
    """Serves the echo."""
    ws = web.WebSocketResponse(compress=COMPRESS, max_msg_size=1 << 24)
    await ws.prepare(request)
    async for message in ws:
        if message.type is WSMsgType.TEXT:
            await ws.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await ws.send_bytes(message.data)
    return ws


async def room(request: web.Request) -> web.WebSocketResponse:
    """Serves the room."""
    ws = web.WebSocketResponse(compress=COMPRESS)
    await ws.prepare(request)
    members.add(ws)
    async for message in ws:
        for member in list(members):
            await member.send_str(message.data)
    members.discard(ws)
    return ws


async def main() -> None:
    """Serves until the process is stopped."""
    app = web.Application()
    app.add_routes([web.get("/echo", echo), web.get("/room", room)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
