"""From an accepted TCP connection to a handler: the head, the route, the origin, the upgrade.

Left to others: listening itself (`app`), what a handler does.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from rfc6455 import CloseCode, Connection, HandshakeFailed, PerMessageDeflate, Request, ServerHandshake
from rfc6455.handshake import ConnectionOptions
from rfc6455.headers import ascii_lower
from rfc6455_server.http import Page, respond
from rfc6455_server.outbox import Tick
from rfc6455_server.websocket import (
    CLOSE_TIMEOUT,
    CodecProtocol,
    CodecReader,
    ConnectionClosedError,
    WebSocket,
)

HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds that a client has for its request, all of it."""

Handler = Callable[..., Awaitable[None]]

logger = logging.getLogger("rfc6455_server")

# A part of a path template: {name} stands for one segment.
_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Route(NamedTuple):
    """A path template, compiled, and the handler behind it."""

    pattern: re.Pattern[str]
    handler: Handler


def compile_route(template: str, handler: Handler) -> Route:
    """A route for a template such as ``/rooms/{name}``; raises `ValueError` for one of bad form."""
    literal_parts = _PARAMETER.split(template)[::2]
    if not template.startswith("/") or any(set(part) & set("{}?#") for part in literal_parts):
        raise ValueError(f"not a path template: {template!r}")
    pieces = [
        re.escape(piece) if index % 2 == 0 else f"(?P<{piece}>[^/]+)"
        for index, piece in enumerate(_PARAMETER.split(template))
    ]
    return Route(re.compile("".join(pieces)), handler)


class Listener:
    """Serves accepted connections, one task each."""

    def __init__(
        self,
        routes: list[Route],
        pages: Mapping[str, Page],
        origins: Collection[str] | None,
        compression: PerMessageDeflate | None,
        options: ConnectionOptions,
    ) -> None:
        self._routes = routes
        self._pages = pages
        self._origins = origins
        self._compression = compression
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._tick = Tick(self._loop)
        self._tasks: set[asyncio.Task[None]] = set()
        self.websockets: set[WebSocket] = set()

    def make_protocol(self) -> CodecProtocol:
        """The protocol factory for ``loop.create_server``."""
        return CodecProtocol(self._loop, self._connected)

    def _connected(self, protocol: CodecProtocol, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(protocol, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Tells every connection 1001, waits for the handlers, and cancels those that take too long."""
        for websocket in list(self.websockets):
            websocket.start_close(CloseCode.GOING_AWAY, "the server stops")
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    async def _serve(self, protocol: CodecProtocol, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                accepted = await self._handshake(protocol.reader, writer)
            if accepted is None:
                return
            # Nothing of the handshake stays alive with the connection.
            connection, request, handler, parameters = accepted
            del accepted
            websocket = WebSocket(connection, request, protocol, writer, self._tick)
            self.websockets.add(websocket)
            try:
                await self._handle(websocket, handler(websocket, **parameters))
            finally:
                self.websockets.discard(websocket)
        except TimeoutError:
            logger.info("no request within %s s", HANDSHAKE_TIMEOUT)
        except ConnectionError:
            pass  # the peer left before it had its answer
        finally:
            writer.close()

    async def _handshake(
        self, reader: CodecReader, writer: asyncio.StreamWriter
    ) -> tuple[Connection, Request, Handler, dict[str, str]] | None:
        """Reads a request and answers it; gives what is needed to go on when that opens a WebSocket."""
        handshake = ServerHandshake(deflate=self._compression, **self._options)
        while (event := handshake.next_event()) is None:
            data = await reader.read_early()
            if not data:
                return None
            handshake.receive_data(data)
        answer = b""
        match event:
            case Request() as request:
                route, parameters = self._find(request.path)
                if not self._may_come_from(request):
                    # RFC 6455 §10.2: SHOULD answer 403.
                    handshake.reject(403, body=b"origin not allowed\n")
                elif route is None:
                    # RFC 6455 §4.2.2: MUST answer with an error when the service is not available.
                    handshake.reject(404, body=b"not found\n")
                else:
                    connection = handshake.accept()
                    writer.write(handshake.data_to_send())
                    return connection, request, route.handler, parameters
            case HandshakeFailed(request=Request() as request) if self._is_plain(request):
                answer = respond(request, self._pages)
        writer.write(answer or handshake.data_to_send())
        await writer.drain()
        return None

    def _is_plain(self, request: Request) -> bool:
        """Whether plain HTTP is the better answer: no upgrade is asked for, and no WebSocket is there."""
        return "Upgrade" not in request.headers and self._find(request.path)[0] is None

    def _find(self, path: str) -> tuple[Route | None, dict[str, str]]:
        for route in self._routes:
            match = route.pattern.fullmatch(path)
            if match:
                return route, {name: unquote(value) for name, value in match.groupdict().items()}
        return None, {}

    def _may_come_from(self, request: Request) -> bool:
        """Same origin by default; who sends no Origin is no browser (RFC 6455 §10.2)."""
        origin = request.origin
        if origin is None:
            return True
        if self._origins is not None:
            return "*" in self._origins or ascii_lower(origin) in self._origins
        return urlsplit(ascii_lower(origin)).netloc == ascii_lower(request.headers["Host"])

    async def _handle(self, websocket: WebSocket, handling: Awaitable[None]) -> None:
        try:
            await handling
        except asyncio.CancelledError:
            websocket.fail(CloseCode.GOING_AWAY, "the server stops")
            raise
        except ConnectionClosedError:
            pass  # the handler wanted to go on, the peer did not
        except Exception:
            logger.exception("a handler failed")
            websocket.start_close(CloseCode.INTERNAL_ERROR)
        if websocket.closed is None:
            await websocket.close()
        if websocket.failure is not None:
            # RFC 6455 §7.1.7: SHOULD log the problem. The text is ours; nothing of the peer's is in it.
            logger.info("a peer failed: %s (%s)", websocket.failure.reason, websocket.failure.error.slug)
