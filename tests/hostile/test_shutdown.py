"""The end of the process: clients, handlers and neighbours that would delay or prevent it, or be forgotten"""

import asyncio
import errno
import logging
import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from rfc6455 import ClientHandshake
from rfc6455_server import Endpoint, Server, WebSocket, connect
from rfc6455_server.listening.listener import CANCEL_TIMEOUT
from rfc6455_server.socketio import SocketIO
from rfc6455_server.testing import ManualClock, TestClient, settle
from tests.hostile.flaws import flaw
from tests.server_helpers import PATIENCE, RawPeer, echo_server, serving, until
from tests.test_clock import CountingClock
from tests.test_http import read_answer
from tests.test_process import ended, running
from tests.test_socketio_server import ask, opened

# The drain.


@flaw(
    "found here",
    what="15,000 clients are connected when the server is asked to drain for 5 s: it took 26 s.",
    here="As many as are due by the elapsed time are told together: lateness does not add up.",
)
async def test_a_drain_of_many_ends_in_time_though_the_loop_is_late() -> None:
    clock, told = CountingClock(lateness=0.02), list[float]()  # as on a machine that has too much to do

    class Peer(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            if b"\x88" in data.rpartition(b"\r\n\r\n")[2]:
                told.append(clock.time())

    async with TestClient(echo_server(clock=clock, close_timeout=1000), clock) as client:
        for number in range(500):
            transport = client.open(Peer(), f"192.0.2.{number % 200}")
            transport.write(ClientHandshake("test", "/echo").data_to_send())
        await settle()
        begin = clock.time()
        draining = asyncio.create_task(client._server.drain(5))
        await clock.advance(5 + 1)
        assert draining.done()
        assert len(told) == 500
        assert len([time for time in told if time < begin + 2.5]) == pytest.approx(250, abs=10)


@flaw(
    "found here",
    what="Nobody is connected when the server drains: it closed its sockets before a load balancer saw 503.",
    here="A drain takes the time asked, and answers 503 until then.",
)
async def test_a_drain_of_nobody_lasts_as_long_as_asked() -> None:
    clock = ManualClock()
    server = echo_server(clock=clock)
    async with serving(server) as url:
        draining = asyncio.create_task(server.drain(5))
        await until(lambda: server.draining)
        await clock.advance(4.9)
        assert not draining.done()
        peer = await RawPeer.connect(url)
        peer.writer.write(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await peer.read_to_end()).startswith(b"HTTP/1.1 503 ")
        await peer.close()
        await clock.advance(0.1)
        await draining


def socketio_server(clock: ManualClock) -> Server:
    server = Server(clock=clock)
    server.mount(SocketIO(ping_interval=1000))
    return server


@flaw(
    "found here",
    what="Only clients that poll are connected when the server drains: it ended at once, and reset them.",
    here="They are told with a CLOSE, spread over the drain time, which passes without any WebSocket too.",
)
async def test_clients_that_poll_are_told_during_the_drain() -> None:
    clock = ManualClock()
    server = socketio_server(clock)
    async with serving(server) as url:
        polls = [asyncio.create_task(ask(url, await opened(url))) for _ in range(4)]
        await until(lambda: server.make_ready().connections >= 4)
        await settle()
        draining = asyncio.create_task(server.drain(8))
        for seconds in range(4):
            await until(lambda told=seconds + 1: sum(poll.done() for poll in polls) == told)  # type: ignore[misc]
            assert not draining.done()
            await clock.advance(2)
        await draining
        assert [(await poll).body for poll in polls] == [b"1"] * 4


@flaw(
    "found here",
    what="A client's GET waits when the server stops without a drain: it was reset, and could not know why.",
    here="It is answered with a CLOSE before its connection ends.",
)
async def test_a_client_that_polls_is_told_when_the_server_stops() -> None:
    server = socketio_server(ManualClock())
    async with serving(server) as url:
        query = await opened(url)
        peer = await RawPeer.connect(url)
        peer.writer.write(f"GET /socket.io/?{query} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        listener = server.make_ready()
        await until(lambda: any(connection.answer for connection in listener._http.values()))
        stopping = asyncio.create_task(server.stop())
        answer = await read_answer(peer)
        assert answer.body == b"1"
        assert answer.fields["connection"] == "close"
        assert await peer.read_to_end() == b""
        await peer.close()
        await stopping


@flaw(
    "found here",
    what="The hook of a request decides while the server begins to drain: its WebSocket was never told.",
    here="The request is refused with 503, over WebSocket and polling.",
)
async def test_a_request_whose_hook_decides_during_the_drain_is_refused() -> None:
    clock, asked, decided = ManualClock(), list[object](), asyncio.Event()
    server = socketio_server(clock)
    server.websocket("/echo")(lambda ws: asyncio.sleep(0))

    @server.authorize
    async def allow(request: object) -> None:
        asked.append(request)
        await decided.wait()

    async with serving(server) as url:
        peers = [await RawPeer.connect(url) for _ in range(2)]
        peers[0].writer.write(ClientHandshake("a", "/echo").data_to_send())
        peers[1].writer.write(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: len(asked) == 2)
        draining = asyncio.create_task(server.drain(5))
        await until(lambda: server.draining)
        decided.set()
        for peer in peers:
            assert (await peer.read_to_end()).startswith(b"HTTP/1.1 503 ")
            await peer.close()
        await clock.advance(5)
        await draining
        assert server.websockets == []


@flaw(
    "found here",
    what="Clients connect to a port that several processes share while one drains: 177 of 800 got 503.",
    here="That process leaves the port when its drain begins, and serves those whom it had accepted.",
)
async def test_new_clients_of_a_shared_port_reach_the_process_that_does_not_drain() -> None:
    clock = ManualClock()
    draining, staying = echo_server(clock=clock), echo_server()
    await draining.listen(Endpoint("127.0.0.1", reuse_port=True))
    port = draining.port
    await staying.listen(Endpoint("127.0.0.1", port, reuse_port=True))
    url = f"ws://127.0.0.1:{port}"
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        await draining.listen(Endpoint(listening=elsewhere))
        early = [socket.create_connection(("127.0.0.1", port)) for _ in range(30)]  # wait to be accepted
        drain = asyncio.create_task(draining.drain(60))
        await settle()
        assert draining.urls == []
        assert drain.done() is False
        loop = asyncio.get_running_loop()
        for peer in early:
            peer.setblocking(False)
            await loop.sock_sendall(peer, ClientHandshake("a", "/echo").data_to_send())
            assert (await loop.sock_recv(peer, 1000)).startswith(b"HTTP/1.1 101 ")
        served = len(draining.websockets)
        assert 0 < served < len(early)
        await clock.advance(0.1)
        assert draining.draining
        for _ in range(100):
            async with connect(url + "/echo") as ws:
                await ws.send("x")
                assert await ws.recv() == "x"
        told = [peer for peer in early if _is_told(peer)]
        assert len(told) == 1  # the first of those that the draining one had accepted
        for peer in early:
            peer.close()
        await clock.advance(60)
        await drain
        await draining.stop()
        await staying.stop()


class BrokenSocket:
    """Has ``accept`` fail as often as there are ``errors``, and then returns what waits."""

    def __init__(self, listening: socket.socket, errors: list[int]) -> None:
        self._listening = listening
        self._errors = errors

    def accept(self) -> tuple[socket.socket, object]:
        if self._errors:
            number = self._errors.pop(0)
            raise OSError(number, os.strerror(number))
        return self._listening.accept()


NETWORK_ERRORS = [
    errno.EPROTO,
    errno.ENETDOWN,
    errno.ENOPROTOOPT,
    errno.EHOSTDOWN,
    errno.ENONET,
    errno.EHOSTUNREACH,
    errno.EOPNOTSUPP,
    errno.ENETUNREACH,
    errno.ECONNABORTED,
    errno.EINTR,
]


@flaw(
    "found here",
    what="A connection that waits to be accepted fails by an error of the network, which `accept` raised.",
    here="The next ones are accepted in the same turn, as accept(2) asks.",
)
async def test_a_connection_that_failed_before_it_was_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    server = echo_server()
    async with serving(server) as url:
        (acceptor,) = server._acceptors
        peer = await RawPeer.connect(url)
        monkeypatch.setattr(acceptor, "socket", BrokenSocket(acceptor.socket, NETWORK_ERRORS.copy()))
        acceptor._accept()
        monkeypatch.undo()
        assert server.make_ready().connections == 1
        await peer.close()


@flaw(
    "found here",
    what="Accepting fails at the moment when a process is asked to drain: `drain` raised, and told nobody.",
    here="The error is logged, and the drain goes on.",
)
@pytest.mark.parametrize("number", [*NETWORK_ERRORS, errno.EMFILE, errno.EIO, errno.EPERM])
async def test_a_drain_when_accepting_fails(
    number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    server = echo_server(clock=clock)
    await server.listen(Endpoint("127.0.0.1", reuse_port=True))
    (acceptor,) = server._acceptors
    listening = acceptor.socket
    with monkeypatch.context() as patch:
        broken = BrokenSocket(listening, [number] * 1000)
        broken.fileno = listening.fileno  # type: ignore[attr-defined]
        broken.close = listening.close  # type: ignore[attr-defined]
        patch.setattr(acceptor, "socket", broken)
        drain = asyncio.create_task(server.drain(5))
        await settle()
    assert not drain.done()
    assert listening.fileno() == -1
    await clock.advance(5)
    await drain
    assert ("accepting failed" in caplog.text) is (number in (errno.EIO, errno.EPERM))
    await server.stop()


def _is_told(peer: socket.socket) -> bool:
    try:
        return peer.recv(1) == b"\x88"
    except BlockingIOError:
        return False


# Handlers that do not end.


@flaw(
    "found here",
    what="A handler swallows its cancellation: `stop` waited for it for ever, and the process with it.",
    here="The server stops without it, and logs that.",
)
async def test_a_server_stops_without_a_handler_that_swallows_its_cancellation(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, released = ManualClock(), asyncio.Event()
    server = Server(clock=clock, close_timeout=10)
    tasks: list[asyncio.Task[None] | None] = []

    @server.websocket("/")
    async def stubborn(ws: WebSocket) -> None:
        tasks.append(asyncio.current_task())
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                pass

    await server.start()
    peer = await RawPeer.upgraded(f"ws://127.0.0.1:{server.port}", "/")
    await until(lambda: tasks)
    with caplog.at_level(logging.WARNING, logger="rfc6455_server"):
        stopping = asyncio.create_task(server.stop())
        await settle()
        await clock.advance(10 + CANCEL_TIMEOUT)
        assert (await peer.read_to_end()).startswith(b"\x88")
        await peer.close()
        await stopping
    (task,) = tasks
    assert task is not None
    assert not task.done()
    assert "handlers did not end when the server stopped tasks=1" in caplog.text
    released.set()
    await asyncio.wait([task])


HANDLERS = """
import asyncio, threading, time
from rfc6455_server import Server

server = Server(close_timeout=600)

@server.websocket("/swallows")
async def swallows(ws):
    await ws.send("running")
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass

@server.websocket("/computes")
async def computes(ws):
    await ws.send("running")
    while True:
        pass

@server.websocket("/sleeps")
async def sleeps(ws):
    await ws.send("running")
    time.sleep(600)

@server.websocket("/waits-for-a-thread")
async def waits(ws):
    begun = threading.Event()

    def work():
        begun.set()
        time.sleep(600)

    working = asyncio.get_running_loop().run_in_executor(None, work)
    await asyncio.to_thread(begun.wait)
    await ws.send("running")
    await working

server.run("127.0.0.1", 0, drain_time=600, started=lambda: print("serving on", *server.urls, flush=True))
"""


def pending_signals(pid: int) -> int:
    """Returns the mask of the signals that no thread of a process has taken yet."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("ShdPnd:")[2].split()[0], 16)


@pytest.mark.parametrize("kind", ["swallows", "computes", "sleeps", "waits-for-a-thread"])
@flaw(
    "found here",
    what="A handler swallows its cancellation, or never returns to the event loop: signals ended nothing.",
    here="The second signal ends it, with a traceback that shows where it was, and status 1.",
)
async def test_the_second_signal_ends_the_process_whatever_handlers_do(kind: str) -> None:
    with running(HANDLERS) as (process, url):
        peer = await RawPeer.upgraded(url, "/" + kind)
        assert await peer.read(9) == b"\x81\x07running"
        process.send_signal(signal.SIGTERM)
        if kind in ("swallows", "waits-for-a-thread"):
            assert (await peer.read(4))[0] == 0x88  # the server drains, and the loop goes on
        # Two at a time may be taken by another thread of the process, which wakes the main one for neither.
        await until(lambda: not pending_signals(process.pid))
        process.send_signal(signal.SIGINT)
        status, _, errors = await ended(process)
        peer.writer.transport.abort()
    assert status == 1
    assert "Timeout (0:00:03)!" in errors


# Neighbours.


@flaw(
    "found here",
    what="A process that hangs listens at the path of the Unix socket, its queue full: the start hung too.",
    here="The address is in use, without waiting for it.",
)
async def test_a_unix_socket_whose_process_hangs_is_in_use(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    waiting: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(path)
        hung.listen(0)
        try:
            while True:  # until its queue is full
                peer = socket.socket(socket.AF_UNIX)
                waiting.append(peer)
                peer.setblocking(False)
                peer.connect(path)
        except BlockingIOError:
            pass
        failures: list[BaseException] = []
        thread = threading.Thread(target=_listen, args=(path, failures), daemon=True)
        thread.start()
        await asyncio.to_thread(thread.join, PATIENCE)
        assert not thread.is_alive()
        (failure,) = failures
        assert isinstance(failure, OSError)
        assert failure.errno == errno.EADDRINUSE
    for peer in waiting:
        peer.close()


def _listen(path: str, failures: list[BaseException]) -> None:
    async def listen() -> None:
        await echo_server().listen(Endpoint(path=path))

    try:
        asyncio.run(listen())
    except OSError as error:
        failures.append(error)
