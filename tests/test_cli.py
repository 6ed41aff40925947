import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from rfc6455 import ConnectionClosed
from rfc6455_server import connect
from rfc6455_server.cli import main, make_server
from tests.server_helpers import running_command, serving


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_serves_until_a_signal_and_says_1001(number: signal.Signals) -> None:
    with running_command() as (process, url):
        ws = await connect(url.replace("http", "ws") + "/echo")
        await ws.send("x")
        assert await ws.recv() == "x"
        process.send_signal(number)
        await ws.wait_closed()
        assert ws.closed == ConnectionClosed(1001, "the server stops", True)
        output, errors = process.communicate(timeout=20)
        assert process.returncode == 0
        assert output == ""
        assert "stopping signal=" in errors
        assert errors.count("connection closed") == 1


def test_the_first_page() -> None:
    with running_command() as (_, url):
        for path, content_type in [
            ("/", "text/html"),
            ("/chat.js", "text/javascript"),
            ("/chat.css", "text/css"),
        ]:
            with urllib.request.urlopen(url + path) as answer:
                assert answer.status == 200
                assert answer.headers.get_content_type() == content_type
                assert answer.read()


async def test_the_size_limit() -> None:
    with running_command("--max-message-size", "10") as (_, url):
        ws = await connect(url.replace("http", "ws") + "/echo")
        await ws.send("x" * 11)
        await ws.wait_closed()
        assert ws.closed is not None
        assert ws.closed.code == 1009


async def test_rooms() -> None:
    async with (
        serving(make_server()) as url,
        connect(url + "/rooms/a") as one,
        connect(url + "/rooms/a") as two,
    ):
        await two.ping()
        await one.send("hello")
        assert await two.recv() == "hello"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "x"],
        ["--port", "-1"],
        ["--port", "65536"],
        ["--max-message-size", "0"],
        ["--other"],
        ["extra"],
        ["--host"],
        ["--max-message-size", "1.5"],
    ],
)
def test_wrong_options_are_one_line_and_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("rfc6455-server: ")
    assert err.count("\n") == 1


def test_an_address_that_is_not_to_be_had(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["--port", str(taken.getsockname()[1])]) == 2
    err = capsys.readouterr().err
    assert err.startswith("rfc6455-server: cannot listen on 127.0.0.1:")
    assert err.count("\n") == 1


def test_help_fits_a_screen() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rfc6455_server", "--help"], capture_output=True, text=True, check=True
    )
    assert done.stdout.count("\n") < 24
    assert max(map(len, done.stdout.splitlines())) <= 80
    for option in ("--host", "--port", "--max-message-size"):
        assert option in done.stdout
