"""A WebSocket server with rooms, on asyncio streams and the `rfc6455` codec; and a small client."""

from rfc6455_server.app import Server
from rfc6455_server.client import HandshakeRejectedError, connect
from rfc6455_server.http.routes import HttpRequest, HttpResponse
from rfc6455_server.limits import LimitExceededError, Limits
from rfc6455_server.listening.acceptor import Endpoint
from rfc6455_server.listening.certificates import Certificate
from rfc6455_server.listening.routing import Refusal, bearer_token
from rfc6455_server.policies import coalesce
from rfc6455_server.rooms import Room, Rooms
from rfc6455_server.systemd import passed_sockets
from rfc6455_server.websocket.ending import ConnectionClosedError
from rfc6455_server.websocket.handler import Handler
from rfc6455_server.websocket.reports import Cause, CloseReport
from rfc6455_server.websocket.websocket import WebSocket

__all__ = [
    "Cause",
    "Certificate",
    "CloseReport",
    "ConnectionClosedError",
    "Endpoint",
    "Handler",
    "HandshakeRejectedError",
    "HttpRequest",
    "HttpResponse",
    "LimitExceededError",
    "Limits",
    "Refusal",
    "Room",
    "Rooms",
    "Server",
    "WebSocket",
    "bearer_token",
    "coalesce",
    "connect",
    "passed_sockets",
]
