"""The figures of the start page: connections, rooms, messages per second; sent while the page is open."""

import asyncio
from typing import Annotated, Final, TypedDict

from rfc6455_server.app import Server
from rfc6455_server.socketio import Socket, SocketIO

INTERVAL: Final = 1.0
"""Seconds between figures."""


class Figures(TypedDict):
    """What the start page shows."""

    connections: int
    rooms: int
    messages: Annotated[float, "A second, both ways."]


def add_status(server: Server, io: SocketIO) -> None:
    """Adds the namespace ``/status``."""
    status = io.of("/status")

    @status.emits("figures")
    def figures_event(figures: Figures) -> None:
        """The figures, once a second."""

    sending = False

    async def send() -> None:
        nonlocal sending
        if sending:
            return
        sending = True
        while status.sockets:
            before = server.stats.messages_in + server.stats.messages_out
            await asyncio.sleep(INTERVAL)
            messages = server.stats.messages_in + server.stats.messages_out - before
            figures: Figures = {
                "connections": len(server.websockets),
                "rooms": sum(map(len, server.registries)),
                "messages": messages / INTERVAL,
            }
            figures_event.emit(status.volatile, figures)
        sending = False

    @status.on("connect")
    def connected(_: Socket) -> None:
        io.spawn(send())
