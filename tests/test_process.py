"""A server as a process: what signals, callbacks that raise and the service manager do."""

import asyncio
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import uvloop

from rfc6455_server import Server, WebSocket, connect
from tests.server_helpers import PATIENCE, Certificate, running_command, running_program, until
from tests.test_systemd import manager, said

__all__ = ["manager"]

ERRORS = """
import asyncio, sys
from rfc6455_server import Server

server = Server(close_timeout=0.5)

@server.websocket("/echo")
async def echo(ws):
    async for message in ws:
        await ws.send(message)

async def drain(seconds):
    raise KeyError("drain")

async def leave(seconds=0):
    sys.exit(0)

async def first():
    raise ValueError("first")

async def second():
    print("the second callback ran", flush=True)
    raise OSError("second")

what = sys.argv[1]
if what == "drain":
    server.on_drain(drain)
elif what == "exit":
    server.on_drain(leave)
    server.on_stop(leave)
    server.on_stop(second)
else:
    server.on_stop(first)
    server.on_stop(second)
server.run("127.0.0.1", 0, drain_time=0, started=lambda: print("serving on", *server.urls, flush=True))
print("after")
"""


async def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Waits for the end of a process; returns its status, output and errors."""
    output, errors = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
    return process.returncode, output, errors


async def drained(process: subprocess.Popen[str], url: str) -> tuple[int, str, str]:
    """Ends the process while a client is connected, which is told; returns as `ended` does."""
    ws = await connect(url.replace("http", "ws") + "/echo")
    process.terminate()
    await ws.wait_closed()
    assert ws.closed is not None
    assert (ws.closed.code, ws.closed.clean) == (1001, True)
    return await ended(process)


def running(program: str, *arguments: str) -> AbstractContextManager[tuple["subprocess.Popen[str]", str]]:
    """Runs the text of a program that prints its URL as the command does."""
    return running_program("-c", program, *arguments)


# Callbacks that raise.


async def test_a_callback_of_on_stop_that_raises_skips_nothing_and_is_the_status() -> None:
    with running(ERRORS, "stop") as (process, url):
        status, output, errors = await drained(process, url)
    assert status == 1
    assert output == "the second callback ran\n"
    assert "callbacks of on_stop failed (2 sub-exceptions)" in errors
    assert "ValueError: first" in errors
    assert "OSError: second" in errors


async def test_a_callback_of_on_drain_that_raises_skips_nothing_and_is_the_status() -> None:
    with running(ERRORS, "drain") as (process, url):
        status, output, errors = await drained(process, url)
    assert (status, output) == (1, "")
    assert "callbacks of on_drain failed (1 sub-exception)" in errors


async def test_a_callback_that_calls_exit_skips_nothing_and_is_the_status() -> None:
    with running(ERRORS, "exit") as (process, url):
        status, output, errors = await drained(process, url)
    assert (status, output) == (1, "the second callback ran\n")
    assert errors.count("a callback failed while the server stopped") == 3
    assert "callbacks of on_stop failed (2 sub-exceptions)" in errors
    assert "callbacks of on_drain failed (1 sub-exception)" in errors


async def test_a_callback_that_is_interrupted_is_not_kept_from_ending_the_process() -> None:
    server = Server()

    async def interrupt() -> None:
        raise KeyboardInterrupt

    server.on_stop(interrupt)
    await server.start()
    with pytest.raises(KeyboardInterrupt):
        await server.stop()
    server.abort()


async def test_all_callbacks_run_in_a_loop_of_ones_own_too() -> None:
    server, seen = Server(), list[str]()

    async def drain(seconds: float) -> None:
        seen.append(f"drain {seconds}")
        raise ValueError("drain")

    async def stop() -> None:
        seen.append("stop")
        raise ValueError("stop")

    for _ in range(2):
        server.on_drain(drain)
        server.on_stop(stop)
    await server.start()
    with pytest.raises(ExceptionGroup, match="on_drain failed") as drained:
        await server.drain(0)
    with pytest.raises(ExceptionGroup, match="on_stop failed") as stopped:
        await server.stop()
    assert seen == ["drain 0", "drain 0", "stop", "stop"]
    assert [len(caught.value.exceptions) for caught in (drained, stopped)] == [2, 2]
    assert server.urls == []


async def test_a_callback_that_awaits_what_it_has_cancelled_skips_nothing() -> None:
    server, seen = Server(), list[str]()

    async def cancelled(_: float = 0.0) -> None:
        task = asyncio.create_task(asyncio.Event().wait())
        task.cancel()
        await task

    async def drain(_: float) -> None:
        seen.append("drain")

    async def stop() -> None:
        seen.append("stop")

    server.on_drain(cancelled)
    server.on_drain(drain)
    server.on_stop(cancelled)
    server.on_stop(stop)
    await server.start()
    with pytest.raises(ExceptionGroup, match="on_drain failed"):
        await server.drain(0)
    with pytest.raises(ExceptionGroup, match="on_stop failed") as stopped:
        await server.stop()
    assert seen == ["drain", "stop"]
    assert server.urls == []
    (error,) = stopped.value.exceptions
    assert isinstance(error.__cause__, asyncio.CancelledError)


async def test_a_callback_is_cancelled_with_the_call_of_stop() -> None:
    server, begun = Server(), asyncio.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    server.on_stop(wait)
    await server.start()
    stopping = asyncio.create_task(server.stop())
    await begun.wait()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping


# Certificates.


def certificate_in(folder: Path) -> Certificate:
    folder.mkdir()
    return Certificate(folder)


async def test_sighup_reads_the_certificate_again(tmp_path: Path) -> None:
    used, new = certificate_in(tmp_path / "used"), certificate_in(tmp_path / "new")
    files = ["--cert", str(used.certificate), "--key", str(used.key)]
    listen = ["--listen=https://127.0.0.1:0", "--listen=http://127.0.0.1:0"]
    process = subprocess.Popen(  # noqa: ASYNC220 - starting it does not block
        [sys.executable, "-m", "rfc6455_server", "--drain-time=0", *listen, *files],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        plain = process.stdout.readline().split()[-1].replace("http", "ws")
        first = used.client_context()
        open_before = await connect(f"wss://localhost:{port}/echo", ssl_context=first)

        async def served() -> str:
            return await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))

        before = await served()
        shutil.copy(new.certificate, used.certificate)  # the key is still the old one
        process.send_signal(signal.SIGHUP)
        line = await asyncio.to_thread(process.stderr.readline)
        assert "ERROR certificates not reloaded" in line
        assert await served() == before
        shutil.copy(new.key, used.key)
        process.send_signal(signal.SIGHUP)
        line = await asyncio.to_thread(process.stderr.readline)
        assert "INFO certificates reloaded" in line
        assert await served() == new.certificate.read_text()
        assert before != new.certificate.read_text()
        async with connect(f"wss://localhost:{port}/echo", ssl_context=new.client_context()) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"
        await open_before.send("still open")
        assert await open_before.recv() == "still open"
        await open_before.close()
        async with connect(plain + "/echo") as ws:
            await ws.send("x")
            assert await ws.recv() == "x"
        process.terminate()
        assert (await ended(process))[0] == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate(timeout=PATIENCE)


async def test_sighup_without_a_certificate_ends_nothing() -> None:
    with running_command() as (process, url):
        async with connect(url.replace("http", "ws") + "/echo") as ws:
            process.send_signal(signal.SIGHUP)
            assert process.stderr is not None
            assert "INFO no certificate to reload" in await asyncio.to_thread(process.stderr.readline)
            await ws.send("x")
            assert await ws.recv() == "x"


# Signals.


def test_the_handlers_of_signals_are_restored() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    seen: list[object] = []

    def started() -> None:
        seen.extend(signal.getsignal(number) for number in numbers)
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)

    server = Server()
    server.run("127.0.0.1", 0, drain_time=0, started=started)
    assert not set(seen) & set(before)
    assert [signal.getsignal(number) for number in numbers] == before


def test_an_address_in_use_restores_them_too() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        Server().run("127.0.0.1", taken.getsockname()[1])
    assert signal.getsignal(signal.SIGTERM) == before


def test_signals_work_on_uvloop() -> None:
    def started() -> None:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)

    before = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    try:
        Server().run("127.0.0.1", 0, drain_time=0, started=started)
    finally:
        asyncio.set_event_loop_policy(before)


# systemd.


async def test_the_service_manager_hears_of_the_life_of_the_process(
    tmp_path: Path, manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    heard: list[str] = []

    def states() -> list[str]:
        heard.extend(said(manager))
        return [state.split("\n")[0] for state in heard if state != "WATCHDOG=1"]

    with running_command() as (process, _):
        await until(lambda: states() == ["READY=1"])
        await until(lambda: states() and heard.count("WATCHDOG=1") >= 3)
        process.send_signal(signal.SIGHUP)
        await until(lambda: states() == ["READY=1", "RELOADING=1", "READY=1"])
        process.terminate()
        await until(lambda: states() == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"])


_WITH_SOCKET = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


@contextmanager
def activated(listening: socket.socket, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """The command, with a socket that is passed to it as systemd does."""
    command = [sys.executable, "-m", "rfc6455_server", *arguments]
    process = subprocess.Popen(
        [sys.executable, "-c", _WITH_SOCKET, str(listening.fileno()), *command],
        pass_fds=[listening.fileno()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=PATIENCE)


async def opened(url: str) -> WebSocket:
    return await connect(url, open_timeout=PATIENCE)


async def test_a_restart_with_a_passed_socket_refuses_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        url = f"ws://127.0.0.1:{port}/echo"
        with activated(listening, "--drain-time=600") as first:
            assert first.stdout is not None
            assert first.stdout.readline() == f"serving on http://127.0.0.1:{port}\n"
            old = await connect(url)
            first.terminate()
            await old.wait_closed()  # it drains, and has left the socket
            waiting = asyncio.create_task(opened(url))
            with activated(listening, "--drain-time=0") as second:
                ws = await waiting
                await ws.send("x")
                assert await ws.recv() == "x"
                first.terminate()
                assert (await ended(first))[0] == 0
                await ws.close()
                second.terminate()
                assert (await ended(second))[0] == 0


async def test_an_own_server_takes_the_passed_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "from rfc6455_server import Server; server = Server();"
        "server.run(started=lambda: print(*server.urls, flush=True), drain_time=0)"
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        process = subprocess.Popen(  # noqa: ASYNC220 - starting it does not block
            [sys.executable, "-c", _WITH_SOCKET, str(listening.fileno()), sys.executable, "-c", program],
            pass_fds=[listening.fileno()],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == f"http://127.0.0.1:{listening.getsockname()[1]}\n"
        process.terminate()
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 0


@pytest.mark.parametrize("option", ["--port=1", "--host=::1", "--listen=http://127.0.0.1:1", "--reuse-port"])
async def test_an_address_beside_a_passed_socket_is_an_error(option: str) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        activated(listening, option) as process,
    ):
        status, output, errors = await ended(process)
        assert (status, output) == (2, "")
        name = option.partition("=")[0]
        assert errors == f"rfc6455-server: {name} has no effect: the service manager has passed sockets\n"


async def test_a_passed_socket_serves_tls_with_a_certificate(certificate: Certificate) -> None:
    files = ["--cert", str(certificate.certificate), "--key", str(certificate.key)]
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        activated(listening, "--drain-time=0", *files) as process,
    ):
        port = listening.getsockname()[1]
        assert process.stdout is not None
        assert process.stdout.readline() == f"serving on https://127.0.0.1:{port}\n"
        context = certificate.client_context()
        async with connect(f"wss://localhost:{port}/echo", ssl_context=context) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"


async def test_a_wrong_passed_socket_is_an_error() -> None:
    one, other = socket.socketpair()
    with one, other, activated(one) as process:
        status, output, errors = await ended(process)
    assert (status, output) == (2, "")
    assert errors == "rfc6455-server: descriptor 3 of LISTEN_FDS is not a listening stream socket\n"
