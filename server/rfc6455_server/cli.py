"""The command ``rfc6455-server``: an echo, rooms, and a page to try them."""

import argparse
import logging
import sys
from collections.abc import Sequence
from importlib import resources
from typing import NoReturn

from rfc6455 import PerMessageDeflate
from rfc6455.constants import DEFAULT_MAX_MESSAGE_SIZE
from rfc6455_server.app import Server
from rfc6455_server.websocket import WebSocket

_PAGES = {
    "/": ("index.html", "text/html"),
    "/chat.css": ("chat.css", "text/css"),
    "/chat.js": ("chat.js", "text/javascript"),
}


def make_server(
    max_message_size: int = DEFAULT_MAX_MESSAGE_SIZE, compression: PerMessageDeflate | None = None
) -> Server:
    """The server of the command: ``/echo``, ``/rooms/{name}``, and a chat at ``/``."""
    server = Server(max_message_size=max_message_size, compression=compression)

    @server.websocket("/echo")
    async def echo(ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    @server.websocket("/rooms/{name}")
    async def room(ws: WebSocket, name: str) -> None:
        lobby = server.rooms[name]
        lobby.join(ws)
        async for message in ws:
            lobby.broadcast(message, exclude=[ws])

    web = resources.files("rfc6455_server") / "web"
    for path, (file, content_type) in _PAGES.items():
        server.page(path, (web / file).read_bytes(), content_type)
    return server


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError
    return port


def _size(text: str) -> int:
    size = int(text)
    if size < 1:
        raise ValueError
    return size


_port.__name__ = "port"  # argparse says "invalid port value"
_size.__name__ = "size"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; gives its exit status."""
    parser = _Parser(
        prog="rfc6455-server", description="A WebSocket server: /echo, /rooms/NAME, and a chat at /."
    )
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help="address (%(default)s)")
    parser.add_argument(
        "--port", type=_port, default=8765, metavar="P", help="port, 0 for a free one (%(default)s)"
    )
    parser.add_argument(
        "--max-message-size",
        type=_size,
        default=DEFAULT_MAX_MESSAGE_SIZE,
        metavar="BYTES",
        help="larger messages are refused with 1009 (%(default)s)",
    )
    parser.add_argument(
        "--compression",
        action="store_true",
        help="accept permessage-deflate: some 300 KiB a connection that uses it (off)",
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    server = make_server(options.max_message_size, PerMessageDeflate() if options.compression else None)
    shown_host = f"[{options.host}]" if ":" in options.host else options.host

    def started() -> None:
        print(f"serving on http://{shown_host}:{server.port}", flush=True)

    try:
        server.run(options.host, options.port, started=started)
    except OSError as error:
        why = error.strerror or error
        print(f"rfc6455-server: cannot listen on {shown_host}:{options.port}: {why}", file=sys.stderr)
        return 2
    return 0
