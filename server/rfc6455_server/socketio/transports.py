"""The requests of Socket.IO clients, WebSocket and HTTP long-polling at one path: checks and answers.

Implements: https://github.com/socketio/engine.io-protocol, the HTTP side; CORS (Fetch, section 3.2).
Left to others: one session (`session`, `engine`), what its messages mean (`clients`).
"""

import json
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final
from urllib.parse import parse_qsl

from rfc6455 import CloseCode, Request, ascii_lower
from rfc6455_server.clock import sleep
from rfc6455_server.http.routes import HttpRequest, HttpResponse, HttpRoute
from rfc6455_server.limits import Addresses, Limits
from rfc6455_server.listening.routing import STOPPING as REFUSED_WHILE_STOPPING
from rfc6455_server.listening.routing import Refusal, Route, compile_route, same_origin
from rfc6455_server.socketio.engine import EngineSession, Transport
from rfc6455_server.socketio.engine_packets import EngineError, encode_payload
from rfc6455_server.socketio.ids import new_id
from rfc6455_server.socketio.reasons import STOPPING
from rfc6455_server.socketio.session import Session
from rfc6455_server.websocket.hub import Hub
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
    `EngineSession` for an id, a transport and a time. ``admit`` refuses a request that opens a session by
    polling, or returns its user. ``is_closed`` says whether all are refused; ``is_proxy``, whether an address
    is a trusted proxy's. ``opened`` is called with each new session and the request that opened it.

    A session that was opened by polling has no TCP connection that would be counted, so the limits of
    connections apply to these sessions too: in all, by address, and in their rate.
    """

    def __init__(
        self,
        *,
        cors: Collection[str],
        max_payload: int,
        limits: Limits,
        hub: Callable[[], Hub],
        is_closed: Callable[[], bool],
        admit: Callable[[Request], Awaitable[Any]],
        is_proxy: Callable[[str], bool],
        make_session: Callable[[str, Transport, float], EngineSession],
        opened: Callable[[Session, Request], None],
    ) -> None:
        self._cors = [ascii_lower(origin) for origin in cors]
        self._max_payload = max_payload
        self._limits = limits
        self._hub = hub
        self._is_closed = is_closed
        self._admit = admit
        self._is_proxy = is_proxy
        self._make_session = make_session
        self._opened = opened
        self._addresses = Addresses(limits)
        self._opened_by_polling: dict[Session, str | None] = {}  # with the address that each counts for
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
        if self._is_closed():
            return REFUSED_WHILE_STOPPING
        error = self._check(request, "websocket")
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
        session = self._open(request, "websocket", websocket.address)
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
            return self._error(request, _BAD_REQUEST)
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
            return self._error(head, _UNKNOWN_SID)
        try:
            if head.method == "GET":
                return self._answer(head, await found.poll())
            self._hub().stats.messages_in += 1
            await found.receive_post(head, request.body)
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

    async def _open_by_polling(self, request: HttpRequest) -> HttpResponse:
        head = request.head
        user = await self._admit(head)
        if isinstance(user, Refusal):
            return HttpResponse(user.body, status=user.status, headers=list(user.headers))
        counted = None if self._is_proxy(request.address) else request.address
        if len(self._opened_by_polling) >= self._limits.max_connections:
            return HttpResponse(b"too many sessions\n", status=503)
        if counted is not None and not self._addresses.admit(counted, self._hub().clock.time()):
            return HttpResponse(b"too many sessions\n", status=429)
        session = self._open(head, "polling", request.address)
        session.secure = request.secure
        session.user = user
        self._opened_by_polling[session] = counted
        self._opened(session, head)
        return self._answer(head, encode_payload([session.engine.handshake_packet()]))

    def _open(self, request: Request, transport: Transport, address: str) -> Session:
        hub = self._hub()
        engine = self._make_session(new_id(), transport, hub.clock.time())
        session = Session(engine, hub, address, self._closed)
        session.binary = "b64" not in parse_query(request)
        self.sessions[engine.sid] = session
        return session

    def _closed(self, session: Session) -> None:
        self.sessions.pop(session.sid, None)
        counted = self._opened_by_polling.pop(session, None)
        if counted is not None:
            self._addresses.release(counted)

    async def drain(self, seconds: float) -> None:
        """Closes the sessions that poll, spread over ``seconds``. The server closes the WebSockets."""
        polling = [session for session in self.sessions.values() if session.engine.transport == "polling"]
        for session in polling:
            session.close(STOPPING)
            await sleep(self._hub().clock, seconds / len(polling))

    def close(self) -> None:
        """Ends all sessions at once: the server stops."""
        for session in list(self.sessions.values()):
            session.fail(STOPPING)
