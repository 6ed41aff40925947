"""Where one of asyncio's private names is missing, the server works, and says once if memory grows for it."""

import asyncio
import gc
import logging
import socket
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvloop

from rfc6455_server import Endpoint, connect
from rfc6455_server import asyncio_private as private
from rfc6455_server.websocket.streams import CodecProtocol
from tests.server_helpers import Certificate, echo_server, until

NAMES = ["_make_socket_transport", "_read_ready_cb", "_write_ready", "_ssl_protocol"]
PARTS_OF_SSL_PROTOCOL = ["_ssl_buffer_view", "max_size"]
ALL = [*NAMES, *PARTS_OF_SSL_PROTOCOL]


def hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Hides ``names`` from `asyncio_private` only: asyncio itself needs them."""

    def has(thing: object, name: str) -> bool:
        return name not in names and hasattr(thing, name)

    def get(thing: object, name: str, default: object) -> object:
        return default if name in names else getattr(thing, name, default)

    monkeypatch.setattr(private, "hasattr", has, raising=False)
    monkeypatch.setattr(private, "getattr", get, raising=False)
    monkeypatch.setattr(private, "_warned", set())


async def echo_over_tcp_and_tls(certificate: Certificate) -> None:
    """Two connections over each, one after the other."""
    server = echo_server()
    await server.listen(Endpoint("127.0.0.1"))
    await server.listen(Endpoint("127.0.0.1", ssl_context=certificate.server_context()))
    urls = [url.replace("http", "ws").replace("127.0.0.1", "localhost") for url in server.urls]
    for url, context in zip(urls, [None, certificate.client_context()], strict=True):
        for _ in range(2):
            async with connect(url + "/echo", ssl_context=context) as ws:
                for message in ("hello", "x" * 300_000):
                    await ws.send(message)
                    assert await ws.recv() == message
            assert ws.closed is not None
            assert ws.closed.clean
    await until(lambda: server.make_ready().connections == 0)
    await server.stop()


def missing(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The names that were missing, by the log."""
    records = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert all(record.getMessage().startswith("asyncio has changed ") for record in records)
    return sorted(getattr(record, "fields")["missing"] for record in records)  # noqa: B009 - an extra field


async def test_all_names_are_there(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hide(monkeypatch)
    assert private.socket_transport_maker(asyncio.get_running_loop()) is not None
    await echo_over_tcp_and_tls(certificate)
    assert missing(caplog) == []


@pytest.mark.parametrize(
    ("hidden", "warned"),
    [
        (["_make_socket_transport"], []),  # slower, and no larger
        (["_read_ready_cb"], ["_read_ready_cb"]),
        (["_write_ready"], ["_write_ready"]),
        (["_ssl_protocol"], ["_ssl_protocol"]),
        (["_ssl_buffer_view"], ["_ssl_protocol"]),
        (["max_size"], ["_ssl_protocol"]),
        (ALL, ["_read_ready_cb", "_ssl_protocol", "_write_ready"]),
    ],
    ids=lambda names: "+".join(names) if len(names) < 3 else "all",
)
async def test_a_missing_name_is_warned_about_once_if_memory_grows(
    hidden: list[str],
    warned: list[str],
    certificate: Certificate,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hide(monkeypatch, *hidden)
    await echo_over_tcp_and_tls(certificate)
    assert missing(caplog) == warned


def test_another_event_loop_is_not_warned_about(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hide(monkeypatch)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert private.socket_transport_maker(runner.get_loop()) is None
        runner.run(echo_over_tcp_and_tls(certificate))
    assert missing(caplog) == []


@contextmanager
def without_garbage_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.parametrize("hidden", [[], ["_read_ready_cb", "_write_ready"]])
async def test_a_lost_transport_is_freed_at_once_unless_the_names_are_missing(
    hidden: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, *hidden)
    loop = asyncio.get_running_loop()
    lost = asyncio.Event()

    def make_protocol() -> CodecProtocol:
        protocol = CodecProtocol(loop)
        protocol.on_lost = lambda _: lost.set()
        return protocol

    ours, theirs = socket.socketpair()
    with without_garbage_collector(), theirs:
        transport, protocol = await loop.create_connection(make_protocol, sock=ours)
        reference = weakref.ref(transport)
        transport.abort()  # since Python 3.12, ``close`` breaks the cycle, but ``abort`` does not
        del transport, protocol
        await lost.wait()
        for _ in range(3):
            await asyncio.sleep(0)  # the loop drops its last handles
        assert (reference() is None) is not bool(hidden)
