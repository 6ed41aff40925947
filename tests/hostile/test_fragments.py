"""Fragments and control frames."""

import pytest

from rfc6455 import (
    BinaryMessage,
    CloseCode,
    CloseReceived,
    Connection,
    ConnectionClosed,
    ConnectionFailed,
    Opcode,
    Ping,
    Pong,
    Role,
    TextMessage,
)
from tests.helpers import both_roles, bytes_held, close_payload, feed, make_connection, raw_frame, sent_frames
from tests.hostile.flaws import flaw

CONTINUATION, TEXT, BINARY = Opcode.CONTINUATION, Opcode.TEXT, Opcode.BINARY
CLOSE, PING, PONG = Opcode.CLOSE, Opcode.PING, Opcode.PONG

MANY = 8000


def failure(connection: Connection, chunks: list[bytes]) -> tuple[int, str]:
    """Returns the close code and the slug with which ``chunks`` fail the connection."""
    failed, closed = feed(connection, chunks)
    assert isinstance(failed, ConnectionFailed)
    assert closed == ConnectionClosed(CloseCode.ABNORMAL_CLOSURE, "", False)
    return failed.code, failed.error.slug


@flaw(
    "CVE-2026-48779",
    "CVE-2026-62389",
    "CVE-2026-12151",
    what="sends empty fragments without end, and each is kept or costs work",
    here="the fragment after 1,024 empty ones in a message fails the connection with 1008; none is kept",
)
@both_roles
def test_empty_fragments(role: Role) -> None:
    first, empty = raw_frame(role, TEXT, fin=False), raw_frame(role, CONTINUATION, fin=False)

    def received(count: int) -> Connection:
        connection = make_connection(role)
        assert feed(connection, [first, *[empty] * (count - 1)]) == []
        return connection

    assert bytes_held(lambda: received(1024)) <= bytes_held(lambda: received(1)) + 200
    assert failure(received(1024), [empty]) == (1008, "empty-fragments")
    # Data between them earns nothing.
    connection = received(1024)
    assert feed(connection, [raw_frame(role, CONTINUATION, b"a", fin=False)]) == []
    assert failure(connection, [empty * MANY]) == (1008, "empty-fragments")


@flaw(
    "found here",
    what="fills each read with fragments of one byte: eight such clients held up all others for seconds",
    here="after 256 fragments, others have a turn, and `next_event` goes on",
)
@both_roles
def test_others_have_a_turn_between_tiny_fragments(role: Role) -> None:
    fragment = raw_frame(role, CONTINUATION, b"a", fin=False)
    frames = raw_frame(role, TEXT, b"a", fin=False) + fragment * 3000 + raw_frame(role, CONTINUATION, b"a")
    connection = make_connection(role)
    connection.receive_data(frames)
    left = [len(frames)]
    while not (batch := connection.next_batch()):
        assert connection.yielded
        assert connection.unread
        left.append(len(connection._reader._buffer) - connection._reader._position)
        assert left[-2] - left[-1] <= 256 * len(fragment)
    assert len(left) == 12
    assert list(batch) == [TextMessage("a" * 3002)]
    assert not connection.yielded
    assert feed(make_connection(role), [frames]) == [TextMessage("a" * 3002)]


@flaw(
    "websockets/ws#2331",
    what="sends a message as fragments of one byte, each kept as an object: 15 times its size",
    here="fragments are joined as they come; at most three times the message is held",
)
@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
@both_roles
def test_tiny_fragments(role: Role, opcode: Opcode) -> None:
    data = raw_frame(role, opcode, b"a", fin=False) + raw_frame(role, CONTINUATION, b"a", fin=False) * (
        MANY - 1
    )

    def received() -> Connection:
        connection = make_connection(role)
        for start in range(0, len(data), 1000):
            assert feed(connection, [data[start : start + 1000]]) == []
        return connection

    assert MANY < bytes_held(received) < 3 * MANY + 5000
    expected = TextMessage("a" * (MANY + 1)) if opcode is TEXT else BinaryMessage(b"a" * (MANY + 1))
    assert feed(received(), [raw_frame(role, CONTINUATION, b"a")]) == [expected]


@flaw(
    "CVE-2026-9675",
    what="sends fragments that are each below the limit, and together far above it",
    here="the header of the fragment that crosses the limit fails the connection with 1009",
)
@both_roles
def test_the_sum_of_fragments(role: Role) -> None:
    limit = 100_000
    connection = make_connection(role, max_message_size=limit)
    part = raw_frame(role, CONTINUATION, bytes(limit // 10), fin=False)
    assert feed(connection, [raw_frame(role, BINARY, fin=False), *[part] * 10]) == []
    assert failure(connection, [raw_frame(role, CONTINUATION, length=1)]) == (1009, "message-too-big")


@flaw(
    "CVE-2026-123817",
    what="sends a frame in reads of one byte, each of which is kept as an object",
    here="bytes are joined as they come; at most three times the frame is held",
)
@pytest.mark.parametrize("read", [1, 7], ids=["one byte", "seven bytes"])
@both_roles
def test_one_object_for_each_read(role: Role, read: int) -> None:
    frame = raw_frame(role, BINARY, bytes(MANY))

    def received() -> Connection:
        connection = make_connection(role)
        for start in range(0, len(frame) - 1, read):
            connection.receive_data(frame[start : min(start + read, len(frame) - 1)])
            assert connection.next_event() is None
        return connection

    assert MANY < bytes_held(received) < 3 * MANY + 5000
    assert feed(received(), [frame[-1:]]) == [BinaryMessage(bytes(MANY))]


@flaw(
    what="sends reads of one byte to a program that pulls no events, so that each is kept as an object",
    here="unread bytes are one buffer",
)
@both_roles
def test_reads_that_nobody_pulls(role: Role) -> None:
    data = raw_frame(role, PING, b"a") * (MANY // 3)

    def received() -> Connection:
        connection = make_connection(role)
        for start in range(0, len(data), 3):
            connection.receive_data(data[start : start + 3])
        return connection

    assert bytes_held(received) < 2 * len(data)


@flaw(
    what="sends Pings without reading the Pongs, which pile up",
    here="the Ping after 1,024 between two writes fails the connection with 1008; at most 1,024 Pongs wait",
)
@pytest.mark.parametrize("opcode", [PING, PONG], ids=["Ping", "Pong"])
@both_roles
def test_a_flood_of_control_frames(role: Role, opcode: Opcode) -> None:
    connection = make_connection(role)
    frame = raw_frame(role, opcode, bytes(125))
    *events, failed, _ = feed(connection, [frame * 5000])
    assert events == [(Ping if opcode is PING else Pong)(bytes(125))] * 1024
    assert isinstance(failed, ConnectionFailed)
    assert (failed.code, failed.error.slug) == (1008, "control-frames")
    sent = sent_frames(role, connection.data_to_send())
    assert len(sent) == (1025 if opcode is PING else 1)


@flaw(
    what="sends control frames inside a fragmented message, to reset what is counted for the message",
    here="the limits of a message are counted over everything between its fragments",
)
@both_roles
def test_control_frames_between_fragments(role: Role) -> None:
    connection = make_connection(role)
    connection.receive_data(raw_frame(role, TEXT, fin=False))
    pair = raw_frame(role, PING) + raw_frame(role, CONTINUATION, fin=False)
    events = []
    for _ in range(1023):
        connection.receive_data(pair)
        events += list(connection.events())
        connection.data_to_send()
    assert events == [Ping(b"")] * 1023
    connection.receive_data(pair)
    ping, failed, _ = connection.events()
    assert ping == Ping(b"")
    assert isinstance(failed, ConnectionFailed)
    assert failed.error.slug == "empty-fragments"


@flaw(
    what="begins a message inside another, continues none, or fragments a control frame",
    here="the first frame out of order fails the connection with 1002; no part of a message is delivered",
)
@pytest.mark.parametrize(
    ("frames", "slug"),
    [
        ([(TEXT, False), (TEXT, True)], "expected-continuation"),
        ([(TEXT, False), (BINARY, False)], "expected-continuation"),
        ([(CONTINUATION, True)], "unexpected-continuation"),
        ([(CONTINUATION, False)], "unexpected-continuation"),
        ([(PING, False)], "fragmented-control"),
        ([(TEXT, False), (CLOSE, False)], "fragmented-control"),
    ],
)
@both_roles
def test_fragments_out_of_order(role: Role, frames: list[tuple[Opcode, bool]], slug: str) -> None:
    data = b"".join(raw_frame(role, opcode, b"part", fin=fin) for opcode, fin in frames)
    assert failure(make_connection(role), [data]) == (1002, slug)
    assert failure(make_connection(role), [data[i : i + 1] for i in range(len(data))]) == (1002, slug)


@flaw(
    what="sends a Close inside a message, and goes on sending",
    here="the Close is answered, the part of the message is dropped, and nothing behind it is kept or parsed",
)
@both_roles
def test_data_after_a_close(role: Role) -> None:
    def closed() -> Connection:
        connection = make_connection(role)
        connection.receive_data(raw_frame(role, BINARY, bytes(100_000), fin=False))
        connection.receive_data(
            raw_frame(role, CLOSE, close_payload(1000)) + raw_frame(role, TEXT, b"a") * 1000
        )
        assert CloseReceived(1000, "") in list(connection.events())
        for _ in range(1000):
            connection.receive_data(bytes(1000))
        assert connection.next_event() is None
        return connection

    # A client keeps the part of the message until the server has closed TCP.
    assert bytes_held(closed) < 210_000
    connection = closed()
    connection.receive_eof()
    connection.next_event()
    assert sent_frames(role, connection.data_to_send()) == [(0x88, close_payload(1000))]
