"""The Pings of one connection that the application sends and waits for.

Left to others: the Pings that keep a connection alive (`keepalive`).
"""

import asyncio

from rfc6455 import Connection, new_mask_key
from rfc6455_server.websocket.backlog import CALL_COST
from rfc6455_server.websocket.hub import Hub
from rfc6455_server.websocket.outbox import Outbox


class Pings:
    """The unanswered Pings, by their payload."""

    __slots__ = ("_connection", "_hub", "_outbox", "_unanswered")

    def __init__(self, connection: Connection, outbox: Outbox, hub: Hub) -> None:
        self._connection = connection
        self._outbox = outbox
        self._hub = hub
        self._unanswered: dict[bytes, tuple[asyncio.Future[float], float]] = {}

    def __len__(self) -> int:
        return len(self._unanswered)

    async def ping(self) -> float:
        """Sends a Ping, waits for its Pong, and returns the seconds between."""
        data = new_mask_key()
        answered: asyncio.Future[float] = self._hub.loop.create_future()
        self._unanswered[data] = (answered, self._hub.clock.time())
        self._outbox.reserve(CALL_COST)
        self._connection.send_ping(data)
        self._outbox.schedule(len(data))
        self._outbox.flush()
        try:
            return await answered
        finally:
            self._unanswered.pop(data, None)
            self._outbox.reserve(-CALL_COST)

    def receive_pong(self, data: bytes, now: float) -> None:
        """Finishes the Ping with this payload; does nothing if there is none."""
        answered, sent_at = self._unanswered.get(data, (None, 0.0))
        if answered is not None and not answered.done():
            answered.set_result(now - sent_at)

    def fail(self, error: Exception) -> None:
        """Raises ``error`` in every call of `ping` that waits: the connection has ended."""
        for answered, _ in self._unanswered.values():
            if not answered.done():
                answered.set_exception(error)
