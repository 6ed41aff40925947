"""Messages of a session that are encoded once, however many sessions they are for."""

from rfc6455 import Opcode, PreparedMessage


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
