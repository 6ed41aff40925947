"""`Engine`: Engine.IO alone, messages over polling and WebSocket, for those who need no events.

    engine = Engine()

    @engine.on_session
    async def echo(socket):
        async for message in socket:
            await socket.send(message)

    server.mount(engine)                         # at /engine.io/

Left to others: requests, sessions, tasks (`mounting`), one client (`engine_socket`).
"""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar, Unpack

from rfc6455 import Request
from rfc6455_server.limits import LimitExceededError
from rfc6455_server.logs import log
from rfc6455_server.socketio.engine_packets import EngineError
from rfc6455_server.socketio.engine_socket import EngineSocket
from rfc6455_server.socketio.mounting import Mounted
from rfc6455_server.socketio.options import EngineOptions, EngineOptionsDict
from rfc6455_server.socketio.session import Session

EngineHandler = Callable[[EngineSocket], Awaitable[None]]
"""An async function of a client's session, which is closed when it returns."""

_AnyHandler = TypeVar("_AnyHandler", bound=EngineHandler)


class Engine(Mounted):
    """An Engine.IO server, mounted on a `Server`. The keyword arguments are `EngineOptions`."""

    def __init__(self, *, path: str = "/engine.io/", **options: Unpack[EngineOptionsDict]) -> None:
        super().__init__(EngineOptions(path=path, **options))
        self._handler: EngineHandler | None = None

    def on_session(self, handler: _AnyHandler) -> _AnyHandler:
        """Registers the async function of an `EngineSocket` that serves each session.

        The session is closed when it returns, or raises, which is logged. Without a handler, a session is
        closed at once.
        """
        self._handler = handler
        return handler

    def _opened(self, session: Session, request: Request) -> None:
        self.run_handlers(self._serve(EngineSocket(session, request)))

    async def _serve(self, socket: EngineSocket) -> None:
        try:
            if self._handler is not None:
                await self._handler(socket)
        except LimitExceededError as error:
            log(logging.INFO, "session exceeded a limit", address=socket.address, reason=str(error))
        except Exception as error:  # noqa: BLE001 - whatever a handler raises
            if not (isinstance(error, EngineError) and error.slug == "closed"):
                # Otherwise, the handler used a session that had ended.
                log(logging.ERROR, "handler failed", exception=True, address=socket.address)
        finally:
            socket.finish()
