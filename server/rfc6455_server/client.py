"""`connect`: a small asyncio client.

Implements: the client's part of RFC 6455 §4.1 that needs I/O: connecting, TLS with certificate verification
and server name (steps 3 to 5), and one deadline for all of it.
Left to others: the opening handshake itself (`rfc6455.ClientHandshake`), reconnecting.
"""

import asyncio
import ssl
from collections.abc import Generator, Iterable, Sequence
from types import TracebackType
from typing import Final, Unpack

from rfc6455 import (
    ClientHandshake,
    ConnectionOptions,
    HandshakeAccepted,
    HandshakeFailed,
    HandshakeRejected,
    PerMessageDeflate,
    Response,
    WebSocketError,
    parse_uri,
)
from rfc6455_server.limits import LimitOptions, Limits
from rfc6455_server.websocket.hub import Hub
from rfc6455_server.websocket.keepalive import Keepalive
from rfc6455_server.websocket.streams import CodecProtocol
from rfc6455_server.websocket.websocket import WebSocket

OPEN_TIMEOUT: Final = 10.0
"""Seconds for TCP, TLS and the opening handshake together."""


class HandshakeRejectedError(WebSocketError):
    """The server answered with a status other than 101; ``response`` is the head of its answer."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"the server answered {response.status}", slug="rejected")
        self.response = response


class connect:  # noqa: N801 - it is called like a function
    """Opens a connection: ``ws = await connect(uri)``, or ``async with connect(uri) as ws``.

    ``uri`` is ``ws://host[:port]/path`` (port 80 by default) or ``wss://…`` (port 443). For ``wss``, the
    certificate is verified, with ``ssl_context`` if it is given. ``subprotocols`` are offered in this order;
    ``compression`` is offered as well; ``headers`` are added to the request, and so is ``origin``.
    ``open_timeout``: seconds for TCP, TLS and the opening handshake together. ``limits`` overrides fields of
    `Limits`, for example ``{"ping_interval": 5}``; those for the connections and rooms of a server have no
    effect. The other keyword arguments go to `rfc6455.Connection`.

    Raises `rfc6455.LocalProtocolError` for a malformed URI, `OSError` if the connection fails,
    `HandshakeRejectedError` if the server rejects the handshake, `rfc6455.HandshakeError` if its answer is
    invalid, and `TimeoutError` after ``open_timeout`` seconds.
    """

    def __init__(
        self,
        uri: str,
        *,
        subprotocols: Sequence[str] = (),
        origin: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
        compression: PerMessageDeflate | None = None,
        ssl_context: ssl.SSLContext | None = None,
        open_timeout: float = OPEN_TIMEOUT,
        limits: LimitOptions | None = None,
        **options: Unpack[ConnectionOptions],
    ) -> None:
        self._uri = parse_uri(uri)
        self._limits = Limits(**(limits or LimitOptions()))
        options.setdefault("max_message_size", self._limits.max_message_size)
        self._handshake = ClientHandshake(
            self._uri.authority,
            self._uri.resource_name,
            subprotocols=subprotocols,
            origin=origin,
            headers=headers,
            deflate=compression,
            **options,
        )
        self._ssl_context = ssl_context
        self._open_timeout = open_timeout
        self._websocket: WebSocket | None = None

    def __await__(self) -> Generator[object, None, WebSocket]:
        return self._open().__await__()

    async def __aenter__(self) -> WebSocket:
        self._websocket = await self._open()
        return self._websocket

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._websocket is not None:
            await self._websocket.close()

    async def _open(self) -> WebSocket:
        context = (self._ssl_context or ssl.create_default_context()) if self._uri.secure else None
        async with asyncio.timeout(self._open_timeout):
            loop = asyncio.get_running_loop()
            transport, protocol = await loop.create_connection(
                lambda: CodecProtocol(loop),
                self._uri.host,
                self._uri.port,
                ssl=context,
                server_hostname=self._uri.host if context else None,
            )
            protocol.address = self._uri.host
            hub = Hub(self._limits)
            websocket = await shake_hands(self._handshake, transport, protocol, hub)
            if websocket.closed is None:
                keepalive = Keepalive(hub, max_groups=1)
                keepalive.add(websocket)
                websocket.on_closed.append(lambda _: keepalive.stop())
            return websocket


async def shake_hands(
    handshake: ClientHandshake, transport: asyncio.WriteTransport, protocol: CodecProtocol, hub: Hub
) -> WebSocket:
    """Performs the client's opening handshake. If it fails, closes TCP and raises as `connect` does."""
    try:
        transport.write(handshake.data_to_send())
        while (event := handshake.next_event()) is None:
            data = await protocol.reader.read_early()
            if data:
                handshake.receive_data(data)
            else:
                handshake.receive_eof()
        match event:
            case HandshakeAccepted(connection=connection):
                return WebSocket(connection, None, protocol, transport, hub)
            case HandshakeRejected(response=response):
                raise HandshakeRejectedError(response)
            case HandshakeFailed(error=error):
                raise error
    except BaseException:
        transport.abort()
        raise
