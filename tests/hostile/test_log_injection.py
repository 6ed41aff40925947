"""Text of peers in the log and on the terminal."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from rfc6455_server import Endpoint, HttpRequest, HttpResponse, Server, WebSocket
from rfc6455_server.logs import JsonFormatter, TextFormatter, logger
from rfc6455_server.testing import TestClient, settle
from tests.hostile.flaws import flaw
from tests.server_helpers import RawPeer, Recorder, serving, until

EVIL = (
    "\r\n2026-01-01 00:00:00,000 INFO all is well\x1b[2J\x1b]0;title\x07\x08\x00\x7f\x85\x9b31m"
    "\u2028\u2029\u202e\u2066"
)


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    """What handlers with a formatter of the standard library, and with ours, write."""
    stream = io.StringIO()
    handlers = [logging.StreamHandler(stream) for _ in range(3)]
    for handler, formatter in zip(
        handlers, (logging.Formatter("%(message)s"), TextFormatter(), JsonFormatter()), strict=True
    ):
        handler.setFormatter(formatter)
        logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    yield stream
    logger.setLevel(level)
    for handler in handlers:
        logger.removeHandler(handler)


def check(text: str) -> None:
    """Asserts that nothing of `EVIL` has an effect: no control character, and no line of its own."""
    assert "all is well" in text  # it is there, escaped
    for line in text.split("\n"):
        assert line.isprintable(), ascii(line)
        assert not line.startswith("2026-01-01 00:00:00,000 INFO all is well")


@flaw(
    "found here",
    what="gets a surrogate, which JSON can escape, into the message of an exception: a log file in UTF-8 "
    "took none, and the record was lost",
    here="escaped as control characters are",
)
async def test_a_surrogate_in_an_exception() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), "utf-8")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter())
    lost: list[logging.LogRecord] = []
    handler.handleError = lost.append  # type: ignore[method-assign,assignment]
    logger.addHandler(handler)
    server = Server()

    @server.websocket("/")
    async def ask(ws: WebSocket) -> None:
        raise ValueError(json.loads(str(await ws.recv())))

    try:
        async with TestClient(server) as client:
            ws = await client.connect("/")
            await ws.send(r'"\ud800"')
            await ws.wait_closed()
    finally:
        logger.removeHandler(handler)
    assert not lost
    stream.seek(0)
    assert r"ValueError: \ud800" in stream.read()


@flaw(
    "CVE-2020-7694",
    "found here",
    what="gets CR, LF and ESC into the message of an exception (a traceback showed it raw): it forges lines"
    " of the log, and controls the terminal that shows them",
    here="escaped, in one line, in text and JSON, and by the formatters of others",
)
@pytest.mark.parametrize("kind", ["plain", "cause", "context", "group", "note", "name"])
async def test_the_message_of_an_exception(kind: str, output: io.StringIO) -> None:
    server = Server()

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        text = str(await ws.recv())
        if kind == "plain":
            raise ValueError(text)
        if kind == "cause":
            raise RuntimeError from ValueError(text)
        if kind == "group":
            raise ExceptionGroup("several", [ValueError(text)])
        if kind == "note":
            error = ValueError("x")
            error.add_note(text)
            raise error
        if kind == "name":
            raise KeyError(text)
        try:
            raise ValueError(text)
        except ValueError:
            raise TypeError("x")  # noqa: B904 - a context, and no cause

    async with TestClient(server) as client:
        ws = await client.connect("/")
        await ws.send(EVIL)
        await settle()
    check(output.getvalue())
    assert output.getvalue().count("Traceback") >= 3


@flaw(
    "CVE-2020-7694",
    what="gets CR, LF and ESC into the log by a path, a reason, an address or a name",
    here="escaped",
)
async def test_fields_of_the_log(output: io.StringIO) -> None:
    server = Server(trusted=["192.0.2.1"])

    @server.http("/fails")
    async def handler(request: HttpRequest) -> HttpResponse:
        raise ValueError(request.head.headers["X-Text"])

    @server.websocket("/{name}")
    async def room(ws: WebSocket, name: str) -> None:
        await ws.wait_closed()

    latin = EVIL.encode("latin-1", "ignore").replace(b"\r\n", b"").translate(None, b"\x00\x07\x08\x1b\x7f")
    async with TestClient(server) as client:
        ws = await client.connect("/%0d%0a%1b[31m")
        await ws.close(1000, EVIL[:40])
        peer = Recorder(client.clock)
        head = b"GET /fails HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: %b\r\nX-Text: %b\r\n\r\n"
        client.open(peer).write(head % (latin, latin))
        await settle()
        assert peer.received.startswith(b"HTTP/1.1 500 ")
    check(output.getvalue())


@flaw(
    "CVE-2020-7694",
    what="sends another thing than TLS, or than a PROXY header, and is quoted by the reason",
    here="escaped; the reason does not quote it",
)
async def test_a_connection_that_fails_before_its_request(output: io.StringIO) -> None:
    server = Server(trusted=["127.0.0.1"])
    await server.listen(Endpoint("127.0.0.1", proxy_protocol=True))
    peer = await RawPeer.connect(f"ws://127.0.0.1:{server.port}")
    peer.writer.write(EVIL.encode())
    await until(lambda: "not a PROXY header" in output.getvalue())
    await peer.close()
    await server.stop()
    assert all(line.isprintable() for line in output.getvalue().split("\n"))
    assert "all is well" not in output.getvalue()


@flaw(
    "CVE-2020-7694",
    what="puts a token into the query or a field, and reads it in the log",
    here="neither queries nor fields are logged",
)
async def test_secrets_are_not_logged(output: io.StringIO) -> None:
    server = Server()

    @server.http("/fails")
    async def handler(request: HttpRequest) -> HttpResponse:
        raise ValueError

    async with serving(server) as url:
        for path in ("/fails", "/none"):
            peer = await RawPeer.connect(url)
            request = f"GET {path}?access_token=s3cret HTTP/1.0\r\nAuthorization: Bearer s3cret\r\n\r\n"
            peer.writer.write(request.encode())
            await peer.read_to_end()
            await peer.close()
    assert "/fails" in output.getvalue()
    assert "/none" in output.getvalue()
    assert "s3cret" not in output.getvalue()


@flaw(
    "CVE-2020-7694",
    what="sends megabytes that an exception quotes, and so fills the disk",
    here="4,096 characters of a message are written, and how many more there were",
)
async def test_a_long_message_is_cut(output: io.StringIO) -> None:
    server = Server()

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        raise ValueError(await ws.recv())

    async with TestClient(server) as client:
        ws = await client.connect("/")
        await ws.send("\x1b" * 1_000_000)
        await settle()
    assert len(output.getvalue()) < 100_000
    assert output.getvalue().count("995904 more characters") == 3
    lines = [line for line in output.getvalue().split("\n") if line.startswith("{")]
    failed = next(entry for entry in map(json.loads, lines) if entry["event"] == "handler failed")
    assert "\nValueError: \\x1b" in failed["exception"]
