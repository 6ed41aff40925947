"""Declared lengths, and limits that are configured."""

import zlib

import pytest

from rfc6455 import (
    BinaryMessage,
    ClientHandshake,
    Connection,
    ConnectionFailed,
    DeflateParameters,
    HandshakeAccepted,
    HandshakeFailed,
    Headers,
    Opcode,
    PerMessageDeflate,
    Request,
    Role,
    ServerHandshake,
    State,
    accept_value,
)
from tests.helpers import both_roles, bytes_held, feed, make_connection, peak_bytes, raw_frame
from tests.hostile.flaws import flaw

CONTINUATION, TEXT, BINARY = Opcode.CONTINUATION, Opcode.TEXT, Opcode.BINARY
RSV1 = 4
HUGE = [2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1]


def failure(connection: Connection, data: bytes) -> tuple[int, str]:
    """Returns the close code and the slug with which ``data`` fails the connection; it is held no more."""
    failed = feed(connection, [data])[0]
    assert isinstance(failed, ConnectionFailed)
    assert connection.state is State.CLOSED
    return failed.code, failed.error.slug


@flaw(
    "CVE-2020-27813",
    "CVE-2026-1528",
    "CVE-2026-19204",
    what="declares a length near 2^63 or 2^64, so that a sum overflows, or memory is allocated",
    here="1009 up to 2^63 - 1, and 1002 above, at the header; nothing is allocated",
)
@pytest.mark.parametrize("partial", [True, False], ids=["after a fragment", "first"])
@pytest.mark.parametrize("length", [*HUGE, 2**63, 2**64 - 1])
@both_roles
def test_lengths_near_the_top(role: Role, length: int, *, partial: bool) -> None:
    before = raw_frame(role, BINARY, bytes(100), fin=False) if partial else b""
    header = raw_frame(role, CONTINUATION if partial else BINARY, length=length, length_form=64)
    expected = (1002, "length-too-long") if length >= 2**63 else (1009, "message-too-big")
    assert failure(make_connection(role), before + header) == expected

    def byte_by_byte() -> None:
        connection = make_connection(role)
        events = feed(connection, [bytes([byte]) for byte in before + header])
        assert isinstance(events[0], ConnectionFailed)

    assert peak_bytes(byte_by_byte) < 20_000


@flaw(
    "CVE-2026-54274",
    what="declares a frame that is too large, and its payload is read before it is refused",
    here="the last byte of the header fails the connection; later bytes are not kept",
)
@pytest.mark.parametrize("compressed", [True, False], ids=["compressed", "plain"])
@both_roles
def test_a_frame_is_refused_at_its_header(role: Role, *, compressed: bool) -> None:
    limit = 1000
    # Compression can enlarge a message.
    declared = 8 * limit + 1 if compressed else limit + 1
    connection = make_connection(role, max_message_size=limit, deflate=DeflateParameters())
    header = raw_frame(role, BINARY, length=declared, rsv=RSV1 if compressed else 0)
    assert feed(connection, [header[:-1]]) == []
    assert failure(connection, header[-1:]) == (1009, "message-too-big")

    def flooded() -> Connection:
        for _ in range(100):
            connection.receive_data(bytes(10_000))
        return connection

    assert bytes_held(flooded) < 1000


@flaw(
    "CVE-2026-54466",
    what="declares any length, because the limit is off unless somebody sets it",
    here="1 MiB by default, in either role, with and without compression, however the connection was made",
)
@pytest.mark.parametrize("deflate", [DeflateParameters(), None], ids=["deflate", "no deflate"])
@both_roles
def test_the_default_limit(role: Role, deflate: DeflateParameters | None) -> None:
    connection = Connection(role, deflate=deflate)
    assert feed(connection, [raw_frame(role, BINARY, length=1 << 20)]) == []
    connection = Connection(role, deflate=deflate)
    assert failure(connection, raw_frame(role, BINARY, length=(1 << 20) + 1)) == (1009, "message-too-big")


@flaw(
    what="declares a length in a longer form than it needs, which two parsers on the way read differently",
    here="1002 at the header",
)
@pytest.mark.parametrize(("length", "form"), [(0, 16), (125, 16), (125, 64), (126, 64), (65535, 64)])
@both_roles
def test_lengths_in_a_longer_form(role: Role, length: int, form: int) -> None:
    header = raw_frame(role, BINARY, length=length, length_form=form)
    assert failure(make_connection(role), header) == (1002, "bad-length")


@flaw(
    what="declares more than 125 bytes for a control frame",
    here="1002 at the second byte, before the length is read",
)
@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG, Opcode.CLOSE], ids=lambda opcode: opcode.name)
@pytest.mark.parametrize("form", [16, 64])
@both_roles
def test_long_control_frames(role: Role, opcode: Opcode, form: int) -> None:
    header = raw_frame(role, opcode, length=126, length_form=form)[:2]
    assert failure(make_connection(role), header) == (1002, "control-too-long")


HEAD = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)


def accepted(way: str, deflate: PerMessageDeflate | None, early: bytes = b"") -> Connection:
    """Returns a connection that was made in the given way with a limit of 1,000 bytes."""
    if way == "client":
        client = ClientHandshake("a", deflate=deflate, key_source=lambda: bytes(16), max_message_size=1000)
        answer = "HTTP/1.1 101 \r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
        answer += f"Sec-WebSocket-Accept: {accept_value('A' * 22 + '==')}\r\n"
        answer += "Sec-WebSocket-Extensions: permessage-deflate\r\n" if deflate else ""
        client.receive_data(f"HTTP/1.1 103 \r\n\r\n{answer}\r\n".encode() + early)
        event = client.next_event()
        assert isinstance(event, HandshakeAccepted)
        return event.connection
    if way == "given head":
        pairs = [line.split(": ") for line in HEAD.decode().split("\r\n")[1:-2]]
        request = Request("GET", "/", Headers([(name, value) for name, value in pairs]))
        server = ServerHandshake.from_request(
            request, trailing_data=early, deflate=deflate, max_message_size=1000
        )
    else:
        size = 1000 if way == "server" else 5000
        server = ServerHandshake(deflate=deflate, max_message_size=size)
        server.receive_data(HEAD + early)
    assert isinstance(server.next_event(), Request)
    return server.accept(max_message_size=1000 if way == "accept" else None)


@flaw(
    "CVE-2026-44545",
    what="uses a path on which a limit that is configured is not passed on",
    here="each way to a connection passes it: both handshakes, a head from elsewhere, `accept`, early data",
)
@pytest.mark.parametrize("deflate", [PerMessageDeflate(), None], ids=["deflate", "no deflate"])
@pytest.mark.parametrize("way", ["server", "accept", "given head", "client"])
def test_configured_limits_are_passed_on(way: str, deflate: PerMessageDeflate | None) -> None:
    role = Role.CLIENT if way == "client" else Role.SERVER
    enough, too_much = raw_frame(role, BINARY, bytes(1000)), raw_frame(role, BINARY, bytes(1001))
    assert feed(accepted(way, deflate), [enough]) == [BinaryMessage(bytes(1000))]
    assert failure(accepted(way, deflate), too_much) == (1009, "message-too-big")
    assert failure(accepted(way, deflate, early=too_much), b"") == (1009, "message-too-big")
    if deflate is not None:
        compressor = zlib.compressobj(wbits=-15)
        bomb = compressor.compress(bytes(1001)) + compressor.flush(zlib.Z_SYNC_FLUSH)
        frame = raw_frame(role, BINARY, bomb[:-4], rsv=RSV1)
        assert failure(accepted(way, deflate), frame) == (1009, "message-too-big")


@flaw(
    "CVE-2026-44545",
    what="sends interim responses, behind which the limits of a head are the default ones",
    here="each head of a response has the limits that were configured",
)
def test_the_limits_of_a_head_are_passed_on() -> None:
    for interim in (b"", b"HTTP/1.1 103 \r\n\r\n"):
        client = ClientHandshake("a", limits={"max_fields": 3, "max_line_size": 50, "max_head_size": 150})
        client.receive_data(interim + b"HTTP/1.1 101 \r\n" + b"X: 1\r\n" * 4 + b"\r\n")
        failed = client.next_event()
        assert isinstance(failed, HandshakeFailed)
        assert failed.error.slug == "too-many-fields"
