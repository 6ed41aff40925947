"""Tells a client that uses Socket.IO's msgpack parser that this server speaks JSON only.

Implements: the two packets of https://github.com/socketio/socket.io-msgpack-parser that this takes. Such a
client sends a CONNECT as a binary message, and would understand nothing but msgpack.
"""

from typing import Final

JSON_ONLY: Final = "the server takes JSON, not msgpack: connect without the option parser"

# The keys "type" and "nsp", and the value 0, CONNECT.
_TYPE: Final = b"\xa4type"
_CONNECT: Final = _TYPE + b"\x00"
_NAMESPACE: Final = b"\xa3nsp"


def refuse_msgpack(message: bytes) -> bytes | None:
    """Returns the CONNECT_ERROR that answers a CONNECT in msgpack; ``None`` if the message is not one."""
    # The packet is a map of at most 15 keys.
    if not message or not 0x80 <= message[0] <= 0x8F or _CONNECT not in message:
        return None
    namespace = _read_text(message.partition(_NAMESPACE)[2]) or b"/"
    fields = _TYPE + b"\x04" + _NAMESPACE + _text(namespace)
    return b"\x83" + fields + b"\xa4data\x81\xa7message" + _text(JSON_ONLY.encode())


def _read_text(data: bytes) -> bytes:
    """Returns the bytes of the text with which ``data`` starts; empty if it starts with something else."""
    if data and 0xA0 <= data[0] <= 0xBF:
        return data[1 : 1 + data[0] - 0xA0]
    if len(data) > 1 and data[0] == 0xD9:
        return data[2 : 2 + data[1]]
    return b""


def _text(data: bytes) -> bytes:
    return b"\xd9" + bytes([len(data)]) + data  # at most 255 bytes
