"""From an accepted TCP connection to a handler: the head, the route, the origin, the upgrade; and drain.

Left to others: accepting (`acceptor`), plain HTTP (`http`), what a handler does.
"""

import asyncio
import logging
import math
import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from rfc6455 import (
    CloseCode,
    ConnectionOptions,
    HandshakeError,
    HandshakeFailed,
    Headers,
    LocalProtocolError,
    PerMessageDeflate,
    Request,
    Response,
    ServerHandshake,
    ascii_lower,
)
from rfc6455_server.clock import Timer
from rfc6455_server.http.connection import HttpConnection
from rfc6455_server.http.routes import HttpRoutes
from rfc6455_server.limits import Addresses, LimitExceededError
from rfc6455_server.listening.proxy import Trusted, forwarded_for
from rfc6455_server.logs import log
from rfc6455_server.websocket.ending import ConnectionClosedError
from rfc6455_server.websocket.hub import Hub
from rfc6455_server.websocket.keepalive import Keepalive
from rfc6455_server.websocket.reports import Cause
from rfc6455_server.websocket.streams import LINGER_TIMEOUT, CodecProtocol
from rfc6455_server.websocket.websocket import WebSocket

BEARER: Final = "bearer"
"""The subprotocol that a token may stand behind: browsers can set no header."""

_LOOK_INTERVAL: Final = 0.05
"""Seconds between two looks at the deadlines of opening handshakes at the least."""

MAX_EARLY: Final = 1 << 16
"""Bytes that may come before the request is answered."""

Handler = Callable[..., Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """What ``authorize`` gives for a request that is not to become a connection."""

    status: int = 403
    body: bytes = b"refused\n"
    headers: Sequence[tuple[str, str]] = ()


Authorize = Callable[[Request], Awaitable[Any]]

# A part of a path template: {name} stands for one segment.
_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Route(NamedTuple):
    """A path template, compiled, and the handler behind it.

    ``check`` sees the request instead of the test of its origin, and may refuse it; ``max_message_size``
    stands in for the server's.
    """

    pattern: re.Pattern[str]
    handler: Handler
    check: "Callable[[Request], Refusal | None] | None" = None
    max_message_size: int | None = None


def compile_route(
    template: str,
    handler: Handler,
    check: Callable[[Request], Refusal | None] | None = None,
    max_message_size: int | None = None,
) -> Route:
    """A route for a template such as ``/rooms/{name}``; raises `ValueError` for one of bad form."""
    literal_parts = _PARAMETER.split(template)[::2]
    if not template.startswith("/") or any(set(part) & set("{}?#") for part in literal_parts):
        raise ValueError(f"not a path template: {template!r}")
    pieces = [
        re.escape(piece) if index % 2 == 0 else f"(?P<{piece}>[^/]+)"
        for index, piece in enumerate(_PARAMETER.split(template))
    ]
    return Route(re.compile("".join(pieces)), handler, check, max_message_size)


def same_origin(request: Request) -> bool:
    """Whether a browser's page comes from this server; who sends no Origin is no browser (RFC 6455 §10.2)."""
    origin = request.origin
    if origin is None:
        return True
    try:
        authority = urlsplit(ascii_lower(origin)).netloc
    except ValueError:
        return False  # no URI at all, such as one with half a bracket
    return authority == ascii_lower(request.headers.get("Host") or "")


def bearer_token(request: Request) -> str | None:
    """The token of a request, from wherever a client could put it; ``None`` when there is none.

    ``Authorization: Bearer …``; the subprotocols ``bearer, …``, of which the first is then chosen; or
    ``?access_token=…``. It is never logged. Raises `rfc6455.HandshakeError` for subprotocols of bad form.
    """
    scheme, _, token = (request.headers.get("Authorization") or "").partition(" ")
    if ascii_lower(scheme) == BEARER and token:
        return token.strip()
    offered = request.subprotocols
    if len(offered) > 1 and offered[0] == BEARER:
        return offered[1]
    return next(iter(parse_qs(request.query).get("access_token", [])), None)


@dataclass
class Site:
    """What a server serves, and to whom."""

    routes: list[Route] = field(default_factory=list)
    http: HttpRoutes = field(default_factory=HttpRoutes)
    origins: Collection[str] | None = None
    subprotocols: Sequence[str] = ()
    compression: PerMessageDeflate | None = None
    trusted: Trusted = field(default_factory=Trusted)
    authorize: Authorize | None = None


class Listener:
    """Serves accepted connections. Their opening handshakes need no task; each handler has one."""

    def __init__(self, site: Site, hub: Hub) -> None:
        self._site = site
        self.hub = hub
        self._options = ConnectionOptions(max_message_size=hub.limits.max_message_size)
        self._loop = asyncio.get_running_loop()
        self._keepalive = Keepalive(hub)
        self._addresses = Addresses(hub.limits)
        self._protocols: dict[CodecProtocol, str | None] = {}  # with the address that each counts for
        self._openings: dict[_Opening, float] = {}  # with the time until which each is to be answered
        self._timer: Timer | None = None
        self._next_look = math.inf
        self._http: dict[CodecProtocol, HttpConnection] = {}
        self._all_gone: asyncio.Future[None] | None = None
        self._tasks: dict[WebSocket, asyncio.Task[None]] = {}
        self.draining = False

    @property
    def websockets(self) -> Collection[WebSocket]:
        """The connections whose handler runs."""
        return self._tasks.keys()

    @property
    def connections(self) -> int:
        """TCP connections, whatever is spoken on them."""
        return len(self._protocols)

    # Accepting.

    def make_protocol(self, address: str, deadline: float) -> CodecProtocol | bytes:
        """The protocol of an accepted connection, or the answer that refuses it."""
        counted = None if address in self._site.trusted else address  # a proxy has the connections of many
        status = 0
        if len(self._protocols) >= self.hub.limits.max_connections:
            status = 503
        elif counted is not None and not self._addresses.admit(counted, self.hub.clock.time()):
            status = 429
        if status:
            self.note_refusal(status, address, "")
            return Response(status, Headers([("Connection", "close"), ("Content-Length", "0")])).encode()
        protocol = CodecProtocol(self._loop, partial(self._open, deadline))
        protocol.peer = protocol.address = address
        protocol.on_lost = self._gone
        self._protocols[protocol] = counted
        return protocol

    def _open(
        self, deadline: float, protocol: CodecProtocol, writer: asyncio.StreamWriter, data: bytes = b""
    ) -> None:
        """Waits for a request, the first of a connection or the next."""
        handshake = ServerHandshake(deflate=self._site.compression, **self._options)
        opening = _Opening(handshake, protocol, writer, self)
        self._openings[opening] = deadline
        if deadline < self._next_look:
            self._look_at(deadline)
        protocol.reader.attach(opening)
        if data:
            opening.receive_data(data)

    def _look_at(self, time: float) -> None:
        """One timer for all: most are answered at once, and need none."""
        self._stop_looking()
        self._next_look = time
        self._timer = self.hub.clock.call_later(max(0.0, time - self.hub.clock.time()), self._look)

    def _stop_looking(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._next_look = math.inf

    def _look(self) -> None:
        """Ends the openings whose time is up."""
        now = self.hub.clock.time()
        for opening, deadline in list(self._openings.items()):
            if deadline <= now:
                opening.time_out()
        self._stop_looking()
        if self._openings:
            self._look_at(max(min(self._openings.values()), now + _LOOK_INTERVAL))

    def _gone(self, protocol: CodecProtocol) -> None:
        self._http.pop(protocol, None)
        counted = self._protocols.pop(protocol, None)
        if counted is not None:
            self._addresses.release(counted)
        if self._all_gone is not None and not self._protocols:
            self._all_gone.set_result(None)

    # Answering.

    def forget(self, opening: "_Opening") -> None:
        """Called when an opening handshake is over, however it ended."""
        self._openings.pop(opening, None)

    def is_plain(self, event: Request | HandshakeFailed) -> bool:
        """Whether plain HTTP is the better answer: no upgrade is wanted, and there is a page or nothing."""
        if not isinstance(event, HandshakeFailed) or event.request is None:
            return False
        if "Upgrade" in event.request.headers:
            return False
        path = event.request.path
        return self._find(path) is None or self._site.http.find(path) is not None

    def speak_http(
        self, request: Request, data: bytes, protocol: CodecProtocol, writer: asyncio.StreamWriter
    ) -> None:
        """Answers a plain request, which ``data`` begins with."""
        # A proxy may send the requests of many over one connection.
        protocol.address = forwarded_for(request, protocol.peer, self._site.trusted)

        def done(early: bytes) -> None:
            self._open(self.hub.clock.time() + self.hub.limits.handshake_timeout, protocol, writer, early)

        connection = HttpConnection(self._site.http, protocol, writer, self.hub, done, self.is_draining)
        self._http[protocol] = connection
        protocol.reader.attach(connection)
        connection.receive_data(data)

    def is_draining(self) -> bool:
        """Whether the server is about to stop."""
        return self.draining

    def judge(self, request: Request, protocol: CodecProtocol) -> "Refusal | _Match":
        """What to do with a request for a WebSocket, apart from ``authorize``."""
        if protocol.peer in self._site.trusted:
            protocol.address = forwarded_for(request, protocol.peer, self._site.trusted)
            if not self._count_behind_proxy(protocol):
                return Refusal(429, b"too many connections\n")
        match = self._find(request.path)
        if self.draining:
            return Refusal(503, b"the server stops\n", [("Retry-After", "5")])
        if match is not None and match.route.check is not None:
            return match.route.check(request) or match
        if not self._may_come_from(request):
            # RFC 6455 §10.2: SHOULD answer 403.
            return Refusal(403, b"origin not allowed\n")
        if match is None:
            # RFC 6455 §4.2.2: MUST answer with an error when the service is not available.
            return Refusal(404, b"not found\n")
        return match

    def _count_behind_proxy(self, protocol: CodecProtocol) -> bool:
        """Now that the client behind a proxy is known, it counts as an address of its own."""
        address = protocol.address
        if address in self._site.trusted:
            return True
        if not self._addresses.admit(address, self.hub.clock.time()):
            return False
        self._protocols[protocol] = address
        return True

    @property
    def authorize(self) -> Authorize | None:
        """The server's hook."""
        return self._site.authorize

    def choose_subprotocol(self, request: Request) -> str | None:
        """The first of the client's that the server speaks; `BEARER` where a token stands behind it."""
        if "Sec-WebSocket-Protocol" not in request.headers:
            return None
        offered = request.subprotocols
        chosen = next((name for name in offered if name in self._site.subprotocols), None)
        return chosen or (BEARER if len(offered) > 1 and offered[0] == BEARER else None)

    def note_refusal(self, status: int, address: str, path: str, reason: str = "") -> None:
        """Counts and logs a request that was refused."""
        self.hub.stats.refused[status] += 1
        log(logging.INFO, "request refused", status=status, address=address, path=path, reason=reason)

    def _find(self, path: str) -> "_Match | None":
        for route in self._site.routes:
            match = route.pattern.fullmatch(path)
            if match:
                return _Match(route, {name: unquote(value) for name, value in match.groupdict().items()})
        return None

    def _may_come_from(self, request: Request) -> bool:
        """Same origin by default, or else the server's list."""
        if self._site.origins is None or request.origin is None:
            return same_origin(request)
        return "*" in self._site.origins or ascii_lower(request.origin) in self._site.origins

    # Handlers.

    def serve(self, websocket: WebSocket, match: "_Match") -> None:
        """Runs a handler on an open connection, in a task of its own."""
        self.hub.stats.connections += 1
        self._tasks[websocket] = self._loop.create_task(self._handle(websocket, match))
        self._keepalive.add(websocket)

    async def _handle(self, websocket: WebSocket, match: "_Match") -> None:
        try:
            handling = match.route.handler(websocket, **match.parameters)
            del match  # nothing of the request's route stays alive with the connection
            await handling
        except asyncio.CancelledError:
            websocket.fail(CloseCode.GOING_AWAY, "the server stops", cause=Cause.GOING_AWAY)
            raise
        except ConnectionClosedError:
            pass  # the handler wanted to go on, the peer did not
        except LimitExceededError as error:
            websocket.start_close(CloseCode.POLICY_VIOLATION, str(error), cause=Cause.LIMIT)
        except Exception:  # noqa: BLE001 - whatever a handler raises
            log(logging.ERROR, "a handler failed", exception=True, id=websocket.id, address=websocket.address)
            websocket.start_close(CloseCode.INTERNAL_ERROR, cause=Cause.HANDLER_FAILED)
        finally:
            del self._tasks[websocket]
            if websocket.closed is not None:
                self._keepalive.discard(websocket)
        if websocket.closed is None:
            try:
                await websocket.close()
            finally:
                self._keepalive.discard(websocket)

    # Stopping.

    async def drain(self, seconds: float) -> None:
        """Takes no new WebSockets, and tells those there are 1001, spread over ``seconds``."""
        self.draining = True
        websockets = list(self._tasks)
        for websocket in websockets:
            websocket.start_close(CloseCode.GOING_AWAY, "the server stops", cause=Cause.GOING_AWAY)
            # After the last one, too: proxies have yet to notice that they are not to come here any more.
            await self._sleep(seconds / len(websockets))

    async def close(self) -> None:
        """Tells every connection 1001, waits for the handlers, and cancels those that take too long."""
        self.draining = True
        for opening in list(self._openings):
            opening.abort()
        self._stop_looking()
        for connection in list(self._http.values()):
            connection.abort()
        for websocket in list(self._tasks):
            websocket.start_close(CloseCode.GOING_AWAY, "the server stops", cause=Cause.GOING_AWAY)
        if self._tasks:
            tasks = list(self._tasks.values())
            _, late = await asyncio.wait(tasks, timeout=self.hub.limits.close_timeout)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        self._keepalive.stop()
        if self._protocols:
            self._all_gone = self._loop.create_future()
            await asyncio.wait([self._all_gone], timeout=LINGER_TIMEOUT)
            self.abort()
            await asyncio.sleep(0)

    def abort(self) -> None:
        """Ends every connection at once."""
        for protocol in list(self._protocols):
            protocol.reader.abort()

    async def _sleep(self, seconds: float) -> None:
        woken = self._loop.create_future()
        self.hub.clock.call_later(seconds, woken.set_result, None)
        await woken


class _Match(NamedTuple):
    """A route, and the parts of the path that its handler is called with."""

    route: Route
    parameters: dict[str, str]


class _Opening:
    """A connection until its request is answered: it takes the bytes as they come."""

    __slots__ = ("_answered", "_data", "_handshake", "_listener", "_protocol", "_task", "_writer")

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
        self._data = b""  # all of it, for whoever speaks plain HTTP
        self._task: asyncio.Task[None] | None = None
        self._answered = False

    def receive_data(self, data: bytes) -> None:
        """Takes bytes from the network."""
        if self._answered:
            return  # what still comes is not looked at
        self._data += data
        if self._task is not None:
            if len(self._data) > MAX_EARLY:
                self._protocol.reader.pause()
            self._handshake.receive_data(data)
            return
        self._handshake.receive_data(data)
        event = self._handshake.next_event()
        if event is None:
            return
        if isinstance(event, Request):
            self._judge(event)
            return
        self._finish()
        if event.request is not None and self._listener.is_plain(event):
            self._listener.speak_http(event.request, self._data, self._protocol, self._writer)
        else:
            path = event.request.path if event.request else ""
            self._listener.note_refusal(event.error.status, self._protocol.address, path, event.error.slug)
            self._answer_and_close()

    def receive_eof(self) -> None:
        """The peer left before it was answered, or after."""
        if self._task is not None:
            self._task.cancel()
        self._finish()
        self._writer.close()

    def abort(self) -> None:
        """Ends the connection at once."""
        if self._task is not None:
            self._task.cancel()
        self._finish()
        self._writer.transport.abort()

    def _judge(self, request: Request) -> None:
        verdict = self._listener.judge(request, self._protocol)
        authorize = self._listener.authorize
        if isinstance(verdict, Refusal):
            self._refuse(request, verdict)
        elif authorize is None:
            self._accept(request, verdict, None)
        else:
            self._task = asyncio.get_running_loop().create_task(self._ask(authorize, request, verdict))

    async def _ask(self, authorize: Authorize, request: Request, match: _Match) -> None:
        """Has the server's hook decide; the deadline of the handshake goes on."""
        try:
            verdict = await authorize(request)
        except HandshakeError as error:
            verdict = Refusal(error.status, f"{error}\n".encode())
        except Exception:  # noqa: BLE001 - whatever a hook raises
            address = self._protocol.address
            log(logging.ERROR, "authorize failed", exception=True, address=address, path=request.path)
            verdict = Refusal(500, b"internal error\n")
        if isinstance(verdict, Refusal):
            self._refuse(request, verdict)
        else:
            self._accept(request, match, verdict)

    def _accept(self, request: Request, match: _Match, user: object) -> None:
        self._finish()
        connection = self._handshake.accept(
            self._listener.choose_subprotocol(request), max_message_size=match.route.max_message_size
        )
        self._writer.write(self._handshake.data_to_send())
        if len(self._data) > MAX_EARLY:
            self._protocol.reader.resume()
        hub = self._listener.hub
        websocket = WebSocket(connection, request, self._protocol, self._writer, hub, user)
        self._listener.serve(websocket, match)

    def _refuse(self, request: Request, refusal: Refusal) -> None:
        self._finish()
        try:
            self._handshake.reject(refusal.status, headers=refusal.headers, body=refusal.body)
        except LocalProtocolError:
            log(logging.ERROR, "authorize failed", exception=True, path=request.path)
            refusal = Refusal(500)
            self._handshake.reject(500)
        self._listener.note_refusal(refusal.status, self._protocol.address, request.path)
        self._answer_and_close()

    def _answer_and_close(self) -> None:
        self._writer.write(self._handshake.data_to_send())
        self._writer.close()

    def _finish(self) -> None:
        self._answered = True
        self._listener.forget(self)

    def time_out(self) -> None:
        """Ends the connection: no request came, or no answer, in time."""
        if self._data:
            log(logging.INFO, "no request in time", address=self._protocol.address)
        self.abort()
