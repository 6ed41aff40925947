"""Which handler serves a request for a WebSocket, and which requests are refused. Does no I/O.

Implements: the server's decisions of RFC 6455 §4.2.2 (resource name, origin, subprotocol) and §10.2.
Left to others: the form of the request (`rfc6455.ServerHandshake`), addresses and limits (`listener`).
"""

import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, unquote

from rfc6455 import HandshakeFailed, PerMessageDeflate, Request, ascii_lower
from rfc6455_server.http.heads import ServedRequest
from rfc6455_server.http.routes import HttpRoutes
from rfc6455_server.listening.origins import is_origin
from rfc6455_server.listening.proxy import Trusted
from rfc6455_server.websocket.handler import Handler

BEARER: Final = "bearer"
"""The subprotocol that announces a token: a browser cannot set header fields, only subprotocols."""

AsyncHandler = Callable[..., Awaitable[None]]
"""An async function of the `WebSocket`, and of the path's parameters as keyword arguments."""

WebSocketHandler = AsyncHandler | type[Handler]
"""What serves a WebSocket. A `Handler` is made with the path's parameters as keyword arguments."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The HTTP answer to a request that is refused."""

    status: int = 403
    body: bytes = b"refused\n"
    headers: Sequence[tuple[str, str]] = ()
    reason: str = ""
    """Why the request is refused, for the log and the metrics: one of a few short texts."""


STOPPING: Final = Refusal(503, b"the server is stopping\n", [("Retry-After", "5")], "stopping")
"""The answer to everyone while the server drains."""

Authorize = Callable[[Request], Awaitable[Any]]
"""Returns a `Refusal`, or the ``user`` of the connection."""

RequestCheck = Callable[[Request], Refusal | None]
"""Returns a `Refusal`, or ``None`` for a request that is welcome."""


class Preparation(NamedTuple):
    """What a route adds to the 101, and to the arguments of its handler."""

    headers: Sequence[tuple[str, str]] = ()
    arguments: Mapping[str, str] = {}


NULL_ORIGIN: Final = "null"
"""What a browser sends for a page whose origin it hides: any page can be one, so it is never allowed."""

_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}

# Not by splitting: a head has room for 60,000 elements.
_NAMES_WEBSOCKET: Final = re.compile(r"(?:^|,)[ \t]*websocket[ \t]*(?:,|$)", re.ASCII | re.IGNORECASE)

# {name} in a path template matches one segment.
_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Route(NamedTuple):
    """A compiled path template and its handler.

    ``check`` replaces the check of the origin. ``max_message_size`` (bytes) replaces the server's limit.
    ``prepare`` is called with a request just before it is accepted.
    """

    pattern: re.Pattern[str]
    handler: WebSocketHandler
    check: RequestCheck | None = None
    max_message_size: int | None = None
    prepare: Callable[[Request], Preparation] | None = None


class Match(NamedTuple):
    """The route of a request, and the parameters of its path, percent-decoded."""

    route: Route
    parameters: dict[str, str]


def compile_route(
    template: str,
    handler: WebSocketHandler,
    check: RequestCheck | None = None,
    max_message_size: int | None = None,
) -> Route:
    """Returns the route of a template such as ``/rooms/{name}``; raises `ValueError` for a malformed one."""
    return Route(compile_template(template), handler, check, max_message_size)


def compile_template(template: str) -> re.Pattern[str]:
    """Returns the pattern of a template; raises `ValueError` for a malformed one."""
    literal_parts = _PARAMETER.split(template)[::2]
    if not template.startswith("/") or any(set(part) & set("{}?#") for part in literal_parts):
        raise ValueError(f"not a path template: {template!r}")
    pieces = [
        re.escape(piece) if index % 2 == 0 else f"(?P<{piece}>[^/]+)"
        for index, piece in enumerate(_PARAMETER.split(template))
    ]
    return re.compile("".join(pieces))


def check_origins(origins: Collection[str] | None) -> list[str] | None:
    """Returns origins in lower case, as they are compared.

    Raises `ValueError` for ``null``, and for what is not an origin.
    """
    lower = None if origins is None else [ascii_lower(origin) for origin in origins]
    if lower is not None and NULL_ORIGIN in lower:
        raise ValueError("null is the origin of any page that hides its own, and cannot be allowed")
    for origin in lower or ():
        if origin != "*" and not is_origin(origin):
            raise ValueError(f"not an origin, such as https://example.com: {origin!r}")
    return lower


def same_origin(request: Request) -> bool:
    """Whether the origin is this server's: scheme, host and port (RFC 6454 §4).

    A request without one is not a browser's (RFC 6455 §10.2). The scheme is that of a `ServedRequest`; for
    another request it is ``http``. Raises `rfc6455.HandshakeError` for two Origin fields.
    """
    origin = request.origin
    if origin is None:
        return True
    scheme = request.scheme if isinstance(request, ServedRequest) else "http"
    host = ascii_lower(request.headers.get("Host") or "")
    # A browser leaves the default port out of an origin (RFC 6454 §6.2); other clients may name it in Host.
    host = host.removesuffix(_DEFAULT_PORTS[scheme])
    return bool(host) and ascii_lower(origin) == f"{scheme}://{host}"


def bearer_token(request: Request) -> str | None:
    """Returns the bearer token of a request, or ``None`` if it has none.

    The token is taken from ``Authorization: Bearer TOKEN``; from the subprotocols ``bearer, TOKEN``, of which
    the server then chooses ``bearer``; or from ``?access_token=TOKEN``. It is never logged. Raises
    `rfc6455.HandshakeError` if the list of subprotocols is malformed.
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
    """What a server serves, and to whom: the options and routes of `Server`."""

    routes: list[Route] = field(default_factory=list)
    http: HttpRoutes = field(default_factory=HttpRoutes)
    origins: Collection[str] | None = None
    subprotocols: Sequence[str] = ()
    compression: PerMessageDeflate | None = None
    trusted: Trusted = field(default_factory=Trusted)
    authorize: Authorize | None = None


class Router:
    """Decides about requests by the rules of a `Site`."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def find(self, path: str) -> Match | None:
        """Returns the first route that matches ``path``."""
        for route in self.site.routes:
            match = route.pattern.fullmatch(path)
            if match:
                return Match(route, {name: unquote(value) for name, value in match.groupdict().items()})
        return None

    def judge(self, request: Request, *, draining: bool) -> Refusal | Match:
        """Returns the route of a request for a WebSocket, or its refusal; ``authorize`` decides later."""
        if draining:
            return STOPPING
        match = self.find(request.path)
        if match is not None and match.route.check is not None:
            return match.route.check(request) or match
        if not self._is_allowed_origin(request):
            # RFC 6455 §10.2: SHOULD answer 403.
            return Refusal(403, b"origin not allowed\n", reason="origin")
        if match is None:
            # RFC 6455 §4.2.2: MUST answer with an error when the service is not available.
            return Refusal(404, b"not found\n", reason="not found")
        return match

    def choose_subprotocol(self, request: Request) -> str | None:
        """Returns the client's first subprotocol that the server speaks; `BEARER` if a token follows it."""
        if "Sec-WebSocket-Protocol" not in request.headers:
            return None
        offered = request.subprotocols
        chosen = next((name for name in offered if name in self.site.subprotocols), None)
        return chosen or (BEARER if len(offered) > 1 and offered[0] == BEARER else None)

    def is_http(self, failure: HandshakeFailed) -> bool:
        """Whether `http` answers a request that is no opening handshake.

        It does if the request does not ask for a WebSocket, unless its path serves WebSockets only: then the
        426 of the codec says more than a 404.
        """
        request = failure.request
        if request is None or _asks_for_websocket(request):
            return False
        return self.find(request.path) is None or self.site.http.find(request.path) is not None

    def _is_allowed_origin(self, request: Request) -> bool:
        origins, origin = self.site.origins, request.origin
        if origins is None or origin is None:
            return same_origin(request)
        lower = ascii_lower(origin)
        return lower != NULL_ORIGIN and ("*" in origins or lower in origins)


def _asks_for_websocket(request: Request) -> bool:
    """Whether an Upgrade field names ``websocket``.

    RFC 9110 §7.8: a server may ignore other protocols. Some clients offer ``h2c`` with every request.
    """
    return any(map(_NAMES_WEBSOCKET.search, request.headers.get_all("Upgrade")))
