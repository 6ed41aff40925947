"""Messages of a session that are encoded once, however many sessions they are for."""

from rfc6455 import Opcode, PreparedMessage
from rfc6455_server.policies import Policy
from rfc6455_server.socketio.engine_packets import EnginePacket, EnginePacketType, encode_packet
from rfc6455_server.websocket.websocket import WebSocket


class EncodedPacket(PreparedMessage):
    """A Socket.IO packet, or another message, encoded once for all sessions."""

    __slots__ = ("offset",)

    def __init__(self, messages: list[str | bytes], offset: int = 0) -> None:
        super().__init__(*("4" + message if isinstance(message, str) else message for message in messages))
        self.offset = offset
        """The event's place in the log of `recovery`; 0 if it is not kept there."""

    @property
    def messages(self) -> list[str | bytes]:
        """The Engine.IO messages, decoded from the frames: they take no memory of their own."""
        return [payload[1:].decode() if opcode is Opcode.TEXT else payload for opcode, payload in self.parts]


def post_encoded(
    websocket: WebSocket, message: EncodedPacket, policy: Policy | None, *, binary: bool
) -> None:
    """Posts a message to a WebSocket; without ``binary``, its bytes as base64."""
    if binary:
        websocket.post_prepared(message, policy)
        return
    parts = message.messages
    for part in parts:
        text = encode_packet(EnginePacket(EnginePacketType.MESSAGE, part), binary=False)
        # The parts of one packet are sent together or not at all.
        websocket.post(text, policy if len(parts) == 1 else "disconnect")
