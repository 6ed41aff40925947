"""One connection until its request is answered: feeds the opening handshake, then accepts or refuses.

Left to others: the handshake itself (`rfc6455.ServerHandshake`), decisions (`routing`), HTTP requests
(`http`), running the handler (`listener`).

An opening needs no task, unless the server has an ``authorize`` hook.
"""

import asyncio
import logging
import math
from collections.abc import Sequence
from typing import Final, Protocol

from rfc6455 import (
    ConnectionOptions,
    HandshakeError,
    HandshakeFailed,
    Request,
    ServerHandshake,
)
from rfc6455_server.clock import Timer
from rfc6455_server.http.heads import ServedRequest, served
from rfc6455_server.http.refusals import record_refusal
from rfc6455_server.listening.proxy import forwarded_scheme
from rfc6455_server.listening.routing import STOPPING, Authorize, Match, Refusal, Router
from rfc6455_server.logs import log
from rfc6455_server.websocket.calls import Calls
from rfc6455_server.websocket.hub import FEW_BYTES, Hub, Slowness, head_size
from rfc6455_server.websocket.inbox import Inbox
from rfc6455_server.websocket.streams import LINGER_TIMEOUT, CodecProtocol
from rfc6455_server.websocket.websocket import WebSocket

_CHECK_INTERVAL: Final = 0.05
"""Minimum seconds between deadline checks."""

MAX_EARLY: Final = 1 << 16
"""Reading pauses when a client sends more bytes than this before its request is answered."""

_FAIL_EARLY: Final = 1 << 20
"""Never reached: the read that makes reading pause has at most a quarter of it."""


_COPIES: Final = 3
"""How often the bytes of a request are held, at most, until it is answered."""


class OpeningOwner(Protocol):
    """What an opening needs of the `Listener`: it hands its connection over."""

    draining: bool

    def identify_client(self, request: Request, protocol: CodecProtocol) -> bool:
        """Finds the client behind a trusted proxy; returns False if it has too many connections."""

    def serve_http(
        self, request: Request, data: bytes, protocol: CodecProtocol, transport: asyncio.WriteTransport
    ) -> None:
        """Takes over a connection whose request is answered over HTTP; ``data`` starts with the request."""

    def serve_websocket(self, websocket: WebSocket, match: Match) -> None:
        """Takes over a WebSocket that has just opened."""


class Openings:
    """The connections whose request is not answered, and one timer for all their deadlines.

    A timer for each would take some 3 of the 135 µs of an opening and a close (``benchmarks/handshake.py``).
    """

    def __init__(self, router: Router, hub: Hub, owner: OpeningOwner) -> None:
        self.router = router
        self.hub = hub
        self.owner = owner
        self._options = ConnectionOptions(max_message_size=hub.limits.max_message_size)
        self._deadlines: dict[Opening, float] = {}
        self._timer: Timer | None = None
        self._next_check = math.inf

    def __len__(self) -> int:
        return len(self._deadlines)

    def start(
        self, deadline: float, protocol: CodecProtocol, transport: asyncio.WriteTransport, data: bytes = b""
    ) -> None:
        """Waits for a request, the first of a connection or the next; ``data`` has arrived already."""
        handshake = ServerHandshake(
            deflate=self.router.site.compression, max_early_data=_FAIL_EARLY, **self._options
        )
        opening = Opening(handshake, protocol, transport, self)
        self.set_deadline(opening, deadline)
        protocol.reader.attach(opening)
        if data:
            opening.receive_data(data)

    def set_deadline(self, opening: "Opening", deadline: float) -> None:
        """Ends ``opening`` at ``deadline`` (the clock's time) unless it is discarded before."""
        self._deadlines[opening] = deadline
        if deadline < self._next_check:
            self._schedule_check(deadline)

    def discard(self, opening: "Opening") -> None:
        """Removes an opening; does nothing if it was removed before."""
        self._deadlines.pop(opening, None)

    def abort(self) -> None:
        """Ends all openings at once."""
        for opening in list(self._deadlines):
            opening.abort()
        self._cancel_check()

    def check_deadlines(self) -> None:
        """Ends the openings whose deadline has passed."""
        now = self.hub.clock.time()
        for opening, deadline in list(self._deadlines.items()):
            if deadline <= now:
                opening.time_out()
        self._cancel_check()
        if self._deadlines:
            self._schedule_check(max(min(self._deadlines.values()), now + _CHECK_INTERVAL))

    def _schedule_check(self, time: float) -> None:
        self._cancel_check()
        self._next_check = time
        delay = max(0.0, time - self.hub.clock.time())
        self._timer = self.hub.clock.call_later(delay, self.check_deadlines)

    def _cancel_check(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._next_check = math.inf


class Opening:
    """A connection until its request is answered: the sink of its bytes."""

    __slots__ = ("_answered", "_data", "_handshake", "_openings", "_protocol", "_task", "_transport")

    def __init__(
        self,
        handshake: ServerHandshake,
        protocol: CodecProtocol,
        transport: asyncio.WriteTransport,
        openings: Openings,
    ) -> None:
        self._handshake = handshake
        self._protocol = protocol
        self._transport = transport
        self._openings = openings
        self._data = bytearray()  # all bytes so far: `http` parses them again
        self._task: asyncio.Task[None] | None = None  # runs ``authorize``
        self._answered = False

    def receive_data(self, data: bytes) -> None:
        """Takes bytes from the network."""
        if self._answered:
            return  # refused: read and dropped, so that the client receives the answer and not a reset
        self._data += data
        if len(self._data) > FEW_BYTES:
            # The codec holds them too, as bytes that it has not used or as the fields of the request.
            self._openings.hub.budget.charge(self, _COPIES * len(self._data))
            if self._answered:
                return  # that was too much
        self._handshake.receive_data(data)
        if self._task is not None:
            if len(self._data) > MAX_EARLY:
                self._protocol.reader.pause()
            return
        match self._handshake.next_event():
            case Request() as request:
                self._judge(served(request, self._scheme_of(request)))
            case HandshakeFailed() as failure:
                self._handle_failure(failure)

    def receive_eof(self) -> None:
        """Closes TCP: the client left before its request was answered, or has read the refusal."""
        self._finish()
        self._transport.close()

    def time_out(self) -> None:
        """Ends the connection at its deadline."""
        if self._data and not self._answered:
            log(logging.INFO, "opening handshake timed out", address=self._protocol.address)
            self._openings.hub.stats.unanswered["timeout"] += 1
        self.abort()

    def abort(self) -> None:
        """Ends the connection at once."""
        self._finish()
        self._transport.abort()

    def disconnect_slow(self, slowness: Slowness) -> None:
        """Ends the connection at once: of all peers, most bytes wait for the answer to this one."""
        log(logging.INFO, "request dropped", address=self._protocol.address, reason=slowness)
        self.abort()

    def _scheme_of(self, request: Request) -> str:
        protocol = self._protocol
        return forwarded_scheme(request, protocol.scheme, protocol.peer, self._openings.router.site.trusted)

    def _judge(self, request: ServedRequest) -> None:
        openings = self._openings
        if not openings.owner.identify_client(request, self._protocol):
            self._refuse(request, Refusal(429, b"too many connections\n", reason="too many of the address"))
            return
        verdict: Refusal | Match
        try:
            verdict = openings.router.judge(request, draining=openings.owner.draining)
        except HandshakeError as error:
            verdict = _bad_request(error)
        except Exception:  # noqa: BLE001 - whatever the check of a route raises
            address = self._protocol.address
            log(
                logging.ERROR, "checking a request failed", exception=True, address=address, path=request.path
            )
            verdict = Refusal(500, b"internal error\n", reason="check failed")
        authorize = openings.router.site.authorize
        if isinstance(verdict, Refusal):
            self._refuse(request, verdict)
        elif authorize is None:
            self._accept(request, verdict, None)
        else:
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._authorize(authorize, request, verdict))

    async def _authorize(self, authorize: Authorize, request: Request, match: Match) -> None:
        """Lets the server's hook decide, within the deadline of the opening handshake."""
        try:
            verdict = await authorize(request)
        except HandshakeError as error:
            verdict = _bad_request(error)
        except Exception:  # noqa: BLE001 - whatever a hook raises
            address = self._protocol.address
            log(logging.ERROR, "authorize failed", exception=True, address=address, path=request.path)
            verdict = Refusal(500, b"internal error\n", reason="authorize failed")
        if self._openings.owner.draining:
            verdict = STOPPING  # since the hook was asked
        if self._answered:
            return  # the deadline has passed, and the hook has swallowed its cancellation
        self._task = None
        if isinstance(verdict, Refusal):
            self._refuse(request, verdict)
        else:
            self._accept(request, match, verdict)

    def _accept(self, request: Request, match: Match, user: object) -> None:
        openings = self._openings
        added: Sequence[tuple[str, str]] = ()
        try:
            if match.route.prepare is not None:
                added, arguments = match.route.prepare(request)
                match = Match(match.route, {**match.parameters, **arguments})
            connection = self._handshake.accept(
                openings.router.choose_subprotocol(request),
                headers=added,
                max_message_size=match.route.max_message_size,
            )
        except Exception:  # noqa: BLE001 - whatever a route's preparation raises
            address = self._protocol.address
            log(logging.ERROR, "accepting failed", exception=True, address=address, path=request.path)
            self._refuse(request, Refusal(500, b"internal error\n", reason="accepting failed"))
            return
        self._finish()
        self._transport.write(self._handshake.data_to_send())
        if len(self._data) > MAX_EARLY:
            self._protocol.reader.resume()
        make_inbox = Calls if isinstance(match.route.handler, type) else Inbox
        websocket = WebSocket(
            connection, request, self._protocol, self._transport, openings.hub, user, make_inbox
        )
        if len(self._data) > FEW_BYTES and (size := head_size(request)) > FEW_BYTES:
            websocket.reserve(size)
        openings.owner.serve_websocket(websocket, match)

    def _refuse(self, request: Request, refusal: Refusal) -> None:
        status = refusal.status
        try:
            self._handshake.reject(status, headers=refusal.headers, body=refusal.body)
        except Exception:  # noqa: BLE001 - whatever the codec raises for what a hook returned
            log(logging.ERROR, "refusal is not valid HTTP", exception=True, path=request.path)
            status = 500
            self._handshake.reject(status)
        self._send_refusal(status, request.path, refusal.reason)

    def _handle_failure(self, failure: HandshakeFailed) -> None:
        """Handles a request that is no valid opening handshake; the codec has queued an answer."""
        request = failure.request
        if request is not None and self._openings.router.is_http(failure):
            self._finish()
            self._openings.owner.serve_http(request, bytes(self._data), self._protocol, self._transport)
        else:
            self._send_refusal(failure.error.status, request.path if request else "", failure.error.slug)

    def _send_refusal(self, status: int, path: str, reason: str = "") -> None:
        """Sends the refusal that the codec has queued, and closes TCP once the client has had it.

        Closing while the client still sends would reset the connection, and the client could lose the
        answer (RFC 9112 §9.6). So we send EOF, and read on until the client closes.
        """
        openings, transport = self._openings, self._transport
        address = self._protocol.address
        record_refusal(openings.hub.stats, status, address=address, path=path, reason=reason)
        self._finish()
        self._transport.write(self._handshake.data_to_send())
        if not transport.can_write_eof():
            transport.close()  # TLS: waits for the end that the client sends
        elif not self._protocol.send_eof():
            return
        if len(self._data) > MAX_EARLY:
            self._protocol.reader.resume()
        openings.set_deadline(self, openings.hub.clock.time() + LINGER_TIMEOUT)
        openings.hub.lingering.add(self, self.abort)

    def _finish(self) -> None:
        """Takes no more bytes and has no deadline."""
        self._answered = True
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._openings.hub.budget.release(self)
        self._openings.discard(self)
        self._openings.hub.lingering.discard(self)


def _bad_request(error: HandshakeError) -> Refusal:
    return Refusal(error.status, f"{error}\n".encode(), reason=error.slug)
