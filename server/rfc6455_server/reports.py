"""How a connection ended: one report for each, for the log, the metrics and whoever asks.

Left to others: finding out (`websocket`, `keepalive`), writing it down (`logs`).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Cause(StrEnum):
    """Why a connection ended."""

    PEER = "peer"
    """The peer closed it, in order."""
    CLOSED = "closed"
    """The program closed it, or its handler returned."""
    HANDLER_FAILED = "handler failed"
    """The handler raised."""
    PROTOCOL_ERROR = "protocol error"
    """The peer broke the protocol."""
    LOST = "connection lost"
    """TCP ended without a Close."""
    SLOW_CONSUMER = "slow consumer"
    """The peer did not read, and its queue was full."""
    BUDGET = "queue budget"
    """All queues together were too large, and this peer's was the largest."""
    SEND_TIMEOUT = "send time-out"
    """The peer did not read what `send` waited for."""
    LIMIT = "limit"
    """The peer sent too much, or joined too many rooms."""
    PING_TIMEOUT = "ping time-out"
    """Nothing came after a Ping."""
    LOOP_LAG = "loop lag"
    """Nothing came after a Ping, but our own event loop was late: it may have been us."""
    GOING_AWAY = "going away"
    """The server stops."""


@dataclass(frozen=True, slots=True)
class CloseReport:
    """Who closed, with which codes, and why."""

    id: str
    """The connection's id."""
    address: str
    """The peer's."""
    path: str
    """The request's, without its query."""
    closed_by: Literal["peer", "us", "nobody"]
    """Whose decision it was; nobody's when TCP was lost."""
    code_sent: int | None
    """The code of our Close; 1005 for one without a code, ``None`` when none was sent."""
    code_received: int | None
    """The code of the peer's Close, in the same way."""
    reason: str
    """The reason that the peer gave, or else ours."""
    cause: Cause
    seconds: float
    """How long it was open."""
    dropped: int
    """Messages that the peer did not get, because it was too slow."""
    loop_lag: float
    """Seconds by which our event loop was late at the most, lately: why a peer may have lost patience."""
