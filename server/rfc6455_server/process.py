"""A server as a process: signals, an orderly end and a forced one.

Left to others: what draining and stopping mean (`app`), what the service manager hears (`systemd`).

The first SIGINT or SIGTERM drains and stops, a second one ends the process. Nothing that a handler does can
prevent that: Python runs our signal handlers although the event loop may be blocked, and a thread of
`faulthandler` that needs neither the loop nor the interpreter ends the process if the loop does not.
"""

import asyncio
import faulthandler
import logging
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Final, Protocol

from rfc6455_server.logs import log
from rfc6455_server.systemd import ServiceManager

ABORT_TIME: Final = 3.0
"""Seconds after the second signal in which tasks and threads can end."""

END_TIME: Final = 10.0
"""Seconds after `Server.stop` in which the application's own tasks and threads can end."""

_STDERR: Final = 2

_SignalHandler = Callable[[int, FrameType | None], None]


class Served(Protocol):
    """What a process needs of its `Server`."""

    def reload_certificates(self) -> bool:
        """Reads the certificates again; returns whether there are any; may raise `OSError`."""

    async def drain(self, seconds: float) -> None:
        """Prepares for `stop`; may raise."""

    async def stop(self) -> None:
        """Closes every connection; may raise."""

    def abort(self) -> None:
        """Stops listening and ends every connection, at once."""


def run(server: Served, listen: Callable[[], Awaitable[None]], drain_time: float) -> None:
    """Listens, and serves until SIGINT or SIGTERM. Raises what ``listen`` and the server raise.

    If the process cannot end in an orderly way, it exits with status 1, after a traceback of each thread.
    """
    process = _Process(server, drain_time)
    try:
        with process.signals_handled():
            asyncio.run(process.serve(listen))
    finally:
        faulthandler.cancel_dump_traceback_later()


class _Process:
    def __init__(self, server: Served, drain_time: float) -> None:
        self._server = server
        self._drain_time = drain_time
        self._manager = ServiceManager.from_environment()
        self._is_ready = False  # listens, and does not drain
        self._stop_asked = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, listen: Callable[[], Awaitable[None]]) -> None:
        loop = asyncio.get_running_loop()
        self._first: asyncio.Future[str] = loop.create_future()
        self._second: asyncio.Future[str] = loop.create_future()
        self._loop = loop
        try:
            await listen()
            self._manager.ready()
            self._is_ready = True
            log(logging.INFO, "stopping", signal=await self._first)
            self._is_ready = False
            self._manager.stopping()
            await self._end()
        finally:
            self._server.abort()
            self._manager.close()

    async def _end(self) -> None:
        stopping = asyncio.create_task(self._drain_and_stop())
        ending: list[asyncio.Future[Any]] = [stopping, self._second]
        await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            _exit_in(END_TIME)
            await stopping
        else:
            log(logging.WARNING, "stopping at once")
            stopping.cancel()

    async def _drain_and_stop(self) -> None:
        try:
            await self._server.drain(self._drain_time)
        except Exception:
            await self._server.stop()
            raise
        await self._server.stop()

    # Signals. Handlers run in the main thread, wherever that is.

    @contextmanager
    def signals_handled(self) -> Iterator[None]:
        """Handles signals also while asyncio begins and ends."""
        handlers: dict[int, _SignalHandler] = dict.fromkeys(
            (signal.SIGINT, signal.SIGTERM), self._handle_stop
        )
        if hasattr(signal, "SIGHUP"):
            handlers[signal.SIGHUP] = self._handle_reload
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle_stop(self, number: int, _: FrameType | None) -> None:
        if self._loop is None:
            raise KeyboardInterrupt  # nothing has begun
        if self._stop_asked:
            _exit_in(ABORT_TIME)
        future = self._second if self._stop_asked else self._first
        self._stop_asked = True
        self._call_soon(_resolve, future, signal.Signals(number).name)

    def _handle_reload(self, _: int, __: FrameType | None) -> None:
        self._call_soon(self._reload)

    def _call_soon(self, callback: Callable[..., None], *arguments: object) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # it is closed
                self._loop.call_soon_threadsafe(callback, *arguments)

    def _reload(self) -> None:
        if self._is_ready:
            self._manager.reloading()
        try:
            found = self._server.reload_certificates()
        except OSError as error:
            log(logging.ERROR, "certificates not reloaded", reason=str(error))
        else:
            if found:
                log(logging.INFO, "certificates reloaded")
            else:
                log(logging.INFO, "no certificate to reload")
        if self._is_ready:
            self._manager.ready()


def _resolve(future: "asyncio.Future[str]", value: str) -> None:
    if not future.done():
        future.set_result(value)


def _exit_in(seconds: float) -> None:
    faulthandler.dump_traceback_later(seconds, exit=True, file=_STDERR)
