"""``rfc6455-server connect URL``: a client for the terminal.

It sends each line of its input as a text message, and prints each message that it receives. All text from the
server is escaped, so that it cannot control the terminal.
"""

import argparse
import asyncio
import ssl
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn, TextIO

from rfc6455 import WebSocketError
from rfc6455_server.client import connect
from rfc6455_server.websocket.ending import ConnectionClosedError
from rfc6455_server.websocket.websocket import WebSocket

_NAME = "rfc6455-server connect"


class _Parser(argparse.ArgumentParser):
    """Prints errors in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{_NAME}: {escape(message)}\n")


def chat(arguments: Sequence[str]) -> int:
    """Runs the command; returns its exit status.

    That is 0 after a clean close, 1 if the connection was lost, and 2 if it could not be opened.
    """
    parser = _Parser(
        prog=_NAME,
        description="Sends each line of standard input as a message, and prints each message received.",
    )
    parser.add_argument("url", metavar="URL", help="ws://HOST/PATH or wss://HOST/PATH")
    header_help = "a field to add to the request (repeatable)"
    parser.add_argument("--header", action="append", default=[], metavar="NAME:VALUE", help=header_help)
    subprotocol_help = "a subprotocol to offer (repeatable)"
    parser.add_argument("--subprotocol", action="append", default=[], metavar="NAME", help=subprotocol_help)
    parser.add_argument("--origin", metavar="ORIGIN", help="the Origin field of the request")
    parser.add_argument("--ca", metavar="FILE", help="certificates to trust in addition to the system's")
    options = parser.parse_args(arguments)
    headers = [(name.strip(), value.strip()) for name, _, value in (h.partition(":") for h in options.header)]
    try:
        context = None
        if options.ca:
            context = ssl.create_default_context()
            context.load_verify_locations(options.ca)
        opening = connect(
            options.url,
            headers=headers,
            subprotocols=options.subprotocol,
            origin=options.origin,
            ssl_context=context,
        )
    except (WebSocketError, OSError) as error:
        print(f"{_NAME}: {escape(str(error))}", file=sys.stderr)
        return 2
    with suppress(KeyboardInterrupt):
        return asyncio.run(_chat(opening, sys.stdin))
    return 0


async def _chat(opening: connect, lines: TextIO) -> int:
    try:
        websocket = await opening
    except (WebSocketError, OSError, TimeoutError) as error:
        print(f"{_NAME}: {escape(str(error)) or type(error).__name__}", file=sys.stderr)
        return 2
    print("connected; end the input to close", file=sys.stderr, flush=True)
    sending = asyncio.create_task(_send_lines(websocket, lines))
    async for message in websocket:
        print(escape(message), flush=True)
    sending.cancel()
    with suppress(asyncio.CancelledError, ConnectionClosedError):
        await sending
    closed = websocket.closed
    assert closed is not None  # noqa: S101 - the iteration has ended
    print(f"closed with {closed.code} {escape(closed.reason)}".rstrip(), file=sys.stderr)
    return 0 if closed.clean else 1


async def _send_lines(websocket: WebSocket, lines: TextIO) -> None:
    queue: asyncio.Queue[str] = asyncio.Queue(maxsize=100)
    loop = asyncio.get_running_loop()

    def read() -> None:
        # In a thread, because the event loop cannot wait for a file.
        with suppress(RuntimeError):  # the loop is closed
            for line in lines:
                asyncio.run_coroutine_threadsafe(queue.put(line), loop).result()
            asyncio.run_coroutine_threadsafe(queue.put(""), loop).result()

    threading.Thread(target=read, daemon=True).start()
    while line := await queue.get():
        await websocket.send(line.removesuffix("\n"))
    await websocket.close()


def escape(message: str | bytes) -> str:
    """Returns ``message`` as printable text: bytes in hexadecimal, control characters as escapes."""
    if isinstance(message, bytes):
        return f"<{len(message)} bytes: {message[:32].hex(' ')}{' …' if len(message) > 32 else ''}>"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
