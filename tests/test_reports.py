"""The report about each connection: who closed it, with which codes, and why."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from rfc6455_server import Cause, CloseReport, Server, WebSocket
from rfc6455_server.testing import ManualClock, TestClient, settle
from tests.helpers import close_payload
from tests.server_helpers import RawPeer, serving, until


async def leave(peer: RawPeer) -> None:
    peer.send(8, close_payload(4001, b"bye"))


async def leave_without_code(peer: RawPeer) -> None:
    peer.send(8)


async def vanish(peer: RawPeer) -> None:
    peer.writer.transport.abort()


async def break_the_rules(peer: RawPeer) -> None:
    peer.writer.write(b"\x83\x80")


async def ask_for(peer: RawPeer, what: str) -> None:
    peer.send(1, what.encode())
    _, size = await peer.read(2)
    await peer.read(size)  # the server's Close
    peer.send(8, close_payload(1000))


@pytest.mark.parametrize(
    ("act", "closed_by", "sent", "received", "reason", "cause"),
    [
        (leave, "peer", 4001, 4001, "bye", Cause.PEER),
        (leave_without_code, "peer", 1005, 1005, "", Cause.PEER),
        (vanish, "nobody", None, None, "", Cause.LOST),
        (break_the_rules, "us", 1002, None, "reserved opcode 0x3", Cause.PROTOCOL_ERROR),
        (lambda peer: ask_for(peer, "close"), "us", 4000, 1000, "enough", Cause.CLOSED),
        (lambda peer: ask_for(peer, "return"), "us", 1000, 1000, "", Cause.CLOSED),
        (lambda peer: ask_for(peer, "raise"), "us", 1011, 1000, "", Cause.HANDLER_FAILED),
    ],
)
async def test_reports(  # noqa: PLR0917 - a row of the table
    act: Callable[[RawPeer], Awaitable[None]],
    closed_by: str,
    sent: int | None,
    received: int | None,
    reason: str,
    cause: Cause,
) -> None:
    clock = ManualClock()
    server = Server(clock=clock)
    reports: list[CloseReport] = []
    server.on_report(reports.append)
    seen: list[WebSocket] = []

    @server.websocket("/room/{name}")
    async def handler(ws: WebSocket, name: str) -> None:
        seen.append(ws)
        async for message in ws:
            if message == "close":
                await ws.close(4000, "enough")
            elif message == "return":
                return
            else:
                raise ZeroDivisionError

    async with serving(server) as url:
        peer = await RawPeer.upgraded(url, "/room/x?secret")
        await until(lambda: seen)
        await clock.advance(7)
        await act(peer)
        await until(lambda: reports)
        await peer.close()
    (report,) = reports
    assert (report.closed_by, report.code_sent, report.code_received) == (closed_by, sent, received)
    assert (report.reason, report.cause) == (reason, cause)
    assert (report.path, report.address, report.dropped) == ("/room/x", "127.0.0.1", 0)
    assert report.seconds == 7
    assert seen[0].report == report
    assert seen[0].id == report.id
    assert server.find(report.id) is None


async def test_stopping_the_server_is_reported() -> None:
    server = Server()
    reports: list[CloseReport] = []
    server.on_report(reports.append)

    @server.on_report
    def broken(report: CloseReport) -> None:
        raise ZeroDivisionError

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        async for _ in ws:
            pass

    async with serving(server) as url:
        peer = await RawPeer.upgraded(url, "/")
        stopping = asyncio.create_task(server.stop())
        await peer.read(20)
        peer.send(8, close_payload(1001))
        await stopping
        await peer.close()
    assert [(r.cause, r.code_sent, r.code_received) for r in reports] == [(Cause.GOING_AWAY, 1001, 1001)]


async def test_a_report_has_our_reason_when_we_end_the_connection() -> None:
    clock = ManualClock()
    server = Server(clock=clock, ping_interval=20, ping_timeout=15, message_rate=1, send_timeout=5)
    reports: list[CloseReport] = []
    server.on_report(reports.append)

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        async for message in ws:
            if message == "much":
                for _ in range(30):
                    ws.post(bytes(100_000))

    async with TestClient(server, clock) as client:
        await client.connect("/")
        client.transports[-1].vanish()
        await clock.advance(40)
        fast = await client.connect("/")
        for _ in range(10):
            await fast.send("x")
        await settle()
        slow = await client.connect("/")
        client.transports[-1].pause_reading()
        await slow.send("much")
        await clock.advance(10)
    assert [(r.cause, r.code_sent, r.reason) for r in reports] == [
        (Cause.PING_TIMEOUT, 1011, "ping timeout"),
        (Cause.LIMIT, 1008, "too fast"),
        (Cause.SLOW_CONSUMER, 1008, "too slow"),
    ]


async def test_the_reason_of_the_side_that_closed_stays() -> None:
    """The other side's Close answers it, with a reason of its own or another cause."""
    server = Server()
    reports: list[CloseReport] = []
    server.on_report(reports.append)

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        async for _ in ws:
            await ws.close(4000, "ours")

    async with serving(server) as url:
        peer = await RawPeer.upgraded(url, "/")
        peer.send(1, b"x")
        assert (await peer.read(8))[2:] == b"\x0f\xa0ours"
        peer.send(8, close_payload(4000, b"theirs"))
        await until(lambda: reports)
        await peer.close()
    assert (reports[0].closed_by, reports[0].reason) == ("us", "ours")
