"""How a connection ended: one report for each, for the log, the metrics and the application.

Left to others: finding the cause (`ending`, `keepalive`).
"""

import logging
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from rfc6455_server.logs import log


class Cause(StrEnum):
    """Why a connection ended."""

    PEER = "peer"
    """The peer closed it in an orderly way."""
    CLOSED = "closed"
    """The application closed it, or its handler returned."""
    HANDLER_FAILED = "handler failed"
    """The handler raised an exception."""
    PROTOCOL_ERROR = "protocol error"
    """The peer broke the protocol."""
    LOST = "connection lost"
    """TCP ended without a Close."""
    SLOW_CONSUMER = "slow consumer"
    """The peer did not read, and its backlog was full."""
    BUDGET = "queue budget"
    """All that waits for peers and handlers was over the limit together, and most waited for this one."""
    SEND_TIMEOUT = "send timeout"
    """The peer did not read while `WebSocket.send` waited for it."""
    RECEIVE_TIMEOUT = "receive timeout"
    """The peer began a message and was too slow to finish it."""
    LIMIT = "limit"
    """The peer sent too fast, or joined too many rooms."""
    PING_TIMEOUT = "ping timeout"
    """Nothing arrived after a Ping."""
    LOOP_LAG = "loop lag"
    """Nothing arrived after a Ping, but our own event loop was late and may be the reason."""
    GOING_AWAY = "going away"
    """The server is stopping."""


@dataclass(frozen=True, slots=True)
class CloseReport:
    """Who closed a connection, with which codes, and why."""

    id: str
    """The connection's id."""
    address: str
    """The peer's address."""
    path: str
    """The path of the request, without its query."""
    closed_by: Literal["peer", "us", "nobody"]
    """Who decided to close; nobody if TCP was lost."""
    code_sent: int | None
    """The code of our Close: 1005 if it had none, ``None`` if we sent no Close."""
    code_received: int | None
    """The code of the peer's Close, in the same form."""
    reason: str
    """The reason of the side that closed, also if its Close could not be sent."""
    cause: Cause
    seconds: float
    """How long the connection was open."""
    dropped: int
    """Messages that the slow-consumer policy dropped."""
    loop_lag: float
    """Seconds by which our event loop was recently late, at most: a possible reason for the peer to leave."""


def log_report(report: CloseReport) -> None:
    """Writes the line of a connection that has ended."""
    log(
        logging.INFO,
        "connection closed",
        id=report.id,
        address=report.address,
        path=report.path,
        seconds=report.seconds,
        closed_by=report.closed_by,
        sent=report.code_sent,
        received=report.code_received,
        cause=report.cause.value,
        reason=report.reason,
        dropped=report.dropped,
        loop_lag=report.loop_lag,
    )
