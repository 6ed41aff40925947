"""The head of a request as the server serves it: with its scheme, and with what h11 leaves unchecked.

Implements: RFC 9112 §3.2 (targets and Host), §6.1 (one framing of a body), RFC 9110 §2.5 (versions).
Left to others: the syntax of the head (`rfc6455.ServerHandshake` and h11 have both parsed it).
"""

import re
from dataclasses import dataclass
from typing import Any, Final

from rfc6455 import HandshakeError, Headers, Request, ascii_lower

# Host = uri-host [ ":" port ], loosely; it is empty for a URI without an authority.
_HOST: Final = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=%:\[\]]*")


@dataclass(slots=True)
class ServedRequest(Request):
    """A request, and the scheme of its URI: `rfc6455.Request` cannot know it."""

    scheme: str = "http"
    """``https`` if the client uses TLS: on this connection, or up to a trusted proxy."""


def served(request: Request, scheme: str) -> ServedRequest:
    """Returns ``request`` with its scheme."""
    return ServedRequest(request.method, request.target, request.headers, request.version, scheme)


def read_head(event: Any, scheme: str) -> ServedRequest:
    """Returns the head of an ``h11.Request``. Raises `HandshakeError` if it must not be answered."""
    headers = Headers([(name.decode(), value.decode("latin-1")) for name, value in event.headers])
    version = event.http_version.decode()
    head = ServedRequest(event.method.decode(), event.target.decode(), headers, version, scheme)
    if not version.startswith("1."):
        raise HandshakeError("HTTP/1.1 is required", slug="bad-version", status=505)
    if not _is_target(head):
        raise HandshakeError("the target must be a path or an http URI", slug="bad-target")
    if _HOST.fullmatch(headers.get("Host") or "") is None:
        raise HandshakeError("a valid Host is required", slug="bad-host")
    if "Transfer-Encoding" in headers and ("Content-Length" in headers or version == "1.0"):
        # RFC 9112 §6.1: ought to be handled as an error, and the connection MUST be closed. A proxy may have
        # seen another end of this body, and taken the rest for the next request.
        raise HandshakeError("a body has one length", slug="body")
    return head


def _is_target(head: Request) -> bool:
    """Whether the target has a form that is served: a path, an absolute URI, or ``*`` for OPTIONS."""
    target = head.target
    if target == "*":
        return head.method == "OPTIONS"
    return target.startswith("/") or ascii_lower(target).startswith(("http://", "https://"))
