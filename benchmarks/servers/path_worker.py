"""Measures the way of a message through one library, without sockets; see ``benchmarks/path.py``.

Prints nanoseconds of CPU time and calls (of Python and of C functions) for each echoed message, as JSON.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.common import request
from rfc6455 import Opcode, encode_frame

KEY = b"\x37\xfa\x21\x3d"


class CountingTransport(asyncio.Transport):
    """Counts what is written, and takes it at once."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += len(data)

    def writelines(self, list_of_data: Any) -> None:
        self.written += sum(map(len, list_of_data))

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Does nothing: nothing waits here."""

    def pause_reading(self) -> None:
        """Does nothing: the driver waits for each answer."""

    def resume_reading(self) -> None:
        """Does nothing."""

    def abort(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


async def captured(start: Callable[[], Awaitable[object]]) -> Callable[[], asyncio.Protocol]:
    """Starts a server; returns the function with which it makes the protocol of a connection."""
    loop = asyncio.get_running_loop()
    create_server = loop.create_server
    factories: list[Any] = []

    async def capture(factory: Any, *args: Any, **options: Any) -> object:
        factories.append(factory)
        return await create_server(factory, *args, **options)

    loop.create_server = capture  # type: ignore[method-assign,assignment]  # a stand-in that calls it
    await start()
    factory: Callable[[], asyncio.Protocol] = factories[0]
    return factory


async def make_ours(*, called: bool) -> asyncio.BaseProtocol:
    """Returns our protocol, with a called or a coroutine handler."""
    from rfc6455_server import Server, WebSocket  # noqa: PLC0415 - one library a process

    server = Server(max_message_size=1 << 24)
    if called:
        from rfc6455_server import Handler  # noqa: PLC0415 - earlier versions have none

        @server.websocket("/echo")
        class Echo(Handler):
            def on_message(self, ws: WebSocket, message: str | bytes) -> None:
                ws.post(message)

    else:

        @server.websocket("/echo")
        async def echo(ws: WebSocket) -> None:
            async for message in ws:
                await ws.send(message)

    loop = asyncio.get_running_loop()
    protocol = server.make_ready().make_protocol("127.0.0.1", loop.time() + 3600)
    assert not isinstance(protocol, bytes)
    protocol.server = server  # type: ignore[attr-defined]  # so that the server lives as long
    return protocol


async def make_websockets() -> asyncio.BaseProtocol:
    """Returns a protocol of websockets."""
    from websockets.asyncio.server import ServerConnection, serve  # noqa: PLC0415 - one library a process

    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async def start() -> object:
        return await serve(echo, "127.0.0.1", 0, compression=None, max_size=1 << 24, ping_interval=None)

    return (await captured(start))()


async def make_aiohttp() -> asyncio.BaseProtocol:
    """Returns a protocol of aiohttp."""
    from aiohttp import WSMsgType, web  # noqa: PLC0415 - one library a process

    async def echo(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=False, max_msg_size=1 << 24)
        await ws.prepare(request)
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                await ws.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await ws.send_bytes(message.data)
        return ws

    async def start() -> object:
        app = web.Application()
        app.add_routes([web.get("/echo", echo)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    return (await captured(start))()


MAKERS: dict[str, Callable[[], Awaitable[asyncio.BaseProtocol]]] = {
    "called": lambda: make_ours(called=True),
    "coroutine": lambda: make_ours(called=False),
    "websockets": make_websockets,
    "aiohttp": make_aiohttp,
}


def feeder(protocol: asyncio.BaseProtocol) -> Callable[[bytes], object]:
    """Returns a function that passes bytes to the protocol as asyncio's transport does."""
    if isinstance(protocol, asyncio.BufferedProtocol):
        buffered = protocol

        def feed(data: bytes) -> None:
            size = len(data)
            memoryview(buffered.get_buffer(-1))[:size] = data  # the operating system does this
            buffered.buffer_updated(size)

        return feed
    assert isinstance(protocol, asyncio.Protocol)
    return protocol.data_received


async def measure(peer: str, size: int, count: int) -> dict[str, float]:
    """Echoes ``count`` messages of ``size`` bytes, one at a time."""
    protocol = await MAKERS[peer]()
    transport = CountingTransport()
    protocol.connection_made(transport)
    feed = feeder(protocol)
    feed(request(80, "/echo"))
    while not transport.written:  # noqa: ASYNC110 - an Event would take calls of its own
        await asyncio.sleep(0)
    await asyncio.sleep(0.1)
    frame = encode_frame(Opcode.TEXT if size <= 1024 else Opcode.BINARY, b"x" * size, mask_key=KEY)
    pieces = [frame[at : at + (1 << 18)] for at in range(0, len(frame), 1 << 18)]

    async def echo(number: int) -> None:
        for _ in range(number):
            done = transport.written + size
            for piece in pieces:
                feed(piece)
            while transport.written < done:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)

    await echo(count // 4)
    begin = time.process_time_ns()
    await echo(count)
    elapsed = time.process_time_ns() - begin
    calls = 0

    def count_calls(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    counted = min(count, 200)
    sys.setprofile(count_calls)
    await echo(counted)
    sys.setprofile(None)
    return {"ns": elapsed / count, "calls": calls / counted}


async def main() -> None:
    """Prints what was measured; ends at once, because nobody closes the connection."""
    print(json.dumps(await measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))), flush=True)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
