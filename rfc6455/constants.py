"""The numbers of the protocol, and the default limits.

Implements: RFC 6455 §5.2 (opcodes), §7.4.1 (close codes), §4.1 and §7.1 (connection states),
§4.2.2 (the GUID). The limits are ours; RFC 6455 §10.4 asks for limits and leaves the values to us.
"""

from enum import Enum, IntEnum
from typing import Final

GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""Appended to the client's key before hashing (RFC 6455 §4.2.2, step 5.4)."""

VERSION: Final = 13
"""The protocol version that this package speaks (RFC 6455 §4.1, step 9)."""

MAX_CONTROL_PAYLOAD: Final = 125
"""Maximum payload bytes of a control frame (RFC 6455 §5.5)."""

MAX_PAYLOAD: Final = (1 << 63) - 1
"""Maximum payload length that a frame may declare: the most significant bit is 0 (RFC 6455 §5.2)."""

# The default limits, all finite. Handshakes and connections take their own values as arguments.
DEFAULT_MAX_MESSAGE_SIZE: Final = 1 << 20
"""Bytes of one message, all fragments together, after inflation."""

DEFAULT_MAX_CONTROL_FRAMES: Final = 1024
"""Control frames that may arrive between two calls of ``data_to_send()``.

This bounds the queue of Pongs by count; a limit on the rate would need a clock.
"""

DEFAULT_MAX_EMPTY_FRAGMENTS: Final = 1024
"""Fragments without payload in one message: each costs work and adds nothing to the message."""

DEFAULT_MAX_LINE_SIZE: Final = 8192
"""Bytes of the request line, the status line, and each field line of an HTTP head."""

DEFAULT_MAX_FIELDS: Final = 128
"""Field lines of an HTTP head."""

DEFAULT_MAX_HEAD_SIZE: Final = 65536
"""Bytes of an HTTP head, from the first byte to the empty line."""

DEFAULT_MAX_EARLY_DATA: Final = 65536
"""Bytes that a client may send behind its request before that is answered. A client waits (RFC 6455 §4.1)."""


class Opcode(IntEnum):
    """What a frame carries (RFC 6455 §5.2)."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA

    @property
    def is_control(self) -> bool:
        """Whether the most significant bit of the opcode is set (RFC 6455 §5.5)."""
        return self >= Opcode.CLOSE


class CloseCode(IntEnum):
    """The close codes that RFC 6455 §7.4.1 and the IANA registry define."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS_RECEIVED = 1005
    """Never on the wire: the peer's Close had no code."""
    ABNORMAL_CLOSURE = 1006
    """Never on the wire: no Close was received."""
    INVALID_PAYLOAD_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015
    """Never on the wire: the TLS handshake failed."""


class Role(Enum):
    """One end of a connection. Clients mask their frames; servers close TCP first."""

    CLIENT = "client"
    SERVER = "server"


class State(Enum):
    """The states of an established connection (RFC 6455 §4.1, §7.1.3, §7.1.4).

    CONNECTING is missing: during the opening handshake there is a handshake object and no connection.
    """

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


def check_limits(minimum: int = 1, **limits: int) -> None:
    """Raises `TypeError` for a limit that is no int, such as ``None`` or NaN, and `ValueError` below
    ``minimum``.

    NaN would be no limit at all, and a float fails much later, when bytes arrive.
    """
    for name, value in limits.items():
        if type(value) is not int:
            raise TypeError(f"{name} must be an int, not {value!r}")
        if value < minimum:
            raise ValueError(f"{name} must be at least {minimum}, not {value}")
