"""Why sessions and sockets end, in the words of the official server where it has one.

Left to others: ending them (`session`, `sockets`).
"""

from typing import Final

from rfc6455 import CloseCode
from rfc6455_server.websocket.reports import Cause
from rfc6455_server.websocket.websocket import WebSocket

TOO_SLOW: Final = "too slow"
"""The reason for which a client is disconnected that does not take what is sent to it."""

STOPPING: Final = "server shutting down"
"""The reason when the server drains or stops."""

RECOVERABLE: Final = frozenset(
    ("transport error", "transport close", "forced close", "ping timeout", STOPPING, TOO_SLOW)
)
"""Reasons after which a client may be recovered: neither side asked for this socket to be disconnected."""

CLOSES: Final[dict[str, tuple[CloseCode, str]]] = {
    "parse error": (CloseCode.PROTOCOL_ERROR, "parse error"),
    TOO_SLOW: (CloseCode.POLICY_VIOLATION, TOO_SLOW),
    STOPPING: (CloseCode.GOING_AWAY, STOPPING),
}
"""The Close of a WebSocket whose session ends for a reason other than the usual ones."""

_SLOW_CAUSES: Final = (Cause.SLOW_CONSUMER, Cause.BUDGET, Cause.SEND_TIMEOUT)


def reason_of(websocket: WebSocket) -> str:
    """Returns the reason with which a session ends whose WebSocket has ended, as the official server does."""
    report = websocket.report
    cause = None if report is None else report.cause
    if cause is Cause.GOING_AWAY:
        return STOPPING
    return TOO_SLOW if cause in _SLOW_CAUSES else "transport close"
