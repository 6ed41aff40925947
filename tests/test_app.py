import asyncio

import pytest
import uvloop

from rfc6455 import ConnectionClosed
from rfc6455_server import Endpoint, Server, WebSocket, connect
from tests.server_helpers import Certificate, RawPeer, all_closed, echo_server, serving


async def test_the_example_of_the_readme() -> None:
    server = Server()

    @server.websocket("/rooms/{name}")
    async def room(ws: WebSocket, name: str) -> None:
        lobby = server.rooms[name]
        lobby.join(ws)
        async for message in ws:
            lobby.broadcast(message, exclude=[ws])

    async with (
        serving(server) as url,
        connect(url + "/rooms/one") as a,
        connect(url + "/rooms/one") as b,
        connect(url + "/rooms/two") as c,
    ):
        for ws in (a, b, c):
            await ws.ping()
        await a.send("hello")
        assert await b.recv() == "hello"
        await b.send(b"\xff")
        assert await a.recv() == b"\xff"
        await a.ping()
        assert not c._batches
        await b.close()
        await a.ping()
        assert len(server.rooms["one"]) == 1


async def test_start_port_and_stop() -> None:
    server = echo_server()
    with pytest.raises(RuntimeError):
        _ = server.port
    await server.stop()
    for _ in range(2):
        await server.start("127.0.0.1", 0)
        assert server.port > 0
        with pytest.raises(RuntimeError):
            await server.start("127.0.0.1", 0)
        ws = await connect(f"ws://127.0.0.1:{server.port}/echo")
        await server.stop()
        await ws.wait_closed()
        assert ws.closed == ConnectionClosed(1001, "the server stops", True)
    with pytest.raises(RuntimeError):
        _ = server.port


async def test_an_address_in_use() -> None:
    first, second = Server(), Server()
    async with serving(first):
        with pytest.raises(OSError, match="in use"):
            await second.start("127.0.0.1", first.port)


async def test_many_connections_join_and_leave() -> None:
    server = Server()

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        server.rooms["all"].join(ws)
        async for message in ws:
            server.rooms["all"].broadcast(message)

    async with serving(server) as url:
        sockets = [await connect(url) for _ in range(50)]
        await sockets[-1].ping()
        await sockets[0].send("x")
        assert [await ws.recv() for ws in sockets] == ["x"] * 50
        await asyncio.gather(*(ws.close() for ws in sockets))
        assert len(server.rooms) == 0


async def test_tls(certificate: Certificate) -> None:
    server = echo_server()
    await server.start("127.0.0.1", 0, ssl_context=certificate.server_context())
    async with connect(f"wss://localhost:{server.port}/echo", ssl_context=certificate.client_context()) as ws:
        await ws.send("x" * 100_000)
        assert await ws.recv() == "x" * 100_000
    assert ws.closed is not None
    assert ws.closed.clean
    peer = await RawPeer.connect(f"ws://127.0.0.1:{server.port}")
    peer.writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert b"HTTP" not in await peer.read_to_end()
    await peer.close()
    await server.stop()
    await all_closed()


def test_uvloop(certificate: Certificate) -> None:
    async def talk() -> None:
        server = echo_server()
        await server.listen(Endpoint("127.0.0.1"))
        await server.listen(Endpoint("127.0.0.1", ssl_context=certificate.server_context()))
        plain, secure = (url.replace("http", "ws").replace("127.0.0.1", "localhost") for url in server.urls)
        for url, context in ((plain, None), (secure, certificate.client_context())):
            async with connect(url + "/echo", ssl_context=context) as ws:
                for size in (10, 1_000_000):
                    await ws.send("x" * size)
                    assert await ws.recv() == "x" * size
                assert await ws.ping() >= 0  # its clock stands still within a turn
        assert len(server.websockets) <= 2
        await server.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(talk())


def test_a_limit_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="max_message_size"):
        Server(max_message_size=0)
