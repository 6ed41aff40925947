"""The message assembler alone. `test_connection` tests fragments on a whole connection."""

import random
import sys
import zlib

import pytest

from rfc6455 import (
    BinaryFragment,
    BinaryMessage,
    DataEvent,
    DeflateParameters,
    FrameHeader,
    LocalProtocolError,
    Opcode,
    PreparedMessage,
    RemoteProtocolError,
    Role,
    TextFragment,
    TextMessage,
)
from rfc6455.deflate import Inflater
from rfc6455.messages import MessageAssembler
from tests.helpers import feed, make_connection, measured


def assembler(
    *, max_size: int = 1 << 20, max_empty_fragments: int = 4, assemble: bool = True
) -> MessageAssembler:
    return MessageAssembler(max_size=max_size, max_empty_fragments=max_empty_fragments, assemble=assemble)


def add(message: MessageAssembler, opcode: Opcode, data: bytes, *, fin: bool) -> DataEvent | None:
    message.start_frame(FrameHeader(fin, False, opcode, None, len(data), 2))
    return message.receive(data, final=fin)


def refusal(message: MessageAssembler, opcode: Opcode, data: bytes, *, fin: bool) -> tuple[str, int]:
    with pytest.raises(RemoteProtocolError) as caught:
        add(message, opcode, data, fin=fin)
    return caught.value.slug, caught.value.code


def test_fragments_become_one_message_after_another() -> None:
    message = assembler()
    for _ in range(2):
        assert message.opcode is None
        assert add(message, Opcode.TEXT, b"Hel", fin=False) is None
        assert message.opcode is Opcode.TEXT
        assert add(message, Opcode.CONTINUATION, b"l", fin=False) is None
        assert add(message, Opcode.CONTINUATION, b"o", fin=True) == TextMessage("Hello")
        assert add(message, Opcode.BINARY, b"\xff", fin=False) is None
        assert add(message, Opcode.CONTINUATION, b"", fin=True) == BinaryMessage(b"\xff")


@pytest.mark.parametrize("size", [1, 3, 1000, 4095, 4096, 4097])
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
def test_fragments_of_any_size_are_joined(opcode: Opcode, size: int) -> None:
    text = "aé€😀" * 2500
    data = text.encode()
    message = assembler()
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    for index, piece in enumerate(pieces[:-1]):
        assert add(message, Opcode.CONTINUATION if index else opcode, piece, fin=False) is None
    expected = TextMessage(text) if opcode is Opcode.TEXT else BinaryMessage(data)
    assert add(message, Opcode.CONTINUATION, pieces[-1], fin=True) == expected


def test_a_fragmented_binary_message_is_bytes() -> None:
    message = assembler()
    add(message, Opcode.BINARY, b"a", fin=False)
    event = add(message, Opcode.CONTINUATION, b"b", fin=True)
    assert isinstance(event, BinaryMessage)
    assert type(event.data) is bytes


def test_fragments_are_delivered_as_they_arrive() -> None:
    message = assembler(assemble=False)
    assert add(message, Opcode.TEXT, b"a\xe2\x82", fin=False) == TextFragment("a", False)
    assert add(message, Opcode.CONTINUATION, b"", fin=False) is None
    assert add(message, Opcode.CONTINUATION, b"\xac", fin=False) == TextFragment("€", False)
    assert add(message, Opcode.CONTINUATION, b"", fin=True) == TextFragment("", True)
    assert add(message, Opcode.BINARY, b"a", fin=False) == BinaryFragment(b"a", False)
    assert add(message, Opcode.CONTINUATION, b"", fin=False) is None
    assert add(message, Opcode.CONTINUATION, b"", fin=True) == BinaryFragment(b"", True)
    assert message.opcode is None


def test_fragments_out_of_order_fail() -> None:
    assert refusal(assembler(), Opcode.CONTINUATION, b"", fin=True) == ("unexpected-continuation", 1002)
    message = assembler()
    add(message, Opcode.TEXT, b"", fin=False)
    assert refusal(message, Opcode.BINARY, b"", fin=True) == ("expected-continuation", 1002)


def test_the_size_limit_applies_to_the_sum_of_fragments() -> None:
    message = assembler(max_size=3)
    add(message, Opcode.TEXT, b"ab", fin=False)
    assert add(message, Opcode.CONTINUATION, b"c", fin=True) == TextMessage("abc")
    add(message, Opcode.TEXT, b"ab", fin=False)
    assert refusal(message, Opcode.CONTINUATION, b"cd", fin=True) == ("message-too-big", 1009)


def test_a_flood_of_empty_fragments() -> None:
    message = assembler(max_empty_fragments=2)
    add(message, Opcode.TEXT, b"", fin=False)
    add(message, Opcode.CONTINUATION, b"", fin=False)
    assert refusal(message, Opcode.CONTINUATION, b"", fin=False) == ("empty-fragments", 1008)


def test_many_fragments_hold_about_the_size_of_the_message() -> None:
    message = assembler(max_size=1 << 20)
    header = FrameHeader(False, False, Opcode.CONTINUATION, None, 1, 2)
    message.start_frame(header._replace(opcode=Opcode.BINARY))
    message.receive(b"x", final=False)
    with measured() as memory:
        for _ in range(100_000 - 2):
            message.start_frame(header)
            message.receive(b"x", final=False)
        message.start_frame(header._replace(fin=True))
        event = message.receive(b"x", final=True)
        peak = memory.peak()
    assert event == BinaryMessage(b"x" * 100_000)
    assert peak < 230_000


def test_text_fails_at_the_first_byte_that_cannot_become_valid() -> None:
    """Compares each sequence of up to three bytes of UTF-8's byte classes with Python's decoder."""
    classes = [0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF]
    classes += [0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF]
    tails = [b"", b"\x80", b"\xbf", b"\x90", b"\x80\x80", b"\xbf\xbf", b"\x90\x80", b"\xa0\x80"]
    tails += [b"\x80\x80\x80", b"\x90\x80\x80", b"\xbf\xbf\xbf"]

    def is_utf8(data: bytes) -> bool:
        try:
            data.decode()
        except UnicodeDecodeError:
            return False
        return True

    for a in classes:
        for b in classes:
            for c in classes:
                data = bytes([a, b, c])
                message = assembler()
                message.start_frame(FrameHeader(True, False, Opcode.TEXT, None, 10, 2))
                for index in range(3):
                    mendable = any(is_utf8(data[: index + 1] + tail) for tail in tails)
                    if mendable:
                        message.receive(data[index : index + 1], final=False)
                        continue
                    with pytest.raises(RemoteProtocolError) as caught:
                        message.receive(data[index : index + 1], final=False)
                    assert (caught.value.slug, caught.value.code) == ("bad-utf8", 1007)
                    break


def test_a_code_point_that_is_incomplete_at_the_end() -> None:
    message = assembler()
    add(message, Opcode.TEXT, b"\xe2\x82", fin=False)
    assert refusal(message, Opcode.CONTINUATION, b"", fin=True) == ("bad-utf8", 1007)


# Compressed messages: limits and sizes.


class RecordingInflater(Inflater):
    """Records the size limit of each call of `read`."""

    def __init__(self) -> None:
        super().__init__(DeflateParameters(), Role.CLIENT)
        self.sizes: list[int] = []

    def read(self, size: int) -> bytes:
        self.sizes.append(size)
        return super().read(size)


def deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def compressed_assembler(
    max_size: int, *, assemble: bool = True
) -> tuple[MessageAssembler, RecordingInflater]:
    inflater = RecordingInflater()
    message = MessageAssembler(max_size=max_size, max_empty_fragments=4, assemble=assemble, inflater=inflater)
    return message, inflater


def compressed_header(length: int, *, fin: bool = True) -> FrameHeader:
    return FrameHeader(fin, True, Opcode.BINARY, None, length, 2)


def test_a_message_without_rsv1_is_not_inflated() -> None:
    message, _ = compressed_assembler(100)
    assert add(message, Opcode.BINARY, deflated(b"abc"), fin=True) == BinaryMessage(deflated(b"abc"))
    message.start_frame(compressed_header(len(deflated(b"abc"))))
    assert message.receive(deflated(b"abc"), final=True) == BinaryMessage(b"abc")


@pytest.mark.parametrize("assemble", [False, True])
def test_at_most_one_byte_beyond_the_limit_is_inflated(assemble: bool) -> None:
    """The limit may be smaller than a piece of 64 KiB."""
    message, inflater = compressed_assembler(100, assemble=assemble)
    payload = deflated(bytes(60_000))
    message.start_frame(compressed_header(len(payload)))
    with pytest.raises(RemoteProtocolError) as caught:
        message.receive(payload, final=True)
    assert caught.value.code == 1009
    assert inflater.sizes == [101]


def test_data_is_inflated_in_pieces_of_64_kib() -> None:
    message, inflater = compressed_assembler(150_000)
    payload = deflated(bytes(150_000))
    message.start_frame(compressed_header(len(payload)))
    assert message.receive(payload, final=True) == BinaryMessage(bytes(150_000))
    assert inflater.sizes == [65536, 65536, 150_000 - 2 * 65536 + 1]
    assert message.finished_size == 150_000


def test_with_fragments_a_call_inflates_one_piece() -> None:
    message, inflater = compressed_assembler(150_000, assemble=False)
    payload = deflated(bytes(150_000))
    message.start_frame(compressed_header(len(payload)))
    event = message.receive(payload, final=True)
    for size in (65536, 65536, 150_000 - 2 * 65536):
        assert isinstance(event, BinaryFragment)
        assert (len(event.data), message.finished_size) == (size, size)
        assert inflater.exhausted is event.final
        event = message.resume()
    assert event is None
    assert len(inflater.sizes) == 3


def test_a_compressed_message_may_declare_eight_times_the_limit() -> None:
    message, _ = compressed_assembler(1000)
    message.start_frame(compressed_header(8000))
    message, _ = compressed_assembler(1000)
    with pytest.raises(RemoteProtocolError) as caught:
        message.start_frame(compressed_header(8001))
    assert (caught.value.slug, caught.value.code) == ("message-too-big", 1009)
    # The limit applies to the sum of the fragments. A plain message may declare only the limit itself.
    message, _ = compressed_assembler(1000)
    message.start_frame(compressed_header(8000, fin=False))
    with pytest.raises(RemoteProtocolError):
        message.start_frame(FrameHeader(True, False, Opcode.CONTINUATION, None, 1, 2))
    message, _ = compressed_assembler(1000)
    with pytest.raises(RemoteProtocolError):
        message.start_frame(compressed_header(1001)._replace(rsv1=False))


# What is held, and for how long.


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
def test_what_is_held_counts_the_pieces(opcode: Opcode) -> None:
    message = assembler()
    assert message.held == 0
    sizes = [1, 10, 4095, 4096, 1, 5000, 100]
    for index, size in enumerate(sizes):
        add(message, Opcode.CONTINUATION if index else opcode, b"x" * size, fin=False)
        assert message.held == sum(map(sys.getsizeof, message._pieces))
    assert message.held > sum(sizes)
    assert add(message, Opcode.CONTINUATION, b"", fin=True) is not None
    assert message.held == 0


def test_the_size_of_the_last_message_or_fragment() -> None:
    message = assembler()
    assert message.finished_size == 0
    add(message, Opcode.TEXT, "é".encode(), fin=False)
    assert message.finished_size == 0
    add(message, Opcode.CONTINUATION, b"abc", fin=True)
    assert message.finished_size == 5
    add(message, Opcode.BINARY, b"", fin=True)
    assert message.finished_size == 0
    message = assembler(assemble=False)
    for opcode, data, fin in ((Opcode.TEXT, "é".encode(), False), (Opcode.CONTINUATION, b"abc", True)):
        add(message, opcode, data, fin=fin)
        assert message.finished_size == len(data)


def test_large_fragments_are_kept_and_small_ones_are_joined() -> None:
    """Joining large fragments would copy the message once for each fragment."""
    message = assembler()
    large = bytes(4096)
    add(message, Opcode.BINARY, large, fin=False)
    for _ in range(4096):
        add(message, Opcode.CONTINUATION, b"x", fin=False)
    add(message, Opcode.CONTINUATION, large, fin=False)
    assert message._pieces == [large, b"x" * 4096, large]
    assert message._pieces[0] is large


def test_a_finished_message_is_not_kept() -> None:
    for assemble in (True, False):
        message = assembler(assemble=assemble)
        add(message, Opcode.BINARY, bytes(5000), fin=False)
        add(message, Opcode.CONTINUATION, bytes(5000), fin=True)
        assert (message._pieces, message._undecoded, message.opcode) == ([], b"", None)


@pytest.mark.parametrize("assemble", [True, False])
def test_the_counts_are_reset_for_each_message(assemble: bool) -> None:
    message = assembler(max_size=4, max_empty_fragments=2, assemble=assemble)
    for _ in range(3):
        add(message, Opcode.TEXT, b"", fin=False)
        add(message, Opcode.CONTINUATION, b"", fin=False)
        expected = TextMessage("abcd") if assemble else TextFragment("abcd", True)
        assert add(message, Opcode.CONTINUATION, b"abcd", fin=True) == expected
    message, _ = compressed_assembler(1000, assemble=assemble)
    for _ in range(3):
        payload = deflated(bytes(1000))
        message.start_frame(compressed_header(len(payload)))
        event = message.receive(payload, final=True)
        assert event == (BinaryMessage(bytes(1000)) if assemble else BinaryFragment(bytes(1000), True))


def test_release_drops_the_message_and_the_inflater() -> None:
    message, inflater = compressed_assembler(100_000)
    payload = deflated(bytes(10_000))
    message.start_frame(compressed_header(2 * len(payload), fin=False))
    message.receive(payload, final=False)
    assert message._pieces
    message.release()
    assert (message._pieces, message._inflater, message.opcode) == ([], None, None)
    assert message.resume() is None
    assert sys.getrefcount(inflater) == 2  # the variable and the argument of the call


# Prepared messages.


@pytest.mark.parametrize("threshold", [30, 31])
def test_a_prepared_message_is_compressed_from_the_threshold(threshold: int) -> None:
    deflate = DeflateParameters(server_no_context_takeover=True, threshold=threshold)
    for messages in (["a" * 30], ["a" * 30, b"a" * 30], ["a" * 30, b"a" * 60]):
        prepared = PreparedMessage(*messages)
        frame = prepared.frame(deflate)
        assert frame is prepared.frame(deflate)
        assert frame is not None
        assert frame[0] == (0xC1 if threshold == 30 else 0x81)
        if max(map(len, messages)) < threshold:
            assert frame is prepared.plain_frame


@pytest.mark.parametrize("bits", range(8, 16))
def test_each_window_can_read_what_was_compressed_for_many(bits: int) -> None:
    text = "".join(str(number) for number in range(20_000))
    prepared = PreparedMessage(text)
    deflate = DeflateParameters(server_no_context_takeover=True, server_max_window_bits=bits)
    client = make_connection(Role.CLIENT, deflate=deflate)
    frame = prepared.frame(deflate)
    assert frame is not None
    assert feed(client, [frame]) == [TextMessage(text)]
    assert prepared.compressed_size == len(frame) < prepared.size


def test_the_largest_window_is_used_for_those_who_may_have_it() -> None:
    block = random.Random(1).randbytes(20_000)  # repeats only within a window of 15 bits
    prepared = PreparedMessage(block * 3)
    sizes = []
    for bits in (15, 14, 9):
        deflate = DeflateParameters(server_no_context_takeover=True, server_max_window_bits=bits)
        sizes.append(len(prepared.frame(deflate) or b""))
    assert sizes[0] < 25_000
    assert sizes[1:] == [prepared.size, prepared.size]


def test_a_message_that_deflate_does_not_make_smaller_is_sent_as_it_is() -> None:
    prepared = PreparedMessage(random.Random(1).randbytes(1000))
    deflate = DeflateParameters(server_no_context_takeover=True)
    assert prepared.frame(deflate) is prepared.plain_frame
    assert prepared.compressed_size == 0


@pytest.mark.parametrize(("messages", "plain"), [(["abc"] * 9, True), (["abc", "abcd"], False)])
def test_a_shared_window_leaves_only_small_messages_as_they_are(messages: list[str], plain: bool) -> None:
    prepared = PreparedMessage(*messages)
    frame = prepared.frame(DeflateParameters(threshold=4))
    assert frame is (prepared.plain_frame if plain else None)


def test_the_size_of_a_prepared_message_is_that_of_its_frames() -> None:
    assert PreparedMessage("é", b"abc").size == (2 + 2) + (2 + 3)


def test_invalid_messages_cannot_be_prepared() -> None:
    with pytest.raises(LocalProtocolError) as caught:
        PreparedMessage("good", "\ud800")
    assert caught.value.slug == "bad-text"
    with pytest.raises(TypeError):
        PreparedMessage()
    with pytest.raises(TypeError):
        PreparedMessage(5)  # type: ignore[arg-type]


def test_parts_of_messages_with_each_length_form() -> None:
    messages: list[str | bytes] = ["é", b"", b"x" * 126, "y" * 65_535, b"z" * 65_536]
    expected = [
        (Opcode.TEXT, message.encode()) if isinstance(message, str) else (Opcode.BINARY, message)
        for message in messages
    ]
    assert PreparedMessage(*messages).parts == expected
    for message, part in zip(messages, expected, strict=True):
        prepared = PreparedMessage(message)
        assert (prepared.parts, prepared.message) == ([part], message)
