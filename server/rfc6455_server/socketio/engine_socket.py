"""One client of a plain `Engine`: messages without events, over whichever transport the client has.

Left to others: the transports (`session`), the handler and its task (`engine_server`).
"""

import asyncio
from collections import deque
from typing import Any, Final

from rfc6455 import Request
from rfc6455_server.policies import Policy, check_policy
from rfc6455_server.socketio.encoded import EncodedPacket
from rfc6455_server.socketio.engine import Transport
from rfc6455_server.socketio.engine_packets import SEPARATOR, EngineError
from rfc6455_server.socketio.session import Session

_MESSAGE_COST: Final = 128  # bytes counted for an unread message besides its payload


class EngineSocket:
    """A client's session, as an application uses it.

    ``async for message in socket`` yields each message as str or bytes, and ends with the session.
    """

    awaits_acks = False  # there are none

    def __init__(self, session: Session, request: Request) -> None:
        self.request = request
        """The request that opened the session."""
        self.reason: str | None = None
        """Why the session ended, as in `engine.SessionClosed`; ``None`` while it is open."""
        self._session = session
        self._unread: deque[str | bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        session.receiver = self

    @property
    def id(self) -> str:
        """The session's id. It is a secret between the server and the client."""
        return self._session.sid

    @property
    def address(self) -> str:
        """The client's address; behind a trusted proxy, the one that the proxy reports."""
        return self._session.address

    @property
    def user(self) -> Any:
        """What the server's ``authorize`` returned for the request."""
        return self._session.user

    @property
    def transport(self) -> Transport:
        """``polling`` or ``websocket``; an upgrade changes it."""
        return self._session.engine.transport

    # Receiving.

    async def recv(self) -> str | bytes:
        """Returns the next message. Cancelling the call loses nothing.

        Raises `EngineError` when the session has ended and all messages are taken, or if another task is
        waiting here.
        """
        if self._waiter is not None:
            raise EngineError("another task is waiting in recv()", slug="concurrent-recv")
        while not self._unread:
            if self.reason is not None:
                raise EngineError(f"the session is closed: {self.reason}", slug="closed")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message = self._unread.popleft()
        self._session.release(len(message) + _MESSAGE_COST)
        return message

    def __aiter__(self) -> "EngineSocket":
        return self

    async def __anext__(self) -> str | bytes:
        if not self._unread and self.reason is not None:
            raise StopAsyncIteration
        try:
            return await self.recv()
        except EngineError as error:
            if error.slug == "closed":
                raise StopAsyncIteration from None
            raise

    def receive(self, message: str | bytes) -> None:
        """Takes a message of the session."""
        self._session.charge(len(message) + _MESSAGE_COST)
        self._unread.append(message)
        self._wake()

    def session_closed(self, reason: str) -> None:
        """Takes the end of the session."""
        self.reason = reason
        if self._unread:
            self._session.outliving.add(self)
        self._wake()

    def finish(self) -> None:
        """Closes the session, and drops what is unread: its handler has ended."""
        self.drop()
        self._session.outliving.discard(self)
        self._session.close()

    def drop(self) -> int:
        """Drops what is unread, and returns how many messages that were."""
        dropped = len(self._unread)
        self._session.release(sum(len(message) + _MESSAGE_COST for message in self._unread))
        self._unread.clear()
        return dropped

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # Sending.

    def post(self, message: str | bytes, *, policy: Policy | None = None) -> None:
        """Queues a message without waiting; does nothing if the session has ended.

        ``policy`` applies to a client that is behind; the default is the server's. Raises `ValueError` for a
        bad policy and for text with U+001E, which polling cannot carry, and `rfc6455.LocalProtocolError` for
        text with a surrogate.
        """
        if policy is not None:
            check_policy(policy)
        if isinstance(message, str) and SEPARATOR in message:
            raise ValueError("polling cannot carry text with U+001E")
        self._session.post_prepared(EncodedPacket([message]), policy)

    async def send(self, message: str | bytes) -> None:
        """Sends a message, and waits until it has left. Raises as `post`, and `EngineError` after the end."""
        if self.reason is None:
            self.post(message, policy="disconnect")
            await self._session.drain()
        if self.reason is not None:
            raise EngineError(f"the session is closed: {self.reason}", slug="closed")

    async def drain(self) -> None:
        """Waits until all that was posted has left our queue, or the session has ended."""
        await self._session.drain()

    def close(self) -> None:
        """Closes the session after the queued messages have been sent."""
        self._session.close()

    def __repr__(self) -> str:
        return f"<EngineSocket {self.transport} {self.address}>"
