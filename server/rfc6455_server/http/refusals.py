"""The one place that counts and logs what the server refuses, over HTTP and before it."""

import logging
from typing import Final

from rfc6455_server.logs import log
from rfc6455_server.stats import Stats

MAX_REASONS: Final = 100
"""Maximum pairs of a status and a reason that are counted separately: an application may have any number."""

MAX_REASON_LENGTH: Final = 64
"""Maximum code points of a reason in the metrics."""

UNSPECIFIED: Final = "unspecified"
"""The reason in the metrics of a refusal that has none."""

OTHER: Final = "other"
"""The reason in the metrics of all refusals above `MAX_REASONS`."""


def record_refusal(stats: Stats, status: int, *, address: str, path: str, reason: str = "") -> None:
    """Counts and logs a request or a connection that is answered with an error status."""
    key = (status, reason[:MAX_REASON_LENGTH] or UNSPECIFIED)
    if key not in stats.refused and len(stats.refused) >= MAX_REASONS:
        key = (status, OTHER)
    stats.refused[key] += 1
    log(logging.INFO, "request refused", status=status, address=address, path=path, reason=reason)
