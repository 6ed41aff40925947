"""Listening over real TCP and Unix sockets: addresses, TLS, PROXY headers."""

import asyncio
import errno
import gc
import logging
import os
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rfc6455 import ClientHandshake, Opcode, encode_frame
from rfc6455_server import Certificate as FileCertificate
from rfc6455_server import Endpoint, Server, WebSocket, connect
from rfc6455_server.listening.certificates import make_ssl_context
from tests.server_helpers import PATIENCE, Certificate, RawPeer, all_closed, echo_server, serving, until

PROXY = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([203, 0, 113, 9, 10, 0, 0, 1]) + b"\x12\x34\0\x50"


def address_server(**options: object) -> Server:
    server = Server(**options)  # type: ignore[arg-type]

    @server.websocket("/")
    async def who(ws: WebSocket) -> None:
        await ws.send(ws.address)

    return server


async def test_several_endpoints_at_once(certificate: Certificate, tmp_path: Path) -> None:
    server = address_server()
    path = str(tmp_path / "socket")
    await server.listen(Endpoint("127.0.0.1"))
    await server.listen(Endpoint("127.0.0.1", ssl_context=certificate.server_context()))
    await server.listen(Endpoint(path=path))
    plain, secure, unix = server.urls
    assert plain.startswith("http://127.0.0.1:")
    assert secure.startswith("https://127.0.0.1:")
    assert unix == f"unix:{path}"
    assert server.port == int(plain.rsplit(":", 1)[1])
    async with connect(plain.replace("http", "ws") + "/") as ws:
        assert await ws.recv() == "127.0.0.1"
    url = secure.replace("https", "wss").replace("127.0.0.1", "localhost") + "/"
    async with connect(url, ssl_context=certificate.client_context()) as ws:
        assert await ws.recv() == "127.0.0.1"
    peer = RawPeer(*await asyncio.open_unix_connection(path))
    peer.writer.write(ClientHandshake("h", "/").data_to_send())
    await peer.reader.readuntil(b"\r\n\r\n")
    assert await peer.read(6) == b"\x81\x04unix"
    await peer.close()
    await server.stop()
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - a directory of our own
    assert server.urls == []


async def test_ipv6() -> None:
    server = address_server()
    try:
        await server.start("::1", 0)
    except OSError:
        pytest.skip("no IPv6 here")
    assert server.urls == [f"http://[::1]:{server.port}"]
    async with connect(f"ws://[::1]:{server.port}/") as ws:
        assert await ws.recv() == "::1"
    await server.stop()


async def test_a_stale_unix_socket_is_replaced_and_one_in_use_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    server, other = address_server(), address_server()
    await server.listen(Endpoint(path=path))
    with pytest.raises(OSError, match="in use"):
        await other.listen(Endpoint(path=path))
    await server.stop()
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        await server.listen(Endpoint(path=str(file)))
    assert file.read_text() == "precious"


async def test_a_unix_socket_that_another_process_has_put_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    old, new = address_server(), address_server()
    await old.listen(Endpoint(path=str(path)))
    path.rename(tmp_path / "moved")  # and not removed: the new file could have the same inode
    await new.listen(Endpoint(path=str(path)))
    await old.stop()
    assert path.is_socket()
    peer = RawPeer(*await asyncio.open_unix_connection(path))
    await peer.close()
    path.unlink()
    await new.stop()


async def test_the_url_of_an_abstract_socket() -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"\0rfc6455-acceptor-{os.getpid()}")
    listening.listen()
    server = address_server()
    await server.listen(Endpoint(listening=listening))
    assert server.urls == [f"unix:@rfc6455-acceptor-{os.getpid()}"]
    await server.stop()


async def test_a_port_may_be_shared() -> None:
    one, two, three = address_server(), address_server(), address_server()
    await one.listen(Endpoint("127.0.0.1", reuse_port=True))
    await two.listen(Endpoint("127.0.0.1", one.port, reuse_port=True))
    with pytest.raises(OSError, match="in use"):
        await three.listen(Endpoint("127.0.0.1", one.port))
    await one.stop()
    await two.stop()


@pytest.mark.parametrize("host", ["a..b", "x" * 64])
async def test_what_cannot_be_the_name_of_a_host(host: str) -> None:
    with pytest.raises(OSError, match="not a host name"):
        await Server().listen(Endpoint(host))


async def test_a_host_that_does_not_exist() -> None:
    with pytest.raises(OSError, match=r"\S"):
        await address_server().listen(Endpoint("256.256.256.256"))


async def test_an_empty_host_is_an_error() -> None:
    with pytest.raises(ValueError, match="the host is empty"):
        await address_server().start("")
    server = address_server()
    await server.start(None)
    assert any("0.0.0.0" in url for url in server.urls)
    await server.stop()


async def test_the_socket_of_another_kind_stays(tmp_path: Path) -> None:
    """Connecting to it fails, but not because its process has ended."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(path)
        with pytest.raises(OSError, match="in use"):
            await address_server().listen(Endpoint(path=path))
    assert Path(path).is_socket()  # noqa: ASYNC240 - a directory of our own


async def test_a_certificate_is_read_again_for_new_connections(tmp_path: Path) -> None:
    folders = [tmp_path / "used", tmp_path / "new"]
    for folder in folders:
        folder.mkdir()
    used, new = map(Certificate, folders)
    files = FileCertificate(str(used.certificate), str(used.key))
    server = echo_server()
    await server.listen(Endpoint("127.0.0.1", certificate=files))
    await server.listen(Endpoint("127.0.0.1", certificate=files))
    await server.listen(Endpoint("127.0.0.1"))
    urls = [
        url.replace("https", "wss").replace("127.0.0.1", "localhost") + "/echo" for url in server.urls[:2]
    ]
    assert server.urls[2].startswith("http://")

    async def talk(url: str, certificate: Certificate) -> None:
        async with connect(url, ssl_context=certificate.client_context()) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"

    client_of_used = used.client_context()
    await talk(urls[0], used)
    used.certificate.write_text(new.certificate.read_text())
    with pytest.raises(ssl.SSLError):
        server.reload_certificates()  # its key is still the old one
    async with connect(urls[1], ssl_context=client_of_used) as ws:
        await ws.send("x")
    used.key.write_text(new.key.read_text())
    assert server.reload_certificates()
    for url in urls:
        await talk(url, new)
        with pytest.raises(ssl.SSLError):
            await connect(url, ssl_context=client_of_used)
    await server.stop()
    assert not server.reload_certificates()
    await all_closed()


@pytest.mark.parametrize("name", ["certificate", "key"])
async def test_a_pipe_is_no_certificate_and_the_old_one_stays(name: str, tmp_path: Path) -> None:
    used = Certificate(tmp_path)
    files = FileCertificate(str(used.certificate), str(used.key))
    server, before = echo_server(), files.context
    await server.listen(Endpoint("127.0.0.1", certificate=files))
    path = getattr(used, name)
    path.unlink()
    os.mkfifo(path)  # opening it would wait for somebody who writes
    with pytest.raises(OSError, match="not a regular file") as caught:
        server.reload_certificates()
    assert caught.value.filename == str(path)
    assert files.context is before
    await server.stop()


async def test_a_client_with_a_proxy_header() -> None:
    server = address_server(trusted=["127.0.0.1"])
    await server.listen(Endpoint("127.0.0.1", proxy_protocol=True))
    url = f"ws://127.0.0.1:{server.port}"
    peer = await RawPeer.connect(url)
    # Sent byte by byte: the length in the header decides where it ends.
    request = PROXY + ClientHandshake("h", "/").data_to_send()
    for octet in request[:40]:
        peer.writer.write(bytes([octet]))
        await asyncio.sleep(0)
    peer.writer.write(request[40:])
    await peer.reader.readuntil(b"\r\n\r\n")
    assert await peer.read(13) == b"\x81\x0b203.0.113.9"
    await peer.close()
    # A health check of the proxy itself: the header contains no address.
    local = PROXY[:12] + b"\x20\x00\0\0"
    peer = await RawPeer.connect(url)
    peer.writer.write(local + b"GET /healthz HTTP/1.0\r\n\r\n")
    assert (await peer.read_to_end()).startswith(b"HTTP/1.1 200 ")
    await peer.close()
    await server.stop()


async def test_a_proxy_header_before_tls(certificate: Certificate) -> None:
    server = address_server(trusted=["127.0.0.1"])
    context = certificate.server_context()
    await server.listen(Endpoint("127.0.0.1", ssl_context=context, proxy_protocol=True))

    def speak() -> bytes:
        with socket.create_connection(("127.0.0.1", server.port), 10) as plain:
            plain.sendall(PROXY)
            with certificate.client_context().wrap_socket(plain, server_hostname="localhost") as secure:
                secure.sendall(ClientHandshake("h", "/").data_to_send())
                answer = b""
                while not answer.endswith(b"203.0.113.9"):
                    answer += secure.recv(1000)
                return answer

    assert b" 101 " in await asyncio.to_thread(speak)
    await server.stop()
    await all_closed()


@pytest.mark.parametrize(
    ("trusted", "sent", "reason"),
    [
        (["127.0.0.1"], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "not a PROXY header"),
        (["127.0.0.1"], PROXY[:20], "ended inside"),
        (["127.0.0.1"], PROXY[:14] + b"\0\2" + b"xx", "lacks its addresses"),
        ([], PROXY + b"GET / HTTP/1.1\r\n\r\n", "not trusted"),
    ],
)
async def test_a_connection_without_a_valid_proxy_header_is_closed(
    trusted: list[str], sent: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = address_server(trusted=trusted)
    await server.listen(Endpoint("127.0.0.1", proxy_protocol=True))
    with caplog.at_level(logging.INFO, logger="rfc6455_server"):
        peer = await RawPeer.connect(f"ws://127.0.0.1:{server.port}")
        try:
            peer.writer.write(sent)
            peer.writer.write_eof()
            assert await peer.read_to_end() == b""
        except OSError:
            pass  # closed with bytes unread
    assert reason in caplog.text
    await peer.close()
    await server.stop()


async def test_a_missing_proxy_header_has_the_deadline() -> None:
    server = address_server(trusted=["127.0.0.1"], handshake_timeout=0.2)
    await server.listen(Endpoint("127.0.0.1", proxy_protocol=True))
    peer = await RawPeer.connect(f"ws://127.0.0.1:{server.port}")
    assert await peer.read_to_end() == b""
    await peer.close()
    await server.stop()


# TLS.


def test_an_unusable_certificate_raises(certificate: Certificate, tmp_path: Path) -> None:
    context = make_ssl_context(str(certificate.certificate), str(certificate.key))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    chain, key = str(certificate.certificate), str(certificate.key)
    for files, of_key in (((chain,), chain), ((key, key), key), ((chain, __file__), __file__)):
        with pytest.raises(
            ssl.SSLError, match=f"no certificate in {files[0]}, or no private key in {of_key}"
        ):
            make_ssl_context(*files)
    none = str(tmp_path / "none")
    for files in ((none,), (str(certificate.certificate), none)):
        with pytest.raises(FileNotFoundError) as caught:
            make_ssl_context(*files)
        assert caught.value.filename == none


async def test_a_failed_tls_handshake_is_not_counted_afterwards(certificate: Certificate) -> None:
    server = echo_server(max_connections=1)
    await server.start("127.0.0.1", 0, ssl_context=certificate.server_context())
    for _ in range(3):
        peer = await RawPeer.connect(f"ws://127.0.0.1:{server.port}")
        peer.writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"HTTP" not in await peer.read_to_end()
        await peer.close()
        await until(lambda: server.make_ready().connections == 0)
    url = f"wss://localhost:{server.port}/echo"
    async with connect(url, ssl_context=certificate.client_context()) as ws:
        await ws.send("x" * 1_000_000)
        assert await ws.recv() == "x" * 1_000_000
        with pytest.raises((OSError, ssl.SSLError)):
            await connect(url, ssl_context=certificate.client_context())
    await server.stop()
    await all_closed()


async def test_a_tls_handshake_has_the_deadline(certificate: Certificate) -> None:
    server = echo_server(handshake_timeout=0.2)
    await server.start("127.0.0.1", 0, ssl_context=certificate.server_context())
    peer = await RawPeer.connect(f"ws://127.0.0.1:{server.port}")
    assert await peer.read_to_end() == b""
    await peer.close()
    # Stopping during a TLS handshake closes the connection.
    peer = await RawPeer.connect(f"ws://127.0.0.1:{server.port}")
    await until(lambda: server.make_ready().connections == 1)
    await server.stop()
    assert await peer.read_to_end() == b""
    await peer.close()


async def test_a_peer_that_does_not_close_tls_is_disconnected(certificate: Certificate) -> None:
    server = echo_server(close_timeout=0.2)
    await server.start("127.0.0.1", 0, ssl_context=certificate.server_context())
    closed, done = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def speak() -> None:
        with socket.create_connection(("127.0.0.1", server.port), 10) as plain:
            secure = certificate.client_context().wrap_socket(plain, server_hostname="localhost")
            secure.sendall(ClientHandshake("h", "/echo").data_to_send())
            secure.sendall(encode_frame(Opcode.CLOSE, b"\x03\xe8", mask_key=b"abcd"))
            answer = b""
            while not answer.endswith(b"\x88\x02\x03\xe8"):
                answer += secure.recv(1000)
            loop.call_soon_threadsafe(closed.set)
            done.wait(PATIENCE)  # sends nothing more
            secure.close()

    speaking = asyncio.create_task(asyncio.to_thread(speak))
    try:
        await until(closed.is_set)
        await until(lambda: server.make_ready().connections == 0)
    finally:
        done.set()
        await speaking
        await server.stop()
        await all_closed()


async def test_a_tls_connection_keeps_a_small_buffer(certificate: Certificate) -> None:
    server = echo_server()
    await server.start("127.0.0.1", 0, ssl_context=certificate.server_context())
    async with connect(f"wss://localhost:{server.port}/echo", ssl_context=certificate.client_context()) as ws:
        await ws.send("x" * 300_000)
        await ws.recv()
        (accepted,) = server.websockets
        protocol = accepted._transport._ssl_protocol  # type: ignore[attr-defined]
        assert len(protocol._ssl_buffer) <= 1 << 16
    await server.stop()
    await all_closed()


# File descriptors.

_EXHAUSTED = """
import asyncio, logging, resource, sys
from rfc6455_server.command.cli import make_server
logging.basicConfig(level="INFO", format="%(message)s")

async def main():
    server = make_server()
    await server.start("127.0.0.1", 0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))
    print(server.port, flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await server.stop()

asyncio.run(main())
"""


async def test_without_file_descriptors_accepting_pauses_and_resumes() -> None:
    process = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs yet
        [sys.executable, "-c", _EXHAUSTED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    url = f"ws://127.0.0.1:{int(process.stdout.readline())}/echo"
    try:
        peers = [await RawPeer.connect(url) for _ in range(40)]
        log = process.stderr
        assert log is not None
        assert await asyncio.to_thread(lambda: any("accepting paused" in line for line in log))
        for peer in peers:
            await peer.close()
        async with connect(url, open_timeout=PATIENCE) as ws:
            await ws.send("still there")
            assert await ws.recv() == "still there"
    finally:
        process.communicate("\n", timeout=PATIENCE)
    assert process.returncode == 0


async def test_without_file_descriptors_the_loop_does_not_busy_wait() -> None:
    server = echo_server()
    async with serving(server) as url:
        (acceptor,) = server._acceptors
        listening = acceptor.socket
        watched = asyncio.get_running_loop()._selector.get_map()  # type: ignore[attr-defined]

        class Exhausted:
            fileno = staticmethod(listening.fileno)

            def accept(self) -> None:
                raise OSError(errno.EMFILE, "too many open files")

        acceptor.socket = Exhausted()  # type: ignore[assignment]
        assert listening.fileno() in watched
        acceptor._accept()
        assert listening.fileno() not in watched
        acceptor.socket = listening
        async with connect(url + "/echo") as ws:  # the loop watches the listening socket again
            await ws.send("x")
            assert await ws.recv() == "x"


async def test_stopping_right_after_accepting_closes_everything() -> None:
    server = echo_server()
    await server.start("127.0.0.1", 0)
    with socket.create_connection(("127.0.0.1", server.port)) as peer:
        server._acceptors[0]._accept()
        await server.stop()
        await all_closed()
        gc.collect()  # an open TCP socket would emit a warning, which fails the test
        peer.settimeout(5)
        assert await asyncio.to_thread(peer.recv, 1) == b""


async def test_an_unexpected_error_of_accept_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    server = echo_server()
    seen: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    async with serving(server):
        loop.set_exception_handler(lambda _, context: seen.append(context))
        (acceptor,) = server._acceptors

        class Broken:
            def accept(self) -> None:
                raise OSError(5, "input/output error")

        real, acceptor.socket = acceptor.socket, Broken()  # type: ignore[assignment]
        with pytest.raises(OSError, match="input/output"):
            acceptor._accept()
        acceptor.socket = real
