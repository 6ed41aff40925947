"""Frames on the wire: the header, a whole frame, and the payload of a Close.

Implements: RFC 6455 §5.2 (layout, lengths), §5.1 (who masks), §5.5 (control frames), §5.5.1 and §7.4 (the
payload of a Close).
Left to others: reading frames from a stream (`reader`), the order of frames, messages (`messages`).

    byte 0: FIN RSV1 RSV2 RSV3 | opcode, 4 bits
    byte 1: MASK | length, 7 bits: 0 to 125 themselves, 126: 2 bytes follow, 127: 8 bytes follow
    then the masking key, 4 bytes, if MASK is set; then the payload
"""

from struct import Struct
from typing import Final, NamedTuple

from rfc6455.constants import MAX_CONTROL_PAYLOAD, MAX_PAYLOAD, CloseCode, Opcode
from rfc6455.errors import LocalProtocolError, RemoteProtocolError
from rfc6455.masking import apply_mask

FIN: Final = 0x80
RSV1: Final = 0x40
MASK: Final = 0x80

_RSV: Final = 0x70
_OPCODE: Final = 0x0F
_LENGTH: Final = 0x7F
_LENGTH_16: Final = 126
_LENGTH_64: Final = 127

_pack_16 = Struct(">BBH").pack
_pack_64 = Struct(">BBQ").pack

_OPCODES: Final = {int(opcode): opcode for opcode in Opcode}

# The codes that RFC 6455 §7.4.1 and the IANA registry define and allow in a Close frame.
_WIRE_CODES: Final = frozenset(CloseCode) - {
    CloseCode.NO_STATUS_RECEIVED,
    CloseCode.ABNORMAL_CLOSURE,
    CloseCode.TLS_HANDSHAKE,
}


class FrameHeader(NamedTuple):
    """A decoded header. ``size`` is the bytes of the header, ``length`` the bytes of the payload."""

    fin: bool
    rsv1: bool
    opcode: Opcode
    mask_key: bytes | None
    length: int
    size: int


def decode_header(
    data: bytes, start: int = 0, *, masked: bool, rsv1_allowed: bool = False
) -> FrameHeader | None:
    """Decodes the header that begins at ``data[start]``; returns ``None`` if it is incomplete.

    ``masked``: True for frames from a client, which must be masked. ``rsv1_allowed``: an extension defines
    RSV1. Raises `RemoteProtocolError` as soon as the bytes that break a rule are there, even if the header is
    incomplete.
    """
    available = len(data) - start
    if available < 1:
        return None
    first = data[start]
    opcode = _OPCODES.get(first & _OPCODE)
    if opcode is None:
        raise RemoteProtocolError(f"reserved opcode {first & _OPCODE:#x}", slug="bad-opcode")
    # RFC 6455 §5.2: RSV bits MUST be 0 unless an extension defines them. RFC 7692 §6.1 defines RSV1 on the
    # first frame of a data message.
    forbidden = _RSV
    if rsv1_allowed and opcode in (Opcode.TEXT, Opcode.BINARY):
        forbidden &= ~RSV1
    if first & forbidden:
        raise RemoteProtocolError("a reserved bit is set", slug="bad-rsv")
    if opcode >= Opcode.CLOSE and not first & FIN:
        # RFC 6455 §5.5: control frames MUST NOT be fragmented.
        raise RemoteProtocolError("a fragmented control frame", slug="fragmented-control")

    if available < 2:
        return None
    second = data[start + 1]
    if bool(second & MASK) is not masked:
        # RFC 6455 §5.1: a client MUST mask all frames, a server MUST NOT mask any.
        if masked:
            raise RemoteProtocolError("an unmasked frame from a client", slug="not-masked")
        raise RemoteProtocolError("a masked frame from a server", slug="masked")
    length = second & _LENGTH
    if opcode >= Opcode.CLOSE and length > MAX_CONTROL_PAYLOAD:
        # RFC 6455 §5.5: control frames MUST have a payload of 125 bytes or less.
        raise RemoteProtocolError("a control frame above 125 bytes", slug="control-too-long")

    size = 2
    if length >= _LENGTH_16:
        extended = 2 if length == _LENGTH_16 else 8
        size += extended
        if available < size:
            return None
        length = int.from_bytes(data[start + 2 : start + size], "big")
        # RFC 6455 §5.2: the minimal number of bytes MUST be used; the top bit of 64 MUST be 0.
        if length < (_LENGTH_16 if extended == 2 else 1 << 16):
            raise RemoteProtocolError("a length not in its shortest form", slug="bad-length")
        if length > MAX_PAYLOAD:
            raise RemoteProtocolError("a payload length above 63 bits", slug="length-too-long")

    mask_key = None
    if masked:
        size += 4
        if available < size:
            return None
        mask_key = data[start + size - 4 : start + size]
    return FrameHeader(bool(first & FIN), bool(first & RSV1), opcode, mask_key, length, size)


def encode_header(first: int, length: int, mask_key: bytes | None = None) -> bytes:
    """Returns a header: ``first`` is its first byte (FIN, RSV, opcode), ``length`` the payload's bytes."""
    mask = 0 if mask_key is None else MASK
    if length < _LENGTH_16:
        header = bytes((first, mask | length))
    elif length < 1 << 16:
        header = _pack_16(first, mask | _LENGTH_16, length)
    else:
        header = _pack_64(first, mask | _LENGTH_64, length)
    return header if mask_key is None else header + mask_key


def encode_frame(opcode: Opcode, payload: bytes, *, fin: bool = True, mask_key: bytes | None = None) -> bytes:
    """Returns a whole frame (RFC 6455 §5.2), masked if there is a ``mask_key`` of 4 bytes.

    Raises `LocalProtocolError` for a control frame that is fragmented or longer than 125 bytes, and
    `ValueError` for an unknown opcode or a key of another size.
    """
    if Opcode(opcode).is_control:
        if not fin:
            raise LocalProtocolError("control frames cannot be fragmented", slug="fragmented-control")
        check_control_payload(payload)
    header = encode_header(FIN | opcode if fin else opcode, len(payload), mask_key)
    return header + (payload if mask_key is None else apply_mask(payload, mask_key))


def check_control_payload(payload: bytes) -> None:
    """Raises `LocalProtocolError` above 125 bytes (RFC 6455 §5.5)."""
    if len(payload) > MAX_CONTROL_PAYLOAD:
        raise LocalProtocolError(
            f"a control frame carries at most 125 bytes, not {len(payload)}", slug="control-too-long"
        )


def encode_close(code: int | None, reason: str = "") -> bytes:
    """Returns the payload of a Close (RFC 6455 §5.5.1); it is empty if ``code`` is ``None``.

    Raises `LocalProtocolError` for a code that must not be sent (RFC 6455 §7.4), a reason without a code, and
    a reason that has a surrogate or more than 123 bytes; `TypeError` for a code or reason of another type.
    """
    if not isinstance(reason, str) or not (code is None or isinstance(code, int)):
        given = f"{type(code).__name__} and {type(reason).__name__}"
        raise TypeError(f"a Close has an int and a str, not {given}")
    if code is None:
        if reason:
            raise LocalProtocolError("a reason needs a close code", slug="bad-close-reason")
        return b""
    if not _may_be_sent(code):
        raise LocalProtocolError(f"close code {code} must not be sent", slug="bad-close-code")
    try:
        payload = code.to_bytes(2, "big") + reason.encode()
    except UnicodeEncodeError:
        raise LocalProtocolError("the reason has a surrogate", slug="bad-close-reason") from None
    check_control_payload(payload)
    return payload


def decode_close(payload: bytes) -> tuple[int, str]:
    """Returns the code and the reason of a Close payload; the code is 1005 if the payload is empty.

    Raises `RemoteProtocolError`: 1002 for one byte or a code that must not be sent, 1007 for a reason that is
    not UTF-8.
    """
    if not payload:
        # RFC 6455 §7.1.5: no status code means 1005.
        return CloseCode.NO_STATUS_RECEIVED, ""
    if len(payload) == 1:
        # RFC 6455 §5.5.1: the first two bytes MUST be the status code.
        raise RemoteProtocolError("a Close payload of one byte", slug="bad-close-payload")
    code = int.from_bytes(payload[:2], "big")
    if not _may_be_sent(code):
        raise RemoteProtocolError(f"invalid close code {code}", slug="bad-close-code")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise RemoteProtocolError(
            "the reason is not UTF-8", slug="bad-close-reason", code=CloseCode.INVALID_PAYLOAD_DATA
        ) from None


def _may_be_sent(code: int) -> bool:
    # RFC 6455 §7.4.2: codes below 3000 must be defined; libraries and applications own 3000 to 4999.
    return code in _WIRE_CODES or 3000 <= code <= 4999
