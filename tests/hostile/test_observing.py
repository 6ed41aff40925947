"""What an operator sees.

A peer must not be able to swell the metrics, to hide what it did, or to keep the operator from looking; and a
limit that an operator sets must hold.
"""

import re

import pytest

from rfc6455_server import CloseReport, Endpoint, Limits, Server, WebSocket
from rfc6455_server.command import cli
from rfc6455_server.testing import ManualClock, TestClient, settle
from tests.helpers import close_payload
from tests.hostile.flaws import flaw
from tests.server_helpers import RawPeer, Recorder, echo_server, serving, until
from tests.test_http import ask


@flaw(
    "found here",
    what="Closes each connection with another code, 3000 to 4999: the metrics kept a time series for each.",
    here="All of them are one: `private`.",
)
async def test_close_codes_that_a_peer_chooses_make_no_time_series() -> None:
    clock = ManualClock()
    server = echo_server(clock=clock)
    async with TestClient(server, clock) as client:
        for code in range(3000, 5000, 40):
            ws = await client.connect("/echo")
            await ws.close(code)
        peer = Recorder(clock)
        client.open(peer).write(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        await settle()
    series = re.findall(r"^rfc6455_closes_total{(.*)} (\S+)$", peer.received.decode(), re.MULTILINE)
    assert series == [('cause="peer",code="private"', "50.0")]


@flaw(
    "found here",
    what="Exceeds a limit, and answers our Close with a reason of its own, which the report took.",
    here="They have the reason of the side that closed: ours.",
)
async def test_a_peer_cannot_replace_the_reason_for_which_it_is_ended() -> None:
    server = Server(max_rooms=1)
    reports: list[CloseReport] = []
    server.on_report(reports.append)

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        for name in ("one", "two"):
            server.rooms[name].join(ws)

    async with serving(server) as url:
        peer = await RawPeer.upgraded(url, "/")
        _, size = await peer.read(2)
        sent = (await peer.read(size))[2:].decode()
        peer.send(8, close_payload(1000, b"all is well"))
        await until(lambda: reports)
        await peer.close()
    assert "room" in sent
    assert (reports[0].cause, reports[0].reason) == ("limit", sent)


@flaw(
    "found here",
    what="Takes all connections: `/metrics` was refused, too, just when somebody needed it.",
    here="An endpoint for metrics has connections of its own.",
)
async def test_peers_that_take_all_connections_leave_the_metrics() -> None:
    server = Server(max_connections=3)
    await server.start()
    await server.listen(Endpoint("127.0.0.1", metrics=True))
    public, internal = (url.replace("http", "ws") for url in server.urls)
    peers = [await RawPeer.connect(public) for _ in range(3)]
    try:
        await until(lambda: server.make_ready().connections == 3)
        assert (await ask(public, "GET /healthz HTTP/1.1\nHost: a\n")).status == 503
        answer = await ask(internal, "GET /metrics HTTP/1.1\nHost: a\n")
        assert b"rfc6455_tcp_connections 3.0" in answer.body
    finally:
        for peer in peers:
            await peer.close()
        await server.stop()


@flaw(
    "CVE-2026-44545",
    what="Sends more than a limit that was configured and that nothing passed on.",
    here="Each limit of the command line, and of its environment, is what connections are held to.",
)
@pytest.mark.parametrize("name", Limits.__dataclass_fields__)
async def test_a_limit_of_the_command_line_is_what_connections_are_held_to(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_to: list[float] = []

    def run(server: Server, **_: object) -> None:
        held_to.append(getattr(server.limits, name))

    monkeypatch.setattr(Server, "run", run)
    assert cli.main(["--" + name.replace("_", "-"), "7"]) == 0
    monkeypatch.setenv("RFC6455_" + name.upper(), "8")
    assert cli.main([]) == 0
    assert held_to == [7, 8]

    server = echo_server(**{name: 7})
    async with serving(server) as url:
        peer = await RawPeer.connect(url)
        await until(lambda: server.make_ready().connections == 1)
        assert getattr(server.make_ready().hub.limits, name) == 7
        await peer.close()
