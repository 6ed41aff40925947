import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import pytest

from rfc6455 import HandshakeError, LocalProtocolError, Request, Role, ServerHandshake
from rfc6455_server import ConnectionClosedError, HandshakeRejectedError, Server, WebSocket, connect
from tests.helpers import sent_frames
from tests.server_helpers import Certificate, all_closed, echo_server, serving

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]


@asynccontextmanager
async def listening(handle: Handle, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Yields the port of a server; closes its connections at the end."""
    writers: list[asyncio.StreamWriter] = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await handle(reader, writer)
        writer.close()

    server = await asyncio.start_server(keep, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for writer in writers:
            writer.close()
            try:
                await writer.wait_closed()
            except (ConnectionError, ssl.SSLError):
                pass
        server.close()
        await all_closed()  # including connections whose TLS handshake failed


async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accepts the opening handshake, sends back the host and target of the request, and closes."""
    handshake = ServerHandshake()
    handshake.receive_data(await reader.readuntil(b"\r\n\r\n"))
    request = handshake.next_event()
    assert isinstance(request, Request)
    connection = handshake.accept(request.subprotocols[-1] if request.subprotocols else None)
    connection.send_text(f"{request.headers['Host']} {request.target}")
    connection.close()
    writer.write(handshake.data_to_send() + connection.data_to_send())
    await reader.read(100)  # the client's Close


async def test_with_and_without_a_context() -> None:
    async with serving(echo_server()) as url:
        async with connect(url + "/echo") as ws:
            await ws.send("a")
            assert await ws.recv() == "a"
        assert ws.closed is not None
        assert ws.closed.clean
        ws = await connect(url + "/echo")
        await ws.close()


async def test_subprotocol_host_and_resource_name() -> None:
    async with listening(accept) as port:
        ws = await connect(f"ws://127.0.0.1:{port}/a%20b?c=é", subprotocols=["one", "two"])
        assert ws.subprotocol == "two"
        assert ws.request is None
        assert await ws.recv() == f"127.0.0.1:{port} /a%20b?c=%C3%A9"
        await ws.close()


async def test_default_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 6455 §3: 80 and 443."""
    asked: list[tuple[object, ...]] = []

    async def create_connection(_: object, host: str, port: int, **options: object) -> None:
        context = options["ssl"]
        assert context is None or (isinstance(context, ssl.SSLContext) and context.check_hostname)
        asked.append((host, port, context is not None, options["server_hostname"]))
        raise OSError("not in this test")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", create_connection)
    for uri in ("ws://example.com/", "wss://example.com/", "wss://[::1]:9/"):
        with pytest.raises(OSError, match="not in this test"):
            await connect(uri)
    assert asked == [
        ("example.com", 80, False, None),
        ("example.com", 443, True, "example.com"),
        ("::1", 9, True, "::1"),
    ]


async def test_a_rejection_raises_with_its_status() -> None:
    async with serving(echo_server()) as url:
        with pytest.raises(HandshakeRejectedError) as caught:
            await connect(url + "/nothing-here")
        assert caught.value.response.status == 404
        assert caught.value.slug == "rejected"


@pytest.mark.parametrize(
    ("answer", "slug"),
    [(b"", "incomplete"), (b"HTTP/1.1 101 x\r\n\r\n", "bad-upgrade"), (b"220 mail\r\n", "bad-status-line")],
)
async def test_a_server_that_sends_no_valid_response(answer: bytes, slug: str) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async with listening(handle) as port:
        with pytest.raises(HandshakeError) as caught:
            await connect(f"ws://127.0.0.1:{port}/")
        assert caught.value.slug == slug


async def test_a_server_that_never_responds() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(handle) as port:
        with pytest.raises(TimeoutError):
            await connect(f"ws://127.0.0.1:{port}/", open_timeout=0.1)


async def test_a_port_without_a_server() -> None:
    async with listening(accept) as port:
        pass
    with pytest.raises(ConnectionRefusedError):
        await connect(f"ws://127.0.0.1:{port}/")


def test_a_bad_uri() -> None:
    with pytest.raises(LocalProtocolError):
        connect("http://example.com/")


async def test_a_server_that_does_not_close_tcp() -> None:
    """RFC 6455 §7.1.1: the client waits for the server to close TCP, and closes it after `close_timeout`."""

    async def stay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handshake = ServerHandshake()
        handshake.receive_data(await reader.readuntil(b"\r\n\r\n"))
        handshake.next_event()
        connection = handshake.accept()
        connection.close(1001)
        writer.write(handshake.data_to_send() + connection.data_to_send())
        await reader.read()

    async with listening(stay) as port:
        ws = await connect(f"ws://127.0.0.1:{port}/", limits={"close_timeout": 0.1})
        await ws.wait_closed()
        assert ws.closed is not None
        assert (ws.closed.code, ws.closed.clean) == (1001, True)


async def test_a_message_received_with_the_response_is_answered_before_a_violation() -> None:
    answers: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handshake = ServerHandshake()
        handshake.receive_data(await reader.readuntil(b"\r\n\r\n"))
        handshake.next_event()
        handshake.accept()
        writer.write(handshake.data_to_send() + b"\x81\x05Hello\x83\x00")
        answers.append(await reader.read())

    async with listening(handle) as port:
        ws = await connect(f"ws://127.0.0.1:{port}/")
        async for message in ws:
            await ws.send(message)
        await ws.wait_closed()
    assert [first for first, _ in sent_frames(Role.CLIENT, answers[0])] == [0x81, 0x88]


async def test_tls_and_certificate_verification(certificate: Certificate) -> None:
    async with listening(accept, certificate.server_context()) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(f"wss://localhost:{port}/")
        trusting = certificate.client_context()
        ws = await connect(f"wss://localhost:{port}/tls", ssl_context=trusting)
        assert await ws.recv() == f"localhost:{port} /tls"
        await ws.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(f"wss://127.0.0.1:{port}/", ssl_context=trusting)


async def test_the_limit_of_a_message_holds_at_the_client_too() -> None:
    server = Server()

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        await ws.send("x" * 101)
        await ws.wait_closed()

    async with serving(server) as url:
        async with connect(url + "/", limits={"max_message_size": 101}) as ws:
            assert await ws.recv() == "x" * 101
        for options in ({"limits": {"max_message_size": 100}}, {"max_message_size": 100}):
            async with connect(url + "/", **options) as ws:
                with pytest.raises(ConnectionClosedError):
                    await ws.recv()
                assert ws.failure is not None
                assert ws.failure.code == 1009
