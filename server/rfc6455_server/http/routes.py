"""HTTP requests, responses, and which handler answers which path."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from rfc6455 import Request

MAX_BODY: Final = 1 << 20
"""Maximum bytes of a request body, unless the route says otherwise."""

_READ_METHODS: Final = ("GET", "HEAD")


@dataclass(slots=True)
class HttpRequest:
    """A request with its body."""

    head: Request
    body: bytes
    address: str
    """The client's."""
    secure: bool = False
    """Whether it came over TLS."""


@dataclass(slots=True)
class HttpResponse:
    """What to answer. With ``pieces``, the body comes from there, ``length`` bytes in all."""

    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    pieces: AsyncIterator[bytes] | None = None
    length: int = 0
    expected: bool = False
    """Whether a status of 400 and above is no problem, and no line in the log."""


HttpHandler = Callable[[HttpRequest], Awaitable[HttpResponse]]


@dataclass(frozen=True, slots=True)
class HttpRoute:
    """A handler and what it takes.

    ``long``: the handler may wait for long (long-polling), and is cancelled as soon as the client leaves.
    ``begin`` sees the head before the body has come, and may refuse it; if it does not, and the handler is
    not reached because the body is refused or breaks off, ``abandon`` is told.
    """

    handler: HttpHandler
    methods: tuple[str, ...] = _READ_METHODS
    max_body: int = MAX_BODY
    long: bool = False
    begin: Callable[[Request], HttpResponse | None] | None = None
    abandon: Callable[[Request], None] | None = None


class HttpRoutes:
    """What stands at which path."""

    def __init__(self) -> None:
        self._exact: dict[str, HttpRoute] = {}
        self._prefixes: dict[str, HttpRoute] = {}

    def add(self, path: str, route: HttpRoute) -> None:
        """Puts a route at a path."""
        self._exact[path] = route

    def add_prefix(self, prefix: str, route: HttpRoute) -> None:
        """Puts a route at all paths that begin with ``prefix``."""
        self._prefixes[prefix] = route

    def find(self, path: str) -> HttpRoute | None:
        """The route of a path: an exact one, or the longest prefix."""
        route = self._exact.get(path)
        if route is None:
            fitting = [prefix for prefix in self._prefixes if path.startswith(prefix)]
            route = self._prefixes[max(fitting, key=len)] if fitting else None
        return route


def fixed(body: bytes, content_type: str, headers: Iterable[tuple[str, str]] = ()) -> HttpHandler:
    """A handler that always answers the same."""
    fields = list(headers)

    async def answer(_: HttpRequest) -> HttpResponse:
        return HttpResponse(body, content_type, headers=list(fields))

    return answer


def not_found() -> HttpResponse:
    """404."""
    return HttpResponse(b"not found\n", status=404)
