"""Messages: one that is being received, and one that is sent to many.

Implements: RFC 6455 §5.4 (fragmentation), §5.6 and §8.1 (UTF-8), §10.4 (limits); RFC 7692 §6.2 (receiving).
Left to others: frames and masking (`frames`, `reader`), inflation itself (`deflate`).

Small fragments are joined as they arrive, so that memory holds the message and not its pieces: a million
fragments of one byte become some 250 pieces of 4 KiB. Text is decoded as it arrives, so bad UTF-8 fails the
connection at its first byte; as in any str, a character then takes up to four bytes. Compressed data is
inflated in pieces, and never further than the size limit.
"""

from codecs import utf_8_decode
from dataclasses import replace
from sys import getsizeof
from typing import Any, Final

from rfc6455.constants import CloseCode, Opcode, Role
from rfc6455.deflate import DeflateParameters, Deflater, Inflater
from rfc6455.errors import LocalProtocolError, RemoteProtocolError
from rfc6455.events import BinaryFragment, BinaryMessage, DataEvent, TextFragment, TextMessage
from rfc6455.frames import FIN, RSV1, FrameHeader, decode_header, encode_frame, encode_header

_PIECE: Final = 65536
"""Bytes that are inflated in one step."""

_PIECES: Final = 16
"""Pieces that are inflated before others have a turn: 1 MiB, or so many streams without any output."""

_LARGE_PIECE: Final = 4096
"""A piece of this many bytes or characters stays as it is; a smaller one is joined with the next."""

_MAX_EXPANSION: Final = 8
"""A compressed message may be this many times larger than the limit for its inflated form.

Compression can enlarge data, for example by a flush after each byte. A frame that declares more fails the
connection at its header. Memory is bounded anyway, because data is inflated as it arrives.
"""


_SHARED_WINDOWS: Final = (15, 12, 9)
"""The window bits that a message is compressed with for many connections: the largest that each may get.

Otherwise a message would be compressed once for each size that a client asks for. A decompressor with a
larger window reads what a smaller one wrote (RFC 7692 §7.1.2.1); for 8 bits, see `Deflater`.
"""

_FormKey = tuple[int, int, int, int]
"""What of the parameters a compressed form depends on: nothing that the client sends by."""


class MessageAssembler:
    """Takes the headers and the unmasked payloads of data frames, and returns messages.

    With ``assemble=False`` it returns fragments instead, as they arrive. ``opcode`` is the type of the
    unfinished message, or ``None``. ``inflater`` is for messages with RSV1.
    """

    __slots__ = (
        "_assemble",
        "_compressed",
        "_empty_fragments",
        "_final",
        "_inflated",
        "_inflater",
        "_max_empty_fragments",
        "_max_size",
        "_pieces",
        "_size",
        "_undecoded",
        "finished_size",
        "held",
        "opcode",
    )

    def __init__(
        self,
        *,
        max_size: int,
        max_empty_fragments: int,
        assemble: bool,
        inflater: Inflater | None = None,
    ) -> None:
        self._max_size = max_size
        self._inflater = inflater
        self._final = False
        self._max_empty_fragments = max_empty_fragments
        self._assemble = assemble
        self.finished_size = 0
        """Bytes of the last finished message (with ``assemble=False``, fragment), after inflation."""
        self._reset()

    def _reset(self) -> None:
        self.opcode: Opcode | None = None
        self._size = 0  # bytes that the headers of the message have declared so far
        self._compressed = False
        self._inflated = 0
        self._empty_fragments = 0
        self._undecoded = b""  # the first bytes of an incomplete code point
        self._pieces: list[Any] = []  # all of them str, or all of them bytes
        self.held = 0
        """Bytes of memory that the pieces of the unfinished message take."""

    def release(self) -> None:
        """Drops everything: nothing will be received after this."""
        self._inflater = None
        self._reset()

    def start_frame(self, frame: FrameHeader) -> None:
        """Takes the header of a data frame.

        Raises `RemoteProtocolError` before the payload arrives: 1002 for a frame out of order, 1009 over the
        size limit, 1008 for a flood of empty fragments.
        """
        if frame.opcode is Opcode.CONTINUATION:
            if self.opcode is None:
                # RFC 6455 §5.4: a continuation frame needs a message to continue.
                raise RemoteProtocolError("a continuation without a message", slug="unexpected-continuation")
        elif self.opcode is not None:
            # RFC 6455 §5.4: fragments of two messages MUST NOT be interleaved.
            raise RemoteProtocolError("a new message inside an unfinished one", slug="expected-continuation")
        else:
            self.opcode = frame.opcode
            self._compressed = frame.rsv1
        self._size += frame.length
        # RFC 6455 §10.4: the limit applies to the whole message, not only to the frame.
        if self._size > (self._max_size * _MAX_EXPANSION if self._compressed else self._max_size):
            raise self._too_big()
        if frame.length == 0 and not frame.fin:
            self._empty_fragments += 1
            if self._empty_fragments > self._max_empty_fragments:
                raise RemoteProtocolError(
                    "a flood of empty fragments",
                    slug="empty-fragments",
                    code=CloseCode.POLICY_VIOLATION,
                )

    def receive(self, data: bytes, *, final: bool) -> DataEvent | None:
        """Takes the next bytes of the message; ``final`` marks its last bytes.

        Returns the message or the fragment, or ``None`` if it is not complete. Raises `RemoteProtocolError`:
        1007 at the first byte that cannot be UTF-8, or if the data cannot be inflated; 1009 if the inflated
        message exceeds the limit.
        """
        if not self._compressed or self._inflater is None:
            return self._receive_uncompressed(data, final)
        self._inflater.feed(data, final=final)
        self._final = final
        return self.resume()

    def resume(self) -> DataEvent | None:
        """Continues to inflate what `receive` took; returns and raises as `receive` does.

        It stops after 16 pieces. With ``assemble=False`` it returns one fragment a call, so that a small
        frame with a large content is inflated only as fast as the caller asks for it.
        """
        inflater = self._inflater
        event = None
        left = _PIECES
        while inflater is not None and not inflater.exhausted and event is None and left:
            left -= 1
            # At most one byte beyond the limit is inflated.
            data = inflater.read(min(_PIECE, self._max_size - self._inflated + 1))
            self._inflated += len(data)
            if self._inflated > self._max_size:
                raise self._too_big()
            event = self._receive_uncompressed(data, self._final and inflater.exhausted)
        return event

    def _receive_uncompressed(self, data: bytes, final: bool) -> DataEvent | None:
        piece = self._decode(data, final) if self.opcode is Opcode.TEXT else data
        if not self._assemble:
            self.finished_size = len(data)
            return self._fragment(piece, final)
        pieces = self._pieces
        if pieces and len(pieces[-1]) < _LARGE_PIECE:
            self.held -= getsizeof(pieces[-1])
            pieces[-1] += piece
        else:
            pieces.append(piece)
        if final:
            return self._finish()
        self.held += getsizeof(pieces[-1])
        return None

    def _too_big(self) -> RemoteProtocolError:
        return RemoteProtocolError(
            f"the message exceeds {self._max_size} bytes",
            slug="message-too-big",
            code=CloseCode.MESSAGE_TOO_BIG,
        )

    def _decode(self, data: bytes, final: bool) -> str:
        if not self._undecoded and len(data) < _LARGE_PIECE and data.isascii():
            return data.decode()  # a third of the time for small data; no gain for large data
        data = self._undecoded + data
        try:
            text, decoded = utf_8_decode(data, "strict", final)
        except UnicodeDecodeError:
            raise _bad_utf8() from None
        self._undecoded = data[decoded:]
        # The decoder rejects a byte as soon as no continuation could make it valid, with one exception:
        # after ED it accepts A0 to BF, half a surrogate, until the third byte arrives.
        if self._undecoded[:1] == b"\xed" and self._undecoded[1:] >= b"\xa0":
            raise _bad_utf8()
        return text

    def _finish(self) -> DataEvent:
        pieces, opcode = self._pieces, self.opcode
        self.finished_size = self._inflated or self._size
        self._reset()
        if opcode is Opcode.TEXT:
            return TextMessage("".join(pieces))
        return BinaryMessage(b"".join(pieces))

    def _fragment(self, piece: Any, final: bool) -> DataEvent | None:
        opcode = self.opcode
        if final:
            self._reset()
        elif not piece:
            return None
        return TextFragment(piece, final) if opcode is Opcode.TEXT else BinaryFragment(piece, final)


def _bad_utf8() -> RemoteProtocolError:
    # RFC 6455 §8.1: an endpoint MUST fail the connection. Python's own reason is left out, because it depends
    # on how the bytes were split.
    return RemoteProtocolError("the text is not UTF-8", slug="bad-utf8", code=CloseCode.INVALID_PAYLOAD_DATA)


class PreparedMessage:
    """A message that a server sends to many connections: encoded once, compressed at most three times.

    Several messages that belong together may be given: nothing is sent between them, and `frame` returns the
    frames of all. Raises `LocalProtocolError` for text with a surrogate, `TypeError` for what is neither str
    nor bytes, and for no message.
    """

    __slots__ = ("_compressed_frames", "plain_frame", "size")

    def __init__(self, *messages: str | bytes | bytearray | memoryview) -> None:
        if not messages:
            raise TypeError("at least one message is needed")
        try:
            frames = [
                encode_frame(Opcode.TEXT, message.encode())
                if isinstance(message, str)
                else encode_frame(Opcode.BINARY, bytes(memoryview(message)))
                for message in messages
            ]
        except UnicodeEncodeError:
            raise LocalProtocolError("the text has a surrogate", slug="bad-text") from None
        # The payloads are held once, inside the frames: many messages may wait for many peers.
        self.plain_frame = frames[0] if len(frames) == 1 else b"".join(frames)
        self.size = len(self.plain_frame)
        """Bytes of the frames, uncompressed."""
        self._compressed_frames: dict[_FormKey, bytes] | None = None

    @property
    def parts(self) -> list[tuple[Opcode, bytes]]:
        """The opcode and the payload of each message."""
        parts = []
        start = 0
        while header := decode_header(self.plain_frame, start, masked=False):
            end = start + header.size + header.length
            parts.append((header.opcode, self.plain_frame[start + header.size : end]))
            start = end
        return parts

    @property
    def message(self) -> str | bytes:
        """The message; the first of several."""
        opcode, payload = self.parts[0]
        return payload.decode() if opcode is Opcode.TEXT else payload

    @property
    def compressed_size(self) -> int:
        """Bytes of the compressed frames that were needed so far, besides ``size``."""
        frames = (self._compressed_frames or {}).values()
        return sum([len(frame) for frame in frames if frame is not self.plain_frame])

    def frame(self, deflate: DeflateParameters | None) -> bytes | None:
        """Returns the frame for a connection that agreed on ``deflate``: one of few objects for all of them.

        ``None`` if compression depends on what the connection was sent before (context takeover).
        """
        if deflate is None or self.size <= deflate.threshold:
            return self.plain_frame
        if not deflate.server_no_context_takeover:
            return self.plain_frame if self._is_below(deflate.threshold) else None
        agreed = deflate.server_max_window_bits
        bits = next((bits for bits in _SHARED_WINDOWS if bits <= agreed), _SHARED_WINDOWS[-1])
        key = (bits, deflate.level, deflate.memory_level, deflate.threshold)
        frames = self._compressed_frames
        if frames is None:
            frames = self._compressed_frames = {}
        frame = frames.get(key)
        if frame is None:
            frame = frames[key] = self._compress(replace(deflate, server_max_window_bits=bits))
        return frame

    def _is_below(self, threshold: int) -> bool:
        return all(len(payload) < threshold for _, payload in self.parts)

    def _compress(self, deflate: DeflateParameters) -> bytes:
        """Returns the frames, compressed if that makes them smaller."""
        if self._is_below(deflate.threshold):
            return self.plain_frame
        frame = b"".join([_compressed_frame(deflate, *part) for part in self.parts])
        return frame if len(frame) < self.size else self.plain_frame


def _compressed_frame(deflate: DeflateParameters, opcode: Opcode, payload: bytes) -> bytes:
    if len(payload) < deflate.threshold:
        return encode_frame(opcode, payload)
    compressed = Deflater(deflate, Role.SERVER).compress(payload, fin=True)
    return encode_header(FIN | RSV1 | opcode, len(compressed)) + compressed
