"""The packages of the extra ``server``, h11 and prometheus-client: imported once, when a server starts.

An import during a request would stop the event loop: for some 60 ms for prometheus-client.
"""

from functools import cache
from types import ModuleType


def preload() -> None:
    """Imports what is installed."""
    load_h11()
    load_prometheus()


@cache
def load_h11() -> ModuleType | None:
    """Returns ``h11``, or ``None`` if it is not installed."""
    try:
        import h11  # noqa: PLC0415 - optional
    except ImportError:
        return None
    return h11


@cache
def load_prometheus() -> ModuleType | None:
    """Returns ``prometheus_client``, with the submodules in use, or ``None`` if it is not installed."""
    try:
        import prometheus_client.core  # noqa: PLC0415 - optional
        import prometheus_client.exposition  # noqa: PLC0415 - optional
    except ImportError:
        return None
    return prometheus_client
