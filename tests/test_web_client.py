"""``web/client.js``, the file that browsers load, in Node with the WebSocket of the package ws."""

import pytest

from rfc6455_server.socketio import Socket
from tests.server_helpers import ROOT, serving
from tests.socketio_relay import Relay
from tests.test_socketio import chat_server, script

CLIENT = ROOT / "server" / "rfc6455_server" / "web" / "client.js"


def test_the_client_stays_small() -> None:
    lines = CLIENT.read_text().splitlines()
    assert len(lines) <= 200
    assert max(map(len, lines)) <= 110


async def test_events_acknowledgements_and_bytes() -> None:
    server, _ = chat_server()
    async with serving(server) as url, script(url, {}, "tour", "web_client.js") as client:
        said = {line[0]: line[1:] for line in await client.lines()}
    assert said == {
        "state": ["online"],
        "echo": [["안녕 😀", {"a": [1, None]}]],
        "ask me": ["well!"],
        "timeout": ["timeout"],
        "binary": [1 << 20, True],
        "order": [200, True],
        "refused": ["who are you?", {"code": 7}, "offline"],
        "closed": ["offline"],
    }


@pytest.mark.parametrize("recovery", [60, None])
async def test_the_client_reconnects_and_reports_missed_events(recovery: float | None) -> None:
    server, io = chat_server(recovery=recovery)

    @io.on("connect")
    def connected(socket: Socket) -> None:
        socket.join("lobby")

    async with serving(server):
        relay = Relay(server.port)
        async with relay.running() as url, script(url, {}, "listen", "web_client.js") as client:
            assert await client.until("connected") == ["connected", {"recovered": False, "first": True}]
            io.to("lobby").emit("news", 0)
            assert await client.until("news") == ["news", 0]
            relay.open = False
            relay.cut(server_notices=False)
            assert (await client.until("state", "reconnecting"))[2] > 0
            client.tell("say", "lobby", "queued while away")
            io.to("lobby").emit("news", 1)
            relay.open = True
            recovered = recovery is not None
            again = await client.until("connected")
            assert again == ["connected", {"recovered": recovered, "first": False}]
            follows = await client.next()
            while follows[0] == "state":
                follows = await client.next()
            assert follows == (["news", 1] if recovered else ["missed"])
            io.to("lobby").emit("news", 2)
            assert await client.until("news") == ["news", 2]
            client.tell("end")
