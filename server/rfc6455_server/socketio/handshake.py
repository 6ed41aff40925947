"""What a client sent to connect: its request, and its ``auth``.

Left to others: the checks of requests (`transports`), the packet CONNECT (`clients`).
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final
from urllib.parse import parse_qsl

from rfc6455 import Headers, Request
from rfc6455_server.listening.routing import same_origin
from rfc6455_server.socketio.session import Session

# The parameter with the session's id, and what stands before it or after it.
_SID: Final = re.compile(r"(?<=\?)sid=[^&]*(?:&|\Z)|&sid=[^&]*")


@dataclass(frozen=True, slots=True)
class Handshake:
    """The request that carried the client's CONNECT, and what the client sent in it.

    Over polling, that is a POST. It is shown without the session's id, which is the client's secret.
    """

    headers: Headers
    query: Mapping[str, str]
    auth: dict[str, Any]
    address: str
    url: str
    secure: bool
    time: float
    """Seconds of the server's clock."""
    issued: float
    """Seconds since the epoch, as `time.time` returns them (Node's server has milliseconds)."""
    xdomain: bool
    """Whether the request came from a page of another origin."""
    user: Any
    """What the server's ``authorize`` returned for the request that opened the session."""
    request: Request
    """The request itself."""
    size: int = 0
    """Bytes that ``auth`` takes in memory, estimated from above, with the request's head over polling."""


def handshake_of(session: Session, auth: dict[str, Any], now: float, auth_size: int) -> Handshake:
    """Returns the handshake of a client that sends CONNECT; ``auth`` is for the application."""
    request = session.request
    assert request is not None  # noqa: S101 - it is being received
    shown = Request(request.method, _SID.sub("", request.target), request.headers)
    # The request of a WebSocket is held once, whatever number of namespaces the client is connected to.
    head_size = _head_size(request) if request.method == "POST" else 0
    return Handshake(
        headers=request.headers,
        query=parse_query(shown),
        auth=auth,
        address=session.address,
        url=shown.target,
        secure=session.secure,
        time=now,
        issued=time.time(),
        xdomain=not same_origin(request),
        user=session.user,
        request=shown,
        size=auth_size + head_size,
    )


def _head_size(request: Request) -> int:
    return len(request.target) + sum([len(name) + len(value) for name, value in request.headers])


def parse_query(request: Request) -> dict[str, str]:
    """Returns the parameters of the query. Of several with one name, the last counts."""
    return _parse(request.query).copy()


@lru_cache(maxsize=16)  # the query of one request is needed several times
def _parse(query: str) -> dict[str, str]:
    return dict(parse_qsl(query, keep_blank_values=True))
