"""A Socket.IO client over connections in memory, for tests that decide which bytes arrive, and when.

It keeps what the official client keeps: the private id, and as offset the last argument of the last event
that it has seen, if that is a string. Other than the official client, it comes back only when it is told to.

While `reading` is true, it handles bytes as they arrive. Otherwise they wait in the connection, until
`take` handles some of them, so that a connection can be cut at any byte.
"""

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any, Literal, cast

from rfc6455 import (
    BinaryMessage,
    ClientHandshake,
    CloseReceived,
    Connection,
    ConnectionClosed,
    HandshakeAccepted,
    TextMessage,
)
from rfc6455_server.socketio.packets import Decoder, Packet, PacketType, encode
from rfc6455_server.testing import MemoryTransport, TestClient

TransportName = Literal["websocket", "polling"]
Loss = Literal["fin", "reset", "vanish"]

_MAX_TURNS = 50_000


async def come_to_rest() -> None:
    """Runs the event loop until nothing is left to do, unless the clock moves."""
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
    for _ in range(_MAX_TURNS):
        await asyncio.sleep(0)
        if not ready:
            return
    raise AssertionError("the event loop does not come to rest")


class Wire(asyncio.Protocol):
    """One TCP connection of a client. ``receive`` takes its bytes, ``lost`` its end."""

    def __init__(self, client: "ModelClient", receive: Callable[[bytes], None]) -> None:
        self._client = client
        self._receive = receive
        self._held = bytearray()
        self._ended = False
        self._wanted = 0
        self.open = True
        """False once the client has no more interest in it."""
        self.transport: MemoryTransport = client.test.open(self, client.address)
        if not client.reading:
            self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        self._held += data
        if self._client.reading:
            self.take()
        elif len(self._held) >= self._wanted:
            self.transport.pause_reading()

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        self._ended = True
        if self._client.reading:
            self.take()

    def fetch(self, limit: int) -> None:
        """Reads as soon as possible until ``limit`` bytes are here, or a little more."""
        self._wanted = limit
        if len(self._held) < limit:
            self.transport.resume_reading()

    def take(self, limit: int | None = None) -> None:
        """Handles bytes that have arrived, at most ``limit``; then the end, if all are handled."""
        data = bytes(self._held[:limit])
        del self._held[:limit]
        if data and self.open:
            self._receive(data)
        if self._ended and not self._held and self.open:
            self._client.lose(self)

    def close(self, how: Loss = "reset") -> None:
        """Ends the connection in one of three ways."""
        self.open = False
        match how:
            case "fin":
                self.transport.resume_reading()  # otherwise it would not see the other end's EOF
                self.transport.close()
            case "reset":
                self.transport.abort()
            case "vanish":
                self.transport.vanish()


class _Answer:
    """Collects the bytes of one HTTP answer."""

    def __init__(self, done: Callable[[int, str], None]) -> None:
        self._done = done
        self._data = bytearray()

    def receive(self, data: bytes) -> None:
        self._data += data
        head, separator, body = bytes(self._data).partition(b"\r\n\r\n")
        if not separator:
            return
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if len(body) >= int(fields.get(b"content-length", b"0")):
            self._done(int(head.split(b" ")[1]), body.decode())


class ModelClient:
    """A client in the namespace ``"/"``. Subclasses override `on_connect`, `on_event` and `on_loss`."""

    def __init__(
        self, test: TestClient, *, auth: dict[str, Any] | None = None, path: str = "/socket.io/"
    ) -> None:
        self.test = test
        self.auth = auth or {}
        self.path = path
        self.address = "192.0.2.1"
        self.headers: list[tuple[str, str]] = []
        """Header fields of all its requests."""
        self.reading = True
        # What the official client keeps when it loses its connection.
        self.private_id: str | None = None
        self.offset: str | None = None
        # The session.
        self.open = False
        """Whether it has a session, or is opening one."""
        self.connected = False
        """Whether the server has answered CONNECT."""
        self.id: str | None = None
        self.recovered = False
        self.transport: TransportName = "websocket"
        self.refused: Any = None
        """The data of a CONNECT_ERROR."""
        self.stall_after_connect = False
        """Whether to stop reading as soon as CONNECT is sent."""
        self._reset()

    def _reset(self) -> None:
        self.open = self.connected = False
        self.wires: list[Wire] = []
        self._decoder = Decoder()
        self._early: list[Packet] = []  # events before CONNECT
        self._session = ""
        self._outgoing: list[str | bytes] = []
        self._get: Wire | None = None
        self._post: Wire | None = None
        self._websocket: Wire | None = None
        self._codec: Connection | None = None
        self.upgrading: Literal["no", "probing", "pausing"] = "no"

    # For subclasses.

    def on_connect(self) -> None:
        """The server has answered CONNECT."""

    def on_event(self, name: str, arguments: list[Any]) -> Any:
        """An event has arrived; returns the values that acknowledge it, if the server asks."""

    def on_loss(self) -> None:
        """The session has ended, not by `cut`."""

    # Opening.

    def start(self, transport: TransportName) -> None:
        """Opens a session, and sends CONNECT as soon as it is open."""
        assert not self.open
        self._reset()
        self.open = True
        self.transport = transport
        if transport == "websocket":
            self._open_websocket("")
        else:
            self._poll()

    def upgrade(self) -> None:
        """Opens a WebSocket for a session that polls; the rest of the upgrade follows as bytes arrive."""
        self.upgrading = "probing"
        self._open_websocket(f"&sid={self._session}")

    @property
    def can_upgrade(self) -> bool:
        return self.connected and self.transport == "polling" and self.upgrading == "no"

    def _open_websocket(self, query: str) -> None:
        target = f"{self.path}?EIO=4&transport=websocket{query}"
        handshake = ClientHandshake("test", target, headers=self.headers)
        self._codec = None

        def receive(data: bytes) -> None:
            if self._codec is None:
                handshake.receive_data(data)
                event = handshake.next_event()
                if event is None:
                    return
                if not isinstance(event, HandshakeAccepted):
                    self.lose(wire)
                    return
                self._codec = event.connection
                if query:
                    self._write_websocket("2probe")
            else:
                self._codec.receive_data(data)
            self._receive_websocket(wire, self._codec)

        self._websocket = wire = self._add(receive)
        wire.transport.write(handshake.data_to_send())

    def _add(self, receive: Callable[[bytes], None]) -> Wire:
        wire = Wire(self, receive)
        self.wires.append(wire)
        return wire

    # Receiving.

    def _receive_websocket(self, wire: Wire, codec: Connection) -> None:
        for event in codec.events():
            match event:
                case TextMessage(data=data) | BinaryMessage(data=data):
                    self._receive(data)
                case CloseReceived() | ConnectionClosed():
                    wire.transport.write(codec.data_to_send())
                    self.lose(wire)
                    return
                case _:
                    pass
            if not wire.open:
                return
        wire.transport.write(codec.data_to_send())

    def _receive(self, message: str | bytes) -> None:
        """Handles an Engine.IO packet."""
        if isinstance(message, bytes):
            self._receive_packet(message)
            return
        match message[0], message[1:]:
            case "0", data:
                self._session = json.loads(data)["sid"]
                self._say_connect()
            case "1", _:
                self._lose()
            case "2", data:
                self.send_raw("3" + data)
            case "3", "probe":
                self.upgrading = "pausing"
                self._finish_upgrade()
            case "4", data:
                self._receive_packet(data)
            case "6", _:
                pass
            case _:
                raise AssertionError(message)

    def _receive_packet(self, message: str | bytes) -> None:
        packet = self._decoder.receive(message)
        if packet is None:
            return
        match packet.type:
            case PacketType.CONNECT:
                self.connected = True
                self.id = packet.data["sid"]
                private_id = packet.data.get("pid")
                self.recovered = private_id is not None and private_id == self.private_id
                self.private_id = private_id
                self.on_connect()
                early, self._early = self._early, []
                for event in early:
                    self._see(event)
            case PacketType.EVENT if self.connected:
                self._see(packet)
            case PacketType.EVENT:
                self._early.append(packet)
            case PacketType.DISCONNECT:
                self._lose()
            case PacketType.CONNECT_ERROR:
                self.refused = packet.data
                self._lose()
            case _:
                pass  # an acknowledgement

    def _see(self, packet: Packet) -> None:
        name, *arguments = packet.data
        answer = self.on_event(name, arguments)
        # With an acknowledgement, the official client's last argument is a function.
        if self.private_id is not None and packet.id is None and isinstance(packet.data[-1], str):
            self.offset = packet.data[-1]
        if packet.id is not None and self.open:
            self.send(Packet(PacketType.ACK, "/", [answer], packet.id))

    # Sending.

    def _say_connect(self) -> None:
        auth = dict(self.auth)
        if self.private_id is not None:
            auth = {
                "pid": self.private_id,
                **({} if self.offset is None else {"offset": self.offset}),
                **auth,
            }
        self.send(Packet(PacketType.CONNECT, "/", auth or None))
        if self.stall_after_connect:
            self.stall()
        if self.transport == "polling":
            self._poll()

    def emit(self, name: str, *arguments: Any) -> None:
        self.send(Packet(PacketType.EVENT, "/", [name, *arguments]))

    def leave(self) -> None:
        """Disconnects from the namespace, and keeps the session."""
        self.send(Packet(PacketType.DISCONNECT))

    def send(self, packet: Packet) -> None:
        messages = encode(packet)
        self.send_raw(*("4" + part if isinstance(part, str) else part for part in messages))

    def send_raw(self, *messages: str | bytes) -> None:
        """Sends Engine.IO packets; over polling, as soon as no POST is in progress."""
        self._outgoing += messages
        self._flush()

    def _flush(self) -> None:
        if not self._outgoing:
            return
        if self.transport == "websocket":
            messages, self._outgoing = self._outgoing, []
            self._write_websocket(*messages)
        elif self._post is None and self.upgrading != "pausing":
            self._post = self._add(_Answer(self._posted).receive)
            self._post.transport.write(self._take_post())

    def _write_websocket(self, *messages: str | bytes) -> None:
        assert self._codec is not None
        assert self._websocket is not None
        for message in messages:
            if isinstance(message, str):
                self._codec.send_text(message)
            else:
                self._codec.send_binary(message)
        self._websocket.transport.write(self._codec.data_to_send())

    # Polling.

    def _url(self) -> str:
        return f"{self.path}?EIO=4&transport=polling" + (f"&sid={self._session}" if self._session else "")

    def _head(self, method: str, length: int) -> bytes:
        fields = [("Host", "test"), ("Content-Length", str(length)), *self.headers]
        lines = [f"{method} {self._url()} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
        return "\r\n".join([*lines, "", ""]).encode()

    def _poll(self) -> None:
        if self._get is None and self.open and self.upgrading != "pausing" and self.transport == "polling":
            self._get = self._add(_Answer(self._polled).receive)
            self._get.transport.write(self._head("GET", 0))

    def _polled(self, status: int, body: str) -> None:
        self._drop(self._get)
        self._get = None
        if status != 200:
            self._lose()
            return
        for part in body.split("\x1e"):
            if not self.open:
                return
            self._receive(base64.b64decode(part[1:]) if part[:1] == "b" else part)
        if self._session and self.open:
            self._poll()
        self._finish_upgrade()

    def _take_post(self) -> bytes:
        """Returns a POST of all that is to be sent."""
        messages, self._outgoing = self._outgoing, []
        parts = ["b" + base64.b64encode(m).decode() if isinstance(m, bytes) else m for m in messages]
        body = "\x1e".join(parts).encode()
        return self._head("POST", len(body)) + body

    def _posted(self, status: int, body: str) -> None:
        self._drop(self._post)
        self._post = None
        if status != 200:
            self._lose()
            return
        self._finish_upgrade()
        self._flush()

    def _drop(self, wire: Wire | None) -> None:
        assert wire is not None
        wire.close("fin")
        self.wires.remove(wire)

    def _finish_upgrade(self) -> None:
        """Leaves polling for the WebSocket, once no request is in progress."""
        if self.open and self.upgrading == "pausing" and self._get is None and self._post is None:
            self.upgrading = "no"
            self.transport = "websocket"
            self._write_websocket("5")
            self._flush()

    # Reading slowly.

    def stall(self) -> None:
        """Stops reading."""
        self.reading = False
        for wire in self.wires:
            wire.transport.pause_reading()

    def go_on(self) -> None:
        """Reads what has waited, and from now on what arrives."""
        self.reading = True
        for wire in list(self.wires):
            wire.transport.resume_reading()
            wire.take()

    async def take(self, limit: int) -> None:
        """Handles at most ``limit`` bytes of each connection, without reading on."""
        for wire in list(self.wires):
            wire.fetch(limit)
        await come_to_rest()
        for wire in list(self.wires):
            if wire.open:
                wire.transport.pause_reading()
                wire.take(limit)

    # The end.

    def lose(self, wire: Wire) -> None:
        """Handles the end of a connection: a probing WebSocket ends the upgrade, others the session."""
        if wire is self._websocket and self.transport == "polling":
            self.drop_probe("reset")
        elif wire.open:
            self._lose()

    def drop_probe(self, how: Loss) -> None:
        """Ends the WebSocket of an upgrade. The session polls on."""
        assert self._websocket is not None
        self._websocket.close(how)
        self.wires.remove(self._websocket)
        self._websocket = None
        self.upgrading = "no"
        self._poll()
        self._flush()

    def _lose(self) -> None:
        self.cut("reset")
        self.on_loss()

    def cut(self, how: Loss) -> None:
        """Ends all its connections; what waits in them is not seen."""
        for wire in self.wires:
            wire.close(how)
        self._reset()

    def cut_while_sending(self, how: Loss, limit: int, name: str, *arguments: Any) -> None:
        """Sends at most ``limit`` bytes of an event, and ends its connections."""
        assert self._post is None or self.transport == "websocket"
        packet = Packet(PacketType.EVENT, "/", [name, *arguments])
        messages = ["4" + part if isinstance(part, str) else part for part in encode(packet)]
        if self.transport == "websocket":
            assert self._codec is not None
            for message in messages:
                self._codec.send_text(cast("str", message))
            data, wire = self._codec.data_to_send(), cast("Wire", self._websocket)
        else:
            self._outgoing += messages
            data, wire = self._take_post(), self._add(lambda _: None)
        wire.transport.write(data[:limit])
        self.cut(how)

    def close(self) -> None:
        """Closes the session in an orderly way."""
        if self.transport == "polling" and self._post is None:
            self._outgoing.append("1")
            self._add(lambda _: None).transport.write(self._take_post())
        self.cut("fin")
