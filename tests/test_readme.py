"""Runs the programs of the README unchanged, except for the port."""

import asyncio
import re
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest
import socketio

from rfc6455_server import HandshakeRejectedError, connect
from tests.server_helpers import PATIENCE, ROOT, free_port, listens, running_command, serving, until

README = (ROOT / "README.md").read_text()
PROGRAMS = re.findall(r"<!-- run by tests/test_readme.py -->\n```python\n(.*?)```", README, re.DOTALL)


def test_every_program_is_run() -> None:
    assert len(PROGRAMS) == README.count("```python") == 7


async def test_rooms_in_ten_lines() -> None:
    lines = [line for line in PROGRAMS[0].splitlines() if line]
    assert len(lines) <= 10
    port = free_port()
    process = subprocess.Popen(  # noqa: ASYNC220 - starting it does not block
        [sys.executable, "-c", PROGRAMS[0].replace("8765", str(port))]
    )
    try:
        await until(lambda: process.poll() is not None or listens(port))
        a = await connect(f"ws://127.0.0.1:{port}/rooms/x")
        b = await connect(f"ws://127.0.0.1:{port}/rooms/x")
        await b.ping()
        await a.send("hello")
        assert await b.recv() == "hello"
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 20)
    assert process.returncode == 0
    await a.wait_closed()
    await b.wait_closed()
    assert a.closed is not None
    assert a.closed.code == 1001


def test_the_client() -> None:
    with running_command() as (_, url):
        program = PROGRAMS[1].replace("8765", url.rsplit(":", 1)[1])
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"round trip: 0\.\d{6} s\n", done.stdout)


async def test_a_called_handler() -> None:
    port = free_port()
    process = subprocess.Popen(  # noqa: ASYNC220 - starting it does not block
        [sys.executable, "-c", PROGRAMS[2].replace("8765", str(port))], stdout=subprocess.PIPE, text=True
    )
    try:
        await until(lambda: process.poll() is not None or listens(port))
        async with connect(f"ws://127.0.0.1:{port}/echo") as ws:
            for text in ("one", "two"):
                await ws.send(text)
                assert await ws.recv() == text
    finally:
        process.terminate()
        printed, _ = await asyncio.to_thread(process.communicate, timeout=20)
    assert printed == "2 messages, peer\n"


async def test_named_events() -> None:
    namespace: dict[str, Any] = {}
    exec(PROGRAMS[3], namespace)
    async with serving(namespace["server"]) as url, asyncio.timeout(PATIENCE):
        one, two = (socketio.AsyncClient(reconnection=False) for _ in range(2))
        heard: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        one.on("*", lambda *args: heard.put_nowait(args[:2]))
        await one.connect(url.replace("ws", "http", 1))
        await two.connect(url.replace("ws", "http", 1))
        assert await heard.get() == ("joined", two.get_sid())
        assert await two.call("message", b"bytes") == {"ok": True}
        assert await heard.get() == ("message", b"bytes")
        sid = two.get_sid()
        await two.disconnect()
        assert await heard.get() == ("left", sid)
        await one.disconnect()


async def test_the_codec_in_fifteen_lines() -> None:
    lines = [line for line in PROGRAMS[4].splitlines() if line]
    assert len(lines) == 15
    namespace: dict[str, object] = {}
    exec(PROGRAMS[4], namespace)
    echo = namespace["echo"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        thread = threading.Thread(target=lambda: [echo(server.accept()[0]) for _ in range(2)])  # type: ignore[operator]
        thread.start()
        ws = await connect(f"ws://127.0.0.1:{port}/")
        for message in ("Hello", "x" * 100_000):
            await ws.send(message)
            assert await ws.recv() == message
        await ws.close()
        assert ws.closed is not None
        assert ws.closed.clean
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(b"GET / HTTP/1.1\n")
            assert raw.recv(100).startswith(b"HTTP/1.1 400 ")
        await asyncio.to_thread(thread.join, 20)
    assert not thread.is_alive()


async def test_staying_up(capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict[str, Any] = {}
    exec(PROGRAMS[5], namespace)
    async with serving(namespace["server"]) as url:
        with pytest.raises(HandshakeRejectedError):
            await connect(url + "/game")
        token = [("Authorization", "Bearer s3cret")]
        async with connect(url + "/game", headers=token) as ws:
            await ws.send("1,2")
            assert await ws.recv() == "1,2"
            assert list(namespace["server"].rooms["arena"].presence.values()) == [{"name": "Ann"}]
    assert capsys.readouterr().out == "peer 1000 1000\n"


def test_a_server_in_memory() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAMS[6]], capture_output=True, text=True, check=True)
    assert done.stdout == "it works\n"


def test_the_output_of_explain() -> None:
    shown = re.search(r"\$ python -m (rfc6455 explain .*?)\n(.*?)```", README, re.DOTALL)
    assert shown is not None
    done = subprocess.run(
        [sys.executable, "-m", *shown[1].split()], capture_output=True, text=True, check=True
    )
    assert done.stdout == shown[2]
