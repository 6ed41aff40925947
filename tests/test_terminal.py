import asyncio
import subprocess
import sys

import pytest

from rfc6455_server import Server, WebSocket
from rfc6455_server.command.terminal import chat, escape
from tests.server_helpers import PATIENCE, Certificate, all_closed, echo_server, serving


async def run(*arguments: str, lines: str = "") -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "rfc6455_server",
        "connect",
        *arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate(lines.encode())
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_lines_are_sent_and_messages_printed() -> None:
    async with serving(echo_server()) as url:
        status, out, err = await run(url + "/echo", lines="hello\n안녕\n")
    assert (status, out) == (0, "hello\n안녕\n")
    assert err == "connected; end the input to close\nclosed with 1000\n"


async def test_nothing_reaches_the_terminal_unescaped() -> None:
    server = Server()

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        await ws.send("\x1b[2Jred\n\x9b\u202e")
        await ws.send(bytes(range(40)))
        await ws.close(4000, "\x1b]0;title\x07")

    async with serving(server) as url:
        status, out, err = await run(url + "/", "--origin", url.replace("ws", "http"))
    assert status == 0
    assert out.splitlines()[0] == r"\x1b[2Jred\n\x9b\u202e"
    assert out.splitlines()[1].startswith("<40 bytes: 00 01 02")
    assert r"closed with 4000 \x1b]0;title\x07" in err


async def test_a_header_and_a_subprotocol() -> None:
    server = Server(subprotocols=["chat"])

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        assert ws.request is not None
        await ws.send(f"{ws.request.headers['X-Test']} {ws.subprotocol}")

    async with serving(server) as url:
        _, out, _ = await run(url + "/", "--header", "X-Test: yes", "--subprotocol", "chat")
    assert out == "yes chat\n"


async def test_tls(certificate: Certificate) -> None:
    server = echo_server()
    await server.start("127.0.0.1", 0, ssl_context=certificate.server_context())
    url = f"wss://localhost:{server.port}/echo"
    assert await run(url, "--ca", str(certificate.certificate), lines="x\n") == (
        0,
        "x\n",
        "connected; end the input to close\nclosed with 1000\n",
    )
    status, _, err = await run(url, lines="x\n")
    assert status == 2
    assert "certificate" in err
    await server.stop()
    await all_closed()


async def test_a_lost_connection_exits_with_1() -> None:
    server = Server()

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        ws.abort()

    async with serving(server) as url:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "rfc6455_server", "connect", url + "/"),
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            err = await process.stderr.read()
            assert await process.wait() == 1
        assert b"closed with 1006" in err
        process.stdin.close()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["http://127.0.0.1/"], "ws"),
        (["ws://127.0.0.1:1/"], "127.0.0.1"),
        (["ws://127.0.0.1/", "--header", "no value here"], "field name"),
        (["ws://127.0.0.1/", "--ca", "/none"], "No such file"),
    ],
)
def test_a_failed_connection_prints_one_line_and_exits_with_2(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chat(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("rfc6455-server connect: ")
    assert problem in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["ws://a/", "extra"], ["ws://a/", "--other"]])
def test_wrong_options(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        chat(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_escape() -> None:
    assert escape("plain 안녕 😀") == "plain 안녕 😀"
    assert escape("tab\there") == r"tab\there"
    assert escape(b"\x00\xff") == "<2 bytes: 00 ff>"
