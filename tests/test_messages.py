"""The assembler by itself; what a whole connection makes of fragments is in test_connection."""

import tracemalloc

import pytest

from rfc6455 import (
    BinaryFragment,
    BinaryMessage,
    DataEvent,
    FrameHeader,
    Opcode,
    RemoteProtocolError,
    TextFragment,
    TextMessage,
)
from rfc6455.messages import MessageAssembler


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


def test_fragments_become_one_message_and_the_next_begins_afresh() -> None:
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
def test_fragments_of_any_size_are_put_together(opcode: Opcode, size: int) -> None:
    text = "aé€😀" * 2500
    data = text.encode()
    message = assembler()
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    for index, piece in enumerate(pieces[:-1]):
        assert add(message, Opcode.CONTINUATION if index else opcode, piece, fin=False) is None
    expected = TextMessage(text) if opcode is Opcode.TEXT else BinaryMessage(data)
    assert add(message, Opcode.CONTINUATION, pieces[-1], fin=True) == expected


def test_a_binary_message_is_bytes_however_it_came() -> None:
    message = assembler()
    add(message, Opcode.BINARY, b"a", fin=False)
    event = add(message, Opcode.CONTINUATION, b"b", fin=True)
    assert isinstance(event, BinaryMessage)
    assert type(event.data) is bytes


def test_fragments_as_they_come() -> None:
    message = assembler(assemble=False)
    assert add(message, Opcode.TEXT, b"a\xe2\x82", fin=False) == TextFragment("a", False)
    assert add(message, Opcode.CONTINUATION, b"", fin=False) is None
    assert add(message, Opcode.CONTINUATION, b"\xac", fin=False) == TextFragment("€", False)
    assert add(message, Opcode.CONTINUATION, b"", fin=True) == TextFragment("", True)
    assert add(message, Opcode.BINARY, b"a", fin=False) == BinaryFragment(b"a", False)
    assert add(message, Opcode.CONTINUATION, b"", fin=False) is None
    assert add(message, Opcode.CONTINUATION, b"", fin=True) == BinaryFragment(b"", True)
    assert message.opcode is None


def test_order() -> None:
    assert refusal(assembler(), Opcode.CONTINUATION, b"", fin=True) == ("unexpected-continuation", 1002)
    message = assembler()
    add(message, Opcode.TEXT, b"", fin=False)
    assert refusal(message, Opcode.BINARY, b"", fin=True) == ("expected-continuation", 1002)


def test_the_size_limit_holds_for_the_sum() -> None:
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
    tracemalloc.start()
    for _ in range(100_000 - 2):
        message.start_frame(header)
        message.receive(b"x", final=False)
    message.start_frame(header._replace(fin=True))
    event = message.receive(b"x", final=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert event == BinaryMessage(b"x" * 100_000)
    assert peak < 230_000


def test_text_is_refused_exactly_when_no_continuation_could_mend_it() -> None:
    """Every sequence of up to three bytes of UTF-8's classes, against the decoder's whole answer."""
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


def test_a_code_point_that_is_never_finished() -> None:
    message = assembler()
    add(message, Opcode.TEXT, b"\xe2\x82", fin=False)
    assert refusal(message, Opcode.CONTINUATION, b"", fin=True) == ("bad-utf8", 1007)
