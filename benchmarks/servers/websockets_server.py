"""websockets without keepalive. Compression is off, as in our server, unless ``--compression`` is set."""

import asyncio
import sys

import websockets
from websockets.asyncio.server import ServerConnection, broadcast, serve

COMPRESSION = "deflate" if "--compression" in sys.argv else None

members: set[ServerConnection] = set()


async def handler(connection: ServerConnection) -> None:
    """Serves the echo or the room, by the path."""
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
    """Serves until the process is stopped."""
    async with serve(
        handler, "127.0.0.1", 0, compression=COMPRESSION, max_size=1 << 24, ping_interval=None
    ) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await asyncio.Event().wait()


asyncio.run(main())
