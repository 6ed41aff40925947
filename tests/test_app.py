import asyncio
import sys

import pytest
import uvloop

from rfc6455 import ConnectionClosed
from rfc6455_server import Endpoint, HandshakeRejectedError, Server, WebSocket, connect
from rfc6455_server.testing import ManualClock
from tests.server_helpers import Certificate, RawPeer, all_closed, echo_server, serving, until
from tests.test_http import ask


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
        assert c.unread_bytes == 0
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
        assert ws.closed == ConnectionClosed(1001, "the server is stopping", True)
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
                assert await ws.ping() >= 0  # uvloop's clock does not advance within an iteration of the loop
        assert len(server.websockets) <= 2
        await server.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(talk())


def test_a_limit_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="max_message_size"):
        Server(max_message_size=0)


# Metrics at an address of their own.


async def test_an_endpoint_for_metrics_is_the_only_one_that_has_them() -> None:
    server = echo_server()
    server.page("/page", b"hello", "text/plain")

    async def status(url: str, path: str) -> int:
        return (await ask(url, f"GET {path} HTTP/1.1\nHost: a\n")).status

    await server.start()
    public = f"ws://127.0.0.1:{server.port}"
    try:
        assert await status(public, "/metrics") == 200
        await server.listen(Endpoint("127.0.0.1", metrics=True))
        internal = server.urls[1].replace("http", "ws")
        paths = ["/metrics", "/healthz", "/readyz", "/page", "/echo"]
        assert [await status(public, path) for path in paths] == [404, 200, 200, 200, 426]
        assert [await status(internal, path) for path in paths] == [200, 200, 200, 404, 404]
        with pytest.raises(HandshakeRejectedError, match="404"):
            await connect(internal + "/echo")
    finally:
        await server.stop()
    await server.start()
    try:
        assert await status(f"ws://127.0.0.1:{server.port}", "/metrics") == 200
    finally:
        await server.stop()


async def test_a_full_server_that_drains_has_metrics_without_their_own_requests() -> None:
    clock = ManualClock()
    server = echo_server(clock=clock, max_connections=1)
    await server.start()
    await server.listen(Endpoint("127.0.0.1", metrics=True))
    public, internal = (url.replace("http", "ws") for url in server.urls)
    peer = await RawPeer.connect(public)
    draining = asyncio.create_task(server.drain(10))
    try:
        await until(lambda: server.draining and server.make_ready().connections == 1)
        assert (await ask(internal, "GET /readyz HTTP/1.1\nHost: a\n")).status == 503
        for _ in range(3):
            text = (await ask(internal, "GET /metrics HTTP/1.1\nHost: a\n")).body.decode()
        assert "rfc6455_tcp_connections 1.0" in text
        assert "rfc6455_refused_total{" not in text
        assert 'rfc6455_bytes_total{direction="out"} 0.0' in text
    finally:
        await peer.close()
        await clock.advance(10)
        await draining
        await server.stop()


# Optional packages.

_WATCH_IMPORTS = """
import asyncio, socket, sys
hidden = sys.argv[1:]
for name in hidden:
    sys.modules[name] = None
from rfc6455 import ClientHandshake, Opcode, encode_frame
from rfc6455_server import Server

server = Server()
server.page("/page", b"hello", "text/html")

@server.websocket("/echo")
async def echo(ws):
    async for message in ws:
        await ws.send(message)

def get(path):
    with socket.create_connection(("127.0.0.1", server.port)) as peer:
        peer.sendall(f"GET {path} HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n".encode())
        answer = b""
        while piece := peer.recv(65536):
            answer += piece
        return answer.split()[1].decode()

def speak():
    statuses = [get("/page"), get("/metrics")]
    with socket.create_connection(("127.0.0.1", server.port)) as peer:
        peer.sendall(ClientHandshake("a", "/echo").data_to_send())
        data = b""
        while not data.endswith(b"\\r\\n\\r\\n"):
            data += peer.recv(65536)
        peer.sendall(message)
        size = 10 + 200_000
        while size > 0:
            size -= len(peer.recv(65536))
    return statuses

async def main():
    await server.start("127.0.0.1", 0)
    started = set(sys.modules)
    print(*(name for name in ("numpy", "h11", "prometheus_client") if sys.modules.get(name)), sep=",")
    print(*await asyncio.to_thread(speak), sep=",")
    print(*sorted(set(sys.modules) - started), sep=",")
    await server.stop()

message = b"\\x82\\xff" + (200_000).to_bytes(8) + bytes(4) + b"x" * 200_000
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("hidden", "imported", "statuses"),
    [
        ([], "numpy,h11,prometheus_client", "200,200"),
        (["numpy"], "h11,prometheus_client", "200,200"),
        (["prometheus_client"], "numpy,h11", "200,501"),
        (["h11"], "numpy,prometheus_client", "501,501"),
        (["numpy", "h11", "prometheus_client"], "", "501,501"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else None,
)
async def test_optional_packages_are_imported_before_the_first_connection(
    hidden: list[str], imported: str, statuses: str
) -> None:
    """The last line lists modules imported later, by requests or by unmasking with numpy: none."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _WATCH_IMPORTS, *hidden), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    assert process.returncode == 0
    assert output.decode() == f"{imported}\n{statuses}\n\n"
