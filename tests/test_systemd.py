"""What systemd passes to a process and hears from it, without systemd."""

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rfc6455_server import Endpoint, connect, passed_sockets, systemd
from rfc6455_server.systemd import ServiceManager
from tests.server_helpers import echo_server, until


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's socket, at ``notify`` in the folder of the test."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.setblocking(False)
        yield heard


def said(manager: socket.socket) -> list[str]:
    """Returns what a service manager has heard since the last call."""
    found = []
    while True:
        try:
            found.append(manager.recv(1000).decode())
        except BlockingIOError:
            return found


# Sockets.


def pass_sockets(monkeypatch: pytest.MonkeyPatch, *sockets: socket.socket, pid: int | None = None) -> None:
    """Passes sockets to this process; the first one's descriptor is the first that is looked at."""
    descriptors = [passed.detach() for passed in sockets]
    monkeypatch.setattr(systemd, "_FIRST_DESCRIPTOR", descriptors[0])
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_FDNAMES", "web")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() if pid is None else pid))


async def test_a_server_takes_a_passed_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    pass_sockets(monkeypatch, socket.create_server(("127.0.0.1", 0)))
    (passed,) = passed_sockets()
    assert not passed.get_inheritable()
    assert not {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} & set(os.environ)
    assert passed_sockets() == []
    server = echo_server()
    await server.listen(Endpoint(listening=passed))
    assert passed.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000
    async with connect(f"ws://127.0.0.1:{server.port}/echo") as ws:
        await ws.send("x")
        assert await ws.recv() == "x"
    await server.stop()
    assert passed.fileno() == -1


async def test_the_path_of_a_passed_unix_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    server = echo_server()
    await server.listen(Endpoint(listening=listening))
    assert server.urls == [f"unix:{path}"]
    await server.stop()
    assert path.is_socket()


def test_sockets_of_another_process_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        descriptor = os.dup(listening.fileno())
        pass_sockets(monkeypatch, socket.socket(fileno=descriptor), pid=1)
        assert passed_sockets() == []
        os.close(descriptor)  # nobody else has


@pytest.mark.parametrize("kind", ["connection", "datagram", "file", "closed"])
def test_a_passed_descriptor_that_does_not_listen_is_an_error(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one, other = socket.socketpair()
    datagram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other, datagram, (tmp_path / "file").open("w") as file:
        numbers = {"connection": one.fileno(), "datagram": datagram.fileno(), "file": file.fileno()}
        copy = 1000 if kind == "closed" else os.dup(numbers[kind])
        monkeypatch.setattr(systemd, "_FIRST_DESCRIPTOR", copy)
        monkeypatch.setenv("LISTEN_FDS", "1")
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        with pytest.raises(ValueError, match=f"descriptor {copy} of LISTEN_FDS is not a listening"):
            passed_sockets()
        if kind == "file":
            os.close(copy)


def test_those_before_a_wrong_one_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    address = listening.getsockname()
    pass_sockets(monkeypatch, listening)
    monkeypatch.setenv("LISTEN_FDS", "1000")
    with pytest.raises(ValueError, match="not a listening stream socket"):
        passed_sockets()
    with socket.socket() as probe:
        assert probe.connect_ex(address) != 0


@pytest.mark.parametrize("count", ["", "-1", "x", "\N{ARABIC-INDIC DIGIT ONE}"])
def test_a_malformed_count_is_an_error(count: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", count)
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    with pytest.raises(ValueError, match="LISTEN_FDS is not a number"):
        passed_sockets()


def test_without_its_variables_nothing_is_passed_and_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET", "WATCHDOG_USEC"):
        monkeypatch.delenv(name, raising=False)
    assert passed_sockets() == []
    ServiceManager.from_environment().ready()


# Readiness and the watchdog.


async def test_the_service_manager_is_told(
    tmp_path: Path, manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    told = ServiceManager.from_environment()
    told.ready()
    told.reloading()
    told.ready()
    told.stopping()
    told.close()
    ready, reloading, again, stopping = said(manager)
    assert (ready, again, stopping) == ("READY=1", "READY=1", "STOPPING=1")
    assert reloading.startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert reloading.rpartition("=")[2].isdigit()


async def test_the_watchdog_is_fed_while_the_loop_runs(
    tmp_path: Path, manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "10000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    told, heard = ServiceManager.from_environment(), list[str]()
    told.ready()
    told.ready()  # after a reload: not twice as often
    assert said(manager) == ["READY=1", "WATCHDOG=1", "READY=1"]

    def was_fed() -> bool:
        heard.extend(said(manager))
        return len(heard) >= 3

    await until(was_fed)
    assert set(heard) == {"WATCHDOG=1"}
    told.close()
    assert told._timer is not None
    assert told._timer.cancelled()


@pytest.mark.parametrize(
    ("name", "value"),
    [("WATCHDOG_PID", "1"), ("WATCHDOG_USEC", "soon"), ("WATCHDOG_USEC", "0"), ("WATCHDOG_USEC", "9" * 400)],
)
async def test_a_watchdog_of_another_process_or_without_a_time_is_not_fed(
    name: str, value: str, tmp_path: Path, manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "10000")
    monkeypatch.setenv(name, value)
    ServiceManager.from_environment().ready()
    assert said(manager) == ["READY=1"]


def test_an_abstract_address() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0rfc6455-test-{os.getpid()}")
        ServiceManager(f"@rfc6455-test-{os.getpid()}").ready()
        assert heard.recv(100) == b"READY=1"


def test_a_service_manager_that_is_gone_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="rfc6455_server"):
        ServiceManager(str(tmp_path / "none")).stopping()
    assert 'cannot be told state="STOPPING=1" reason="No such file or directory"' in caplog.text


def test_a_service_manager_that_is_gone_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = ServiceManager(str(tmp_path / "notify"))
    for lost in (1, 2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
            heard.bind(str(tmp_path / "notify"))
            heard.setblocking(False)
            told.stopping()
            assert said(heard) == ["STOPPING=1"]
        (tmp_path / "notify").unlink()
        for _ in range(3):
            told.ready()
            told.reloading()
        assert caplog.text.count("the service manager cannot be told") == lost
    told.close()
