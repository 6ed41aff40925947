"""The frame reader: alone, and through connections that use both of its paths."""

import zlib

import pytest

from rfc6455 import (
    BinaryFragment,
    BinaryMessage,
    ConnectionFailed,
    DeflateParameters,
    Event,
    Opcode,
    Ping,
    Pong,
    RemoteProtocolError,
    Role,
    TextMessage,
)
from rfc6455 import reader as reader_module
from rfc6455.events import NO_EVENTS
from rfc6455.masking import INTEGERS_SIZE, MASKS
from rfc6455.reader import _MAX_BATCH, ControlFrame, FrameReader
from tests.helpers import (
    ABNORMAL,
    both_roles,
    feed,
    make_connection,
    measured,
    outcome,
    peak_bytes,
    plain,
    raw_frame,
    sent_frames,
)

TEXT, BINARY, CONTINUATION = Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION


def make_reader(
    role: Role,
    *,
    deflate: DeflateParameters | None = None,
    max_message_size: int = 1 << 20,
    assemble: bool = True,
) -> FrameReader:
    return FrameReader(
        role, deflate=deflate, max_message_size=max_message_size, max_empty_fragments=8, assemble=assemble
    )


def read_all(reader: FrameReader) -> list[object]:
    """Returns everything that the general path can read now."""
    items: list[object] = []
    while True:
        item = reader.read()
        if item is not None:
            items.append(item)
        elif not reader.refill():
            return items


# Both paths.


@pytest.mark.usefixtures("masking_path")
@both_roles
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 128, 65535, 65536, 1 << 20])
def test_messages_of_every_length_form(role: Role, size: int) -> None:
    frame = raw_frame(role, BINARY, b"\xfe" * size) + raw_frame(role, TEXT, b"x" * size)
    connection = make_connection(role)
    assert feed(connection, [frame]) == [BinaryMessage(b"\xfe" * size), TextMessage("x" * size)]
    pieces = [frame[i : i + 8000] for i in range(0, len(frame), 8000)]
    assert feed(connection, pieces) == [BinaryMessage(b"\xfe" * size), TextMessage("x" * size)]


@both_roles
def test_the_size_limit_is_exact(role: Role) -> None:
    at_limit = raw_frame(role, BINARY, bytes(300))
    fragments = raw_frame(role, BINARY, bytes(299), fin=False) + raw_frame(role, CONTINUATION, b"\0")
    events, _ = outcome(
        role, at_limit + fragments + raw_frame(role, BINARY, bytes(301)), max_message_size=300
    )
    assert events[:2] == [BinaryMessage(bytes(300)), BinaryMessage(bytes(300))]
    assert [plain(event) for event in events[2:]] == [
        (1009, "the message exceeds 300 bytes", "message-too-big"),
        ABNORMAL,
    ]


@both_roles
def test_an_oversized_frame_fails_before_its_payload(role: Role) -> None:
    connection = make_connection(role)
    frame = raw_frame(role, BINARY, length=1 << 62)
    assert feed(connection, [frame[:-1]]) == [] if role is Role.SERVER else True
    events = feed(connection, [frame[-1:]] if role is Role.SERVER else [frame])
    assert isinstance(events[0], ConnectionFailed)
    assert events[0].code == 1009


@both_roles
def test_one_byte_of_a_payload_is_judged_at_once(role: Role) -> None:
    reader = make_reader(role)
    reader.receive_data(raw_frame(role, TEXT, b"\xffabc")[:-3])
    with pytest.raises(RemoteProtocolError) as caught:
        reader.read()
    assert caught.value.slug == "bad-utf8"


def test_the_table_of_small_frames() -> None:
    plain, masked = reader_module._small_frames(masked=False), reader_module._small_frames(masked=True)
    for length in (0, 5, 125):
        assert plain[length] == (length, 0, 0, 0, length)
        assert masked[0x80 | length] == (4 + length, 8 * length, *MASKS[4 + length], length)
    assert {*plain[126:]} == {*masked[:128], *masked[254:]} == {None}


@both_roles
def test_a_close_inside_a_message(role: Role) -> None:
    reader = make_reader(role)
    reader.receive_data(raw_frame(role, TEXT, b"a", fin=False) + raw_frame(role, Opcode.CLOSE))
    assert read_all(reader) == [ControlFrame(Opcode.CLOSE, b"")]


@both_roles
def test_a_large_compressed_message_is_read_in_pieces(role: Role) -> None:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    payload = (compressor.compress(bytes(200_000)) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    reader = make_reader(role, deflate=DeflateParameters(), assemble=False)
    reader.receive_data(raw_frame(role, BINARY, payload, rsv=4) + raw_frame(role, Opcode.PING))
    *pieces, ping = read_all(reader)
    assert b"".join(piece.data for piece in pieces if isinstance(piece, BinaryFragment)) == bytes(200_000)
    assert len(pieces) > 3
    assert ping == ControlFrame(Opcode.PING, b"")


@both_roles
def test_a_very_large_compressed_message_is_inflated_in_turns(role: Role) -> None:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    payload = (compressor.compress(bytes(3 << 20)) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    reader = make_reader(role, deflate=DeflateParameters(), max_message_size=1 << 22)
    reader.receive_data(raw_frame(role, BINARY, payload, rsv=4))
    turns = 0
    while (event := reader.read()) is None:
        assert reader.yielded
        turns += 1
    assert event == BinaryMessage(bytes(3 << 20))
    assert 2 <= turns <= 3
    assert not reader.yielded


def compressed_halves(size: int) -> tuple[bytes, bytes]:
    """Returns two fragments of a message of zeros, each of which inflates to half of ``size``."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    first, second = (
        compressor.compress(bytes(size // 2)) + compressor.flush(zlib.Z_SYNC_FLUSH) for _ in range(2)
    )
    return first, second[:-4]


@both_roles
@pytest.mark.parametrize(("size", "turns"), [(100, 0), (5 << 20, 4)])
def test_fragments_that_are_inflated_in_turns_are_read_in_order(role: Role, size: int, turns: int) -> None:
    first, second = compressed_halves(size)
    reader = make_reader(role, deflate=DeflateParameters(), max_message_size=size)
    reader.receive_data(
        raw_frame(role, BINARY, first, rsv=4, fin=False) + raw_frame(role, CONTINUATION, second)
    )
    assert [reader.read() for _ in range(turns)] == [None] * turns
    assert reader.read() == BinaryMessage(bytes(size))


def stops(role: Role) -> dict[str, bytes]:
    """What the hot path stops at, by what it is."""
    mask = 0x80 if role is Role.SERVER else 0
    medium, large = raw_frame(role, BINARY, bytes(126)), raw_frame(role, BINARY, bytes(65_536))
    return {
        "nothing": b"",
        "one byte": b"\x81",
        "a small frame, incomplete": raw_frame(role, TEXT, b"abc")[:-1],
        "a medium frame without a length": medium[:3],
        "a medium frame, incomplete": medium[:-1],
        "a large frame without a length": large[:9],
        "a large frame, incomplete": large[:-1],
        "wrong masking": raw_frame(role, TEXT, b"abc", masked=not mask),
        "bad UTF-8": raw_frame(role, TEXT, b"\xff"),
        "a Ping": raw_frame(role, Opcode.PING, b"abc"),
        "a medium fragment": raw_frame(role, TEXT, b"x" * 126, fin=False),
        "a large fragment": raw_frame(role, TEXT, b"x" * 65_536, fin=False),
        "bad UTF-8 in a medium frame": raw_frame(role, TEXT, b"\xff" * 126),
        "a long form for a short length": raw_frame(role, TEXT, b"abc", length_form=16),
        "a larger message than the limit": raw_frame(role, TEXT, b"x" * 65_600),
    }


@pytest.mark.usefixtures("masking_path")
@both_roles
@pytest.mark.parametrize("count", [1, 20])
@pytest.mark.parametrize("stop", stops(Role.SERVER))
def test_the_hot_path_returns_what_is_before_the_frame_that_it_stops_at(
    role: Role, count: int, stop: str
) -> None:
    messages: list[TextMessage | BinaryMessage] = [
        TextMessage("a"),
        BinaryMessage(bytes(125)),
        TextMessage("x" * 126),
        BinaryMessage(b"y" * 300),
    ]
    sent = b"".join(
        raw_frame(role, TEXT, one.data.encode())
        if isinstance(one, TextMessage)
        else raw_frame(role, BINARY, one.data)
        for one in messages
    )
    reader = make_reader(role, max_message_size=65_599)
    assert reader.batch_size == 0
    reader.receive_data(sent * count + stops(role)[stop])
    assert list(reader.read_messages()) == messages * count
    assert list(reader.read_messages()) == []


@pytest.mark.usefixtures("masking_path")
@both_roles
@pytest.mark.parametrize("size", [125, 200, 65_536])
def test_the_hot_path_returns_messages_of_exactly_the_limit(role: Role, size: int) -> None:
    reader = make_reader(role, max_message_size=size)
    reader.receive_data(raw_frame(role, BINARY, bytes(size)) * 20)
    assert list(reader.read_messages()) == [BinaryMessage(bytes(size))] * 20


@both_roles
def test_fragments_with_control_frames_between(role: Role) -> None:
    data = (
        raw_frame(role, TEXT, b"\xe2", fin=False)
        + raw_frame(role, 9, b"1")
        + raw_frame(role, CONTINUATION, b"\x82", fin=False)
        + raw_frame(role, 10, b"2")
        + raw_frame(role, CONTINUATION, b"", fin=False)
        + raw_frame(role, CONTINUATION, b"\xac!")
        + raw_frame(role, BINARY, b"next")
    )
    connection = make_connection(role)
    expected = [Ping(b"1"), Pong(b"2"), TextMessage("€!"), BinaryMessage(b"next")]
    assert feed(connection, [data]) == expected
    assert sent_frames(role, connection.data_to_send()) == [(0x8A, b"1")]
    assert feed(connection, [data[i : i + 1] for i in range(len(data))]) == expected


@both_roles
def test_many_small_messages_of_one_read(role: Role) -> None:
    count = 3 * _MAX_BATCH + 1
    connection = make_connection(role)
    data = b"".join(raw_frame(role, TEXT, b"%d" % i) for i in range(count))
    assert feed(connection, [data]) == [TextMessage(str(i)) for i in range(count)]


def medium_frames(role: Role) -> list[tuple[bytes, Event]]:
    """Returns text and binary frames of 126 B to 5 KB, each with its own key, and their expected events."""
    frames: list[tuple[bytes, Event]] = []
    for number, size in enumerate([126, 127, 128, 129, 300, 1024, 1535, 1536, 1537, 5000] * 2):
        key = bytes([number, 0xFF - number, 7, 0x80 + number])
        if number % 3:
            text = ("é€😀x"[number % 4] * size)[: size // 4]
            frames.append((raw_frame(role, TEXT, text.encode(), key=key), TextMessage(text)))
        else:
            data = bytes(i * number & 0xFF for i in range(size))
            frames.append((raw_frame(role, BINARY, data, key=key), BinaryMessage(data)))
    return frames


@pytest.mark.usefixtures("masking_path")
@both_roles
def test_many_medium_messages_of_one_read(role: Role) -> None:
    frames = medium_frames(role) * 40  # more than can be unmasked together
    events = feed(make_connection(role), [b"".join(frame for frame, _ in frames)])
    assert events == [event for _, event in frames]


@pytest.mark.usefixtures("masking_path")
@pytest.mark.parametrize("at", [0, 1, 7, 19])
@both_roles
def test_other_frames_between_medium_messages(role: Role, at: int) -> None:
    others: list[tuple[bytes, Event]] = [
        (raw_frame(role, Opcode.PING, b"?"), Ping(b"?")),
        (raw_frame(role, TEXT, b"small"), TextMessage("small")),
        (raw_frame(role, BINARY, bytes(70_000)), BinaryMessage(bytes(70_000))),
        (
            raw_frame(role, BINARY, bytes(200), fin=False) + raw_frame(role, CONTINUATION, bytes(200)),
            BinaryMessage(bytes(400)),
        ),
    ]
    for other in others:
        frames = medium_frames(role)
        frames.insert(at, other)
        data = b"".join(frame for frame, _ in frames)
        expected = [event for _, event in frames]
        assert feed(make_connection(role), [data]) == expected
        # The same with an incomplete frame at the end.
        connection = make_connection(role)
        assert feed(connection, [data + data[:-5]]) == expected + expected[:-1]
        assert feed(connection, [data[-5:]]) == expected[-1:]


@pytest.mark.usefixtures("masking_path")
@pytest.mark.parametrize("at", [0, 1, 7, 19])
@both_roles
def test_a_violation_between_medium_messages(role: Role, at: int) -> None:
    wrong = [
        (1007, raw_frame(role, TEXT, b"x" * 500 + b"\xff")),
        (1002, raw_frame(role, TEXT, b"x" * 500, rsv=1)),
        (1002, raw_frame(role, 3, b"x" * 500)),
        *(
            (1002, raw_frame(role, BINARY, bytes(size), masked=role is Role.CLIENT))
            for size in (0, 125, 126, 500, 4000)
        ),
        (1002, raw_frame(role, TEXT, b"x" * 125, length_form=16)),
        (1009, raw_frame(role, TEXT, b"x" * 6000)),
    ]
    for code, frame in wrong:
        frames = medium_frames(role)
        data = b"".join([frame for frame, _ in frames[:at]] + [frame] + [frame for frame, _ in frames[at:]])
        events = feed(make_connection(role, max_message_size=5000), [data])
        *messages, failed, closed = events
        assert messages == [event for _, event in frames[:at]]
        assert isinstance(failed, ConnectionFailed)
        assert failed.code == code
        assert closed == ABNORMAL


@pytest.mark.usefixtures("masking_path")
@both_roles
def test_large_messages_of_one_read(role: Role) -> None:
    frames: list[tuple[bytes, Event]] = []
    for size in (65535, 65536, 65537, 70_002):
        text = "é" * (size // 2) + "x" * (size % 2)
        frames.append((raw_frame(role, TEXT, text.encode(), key=b"\0\xff\x7f\1"), TextMessage(text)))
        frames.append((raw_frame(role, BINARY, bytes(size)), BinaryMessage(bytes(size))))
    data = b"".join(frame for frame, _ in frames)
    expected = [event for _, event in frames]
    assert feed(make_connection(role, max_message_size=70_002), [data]) == expected
    # For any number of missing bytes of the last frame.
    last = len(frames[-1][0])
    for missing in (1, 70_001, 70_002, 70_003, last - 3, last - 2, last - 1):
        connection = make_connection(role, max_message_size=70_002)
        assert feed(connection, [data[:-missing]]) == expected[:-1]
        assert feed(connection, [data[-missing:]]) == expected[-1:]


@both_roles
def test_a_violation_between_large_messages(role: Role) -> None:
    large = raw_frame(role, BINARY, bytes(65536))
    wrong = [
        (1007, raw_frame(role, TEXT, b"x" * 66_000 + b"\xff")),
        (1002, raw_frame(role, BINARY, bytes(66_000), rsv=4)),
        (1002, raw_frame(role, 0, bytes(66_000))),
        (1002, raw_frame(role, 3, bytes(66_000))),
        (1002, raw_frame(role, Opcode.PING, bytes(66_000))),
        (1002, raw_frame(role, BINARY, bytes(66_000), masked=role is Role.CLIENT)),
        (1002, raw_frame(role, BINARY, bytes(65535), length_form=64)),
        (1002, raw_frame(role, BINARY, bytes(100), length_form=64)),
        (1002, raw_frame(role, BINARY, bytes(100), length_form=64, length=(1 << 63) + 100)),
        (1009, raw_frame(role, BINARY, bytes(66_002))),
    ]
    for code, frame in wrong:
        message, failed, closed = feed(
            make_connection(role, max_message_size=66_001), [large + frame + large]
        )
        assert message == BinaryMessage(bytes(65536))
        assert isinstance(failed, ConnectionFailed)
        assert failed.code == code
        assert closed == ABNORMAL


def test_medium_messages_are_unmasked_together_only_with_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def xor(data: bytes | memoryview, mask: bytes) -> bytes:
        calls.append(len(data))
        return bytes(a ^ b for a, b in zip(data, mask, strict=True))

    frame = raw_frame(Role.SERVER, BINARY, bytes(1000))
    for function, expected in ((lambda: xor, [3 * len(frame)]), (lambda: None, [])):
        monkeypatch.setattr(reader_module, "bulk_xor", function)
        connection = make_connection(Role.SERVER)
        assert feed(connection, [frame * 3]) == [BinaryMessage(bytes(1000))] * 3
        assert feed(connection, [frame]) == [
            BinaryMessage(bytes(1000))
        ]  # a single message is not unmasked in bulk
        assert calls == expected
        calls.clear()


@both_roles
def test_memory_is_bounded_for_any_number_of_unread_medium_messages(role: Role) -> None:
    connection = make_connection(role)
    connection.receive_data(raw_frame(role, BINARY, bytes(8000)) * 2000)
    with measured() as memory:
        assert connection.next_event() == BinaryMessage(bytes(8000))
        peak = memory.peak()
    assert peak < 256 * 8000 * 2


@both_roles
def test_a_limit_below_the_size_of_the_shortest_frame(role: Role) -> None:
    connection = make_connection(role, max_message_size=10)
    events = feed(connection, [raw_frame(role, TEXT, b"0123456789") + raw_frame(role, TEXT, b"01234567890")])
    assert events[0] == TextMessage("0123456789")
    assert isinstance(events[1], ConnectionFailed)
    assert events[1].code == 1009


@both_roles
def test_memory_is_bounded_for_any_number_of_unread_messages(role: Role) -> None:
    """Event objects are larger than empty frames, so they must not be created before they are pulled."""
    connection = make_connection(role)
    connection.receive_data(raw_frame(role, BINARY) * 200_000)
    with measured() as memory:
        assert connection.next_event() == BinaryMessage(b"")
        peak = memory.peak()
    assert peak < 100_000


@both_roles
def test_unread_data_that_arrives_in_small_pieces(role: Role) -> None:
    connection = make_connection(role)
    data = raw_frame(role, TEXT, b"a" * 100) * 1000
    for start in range(0, len(data), 7):
        connection.receive_data(data[start : start + 7])
    assert list(connection.events()) == [TextMessage("a" * 100)] * 1000


@both_roles
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_bytes(role: Role, kind: type) -> None:
    connection = make_connection(role)
    data = bytearray(raw_frame(role, TEXT, b"Hello"))
    connection.receive_data(kind(data))
    connection.receive_data(kind(data))
    data[:] = bytes(len(data))
    assert next(iter(connection.events())) == TextMessage("Hello")


@both_roles
def test_an_idle_connection_keeps_no_input(role: Role) -> None:
    connection = make_connection(role)
    feed(connection, [raw_frame(role, BINARY, bytes(100_000)) + raw_frame(role, TEXT, b"x")[:3]])
    held = len(connection._reader._buffer) + len(connection._reader._incoming)
    assert held <= 3


# What a reader holds, and `unread`.


@both_roles
def test_input_is_unread_until_it_is_parsed(role: Role) -> None:
    reader = make_reader(role)
    assert not reader.unread
    reader.receive_data(raw_frame(role, TEXT, b"one"))
    assert reader.unread
    reader.receive_data(raw_frame(role, TEXT, b"two"))
    assert list(reader.read_messages()) == [TextMessage("one")]
    assert reader.unread  # "two" waits outside the buffer
    reader.receive_data(raw_frame(role, TEXT, b"three"))
    assert read_all(reader) == [TextMessage("two"), TextMessage("three")]
    assert not reader.unread


@both_roles
def test_part_of_a_header_is_unread_and_part_of_a_payload_is_not(role: Role) -> None:
    frame = raw_frame(role, BINARY, bytes(9))
    reader = make_reader(role)
    reader.receive_data(frame[:1])
    assert read_all(reader) == []
    assert reader.unread
    reader.receive_data(frame[1:-1])
    assert read_all(reader) == []
    assert not reader.unread


@both_roles
def test_compressed_data_is_unread_until_it_is_inflated(role: Role) -> None:
    deflate = DeflateParameters()
    sender = make_connection(Role.CLIENT if role is Role.SERVER else Role.SERVER, deflate=deflate)
    sender.send_binary(bytes(200_000))
    reader = make_reader(role, deflate=deflate, assemble=False)
    reader.receive_data(sender.data_to_send())
    sizes = []
    while reader.unread:
        event = reader.read()
        assert isinstance(event, BinaryFragment)
        sizes.append(len(event.data))
        assert reader.batch_size == len(event.data)
        assert reader.unread is not event.final
    assert sum(sizes) == 200_000
    assert max(sizes) == 65536


@both_roles
def test_input_after_discarded_input_is_read(role: Role) -> None:
    frame = raw_frame(role, TEXT, b"one")
    reader = make_reader(role)
    reader.receive_data(frame + frame)
    reader.receive_data(frame)
    assert reader.read() == TextMessage("one")
    reader.discard_input()
    assert not reader.unread
    reader.receive_data(raw_frame(role, TEXT, b"next"))
    assert read_all(reader) == [TextMessage("next")]


@both_roles
def test_new_data_does_not_move_unread_data(role: Role) -> None:
    reader = make_reader(role)
    reader.receive_data(raw_frame(role, BINARY, b"x") * 1_000_000)
    byte = bytes(1)

    def receive() -> None:
        for _ in range(1000):
            reader.receive_data(byte)

    assert peak_bytes(receive) < 10_000


@both_roles
def test_an_idle_reader_keeps_no_buffer(role: Role) -> None:
    for frame in (
        raw_frame(role, BINARY, bytes(100_000)),
        raw_frame(role, BINARY, bytes(100)) * 100,
        raw_frame(role, BINARY, bytes(100_000), fin=False),
        raw_frame(role, Opcode.PING, bytes(100)) * 100,
    ):
        reader = make_reader(role)
        reader.receive_data(frame)
        while reader.read_messages():
            pass
        read_all(reader)
        assert not reader._buffer
        assert not reader._incoming


@both_roles
@pytest.mark.parametrize("payload", [b"small", bytes(200), bytes(2000), bytes(70_000)])
def test_the_hot_path_keeps_no_buffer_when_everything_is_parsed(role: Role, payload: bytes) -> None:
    """The caller may not pull again when `unread` is false, so the buffer must be empty by then."""
    reader = make_reader(role)
    reader.receive_data(raw_frame(role, BINARY, payload) * 4)
    assert len(reader.read_messages()) == 4
    assert not reader.unread
    assert len(reader._buffer) == 0


@both_roles
def test_released_readers_hold_neither_input_nor_a_message(role: Role) -> None:
    reader = make_reader(role)
    reader.receive_data(raw_frame(role, BINARY, bytes(5000), fin=False) + raw_frame(role, CONTINUATION)[:1])
    assert read_all(reader) == []
    assert (reader._message._pieces, reader.unread) == ([bytes(5000)], True)
    reader.release()
    assert (reader._message._pieces, reader.unread) == ([], False)


@pytest.mark.usefixtures("masking_path")
@both_roles
@pytest.mark.parametrize("fin", [True, False])
def test_a_large_payload_is_unmasked_with_one_copy(role: Role, fin: bool) -> None:
    size = 4 << 20
    reader = make_reader(role, max_message_size=size)
    reader.receive_data(raw_frame(role, BINARY, bytes(size), fin=fin))
    events: list[Event] = []
    peak = peak_bytes(lambda: events.extend(reader.read_messages()) if fin else reader.read())
    assert events == ([BinaryMessage(bytes(size))] if fin else [])
    assert peak < size * 1.25


# The hot path.


@pytest.mark.usefixtures("masking_path")
@both_roles
@pytest.mark.parametrize("payload", [b"", b"small", bytes(200), bytes(1000)])
def test_a_call_returns_256_messages_and_their_size(role: Role, payload: bytes) -> None:
    frame = raw_frame(role, BINARY, payload)
    reader = make_reader(role)
    reader.receive_data(frame * 600)
    for count in (256, 256, 88):
        assert list(reader.read_messages()) == [BinaryMessage(payload)] * count
        assert reader.batch_size == len(frame) * count


@pytest.mark.usefixtures("masking_path")
@both_roles
def test_a_call_returns_256_messages_of_mixed_sizes(role: Role) -> None:
    """Medium messages are unmasked together, up to 256 of them, after up to 255 other messages."""
    reader = make_reader(role)
    reader.receive_data(raw_frame(role, BINARY) * 255 + raw_frame(role, BINARY, bytes(200)) * 2000)
    assert len(reader.read_messages()) == 256


@both_roles
def test_messages_that_are_unmasked_together_are_limited_in_number_and_bytes(
    role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def xor(data: bytes | memoryview, mask: bytes) -> bytes:
        sizes.append(len(data))
        return bytes(len(data))

    monkeypatch.setattr(reader_module, "bulk_xor", lambda: xor)
    for length, expected in ((200, 256), (8000, 256), (65_000, 9)):
        frame = raw_frame(role, BINARY, bytes(length))
        reader = make_reader(role)
        reader.receive_data(frame * 600 if length < 65_000 else frame * 9)
        assert len(reader.read_messages()) == expected
        assert all(size <= 1 << 18 for size in sizes)
        if role is Role.SERVER and length < 8000:
            assert sizes == [256 * len(frame)]
        sizes.clear()


@both_roles
def test_few_medium_messages_do_not_need_numpy(role: Role, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "bulk_xor", lambda: pytest.fail("imports numpy"))
    for frames, count in (
        (raw_frame(role, BINARY, bytes(200)) * 2, 2),
        (raw_frame(role, BINARY, bytes(3000)), 1),
    ):
        reader = make_reader(role)
        reader.receive_data(frames)
        assert len(reader.read_messages()) == count


@both_roles
@pytest.mark.parametrize("payload", [b"", b"small", bytes(125), bytes(126), bytes(1000), bytes(70_000)])
def test_the_last_message_of_a_read_is_returned_with_the_others(role: Role, payload: bytes) -> None:
    reader = make_reader(role)
    reader.receive_data(raw_frame(role, BINARY, payload) * 3)
    assert list(reader.read_messages()) == [BinaryMessage(payload)] * 3
    assert not reader.unread


@both_roles
def test_empty_results_are_one_shared_object_that_stays_empty(role: Role) -> None:
    reader = make_reader(role)
    assert reader.read_messages() is NO_EVENTS
    for frame in (raw_frame(role, Opcode.PING), raw_frame(role, TEXT, b"a", fin=False), b""):
        reader.receive_data(frame)
        assert reader.read_messages() is NO_EVENTS
    NO_EVENTS.append(TextMessage("for all connections"))
    NO_EVENTS.extend([TextMessage("for all connections")] * 2)
    assert len(NO_EVENTS) == 0


@both_roles
@pytest.mark.parametrize("fin", [True, False])
def test_a_payload_that_resembles_messages_is_not_parsed(role: Role, fin: bool) -> None:
    """The second read starts inside a frame, with bytes that would be whole messages."""
    inner = raw_frame(role, TEXT, b"inner", key=bytes(4)) * 3
    frame = raw_frame(role, BINARY, inner, fin=fin, key=bytes(4))
    connection = make_connection(role)
    assert feed(connection, [frame[: -len(inner)], frame[-len(inner) :]]) == (
        [BinaryMessage(inner)] if fin else []
    )
    if not fin:
        assert feed(connection, [raw_frame(role, CONTINUATION)]) == [BinaryMessage(inner)]
    # The same with a control frame, between messages and inside one.
    control = raw_frame(role, Opcode.PING, inner, key=bytes(4))
    before = [] if fin else [raw_frame(role, TEXT, b"a", fin=False)]
    for cut in (len(inner), len(inner) // 3):
        chunks = [*before, control[:-cut], control[-cut:]]
        assert feed(make_connection(role), chunks) == [Ping(inner)]


@both_roles
def test_a_message_inside_a_message_fails_in_a_separate_read(role: Role) -> None:
    connection = make_connection(role)
    assert feed(connection, [raw_frame(role, TEXT, b"a", fin=False)]) == []
    failed, closed = feed(connection, [raw_frame(role, TEXT, b"b")])
    assert plain(failed) == (1002, "a new message inside an unfinished one", "expected-continuation")
    assert closed == ABNORMAL


@both_roles
@pytest.mark.parametrize("limit", [124, 125, 126, 65535, 65536])
@pytest.mark.parametrize("beyond", [0, 1])
def test_the_limit_of_each_length_form_is_exact(role: Role, limit: int, beyond: int) -> None:
    frame = raw_frame(role, BINARY, bytes(limit + beyond))
    for frames in (frame, frame * 30 if limit < 1000 else frame * 2):
        connection = make_connection(role, max_message_size=limit)
        first, *_ = feed(connection, [frames])
        assert isinstance(first, ConnectionFailed if beyond else BinaryMessage)


# The general path.


@both_roles
def test_control_frames_byte_by_byte(role: Role) -> None:
    frames = raw_frame(role, Opcode.PING, b"first") + raw_frame(role, Opcode.PONG, b"second")
    reader = make_reader(role)
    items = []
    for index in range(len(frames)):
        reader.receive_data(frames[index : index + 1])
        items += read_all(reader)
    assert items == [ControlFrame(Opcode.PING, b"first"), ControlFrame(Opcode.PONG, b"second")]


@both_roles
@pytest.mark.parametrize("size", [0, 125, 1000, 70_000])
def test_the_hot_path_returns_no_fragments(role: Role, size: int) -> None:
    reader = make_reader(role, assemble=False)
    reader.receive_data(raw_frame(role, BINARY, bytes(size)) * 3)
    assert reader.read_messages() is NO_EVENTS
    assert read_all(reader) == [BinaryFragment(bytes(size), True)] * 3


@both_roles
def test_large_messages_add_no_masks(role: Role) -> None:
    """The table of masks ends where integers end: it would grow by megabytes."""
    for size in (1536, 5000, 65_535, 65_536):
        feed(make_connection(role), [raw_frame(role, BINARY, bytes(size))])
    assert max(MASKS) < INTEGERS_SIZE + 8


@both_roles
def test_the_size_of_the_last_message(role: Role) -> None:
    reader = make_reader(role)
    for size in (10, 3):
        reader.receive_data(
            raw_frame(role, BINARY, bytes(size), fin=False) + raw_frame(role, CONTINUATION, bytes(4))
        )
        assert read_all(reader) == [BinaryMessage(bytes(size + 4))]
        assert reader.batch_size == size + 4


@both_roles
def test_data_is_inflated_by_the_parameters_of_the_peer(role: Role) -> None:
    """Only the peer keeps its context: its second message refers to the first."""
    peer = Role.CLIENT if role is Role.SERVER else Role.SERVER
    deflate = DeflateParameters(
        server_no_context_takeover=role is Role.SERVER,
        client_no_context_takeover=role is Role.CLIENT,
        threshold=0,
    )
    sender, reader = make_connection(peer, deflate=deflate), make_reader(role, deflate=deflate)
    for _ in range(2):
        sender.send_text("Hello, again")
        reader.receive_data(sender.data_to_send())
        assert read_all(reader) == [TextMessage("Hello, again")]


@both_roles
def test_rsv1_needs_an_agreement(role: Role) -> None:
    reader = make_reader(role)
    reader.receive_data(raw_frame(role, TEXT, b"a", rsv=4))
    with pytest.raises(RemoteProtocolError) as caught:
        reader.read()
    assert caught.value.slug == "bad-rsv"
