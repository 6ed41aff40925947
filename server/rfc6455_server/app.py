"""`Server`: routes, rooms, pages, and the listening socket.

Left to others: one connection (`listener`, `websocket`), rooms (`rooms`), the command line (`cli`).
"""

import asyncio
import signal
import ssl
from collections.abc import Callable, Collection
from typing import TypeVar

from rfc6455 import PerMessageDeflate
from rfc6455.constants import DEFAULT_MAX_MESSAGE_SIZE
from rfc6455.handshake import ConnectionOptions
from rfc6455.headers import ascii_lower
from rfc6455_server.http import Page
from rfc6455_server.listener import Handler, Listener, Route, compile_route
from rfc6455_server.rooms import Rooms

_AnyHandler = TypeVar("_AnyHandler", bound=Handler)

BACKLOG = 512
"""Connections that the operating system queues until they are accepted."""


class Server:
    """A WebSocket server with rooms.

    ``max_message_size``: bytes of a message, else 1009. ``origins``: the origins that browsers may come
    from, such as ``https://example.com``; ``["*"]`` for any, ``None`` for the server's own.

    ``compression`` accepts permessage-deflate where a client offers it. It is off by default, because it
    costs: some 300 KiB for each connection that has sent and been sent a compressed message (less with
    smaller windows, nothing between messages with ``no_context_takeover``), and many times the processor
    time of an uncompressed message.
    """

    def __init__(
        self,
        *,
        max_message_size: int = DEFAULT_MAX_MESSAGE_SIZE,
        origins: Collection[str] | None = None,
        compression: PerMessageDeflate | None = None,
    ) -> None:
        if max_message_size < 1:
            raise ValueError("max_message_size is 1 at the least")
        self.rooms = Rooms()
        """``rooms[name]`` is the room of that name."""
        self._options = ConnectionOptions(max_message_size=max_message_size)
        self._origins = None if origins is None else [ascii_lower(origin) for origin in origins]
        self._compression = compression
        self._routes: list[Route] = []
        self._pages: dict[str, Page] = {}
        self._listener: Listener | None = None
        self._server: asyncio.Server | None = None

    def websocket(self, path: str) -> Callable[[_AnyHandler], _AnyHandler]:
        """Decorates the handler of a path: an async function of the `WebSocket` and the path's parts.

        ``{name}`` in the path stands for one segment, and is passed, percent-decoded, as the argument of
        that name. The first path that matches wins. Raises `ValueError` for a path of bad form.
        """

        def register(handler: _AnyHandler) -> _AnyHandler:
            self._routes.append(compile_route(path, handler))
            return handler

        return register

    def page(self, path: str, body: bytes, content_type: str) -> None:
        """Serves ``body`` over plain HTTP at ``path``."""
        self._pages[path] = Page(body, content_type)

    @property
    def port(self) -> int:
        """The port that the server listens on; raises `RuntimeError` when it does not."""
        if self._server is None:
            raise RuntimeError("the server is not started")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(
        self, host: str = "127.0.0.1", port: int = 0, *, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        """Listens; port 0 takes a free one, and ``ssl_context`` makes it ``wss://``.

        Raises `OSError` when that address is not to be had, `RuntimeError` when it is started already.
        """
        if self._server is not None:
            raise RuntimeError("the server is started already")
        listener = Listener(self._routes, self._pages, self._origins, self._compression, self._options)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            listener.make_protocol, host, port, backlog=BACKLOG, ssl=ssl_context
        )
        self._listener = listener

    async def stop(self) -> None:
        """Stops listening, closes every connection with 1001, and waits until the handlers are done."""
        if self._server is None or self._listener is None:
            return
        self._server.close()
        await self._listener.close()
        await self._server.wait_closed()
        self._server = self._listener = None

    def run(
        self,
        host: str = "127.0.0.1",
        port: int = 8765,
        *,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        """Serves until SIGINT or SIGTERM; calls ``started`` when it listens. Raises as `start` does."""
        asyncio.run(self._run(host, port, started))

    async def _run(self, host: str, port: int, started: Callable[[], None]) -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, stopped.set)
        await self.start(host, port)
        started()
        await stopped.wait()
        await self.stop()
