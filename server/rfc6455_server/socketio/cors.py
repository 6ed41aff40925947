"""Which origins may use a `SocketIO` besides the server's own, and the fields that tell their browsers.

Implements: CORS (Fetch, section 3.2), the server's half.
Left to others: the answers themselves (`transports`, `client_files`).
"""

import logging
import re
from collections.abc import Callable, Collection
from typing import Final, TypeAlias

from rfc6455 import HandshakeError, Request, ascii_lower
from rfc6455_server.listening.origins import is_origin
from rfc6455_server.listening.routing import NULL_ORIGIN, same_origin
from rfc6455_server.logs import log

OriginRule: TypeAlias = str | re.Pattern[str]
"""An origin such as ``https://example.com``, ``"*"`` for any, or a pattern that matches all of an origin.

``null`` is the origin of any page that hides its own, and is never allowed.
"""

Origins: TypeAlias = OriginRule | Collection[OriginRule] | Callable[[str, Request], bool]
"""A rule, several, or a function of an origin and the request that says whether it is allowed."""

Fields: TypeAlias = list[tuple[str, str]]

MAX_REQUESTED_HEADERS: Final = 1024
"""Maximum bytes of an ``Access-Control-Request-Headers`` field."""

# 1#token
_ELEMENT: Final = r"[ \t]*[!#$%&'*+\-.^_`|~0-9A-Za-z]+[ \t]*"
_TOKENS: Final = re.compile(rf"{_ELEMENT}(?:,{_ELEMENT})*", re.ASCII)


class Cors:
    """The allowed origins. Raises `ValueError` for a rule of another kind."""

    def __init__(self, origins: Origins) -> None:
        self._function = origins if callable(origins) else None
        rules: Collection[OriginRule] = ()
        if isinstance(origins, str | re.Pattern):
            rules = (origins,)
        elif isinstance(origins, bool):
            raise ValueError('cors names the origins: "*" is any')
        elif not callable(origins):
            rules = origins
        if not all(isinstance(rule, str | re.Pattern) for rule in rules):
            raise ValueError("an origin is a string or a pattern")
        for rule in rules:
            if isinstance(rule, str) and rule != "*" and not is_origin(rule):
                raise ValueError(f"not an origin, such as https://example.com: {rule!r}")
        self._exact = {ascii_lower(rule) for rule in rules if isinstance(rule, str)}
        self._patterns = [rule for rule in rules if isinstance(rule, re.Pattern)]

    def fields(self, request: Request) -> Fields | None:
        """Returns the fields of the answer, or ``None`` if the request's origin is not allowed.

        Raises `rfc6455.HandshakeError` for two Origin fields.
        """
        origin = request.origin
        if origin is None:
            return []
        # A browser writes other hosts in ASCII, and a field of the answer carries nothing else.
        if not origin.isascii() or ascii_lower(origin) == NULL_ORIGIN:
            return None
        if self._names(origin, request):
            return [
                ("Access-Control-Allow-Origin", origin),
                ("Access-Control-Allow-Credentials", "true"),
                ("Vary", "Origin"),
            ]
        if "*" in self._exact:
            # Any origin. Without cookies over polling; with a WebSocket, browsers send them all the same.
            return [("Access-Control-Allow-Origin", "*")]
        return [] if same_origin(request) else None

    def preflight_fields(self, request: Request) -> Fields | None:
        """Returns the fields that answer a preflight request, or ``None`` as `fields` does.

        Raises `rfc6455.HandshakeError` for a field that occurs twice, is no list of tokens or is too long.
        """
        fields = self.fields(request)
        if fields is None:
            return None
        requested = request.headers.get("Access-Control-Request-Headers")
        fields += [("Access-Control-Allow-Methods", "GET, POST"), ("Access-Control-Max-Age", "600")]
        if requested:
            if len(requested) > MAX_REQUESTED_HEADERS or _TOKENS.fullmatch(requested) is None:
                raise HandshakeError("not a list of fields, or too long", slug="bad-token-list")
            fields.append(("Access-Control-Allow-Headers", requested))
        return fields

    def _names(self, origin: str, request: Request) -> bool:
        """Whether a rule other than ``"*"`` allows the origin."""
        lower = ascii_lower(origin)
        if self._function is not None:
            try:
                return bool(self._function(lower, request))
            except Exception:  # noqa: BLE001 - whatever the application's function raises
                log(logging.ERROR, "cors function failed", exception=True, origin=origin)
                return False
        return lower in self._exact or any(pattern.fullmatch(lower) for pattern in self._patterns)
