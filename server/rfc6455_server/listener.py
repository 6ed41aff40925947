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
    LINGER_TIMEOUT,
    CodecProtocol,
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
    """Serves accepted connections. Their opening handshakes need no task; each handler has one."""

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
        self._openings: set[_Opening] = set()
        self._protocols: dict[CodecProtocol, asyncio.WriteTransport] = {}
        self._all_gone: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.websockets: set[WebSocket] = set()

    def make_protocol(self) -> CodecProtocol:
        """The protocol factory for ``loop.create_server``."""
        return CodecProtocol(self._loop, self._connected)

    async def close(self) -> None:
        """Tells every connection 1001, waits for the handlers, and cancels those that take too long."""
        for opening in list(self._openings):
            opening.abort()
        for websocket in list(self.websockets):
            websocket.start_close(CloseCode.GOING_AWAY, "the server stops")
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        if self._protocols:
            self._all_gone = self._loop.create_future()
            _, late_futures = await asyncio.wait([self._all_gone], timeout=LINGER_TIMEOUT)
            for transport in list(self._protocols.values()) if late_futures else ():
                transport.abort()
            await self._all_gone

    def _gone(self, protocol: CodecProtocol) -> None:
        del self._protocols[protocol]
        if self._all_gone is not None and not self._protocols:
            self._all_gone.set_result(None)

    def _connected(self, protocol: CodecProtocol, writer: asyncio.StreamWriter) -> None:
        self._protocols[protocol] = writer.transport
        protocol.gone = self._gone
        handshake = ServerHandshake(deflate=self._compression, **self._options)
        opening = _Opening(handshake, protocol, writer, self)
        self._openings.add(opening)
        protocol.reader.attach(opening)

    def forget(self, opening: "_Opening") -> None:
        """Called when an opening handshake is over, however it ended."""
        self._openings.discard(opening)

    def answer(
        self, event: Request | HandshakeFailed, handshake: ServerHandshake
    ) -> tuple[Request, Route, dict[str, str]] | bytes:
        """What to do with a request: the route that it opens a WebSocket to, or an answer over HTTP."""
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
                    return request, route, parameters
            case HandshakeFailed(request=Request() as request) if self._is_plain(request):
                return respond(request, self._pages)
        return handshake.data_to_send()

    def serve(  # noqa: PLR0917 - all that a connection is made of
        self,
        connection: Connection,
        request: Request,
        protocol: CodecProtocol,
        writer: asyncio.StreamWriter,
        handler: Handler,
        parameters: dict[str, str],
    ) -> None:
        """Runs a handler on an open connection, in a task of its own."""
        websocket = WebSocket(connection, request, protocol, writer, self._tick)
        self.websockets.add(websocket)
        task = self._loop.create_task(self._handle(websocket, handler, parameters))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

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
        try:
            authority = urlsplit(ascii_lower(origin)).netloc
        except ValueError:
            return False  # no URI at all, such as one with half a bracket
        return authority == ascii_lower(request.headers["Host"])

    async def _handle(self, websocket: WebSocket, handler: Handler, parameters: dict[str, str]) -> None:
        try:
            handling = handler(websocket, **parameters)
            del handler, parameters  # nothing of the request's route stays alive with the connection
            await handling
        except asyncio.CancelledError:
            websocket.fail(CloseCode.GOING_AWAY, "the server stops")
            raise
        except ConnectionClosedError:
            pass  # the handler wanted to go on, the peer did not
        except Exception:
            logger.exception("a handler failed")
            websocket.start_close(CloseCode.INTERNAL_ERROR)
        finally:
            self.websockets.discard(websocket)
        if websocket.closed is None:
            await websocket.close()
        if websocket.failure is not None:
            # RFC 6455 §7.1.7: SHOULD log the problem. The text is ours; nothing of the peer's is in it.
            logger.info("a peer failed: %s (%s)", websocket.failure.reason, websocket.failure.error.slug)


class _Opening:
    """An accepted connection until its request is answered: it takes the bytes as they come."""

    __slots__ = ("_handshake", "_listener", "_protocol", "_timer", "_writer")

    def __init__(
        self,
        handshake: ServerHandshake,
        protocol: CodecProtocol,
        writer: asyncio.StreamWriter,
        listener: Listener,
    ) -> None:
        self._handshake = handshake
        self._protocol = protocol
        self._writer = writer
        self._listener = listener
        loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = loop.call_later(HANDSHAKE_TIMEOUT, self._time_out)

    def receive_data(self, data: bytes) -> None:
        """Takes bytes from the network."""
        if self._timer is None:
            return  # answered: what still comes is not looked at
        self._handshake.receive_data(data)
        event = self._handshake.next_event()
        if event is None:
            return
        self._finish()
        answer = self._listener.answer(event, self._handshake)
        if isinstance(answer, bytes):
            self._writer.write(answer)
            self._writer.close()
            return
        request, route, parameters = answer
        connection = self._handshake.accept()
        self._writer.write(self._handshake.data_to_send())
        self._listener.serve(connection, request, self._protocol, self._writer, route.handler, parameters)

    def receive_eof(self) -> None:
        """The peer left before it was answered, or after."""
        self._finish()
        self._writer.close()

    def abort(self) -> None:
        """Ends the connection at once."""
        self._finish()
        self._writer.transport.abort()

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._listener.forget(self)

    def _time_out(self) -> None:
        logger.info("no request within %s s", HANDSHAKE_TIMEOUT)
        self.abort()
