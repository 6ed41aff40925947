"""python-socketio on aiohttp: a room, and an event that is emitted to all its members."""

import asyncio

import socketio
from aiohttp import web

sio = socketio.AsyncServer(async_mode="aiohttp", ping_interval=3600)


@sio.event
async def connect(sid: str, environ: dict[str, object]) -> None:
    await sio.enter_room(sid, "all")


@sio.event
async def message(sid: str, data: str) -> None:
    await sio.emit("message", data, room="all")


async def main() -> None:
    """Serves until the process is stopped."""
    app = web.Application()
    sio.attach(app)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
