"""Shared by the tests of the server: a server on a free port, and a peer that is only a TCP socket."""

import asyncio
import os
import random
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from rfc6455 import ClientHandshake, Opcode, encode_frame
from rfc6455_server import Server, WebSocket, connect
from rfc6455_server.clock import Clock
from rfc6455_server.testing import settle
from tests.helpers import KEY

ROOT = Path(__file__).parent.parent
# Without the browser's own look-ups and requests: all traffic stays on this machine.
BROWSER_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
BROWSER_ARGUMENTS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]

# Seconds that a test waits for something before it fails. Long, because a busy machine must not fail a test.
PATIENCE = 60

REQUIRE_ALL = os.environ.get("CI") == "true"


def need(part: str, present: bool) -> None:
    """Skips the test if an optional part is missing; in CI it fails."""
    if not present:
        if REQUIRE_ALL:
            pytest.fail(f"{part} is missing")
        pytest.skip(f"{part} is missing")


def find_program(*names: str) -> str | None:
    return next((path for name in names if (path := shutil.which(name))), None)


async def until(condition: Callable[[], object]) -> None:
    """Waits until ``condition``, a function or a coroutine function, returns something true.

    All tests that have no event or message to wait for use this. A test that shows that something does
    not happen moves a `ManualClock`, or waits for something that comes later; it never sleeps.
    """
    async with asyncio.timeout(PATIENCE):
        while True:
            result = condition()
            if await result if isinstance(result, Awaitable) else result:
                return
            await asyncio.sleep(0.005)


async def all_closed() -> None:
    """Waits until the event loop has no open socket: TLS connections end later than their WebSocket."""
    selector = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
    await until(lambda: len(selector.get_map()) == 1)  # the loop's own
    await settle()


def free_port() -> int:
    """Returns an unused port, below the range that the system uses for port 0 and for clients."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def listens(port: int) -> bool:
    """Returns whether a process accepts connections at ``port`` of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[str]:
    """Starts ``server`` and yields its URL."""
    await server.start("127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.port}"
    finally:
        await server.stop()


def echo_server(**options: object) -> Server:
    server = Server(**options)  # type: ignore[arg-type]

    @server.websocket("/echo")
    async def echo(ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    return server


async def talk_meanwhile(url: str) -> None:
    """Exchanges 300 messages with the echo server at ``url``: everything else has 300 turns of the loop."""
    async with connect(url + "/echo") as ws:
        for _ in range(300):
            await ws.send("x")
            assert await ws.recv() == "x"


class Certificate:
    """A self-signed certificate for localhost."""

    def __init__(self, folder: Path) -> None:
        openssl = find_program("openssl")
        need("openssl", openssl is not None)
        self.key, self.certificate = folder / "key.pem", folder / "cert.pem"
        command = [str(openssl), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        command += ["-keyout", str(self.key), "-out", str(self.certificate)]
        subprocess.run(command, check=True, capture_output=True)

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def client_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate))


class RawPeer:
    """Sends and receives bytes, without a codec."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, url: str) -> "RawPeer":
        port = int(url.rsplit(":", 1)[1].split("/", maxsplit=1)[0])
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    @classmethod
    async def upgraded(cls, url: str, path: str = "/echo", *, early: bytes = b"") -> "RawPeer":
        peer = await cls.connect(url)
        peer.writer.write(ClientHandshake("127.0.0.1", path).data_to_send() + early)
        head = await peer.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        return peer

    def send(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> None:
        self.writer.write(encode_frame(Opcode(opcode), payload, fin=fin, mask_key=KEY))

    async def read(self, size: int) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readexactly(size)

    async def read_to_end(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass


class Recorder(asyncio.Protocol):
    """The peer at the end of a `MemoryTransport`: records received bytes, and when the connection ends."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.received = bytearray()
        self.ended: float | None = None

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = self._clock.time()


@contextmanager
def running_command(
    *arguments: str, program: Sequence[str] = ("-m", "rfc6455_server")
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command rfc6455-server on a free port, and its http URL; ended if it still runs."""
    with running_program(*program, "--port=0", "--drain-time=0", *arguments) as (process, url):
        yield process, url
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=30)


@contextmanager
def running_program(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A program that prints its http URL as the command does, and the URL; killed if it still runs."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving on http://"), line
        yield process, line.split()[-1]
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=PATIENCE)
