"""The message that is being received: its fragments become one, its text is checked as it comes.

Implements: RFC 6455 §5.4 (fragmentation), §5.6 and §8.1 (UTF-8), §10.4 (limits).
Left to others: frames and masking (`frames`, `connection`).

Fragments are joined as they come, so that what is held is the message and not its pieces: a million
fragments of one byte are one buffer of a million bytes.
"""

import codecs

from rfc6455.constants import CloseCode, Opcode
from rfc6455.errors import RemoteProtocolError
from rfc6455.events import BinaryFragment, BinaryMessage, DataEvent, TextFragment, TextMessage
from rfc6455.frames import FrameHeader

_Utf8Decoder = codecs.getincrementaldecoder("utf-8")


class MessageAssembler:
    """Takes the headers and the unmasked payload of data frames, and gives messages.

    With ``assemble=False`` it gives fragments instead, as they come. ``opcode`` is the type of the
    message that has begun and not ended, or ``None``.
    """

    __slots__ = (
        "_assemble",
        "_buffer",
        "_decoder",
        "_empty_fragments",
        "_max_empty_fragments",
        "_max_size",
        "_size",
        "opcode",
    )

    def __init__(self, *, max_size: int, max_empty_fragments: int, assemble: bool) -> None:
        self._max_size = max_size
        self._max_empty_fragments = max_empty_fragments
        self._assemble = assemble
        self._reset()

    def _reset(self) -> None:
        self.opcode: Opcode | None = None
        self._size = 0  # declared so far, by all headers of the message
        self._empty_fragments = 0
        self._decoder: codecs.IncrementalDecoder | None = None  # of a text message
        self._buffer: bytes | bytearray = b""

    def start_frame(self, frame: FrameHeader) -> None:
        """Takes the header of a data frame, and refuses it before its payload where it must.

        Raises `RemoteProtocolError`: 1002 out of order, 1009 over the size limit, 1008 for a flood of
        empty fragments.
        """
        if frame.opcode is Opcode.CONTINUATION:
            if self.opcode is None:
                # RFC 6455 §5.4: a continuation continues something.
                raise RemoteProtocolError(
                    "a continuation without a message", slug="unexpected-continuation"
                )
        elif self.opcode is not None:
            # RFC 6455 §5.4: fragments of two messages MUST NOT be interleaved.
            raise RemoteProtocolError("a message inside a message", slug="expected-continuation")
        else:
            self.opcode = frame.opcode
            if frame.opcode is Opcode.TEXT:
                self._decoder = _Utf8Decoder()
        self._size += frame.length
        if self._size > self._max_size:
            # RFC 6455 §10.4: the limit holds for the message, not only for the frame.
            raise RemoteProtocolError(
                f"a message above {self._max_size} bytes",
                slug="message-too-big",
                code=CloseCode.MESSAGE_TOO_BIG,
            )
        if frame.length == 0 and not frame.fin:
            self._empty_fragments += 1
            if self._empty_fragments > self._max_empty_fragments:
                raise RemoteProtocolError(
                    "a flood of empty fragments",
                    slug="empty-fragments",
                    code=CloseCode.POLICY_VIOLATION,
                )

    def receive(self, data: bytes, *, final: bool) -> DataEvent | None:
        """Takes the next bytes of the message; ``final`` says that they are its last.

        Gives the message, or the fragment, or ``None`` when there is nothing to give yet. Raises
        `RemoteProtocolError` 1007 as soon as the text cannot become UTF-8 any more.
        """
        if self._decoder is None:
            if not self._assemble:
                return self._binary_fragment(data, final)
        else:
            text = self._decode(self._decoder, data, final)
            if not self._assemble:
                return self._text_fragment(text, final)
        self._append(data)
        return self._finish() if final else None

    @staticmethod
    def _decode(decoder: codecs.IncrementalDecoder, data: bytes, final: bool) -> str:
        try:
            text = decoder.decode(data, final)
        except UnicodeDecodeError:
            raise _bad_utf8() from None
        # The decoder refuses a byte as soon as no continuation could make it valid, but for one case:
        # after ED it keeps A0 to BF, half a surrogate, until the third byte comes.
        pending, _ = decoder.getstate()
        if pending[:1] == b"\xed" and pending[1:] >= b"\xa0":
            raise _bad_utf8()
        return text

    def _append(self, data: bytes) -> None:
        if not self._buffer:
            # A message in one piece needs no buffer of its own.
            self._buffer = data
        elif isinstance(self._buffer, bytearray):
            self._buffer += data
        else:
            self._buffer = bytearray(self._buffer) + data

    def _finish(self) -> DataEvent:
        data, is_text = self._buffer, self._decoder is not None
        self._reset()
        return TextMessage(data.decode()) if is_text else BinaryMessage(bytes(data))

    def _binary_fragment(self, data: bytes, final: bool) -> BinaryFragment | None:
        if final:
            self._reset()
        return BinaryFragment(data, final) if data or final else None

    def _text_fragment(self, text: str, final: bool) -> TextFragment | None:
        if final:
            self._reset()
        return TextFragment(text, final) if text or final else None


def _bad_utf8() -> RemoteProtocolError:
    # RFC 6455 §8.1: an endpoint MUST fail the connection. The codec's own reason stays out: it depends
    # on how the bytes were split.
    return RemoteProtocolError(
        "the text is not UTF-8", slug="bad-utf8", code=CloseCode.INVALID_PAYLOAD_DATA
    )
