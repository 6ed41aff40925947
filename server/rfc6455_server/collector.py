"""The garbage collector in a process that belongs to a server.

A connection has some 75 objects that the collector visits, and a full collection visits all of them at once:
with 10,000 connections it stops the event loop for 0.2 to 0.5 s, several times while they connect. But a
connection is freed without the collector, so that there is little for it to find. With the thresholds here,
most collections visit only what is new, some 10 ms of work, and full ones are rare.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_THRESHOLDS: Final = (10_000, 5, 40)
"""New objects before a collection of the youngest; collections before one of the next generation."""


@contextmanager
def rare_full_collections() -> Iterator[None]:
    """Raises the collector's thresholds meanwhile, unless the application has raised them already."""
    before = gc.get_threshold()
    if 0 < before[0] < _THRESHOLDS[0]:
        gc.set_threshold(*_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
