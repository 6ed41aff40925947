import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfc6455 import (
    FrameHeader,
    LocalProtocolError,
    Opcode,
    RemoteProtocolError,
    decode_header,
    encode_frame,
)
from rfc6455.frames import decode_close, encode_close
from tests.helpers import KEY

# RFC 6455 §5.7: (bytes on the wire, opcode, fin, masking key, payload)
EXAMPLES = [
    ("810548656c6c6f", Opcode.TEXT, True, None, b"Hello"),
    ("818537fa213d7f9f4d5158", Opcode.TEXT, True, KEY, b"Hello"),
    ("010348656c", Opcode.TEXT, False, None, b"Hel"),
    ("80026c6f", Opcode.CONTINUATION, True, None, b"lo"),
    ("890548656c6c6f", Opcode.PING, True, None, b"Hello"),
    ("8a8537fa213d7f9f4d5158", Opcode.PONG, True, KEY, b"Hello"),
    ("827e0100" + "00" * 256, Opcode.BINARY, True, None, bytes(256)),
    ("827f0000000000010000" + "00" * 65536, Opcode.BINARY, True, None, bytes(65536)),
]
IDS = ["text", "masked text", "first fragment", "last fragment", "ping", "masked pong", "256 B", "64 KiB"]


@pytest.mark.parametrize(("wire", "opcode", "fin", "key", "payload"), EXAMPLES, ids=IDS)
def test_the_examples_of_the_rfc(
    wire: str, opcode: Opcode, fin: bool, key: bytes | None, payload: bytes
) -> None:
    data = bytes.fromhex(wire)
    assert encode_frame(opcode, payload, fin=fin, mask_key=key) == data
    header = decode_header(data, masked=key is not None)
    assert header == FrameHeader(fin, False, opcode, key, len(payload), len(data) - len(payload))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("length", "extended"), [(0, 0), (125, 0), (126, 2), (65535, 2), (65536, 8), (1 << 20, 8)]
)
def test_each_length_takes_its_shortest_form(length: int, extended: int, masked: bool) -> None:
    data = encode_frame(Opcode.BINARY, bytes(length), mask_key=KEY if masked else None)
    header = decode_header(data, masked=masked)
    assert header is not None
    assert (header.length, header.size) == (length, 2 + extended + (4 if masked else 0))
    # An incomplete header is not taken for a complete one.
    for cut in range(header.size):
        assert decode_header(data[:cut], masked=masked) is None


def test_a_header_after_other_bytes() -> None:
    data = b"xyz" + encode_frame(Opcode.TEXT, b"Hello", mask_key=KEY)
    assert decode_header(data, 3, masked=True) == FrameHeader(True, False, Opcode.TEXT, KEY, 5, 6)
    assert decode_header(data, len(data), masked=True) is None


@pytest.mark.parametrize(
    ("wire", "masked", "slug"),
    [(bytes([0x80 | opcode]), False, "bad-opcode") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)]
    + [(bytes([0x81 | rsv << 4]), False, "bad-rsv") for rsv in range(1, 8)]
    + [(bytes([opcode]), False, "fragmented-control") for opcode in (8, 9, 10)]
    + [
        (b"\x81\x00", True, "not-masked"),
        (b"\x81\x80", False, "masked"),
        (b"\x88\x7e", False, "control-too-long"),
        (b"\x89\x7f", False, "control-too-long"),
        (b"\x8a\xfe", True, "control-too-long"),
        (b"\x82\x7e\x00\x00", False, "bad-length"),
        (b"\x82\x7e\x00\x7d", False, "bad-length"),
        (b"\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff", False, "bad-length"),
        (b"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00", True, "length-too-long"),
        (b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", False, "length-too-long"),
    ],
)
def test_a_violation_is_raised_at_its_first_byte(wire: bytes, masked: bool, slug: str) -> None:
    for cut in range(len(wire)):
        assert decode_header(wire[:cut], masked=masked) is None
    with pytest.raises(RemoteProtocolError) as caught:
        decode_header(wire, masked=masked)
    assert (caught.value.slug, caught.value.code) == (slug, 1002)


@pytest.mark.parametrize("opcode", [8, 9, 10])
def test_control_frames_may_have_125_bytes(opcode: int) -> None:
    header = decode_header(bytes([0x80 | opcode, 125]), masked=False)
    assert header is not None
    assert (header.length, header.size) == (125, 2)


def test_63_bits_are_allowed() -> None:
    header = decode_header(b"\x82\x7f\x7f" + b"\xff" * 7, masked=False)
    assert header is not None
    assert header.length == 2**63 - 1


@pytest.mark.parametrize(
    ("first", "allowed"), [(0xC1, True), (0x42, True), (0xC0, False), (0xC9, False), (0xE1, False)]
)
def test_rsv1_when_an_extension_defines_it(first: int, allowed: bool) -> None:
    wire = bytes([first, 0])
    if allowed:
        header = decode_header(wire, masked=False, rsv1_allowed=True)
        assert header is not None
        assert header.rsv1
    else:
        with pytest.raises(RemoteProtocolError, match="reserved bit"):
            decode_header(wire, masked=False, rsv1_allowed=True)


@given(
    st.sampled_from(Opcode),
    st.booleans(),
    st.binary(max_size=200),
    st.none() | st.binary(min_size=4, max_size=4),
)
def test_an_encoded_frame_is_decoded_again(
    opcode: Opcode, fin: bool, payload: bytes, key: bytes | None
) -> None:
    if opcode.is_control:
        fin, payload = True, payload[:125]
    data = encode_frame(opcode, payload, fin=fin, mask_key=key)
    header = decode_header(data, masked=key is not None)
    assert header == FrameHeader(fin, False, opcode, key, len(payload), len(data) - len(payload))


@pytest.mark.parametrize("opcode", [Opcode.CLOSE, Opcode.PING, Opcode.PONG])
def test_control_frames_are_short_and_unfragmented(opcode: Opcode) -> None:
    assert len(encode_frame(opcode, bytes(125))) == 127
    with pytest.raises(LocalProtocolError) as caught:
        encode_frame(opcode, bytes(126))
    assert caught.value.slug == "control-too-long"
    with pytest.raises(LocalProtocolError) as caught:
        encode_frame(opcode, b"", fin=False)
    assert caught.value.slug == "fragmented-control"


def test_an_unknown_opcode() -> None:
    with pytest.raises(ValueError, match="3"):
        encode_frame(3, b"")  # type: ignore[arg-type]


VALID_CODES = [
    1000,
    1001,
    1002,
    1003,
    1007,
    1008,
    1009,
    1010,
    1011,
    1012,
    1013,
    1014,
    3000,
    3999,
    4000,
    4999,
]
INVALID_CODES = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 65535]


@pytest.mark.parametrize("code", VALID_CODES)
def test_close_codes_that_may_be_sent(code: int) -> None:
    payload = encode_close(code, "why é")
    assert payload == code.to_bytes(2, "big") + b"why \xc3\xa9"
    assert decode_close(payload) == (code, "why é")


@pytest.mark.parametrize("code", INVALID_CODES)
def test_close_codes_that_must_not_be_sent(code: int) -> None:
    with pytest.raises(LocalProtocolError) as local:
        encode_close(code)
    assert local.value.slug == "bad-close-code"
    with pytest.raises(RemoteProtocolError) as remote:
        decode_close(code.to_bytes(2, "big"))
    assert (remote.value.slug, remote.value.code) == ("bad-close-code", 1002)


@pytest.mark.parametrize("code", [-1, 65536, 1 << 40])
def test_close_codes_beyond_two_bytes(code: int) -> None:
    with pytest.raises(LocalProtocolError):
        encode_close(code)


def test_a_close_without_code() -> None:
    assert encode_close(None) == b""
    assert decode_close(b"") == (1005, "")
    with pytest.raises(LocalProtocolError) as caught:
        encode_close(None, "why")
    assert caught.value.slug == "bad-close-reason"


def test_the_reason_of_a_close_is_bounded_utf8() -> None:
    assert len(encode_close(1000, "x" * 123)) == 125
    with pytest.raises(LocalProtocolError) as caught:
        encode_close(1000, "é" * 62)
    assert caught.value.slug == "control-too-long"
    with pytest.raises(LocalProtocolError) as caught:
        encode_close(1000, "\ud800")
    assert caught.value.slug == "bad-close-reason"
    with pytest.raises(RemoteProtocolError) as remote:
        decode_close(b"\x03\xe8\xff")
    assert (remote.value.slug, remote.value.code) == ("bad-close-reason", 1007)


def test_a_close_of_one_byte() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_close(b"\x03")
    assert (caught.value.slug, caught.value.code) == ("bad-close-payload", 1002)


@pytest.mark.parametrize(
    ("code", "reason", "types"),
    [("1000", "", "str and str"), (1000, b"why", "int and bytes"), (None, None, "NoneType and NoneType")],
)
def test_a_close_of_other_types_is_a_type_error(code: object, reason: object, types: str) -> None:
    with pytest.raises(TypeError, match=f"not {types}$"):
        encode_close(code, reason)  # type: ignore[arg-type]
