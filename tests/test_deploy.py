"""Runs the configurations of docs/deploy.md in front of the real server.

The tests replace only addresses, files, users and HAProxy's number of connections, and in two tests a
timeout. Clients connect from 127.0.0.2, because the server trusts the proxies' address, 127.0.0.1.
"""

import asyncio
import configparser
import csv
import gc
import grp
import json
import logging
import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest

from rfc6455 import ClientHandshake, PerMessageDeflate
from rfc6455_server import (
    ConnectionClosedError,
    Endpoint,
    HandshakeRejectedError,
    HttpRequest,
    HttpResponse,
    Server,
    WebSocket,
    connect,
)
from rfc6455_server.app import DRAIN_TIME
from rfc6455_server.command.cli import _parse, make_server
from rfc6455_server.command.endpoints import make_endpoints
from rfc6455_server.limits import Limits
from rfc6455_server.listening.listener import CANCEL_TIMEOUT
from rfc6455_server.process import END_TIME
from rfc6455_server.socketio.mounting import STOP_TIMEOUT
from rfc6455_server.websocket.streams import LINGER_TIMEOUT
from tests.server_helpers import (
    PATIENCE,
    ROOT,
    Certificate,
    RawPeer,
    find_program,
    free_port,
    listens,
    need,
    running_command,
    until,
)
from tests.test_process import activated
from tests.test_systemd import manager, said

__all__ = ["manager"]

DOCUMENT = (ROOT / "docs" / "deploy.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)
COMMANDS = re.findall(r"^(?:ExecStart=/\S+/)?rfc6455-server (.*)$", DOCUMENT, re.MULTILINE)
CLIENT = "127.0.0.2"
FORGED = "203.0.113.9"

Replacements = dict[str, str]


@pytest.fixture(autouse=True)
def no_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Checks that nothing a proxy does, such as a reset of a health check, is logged as an error."""
    yield
    gc.collect()  # asyncio logs the exception of a task when the task is freed
    records = caplog.get_records("call") + caplog.get_records("teardown")
    assert [record.getMessage() for record in records if record.levelno >= logging.ERROR] == []


def block(language: str, number: int = 0) -> str:
    return str([text for name, text in BLOCKS if name == language][number])


def replaced(text: str, replacements: Replacements) -> str:
    for old, new in replacements.items():
        assert old in text, f"docs/deploy.md has no {old!r}"
        text = text.replace(old, new)
    return text


def abort(peer: RawPeer) -> None:
    """Aborts the connection: the closing exchange of TLS would fail if data still arrives."""
    peer.writer.transport.abort()


# The proxies.


class Public:
    """The public side of a proxy, with ways to connect to it."""

    def __init__(self, port: int, context: ssl.SSLContext, folder: Path) -> None:
        self.port = port
        self.context = context
        self.folder = folder
        self.authority = f"localhost:{port}"

    def connect(self, path: str, **options: Any) -> connect:
        return connect(f"wss://{self.authority}{path}", ssl_context=self.context, **options)

    async def open_raw(self, address: str = CLIENT) -> RawPeer:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1",
            self.port,
            ssl=self.context,
            server_hostname="localhost",
            local_addr=(address, 0),
        )
        return RawPeer(reader, writer)

    async def upgrade(self, path: str, headers: Sequence[tuple[str, str]] = ()) -> RawPeer:
        peer = await self.open_raw()
        peer.writer.write(ClientHandshake(self.authority, path, headers=headers).data_to_send())
        async with asyncio.timeout(PATIENCE):
            head = await peer.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        return peer

    async def get(
        self, target: str, headers: Sequence[tuple[str, str]] = (), address: str = CLIENT
    ) -> tuple[int, str]:
        """Sends an HTTP request; returns the status and the body of the response."""
        peer = await self.open_raw(address)
        fields = [("Host", self.authority), ("Connection", "close"), *headers]
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
        peer.writer.write("\r\n".join([*lines, "", ""]).encode())
        head, _, body = (await peer.read_to_end()).decode().partition("\r\n\r\n")
        abort(peer)
        return int(head.split()[1]), body


@asynccontextmanager
async def running_proxy(
    folder: Path, certificate: Certificate, start: Callable[[int], subprocess.Popen[bytes]]
) -> AsyncIterator[Public]:
    """Runs a proxy at a free port. Tries again if another process takes the port first."""
    for _ in range(5):
        port = free_port()
        process = start(port)
        try:
            await until(lambda: process.poll() is not None or listens(port))  # noqa: B023 - it is called at once
            if process.poll() is None:
                yield Public(port, certificate.client_context(), folder)
                return
        finally:
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    pytest.fail(f"the proxy does not start: {(folder / 'proxy.log').read_text()}")


@asynccontextmanager
async def running_nginx(
    folder: Path, certificate: Certificate, servers: Sequence[str], changes: Replacements
) -> AsyncIterator[Public]:
    program = find_program("nginx", "/usr/sbin/nginx")
    need("nginx", program is not None)
    spooled = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    common = {
        "user www-data;": f"user {pwd.getpwuid(os.getuid()).pw_name} {grp.getgrgid(os.getgid()).gr_name};",
        "http {": "http {\n" + "".join(f"{name}_temp_path {folder};\n" for name in spooled),
        "/etc/ssl/chat.example/fullchain.pem": str(certificate.certificate),
        "/etc/ssl/chat.example/privkey.pem": str(certificate.key),
        "/var/log/nginx": str(folder),
        "server 127.0.0.1:8765;": "\n".join(f"server {address};" for address in servers),
        **changes,
    }

    def start(port: int) -> subprocess.Popen[bytes]:
        file, log = folder / "nginx.conf", folder / "proxy.log"
        file.write_text(replaced(block("nginx"), {**common, "listen 443 ": f"listen 127.0.0.1:{port} "}))
        settings = f"daemon off; pid {folder}/nginx.pid;"
        return subprocess.Popen([str(program), "-e", str(log), "-c", str(file), "-g", settings])

    async with running_proxy(folder, certificate, start) as public:
        yield public


@asynccontextmanager
async def running_haproxy(
    folder: Path, certificate: Certificate, servers: Sequence[str], changes: Replacements
) -> AsyncIterator[Public]:
    program = find_program("haproxy", "/usr/sbin/haproxy")
    need("haproxy", program is not None)
    both = folder / "both.pem"
    both.write_text(certificate.certificate.read_text() + certificate.key.read_text())
    one, two = servers if len(servers) == 2 else (servers[0], "")
    common = {
        "user haproxy": f"user {pwd.getpwuid(os.getuid()).pw_name}",
        "group haproxy": f"group {grp.getgrgid(os.getgid()).gr_name}",
        "maxconn 20000": "maxconn 1000",  # it needs file descriptors for all of them to start
        "/run/haproxy/admin.sock": str(folder / "admin"),
        "/etc/haproxy/chat.example.pem": str(both),
        "server one 127.0.0.1:8765\n": f"server one {one}\n",
        "    server two 127.0.0.1:8766\n": f"    server two {two}\n" if two else "",
        **changes,
    }

    def start(port: int) -> subprocess.Popen[bytes]:
        file = folder / "haproxy.cfg"
        file.write_text(replaced(block("haproxy"), {**common, "bind :443 ": f"bind 127.0.0.1:{port} "}))
        with (folder / "proxy.log").open("wb") as log:
            return subprocess.Popen([str(program), "-db", "-f", str(file)], stdout=log, stderr=log)

    async with running_proxy(folder, certificate, start) as public:
        yield public


async def haproxy_servers(public: Public) -> dict[str, dict[str, str]]:
    """Returns HAProxy's statistics of the servers behind it."""
    path = public.folder / "admin"
    await until(path.exists)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"show stat\n")
    rows = csv.DictReader((await reader.read()).decode().removeprefix("# ").splitlines())
    writer.close()
    await writer.wait_closed()
    return {row["svname"]: row for row in rows if row["svname"] in ("one", "two")}


# The server behind a proxy.


class Setup(NamedTuple):
    """A kind of proxy, and how the server listens for it."""

    kind: str
    folder: Path
    certificate: Certificate

    @asynccontextmanager
    async def serving(
        self, changes: Replacements | None = None, **options: Any
    ) -> AsyncIterator[tuple[Server, Public]]:
        """Runs the command's server behind the proxy; ``/who`` and ``/whose`` send the client's address."""
        over_unix = self.kind == "nginx over a Unix socket"
        server = make_server(trusted=["unix" if over_unix else "127.0.0.1"], **options)

        @server.websocket("/who")
        async def who(ws: WebSocket) -> None:
            await ws.send(ws.address)

        @server.http("/whose")
        async def whose(request: HttpRequest) -> HttpResponse:
            return HttpResponse(request.address.encode())

        if over_unix:
            await server.listen(Endpoint(path=str(self.folder / "s")))
            address = f"unix:{self.folder / 's'}"
        else:
            await server.listen(Endpoint("127.0.0.1", proxy_protocol=self.kind == "HAProxy"))
            address = f"127.0.0.1:{server.port}"
        running = running_haproxy if self.kind == "HAProxy" else running_nginx
        try:
            async with running(self.folder, self.certificate, [address], changes or {}) as public:
                yield server, public
        finally:
            await server.stop()


@pytest.fixture(params=["nginx", "nginx over a Unix socket", "HAProxy"])
def setup(request: pytest.FixtureRequest, tmp_path: Path, certificate: Certificate) -> Setup:
    return Setup(str(request.param), tmp_path, certificate)


async def test_messages_both_ways(setup: Setup) -> None:
    async with setup.serving() as (_, public), public.connect("/echo") as ws:
        for message in ("Grüße", bytes(range(256)) * 4096, "", "x" * 70_000):
            await ws.send(message)
            assert await ws.recv() == message
        assert await ws.ping() > 0


async def test_proxies_leave_compression_to_the_server(setup: Setup) -> None:
    deflate = PerMessageDeflate()
    async with (
        setup.serving(compression=deflate) as (server, public),
        public.connect("/echo", compression=deflate) as ws,
    ):
        await ws.send("x" * 500_000)
        assert await ws.recv() == "x" * 500_000
        assert server.stats.bytes_out < 50_000


async def test_a_room(setup: Setup) -> None:
    async with (
        setup.serving() as (server, public),
        public.connect("/rooms/x") as a,
        public.connect("/rooms/x") as b,
        public.connect("/rooms/y") as c,
    ):
        await until(lambda: len(server.rooms) == 2 and len(server.rooms["x"]) == 2)
        await c.send("elsewhere")
        await a.send("hello")
        assert await b.recv() == "hello"
        await b.send("you, too")
        assert await a.recv() == "you, too"


async def test_the_origin_must_be_the_public_one(setup: Setup) -> None:
    async with setup.serving() as (_, public):
        async with public.connect("/echo", origin=f"https://{public.authority}") as ws:
            await ws.send("x")
            assert await ws.recv() == "x"
        for origin in ("https://evil.example", "https://localhost", "http://127.0.0.1:8765"):
            with pytest.raises(HandshakeRejectedError) as caught:
                await public.connect("/echo", origin=origin)
            assert caught.value.response.status == 403


async def test_a_client_cannot_forge_its_address(setup: Setup) -> None:
    async with setup.serving() as (_, public):
        for forged in ([], [FORGED], [f"{FORGED}, 127.0.0.1"], ["127.0.0.1"], [FORGED, "unix"]):
            headers = [("X-Forwarded-For", value) for value in forged]
            peer = await public.upgrade("/who", headers)
            assert await peer.read(2 + len(CLIENT)) == b"\x81\x09" + CLIENT.encode()
            abort(peer)
            assert await public.get("/whose", headers) == (200, CLIENT)
            assert await public.get("/whose", headers, "127.0.0.3") == (200, "127.0.0.3")


async def test_limits_by_address_apply_to_the_client(setup: Setup) -> None:
    async with setup.serving(max_connections_per_address=2) as (_, public):
        peers = [await public.upgrade("/echo") for _ in range(2)]
        third = await public.open_raw()
        third.writer.write(ClientHandshake(public.authority, "/echo").data_to_send())
        async with asyncio.timeout(PATIENCE):
            assert (await third.reader.readline()).startswith(b"HTTP/1.1 429 ")
        async with public.connect("/echo") as other:
            await other.send("x")
            assert await other.recv() == "x"
        for peer in (*peers, third):
            abort(peer)


async def test_pages(setup: Setup) -> None:
    async with setup.serving() as (_, public):
        status, page = await public.get("/")
        assert status == 200
        assert "<!doctype html>" in page.lower()
        assert await public.get("/healthz") == (200, "ok\n")
        assert await public.get("/readyz") == (200, "ready\n")
        assert (await public.get("/nothing"))[0] == 404


async def test_metrics_are_not_public(setup: Setup) -> None:
    async with setup.serving() as (_, public):
        absolute = f"https://{public.authority}/metrics"
        for target in (
            "/metrics",
            "/metrics?x",
            "/%6detrics",
            "//metrics",
            "/metrics/",
            "/x/../metrics",
            absolute,
        ):
            status, body = await public.get(target)
            assert status == 404
            assert "rfc6455" not in body


async def test_pings_keep_an_idle_connection(setup: Setup) -> None:
    old = "timeout tunnel 60s" if setup.kind == "HAProxy" else "proxy_read_timeout 60s"
    changes = {old: old.replace("60s", "2s")}
    async with setup.serving(changes, ping_interval=0.2) as (server, public), public.connect("/echo") as ws:
        await until(lambda: sum(server.stats.latency.counts) > 12)  # for 2.4 s at least
        await ws.send("still here")
        assert await ws.recv() == "still here"


async def test_without_pings_the_proxy_closes_an_idle_connection(setup: Setup) -> None:
    """Without this, the test above would prove nothing."""
    old = "timeout tunnel 60s" if setup.kind == "HAProxy" else "proxy_read_timeout 60s"
    changes = {old: old.replace("60s", "2s")}
    async with setup.serving(changes, ping_interval=1000) as (_, public):
        ws = await public.connect("/echo", limits={"ping_interval": 1000})
        with pytest.raises(ConnectionClosedError):
            async with asyncio.timeout(PATIENCE):
                await ws.recv()


async def test_a_proxy_buffers_little_for_a_client_that_does_not_read(setup: Setup) -> None:
    """Without the configured send buffer, the proxy would buffer 4.4 MB or more.

    Up to 2 MB can be on the way between server and proxy, depending on the system.
    """
    async with setup.serving(max_queue=1 << 30) as (server, public):
        peer = await public.upgrade("/rooms/x")
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it reads, too
        await until(lambda: len(server.rooms) == 1)
        sent, quiet = 0, 0
        async with public.connect("/echo") as other:
            while quiet < 200:  # the proxy has served another, and taken nothing for this one
                if server.queued < 200_000:
                    server.rooms["x"].broadcast(bytes(10_000))
                    sent, quiet = sent + 10_000, 0
                else:
                    quiet += 1
                await send_and_receive(other)
        assert sent - server.queued < 4_200_000
        abort(peer)


async def test_the_log_of_nginx_has_no_query(tmp_path: Path, certificate: Certificate) -> None:
    async with Setup("nginx", tmp_path, certificate).serving() as (_, public):
        async with public.connect("/echo?access_token=secret") as ws:
            await ws.send("x")
            await ws.recv()
        file = tmp_path / "access.log"
        await until(lambda: "GET /echo 101" in file.read_text())
        assert "secret" not in file.read_text()


# Several servers, and one that drains.


class Process(NamedTuple):
    """A running command."""

    process: subprocess.Popen[str]
    address: str


@contextmanager
def two_commands(*arguments: str) -> Iterator[dict[str, Process]]:
    arguments += ("--log-level", "warning")  # the log is read only at the end
    with running_command(*arguments) as (one, first), running_command(*arguments) as (two, second):
        yield {
            "one": Process(one, first.removeprefix("http://")),
            "two": Process(two, second.removeprefix("http://")),
        }
        for process in (one, two):
            if process.poll() is None:
                process.terminate()
                process.send_signal(signal.SIGINT)  # the second signal: a drain may take ten minutes here
            errors = process.communicate(timeout=30)[1]
            assert "Traceback" not in errors, errors


async def send_and_receive(ws: WebSocket) -> None:
    await ws.send("hello")
    assert await ws.recv() == "hello"


async def test_haproxy_stops_using_a_process_that_drains(tmp_path: Path, certificate: Certificate) -> None:
    with two_commands("--trust", "127.0.0.1", "--proxy-protocol", "--drain-time", "600") as commands:
        addresses = [command.address for command in commands.values()]
        async with running_haproxy(tmp_path, certificate, addresses, {}) as public:

            async def states() -> dict[str, tuple[str, ...]]:
                fields = ("status", "check_status", "check_code")
                servers = await haproxy_servers(public)
                return {name: tuple(row[field] for field in fields) for name, row in servers.items()}

            async def both_are_up() -> bool:
                return set((await states()).values()) == {("UP", "L7OK", "200")}

            await until(both_are_up)
            sockets = [await public.connect("/echo") for _ in range(6)]
            servers = await haproxy_servers(public)
            (busy,) = [name for name, row in servers.items() if int(row["scur"]) >= 6]
            commands[busy].process.send_signal(signal.SIGTERM)
            await until(lambda: sum(ws.closed is not None for ws in sockets) == 1)
            # New connections reach the other process, before HAProxy has noticed and afterwards.
            async with asyncio.timeout(PATIENCE):
                while (await states())[busy] != ("DOWN", "L7STS", "503"):
                    async with public.connect("/echo") as ws:
                        await send_and_receive(ws)
            async with public.connect("/echo") as ws:
                await send_and_receive(ws)
            assert await public.get("/readyz") == (200, "ready\n")
            # Open WebSockets stay until the process closes them.
            left = [ws for ws in sockets if ws.closed is None]
            assert len(left) == 5
            for ws in left:
                await send_and_receive(ws)
            commands[busy].process.send_signal(signal.SIGTERM)
            for ws in sockets:
                await ws.wait_closed()
            async with public.connect("/echo") as ws:
                await send_and_receive(ws)


async def test_nginx_retries_at_the_next_process(tmp_path: Path, certificate: Certificate) -> None:
    with two_commands("--trust", "127.0.0.1", "--drain-time", "600") as commands:
        addresses = [command.address for command in commands.values()]
        first = commands["one"]
        async with running_nginx(tmp_path, certificate, addresses, {}) as public:

            async def try_twenty_paths() -> None:
                for number in range(20):
                    async with public.connect(f"/rooms/{number}") as ws:
                        assert await ws.ping() > 0

            await try_twenty_paths()
            held = await connect(f"ws://{first.address}/echo")  # shows when the drain has begun
            await send_and_receive(held)
            first.process.send_signal(signal.SIGTERM)
            await held.wait_closed()
            with pytest.raises(HandshakeRejectedError) as caught:
                await connect(f"ws://{first.address}/echo")
            assert caught.value.response.status == 503
            await try_twenty_paths()
            first.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(first.process.wait, 20)
            await try_twenty_paths()


@pytest.mark.parametrize("kind", ["nginx", "HAProxy"])
async def test_a_room_is_in_one_process(kind: str, tmp_path: Path, certificate: Certificate) -> None:
    running, arguments = (running_haproxy, ["--proxy-protocol"]) if kind == "HAProxy" else (running_nginx, [])
    with two_commands("--trust", "127.0.0.1", *arguments) as commands:
        addresses = [command.address for command in commands.values()]
        async with running(tmp_path, certificate, addresses, {}) as public:
            for number in range(10):
                path = f"/rooms/{number}"
                async with public.connect(path) as a, public.connect(path) as b, public.connect(path) as c:
                    await c.ping()  # it has joined
                    await b.ping()
                    await a.send("hello")
                    async with asyncio.timeout(PATIENCE):
                        assert [await b.recv(), await c.recv()] == ["hello", "hello"]


# Socket.IO on several processes: docs/socketio.md.

CHATS = 32
PROGRAM = f"""
import os, sys
from rfc6455_server.command import cli
from rfc6455_server.socketio import SocketIO

def chat(path):
    io = SocketIO(path=path, recovery=120)
    io.on("connect")(lambda socket: socket.join("lobby"))
    io.on("where")(lambda socket: os.getpid())
    io.on("say")(lambda socket, text: socket.to("lobby").emit("said", text))
    return io

make_server = cli.make_server

def make_server_with_chats(**options):
    server = make_server(**options)
    for number in range({CHATS}):
        server.mount(chat(f"/chats/{{number}}/"))
    server.mount(chat("/socket.io/"))
    return server

cli.make_server = make_server_with_chats
sys.exit(cli.main())
"""
"""The command's server with chats at several paths, which say in which process they run."""


class Chatters:
    """Official Socket.IO clients behind a proxy: one polls, one has a WebSocket, and one upgrades."""

    OPTIONS: ClassVar[dict[str, dict[str, object]]] = {
        "polls": {"transports": ["polling"]},
        "websocket": {"transports": ["websocket"]},
        "upgrades": {},
    }

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, public: Public, certificate: Certificate, path: str = "/socket.io/"
    ) -> AsyncIterator["Chatters"]:
        node = find_program("node")
        script = ROOT / "tests" / "node" / "chatters.js"
        need("Node", node is not None and (script.parent / "node_modules" / "socket.io-client").exists())
        process = await asyncio.create_subprocess_exec(
            *(str(node), str(script), f"https://{public.authority}"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "NODE_EXTRA_CA_CERTS": str(certificate.certificate)},
        )
        try:
            chatters = cls(process)
            for name, options in cls.OPTIONS.items():
                await chatters.ask(name, "open", {**options, "path": path})
            yield chatters
        finally:
            process.kill()
            await process.wait()

    async def ask(self, *command: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        async with asyncio.timeout(PATIENCE):
            return json.loads(await self._process.stdout.readline())["answer"]

    async def ids(self) -> set[str | None]:
        return {await self.ask(name, "id") for name in self.OPTIONS}

    async def where(self) -> set[int | None]:
        """Returns the numbers of the processes that the clients are connected to."""
        return {await self.ask(name, "call", "where") for name in self.OPTIONS}

    async def is_in(self, process: Process, name: str) -> bool:
        where: int | None = await self.ask(name, "call", "where")
        return where == process.process.pid

    async def are_in(self, process: Process) -> bool:
        return await self.where() == {process.process.pid}

    async def hear_each_other(self, text: str) -> None:
        for name in self.OPTIONS:
            await self.ask(name, "heard")
        for name in self.OPTIONS:
            await self.ask(name, "call", "say", text)
        for name in self.OPTIONS:
            await self.ask(name, "call", "where")  # what was sent before has arrived
            assert await self.ask(name, "heard") == [text] * (len(self.OPTIONS) - 1)


@contextmanager
def chats(kind: str, *arguments: str) -> Iterator[Process]:
    arguments += ("--no-pages", "--trust", "127.0.0.1", "--log-level", "error")
    arguments += ("--proxy-protocol",) if kind == "HAProxy" else ()
    with running_command(*arguments, program=("-c", PROGRAM)) as (process, url):
        yield Process(process, url.removeprefix("http://"))


@contextmanager
def two_chats(kind: str, *arguments: str) -> Iterator[list[Process]]:
    with chats(kind, *arguments) as one, chats(kind, *arguments) as two:
        yield [one, two]


@asynccontextmanager
async def chatters_before(
    processes: list[Process], kind: str, tmp_path: Path, certificate: Certificate
) -> AsyncIterator[tuple[Chatters, Process, Process]]:
    """Runs a proxy before two processes; yields its clients, the process they are in, and the other one."""
    running = running_haproxy if kind == "HAProxy" else running_nginx
    addresses = [process.address for process in processes]
    async with (
        running(tmp_path, certificate, addresses, {}) as public,
        Chatters.opened(public, certificate) as clients,
    ):
        (where,) = await clients.where()
        first, second = sorted(processes, key=lambda process: process.process.pid != where)
        yield clients, first, second


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("kind", ["nginx", "HAProxy"])
async def test_all_of_socketio_is_in_one_process_and_moves_together(
    kind: str, ending: signal.Signals, tmp_path: Path, certificate: Certificate
) -> None:
    with two_chats(kind, "--drain-time", "2") as processes:
        together = chatters_before(processes, kind, tmp_path, certificate)
        async with together as (clients, first, second):
            await clients.hear_each_other("hello")
            before = await clients.ids()
            first.process.send_signal(ending)
            await until(lambda: clients.are_in(second))
            assert not before & await clients.ids(), "recovered, from nothing"
            await clients.hear_each_other("here we are")
            await asyncio.to_thread(first.process.wait, 30)


@pytest.mark.parametrize("kind", ["nginx", "HAProxy"])
async def test_a_process_that_comes_back_divides_the_clients_until_the_other_one_drains(
    kind: str, tmp_path: Path, certificate: Certificate
) -> None:
    with ExitStack() as stack:
        processes = stack.enter_context(two_chats(kind))
        together = chatters_before(processes, kind, tmp_path, certificate)
        async with together as (clients, first, second):
            first.process.kill()
            await until(lambda: clients.are_in(second))
            back = stack.enter_context(chats(kind, "--port", first.address.rsplit(":", 1)[1]))
            # Clients that poll go back at once. Those that have a WebSocket stay, and no longer meet them.
            await until(lambda: clients.is_in(back, "polls"))
            assert await clients.is_in(second, "websocket")
            assert await clients.is_in(second, "upgrades")

            async def are_apart() -> bool:
                await clients.ask("polls", "heard")
                await clients.ask("websocket", "call", "say", "is anybody there?")
                return await clients.is_in(back, "polls") and await clients.ask("polls", "heard") == []

            # Not at once: each of nginx's workers has yet to notice that the process is back.
            await until(are_apart)
            second.process.terminate()
            await until(lambda: clients.are_in(back))
            await clients.hear_each_other("all together")


@pytest.mark.parametrize("kind", ["nginx", "HAProxy"])
async def test_applications_at_several_paths_are_spread_over_the_processes(
    kind: str, tmp_path: Path, certificate: Certificate
) -> None:
    running = running_haproxy if kind == "HAProxy" else running_nginx
    with two_chats(kind) as processes:
        addresses = [process.address for process in processes]
        used: set[int | None] = set()
        async with running(tmp_path, certificate, addresses, {}) as public:
            for number in range(CHATS):  # after a few, both processes are in use
                if len(used) == len(processes):
                    break
                async with Chatters.opened(public, certificate, f"/chats/{number}/") as clients:
                    where = await clients.where()
                    assert len(where) == 1
                    used |= where
                    await clients.hear_each_other("hello")
        assert used == {process.process.pid for process in processes}


# The other parts of the page.


def test_the_page_has_the_expected_blocks() -> None:
    assert [language for language, _ in BLOCKS] == ["sh", "sh", "python", "nginx", "haproxy", "ini", "ini"]
    assert DOCUMENT.count("```") == 2 * len(BLOCKS)


def test_the_commands_are_valid(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(COMMANDS) == 5
    for name in [name for name in os.environ if name.startswith("RFC6455_")]:
        monkeypatch.delenv(name)
    for command in COMMANDS:
        files = {"fullchain.pem": str(certificate.certificate), "privkey.pem": str(certificate.key)}
        options = _parse([files.get(word, word) for word in shlex.split(command)])
        for endpoint in make_endpoints(options):
            assert endpoint.path or endpoint.port in (443, 8765)


def test_the_options_on_the_page_exist() -> None:
    shown = ""
    for page in ("--help", "--help-limits"):
        command = [sys.executable, "-m", "rfc6455_server", page]
        shown += subprocess.run(command, capture_output=True, text=True, check=True).stdout
    exiting = {"--help", "--help-limits", "--check", "--version"}
    for option in set(re.findall(r"--[a-z][a-z-]+", DOCUMENT)) - exiting:
        assert f"  {option} " in shown, option


async def test_the_server_program_runs() -> None:
    ports = [free_port(), free_port()]
    text = replaced(block("python"), {"8765": str(ports[0]), "9100": str(ports[1])})
    process = subprocess.Popen([sys.executable, "-c", text], stderr=subprocess.PIPE)  # noqa: ASYNC220 - starting it does not block
    try:
        await until(lambda: process.poll() is not None or listens(ports[1]))
        monitor = await RawPeer.connect(f"ws://127.0.0.1:{ports[1]}")
        monitor.writer.write(b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert b"\nrfc6455_connections 0.0\n" in await monitor.read_to_end()
        await monitor.close()
        peer = await RawPeer.connect(f"ws://127.0.0.1:{ports[0]}")
        addresses = socket.inet_aton(FORGED) + socket.inet_aton("127.0.0.1") + bytes(4)
        peer.writer.write(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + addresses)
        peer.writer.write(ClientHandshake("h", "/echo").data_to_send())
        assert (await peer.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        await peer.close()
    finally:
        process.terminate()
        _, log = await asyncio.to_thread(process.communicate, timeout=30)
    assert process.returncode == 0
    assert f"address={FORGED}" in log.decode()


class Unit:
    """The systemd units of the page."""

    def __init__(self) -> None:
        parser = configparser.ConfigParser(interpolation=None)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        for number in range(2):
            parser.read_string(block("ini", number))
        self.service = parser["Service"]
        self.socket = parser["Socket"]


async def test_the_socket_of_the_unit_is_open_to_its_group_only(
    tmp_path: Path, certificate: Certificate
) -> None:
    service = Unit().service
    path = tmp_path / "socket"
    command = shlex.split(replaced(service["ExecStart"], {"/run/rfc6455/socket": str(path)}))
    process = subprocess.Popen(  # noqa: ASYNC220 - starting it does not block
        [sys.executable, "-m", "rfc6455_server", *command[1:]],
        umask=int(service["UMask"], 8),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = await asyncio.to_thread(process.stdout.readline)
        assert line == f"serving on unix:{path}\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o770
        async with running_nginx(tmp_path, certificate, [f"unix:{path}"], {}) as public:
            peer = await public.upgrade("/echo", [("X-Forwarded-For", FORGED)])
            process.send_signal(getattr(signal, service["KillSignal"]))
            assert (await peer.read(4))[2:] == (1001).to_bytes(2, "big")
            abort(peer)
            _, log = await asyncio.to_thread(process.communicate, timeout=30)
        assert process.returncode == 0
        assert f'"address": "{CLIENT}"' in log
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


async def test_the_unit_is_notified_reloads_and_has_a_watchdog(
    tmp_path: Path, manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Unit().service
    assert (service["Type"], service["ExecReload"]) == ("notify", "/bin/kill -HUP $MAINPID")
    assert float(service["WatchdogSec"]) < float(service["TimeoutStopSec"])
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", str(int(float(service["WatchdogSec"]) * 1e6)))
    with running_command("--trust", "127.0.0.1") as (process, _):
        heard: list[str] = []

        def has_reloaded() -> bool:
            heard.extend(said(manager))
            return heard.count("READY=1") == 2

        process.send_signal(signal.SIGHUP)
        await until(has_reloaded)
        assert heard[:2] == ["READY=1", "WATCHDOG=1"]
        process.terminate()


def test_the_socket_of_the_page_is_passed_on() -> None:
    units, folder = Unit(), tempfile.mkdtemp()  # a short path
    command = shlex.split(units.service["ExecStart"])[1:]
    at = command.index("--listen")
    del command[at : at + 2]
    assert "no `--listen` then" in DOCUMENT
    path = Path(folder, Path(units.socket["ListenStream"]).name)
    listening = socket.socket(socket.AF_UNIX)
    with listening:
        listening.bind(str(path))
        listening.listen(int(units.socket["Backlog"]))
        path.chmod(int(units.socket["SocketMode"], 8))
        with activated(listening, "--drain-time=0", *command) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == f"serving on unix:{path}\n"
            with socket.socket(socket.AF_UNIX) as peer:
                peer.settimeout(PATIENCE)
                peer.connect(str(path))
                peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                answer = b""
                while piece := peer.recv(1000):
                    answer += piece
            assert answer.endswith(b"\r\n\r\nok\n")
            process.terminate()
            assert process.wait(PATIENCE) == 0
    assert path.is_socket()
    shutil.rmtree(folder)


def test_the_unit_has_enough_time_and_file_descriptors() -> None:
    service = Unit().service
    close_time = Limits().close_timeout + LINGER_TIMEOUT
    assert f"the drain time ({DRAIN_TIME:g} s) plus {close_time:g} s for" in DOCUMENT
    assert f"{2 * STOP_TIMEOUT:g} s for handlers of Socket.IO, {CANCEL_TIMEOUT:g} s for others" in DOCUMENT
    assert f"and {END_TIME:g} s for tasks and threads" in DOCUMENT
    longest = DRAIN_TIME + close_time + 2 * STOP_TIMEOUT + CANCEL_TIMEOUT + END_TIME
    assert int(service["TimeoutStopSec"]) > longest
    assert int(service["LimitNOFILE"]) > 2 * Limits().max_connections


def test_pings_are_more_frequent_than_the_timeouts_of_the_proxies() -> None:
    limits = Limits()
    for text, name in ((block("nginx"), "proxy_read_timeout"), (block("haproxy"), "timeout tunnel")):
        found = re.search(rf"{name} (\d+)s", text)
        assert found is not None
        assert int(found[1]) > 2 * limits.ping_interval
    assert f"a Ping every {limits.ping_interval:g} s" in DOCUMENT
    assert f"within {limits.ping_timeout:g} s" in DOCUMENT
    found = re.search(r"inter (\d+)s fall (\d+)", block("haproxy"))
    assert found is not None
    assert int(found[1]) * int(found[2]) < DRAIN_TIME
