import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from rfc6455 import ConnectionClosed, PerMessageDeflate, __version__
from rfc6455_server import Endpoint, Limits, Server, connect
from rfc6455_server.command import cli
from rfc6455_server.command.cli import main, make_server
from rfc6455_server.command.endpoints import make_endpoints
from rfc6455_server.command.limit_options import limits_help
from tests.server_helpers import PATIENCE, Certificate, running_command, serving


def status_of(arguments: list[str]) -> int:
    """Runs the command; returns its status."""
    try:
        return main(arguments)
    except SystemExit as error:
        return int(str(error.code))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_serves_until_a_signal_and_closes_with_1001(number: signal.Signals) -> None:
    with running_command() as (process, url):
        ws = await connect(url.replace("http", "ws") + "/echo")
        await ws.send("x")
        assert await ws.recv() == "x"
        process.send_signal(number)
        await ws.wait_closed()
        assert ws.closed == ConnectionClosed(1001, "the server is stopping", True)
        output, errors = process.communicate(timeout=20)
        assert process.returncode == 0
        assert output == ""
        assert "stopping signal=" in errors
        assert errors.count("connection closed") == 1


def test_the_pages() -> None:
    with running_command() as (_, url):
        for path, content_type in [
            ("/", "text/html"),
            ("/chat", "text/html"),
            ("/ticker", "text/html"),
            ("/game", "text/html"),
            ("/web/chat.js", "text/javascript"),
            ("/web/style.css", "text/css"),
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
def test_wrong_options_print_one_line_and_exit_with_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("rfc6455-server: ")
    assert err.count("\n") == 1


def test_without_pages() -> None:
    with running_command("--no-pages") as (_, url):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(url)
        assert caught.value.code == 404
        caught.value.close()
        with urllib.request.urlopen(url + "/healthz") as answer:
            assert answer.read() == b"ok\n"


def test_options_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RFC6455_NO_PAGES", "yes")
    monkeypatch.setenv("RFC6455_MAX_MESSAGE_SIZE", "10")
    monkeypatch.setenv("RFC6455_ORIGIN", "https://a.example,https://b.example")
    options = cli._parse([])
    assert (options.no_pages, options.max_message_size) == (True, 10)
    assert options.origin == ["https://a.example", "https://b.example"]
    options = cli._parse(["--max-message-size=20", "--origin", "https://c.example"])
    assert (options.max_message_size, options.origin) == (20, ["https://c.example"])
    monkeypatch.setenv("RFC6455_NO_PAGES", "0")
    assert not cli._parse([]).no_pages
    for name, value in (("NO_PAGES", "perhaps"), ("PORT", "x"), ("SLOW_CONSUMER", "wait")):
        with monkeypatch.context() as patch:
            patch.setenv(f"RFC6455_{name}", value)
            with pytest.raises(SystemExit) as caught:
                cli._parse([])
        assert caught.value.code == 2


def test_the_endpoints_of_the_options(certificate: Certificate) -> None:
    def endpoints(*arguments: str) -> list[Endpoint]:
        return make_endpoints(cli._parse(arguments))

    assert endpoints() == [Endpoint("127.0.0.1", 8765)]
    files = ["--cert", str(certificate.certificate), "--key", str(certificate.key)]
    (secure,) = endpoints("--port", "1", *files)
    assert secure.tls is not None
    several = ["http://0.0.0.0", "https://[::1]:444/", "unix:/run/x.sock", "unix:///run/y?#"]
    plain, secure, unix, other = endpoints(*files, *(f"--listen={url}" for url in several), "--reuse-port")
    assert plain == Endpoint("0.0.0.0", 80, reuse_port=True)
    assert secure[:2] == ("::1", 444)
    assert secure.tls is not None
    assert unix == Endpoint(path="/run/x.sock", reuse_port=True)
    assert other == Endpoint(path="/run/y?#", reuse_port=True)
    (proxied,) = endpoints("--listen=unix:/run/x.sock", "--proxy-protocol", "--trust=unix", "--trust=::1")
    assert proxied == Endpoint(path="/run/x.sock", proxy_protocol=True)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--listen", "ftp://127.0.0.1"], "cannot listen on 'ftp://127.0.0.1': use http://H:P"),
        (["--listen", "unix:"], "cannot listen on 'unix:'"),
        (["--listen", "http://127.0.0.1/path"], "cannot listen on"),
        (["--listen", "http://127.0.0.1:x"], "cannot listen on 'http://127.0.0.1:x'"),
        (["--listen", "http://127.0.0.1:65536"], "cannot listen on 'http://127.0.0.1:65536'"),
        (["--listen", "http://[::1"], "cannot listen on 'http://[::1'"),
        (["--listen", "http://127.0.0.1?query"], "cannot listen on"),
        (["--listen", "http://127.0.0.1#fragment"], "cannot listen on"),
        (["--listen", "http://user:password@127.0.0.1"], "cannot listen on"),
        (["--listen", "unix://host/path"], "cannot listen on 'unix://host/path'"),
        (["--listen", "unix:/run/x", "--reuse-port"], "--reuse-port has no effect"),
        (["--listen", "unix:/run/x", "--proxy-protocol", "--trust", "::1"], "needs --trust unix"),
        (["--proxy-protocol", "--trust", "unix"], "no address may send PROXY headers"),
        (["--host", "a..b"], "cannot listen on a..b:8765: not a host name"),
        (["--listen", "https://127.0.0.1"], "https://127.0.0.1 needs --cert"),
        (["--cert", "/none"], "cannot read /none: No such file"),
        (["--cert", "/none", "--key", "/no-key"], "cannot read /none: No such file"),
        (["--cert", __file__, "--key", "/no-key"], "cannot read /no-key: No such file"),
        (["--cert", __file__], "cannot use the certificate: "),
        (["--trust", "proxy.example"], "argument --trust: 'proxy.example' does not"),
        (["--trust", "10.0.0.1/8"], "argument --trust: 10.0.0.1/8 has host bits set"),
        (["--key", "/none"], "--key needs --cert"),
        (["--proxy-protocol"], "--proxy-protocol needs --trust"),
        (["--listen", "http://127.0.0.1", "--port", "1"], "--port and --listen exclude each other"),
        (["--listen", "http://127.0.0.1", "--host", "::1"], "--host and --listen exclude each other"),
        (["--host", ""], "host"),
        (["--cert", ""], "cert"),
        (["--listen", "http://:80"], "cannot listen on 'http://:80'"),
        (["--origin", "foo"], "not an origin, such as https://example.com: 'foo'"),
        (["--origin", "null"], "null is the origin of any page"),
        (["--origin", ""], "origin"),
        (["--origin", "https://example.com/"], "not an origin"),
        (["--origin", "https://*.example.com"], "not an origin"),
        (["--origin", "https://example.com:x"], "not an origin"),
        (["--origin", "https://example.com:65536"], "not an origin"),
        (["--ping-interval", "0"], "ping-interval"),
        (["--log-level", "loud"], "log-level"),
        (["--log-format", "xml"], "log-format"),
        (["--message-rate", "0"], "message-rate"),
        (["--drain-time", "-1"], "drain-time"),
        (["--drain-time", "5000"], "drain-time"),
        (["--slow-consumer", "wait"], "slow-consumer"),
        (["--metrics=http://127.0.0.1:1", "--metrics", "unix:/run/x"], "--metrics: it is given twice"),
    ],
)
def test_wrong_values_print_one_line_and_exit_with_status_2(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("rfc6455-server: ")
    assert problem in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("variables", "arguments", "problem"),
    [
        ({"HOST": ""}, [], "RFC6455_HOST is empty"),
        ({"CERT": ""}, [], "RFC6455_CERT is empty"),
        ({"PROXY_PROTOCOL": ""}, [], "RFC6455_PROXY_PROTOCOL is empty"),
        ({"ORIGIN": ""}, [], "RFC6455_ORIGIN is empty"),
        ({"ORIGIN": "https://a.example,"}, [], "RFC6455_ORIGIN: not an origin"),
        ({"TRUST": "::1,x"}, [], "RFC6455_TRUST: 'x' does not appear to be"),
        # Kubernetes sets this one for a Service that is named rfc6455.
        ({"PORT": "tcp://10.0.0.1:8765"}, [], "RFC6455_PORT: invalid value: 'tcp://10.0.0.1:8765'"),
        ({"MAX_QUEUE": "0"}, [], "RFC6455_MAX_QUEUE: invalid value: '0'"),
        ({"LISTEN": "http://127.0.0.1"}, ["--port", "1"], "--port and --listen exclude each other"),
        ({"LISTEN": "http://127.0.0.1", "PORT": "1"}, [], "--port and --listen exclude each other"),
        ({"HOST": "::1"}, ["--listen", "http://127.0.0.1"], "--host and --listen exclude each other"),
        ({"KEY": "/none"}, [], "--key needs --cert"),
        ({"PROXY_PROTOCOL": "on"}, [], "--proxy-protocol needs --trust"),
    ],
)
def test_wrong_variables_print_one_line_and_exit_with_status_2(
    variables: dict[str, str],
    arguments: list[str],
    problem: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"RFC6455_{name}", value)
    try:
        status = main(arguments)
    except SystemExit as error:
        status = int(str(error.code))
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.startswith("rfc6455-server: ")
    assert problem in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--cert=/a\n\x1b[2J"], r"cannot read /a\n\x1b[2J: No such file"),
        (["--listen=unix:/a\x1b" + "x" * 110], r"cannot listen on /a\x1bx"),
        (["a\n\x1b[2J"], r"unrecognized arguments: a\n\x1b[2J"),
        (["--trust=1/\x9b"], "1/"),
        (["connect", "ws://a\x1b[2J"], "connect: "),
        (["connect", "ws://a/", "b\n\x1b"], r"unrecognized arguments: b\n\x1b"),
        (["connect", "ws://a/", "--ca", "/a\n\x1b"], "connect: "),
    ],
)
def test_an_error_neither_breaks_its_line_nor_controls_the_terminal(
    arguments: list[str], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(arguments) == 2
    err = capsys.readouterr().err
    assert shown in err
    assert err.endswith("\n")
    assert err[:-1].isprintable()


@pytest.mark.parametrize("listen", [["http://127.0.0.1:0"], ["unix:/tmp/none"], ["http://127.0.0.1:0"] * 2])
def test_a_certificate_without_a_listener_for_it_is_an_error(
    listen: list[str], certificate: Certificate, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--cert", str(certificate.certificate), "--key", str(certificate.key)]
    assert main([*files, *(f"--listen={url}" for url in listen)]) == 2
    expected = "rfc6455-server: --cert has no effect: no --listen starts with https://\n"
    assert capsys.readouterr().err == expected


def test_a_key_with_a_password_is_an_error_and_not_a_question(
    certificate: Certificate, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "key.pem"
    command = ["openssl", "rsa", "-aes256", "-passout", "pass:secret", "-in", str(certificate.key)]
    subprocess.run([*command, "-out", str(key)], check=True, capture_output=True)
    assert "ENCRYPTED" in key.read_text()
    assert main(["--cert", str(certificate.certificate), "--key", str(key)]) == 2
    expected = "rfc6455-server: cannot use the certificate: the key has a password\n"
    assert capfd.readouterr().err == expected


def test_a_certificate_is_a_regular_file(
    certificate: Certificate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path / "pipe", tmp_path, Path(os.devnull)):
        for chain, key in ((other, certificate.key), (certificate.certificate, other)):
            assert main(["--check", "--cert", str(chain), "--key", str(key)]) == 2
            assert capsys.readouterr().err == f"rfc6455-server: cannot read {other}: not a regular file\n"


@pytest.mark.parametrize(
    "origin", ["*", "https://a.example", "http://[::1]:65535", "app-x://host", "file://"]
)
def test_origins_that_browsers_have(origin: str) -> None:
    assert main(["--check", "--origin", origin]) == 0


def test_a_unix_path_is_as_long_as_the_system_takes(capsys: pytest.CaptureFixture[str]) -> None:
    longest = "/" + "\N{LATIN SMALL LETTER E WITH ACUTE}" * 53  # two bytes each
    assert main(["--check", f"--listen=unix:{longest}"]) == 0
    with socket.socket(socket.AF_UNIX) as probe, pytest.raises(FileNotFoundError):
        probe.connect(longest)
    capsys.readouterr()
    for option in ("--listen", "--metrics"):
        assert main(["--check", f"{option}=unix:{longest}x"]) == 2
        expected = f"rfc6455-server: cannot listen on {longest}x: a Unix path has at most 107 bytes here\n"
        assert capsys.readouterr() == ("", expected)
    with socket.socket(socket.AF_UNIX) as probe, pytest.raises(OSError, match="too long"):
        probe.connect(longest + "x")


# Nothing is served.


def test_check_checks_the_options_and_does_not_listen(
    certificate: Certificate, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        files = ["--cert", str(certificate.certificate), "--key", str(certificate.key)]
        assert main(["--check", f"--port={taken.getsockname()[1]}", *files]) == 0
    assert capsys.readouterr() == ("rfc6455-server: the options are valid\n", "")
    assert main(["--check", "--cert", "/none"]) == 2
    for wrong in (["--trust", "x"], ["--port", "x"]):
        with pytest.raises(SystemExit) as caught:
            main(["--check", *wrong])
        assert caught.value.code == 2


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"rfc6455-server {__version__}\n"


async def test_json_logs_and_compression() -> None:
    with running_command("--log-format", "json", "--compression", "--log-level", "debug") as (process, url):
        offer = PerMessageDeflate()
        async with connect(url.replace("http", "ws") + "/echo", compression=offer) as ws:
            await ws.send("x" * 1000)
            assert await ws.recv() == "x" * 1000
        process.terminate()
        _, errors = await asyncio.to_thread(process.communicate, timeout=20)
    events = [json.loads(line) for line in errors.splitlines()]
    assert {"connection closed", "stopping"} <= {event["event"] for event in events}


def test_an_address_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["--port", str(taken.getsockname()[1])]) == 2
    err = capsys.readouterr().err
    assert err.startswith("rfc6455-server: cannot listen on 127.0.0.1:")
    assert err.count("\n") == 1


def test_the_listener_that_fails_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none" / "socket"
    others = ["--listen=http://127.0.0.1:0", "--listen=http://[::1]:0", "--metrics=http://127.0.0.1:0"]
    assert main([*others, f"--listen=unix:{path}"]) == 2
    assert capsys.readouterr().err == f"rfc6455-server: cannot listen on {path}: No such file or directory\n"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main([*others, f"--listen=http://127.0.0.1:{port}"]) == 2
    expected = f"rfc6455-server: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    assert capsys.readouterr().err == expected


def test_an_error_of_no_listener_names_none() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "rfc6455_server", "--port=0"]
    done = subprocess.run(
        command, check=False, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=PATIENCE
    )
    os.close(writing)
    assert done.returncode == 2
    assert done.stderr == "rfc6455-server: cannot run: Broken pipe\n"


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [
        (Endpoint("::1", 80), "[::1]:80"),
        (Endpoint(None, 80), "*:80"),
        (Endpoint(path="/run/x"), "/run/x"),
    ],
)
def test_the_name_of_an_endpoint(endpoint: Endpoint, name: str) -> None:
    assert endpoint.name == name


def test_help_fits_on_one_screen() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rfc6455_server", "--help"], capture_output=True, text=True, check=True
    )
    assert done.stdout.count("\n") <= 24
    assert max(map(len, done.stdout.splitlines())) <= 80
    for option in ("--host", "--port", "--max-message-size"):
        assert option in done.stdout


NUMBERS = ["port", "drain-time", *(name.replace("_", "-") for name in Limits.__dataclass_fields__)]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_written_in_ascii_digits(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", f"--{name}=10"]) == 0
    for wrong in ("\N{ARABIC-INDIC DIGIT ONE}", "1_0", " 10 ", "10\n", "0x10", "1" * 5000, ""):
        with pytest.raises(SystemExit) as caught:
            main(["--check", f"--{name}={wrong}"])
        assert caught.value.code == 2
        assert f"argument --{name}: invalid {name} value: {wrong!r}" in capsys.readouterr().err


@pytest.mark.parametrize("name", Limits.__dataclass_fields__)
def test_every_limit_can_be_set(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Server] = []

    def run(server: Server, **_: object) -> None:
        made.append(server)

    monkeypatch.setattr(Server, "run", run)
    option = "--" + name.replace("_", "-")
    assert main([option, "77"]) == 0
    monkeypatch.setenv("RFC6455_" + name.upper(), "78")
    assert main([]) == 0
    assert main([f"{option}=79"]) == 0
    assert [server.limits for server in made] == [replace(Limits(), **{name: n}) for n in (77, 78, 79)]
    for wrong in ("0", "-1", "x", "nan", "inf"):
        with pytest.raises(SystemExit) as caught:
            main([f"{option}={wrong}"])
        assert caught.value.code == 2


def test_the_short_name_of_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli._parse(["--max-per-address", "5"]).max_connections_per_address == 5
    monkeypatch.setenv("RFC6455_MAX_PER_ADDRESS", "6")
    assert cli._parse([]).max_connections_per_address == 6


def test_the_listener_for_metrics(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    def endpoints(*arguments: str) -> list[Endpoint]:
        return make_endpoints(cli._parse(arguments))

    options = ["--trust=127.0.0.1", "--proxy-protocol", "--reuse-port", "--metrics=http://127.0.0.1:9100"]
    public, internal = endpoints(*options)
    assert (public.metrics, public.proxy_protocol, public.reuse_port) == (False, True, True)
    assert internal == Endpoint("127.0.0.1", 9100, metrics=True)
    assert endpoints("--metrics=unix:/run/m")[1] == Endpoint(path="/run/m", metrics=True)
    files = ["--cert", str(certificate.certificate), "--key", str(certificate.key)]
    public, internal = endpoints("--metrics=https://127.0.0.1:9100", *files)
    assert internal.tls is public.tls is not None
    monkeypatch.setenv("RFC6455_METRICS", "unix:/run/n")
    assert endpoints("--metrics=unix:/run/m")[1] == Endpoint(path="/run/m", metrics=True)
    with pytest.raises(ValueError, match="cannot listen on 'ftp:"):
        endpoints("--metrics=ftp://127.0.0.1")


def test_metrics_at_an_address_of_their_own() -> None:
    with running_command("--metrics=http://127.0.0.1:0") as (process, url):
        assert process.stdout is not None
        internal = process.stdout.readline().split()[-1] + "/metrics"
        with urllib.request.urlopen(internal) as answer:
            assert b"rfc6455_connections 0.0" in answer.read()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(url + "/metrics")


def test_the_help_about_limits(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help-limits"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) < 80
    options = re.split(r"^  --", text, flags=re.MULTILINE)[1:]
    assert len(options) == len(Limits.__dataclass_fields__)
    for option, (name, field) in zip(options, Limits.__dataclass_fields__.items(), strict=True):
        head, _, described = option.partition("\n")
        assert head.startswith(name.replace("_", "-") + " N  (")
        value = head.rpartition("(")[2].rstrip(")")
        assert (None if value == "none" else float(value)) == field.default
        assert len(described.split()) > 3


def test_without_its_source_the_help_has_names_and_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> str:
        raise OSError

    monkeypatch.setattr("inspect.getsource", fail)
    assert limits_help().count("\n") == len(Limits.__dataclass_fields__) + 1
