"""RFC 6455, the WebSocket protocol, without I/O.

Begin with `ServerHandshake` or `ClientHandshake`: each yields a `Connection`, which turns bytes into
events and calls into bytes.

The public interface is what this module exports; names in the other modules may change.
"""

from rfc6455.connection import Connection
from rfc6455.constants import (
    DEFAULT_MAX_HEAD_SIZE,
    DEFAULT_MAX_MESSAGE_SIZE,
    CloseCode,
    Opcode,
    Role,
    State,
)
from rfc6455.deflate import DeflateParameters, PerMessageDeflate
from rfc6455.errors import (
    HandshakeError,
    LocalProtocolError,
    RemoteProtocolError,
    WebSocketError,
)
from rfc6455.events import (
    BinaryFragment,
    BinaryMessage,
    CloseReceived,
    ConnectionClosed,
    ConnectionFailed,
    DataEvent,
    Event,
    Ping,
    Pong,
    TextFragment,
    TextMessage,
)
from rfc6455.frames import FrameHeader, decode_close, decode_header, encode_close, encode_frame
from rfc6455.handshake import (
    ClientHandshake,
    ConnectionOptions,
    HandshakeAccepted,
    HandshakeFailed,
    HandshakeRejected,
    HeadLimits,
    ServerHandshake,
    accept_value,
)
from rfc6455.headers import Extension, Headers, ascii_lower
from rfc6455.http11 import Request, Response
from rfc6455.masking import apply_mask, new_mask_key, preload_masking
from rfc6455.messages import PreparedMessage
from rfc6455.uri import WebSocketURI, parse_uri

__version__ = "0.2.0"

__all__ = [
    "DEFAULT_MAX_HEAD_SIZE",
    "DEFAULT_MAX_MESSAGE_SIZE",
    "BinaryFragment",
    "BinaryMessage",
    "ClientHandshake",
    "CloseCode",
    "CloseReceived",
    "Connection",
    "ConnectionClosed",
    "ConnectionFailed",
    "ConnectionOptions",
    "DataEvent",
    "DeflateParameters",
    "Event",
    "Extension",
    "FrameHeader",
    "HandshakeAccepted",
    "HandshakeError",
    "HandshakeFailed",
    "HandshakeRejected",
    "HeadLimits",
    "Headers",
    "LocalProtocolError",
    "Opcode",
    "PerMessageDeflate",
    "Ping",
    "Pong",
    "PreparedMessage",
    "RemoteProtocolError",
    "Request",
    "Response",
    "Role",
    "ServerHandshake",
    "State",
    "TextFragment",
    "TextMessage",
    "WebSocketError",
    "WebSocketURI",
    "accept_value",
    "apply_mask",
    "ascii_lower",
    "decode_close",
    "decode_header",
    "encode_close",
    "encode_frame",
    "new_mask_key",
    "parse_uri",
    "preload_masking",
]
