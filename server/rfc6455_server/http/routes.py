"""HTTP requests and responses, and the routes from paths to handlers."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from rfc6455 import Request

MAX_BODY: Final = 1 << 20
"""Default of `HttpRoute.max_body`."""

_READ_METHODS: Final = ("GET", "HEAD")


@dataclass(slots=True)
class HttpRequest:
    """An HTTP request with its body."""

    head: Request
    body: bytes
    address: str
    """The client's address; behind a trusted proxy, the one that the proxy reports."""
    secure: bool = False
    """Whether the connection runs over TLS."""


@dataclass(slots=True)
class HttpResponse:
    """An HTTP response. If ``pieces`` is set, the body is what it yields, ``length`` bytes in all."""

    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    pieces: AsyncIterator[bytes] | None = None
    length: int = 0
    expected: bool = False
    """Whether a status of 400 or above is normal, and neither counted nor logged."""
    reason: str = ""
    """Why the request is refused, for the log and the metrics: one of a few short texts."""
    done: Callable[[bool], object] | None = None
    """Called when nothing more will be sent, with whether the client was sent all of this response."""


HttpHandler = Callable[[HttpRequest], Awaitable[HttpResponse]]
"""An async function that answers requests."""


@dataclass(frozen=True, slots=True)
class HttpRoute:
    """A handler, and the requests that it takes: their methods and the maximum bytes of a body.

    ``methods`` are answered by the handler, all others with 405; ``None`` leaves that to the handler.
    ``long``: the handler may wait for long (long-polling), and is cancelled as soon as the client leaves.
    ``begin`` is called with the head before the body arrives, and may return a response that refuses the
    request. If it returns ``None``, and the handler does not run because the body is refused or incomplete,
    ``abandon`` is called.
    """

    handler: HttpHandler
    methods: tuple[str, ...] | None = _READ_METHODS
    max_body: int = MAX_BODY
    long: bool = False
    begin: Callable[[Request], HttpResponse | None] | None = None
    abandon: Callable[[Request], None] | None = None

    def takes(self, method: str) -> bool:
        """Whether the handler answers requests with this method."""
        return self.methods is None or method in self.methods


class HttpRoutes:
    """The HTTP routes of a server, by path and by prefix."""

    def __init__(self) -> None:
        self._exact: dict[str, HttpRoute] = {}
        self._prefixes: dict[str, HttpRoute] = {}

    def add(self, path: str, route: HttpRoute) -> None:
        """Adds the route of exactly ``path``."""
        self._exact[path] = route

    def add_prefix(self, prefix: str, route: HttpRoute) -> None:
        """Adds the route of all paths below ``prefix``, and of ``prefix`` itself.

        ``/a/`` is the prefix of ``/a/b``; ``/a`` is that of ``/a``, ``/a/`` and ``/a/b``, and not of ``/ab``.
        Raises `ValueError` for a prefix that has a route.
        """
        if prefix in self._prefixes:
            raise ValueError(f"already served: {prefix}")
        self._prefixes[prefix] = route

    def find(self, path: str) -> HttpRoute | None:
        """Returns the route of exactly ``path``, or else that of its longest prefix."""
        route = self._exact.get(path)
        if route is None:
            matching = [prefix for prefix in self._prefixes if _is_below(path, prefix)]
            route = self._prefixes[max(matching, key=len)] if matching else None
        return route


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix if prefix.endswith("/") else prefix + "/")


def fixed(body: bytes, content_type: str, headers: Iterable[tuple[str, str]] = ()) -> HttpHandler:
    """Returns a handler that answers every request with ``body``."""
    fields = list(headers)

    async def answer(_: HttpRequest) -> HttpResponse:
        return HttpResponse(body, content_type, headers=list(fields))

    return answer


def not_found() -> HttpResponse:
    return HttpResponse(b"not found\n", status=404, reason="not found")
