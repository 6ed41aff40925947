"""Compressed messages, and the negotiation of compression."""

import random
import zlib

import pytest

from rfc6455 import (
    BinaryFragment,
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
    Pong,
    Request,
    Role,
    ServerHandshake,
    TextMessage,
    accept_value,
)
from rfc6455.deflate import Inflater
from rfc6455.headers import parse_extensions
from tests.helpers import both_roles, bytes_held, feed, make_connection, peak_bytes, raw_frame
from tests.hostile.flaws import flaw
from tests.hostile.test_handshake_input import FIELDS

CONTINUATION, TEXT, BINARY, PONG = Opcode.CONTINUATION, Opcode.TEXT, Opcode.BINARY, Opcode.PONG
AGREED = DeflateParameters()
RSV1 = 4
LIMIT = 100_000


def compressed(data: bytes) -> bytes:
    """Returns ``data`` compressed as one message, without the code under test."""
    compressor = zlib.compressobj(9, wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def failure(connection: Connection, *chunks: bytes) -> tuple[int, str]:
    """Returns the close code and the slug with which ``chunks`` fail the connection."""
    failed = feed(connection, chunks)[0]
    assert isinstance(failed, ConnectionFailed)
    return failed.code, failed.error.slug


class Counted:
    """Counts the decompressors and their calls: the work of inflating."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.streams = self.calls = 0
        decompressobj, read, counted = zlib.decompressobj, Inflater.read, self

        def make(window_bits: int) -> object:
            counted.streams += 1
            return decompressobj(window_bits)

        def count(inflater: Inflater, size: int) -> bytes:
            counted.calls += 1
            return read(inflater, size)

        monkeypatch.setattr(zlib, "decompressobj", make)
        monkeypatch.setattr(Inflater, "read", count)


@flaw(
    "PYSEC-2018-79",
    "CVE-2026-1526",
    what="sends a deflate bomb: a kilobyte that inflates to megabytes or more",
    here="at most the limit and one byte is inflated, then 1009; memory stays below the limit and 400 KB",
)
@pytest.mark.parametrize("assemble", [True, False], ids=["messages", "fragments"])
@pytest.mark.parametrize("fragments", [1, 50], ids=["one frame", "fragments"])
@both_roles
def test_bombs(role: Role, fragments: int, *, assemble: bool) -> None:
    payload = compressed(bytes(20 << 20))
    step = len(payload) // fragments + 1
    pieces = [payload[start : start + step] for start in range(0, len(payload), step)]
    frames = [raw_frame(role, BINARY, pieces[0], rsv=RSV1, fin=fragments == 1)]
    frames += [raw_frame(role, CONTINUATION, piece, fin=False) for piece in pieces[1:]]
    sizes = []

    def explode() -> None:
        connection = make_connection(role, max_message_size=LIMIT, deflate=AGREED, assemble=assemble)
        connection.receive_data(b"".join(frames))
        while not isinstance(event := connection.next_event(), ConnectionFailed):
            assert isinstance(event, BinaryFragment)
            sizes.append(len(event.data))
        assert (event.code, event.error.slug) == (1009, "message-too-big")

    assert peak_bytes(explode) < LIMIT + 400_000
    assert sum(sizes) <= LIMIT
    assert bool(sizes) is not assemble


@flaw(
    "GHSA-hxp9-w8x3-p566",
    what="keeps each compressed frame below the limit, which nobody applies to what it inflates to",
    here="the limit applies to what a message inflates to, all fragments together",
)
@both_roles
def test_the_limit_applies_to_inflated_data(role: Role) -> None:
    for size, enough in ((LIMIT, True), (LIMIT + 1, False)):
        payload = compressed(bytes(size))
        middle = len(payload) // 2
        frames = raw_frame(role, BINARY, payload[:middle], rsv=RSV1, fin=False)
        frames += raw_frame(role, CONTINUATION, payload[middle:])
        assert len(frames) < LIMIT // 50
        connection = make_connection(role, max_message_size=LIMIT, deflate=AGREED)
        if enough:
            assert feed(connection, [frames]) == [BinaryMessage(bytes(LIMIT))]
        else:
            assert failure(connection, frames) == (1009, "message-too-big")


@flaw(
    what="sends a message that is cut at the limit, so that the next one is inflated with a wrong window",
    here="nothing of it is delivered, and the connection fails; nothing is inflated after it",
)
@both_roles
def test_no_message_is_truncated_at_the_limit(role: Role) -> None:
    compressor = zlib.compressobj(wbits=-15)
    frames = b""
    for data in (b"hello", bytes(2 * LIMIT), b"hello, hello"):
        payload = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
        frames += raw_frame(role, BINARY, payload[:-4], rsv=RSV1)
    connection = make_connection(role, max_message_size=LIMIT, deflate=AGREED)
    first, failed, _ = feed(connection, [frames])
    assert first == BinaryMessage(b"hello")
    assert isinstance(failed, ConnectionFailed)
    assert feed(connection, [frames]) == []


@flaw(
    "aio-libs/aiohttp#13274",
    what="sends a Pong before its first compressed frame, and the frame is taken for plain",
    here="a control frame leaves the state of compression alone, before, between and inside messages",
)
@both_roles
def test_a_pong_before_the_first_compressed_frame(role: Role) -> None:
    compressor = zlib.compressobj(wbits=-15)
    pong = raw_frame(role, PONG, b"p")
    frames = pong
    for _ in range(2):
        payload = compressor.compress(b"hello, hello") + compressor.flush(zlib.Z_SYNC_FLUSH)
        frames += raw_frame(role, TEXT, payload[:4], rsv=RSV1, fin=False) + pong
        frames += raw_frame(role, CONTINUATION, payload[4:-4]) + pong
    message = TextMessage("hello, hello")
    expected = [Pong(b"p"), Pong(b"p"), message, Pong(b"p"), Pong(b"p"), message, Pong(b"p")]
    for chunks in ([frames], [frames[i : i + 1] for i in range(len(frames))]):
        assert feed(make_connection(role, deflate=AGREED), chunks) == expected


@flaw(
    "found here",
    what="fills a message with final blocks, `03 00`: each costs a new decompressor, a MB 2.5 s",
    here="a message may have 64 such streams and one for each KiB of output; then 1008",
)
@pytest.mark.parametrize("fragments", [True, False], ids=["fragments", "one frame"])
@both_roles
def test_final_blocks(role: Role, monkeypatch: pytest.MonkeyPatch, *, fragments: bool) -> None:
    counted = Counted(monkeypatch)
    connection = make_connection(role, deflate=AGREED)
    if fragments:
        frames = raw_frame(role, BINARY, b"\3\0", rsv=RSV1, fin=False)
        frames += raw_frame(role, CONTINUATION, b"\3\0", fin=False) * 1000
    else:
        frames = raw_frame(role, BINARY, b"\3\0" * 500_000, rsv=RSV1)
    assert failure(connection, frames) == (1008, "deflate-streams")
    assert counted.streams == counted.calls == 65


@flaw(
    "found here",
    what="sends a message that inflates for long, and everybody else waits: 0.9 s",
    here="after 16 pieces of at most 64 KiB each, or 16 deflate streams, `next_batch` returns",
)
@pytest.mark.parametrize(
    "payload",
    [compressed(bytes(4 << 20)), b"\3\0" * 64 + b"\0", b"\0\0\0\xff\xff" * 400_000 + b"\0"],
    ids=["zeros", "final blocks", "empty blocks"],
)
@both_roles
def test_others_have_a_turn(role: Role, payload: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = make_connection(role, deflate=AGREED, max_message_size=8 << 20)
    connection.receive_data(raw_frame(role, BINARY, payload, rsv=RSV1))
    counted = Counted(monkeypatch)
    batch = connection.next_batch()
    turns = 1
    while not batch:
        assert connection.yielded
        assert counted.calls <= 16 * turns
        batch = connection.next_batch()
        turns += 1
    assert turns > 1
    (message,) = batch
    assert isinstance(message, BinaryMessage)


@flaw(
    what="sends empty deflate blocks without end: a message that inflates to nothing, and never ends",
    here="a message has at most 8 times the limit of compressed bytes, then 1009; nothing is held",
)
@pytest.mark.parametrize("block", [b"\0\0\0\xff\xff", b"\2\x08\x20\x80\0"], ids=["stored", "fixed"])
@both_roles
def test_endless_blocks(role: Role, block: bytes) -> None:
    assert zlib.decompressobj(-15).decompress(block * 4) == b""
    first = raw_frame(role, BINARY, rsv=RSV1, fin=False)
    part = raw_frame(role, CONTINUATION, block * (LIMIT // 5), fin=False)

    def received() -> Connection:
        connection = make_connection(role, max_message_size=LIMIT, deflate=AGREED)
        assert feed(connection, [first, *[part] * 8]) == []
        return connection

    assert bytes_held(received) < 60_000  # the window of zlib
    assert failure(received(), raw_frame(role, CONTINUATION, b"\0")) == (1009, "message-too-big")


@flaw(
    "CVE-2026-59881",
    what="sends compressed frames that were never negotiated, which are inflated, or taken for text",
    here="1002 at the first byte",
)
@pytest.mark.parametrize("opcode", list(Opcode), ids=lambda opcode: opcode.name)
@both_roles
def test_compressed_frames_never_negotiated(role: Role, opcode: Opcode) -> None:
    assert failure(make_connection(role), raw_frame(role, opcode, rsv=RSV1)[:1]) == (1002, "bad-rsv")
    if opcode not in (TEXT, BINARY):
        # RFC 7692 §6.1: only the first frame of a data message has the bit.
        connection = make_connection(role, deflate=AGREED)
        assert failure(connection, raw_frame(role, opcode, rsv=RSV1)[:1]) == (1002, "bad-rsv")


BITS = ["0", "7", "16", "", '""', "-8", "+8", "08", "8.0", "1e1", "1_0", " 10", "0x8", "2147483648", "true"]
PARAMETERS = [
    *(f"{name}={bits}" for name in ("server_max_window_bits", "client_max_window_bits") for bits in BITS),
    # Digits of other scripts: as the UTF-8 of a full-width 10, and as superscripts of ISO-8859-1.
    "server_max_window_bits=\xef\xbc\x91\xef\xbc\x90",
    'client_max_window_bits="\xb9\xb2"',
    "server_max_window_bits=\xb9",
    "server_max_window_bits",
    "server_max_window_bits=10; server_max_window_bits=10",
    "client_max_window_bits; client_max_window_bits=10",
    "server_no_context_takeover; server_no_context_takeover",
    "server_no_context_takeover=",
    "server_no_context_takeover=1",
    "client_no_context_takeover=true",
    "unknown",
    "SERVER_MAX_WINDOW_BITS=10",
]


def head(start_line: str, *fields: str) -> bytes:
    return "\r\n".join([start_line, *fields, "", ""]).encode("latin-1")


@flaw(
    "CVE-2026-2229",
    what="offers or answers window bits that zlib or RFC 7692 do not have; the exception ends the process",
    here="a server declines the offer or answers 400, a client fails the handshake; nothing is raised",
)
@pytest.mark.parametrize("parameters", PARAMETERS)
def test_window_bits(parameters: str) -> None:
    extensions = f"Sec-WebSocket-Extensions: permessage-deflate; {parameters}"
    server = ServerHandshake(deflate=PerMessageDeflate())
    server.receive_data(
        head(
            "GET / HTTP/1.1",
            "Host: a",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
            extensions,
        )
    )
    event = server.next_event()
    assert isinstance(event, Request | HandshakeFailed)
    if isinstance(event, Request):
        # RFC 7692 §7.1: an offer that is not understood is declined. White space around "=" is allowed.
        assert (server.accept().deflate is None) is ("= 10" not in parameters)
    else:
        assert event.error.slug == "bad-extensions"

    client = ClientHandshake("a", deflate=PerMessageDeflate(), key_source=lambda: bytes(16))
    client.receive_data(
        head(
            "HTTP/1.1 101 OK",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept_value('A' * 22 + '==')}",
            extensions,
        )
    )
    outcome = client.next_event()
    assert isinstance(outcome, HandshakeAccepted) is ("= 10" in parameters)


@flaw(
    what="offers permessage-deflate 300 times with a wrong parameter, before one that is right",
    here="the first that is right is accepted; the limits of the head bound how many there are",
)
def test_many_offers() -> None:
    offers = ", ".join(["permessage-deflate; x=1"] * 300 + ["permessage-deflate; server_max_window_bits=9"])
    headers = Headers([("Sec-WebSocket-Extensions", offers)])
    accepted = PerMessageDeflate().accept(parse_extensions(headers.get_all("Sec-WebSocket-Extensions")))
    assert accepted is not None
    assert accepted[0].server_max_window_bits == 9


@flaw(
    "found here",
    what="fills the head with tiny offers of extensions, `x,`: 28,000 took a third of a second in one turn",
    here="431 above 1,024 commas and semicolons, before any is parsed",
)
@pytest.mark.parametrize("offer", ["x,", ",", "x;", "x;y=1,"])
def test_more_offers_than_anybody_makes(offer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = offer * (8000 // len(offer)) + "x"
    handshake = ServerHandshake(deflate=PerMessageDeflate())
    fields = Headers([*FIELDS.items(), *[("Sec-WebSocket-Extensions", value)] * 7])
    monkeypatch.setattr("rfc6455.headers._Scanner", None)  # raises if anything is parsed
    handshake.receive_data(Request("GET", "/", fields).encode())
    event = handshake.next_event()
    assert isinstance(event, HandshakeFailed)
    assert event.error.slug == "too-many-extensions"
    assert handshake.data_to_send().startswith(b"HTTP/1.1 431 ")


@flaw(
    what="sends what is no deflate stream, so that zlib raises",
    here="1007, and nothing of the message",
)
@both_roles
def test_damaged_streams(role: Role) -> None:
    randomness = random.Random(6)
    good = compressed(bytes(range(256)) * 20)
    slugs = set()
    for _ in range(300):
        damaged = bytearray(good)
        for _ in range(3):
            damaged[randomness.randrange(len(damaged))] = randomness.randrange(256)
        connection = make_connection(role, deflate=AGREED, max_message_size=LIMIT)
        events = feed(connection, [raw_frame(role, BINARY, bytes(damaged), rsv=RSV1)])
        if not events or isinstance(events[0], BinaryMessage):
            continue
        assert isinstance(events[0], ConnectionFailed)
        slugs.add((int(events[0].code), events[0].error.slug))
    assert (1007, "bad-deflate") in slugs
    assert slugs <= {(1007, "bad-deflate"), (1009, "message-too-big"), (1008, "deflate-streams")}
