"""A WebSocket server with rooms, on asyncio streams and the `rfc6455` codec; and a small client."""

from rfc6455_server.app import Server
from rfc6455_server.client import HandshakeRejectedError, connect
from rfc6455_server.rooms import Room, Rooms
from rfc6455_server.websocket import ConnectionClosedError, WebSocket

__all__ = [
    "ConnectionClosedError",
    "HandshakeRejectedError",
    "Room",
    "Rooms",
    "Server",
    "WebSocket",
    "connect",
]
