"""Dynamic namespaces: a parent that stands for many, and the table of all namespaces.

Implements: dynamic namespaces of https://socket.io/docs/v4/namespaces.
Left to others: one namespace (`namespaces`), the clients that connect to it (`clients`).

A child is made when the first client connects to a name that its parent matches. It is removed when the last
one is gone, and none that was lost can come back.
"""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from rfc6455_server.listening.routing import compile_template
from rfc6455_server.logs import log
from rfc6455_server.rooms import Rooms
from rfc6455_server.socketio.namespaces import Namespace, NamespaceServer
from rfc6455_server.socketio.packets import Packet
from rfc6455_server.socketio.registering import ConnectError, call_handler
from rfc6455_server.socketio.sockets import Socket
from rfc6455_server.socketio.targets import TargetOf

MAX_CHILDREN: Final = 10_000
"""Maximum namespaces that a dynamic one has at a time."""

NamespaceMatch = Callable[[str, dict[str, Any]], bool | Awaitable[bool]]
"""A function, async or not, of a namespace's name and a client's ``auth``: whether the name is matched."""


class ParentNamespace(Namespace):
    """A dynamic namespace: its handlers and middlewares are those of each child, before the child's own, and
    what is sent to it reaches the sockets of all children.

    It has no sockets of its own. Its children take the policies that its `rooms` have when they are made, and
    call the callbacks of its `rooms`. With ``recovery``, they share the bytes that one namespace may keep.
    """

    def __init__(
        self, name: str, server: NamespaceServer, matches: re.Pattern[str] | NamespaceMatch, max_children: int
    ) -> None:
        super().__init__(name, server)
        self.children: dict[str, Namespace] = {}
        """The namespaces that exist now, by name."""
        self.max_children = max_children
        self._idle_children: dict[
            str, Namespace
        ] = {}  # children that were idle, those first that are so for longest
        self._matches = matches
        self._shares = 1

    async def match(self, name: str, auth: dict[str, Any]) -> Mapping[str, str] | None:
        """Returns the parameters in a name, or ``None`` if it is not matched. Raises as the function does."""
        if isinstance(self._matches, re.Pattern):
            match = self._matches.fullmatch(name)
            return None if match is None else match.groupdict(default="")
        return {} if await call_handler(self._matches, name, auth) else None

    def add_child(
        self, name: str, parameters: Mapping[str, str], forget: Callable[[Namespace], None]
    ) -> Namespace:
        """Makes a child, which calls ``forget`` when nobody uses it any more."""

        def unused(child: Namespace) -> None:
            del self.children[name]
            self._idle_children.pop(name, None)
            self._share_recovery()
            forget(child)

        def idle(child: Namespace) -> None:
            self._idle_children.pop(name, None)
            self._idle_children[name] = child

        child = self.children[name] = Namespace(
            name, self.server, parent=self, parameters=parameters, unused=unused, idle=idle
        )
        child.rooms.policies.update(self.rooms.policies)
        child.rooms.join_callbacks = self.rooms.join_callbacks
        child.rooms.leave_callbacks = self.rooms.leave_callbacks
        self._share_recovery()
        self._limit_recovery(child)
        child.check_soon()  # its client may have gone
        return child

    def has_room(self) -> bool:
        """Whether there may be one more child. A child that only lost clients need makes room for it."""
        while len(self.children) >= self.max_children:
            if not self._idle_children:
                return False
            self._idle_children.pop(next(iter(self._idle_children))).discard()
        return True

    def _share_recovery(self) -> None:
        """Divides the bytes that recovery may keep among the children."""
        count, before = len(self.children), self._shares
        # By powers of two, with some play, so that each new child costs little on average.
        while self._shares < count:
            self._shares *= 2
        while self._shares > 4 * count and self._shares > 1:
            self._shares //= 2
        if self._shares != before:
            for child in self.children.values():
                self._limit_recovery(child)

    def _limit_recovery(self, child: Namespace) -> None:
        if child.recovery is not None:
            share = max(1, self.server.recovery_bytes // self._shares)
            child.recovery.limit(share, self.clock.time())

    def select(self, target: TargetOf[Socket]) -> list[Socket]:
        children = list(self.children.values())
        return [socket for child in children for socket in child.select(replace(target, namespace=child))]

    def deliver(self, target: TargetOf[Socket], packet: Packet) -> None:
        for child in list(self.children.values()):
            child.deliver(replace(target, namespace=child), replace(packet, namespace=child.name))


class Namespaces:
    """The namespaces of a `SocketIO`, by name, with the children of the dynamic ones."""

    def __init__(self, server: NamespaceServer) -> None:
        self.parents: list[ParentNamespace] = []
        """The dynamic namespaces, in the order in which they are asked about a name."""
        self.server = server
        self.by_name: dict[str, Namespace] = {}
        """All that exist now, without the dynamic ones themselves."""
        self._registries: list[Rooms] = []

    def attach(self, registries: list[Rooms]) -> None:
        """Adds the rooms of all namespaces to ``registries``, now and from now on."""
        self._registries = registries
        for namespace in [*self.by_name.values(), *self.parents]:
            namespace.rooms.stats = self.server.stats
        registries += [namespace.rooms for namespace in self.by_name.values()]

    def get(self, name: str) -> Namespace | None:
        """Returns the namespace of that name, if it exists now."""
        return self.by_name.get(name)

    def documented(self) -> list[Namespace]:
        """Returns the namespaces that the application made, without the children of dynamic ones."""
        return [*(one for one in self.by_name.values() if one.parent is None), *self.parents]

    def of(self, name: str) -> Namespace:
        """Returns the namespace of that name, and makes it at first."""
        return self.by_name.get(name) or self._add(Namespace(name, self.server))

    def add_parent(
        self, pattern: str | re.Pattern[str] | NamespaceMatch, max_children: int
    ) -> ParentNamespace:
        """Adds a dynamic namespace; returns the same one for the same template."""
        if isinstance(pattern, str):
            found = next((parent for parent in self.parents if parent.name == pattern), None)
            if found is not None:
                return found
            parent = ParentNamespace(pattern, self.server, compile_template(pattern), max_children)
        else:
            name = pattern.pattern if isinstance(pattern, re.Pattern) else getattr(pattern, "__name__", "")
            parent = ParentNamespace(name, self.server, pattern, max_children)
            parent.address = None
        self.parents.append(parent)
        return parent

    async def find(self, name: str, auth: dict[str, Any]) -> Namespace:
        """Returns the namespace that a client connects to, and makes it if a dynamic one matches the name.

        Raises `ConnectError` if there is none.
        """
        for parent in self.parents:
            try:
                parameters = await parent.match(name, auth)
            except ConnectError:
                raise
            except Exception:  # noqa: BLE001 - whatever the function raises
                log(logging.ERROR, "namespace function failed", exception=True, namespace=name)
                raise ConnectError("internal error") from None
            found = self.by_name.get(name)  # another client may have come meanwhile
            if parameters is None or found is not None:
                if found is not None:
                    return found
                continue
            if not parent.has_room():
                log(logging.WARNING, "too many namespaces", namespace=name, parent=parent.name)
                raise ConnectError("too many namespaces")
            return self._add(parent.add_child(name, parameters, self._forget))
        raise ConnectError("Invalid namespace")

    def _add(self, namespace: Namespace) -> Namespace:
        self.by_name[namespace.name] = namespace
        self._registries.append(namespace.rooms)
        return namespace

    def _forget(self, namespace: Namespace) -> None:
        del self.by_name[namespace.name]
        self._registries.remove(namespace.rooms)
