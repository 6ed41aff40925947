"""The requests of Socket.IO clients, WebSocket and HTTP long-polling at one path: checks and answers.

Implements: https://github.com/socketio/engine.io-protocol, the HTTP side.
Left to others: origins (`cors`), one session (`session`, `engine`), what its messages mean (`clients`).
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Final, NamedTuple

from rfc6455 import CloseCode, HandshakeError, Headers, Request, ascii_lower
from rfc6455_server.clock import spread
from rfc6455_server.http.routes import HttpRequest, HttpResponse, HttpRoute
from rfc6455_server.limits import Addresses, Limits
from rfc6455_server.listening.routing import STOPPING as REFUSED_WHILE_STOPPING
from rfc6455_server.listening.routing import Preparation, Refusal, Route
from rfc6455_server.logs import log
from rfc6455_server.socketio.compression import Coding, Compressor, choose_coding
from rfc6455_server.socketio.cors import Cors
from rfc6455_server.socketio.engine import EngineSession, Transport
from rfc6455_server.socketio.engine_packets import DEFAULT_MAX_PACKETS, EngineError, encode_payload
from rfc6455_server.socketio.handshake import parse_query
from rfc6455_server.socketio.ids import new_id
from rfc6455_server.socketio.options import EngineOptions, RefusedRequest
from rfc6455_server.socketio.polling import Answer
from rfc6455_server.socketio.reasons import CLOSES, STOPPING
from rfc6455_server.socketio.session import Session
from rfc6455_server.websocket.hub import Hub
from rfc6455_server.websocket.websocket import WebSocket

PROTOCOL: Final = "4"
"""The version of Engine.IO that clients name in their requests."""

MAX_POLL_PACKETS: Final = 16
"""Maximum packets of an answer to a client that may count them: python-socketio's takes no more."""

# The user agents of the official clients that take any number of packets: JavaScript's in a browser and in
# Node, Java's, Swift's.
_TAKES_MANY_PACKETS: Final = re.compile(r"^Mozilla/|^node-XMLHttpRequest|^okhttp/|\bCFNetwork/")
# The time as python-socketio's client writes it into the query; JavaScript's is a short text.
_PYTHON_TIME: Final = re.compile(r"[0-9]+\.[0-9]+")


_FRAMING_FIELDS: Final = ("content-length", "transfer-encoding")  # which HTTP sets


class _Error(NamedTuple):
    """An error status, with the code and the text of the official server, which clients show."""

    code: int
    message: str
    context: Mapping[str, object]

    @property
    def status(self) -> int:
        return 403 if self.code == _FORBIDDEN[0] else 400

    @property
    def body(self) -> bytes:
        return json.dumps({"code": self.code, "message": self.message}, separators=(",", ":")).encode()


_UNKNOWN_TRANSPORT: Final = (0, "Transport unknown")
_UNKNOWN_SID: Final = (1, "Session ID unknown")
_BAD_METHOD: Final = (2, "Bad handshake method")
_BAD_REQUEST: Final = (3, "Bad request")
_FORBIDDEN: Final = (4, "Forbidden")
_BAD_PROTOCOL: Final = (5, "Unsupported protocol version")


def max_poll_packets(request: Request) -> int:
    """Returns how many packets an answer may have for the client that sent a request."""
    agents = request.headers.get_all("User-Agent")
    takes_many = bool(agents) and _TAKES_MANY_PACKETS.search(agents[0]) is not None
    if takes_many and _PYTHON_TIME.fullmatch(parse_query(request).get("t", "")) is None:
        return DEFAULT_MAX_PACKETS
    return MAX_POLL_PACKETS


def check_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Raises `LocalProtocolError` or `ValueError` for fields that an answer cannot have.

    HTTP would refuse them too late: when the session is open, or its messages are taken.
    """
    Headers(fields)
    for name, value in fields:
        if not value.isascii() or value.strip(" \t") != value or ascii_lower(name) in _FRAMING_FIELDS:
            raise ValueError(f"an answer cannot have the field {name!r}: {value!r}")


class Transports:
    """The sessions of a `SocketIO`, and the requests that belong to them.

    ``make_session`` makes the `EngineSession` for an id, a transport and a time. ``admit`` refuses a request
    that opens a session by polling, or returns its user. ``is_closed`` says whether all are refused;
    ``is_proxy``, whether an address is a trusted proxy's. ``opened`` is called with each new session and the
    request that opened it, ``refused`` with each request that is answered with an error of the protocol.

    A session that was opened by polling has no TCP connection that would be counted, so the limits of
    connections apply to these sessions too: in all, by address, and in their rate.
    """

    def __init__(
        self,
        *,
        options: EngineOptions,
        cors: Cors,
        limits: Limits,
        hub: Callable[[], Hub],
        is_closed: Callable[[], bool],
        admit: Callable[[Request], Awaitable[Any]],
        is_proxy: Callable[[str], bool],
        make_session: Callable[[str, Transport, float], EngineSession],
        opened: Callable[[Session, Request], None],
        refused: Callable[[RefusedRequest], None],
    ) -> None:
        self._options = options
        self._cors = cors
        self._cookie = options.made_cookie()
        self._compressor = Compressor()
        self._limits = limits
        self._hub = hub
        self._is_closed = is_closed
        self._admit = admit
        self._is_proxy = is_proxy
        self._make_session = make_session
        self._opened = opened
        self._refused = refused
        self._addresses = Addresses(limits)
        self._opened_by_polling: dict[Session, str | None] = {}  # with the address that each counts for
        self.sessions: dict[str, Session] = {}

    def websocket_route(self, path: str) -> Route:
        """Returns the route of ``path`` and of all below it."""
        pattern = re.compile(re.escape(path) + "(?:/.*)?")
        options = self._options
        prepares = self._cookie or options.initial_headers or options.headers
        prepare = self._prepare_websocket if prepares else None
        return Route(
            pattern, self._serve_websocket, self._check_websocket, self._options.max_payload, prepare
        )

    def http_route(self) -> HttpRoute:
        return HttpRoute(
            self._serve_http,
            methods=None,
            max_body=self._options.max_payload,
            long=True,
            begin=self._begin,
            abandon=self._abandon,
        )

    # Checks of requests.

    def _check(self, request: Request, transport: Transport) -> _Error | None:
        """Returns the error of a request, or ``None``; checks everything but its session's state."""
        try:
            fields = self._cors.fields(request)
        except HandshakeError:
            origins = request.headers.get_all("Origin")
            return _Error(*_BAD_REQUEST, {"name": "INVALID_ORIGIN", "origin": origins})
        if fields is None:
            return _Error(*_FORBIDDEN, {"origin": request.origin})
        query = parse_query(request)
        named = query.get("transport")
        if named not in self._options.transports:
            return _Error(*_UNKNOWN_TRANSPORT, {"transport": named})
        sid = query.get("sid")
        if sid is not None:
            return self._check_session(request, transport, sid, named)
        if request.method != "GET":
            return _Error(*_BAD_METHOD, {"method": request.method})
        if named != transport:
            return _Error(*_BAD_REQUEST, {"name": "TRANSPORT_HANDSHAKE_ERROR"})
        if "j" in query:
            return _Error(
                *_BAD_REQUEST, {"name": "JSONP", "j": query["j"]}
            )  # a script could not read the answer
        protocol = query.get("EIO")
        return None if protocol == PROTOCOL else _Error(*_BAD_PROTOCOL, {"protocol": protocol})

    def _check_session(
        self, request: Request, transport: Transport, sid: str, named: str | None
    ) -> _Error | None:
        session = self.sessions.get(sid)
        if session is None:
            return _Error(*_UNKNOWN_SID, {"sid": sid})
        current = session.engine.transport
        if named != transport or (transport == "polling" and current != "polling"):
            context = {"name": "TRANSPORT_MISMATCH", "transport": named, "previous_transport": current}
            return _Error(*_BAD_REQUEST, context)
        if request.method not in ("GET", "POST"):
            return _Error(*_BAD_REQUEST, {"method": request.method})
        return None

    # WebSocket.

    def _check_websocket(self, request: Request) -> Refusal | None:
        if self._is_closed():
            return REFUSED_WHILE_STOPPING
        error = self._check(request, "websocket")
        if error is None:
            return None
        self._report(request, error)
        return Refusal(error.status, error.body, [("Content-Type", "application/json")], error.message)

    def _prepare_websocket(self, request: Request) -> Preparation:
        """Returns what a WebSocket's 101 carries. One that opens a session has its id now, for the cookie."""
        if "sid" in parse_query(request):
            return Preparation(self._added_fields(request, [], None))
        sid = new_id()
        return Preparation(self._added_fields(request, [], sid), {"sid": sid})

    async def _serve_websocket(self, websocket: WebSocket, sid: str = "") -> None:
        """Serves a WebSocket; ``sid`` is the id of the session that it opens, if that is fixed already."""
        request = websocket.request
        assert request is not None  # noqa: S101 - a server's connection has one
        probed = parse_query(request).get("sid")
        if probed is not None:
            session = self.sessions.get(probed)
            if session is None:
                websocket.start_close(CloseCode.POLICY_VIOLATION, "the session is closed")
                return
            await session.serve_websocket(websocket, probing=True)
            return
        if self._is_closed():
            websocket.start_close(*CLOSES[STOPPING])  # it was closed while the request was authorized
            return
        session = self._open(request, "websocket", websocket.address, sid)
        session.secure = websocket.secure
        session.user = websocket.user
        self._opened(session, request)
        await session.serve_websocket(websocket, probing=False)

    # Polling.

    def _begin(self, request: Request) -> HttpResponse | None:
        """Checks a request before its body arrives: two POSTs at a time are a violation."""
        if request.method == "OPTIONS":
            return None
        error = self._check(request, "polling")
        if error is not None:
            return self._error(request, error)
        session = self.sessions.get(parse_query(request).get("sid", ""))
        if request.method == "POST" and session is not None and not session.start_post():
            return self._error(request, _Error(*_BAD_REQUEST, {"name": "POST_OVERLAP"}))
        return None

    def _abandon(self, request: Request) -> None:
        session = self.sessions.get(parse_query(request).get("sid", ""))
        if request.method == "POST" and session is not None:
            session.lose_post()

    async def _serve_http(self, request: HttpRequest) -> HttpResponse:
        head = request.head
        if head.method == "OPTIONS":
            return self._preflight(head)
        sid = parse_query(head).get("sid")
        if sid is None:
            return await self._open_by_polling(request)
        found = self.sessions.get(sid)
        if found is None:
            return self._error(head, _Error(*_UNKNOWN_SID, {"sid": sid}))
        try:
            if head.method == "GET":
                return await self._answer_poll(found, head)
            self._hub().stats.messages_in += 1
            await found.receive_post(head, request.body)
        except EngineError as error:
            return self._error(head, _Error(*_BAD_REQUEST, {"name": error.slug}))
        try:
            return self._answer(head, b"ok", "text/html")
        except Exception:
            found.fail("transport error")  # a header hook failed, and the client takes the POST for lost
            raise

    async def _answer_poll(self, session: Session, request: Request) -> HttpResponse:
        threshold = self._options.http_compression
        session.start_poll()
        text = ""
        try:
            while True:
                await session.wait_poll()
                compresses = threshold is not None and session.unsent >= threshold
                coding = choose_coding(request) if compresses else None
                # Clients that take turns to have their answers compressed hold none while they wait.
                async with self._compressor.turn if coding else nullcontext():
                    text = session.take_poll()
                    if text:
                        return await self._make_answer(session, request, text, coding)
        except BaseException:
            if not text:
                session.lose_poll()  # the client has left
            raise

    async def _make_answer(
        self, session: Session, request: Request, text: str, coding: Coding | None
    ) -> HttpResponse:
        done = partial(_end_poll, session, Answer.of(text))
        fields: list[tuple[str, str]] = []
        try:
            body = text.encode()
            if coding is not None and len(body) >= (self._options.http_compression or 0):
                fields = [("Content-Encoding", coding), ("Vary", "Accept-Encoding")]
                body = await self._compressor.compress(body, coding)
            response = self._answer(request, body, added=fields)
        except BaseException:
            done(False)  # the client has left, or a header hook failed
            raise
        response.done = done
        return response

    def _preflight(self, request: Request) -> HttpResponse:
        try:
            fields = self._cors.preflight_fields(request)
        except HandshakeError as error:
            return self._error(request, _Error(*_BAD_REQUEST, {"name": error.slug}))
        if fields is None:
            return self._error(request, _Error(*_FORBIDDEN, {"origin": request.origin}))
        return HttpResponse(status=204, headers=fields)

    def _answer(
        self,
        request: Request,
        body: bytes,
        kind: str = "text/plain",
        *,
        added: Sequence[tuple[str, str]] = (),
        opened: str | None = None,
    ) -> HttpResponse:
        """Returns an answer that is no error; ``opened`` is the id of the session that it opens."""
        fields = [*(self._cors.fields(request) or ()), ("Cache-Control", "no-store"), *added]
        fields = self._added_fields(request, fields, opened)
        return HttpResponse(body, f"{kind}; charset=UTF-8", headers=fields)

    def _added_fields(
        self, request: Request, fields: list[tuple[str, str]], opened: str | None
    ) -> list[tuple[str, str]]:
        """Adds the cookie to the fields of an answer, and lets the application change them.

        Raises what a hook raises, and `check_fields` for what a hook has made.
        """
        options = self._options
        if opened is not None:
            if self._cookie is not None:
                fields.append(self._cookie.field(opened))
            if options.initial_headers is not None:
                options.initial_headers(request, fields)
        if options.headers is not None:
            options.headers(request, fields)
        if options.headers is not None or (opened is not None and options.initial_headers is not None):
            check_fields(fields)
        return fields

    def _error(self, request: Request, error: _Error) -> HttpResponse:
        self._report(request, error)
        try:
            fields = self._cors.fields(request) or []
        except HandshakeError:
            fields = []
        response = HttpResponse(error.body, "application/json", error.status, headers=fields)
        response.reason = error.message
        return response

    def _report(self, request: Request, error: _Error) -> None:
        self._refused(RefusedRequest(request, error.code, error.message, error.context))

    # Sessions.

    async def _open_by_polling(self, request: HttpRequest) -> HttpResponse:
        head = request.head
        user = await self._admit(head)
        if isinstance(user, Refusal):
            fields = list(user.headers)
            return HttpResponse(user.body, status=user.status, headers=fields, reason=user.reason)
        counted = None if self._is_proxy(request.address) else request.address
        if len(self._opened_by_polling) >= self._limits.max_connections:
            return HttpResponse(b"too many sessions\n", status=503, reason="too many sessions")
        if counted is not None and not self._addresses.admit(counted, self._hub().clock.time()):
            return HttpResponse(b"too many sessions\n", status=429, reason="too many of the address")
        session = self._open(head, "polling", request.address)
        session.secure = request.secure
        session.user = user
        self._opened_by_polling[session] = counted
        self._opened(session, head)
        opening = encode_payload([session.engine.handshake_packet()])
        try:
            return self._answer(head, opening.encode(), opened=session.sid)
        except Exception:
            session.fail("transport error")  # a header hook failed, and the client will not learn the id
            raise

    def _open(self, request: Request, transport: Transport, address: str, sid: str = "") -> Session:
        hub = self._hub()
        engine = self._make_session(sid or new_id(), transport, hub.clock.time())
        engine.max_poll_packets = max_poll_packets(request)
        session = Session(engine, hub, address, self._closed)
        session.binary = "b64" not in parse_query(request)
        self.sessions[engine.sid] = session
        return session

    def _closed(self, session: Session, reason: str) -> None:
        self.sessions.pop(session.sid, None)
        hub, transport = self._hub(), session.engine.transport
        hub.stats.session_closes[reason] += 1
        seconds = hub.clock.time() - session.engine.opened_at
        log(
            logging.INFO,
            "session closed",
            address=session.address,
            connection=session.connection_id,
            transport=transport,
            seconds=seconds,
            reason=reason,
        )
        counted = self._opened_by_polling.pop(session, None)
        if counted is not None:
            self._addresses.release(counted)

    def count(self) -> Counter[str]:
        """Returns the number of open sessions, by transport."""
        return Counter(session.engine.transport for session in self.sessions.values())

    async def drain(self, seconds: float) -> None:
        """Closes the sessions that poll, spread over ``seconds``. The server closes the WebSockets."""
        polling = [session for session in self.sessions.values() if session.engine.transport == "polling"]
        await spread(self._hub().clock, seconds, polling, lambda session: session.close(STOPPING))

    def close(self) -> None:
        """Ends all sessions at once: the server stops. A GET that waits is answered with a CLOSE."""
        for session in list(self.sessions.values()):
            session.fail(STOPPING)


def _end_poll(session: Session, answer: Answer, sent: bool) -> None:
    session.end_poll(answer, sent=sent)
