"""Clients: one session each, and in it a `Socket` for each namespace that the client is connected to.

Implements: https://github.com/socketio/socket.io-protocol, connecting to namespaces and leaving them.
Left to others: packets (`packets`), the session (`session`), missed events (`recovery`).
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from rfc6455_server.clock import Clock
from rfc6455_server.logs import log
from rfc6455_server.socketio.catchup import CatchUp
from rfc6455_server.socketio.encoded import EncodedPacket
from rfc6455_server.socketio.handshake import Handshake
from rfc6455_server.socketio.ids import new_id
from rfc6455_server.socketio.msgpack import JSON_ONLY, refuse_msgpack
from rfc6455_server.socketio.namespaces import Namespace
from rfc6455_server.socketio.packet_json import memory_cost
from rfc6455_server.socketio.packets import Decoder, Packet, PacketError, PacketOptions, PacketType, encode
from rfc6455_server.socketio.parents import Namespaces
from rfc6455_server.socketio.registering import ConnectError, call_handler
from rfc6455_server.socketio.session import Session
from rfc6455_server.socketio.sockets import LEFT_BY_CLIENT, Socket

MAX_NAMESPACES: Final = 64
"""Maximum namespaces that one client is connected to; it is refused in more."""


# Code points of a message whose objects are never counted, and while fewer bytes of events wait than
# `_FEW_PENDING`. Counting takes 3 of 17 µs of an event of 300 bytes.
_SMALL: Final = 128
_MEDIUM: Final = 4096
_FEW_PENDING: Final = 1 << 14


@dataclass(slots=True)
class _Attempt:
    """A CONNECT that is not answered: a function or middlewares decide, or the client waits for its turn."""

    task: asyncio.Task[None]
    namespace: Namespace | None = None
    socket: Socket | None = None


class Client:
    """A client's session and its sockets. A session that connects to no namespace within
    ``connect_timeout`` is closed."""

    def __init__(
        self,
        session: Session,
        namespaces: Namespaces,
        make_handshake: Callable[[dict[str, Any], int], Handshake],
        connect_timeout: float,
        clock: Clock,
        *,
        options: PacketOptions,
    ) -> None:
        self.session = session
        self._namespaces = namespaces
        self._make_handshake = make_handshake
        self._options = options
        self._decoder = Decoder(options)
        self._sockets: dict[str, Socket] = {}
        self._connecting: dict[str, _Attempt] = {}
        self._kept: dict[str, int] = {}  # bytes of the handshake with each namespace
        self._size = 0  # bytes of the messages of a packet that is not complete
        self._was_refused = False
        self._clock = clock
        self._connect_timeout = connect_timeout
        self._start_timer()
        session.receiver = self

    # Receiving.

    @property
    def awaits_acks(self) -> bool:
        """Whether somebody waits for an acknowledgement of this client."""
        return any(socket.awaits_ack for socket in self._sockets.values())

    def receive(self, message: str | bytes) -> None:
        """Handles a message of the session."""
        size, self._size = self._size + self._cost(message), 0
        try:
            packet = self._decoder.receive(message)
            if packet is None:
                self._size = size
            if packet is None or isinstance(message, bytes):
                self.session.set_incoming(self._decoder.held)
            if packet is not None:
                self._receive_packet(packet, size, message)
        except PacketError as error:
            if isinstance(message, bytes) and self._refuse_msgpack(message):
                return
            log(logging.INFO, "client broke the protocol", address=self.session.address, reason=str(error))
            self.session.fail("parse error")

    def _cost(self, message: str | bytes) -> int:
        """Returns the bytes of a message in memory; `EVENT_OVERHEAD` covers the objects of a small one."""
        size = len(message)
        if isinstance(message, bytes) or size <= _SMALL:
            return size
        if size <= _MEDIUM and self.session.pending < _FEW_PENDING:
            return size
        return memory_cost(message)

    def _refuse_msgpack(self, message: bytes) -> bool:
        """Tells a client that speaks msgpack that we do not; returns False for any other message."""
        answer = None if self._sockets or self._connecting else refuse_msgpack(message)
        if answer is None:
            return False
        log(logging.INFO, "client refused", address=self.session.address, reason=JSON_ONLY)
        self.session.post_prepared(EncodedPacket([answer]), "disconnect")
        self.session.close("parse error")
        return True

    def _receive_packet(self, packet: Packet, size: int, message: str | bytes) -> None:
        name = packet.namespace
        socket = self._sockets.get(name)
        match packet.type:
            case PacketType.CONNECT:
                assert isinstance(message, str)  # noqa: S101 - a CONNECT has no attachments
                self._connect(name, packet.data or {}, memory_cost(message))
            case PacketType.EVENT | PacketType.ACK if socket is not None:
                socket.receive(packet, size)
            case PacketType.DISCONNECT if socket is not None:
                socket.end(LEFT_BY_CLIENT)
            case PacketType.DISCONNECT if name in self._connecting:
                self._give_up(name, LEFT_BY_CLIENT)
            case PacketType.CONNECT_ERROR:
                raise PacketError("a CONNECT_ERROR from a client", slug="unexpected-packet")
            case _ if not self._sockets and not self._connecting:
                raise PacketError("a packet before CONNECT", slug="unexpected-packet")
            case _:
                pass  # the client sent it before it knew that the socket was disconnected

    # Connecting.

    def _connect(self, name: str, auth: dict[str, Any], size: int) -> None:
        if name in self._sockets or name in self._connecting:
            return  # the official client sends CONNECT again if its application reconnects before the answer
        if len(self._sockets) + len(self._connecting) >= MAX_NAMESPACES:
            # The official client would come back after the end of its session, and ask for as many again.
            log(logging.INFO, "too many namespaces", address=self.session.address, namespace=name)
            self._refuse(name, ConnectError("too many namespaces"))
            return
        if size > self._options.max_auth_size:
            log(logging.INFO, "auth is too large", address=self.session.address, namespace=name)
            self._refuse(name, ConnectError("auth is too large"))
            return
        handshake = self._make_handshake(auth, size)
        self._kept[name] = handshake.size
        self.session.keep(handshake.size)
        namespace = self._namespaces.get(name)
        if namespace is not None:
            self._enter(namespace, auth, handshake)
        elif self._namespaces.parents:
            self._begin(name, self._find(name, auth, handshake))
        else:
            self._refuse(name, ConnectError("Invalid namespace"))

    async def _find(self, name: str, auth: dict[str, Any], handshake: Handshake) -> None:
        """Looks for a dynamic namespace of that name, and connects the client to its child."""
        attempt = self._connecting[name]
        namespace = error = None
        try:
            namespace = await self._namespaces.find(name, handshake.auth)
        except ConnectError as refusal:
            error = refusal
        if self._connecting.get(name) is not attempt:
            return  # the client has given up, and a function has swallowed its cancellation
        self._end(name)
        if namespace is not None:
            self._enter(namespace, auth, handshake)
        elif error is not None:
            self._refuse(name, error)

    def _enter(self, namespace: Namespace, auth: dict[str, Any], handshake: Handshake) -> None:
        if namespace.recovery is not None and isinstance(auth.get("pid"), str):
            self._begin(namespace.name, self._recover(namespace, auth, handshake), namespace)
        else:
            self._connect_new(namespace, handshake)

    def _connect_new(self, namespace: Namespace, handshake: Handshake) -> None:
        socket = Socket(namespace, self, new_id(), handshake)
        if namespace.all_middlewares:
            self._begin(namespace.name, self._run_middlewares(namespace, socket), namespace, socket)
        else:
            self._accept(socket)

    def _begin(
        self,
        name: str,
        work: Coroutine[Any, Any, None],
        namespace: Namespace | None = None,
        socket: Socket | None = None,
    ) -> None:
        """Begins an attempt to connect; ``work`` decides about it."""
        if namespace is not None:
            namespace.hold()
        self._connecting[name] = _Attempt(self._namespaces.server.run_handlers(work), namespace, socket)

    def _end(self, name: str) -> _Attempt:
        attempt = self._connecting.pop(name)
        if attempt.namespace is not None:
            attempt.namespace.release()
        return attempt

    def _refuse(self, name: str, error: ConnectError) -> None:
        self._was_refused = True
        self._forget(name)
        self._namespaces.server.stats.socket_connects["refused"] += 1
        self.send(Packet(PacketType.CONNECT_ERROR, name, error.answer))

    async def _recover(self, namespace: Namespace, auth: dict[str, Any], handshake: Handshake) -> None:
        """Connects a client that lost its connection, and sends it what it missed, if that is still kept."""
        recovery, private_id = namespace.recovery, auth["pid"]
        assert recovery is not None  # noqa: S101 - `_connect` has looked
        attempt = self._connecting[namespace.name]
        # Clients that return together take turns; a client recovers one namespace after the other.
        await namespace.server.turns.take()
        await self.session.wait_released()
        predecessor = namespace.by_private_id.get(private_id)
        if predecessor is not None:
            # The server has not yet noticed that the connection is lost.
            predecessor.fail_session()
        recovered = recovery.restore(private_id, auth.get("offset"), namespace.server.clock.time())
        namespace.server.stats.socket_recoveries["recovered" if recovered else "not recovered"] += 1
        if recovered is None:
            self._end(namespace.name)
            self._connect_new(namespace, handshake)
            return
        attempt.socket = socket = Socket(namespace, self, recovered.session.id, handshake)
        socket.restore(recovered)
        if namespace.server.recovery_skips_middlewares:
            self._end(namespace.name)
            self._accept(socket)
        else:
            await self._run_middlewares(namespace, socket)

    async def _run_middlewares(self, namespace: Namespace, socket: Socket) -> None:
        error = None
        try:
            for middleware in namespace.all_middlewares:
                await call_handler(middleware, socket)
        except ConnectError as refusal:
            error = refusal
        except Exception:  # noqa: BLE001 - whatever a middleware raises refuses the client
            log(logging.ERROR, "middleware failed", exception=True, address=self.session.address)
            error = ConnectError("internal error")
        if socket.lost is not None:
            await self.session.wait_released()  # another namespace may have been recovered meanwhile
        attempt = self._connecting.get(namespace.name)
        if attempt is None or attempt.socket is not socket:
            return  # the client has given up, and a middleware has swallowed its cancellation
        self._end(namespace.name)
        if error is None:
            self._accept(socket)
            return
        socket.abandon("refused")
        self._refuse(namespace.name, error)

    def _forget(self, name: str) -> None:
        """Counts the handshake with a namespace no longer: the client is refused or gone there."""
        self.session.keep(-self._kept.pop(name, 0))

    def _give_up(self, name: str, reason: str) -> None:
        """Ends an attempt to connect: the client has gone, or has left the namespace."""
        self._forget(name)
        attempt = self._end(name)
        attempt.task.cancel()
        if attempt.socket is not None:
            attempt.socket.abandon(reason)

    def _accept(self, socket: Socket) -> None:
        namespace, lost = socket.namespace, socket.lost
        self._timer.cancel()
        self._sockets[namespace.name] = socket
        socket.start()
        if lost is None:
            return
        # What it missed follows CONNECT, and is followed by what is sent from now on, also by callbacks.
        missed = namespace.missed(socket.seen, lost.history)
        catch_up = CatchUp(self.session, missed, namespace.server.turns)
        self.session.hold(catch_up.finish)
        socket.rejoin(lost)
        catch_up.start(namespace.server.run_handlers)

    def _close_unconnected(self) -> None:
        if self._connecting:
            self._start_timer()  # a middleware decides
        elif not self._sockets:
            if self._was_refused:
                log(logging.INFO, "refused client did not leave in time", address=self.session.address)
            else:
                log(logging.INFO, "no CONNECT in time", address=self.session.address)
            self.session.fail("forced close")  # nothing waits for it that it would have to fetch first

    def _start_timer(self) -> None:
        self._timer = self._clock.call_later(self._connect_timeout, self._close_unconnected)

    # Sending.

    def send(self, packet: Packet) -> None:
        """Sends a packet without waiting; a client whose backlog is full is disconnected."""
        self.session.post_prepared(EncodedPacket(encode(packet, self._options)), "disconnect")

    # The end.

    def remove(self, socket: Socket) -> None:
        """Removes a socket that was disconnected."""
        self._sockets.pop(socket.namespace.name, None)
        self._forget(socket.namespace.name)

    def disconnect(self) -> None:
        """Disconnects all sockets, and closes the session."""
        for socket in list(self._sockets.values()):
            socket.disconnect()
        self.session.close()

    def session_closed(self, reason: str) -> None:
        """Ends the sockets: the session has ended."""
        self._timer.cancel()
        for name in list(self._connecting):
            self._give_up(name, reason)
        for socket in list(self._sockets.values()):
            socket.end("forced server close" if reason == "forced close" else reason)
