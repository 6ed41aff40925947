"""The callbacks of `Server.on_drain` and `Server.on_stop`: all of them run, whatever the others raise."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from rfc6455_server.logs import log


async def guarded(callback: Callable[[], Awaitable[None]]) -> Exception | None:
    """Awaits a callback; logs and returns what it raises."""
    try:
        await callback()
    except asyncio.CancelledError as cancelled:
        if (task := asyncio.current_task()) is None or task.cancelling():
            raise  # it is our own end
        error: Exception = RuntimeError("it was cancelled, or a task that it awaited")
        error.__cause__ = cancelled
    except SystemExit as leaving:
        error = RuntimeError("it called sys.exit, although the server stops already")
        error.__cause__ = leaving
    except Exception as raised:  # noqa: BLE001 - whatever a callback raises
        error = raised
    else:
        return None
    log(logging.ERROR, "a callback failed while the server stopped", exception=error)
    return error


def raise_group(message: str, errors: Iterable[Exception | None]) -> None:
    """Raises an `ExceptionGroup` of the errors, if there are any."""
    raised = [error for error in errors if error is not None]
    if raised:
        raise ExceptionGroup(message, raised)
