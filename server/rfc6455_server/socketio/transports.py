"""The requests of Socket.IO clients, WebSocket and HTTP long-polling at one path: checks and answers.

Implements: https://github.com/socketio/engine.io-protocol, the HTTP side; CORS (Fetch, section 3.2).
Left to others: one session (`session`, `engine`), what its messages mean (`clients`).
"""

import json
from collections.abc import Awaitable, Callable, Collection
from typing import Final
from urllib.parse import parse_qsl

from rfc6455 import CloseCode, Request, ascii_lower
from rfc6455_server.clock import Clock
from rfc6455_server.http.routes import HttpRequest, HttpResponse, HttpRoute
from rfc6455_server.listening.routing import Refusal, Route, compile_route, same_origin
from rfc6455_server.socketio.engine import EngineError, EngineSession, Transport, encode_payload
from rfc6455_server.socketio.session import Session, new_id
from rfc6455_server.stats import Stats
from rfc6455_server.websocket.websocket import WebSocket

PROTOCOL: Final = "4"
"""The version of Engine.IO that clients name in their requests."""

# The status, and the code and the text of the official server, which clients show.
_UNKNOWN_TRANSPORT: Final = (400, 0, "Transport unknown")
_UNKNOWN_SID: Final = (400, 1, "Session ID unknown")
_BAD_METHOD: Final = (400, 2, "Bad handshake method")
_BAD_REQUEST: Final = (400, 3, "Bad request")
_FORBIDDEN: Final = (403, 4, "Forbidden")
_BAD_PROTOCOL: Final = (400, 5, "Unsupported protocol version")

_Error = tuple[int, int, str]


def parse_query(request: Request) -> dict[str, str]:
    """Returns the parameters of the query. Of several with one name, the last counts."""
    return dict(parse_qsl(request.query, keep_blank_values=True))


class Transports:
    """The sessions of a `SocketIO`, and the requests that belong to them.

    ``cors``: allowed origins besides the server's own, ``"*"`` for any. ``make_session`` makes the
    `EngineSession` for an id, a transport and a time. ``admit`` may refuse a request that opens a session by
    polling. ``opened`` is called with each new session and the request that opened it.
    """

    def __init__(
        self,
        *,
        cors: Collection[str],
        max_payload: int,
        max_sessions: int,
        clock: Callable[[], Clock],
        stats: Stats,
        admit: Callable[[Request], Awaitable[Refusal | None]],
        make_session: Callable[[str, Transport, float], EngineSession],
        opened: Callable[[Session, Request], None],
    ) -> None:
        self._cors = [ascii_lower(origin) for origin in cors]
        self._max_payload = max_payload
        self._max_sessions = max_sessions
        self._clock = clock
        self._stats = stats
        self._admit = admit
        self._make_session = make_session
        self._opened = opened
        self.sessions: dict[str, Session] = {}

    def websocket_route(self, path: str) -> Route:
        return compile_route(path, self._serve_websocket, self._check_websocket, self._max_payload)

    def http_route(self) -> HttpRoute:
        return HttpRoute(
            self._serve_http,
            methods=("GET", "POST", "OPTIONS"),
            max_body=self._max_payload,
            long=True,
            begin=self._begin,
            abandon=self._abandon,
        )

    # Checks of requests.

    def _origin_fields(self, request: Request) -> list[tuple[str, str]] | None:
        """Returns the CORS fields of the answer, or ``None`` if the request's origin is not allowed."""
        origin = request.origin
        if origin is None:
            return []
        if ascii_lower(origin) in self._cors:
            fields = [("Access-Control-Allow-Origin", origin), ("Access-Control-Allow-Credentials", "true")]
            return [*fields, ("Vary", "Origin")]
        if "*" in self._cors:
            # Any origin, but without cookies.
            return [("Access-Control-Allow-Origin", "*")]
        return [] if same_origin(request) else None

    def _check(self, request: Request, transport: Transport) -> _Error | None:
        """Returns the error of a request, or ``None``; checks everything but its session's state."""
        query = parse_query(request)
        if self._origin_fields(request) is None:
            return _FORBIDDEN
        named = query.get("transport")
        if named not in ("polling", "websocket"):
            return _UNKNOWN_TRANSPORT
        sid = query.get("sid")
        if sid is not None:
            session = self.sessions.get(sid)
            if session is None:
                return _UNKNOWN_SID
            if named != transport or (transport == "polling" and session.engine.transport != "polling"):
                return _BAD_REQUEST
            return None
        if request.method != "GET":
            return _BAD_METHOD
        if named != transport:
            return _BAD_REQUEST
        return None if query.get("EIO") == PROTOCOL else _BAD_PROTOCOL

    # WebSocket.

    def _check_websocket(self, request: Request) -> Refusal | None:
        error = self._check(request, "websocket")
        if error is None and len(self.sessions) >= self._max_sessions and "sid" not in parse_query(request):
            return Refusal(503, b"too many sessions\n")
        if error is None:
            return None
        status, code, message = error
        body = json.dumps({"code": code, "message": message}, separators=(",", ":")).encode()
        return Refusal(status, body, [("Content-Type", "application/json")])

    async def _serve_websocket(self, websocket: WebSocket) -> None:
        request = websocket.request
        assert request is not None  # noqa: S101 - a server's connection has one
        query = parse_query(request)
        sid = query.get("sid")
        if sid is not None:
            session = self.sessions.get(sid)
            if session is None:
                websocket.start_close(CloseCode.POLICY_VIOLATION, "the session is closed")
                return
            await session.serve_websocket(websocket, probing=True)
            return
        session = self._open(request, "websocket", websocket.address, secure=websocket.secure)
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
        if request.method == "POST" and session is not None and not session.expect_post_body():
            return self._error(request, _BAD_REQUEST)
        return None

    def _abandon(self, request: Request) -> None:
        session = self.sessions.get(parse_query(request).get("sid", ""))
        if request.method == "POST" and session is not None:
            session.lose_post_body()

    async def _serve_http(self, request: HttpRequest) -> HttpResponse:
        head = request.head
        if head.method == "OPTIONS":
            return self._preflight(head)
        sid = parse_query(head).get("sid")
        if sid is None:
            if len(self.sessions) >= self._max_sessions:
                return HttpResponse(b"too many sessions\n", status=503)
            refusal = await self._admit(head)
            if refusal is not None:
                return HttpResponse(refusal.body, status=refusal.status, headers=list(refusal.headers))
            session = self._open(head, "polling", request.address, secure=request.secure)
            return self._answer(head, encode_payload([session.engine.handshake_packet()]))
        found = self.sessions.get(sid)
        if found is None:
            return self._error(head, _UNKNOWN_SID)
        try:
            if head.method == "GET":
                return self._answer(head, await found.poll())
            self._stats.messages_in += 1
            await found.receive_post_body(request.body)
        except EngineError:
            return self._error(head, _BAD_REQUEST)
        return self._answer(head, "ok", "text/html")

    def _preflight(self, request: Request) -> HttpResponse:
        fields = self._origin_fields(request)
        if fields is None:
            return self._error(request, _FORBIDDEN)
        requested = request.headers.get("Access-Control-Request-Headers")
        fields += [("Access-Control-Allow-Methods", "GET, POST"), ("Access-Control-Max-Age", "600")]
        if requested is not None:
            fields.append(("Access-Control-Allow-Headers", requested))
        return HttpResponse(status=204, headers=fields)

    def _answer(self, request: Request, body: str, kind: str = "text/plain") -> HttpResponse:
        fields = [*(self._origin_fields(request) or ()), ("Cache-Control", "no-store")]
        return HttpResponse(body.encode(), f"{kind}; charset=UTF-8", headers=fields)

    def _error(self, request: Request, error: _Error) -> HttpResponse:
        status, code, message = error
        body = json.dumps({"code": code, "message": message}, separators=(",", ":")).encode()
        fields = list(self._origin_fields(request) or ())
        return HttpResponse(body, "application/json", status, headers=fields)

    # Sessions.

    def _open(self, request: Request, transport: Transport, address: str, *, secure: bool) -> Session:
        clock = self._clock()
        engine = self._make_session(new_id(), transport, clock.time())
        session = Session(engine, clock, address, self._closed)
        session.secure = secure
        session.binary = "b64" not in parse_query(request)
        self.sessions[engine.sid] = session
        self._opened(session, request)
        return session

    def _closed(self, session: Session) -> None:
        self.sessions.pop(session.sid, None)

    def close(self, reason: str) -> None:
        """Ends all sessions at once."""
        for session in list(self.sessions.values()):
            session.fail(reason)
