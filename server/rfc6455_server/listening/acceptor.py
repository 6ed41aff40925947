"""Listening sockets: addresses, accepting, the PROXY protocol, TLS.

Left to others: what an accepted connection does (`opening`, `listener`).

`asyncio.start_server` is not used, for three reasons: a PROXY header comes before TLS, the deadline of an
opening handshake starts when TCP is accepted, and a process that is out of file descriptors must not spin.
"""

import asyncio
import errno
import logging
import os
import socket
import ssl
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from rfc6455_server.asyncio_private import shrink_tls_buffer, socket_transport_maker
from rfc6455_server.listening.certificates import Certificate
from rfc6455_server.listening.proxy import (
    PREFIX_SIZE,
    UNIX,
    ProxyHeaderError,
    Trusted,
    canonical_address,
    proxied_address,
    proxy_addresses_size,
    used_tls,
)
from rfc6455_server.logs import log
from rfc6455_server.websocket.hub import Hub
from rfc6455_server.websocket.streams import LINGER_TIMEOUT, CodecProtocol

LISTEN_BACKLOG: Final = 512
"""Maximum connections that the operating system queues until we accept them."""

ACCEPT_RETRY: Final = 0.5
"""Seconds for which accepting pauses when the process is out of file descriptors."""

UNSENT_SIZE: Final = 1 << 17
"""Maximum unsent bytes of a connection in the operating system, where no policy can replace messages."""

_MAX_ACCEPTED: Final = 16
"""Maximum connections accepted in one turn of the event loop."""

_MAX_DISCARDED: Final = 1 << 16
"""Maximum bytes that are read from a refused connection before it is closed."""

_FAILED: Final = frozenset(
    getattr(errno, name)
    for name in (
        "EPROTO",
        "ENETDOWN",
        "ENOPROTOOPT",
        "EHOSTDOWN",
        "ENONET",
        "EHOSTUNREACH",
        "EOPNOTSUPP",
        "ENETUNREACH",
        "ECONNABORTED",
        "EINTR",
    )
    if hasattr(errno, name)  # ENONET is Linux's
)
"""What ``accept`` reports of the connection that it would return: the next one may be fine (accept(2))."""

_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Endpoint(NamedTuple):
    """Where a server listens: at ``host`` and ``port``, at the ``path`` of a Unix socket, or ``listening``.

    ``host`` is a name or an address; ``None`` stands for all addresses. ``ssl_context`` turns on TLS, and so
    does ``certificate``, which `Server.reload_certificates` reads again. ``reuse_port`` lets several
    processes listen on one port. ``proxy_protocol`` requires a PROXY header of version 2 at the start of each
    connection, from a trusted address. ``listening`` is a socket that listens already, and that other
    processes may have too; the server closes it, and does not remove its path. ``metrics``: answers
    ``/metrics``, ``/healthz`` and ``/readyz`` and nothing else, also while the server drains or is full; no
    other endpoint then answers ``/metrics``.
    """

    host: str | None = None
    port: int = 0
    path: str | None = None
    ssl_context: ssl.SSLContext | None = None
    reuse_port: bool = False
    proxy_protocol: bool = False
    certificate: Certificate | None = None
    listening: socket.socket | None = None
    metrics: bool = False

    @property
    def tls(self) -> ssl.SSLContext | None:
        """The context for a new connection; ``None`` without TLS."""
        return self.ssl_context if self.certificate is None else self.certificate.context

    @property
    def shared(self) -> bool:
        """Whether other processes may accept the connections that this one does not."""
        return self.listening is not None or (self.reuse_port and self.path is None)

    @property
    def name(self) -> str:
        """Its address, for messages."""
        if self.listening is not None:
            return "a passed socket"
        host = f"[{self.host}]" if ":" in (self.host or "") else self.host or "*"
        return self.path or f"{host}:{self.port}"


async def open_sockets(endpoint: Endpoint, send_timeout: float) -> list[socket.socket]:
    """Opens the listening sockets of an endpoint: one for each address of the host.

    Raises `OSError`, whose ``filename`` is the name of the endpoint, and `ValueError` for an empty host.
    """
    try:
        return await _open_sockets(endpoint, send_timeout)
    except OSError as error:
        error.filename = endpoint.name
        raise


async def _open_sockets(endpoint: Endpoint, send_timeout: float) -> list[socket.socket]:
    if endpoint.listening is not None:
        if endpoint.listening.family != socket.AF_UNIX:
            _set_options(endpoint.listening, send_timeout)
        endpoint.listening.setblocking(False)
        return [endpoint.listening]
    if endpoint.path is not None:
        return [_listen_unix(endpoint.path)]
    if not endpoint.host and endpoint.host is not None:
        # It may be a variable that is not set. Other libraries take it for all addresses.
        raise ValueError("the host is empty: 0.0.0.0 and :: are all addresses")
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(
            endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except UnicodeError as error:  # such as a part of a name with more than 63 characters
        raise OSError(errno.EINVAL, "not a host name") from error
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sockets.append(_listen(family, kind, protocol, address, endpoint.reuse_port, send_timeout))
    except OSError:
        for opened in sockets:
            opened.close()
        raise
    return sockets


def _listen(  # noqa: PLR0917 - what getaddrinfo returns
    family: int, kind: int, protocol: int, address: object, reuse_port: bool, send_timeout: float
) -> socket.socket:
    with _closed_on_error(socket.socket(family, kind, protocol)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        _set_options(listening, send_timeout)
        _bind(listening, address)
    return listening


def _set_options(listening: socket.socket, send_timeout: float) -> None:
    # Accepted sockets inherit both. The first ends connections whose peer acknowledges nothing.
    values = {"TCP_USER_TIMEOUT": int(send_timeout * 1000), "TCP_NOTSENT_LOWAT": UNSENT_SIZE}
    for name, value in values.items():
        option = getattr(socket, name, None)
        if option is not None:
            listening.setsockopt(socket.IPPROTO_TCP, option, value)


def _listen_unix(path: str) -> socket.socket:
    """Listens at a path; replaces the socket of a process that has ended."""
    with _closed_on_error(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as listening:
        if Path(path).exists() and stat.S_ISSOCK(os.stat(path).st_mode) and _is_stale(path):
            Path(path).unlink()
        _bind(listening, path)
    return listening


@contextmanager
def _closed_on_error(listening: socket.socket) -> Iterator[socket.socket]:
    try:
        yield listening
    except OSError:
        listening.close()
        raise


def _bind(listening: socket.socket, address: object) -> None:
    listening.bind(address)  # type: ignore[arg-type]  # from getaddrinfo, or a path
    listening.listen(LISTEN_BACKLOG)
    listening.setblocking(False)


def _is_stale(path: str) -> bool:
    """Whether no process listens at the path. One that hangs does, even if its queue is full."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) == errno.ECONNREFUSED


def _file_at(path: str | None) -> tuple[int, int] | None:
    """Returns what identifies the file at a path; ``None`` if there is none."""
    try:
        found = None if path is None else os.stat(path)
    except OSError:
        found = None
    return None if found is None else (found.st_dev, found.st_ino)


class Acceptor:
    """Accepts the connections of one listening socket."""

    def __init__(
        self,
        listening: socket.socket,
        endpoint: Endpoint,
        trusted: Trusted,
        hub: Hub,
        make_protocol: Callable[[str, float], CodecProtocol | bytes],
    ) -> None:
        self.socket = listening
        self._endpoint = endpoint
        self._trusted = trusted
        self._hub = hub
        self._make_protocol = make_protocol  # of an address and a deadline; returns bytes to refuse
        self._loop = asyncio.get_running_loop()
        needs_task = endpoint.proxy_protocol or endpoint.tls is not None
        self._make_transport = None if needs_task else socket_transport_maker(self._loop)
        self._retry: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._refused: dict[socket.socket, asyncio.TimerHandle] = {}  # they linger, until the timer
        self._file = _file_at(endpoint.path)  # another process may replace it
        self._loop.add_reader(listening, self._accept)
        self.is_listening = True

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    @property
    def url(self) -> str:
        """``http://…``, ``https://…`` or ``unix:…``."""
        address = self.socket.getsockname()
        if isinstance(address, bytes):
            return f"unix:@{os.fsdecode(address[1:])}"  # an abstract one, that was passed
        if not isinstance(address, tuple):
            return f"unix:{address}"
        scheme = "https" if self._endpoint.tls else "http"
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        return f"{scheme}://{host}:{address[1]}"

    def close(self) -> None:
        """Stops listening, and ends the connections that are still starting. Others stay open."""
        self._stop_listening()
        for task in self._tasks:
            task.cancel()
        for refused in list(self._refused):
            self._close_refused(refused)

    def leave_to_others(self) -> None:
        """Stops listening if other processes accept the connections. The server drains."""
        if self._endpoint.shared:
            if self._endpoint.listening is None:
                self._accept_rest()
            self._stop_listening()

    def _accept_rest(self) -> None:
        """Accepts those in our own queue, which the operating system would reset."""
        try:
            self._accept(LISTEN_BACKLOG)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            log(logging.ERROR, "accepting failed", reason=reason)

    def _stop_listening(self) -> None:
        if not self.is_listening:
            return
        self.is_listening = False
        self._loop.remove_reader(self.socket)
        if self._retry is not None:
            self._retry.cancel()
        self.socket.close()
        path = self._endpoint.path
        if path is not None and _file_at(path) == self._file:
            Path(path).unlink(missing_ok=True)

    def _accept(self, count: int = _MAX_ACCEPTED) -> None:
        for _ in range(count):
            try:
                connection, address = self.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _FAILED:
                    continue
                if error.errno not in _EXHAUSTED:
                    raise
                # What lingers gives its file descriptors back, some of it in the next turn of the loop.
                if not self._hub.lingering.close_all():
                    self._pause_accepting(error)
                return
            host = canonical_address(address[0]) if isinstance(address, tuple) else UNIX
            if self._make_transport is not None:
                self._start_now(connection, host, self._make_transport)
                continue
            task = self._loop.create_task(self._start(connection, host))
            self._tasks.add(task)
            task.add_done_callback(partial(self._forget_task, connection))

    def _start_now(
        self, connection: socket.socket, address: str, make_transport: Callable[..., object]
    ) -> None:
        """Starts a connection without a task: with neither TLS nor a PROXY header, it need not wait.

        A task would take a tenth of an opening handshake (`asyncio_private`).
        """
        connection.setblocking(False)
        deadline = self._hub.clock.time() + self._hub.limits.handshake_timeout
        made = self._make_protocol(address, deadline)
        if isinstance(made, bytes):
            self._refuse(connection, made)
        else:
            make_transport(connection, made)

    def _forget_task(self, connection: socket.socket, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            connection.close()  # the task may not have started

    def _pause_accepting(self, error: OSError) -> None:
        """Waits for file descriptors. The listening socket stays readable, so retrying at once would spin."""
        reason = os.strerror(error.errno or 0)
        log(logging.ERROR, "accepting paused", reason=reason, seconds=ACCEPT_RETRY)
        self._loop.remove_reader(self.socket)
        self._retry = self._loop.call_later(ACCEPT_RETRY, self._resume_accepting)

    def _resume_accepting(self) -> None:
        self._loop.add_reader(self.socket, self._accept)

    async def _start(self, connection: socket.socket, address: str) -> None:
        """Starts a connection after its PROXY header and its TLS handshake."""
        deadline = self._hub.clock.time() + self._hub.limits.handshake_timeout
        protocol: CodecProtocol | bytes | None = None
        try:
            connection.setblocking(False)
            context = self._endpoint.tls
            secure = context is not None
            if self._endpoint.proxy_protocol:
                address, behind_tls = await self._read_proxy_header(connection, address)
                secure = secure or behind_tls
            protocol = made = self._make_protocol(address, deadline)
            if isinstance(made, bytes):
                self._refuse(connection, made if context is None else b"")
                return
            made.scheme = "https" if secure else "http"
            transport, _ = await self._loop.connect_accepted_socket(
                lambda: made,
                connection,
                ssl=context,
                ssl_handshake_timeout=self._hub.limits.handshake_timeout if context else None,
            )
            if context is not None:
                shrink_tls_buffer(transport)
        except (OSError, TimeoutError, ProxyHeaderError) as error:
            # The TLS handshake failed, the peer left, or the PROXY header is wrong.
            reason = str(error) or type(error).__name__
            log(logging.INFO, "connection failed", address=address, reason=reason)
            self._hub.stats.unanswered[_failure(error)] += 1
            self._abandon(connection, protocol)
        except asyncio.CancelledError:
            self._abandon(connection, protocol)
            raise

    def _abandon(self, connection: socket.socket, protocol: CodecProtocol | bytes | None) -> None:
        connection.close()
        if isinstance(protocol, CodecProtocol) and protocol.on_lost is not None:
            protocol.on_lost(protocol)

    def _refuse(self, connection: socket.socket, answer: bytes) -> None:
        """Sends ``answer``, and closes later: closing with unread bytes would reset the connection."""
        try:
            connection.send(answer)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            connection.close()
        else:
            self._refused[connection] = self._loop.call_later(LINGER_TIMEOUT, self._close_refused, connection)
            self._hub.lingering.add(connection, partial(self._close_refused, connection))

    def _close_refused(self, connection: socket.socket) -> None:
        """Closes TCP; without a reset if all that the peer has sent is here to be read."""
        self._hub.lingering.discard(connection)
        self._refused.pop(connection).cancel()
        with suppress(OSError):
            connection.recv(_MAX_DISCARDED)
        connection.close()

    async def _read_proxy_header(self, connection: socket.socket, address: str) -> tuple[str, bool]:
        """Returns the client's address, and whether it used TLS to reach the proxy."""
        if address not in self._trusted:
            raise ProxyHeaderError("the proxy is not trusted")
        async with asyncio.timeout(self._hub.limits.handshake_timeout):
            prefix = await self._read_exactly(connection, PREFIX_SIZE)
            addresses = await self._read_exactly(connection, proxy_addresses_size(prefix))
        return proxied_address(prefix, addresses) or address, used_tls(prefix, addresses)

    async def _read_exactly(self, connection: socket.socket, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = await self._loop.sock_recv(connection, size - len(data))
            if not piece:
                raise ProxyHeaderError("the connection ended inside the PROXY header")
            data += piece
        return data


def _failure(error: Exception) -> str:
    """Returns what failed before the first request, for the metrics."""
    if isinstance(error, ProxyHeaderError):
        return "proxy header"
    if isinstance(error, TimeoutError):
        return "timeout"
    return "tls" if isinstance(error, ssl.SSLError) else "connection lost"
