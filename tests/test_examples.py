"""Runs each example, with the clients that it is for."""

import asyncio
import importlib.util
from types import ModuleType
from typing import Any

import pytest
import socketio

from rfc6455_server.testing import TestClient
from tests.server_helpers import PATIENCE, ROOT, serving
from tests.test_socketio_flow import connected
from tests.test_socketio_server import Client

EXAMPLES = ROOT / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_chat_socketio() -> None:
    source = (EXAMPLES / "chat_socketio.py").read_text()
    code = [line for line in source.split('"""')[2].splitlines() if line.strip()]
    assert len(code) <= 50
    module = load("chat_socketio")
    heard: dict[str, asyncio.Queue[tuple[Any, ...]]] = {"Ann": asyncio.Queue(), "Bob": asyncio.Queue()}
    async with serving(module.server) as url, asyncio.timeout(PATIENCE):
        http = url.replace("ws", "http", 1)
        nobody = socketio.AsyncClient(reconnection=False)
        with pytest.raises(socketio.exceptions.ConnectionError):
            await nobody.connect(http)
        await nobody.disconnect()
        ann, bob = (socketio.AsyncClient(reconnection=False) for _ in range(2))
        for name, client in (("Ann", ann), ("Bob", bob)):
            queue = heard[name]
            for event in ("joined", "message", "image", "left"):
                client.on(event, lambda *args, queue=queue, event=event: queue.put_nowait((event, *args)))
            client.on("direct", lambda sender, text: f"{sender} said {text}")
            await client.connect(http, auth={"name": name})
        assert await ann.call("join", "lobby") == ["Ann"]
        assert await bob.call("join", "lobby") == ["Ann", "Bob"]
        # With recovery, the last argument of each event is its offset.
        assert (await heard["Ann"].get())[:2] == ("joined", "Bob")
        assert await ann.call("message", ("lobby", "안녕")) == {"ok": True}
        for queue in heard.values():
            event, message, _ = await queue.get()
            assert (event, message["name"], message["text"]) == ("message", "Ann", "안녕")
            assert message["date"].endswith("+00:00")
        await bob.emit("image", ("lobby", b"\x89PNG"))
        assert (await heard["Ann"].get())[:3] == ("image", "Bob", b"\x89PNG")
        assert await ann.call("direct", ("Bob", "psst")) == "Ann said psst"
        assert await ann.call("direct", ("Eve", "psst")) is None
        await bob.disconnect()
        assert (await heard["Ann"].get())[:2] == ("left", "Bob")
        await ann.disconnect()


async def test_chat_socketio_tells_the_room_who_is_back() -> None:
    module = load("chat_socketio")
    async with TestClient(module.server) as test:
        ann, bob = [await Client.open(test, auth={"name": name}) for name in ("Ann", "Bob")]
        for client in (ann, bob):
            answer = await client.recv()
            client.say('42["join","lobby"]')
        assert (await ann.event())[:2] == ["joined", "Bob"]
        bob.ws.abort()
        assert (await ann.event())[:2] == ["left", "Bob"]
        await Client.open(test, auth={"name": "Bob", "pid": connected(answer)[1]})
        assert (await ann.event())[:2] == ["joined", "Bob"]
