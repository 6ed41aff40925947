"""One session's requests by long-polling: the GET that waits for its answer, and the POST that is handled.

Left to others: the requests' checks and answers (`transports`), the rest of a session (`session`).

What answers a GET is taken out of the queues when its task runs, and not before: until then, a message for
many clients is held once for all of them.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterator
from math import inf
from typing import Final, NamedTuple

from rfc6455 import Request, State
from rfc6455_server.socketio.backlog import SessionBacklog
from rfc6455_server.socketio.engine import EngineSession
from rfc6455_server.socketio.engine_packets import EnginePacket, EnginePacketType, encode_payload
from rfc6455_server.socketio.inflow import Inflow
from rfc6455_server.websocket.hub import Hub

_TURN_PACKETS: Final = 64
_TURN_BYTES: Final = 1 << 16
"""Packets and bytes of a POST body that are handled before others have their turn."""


_NOOP: Final = encode_payload([EnginePacket(EnginePacketType.NOOP)])


class Answer(NamedTuple):
    """What is known of an answer to a GET when its text has been freed."""

    size: int
    """Bytes that the client is sent, before compression."""
    is_noop: bool

    @classmethod
    def of(cls, body: str) -> "Answer":
        return cls(len(body) if body.isascii() else len(body.encode()), body == _NOOP)

    @property
    def cost(self) -> int:
        """Bytes that it takes in memory: HTTP holds the body, and a copy with a head."""
        return 2 * self.size


class Polling(ABC):
    """The part of a `Session` that its GETs and POSTs use."""

    __slots__ = (
        "_answering",
        "_answers_ping",
        "_backlog",
        "_body",
        "_hub",
        "_inflow",
        "_poll",
        "_post_in_progress",
        "engine",
        "request",
    )

    def __init__(self, engine: EngineSession, hub: Hub, backlog: SessionBacklog) -> None:
        self.engine = engine
        self.request: Request | None = None
        """The request whose message is being received: the WebSocket's, or a POST."""
        self._hub = hub
        self._backlog = backlog
        self._inflow = Inflow(engine, hub.clock)
        self._poll: asyncio.Future[None] | None = None
        self._answering = 0  # bytes of answers that are made or written
        self._answers_ping = False  # whether one of them carries a PING
        self._post_in_progress = False
        self._body = 0  # bytes of the POST that is handled

    @property
    @abstractmethod
    def held(self) -> bool:
        """Whether messages are held back."""

    @abstractmethod
    def fail(self, reason: str) -> None:
        """Ends the session at once."""

    @abstractmethod
    def _pump(self) -> None:
        """Handles the engine's events and sends its packets."""

    @abstractmethod
    def _move_backlog(self, room: float = inf) -> None:
        """Passes waiting messages on, until ``room`` bytes wait in the engine."""

    @abstractmethod
    def _time(self) -> float:
        """Returns the time."""

    # GET.

    def start_poll(self) -> None:
        """Handles a GET. Raises `EngineError` if the answer is 400."""
        try:
            self.engine.start_poll(self._time())
        finally:
            self._pump()

    async def wait_poll(self) -> None:
        """Waits until there is something to answer the GET with."""
        waiter = self._poll = self._hub.loop.create_future()
        self._pump()
        try:
            await waiter
        finally:
            self._poll = None

    def lose_poll(self) -> None:
        """Handles that the client has left before its GET was answered; does nothing after `take_poll`."""
        self.engine.lose_poll()
        self._pump()

    def _answer_soon(self) -> None:
        if self._poll is not None and not self._poll.done():
            self._poll.set_result(None)

    @property
    def unsent(self) -> int:
        """Bytes that wait for the client, with what holds them."""
        return self._backlog.size + self.engine.buffered

    def take_poll(self) -> str:
        """Returns the body that answers the GET; an empty text if the reason to answer has gone meanwhile.

        The body counts until `end_poll` is called with its `Answer`.
        """
        if not self.held:
            self._move_backlog(self.engine.max_payload)
        packets = self.engine.packets_to_send("polling")
        if packets and packets[0].type is EnginePacketType.PING:
            self._answers_ping = True
        body = encode_payload(packets)
        self._answering += Answer.of(body).cost
        self._pump()
        return body

    def end_poll(self, answer: Answer, *, sent: bool) -> None:
        """Handles that an answer has been written. If it was not ``sent`` whole, ends the session: what the
        answer carried is lost, unless it was a NOOP, and the client may go on with its WebSocket."""
        self._answering = max(0, self._answering - answer.cost)
        if not sent and not answer.is_noop:
            self.fail("transport error")
            return
        self._backlog.taken += answer.size
        if self._is_ping_untaken:
            self.engine.extend_pong(self._hub.clock.time())
        self._answers_ping = False
        self._pump()

    @property
    def _is_ping_untaken(self) -> bool:
        """Whether the client may not have the PING yet: it is in an answer that is written, or behind it."""
        return self._answers_ping or self.engine.ping_queued

    # POST.

    def start_post(self) -> bool:
        """Handles the head of a POST. If another one is not answered yet, ends the session, returns False."""
        if self._post_in_progress:
            self.fail("transport error")
            return False
        self._post_in_progress = True
        return True

    def lose_post(self) -> None:
        """Ends the session: the body of a POST was refused or broke off, so that its messages are lost."""
        self._post_in_progress = False
        self.fail("transport error")

    async def receive_post(self, request: Request, body: bytes) -> None:
        """Handles a POST, in turns with others. Returns when the client may send the next one.

        Raises `EngineError` if the answer is 400.
        """
        self._body = len(body) * (2 if body.isascii() else 5)  # with its text
        try:
            packets = self.engine.start_payload(body, self._time())
            while self._receive_turn(packets, request):
                await self._inflow.wait()
                await asyncio.sleep(0)
            await self._inflow.wait()
        except asyncio.CancelledError:
            self.fail("transport error")  # the client has left, and takes the POST for lost
            raise
        finally:
            self._post_in_progress = False
            self._body = 0
            self._pump()

    def _receive_turn(self, packets: Iterator[EnginePacket], request: Request) -> bool:
        """Handles some of the packets of a POST; returns whether there may be more."""
        now = self._hub.clock.time()
        size, more = 0, False
        for count, packet in enumerate(packets, 1):
            self.engine.receive_packet(packet, now)
            size += len(packet.data)
            more = count == _TURN_PACKETS or size > _TURN_BYTES
            if more:
                break
        self.request = request
        self._pump()
        self.request = None
        return more and self.engine.state is not State.CLOSED
