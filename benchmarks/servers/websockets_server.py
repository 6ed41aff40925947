"""websockets; without compression, as ours, unless ``--compression`` is given; its keepalive is off."""

import asyncio
import sys

import websockets
from websockets.asyncio.server import ServerConnection, broadcast, serve

COMPRESSION = "deflate" if "--compression" in sys.argv else None

members: set[ServerConnection] = set()


async def handler(connection: ServerConnection) -> None:
    """An echo, or a room."""
    assert connection.request is not None
    try:
        if connection.request.path == "/echo":
            async for message in connection:
                await connection.send(message)
        else:
            members.add(connection)
            async for message in connection:
                broadcast(members, message)
    except websockets.ConnectionClosedError:
        pass
    finally:
        members.discard(connection)


async def main() -> None:
    """Serves until it is ended."""
    async with serve(
        handler, "127.0.0.1", 0, compression=COMPRESSION, max_size=1 << 24, ping_interval=None
    ) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await asyncio.Event().wait()


asyncio.run(main())
