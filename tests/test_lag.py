"""The lag of the event loop: measured while there is a connection of any kind, and logged."""

from collections.abc import AsyncIterator

import pytest

from rfc6455_server import HttpRequest, HttpResponse, Limits, Server
from rfc6455_server.testing import ManualClock, TestClient, settle
from rfc6455_server.websocket.hub import Hub
from rfc6455_server.websocket.lag import BLOCKED, INTERVAL, LoopLag
from tests.server_helpers import Recorder


@pytest.fixture
async def client() -> AsyncIterator[TestClient]:
    clock = ManualClock()
    server = Server(clock=clock)

    @server.http("/slow")
    async def slow(_: HttpRequest) -> HttpResponse:
        clock.jump(30)
        return HttpResponse(b"ok")

    async with TestClient(server, clock) as client:
        yield client


def blocked_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, float]]:
    return [r.__dict__["fields"] for r in caplog.records if "event loop was blocked" in r.getMessage()]


async def test_a_block_is_logged_although_nobody_has_a_websocket(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    transport = client.open(Recorder(client.clock))
    transport.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    await settle()
    await client.clock.advance(INTERVAL)
    (line,) = blocked_lines(caplog)
    assert 30 - INTERVAL <= line["seconds"] <= 30
    await client.clock.advance(9)
    assert len(blocked_lines(caplog)) == 1


@pytest.mark.parametrize(("seconds", "lines"), [(BLOCKED - 0.01, 0), (BLOCKED, 1)])
async def test_only_a_long_block_is_logged(
    seconds: float, lines: int, client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    client.open(Recorder(client.clock))
    client.clock.jump(INTERVAL + seconds)
    await client.clock.advance(0)
    assert len(blocked_lines(caplog)) == lines


async def test_nothing_is_measured_without_connections(client: TestClient) -> None:
    lag = client._server.stats.loop_lag
    await client.clock.advance(10)
    assert sum(lag.counts) == 0
    for _ in range(2):
        first, second = (client.open(Recorder(client.clock)) for _ in range(2))
        await client.clock.advance(1)
        first.abort()
        await client.clock.advance(1)
        measured = sum(lag.counts)
        second.abort()
        await client.clock.advance(10)
        assert sum(lag.counts) == measured
    assert measured == 2 * 2 / INTERVAL
    assert client.clock._timers == []


async def test_a_block_is_logged_once_for_all_that_measure_on_a_loop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Clients of one process have a hub each.
    clock, lags = ManualClock(), list[LoopLag]()
    for _ in range(3):
        lags.append(LoopLag(Hub(Limits(), clock=clock)))
        lags[-1].start()
        await clock.advance(INTERVAL / 5)
    for block in (1, 2):
        clock.jump(30)
        await clock.advance(0)
        assert len(blocked_lines(caplog)) == block
        assert all(lag.total > 29 * block for lag in lags)
        await clock.advance(INTERVAL)
    for lag in lags:
        lag.stop()


async def test_a_block_of_each_loop_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        clock = ManualClock()
        LoopLag(Hub(Limits(), clock=clock)).start()
        clock.jump(30)
        await clock.advance(0)
    assert len(blocked_lines(caplog)) == 2
