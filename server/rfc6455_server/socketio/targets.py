"""Targets: the sockets that something is sent to, and how.

Left to others: the sockets themselves (`sockets`), and how a namespace finds and reaches them (`namespaces`).
"""

import asyncio
from collections.abc import Coroutine
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, Self, TypeVar

from rfc6455_server.clock import Clock, wait_for_all
from rfc6455_server.limits import Limits, check_seconds
from rfc6455_server.policies import Policy, check_policy
from rfc6455_server.socketio.catchup import Turns
from rfc6455_server.socketio.packets import Packet, PacketType
from rfc6455_server.stats import Stats


class AckTimeoutError(TimeoutError):
    """Not all acknowledgements arrived in time; ``responses`` are those that did."""

    def __init__(self, responses: list[Any]) -> None:
        super().__init__("the acknowledgement did not arrive in time")
        self.responses = responses


class SocketServer(Protocol):
    """What namespaces and sockets need of their `SocketIO`."""

    limits: Limits
    stats: Stats
    turns: Turns
    """The turns that recovered clients take."""

    @property
    def clock(self) -> Clock:
        """The server's clock."""

    def run_handlers(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Runs ``work``, which never raises, in a task that the server waits for when it stops."""


class Recipient(Protocol):
    """What a target needs of a socket."""

    def expect_ack(self, id_: int) -> "asyncio.Future[Any]":
        """Returns a future that the acknowledgement with this id resolves."""

    def forget_ack(self, id_: int) -> None:
        """Ignores the acknowledgement with this id."""

    def join(self, *rooms: str) -> None:
        """Joins rooms."""

    def leave(self, *rooms: str) -> None:
        """Leaves rooms."""

    def disconnect(self, close: bool = False) -> None:
        """Disconnects the socket; with ``close``, also the client's session."""


AnySocket = TypeVar("AnySocket", bound=Recipient)


class TargetNamespace(Protocol[AnySocket]):
    """What a target needs of its namespace."""

    name: str

    @property
    def clock(self) -> Clock:
        """The server's clock."""

    def next_ack_id(self) -> int:
        """Returns an id for an event that asks for acknowledgements."""

    def select(self, target: "TargetOf[AnySocket]") -> list[AnySocket]:
        """Returns the sockets of a target."""

    def deliver(self, target: "TargetOf[AnySocket]", packet: Packet) -> None:
        """Sends a packet to the sockets of a target."""


def _names(rooms: tuple[str, ...]) -> frozenset[str]:
    for room in rooms:
        if not isinstance(room, str):
            raise TypeError(f"the name of a room is a string, and several are several arguments: {room!r}")
    return frozenset(rooms)


@dataclass(frozen=True, slots=True)
class TargetOf(Generic[AnySocket]):
    """`sockets.Target`, for any class of sockets."""

    namespace: TargetNamespace[AnySocket]
    rooms: AbstractSet[str] | None = None
    """The rooms whose members are meant; ``None`` stands for all sockets, an empty set for nobody."""
    excluded: frozenset[str] = frozenset()
    policy: Policy | None = None
    ack_timeout: float | None = None

    def to(self, *rooms: str) -> Self:
        """Adds the members of these rooms. The id of a socket is a room with that socket only.

        Without any room, as in ``io.to(*[])``, it adds nobody: the target is not all sockets any more.
        """
        return replace(self, rooms=(self.rooms or frozenset()) | _names(rooms))

    in_ = to

    def except_(self, *rooms: str) -> Self:
        """Excludes the members of these rooms."""
        return replace(self, excluded=self.excluded | _names(rooms))

    @property
    def volatile(self) -> Self:
        """Skips clients that are behind, or that poll and have no request waiting."""
        return replace(self, policy="volatile")

    def with_policy(self, policy: Policy) -> Self:
        """Sets what happens for clients that are behind; raises `ValueError` for a bad policy."""
        return replace(self, policy=check_policy(policy))

    def timeout(self, seconds: float) -> Self:
        """Sets how long `emit_with_ack` waits: seconds of the server's clock, at most an hour. Raises
        `ValueError` for other times."""
        check_seconds("the time", seconds)
        return replace(self, ack_timeout=seconds)

    def emit(self, event: str, *args: Any) -> None:
        """Sends an event to all of them without waiting. It is encoded once. Raises as `packets.encode`."""
        self.namespace.deliver(self, Packet(PacketType.EVENT, self.namespace.name, [event, *args]))

    async def emit_with_ack(self, event: str, *args: Any) -> list[Any]:
        """Sends an event to all of them, and returns their acknowledgements.

        Sockets that are disconnected before they answer are left out. Raises `AckTimeoutError`, with the
        acknowledgements that arrived, after the time that `timeout` set.
        """
        namespace = self.namespace
        id_ = namespace.next_ack_id()
        sockets = namespace.select(self)
        waiting = [socket.expect_ack(id_) for socket in sockets]
        try:
            namespace.deliver(self, Packet(PacketType.EVENT, namespace.name, [event, *args], id_))
            late = await wait_for_all(waiting, self.ack_timeout, namespace.clock)
        finally:
            for socket in sockets:
                socket.forget_ack(id_)
        responses = [future.result() for future in waiting if future.done() and future.exception() is None]
        if late:
            raise AckTimeoutError(responses)
        return responses

    def fetch_sockets(self) -> list[AnySocket]:
        """Returns the sockets that this target selects."""
        return self.namespace.select(self)

    def disconnect_sockets(self, close: bool = False) -> None:
        """Disconnects all of them; with ``close``, also their clients' sessions."""
        for socket in self.namespace.select(self):
            socket.disconnect(close)

    def sockets_join(self, *rooms: str) -> None:
        """Makes all of them join these rooms."""
        for socket in self.namespace.select(self):
            socket.join(*rooms)

    def sockets_leave(self, *rooms: str) -> None:
        """Makes all of them leave these rooms."""
        for socket in self.namespace.select(self):
            socket.leave(*rooms)
