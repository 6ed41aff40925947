"""FrameReader: bytes in, messages and control frames out.

Implements: RFC 6455 §5.2 to §5.4 for what the peer sends (with `frames`, `masking` and `messages`), §6.2.
Left to others: answering control frames, states, close codes on the wire (`connection`).

There are two paths through this file.

The general path, `FrameReader.read`, takes one frame at a time, in pieces if need be: `_start_frame` decodes
a header and raises for a frame that is not allowed here, `_continue_frame` unmasks the part of the payload
that is there and passes it to the message (`messages`), or collects a control frame. It handles everything,
and raises `RemoteProtocolError` for every violation.

The hot path, `FrameReader.read_messages`, takes what servers receive all day: whole messages, each in one
frame, not compressed, many in one go. It detects no violations. It stops at the first frame that is
anything else, incomplete or wrong, and leaves it in the buffer for the general path.

Each byte is copied once from the caller's data into the buffer. Data that arrives while the buffer is not
empty waits in a second one, and `refill` joins the two when the first is parsed as far as possible.
"""

from collections import deque
from collections.abc import Callable
from itertools import repeat
from struct import Struct
from typing import Final, NamedTuple

from rfc6455.constants import Opcode, Role
from rfc6455.deflate import DeflateParameters, Inflater
from rfc6455.events import NO_EVENTS, BinaryMessage, DataEvent, Event, TextMessage
from rfc6455.frames import FIN, MASK, FrameHeader, decode_header
from rfc6455.masking import INTEGERS_SIZE, MASKS, apply_mask, bulk_xor
from rfc6455.messages import MessageAssembler

_WHOLE_TEXT: Final = FIN | Opcode.TEXT
_WHOLE_BINARY: Final = FIN | Opcode.BINARY
_WHOLE: Final = frozenset((_WHOLE_TEXT, _WHOLE_BINARY))
"""The first byte of a frame that is a plain message: unfragmented, uncompressed."""

_MAX_BATCH: Final = 256
"""Maximum messages that the hot path parses in one call: a message object is larger than a small frame."""

_MAX_FRAGMENTS: Final = 256
"""Maximum frames without an event that the general path parses before others have a turn: some 1 ms."""

_SMALL: Final = 125
"""Maximum payload bytes of a frame with the shortest header."""

_BULK_SIZE: Final = 2048
"""With numpy, medium frames are unmasked together if at least this many bytes are in the buffer."""

_MAX_BULK_SIZE: Final = 1 << 18
"""Maximum bytes that are unmasked together; they are copied three times."""

_from_bytes = int.from_bytes
_unpack_16 = Struct(">H").unpack_from
_unpack_64 = Struct(">Q").unpack_from
_unpack_masked_16 = Struct(">BBH4s").unpack_from
_MASKED_16_SIZE: Final = 8

# ``_new(TextMessage)`` and an assignment take two thirds of the time of ``TextMessage(data)``, because the
# dataclass's ``__init__`` is a call of a Python function: a seventh of the time for a message of 32 bytes
# (``benchmarks/codec.py``).
_new = object.__new__


_SmallFrame = tuple[int, int, int, int, int]
"""What the hot path needs of a frame with the shortest header.

Bytes behind the two of the header; bits of the payload; `MASKS` for key and payload; bytes of the payload. It
is not a NamedTuple, because Python unpacks that more slowly: a tenth of the time for a message of 32 bytes
(``benchmarks/before_after.py``).
"""


def _small_frames(*, masked: bool) -> tuple[_SmallFrame | None, ...]:
    frames: list[_SmallFrame | None] = [None] * 256
    for length in range(_SMALL + 1):
        if masked:
            frames[MASK | length] = (4 + length, 8 * length, *MASKS[4 + length], length)
        else:
            frames[length] = (length, 0, 0, 0, length)
    return tuple(frames)


_SMALL_FRAMES: Final = {False: _small_frames(masked=False), True: _small_frames(masked=True)}
"""For frames without and with a mask; ``None`` for a second byte that begins a longer header."""


class ControlFrame(NamedTuple):
    """A complete control frame."""

    opcode: Opcode
    payload: bytes


class FrameReader:
    """Parses what the peer of a `Connection` sends; the arguments are the connection's.

    Call `receive_data`, then `read_messages` and `read` until both return nothing and `refill` returns False.
    """

    __slots__ = (
        "_assemble",
        "_buffer",
        "_control_payload",
        "_deflated",
        "_frame",
        "_frame_read",
        "_incoming",
        "_inflater",
        "_masked",
        "_max_message_size",
        "_message",
        "_position",
        "batch_size",
        "yielded",
    )

    def __init__(
        self,
        role: Role,
        *,
        deflate: DeflateParameters | None,
        max_message_size: int,
        max_empty_fragments: int,
        assemble: bool,
    ) -> None:
        self._masked = role is Role.SERVER  # RFC 6455 §5.1: clients mask, servers do not
        self._deflated = deflate is not None
        self._max_message_size = max_message_size
        self._assemble = assemble
        self._buffer = b""
        self._position = 0  # everything before it is parsed
        self._incoming = bytearray()  # data that arrived while the buffer still had unparsed bytes
        self._frame: FrameHeader | None = None  # the frame whose payload is being read
        self._frame_read = 0
        self._control_payload = b""
        self.yielded = False
        """Whether `read` returned ``None`` because it had done much; then it is to be called again."""
        self.batch_size = 0
        """Bytes of the messages that were returned last; see `Connection.batch_size`."""
        peer = Role.CLIENT if self._masked else Role.SERVER
        self._inflater = Inflater(deflate, peer) if deflate else None
        self._message = MessageAssembler(
            max_size=max_message_size,
            max_empty_fragments=max_empty_fragments,
            assemble=assemble,
            inflater=self._inflater,
        )

    @property
    def unread(self) -> bool:
        """Whether bytes are left that were not parsed, or compressed data that was not inflated."""
        if self._position < len(self._buffer) or self._incoming:
            return True
        return self._inflater is not None and not self._inflater.exhausted

    @property
    def held(self) -> int:
        """Bytes of memory that the input takes that was not returned; see `Connection.held`."""
        return len(self._buffer) + len(self._incoming) + self._message.held

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Takes bytes from the network."""
        if self._position == len(self._buffer) and not self._incoming:
            # Not ``bytes(data)``: ``bytes(5)`` is five zero bytes.
            self._buffer = data if type(data) is bytes else bytes(memoryview(data))
            self._position = 0
        else:
            self._incoming += data if type(data) is bytes else bytes(memoryview(data))

    def discard_input(self) -> None:
        """Drops the bytes that were not parsed."""
        self._buffer = b""
        self._position = 0
        self._incoming = bytearray()

    def release(self) -> None:
        """Drops everything: nothing will be parsed after this."""
        self.discard_input()
        self._message.release()
        self._inflater = None

    # The general path.

    def read(self) -> DataEvent | ControlFrame | None:
        """Parses until a message, fragment or control frame is complete.

        Returns ``None`` if more data is needed, or if it has parsed or inflated much (`yielded`). Raises
        `RemoteProtocolError` for a violation.
        """
        inflater = self._inflater
        self.yielded = False
        for _ in repeat(None, _MAX_FRAGMENTS):
            if inflater is not None and not inflater.exhausted:
                event = self._message.resume()
                if event is not None:
                    self.batch_size = self._message.finished_size
                    return event
                if not inflater.exhausted:
                    break
            if self._frame is None:
                self._start_frame()
                if self._frame is None:
                    return None
            item = self._continue_frame(self._frame)
            if item is not None or self._frame is not None:
                return item
            if inflater is not None and not inflater.exhausted:
                break
        self.yielded = True
        return None

    def refill(self) -> bool:
        """Appends newly arrived data to the unparsed rest of the buffer; returns False if none arrived.

        What is left is at most a part of a header or of a small frame, so each byte moves once.
        """
        if self._position:
            self._buffer, self._position = self._buffer[self._position :], 0
        if not self._incoming:
            return False
        self._buffer += self._incoming
        self._incoming = bytearray()
        return True

    def _start_frame(self) -> None:
        """Decodes the next header, if all of it is there; raises for a frame that is not allowed here."""
        frame = decode_header(self._buffer, self._position, masked=self._masked, rsv1_allowed=self._deflated)
        if frame is None:
            return
        if frame.opcode < Opcode.CLOSE:
            self._message.start_frame(frame)
        self._position += frame.size
        self._frame = frame
        self._frame_read = 0

    def _continue_frame(self, frame: FrameHeader) -> DataEvent | ControlFrame | None:
        """Takes the part of the payload that is there; sets ``_frame`` to ``None`` if that completes it."""
        missing = frame.length - self._frame_read
        begin, end = self._position, min(self._position + missing, len(self._buffer))
        size = end - begin
        finished = size == missing
        if size == 0 and not finished:
            return None
        if frame.mask_key is None:
            chunk = self._buffer[begin:end]
        else:
            # RFC 6455 §5.3: the key continues where the last piece of this frame ended.
            turn = self._frame_read % 4
            key = frame.mask_key[turn:] + frame.mask_key[:turn] if turn else frame.mask_key
            # Making a view costs as much as copying a kilobyte.
            masked = self._buffer[begin:end] if size < INTEGERS_SIZE else memoryview(self._buffer)[begin:end]
            chunk = apply_mask(masked, key)
        self._position = end
        if end == len(self._buffer):
            self._buffer, self._position = b"", 0  # an idle connection holds no data
        self._frame_read += size
        if finished:
            self._frame = None
        if frame.opcode < Opcode.CLOSE:
            event = self._message.receive(chunk, final=finished and frame.fin)
            self.batch_size = self._message.finished_size
            return event
        self._control_payload += chunk
        if not finished:
            return None
        payload, self._control_payload = self._control_payload, b""
        return ControlFrame(frame.opcode, payload)

    # The hot path.

    def read_messages(self) -> deque[Event]:
        """Returns the plain messages at the head of the buffer, at most 256; empty if there are none."""
        max_size = self._max_message_size
        data, position, end = self._buffer, self._position, len(self._buffer)
        if position == end or data[position] not in _WHOLE:
            return NO_EVENTS  # the common case of nothing left, or a control frame or fragment
        if self._frame is not None or self._message.opcode is not None or not self._assemble:
            return NO_EVENTS
        if max_size < _SMALL:
            return NO_EVENTS  # small frames are not compared with the limit here
        events: deque[Event] = deque()
        append = events.append
        masked = self._masked
        small_frames = _SMALL_FRAMES[masked]
        medium, large, key_size = (MASK | 126, MASK | 127, 4) if masked else (126, 127, 0)
        bulk = masked and end - position >= _BULK_SIZE
        begin = position
        for _ in repeat(None, _MAX_BATCH):
            start = position + 2
            if start > end:
                break
            second = data[position + 1]
            small = small_frames[second]
            # After these branches, the key (if frames are masked) and the payload are data[start:stop], and
            # ``repeated`` is 0 for a payload that is too large for integers.
            if small is not None:
                size, bits, repeated, excess, length = small
                stop = start + size
                if stop > end:
                    break
            elif second == medium:
                if start + 2 > end:
                    break
                (length,) = _unpack_16(data, start)
                start += 2
                stop = start + key_size + length
                if stop > end or not _SMALL < length <= max_size or data[position] not in _WHOLE:
                    break
                if bulk:
                    xor = bulk_xor() if stop + length <= end else None
                    if xor is not None:
                        stop = self._read_bulk(data, position, xor, events)
                        if stop == position or len(events) >= _MAX_BATCH:
                            position = stop
                            break
                        position = stop
                        continue
                    bulk = False  # numpy is missing, or there is too little for it
                bits = 8 * length
                repeated, excess = MASKS[4 + length] if length < INTEGERS_SIZE else (0, 0)
            elif second == large:
                if start + 8 > end:
                    break
                (length,) = _unpack_64(data, start)
                start += 8
                stop = start + key_size + length
                repeated = 0
                if stop > end or not 1 << 16 <= length <= max_size:
                    break
            else:
                break
            if not masked:
                payload = data[start:stop]
            elif repeated:
                # `apply_mask` in one step: key and payload are one integer, and the key repeated over both
                # leaves zeros where the key was. It saves two slices, a conversion and a call: a third of
                # the time for a message of 32 bytes (``benchmarks/codec.py``).
                both = _from_bytes(data[start:stop])
                mask = (both >> bits) * repeated
                payload = (both ^ (mask >> excess if excess else mask)).to_bytes(length)
            else:
                payload = apply_mask(memoryview(data)[start + 4 : stop], data[start : start + 4])
            first = data[position]
            if first == _WHOLE_TEXT:
                try:
                    text = payload.decode()
                except UnicodeDecodeError:
                    break
                text_message = _new(TextMessage)
                text_message.data = text
                append(text_message)
            elif first == _WHOLE_BINARY:
                binary_message = _new(BinaryMessage)
                binary_message.data = payload
                append(binary_message)
            else:
                break
            position = stop
        self.batch_size = position - begin
        if position == end:
            self._buffer, position = b"", 0  # an idle connection holds no data
        self._position = position
        return events

    def _read_bulk(
        self,
        data: bytes,
        begin: int,
        xor: Callable[[bytes | memoryview, bytes], bytes],
        events: deque[Event],
    ) -> int:
        """Queues the plain messages of medium size at ``begin``, unmasked by one XOR; returns where they end.

        The key is repeated over the whole of each frame. That spoils its header, which was read before.
        """
        append, room = events.append, _MAX_BATCH - len(events)
        frames: list[tuple[int, int, int]] = []
        masks: list[bytes] = []
        position = begin
        limit = min(len(data), begin + _MAX_BULK_SIZE)
        while position + _MASKED_16_SIZE <= limit and len(frames) < room:
            first, second, length, key = _unpack_masked_16(data, position)
            start = position + _MASKED_16_SIZE
            stop = start + length
            if first not in _WHOLE or second != MASK | 126:
                break
            if stop > limit or not _SMALL < length <= self._max_message_size:
                break
            size = stop - position
            masks.append(key * (size // 4) if size % 4 == 0 else (key * (size // 4 + 1))[:size])
            frames.append((first, start - begin, stop - begin))
            position = stop
        unmasked = xor(memoryview(data)[begin:position], b"".join(masks))
        for first, start, stop in frames:
            payload = unmasked[start:stop]
            if first == _WHOLE_TEXT:
                try:
                    append(TextMessage(payload.decode()))
                except UnicodeDecodeError:
                    return begin + start - _MASKED_16_SIZE
            else:
                append(BinaryMessage(payload))
        return position
