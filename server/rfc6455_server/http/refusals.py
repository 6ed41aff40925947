"""The one place that counts and logs what the server refuses, over HTTP and before it."""

import logging

from rfc6455_server.logs import log
from rfc6455_server.stats import Stats


def record_refusal(stats: Stats, status: int, *, address: str, path: str, reason: str = "") -> None:
    """Counts and logs a request or a connection that is answered with an error status."""
    stats.refused[status] += 1
    log(logging.INFO, "request refused", status=status, address=address, path=path, reason=reason)
