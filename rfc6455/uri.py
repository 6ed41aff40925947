"""``ws:`` and ``wss:`` URIs.

Implements: RFC 6455 §3 (grammar, default ports, resource name), §11.1 (conversion to ASCII).
Left to others: resolving and connecting.
"""

import re
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from rfc6455.errors import LocalProtocolError

# RFC 3986 §2: the characters of a path or a query. A percent sign is left alone: it may begin an escape.
_URI_CHARACTERS = "/?:@!$&'()*+,;=-._~%[]"

_REG_NAME = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=]+")


class WebSocketURI(NamedTuple):
    """The components of a URI (RFC 6455 §3): host and port to connect to, resource name to request."""

    secure: bool
    host: str
    """In ASCII; an IPv6 address has no brackets here."""
    port: int
    resource_name: str

    @property
    def authority(self) -> str:
        """The value of the Host field: with the port unless it is the default one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _default_port(self.secure) else f"{host}:{self.port}"


def parse_uri(uri: str) -> WebSocketURI:
    """Splits ``uri`` and converts it to ASCII: the host by IDNA, the rest by percent-encoding.

    Raises `LocalProtocolError` for a scheme other than ws and wss, user information, a fragment, a missing
    host or a bad port.
    """
    # urlsplit silently removes tabs and line ends.
    if re.search(r"[\x00-\x20\x7f]", uri):
        raise _bad_uri("it contains white space or a control character")
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _bad_uri("invalid host or port") from None
    if parts.scheme not in ("ws", "wss"):
        raise _bad_uri("the scheme is neither ws nor wss")
    if "#" in uri:
        # RFC 6455 §3: a fragment MUST NOT be used.
        raise _bad_uri("it has a fragment")
    if "@" in parts.netloc:
        raise _bad_uri("it has user information")
    if not host:
        raise _bad_uri("it has no host")
    if port == 0:
        raise _bad_uri("the port is 0")
    secure = parts.scheme == "wss"
    path = quote(parts.path or "/", safe=_URI_CHARACTERS)
    query = "?" + quote(parts.query, safe=_URI_CHARACTERS) if parts.query else ""
    return WebSocketURI(secure, _ascii_host(host), port or _default_port(secure), path + query)


def _ascii_host(host: str) -> str:
    if ":" in host:
        return host
    try:
        host = host.encode("idna").decode("ascii")
    except UnicodeError:
        raise _bad_uri("the host has no ASCII form") from None
    if _REG_NAME.fullmatch(host) is None:
        raise _bad_uri("invalid host or port")
    return host


def _default_port(secure: bool) -> int:
    # RFC 6455 §3: 80 for ws, 443 for wss.
    return 443 if secure else 80


def _bad_uri(why: str) -> LocalProtocolError:
    return LocalProtocolError(f"not a WebSocket URI: {why}", slug="bad-uri")
