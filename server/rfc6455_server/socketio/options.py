"""The options of an `Engine` or a `SocketIO` that concern its sessions and their requests.

Left to others: what the options do (`transports`, `engine`, `cors`, `compression`).
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, TypedDict

from rfc6455 import Request
from rfc6455_server.limits import check_seconds
from rfc6455_server.socketio.compression import DEFAULT_THRESHOLD
from rfc6455_server.socketio.cors import Origins
from rfc6455_server.socketio.engine import (
    DEFAULT_MAX_PAYLOAD,
    DEFAULT_PING_INTERVAL,
    DEFAULT_PING_TIMEOUT,
    DEFAULT_UPGRADE_TIMEOUT,
    Transport,
)

HeaderHook: TypeAlias = Callable[[Request, list[tuple[str, str]]], object]
"""A function of a request and the fields of its answer, a list of (name, value), which it may change."""

_COOKIE_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
_COOKIE_VALUE: Final = re.compile(r"[\x20-\x3a\x3c-\x7e]*")  # no semicolon, no control character


@dataclass(frozen=True, slots=True, kw_only=True)
class Cookie:
    """A cookie with the session's id, for load balancers that send a client to the same server by it.

    The id is the client's secret: scripts of the page should not see it (``http_only``). Raises `ValueError`
    for a value that a cookie cannot have.
    """

    name: str = "io"
    path: str | None = "/"
    domain: str | None = None
    max_age: int | None = None
    """Seconds; ``None`` until the browser is closed."""
    http_only: bool = True
    secure: bool = False
    """Whether the browser sends the cookie over TLS only."""
    same_site: Literal["Strict", "Lax", "None"] | None = "Lax"

    def __post_init__(self) -> None:
        if _COOKIE_NAME.fullmatch(self.name) is None:
            raise ValueError(f"not the name of a cookie: {self.name!r}")
        for value in (self.path or "", self.domain or ""):
            if _COOKIE_VALUE.fullmatch(value) is None:
                raise ValueError(f"not a value in a cookie: {value!r}")
        if self.same_site not in ("Strict", "Lax", "None", None):
            raise ValueError(f"same_site must be Strict, Lax or None, not {self.same_site!r}")

    def field(self, value: str) -> tuple[str, str]:
        """Returns the ``Set-Cookie`` field for a value."""
        parts = [f"{self.name}={value}"]
        named = (("Path", self.path), ("Domain", self.domain), ("Max-Age", self.max_age))
        parts += [f"{name}={setting}" for name, setting in named if setting is not None]
        parts += ["HttpOnly"] * self.http_only + ["Secure"] * self.secure
        if self.same_site is not None:
            parts.append(f"SameSite={self.same_site}")
        return "Set-Cookie", "; ".join(parts)


@dataclass(frozen=True, slots=True)
class RefusedRequest:
    """A request that was answered with an error of the Engine.IO protocol."""

    request: Request
    code: int
    """0 to 5, as in the official server."""
    message: str
    """The official server's text for the code."""
    context: Mapping[str, object]
    """What was wrong: for example, the ``sid`` that is unknown."""


class EngineOptionsDict(TypedDict, total=False):
    """The fields of `EngineOptions` as keyword arguments, but for ``path``."""

    ping_interval: float
    ping_timeout: float
    upgrade_timeout: float
    max_payload: int
    transports: Collection[Transport]
    allow_upgrades: bool
    cors: Origins
    cookie: Cookie | str | None
    initial_headers: HeaderHook | None
    headers: HeaderHook | None
    http_compression: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Options of the sessions and their requests.

    Raises `ValueError` for a value that is out of range, such as a time in milliseconds.
    """

    path: str
    """The path of all requests; what is below it belongs to it too."""
    ping_interval: float = DEFAULT_PING_INTERVAL
    """Seconds from a PONG to the next PING."""
    ping_timeout: float = DEFAULT_PING_TIMEOUT
    """Seconds within which a PING must be answered."""
    upgrade_timeout: float = DEFAULT_UPGRADE_TIMEOUT
    """Seconds within which an upgrade from polling to WebSocket must be complete."""
    max_payload: int = DEFAULT_MAX_PAYLOAD
    """Maximum bytes of a message, and of a POST body."""
    transports: Collection[Transport] = ("polling", "websocket")
    """The transports that clients may use."""
    allow_upgrades: bool = True
    """Whether a client that polls may change to a WebSocket."""
    cors: Origins = ()
    """Allowed origins besides the server's own: strings and patterns, or a function of an origin and the
    request. Origins are compared in lower case; ``null`` is never allowed. ``"*"`` allows any: over polling
    without cookies, but browsers send cookies with each request for a WebSocket. So with ``"*"``, do not let
    a cookie decide who the user is."""
    cookie: Cookie | str | None = None
    """A cookie with the session's id, or its name. It is set by the answer that opens the session."""
    initial_headers: HeaderHook | None = None
    """Called for the answer that opens a session: the first one to polling, or the 101."""
    headers: HeaderHook | None = None
    """Called for each answer to polling that is no error, and for each 101."""
    http_compression: int | None = DEFAULT_THRESHOLD
    """Bytes from which on an answer to polling is compressed, if the client accepts that; ``None``: never."""

    def __post_init__(self) -> None:
        if not self.path.startswith("/") or not self.path.strip("/"):
            raise ValueError(f"not a path: {self.path!r}")
        for name in ("ping_interval", "ping_timeout", "upgrade_timeout"):
            check_seconds(name, getattr(self, name))
        if self.max_payload < 1:
            raise ValueError("max_payload must be at least 1")
        if isinstance(self.transports, str) or not self.transports:
            raise ValueError("transports is a collection of names")
        if not set(self.transports) <= {"polling", "websocket"}:
            raise ValueError(f"not transports: {self.transports!r}")
        if self.http_compression is not None and self.http_compression < 0:
            raise ValueError("http_compression is a number of bytes, or None")
        self.made_cookie()

    @property
    def upgrades(self) -> bool:
        """Whether a session that polls may be upgraded to a WebSocket."""
        return self.allow_upgrades and "websocket" in self.transports

    def made_cookie(self) -> Cookie | None:
        """Returns the cookie, with the settings of `Cookie` for one that only has a name."""
        return Cookie(name=self.cookie) if isinstance(self.cookie, str) else self.cookie
