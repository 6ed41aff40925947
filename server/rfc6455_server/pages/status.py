"""The figures of the start page: connections, rooms, messages per second; sent while the page is open."""

import asyncio
from typing import Final

from rfc6455_server.app import Server
from rfc6455_server.socketio import Socket, SocketIO

INTERVAL: Final = 1.0
"""Seconds between figures."""


def add_status(server: Server, io: SocketIO) -> None:
    """Adds the namespace ``/status``."""
    status = io.of("/status")

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
            status.volatile.emit(
                "figures",
                {
                    "connections": len(server.websockets),
                    "rooms": sum(map(len, server.registries)),
                    "messages": messages / INTERVAL,
                },
            )
        sending = False

    @status.on("connect")
    def connected(_: Socket) -> None:
        io.spawn(send())
