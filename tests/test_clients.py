"""Interoperability: the clients of websockets and Node's ws with our server, our client with websockets."""

import subprocess
from pathlib import Path

import pytest
import websockets
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.typing import Subprotocol

from rfc6455 import PerMessageDeflate
from rfc6455_server import connect
from tests.server_helpers import ROOT, echo_server, find_program, need, running_command, serving

NODE = ROOT / "tests" / "node"
MESSAGES: list[str | bytes] = [
    "",
    "Hello",
    "é€😀",
    b"",
    b"\x00\xff\x80",
    "x" * 70_000,
    bytes(16 << 20),
    "€" * (5 << 20),
]


def run_node(script: str, *arguments: str, timeout: float = 60) -> None:
    node = find_program("node")
    need("Node", node is not None)
    need("tests/node/node_modules (npm ci)", (NODE / "node_modules").is_dir())
    done = subprocess.run(
        [str(node), str(NODE / script), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("compression", [False, True])
def test_node_ws(compression: bool) -> None:
    options = ["--compression"] if compression else []
    with running_command("--max-message-size", str(17 << 20), *options) as (_, url):
        run_node("echo.js", url.replace("http", "ws") + "/echo", *(["deflate"] if compression else []))


async def test_python_websockets() -> None:
    async with serving(echo_server(max_message_size=17 << 20)) as url:
        async with websockets.connect(url + "/echo", max_size=None, compression=None) as ws:
            for message in MESSAGES:
                await ws.send(message)
                assert await ws.recv() == message
            # Three fragments, then a Ping.
            await ws.send(["fr", "ag", "ments"])
            await (await ws.ping(b"now"))
            assert await ws.recv() == "fragments"
        assert ws.close_code == 1000


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"server_no_context_takeover": True, "client_no_context_takeover": True},
        {"server_max_window_bits": 9, "client_max_window_bits": 9},
    ],
)
async def test_python_websockets_with_compression(options: dict[str, int]) -> None:
    factory = ClientPerMessageDeflateFactory(**options)  # type: ignore[arg-type]
    server = echo_server(max_message_size=17 << 20, compression=PerMessageDeflate())
    async with (
        serving(server) as url,
        websockets.connect(url + "/echo", max_size=None, compression=None, extensions=[factory]) as ws,
    ):
        assert [extension.name for extension in ws.protocol.extensions] == ["permessage-deflate"]
        for message in MESSAGES:
            await ws.send(message)
            assert await ws.recv() == message


@pytest.mark.parametrize("compression", [None, PerMessageDeflate(), PerMessageDeflate(True, True, 9, 9)])
async def test_our_client_with_the_server_of_websockets(compression: PerMessageDeflate | None) -> None:
    async def echo(connection: websockets.ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with websockets.serve(
        echo, "127.0.0.1", 0, max_size=None, subprotocols=[Subprotocol("chat")]
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        uri = f"ws://127.0.0.1:{port}/"
        async with connect(
            uri, max_message_size=17 << 20, subprotocols=["chat"], compression=compression
        ) as ws:
            assert ws.subprotocol == "chat"
            for message in MESSAGES:
                await ws.send(message)
                assert await ws.recv() == message
            assert await ws.ping() > 0
        assert ws.closed is not None
        assert (ws.closed.code, ws.closed.clean) == (1000, True)


def test_the_lock_file_contains_no_registry_urls() -> None:
    lock = Path(NODE / "package-lock.json").read_text()
    assert "://" not in lock.replace("https://opencollective.com", "")


@pytest.mark.parametrize("script", sorted(path.name for path in NODE.glob("*.js")))
def test_scripts_begin_with_a_comment(script: str) -> None:
    assert (NODE / script).read_text().startswith("// ")
