"""The thresholds of the garbage collector while a server owns the process."""

import asyncio
import gc
import os
import signal

import pytest

from rfc6455_server import Server
from rfc6455_server.collector import rare_full_collections


def test_a_running_server_raises_the_thresholds_and_restores_them() -> None:
    before = gc.get_threshold()
    seen: list[tuple[int, int, int]] = []

    def started() -> None:
        seen.append(gc.get_threshold())
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)

    Server().run("127.0.0.1", 0, drain_time=0.01, started=started)
    assert seen[0][0] > before[0]
    assert gc.get_threshold() == before


@pytest.mark.parametrize("thresholds", [(0, 10, 10), (50_000, 20, 20)])
def test_thresholds_that_the_application_chose_stay(thresholds: tuple[int, int, int]) -> None:
    before = gc.get_threshold()
    gc.set_threshold(*thresholds)
    try:
        with rare_full_collections():
            assert gc.get_threshold() == thresholds
        assert gc.get_threshold() == thresholds
    finally:
        gc.set_threshold(*before)
