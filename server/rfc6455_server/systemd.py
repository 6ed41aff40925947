"""What systemd passes to a service, and what it wants to hear: sockets, readiness, a watchdog.

Implements: sd_listen_fds(3), sd_notify(3) and sd_watchdog_enabled(3), as other service managers do too.
Without their environment variables, nothing happens.
"""

import asyncio
import logging
import os
import re
import socket
import time
from typing import Final

from rfc6455_server.logs import log

_FIRST_DESCRIPTOR: Final = 3

_NOTIFY_TIMEOUT: Final = 1.0
"""Seconds to wait for a service manager that does not read; the event loop stands still meanwhile."""


def passed_sockets() -> list[socket.socket]:
    """Returns the listening sockets that the service manager has opened for this process, once.

    They are for `Endpoint.listening`. Raises `ValueError` for a descriptor that is not a listening stream
    socket, such as a connection (``Accept=yes``).
    """
    owner, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)  # processes that we start shall not take them
    if owner != str(os.getpid()):
        return []
    if not (count.isascii() and count.isdigit()):
        raise ValueError(f"LISTEN_FDS is not a number: {count!r}")
    sockets: list[socket.socket] = []
    try:
        sockets += map(_listening_socket, range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(count)))
    except ValueError:
        for opened in sockets:
            opened.close()
        raise
    return sockets


def _listening_socket(descriptor: int) -> socket.socket:
    problem = f"descriptor {descriptor} of LISTEN_FDS is not a listening stream socket"
    try:
        found = socket.socket(fileno=descriptor)
    except OSError as error:
        raise ValueError(problem) from error
    listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if found.type != socket.SOCK_STREAM or not listens:
        found.close()
        raise ValueError(problem)
    found.set_inheritable(False)
    return found


class ServiceManager:
    """Tells the service manager about this process. ``address`` is its socket; if empty, nobody listens.

    ``watchdog``: seconds within which it must hear that the event loop runs, or ``None``.
    """

    def __init__(self, address: str = "", watchdog: float | None = None) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog = watchdog
        self._timer: asyncio.TimerHandle | None = None
        self._is_gone = False  # the last message did not reach it

    @classmethod
    def from_environment(cls) -> "ServiceManager":
        """Returns the one that NOTIFY_SOCKET and WATCHDOG_USEC name. A malformed time is as none."""
        address, time_text = os.environ.get("NOTIFY_SOCKET", ""), os.environ.get("WATCHDOG_USEC", "")
        is_ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        # At most 20 digits, as in systemd, which has 64 bits.
        microseconds = int(time_text) if re.fullmatch("[0-9]{1,20}", time_text) else 0
        return cls(address, microseconds / 1e6 if is_ours and microseconds else None)

    def ready(self) -> None:
        """Says that the server listens, and from now on that the event loop runs."""
        self._notify("READY=1")
        if self._address and self._watchdog is not None and self._timer is None:
            self._feed_watchdog()

    def reloading(self) -> None:
        """Says that the configuration is read again; `ready` follows."""
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Says that the server drains. The watchdog goes on."""
        self._notify("STOPPING=1")

    def close(self) -> None:
        """Stops feeding the watchdog."""
        if self._timer is not None:
            self._timer.cancel()

    def _feed_watchdog(self) -> None:
        assert self._watchdog is not None  # noqa: S101 - checked before the first time
        self._notify("WATCHDOG=1")
        self._timer = asyncio.get_running_loop().call_later(self._watchdog / 2, self._feed_watchdog)

    def _notify(self, state: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_NOTIFY_TIMEOUT)
                sender.connect(self._address)
                sender.send(state.encode())
        except OSError as error:
            if not self._is_gone:  # once, and not at each beat of the watchdog
                reason = error.strerror or str(error)
                log(logging.WARNING, "the service manager cannot be told", state=state, reason=reason)
            self._is_gone = True
        else:
            self._is_gone = False
