"""What an operator sees of Socket.IO: the metrics, and one line in the log for each session."""

import re

import pytest

from rfc6455_server import Server
from rfc6455_server.socketio import ConnectError, Socket
from rfc6455_server.testing import settle
from tests.server_helpers import Recorder, serving
from tests.test_http import ask
from tests.test_socketio_flow import come_back, connected, cut
from tests.test_socketio_server import PATH, Client, Rig, rig


async def get(r: Rig, path: str) -> str:
    """Returns the answer to a request, on a new connection in memory."""
    peer = Recorder(r.clock)
    r.test.open(peer).write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    await settle()
    assert peer.received.startswith(b"HTTP/1.1 200 ")
    return peer.received.decode()


async def metrics(r: Rig) -> dict[str, float]:
    """Returns the metrics of Socket.IO by name and labels, without the prefix."""
    text = await get(r, "/metrics")
    found = re.findall(r"^rfc6455_socketio_([^ {]+(?:{.*})?) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


async def test_sessions_are_counted_by_transport_and_by_the_reason_of_their_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    async with rig() as r:
        assert await metrics(r) == {
            'sessions{transport="polling"}': 0,
            'sessions{transport="websocket"}': 0,
        }
        client = await r.client()
        await get(r, PATH + "polling")
        await get(r, PATH + "polling")
        found = await metrics(r)
        assert found['sessions{transport="polling"}'] == 2
        assert found['sessions{transport="websocket"}'] == 1
        client.say("9")
        await settle()
        await r.clock.advance(60)  # they never connect to a namespace, and never fetch the CLOSE
        found = await metrics(r)
        assert found['sessions{transport="polling"}'] == found['sessions{transport="websocket"}'] == 0
        assert found['closes_total{reason="parse error"}'] == 1
        assert sum(number for name, number in found.items() if name.startswith("closes_total")) == 3
    lines = [record.getMessage() for record in caplog.records if "session closed" in record.getMessage()]
    assert len(lines) == 3
    assert re.fullmatch(
        r"session closed address=\S+ connection=[0-9a-f]+ transport=websocket seconds=\S+"
        r' reason="parse error"',
        lines[0],
    )
    assert all("transport=polling" in line for line in lines[1:])


async def test_clients_are_counted_that_connect_that_are_refused_and_that_come_back() -> None:
    async with rig(recovery=60) as r:

        @r.io.use
        def check(socket: Socket) -> None:
            if socket.handshake.auth.get("refused") == "by a middleware":
                raise ConnectError("refused")

        @r.io.on("connect")
        def late(socket: Socket) -> None:
            if socket.handshake.auth.get("refused") == "by a handler":
                raise ConnectError("refused")

        await r.client()
        for auth in ("by a middleware", "by a handler"):
            client = await Client.open(r.test, auth={"refused": auth})
            assert (await client.recv()).startswith("44")
        found = await metrics(r)
        assert found['connects_total{result="accepted"}'] == 1
        assert found['connects_total{result="refused"}'] == 2
        assert not any("recoveries" in name for name in found)

        client = await Client.open(r.test)
        _, pid = connected(await client.recv())
        await cut(client)
        client, _ = await come_back(r, pid, None)
        await cut(client)
        await r.clock.advance(100)
        await come_back(r, pid, None)
        found = await metrics(r)
        assert found['recoveries_total{result="recovered"}'] == 1
        assert found['recoveries_total{result="not recovered"}'] == 1
        assert found['connects_total{result="accepted"}'] == 4


async def test_a_server_without_socketio_has_none_of_its_metrics() -> None:
    async with serving(Server()) as url:
        answer = await ask(url, "GET /metrics HTTP/1.1\nHost: a\n")
    assert b"rfc6455_connections 0.0" in answer.body
    assert b"socketio" not in answer.body
