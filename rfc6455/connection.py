"""A connection after the opening handshake: bytes in, events out, for either role.

Implements: RFC 6455 §5 (with `frames`, `masking`, `messages`), §6, §7 (closing), §8.1, §10.4.
Left to others: the opening handshake (`handshake`), TCP, TLS and clocks (whoever embeds this).

The way of a byte. `Connection.receive_data` keeps it. `Connection.next_event` first tries the hot path,
`_read_plain_messages`: whole, unfragmented, uncompressed data frames, many in one go. Everything else, and
everything wrong, is left to the plain path: `_start_frame` decodes one header and refuses what it must,
`_continue_frame` takes what there is of the payload, and hands it to the message (`messages`)
or, when it is complete, to the control frame's method. What the peer did wrong is raised as
`RemoteProtocolError` wherever it is found, and caught in one place: `next_event`.

The states (RFC 6455 §4.1, §7.1):

    OPEN     to CLOSING  we sent a Close, or a client answered one
    OPEN     to CLOSED   a server answered a Close; a failure; EOF
    CLOSING  to CLOSED   the server has the peer's Close; EOF; a failure

CLOSED means that nothing is left to wait for: TCP is to be closed, or is closed already.
`ConnectionClosed` is yielded on the way into that state, and only there.
"""

from collections import deque
from collections.abc import Callable, Iterator
from itertools import repeat
from struct import Struct
from typing import Final

from rfc6455.constants import (
    DEFAULT_MAX_CONTROL_FRAMES,
    DEFAULT_MAX_EMPTY_FRAGMENTS,
    DEFAULT_MAX_MESSAGE_SIZE,
    CloseCode,
    Opcode,
    Role,
    State,
)
from rfc6455.deflate import DeflateParameters, Deflater, Inflater
from rfc6455.errors import LocalProtocolError, RemoteProtocolError
from rfc6455.events import (
    BinaryMessage,
    CloseReceived,
    ConnectionClosed,
    ConnectionFailed,
    Event,
    Ping,
    Pong,
    TextMessage,
)
from rfc6455.frames import (
    FIN,
    MASK,
    RSV1,
    FrameHeader,
    check_control_payload,
    decode_close,
    decode_header,
    encode_close,
    encode_header,
    pack_header_16,
)
from rfc6455.masking import (
    EXCESS,
    INTEGERS_SIZE,
    REPEATED,
    REPEATED_AND_EXCESS,
    TABLE_SIZE,
    apply_mask,
    bulk_xor,
    new_mask_key,
)
from rfc6455.messages import MessageAssembler, PreparedMessage

_WHOLE_TEXT: Final = FIN | Opcode.TEXT
_WHOLE_BINARY: Final = FIN | Opcode.BINARY
_WHOLE: Final = frozenset((_WHOLE_TEXT, _WHOLE_BINARY))

_from_bytes = int.from_bytes

_NOTHING: Final[deque[Event]] = deque(maxlen=0)
"""No events, for every connection without any: an empty deque of its own would hold 600 bytes."""

_SEPARATE_SIZE: Final = 4096
"""Bytes of a payload from which on it is queued behind its header, and not together with it: a copy less."""

# The headers of a server's smallest frames, by length (RFC 6455 §5.2).
_TEXT_HEADERS: Final = tuple(bytes((_WHOLE_TEXT, length)) for length in range(126))
_BINARY_HEADERS: Final = tuple(bytes((_WHOLE_BINARY, length)) for length in range(126))

_BATCH: Final = 256
"""Messages that one call of the hot path parses at the most: an object is larger than a small frame."""

_unpack_medium = Struct(">HI").unpack_from
"""The rest of the header of a masked frame whose length has 16 bits: that length, and the key."""

_MEDIUM_HEADER: Final = 8
_unpack_header = Struct(">BBH4s").unpack_from
"""All of such a header: first byte, second byte, length, key."""

_unpack_large = Struct(">Q4s").unpack_from
"""The same where the length has 64 bits."""

_BULK_SIZE: Final = 2048
"""Bytes from which on frames of that kind are unmasked together, where numpy is installed."""

_MAX_BULK_SIZE: Final = 1 << 18
"""Bytes that are unmasked together at the most: they are copied three times."""

_new = object.__new__
"""``_new(TextMessage)`` and an assignment take two thirds of the time of ``TextMessage(data)``."""


def _small_frames(*, masked: bool) -> tuple[tuple[int, int, int, int, int] | None, ...]:
    """What the hot path needs of a frame of the shortest form, by the second byte of its header.

    These are: its bytes behind those two, the bits of its payload, `REPEATED` and `EXCESS` for it, and the
    bytes of its payload; ``None`` where that byte says something else.
    """
    frames: list[tuple[int, int, int, int, int] | None] = [None] * 256
    for length in range(TABLE_SIZE + 1):
        if masked:
            frames[MASK | length] = (4 + length, 8 * length, REPEATED[4 + length], EXCESS[length], length)
        else:
            frames[length] = (length, 0, 0, 0, length)
    return tuple(frames)


_SMALL_FRAMES: Final = _small_frames(masked=False), _small_frames(masked=True)
"""By whether they are masked."""


class Connection:
    """An open WebSocket connection, without I/O.

    Feed it with `receive_data` and `receive_eof`, pull events with `next_event` or `events`, and write
    `data_to_send()` to the socket after each round. The peer's violations are events, never
    exceptions; the caller's misuse raises `LocalProtocolError` before anything has changed.

    ``deflate``: what both ends agreed on for permessage-deflate, or ``None``.
    ``max_message_size``: bytes of one message, all fragments together, after inflation.
    ``max_control_frames``: control frames that may come between two calls of `data_to_send`.
    ``max_empty_fragments``: fragments without payload in one message.
    ``assemble``: False yields fragments as they come instead of whole messages.
    ``trailing_data``: bytes that were read together with the opening handshake.
    ``mask_key_source``: gives 4 unpredictable bytes a call; a client's frames need them.

    Raises `ValueError` for a limit below 1.
    """

    # Slots: a server has many connections, and most are idle.
    __slots__ = (
        "_assemble",
        "_buffer",
        "_close_received",
        "_close_sent",
        "_control_frames",
        "_control_payload",
        "_deflater",
        "_eof",
        "_events",
        "_frame",
        "_frame_read",
        "_incoming",
        "_masks_input",
        "_max_control_frames",
        "_max_message_size",
        "_message",
        "_new_mask_key",
        "_output",
        "_position",
        "_sending",
        "_sending_compressed",
        "_sends_plain",
        "_state",
        "deflate",
        "role",
        "subprotocol",
    )

    def __init__(
        self,
        role: Role,
        *,
        subprotocol: str | None = None,
        deflate: DeflateParameters | None = None,
        max_message_size: int = DEFAULT_MAX_MESSAGE_SIZE,
        max_control_frames: int = DEFAULT_MAX_CONTROL_FRAMES,
        max_empty_fragments: int = DEFAULT_MAX_EMPTY_FRAGMENTS,
        assemble: bool = True,
        trailing_data: bytes = b"",
        mask_key_source: Callable[[], bytes] = new_mask_key,
    ) -> None:
        if min(max_message_size, max_control_frames, max_empty_fragments) < 1:
            raise ValueError("a limit is 1 at the least")
        self.role = role
        self.subprotocol = subprotocol
        self._masks_input = role is Role.SERVER  # the peer's frames are masked; ours are not
        self._new_mask_key = mask_key_source
        self._max_message_size = max_message_size
        self._max_control_frames = max_control_frames
        self._assemble = assemble

        self._state = State.OPEN
        self._close_sent = False
        self._close_received: tuple[int, str] | None = None
        self._eof = False

        # Input: what is being parsed, how far, and what has come in the meantime.
        self._buffer = b""
        self._position = 0
        self._incoming = bytearray()
        self._frame: FrameHeader | None = None  # its header is read, its payload is not
        self._frame_read = 0
        self._control_payload = b""
        self._control_frames = 0
        peer = Role.CLIENT if role is Role.SERVER else Role.SERVER
        self._message = MessageAssembler(
            max_size=max_message_size,
            max_empty_fragments=max_empty_fragments,
            assemble=assemble,
            inflater=Inflater(deflate, peer) if deflate else None,
        )
        self._events = _NOTHING

        # Output: frames in their order, and the type of the message that is being sent in pieces.
        self._output: list[bytes] = []
        self._sending: Opcode | None = None
        self._sending_compressed = False
        self.deflate = deflate
        self._deflater = Deflater(deflate, role) if deflate else None
        # An open server between messages, without compression: nothing stands between data and frame.
        self._sends_plain = role is Role.SERVER and deflate is None

        if trailing_data:
            self.receive_data(trailing_data)

    # State.

    @property
    def state(self) -> State:
        """OPEN, CLOSING or CLOSED, as of the last event that was pulled."""
        return self._state

    @property
    def close_expected(self) -> bool:
        """Whether the peer is due to close: start a timer, and close TCP when it runs out.

        True from our Close until the peer's; for a client then until EOF, because the server is the
        one to close TCP (RFC 6455 §7.1.1).
        """
        return self._state is State.CLOSING

    @property
    def should_close(self) -> bool:
        """Whether it is on us to close TCP, once `data_to_send` is written (RFC 6455 §7.1.1).

        For a server after both Closes, for a client after the server's EOF, for both after a
        failure (RFC 6455 §7.1.7).
        """
        return self._state is State.CLOSED

    # Input.

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Takes bytes from the network; pull the events afterwards.

        Raises `LocalProtocolError` after `receive_eof`. Bytes after the end are discarded.
        """
        if self._eof:
            raise LocalProtocolError("data after EOF", slug="data-after-eof")
        if self._state is State.CLOSED or self._close_received is not None:
            # RFC 6455 §5.5.1, §7.1.7: nothing that follows a Close or a failure is processed.
            return
        if self._position == len(self._buffer) and not self._incoming:
            self._buffer = bytes(data)
            self._position = 0
        else:
            self._incoming += data

    def receive_eof(self) -> None:
        """Takes the end of the input: the peer closed TCP, or TCP is lost; pull the events afterwards."""
        self._eof = True

    def events(self) -> Iterator[Event]:
        """The events there are, pulled one at a time."""
        while (event := self.next_event()) is not None:
            yield event
            events = self._events  # what was parsed together with it, without a call for each
            while events:
                yield events.popleft()

    def next_event(self) -> Event | None:
        """The next event, or ``None`` until more data comes. Never raises for what the peer sent."""
        if self._events:
            return self._events.popleft()
        if self._frame is None and self._read_plain_messages():
            return self._events.popleft()
        return self._next_other_event()

    def next_batch(self) -> deque[Event]:
        """The events that `next_event` would give next without looking at more input; empty for none.

        Whole messages come together; a frame that may end the connection never comes with
        messages before it, so that they can be answered first.
        """
        if not self._events and self._frame is None and self._read_plain_messages():
            batch, self._events = self._events, _NOTHING
            return batch
        event = self._events.popleft() if self._events else self._next_other_event()
        if event is None:
            return _NOTHING
        batch = deque((event, *self._events))
        self._events.clear()  # somebody may be iterating over them
        self._events = _NOTHING
        return batch

    @property
    def unread(self) -> bool:
        """Whether pulling again may give something: input is left, or the end of it."""
        if self._position < len(self._buffer) or self._incoming or self._eof:
            return self._state is not State.CLOSED
        return self.deflate is not None and self._message.pending

    def _next_other_event(self) -> Event | None:
        """The next event, where the hot path has just found none."""
        if self._state is State.CLOSED:
            return None
        self._events = _NOTHING
        try:
            return self._read()
        except RemoteProtocolError as error:
            return self._fail_remote(error)

    def _read(self) -> Event | None:
        """Parses until there is an event or no more input."""
        while self._close_received is None:
            if self.deflate is not None and self._message.pending:
                fragment = self._message.resume()
                if fragment is not None:
                    return fragment
            if self._frame is None:
                self._start_frame()
            if self._frame is not None:
                event = self._continue_frame(self._frame)
                if event is not None:
                    return event
                if self._frame is None:
                    continue
            if not self._refill():
                break
            if self._frame is None and self._read_plain_messages():
                return self._events.popleft()
        if self._eof:
            return self._enter_closed(clean=self._close_sent and self._close_received is not None)
        return None

    def _refill(self) -> bool:
        """Puts what came in the meantime behind what is left; False when nothing came.

        What is left is part of a header at the most, so that each byte moves here once.
        """
        if self._position:
            self._buffer, self._position = self._buffer[self._position :], 0
        if not self._incoming:
            return False
        self._buffer += self._incoming
        self._incoming = bytearray()
        return True

    def _read_plain_messages(self) -> bool:
        """The hot path: queues the whole, unfragmented data messages at the head of the buffer.

        It takes nothing else, and judges nothing: the first frame that is not plain, not complete or
        not right stays where it is, for the plain path. True when there are events now.
        """
        max_size = self._max_message_size
        # A limit below the table's is left to the plain path: here, small frames are not held against it.
        if self._message.opcode is not None or not self._assemble or max_size < TABLE_SIZE:
            return False
        data, position, end = self._buffer, self._position, len(self._buffer)
        if position < end and data[position] not in _WHOLE:
            return False  # a control frame, a fragment, something wrong
        events: deque[Event] = deque()
        append = events.append
        masked = self._masks_input
        small_frames = _SMALL_FRAMES[masked]
        medium, medium_rest = (MASK | 126, 6) if masked else (126, 2)
        large, large_rest = (MASK | 127, 12) if masked else (127, 8)
        bulk = masked and end - position >= _BULK_SIZE
        for _ in repeat(None, _BATCH):
            start = position + 2
            if start > end:
                break
            second = data[position + 1]
            small = small_frames[second]
            if small is not None:
                size, bits, repeated, excess, length = small
                stop = start + size
                if stop > end:
                    break
                if masked:
                    # `apply_mask` in one step: key and payload are one integer, and the key repeated over
                    # both leaves zeros where the key was. It saves a slice, a conversion and a call.
                    both = _from_bytes(data[start:stop])
                    payload = (both ^ (both >> bits) * repeated >> excess).to_bytes(length)
                else:
                    payload = data[start:stop]
            elif second == medium:
                if start + 6 > end:  # length and key; a whole frame without key is longer, too
                    break
                length, key = _unpack_medium(data, start)
                start += medium_rest
                stop = start + length
                if stop > end or not TABLE_SIZE < length <= max_size or data[position] not in _WHOLE:
                    break
                if not masked:
                    payload = data[start:stop]
                elif bulk and stop + length <= end and (xor := bulk_xor()) is not None:
                    stop = self._read_bulk(data, position, xor, append)
                    if stop == position or len(events) >= _BATCH:
                        position = stop
                        break
                    position = stop
                    continue
                else:
                    bulk = False  # there is no numpy, or too little for it
                    if length < INTEGERS_SIZE:  # `apply_mask`, without its calls
                        repeated, excess = REPEATED_AND_EXCESS[length]
                        mask = key * repeated
                        if excess:
                            mask >>= excess
                        mask ^= _from_bytes(data[start:stop])
                        payload = mask.to_bytes(length)
                    else:
                        payload = apply_mask(memoryview(data)[start:stop], data[start - 4 : start])
            elif second == large and start + 12 <= end:
                length, mask_key = _unpack_large(data, start)
                start += large_rest
                stop = start + length
                if stop > end or not 1 << 16 <= length <= max_size:
                    break
                payload = apply_mask(memoryview(data)[start:stop], mask_key) if masked else data[start:stop]
            else:
                break
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
        if position == end:
            self._buffer, position = b"", 0  # an idle connection holds no read
        self._position = position
        if not events:
            return False
        self._events = events
        return True

    def _read_bulk(
        self,
        data: bytes,
        begin: int,
        xor: Callable[[bytes | memoryview, bytes], bytes],
        append: Callable[[Event], object],
    ) -> int:
        """Queues the plain messages of medium size at ``begin``, unmasked by one XOR; gives where they end.

        The key is repeated over the whole of each frame: its header is spoiled, and was read before.
        """
        frames: list[tuple[int, int, int]] = []
        masks: list[bytes] = []
        position = begin
        limit = min(len(data), begin + _MAX_BULK_SIZE)
        while position + _MEDIUM_HEADER <= limit and len(frames) < _BATCH:
            first, second, length, key = _unpack_header(data, position)
            start = position + _MEDIUM_HEADER
            stop = start + length
            if first not in _WHOLE or second != MASK | 126:
                break
            if stop > limit or not TABLE_SIZE < length <= self._max_message_size:
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
                    return begin + start - _MEDIUM_HEADER
            else:
                append(BinaryMessage(payload))
        return position

    def _start_frame(self) -> None:
        """Takes the next frame's header, if all of it is there, and refuses what must not come now."""
        frame = decode_header(
            self._buffer,
            self._position,
            masked=self._masks_input,
            rsv1_allowed=self.deflate is not None,
        )
        if frame is None:
            return
        if frame.opcode >= Opcode.CLOSE:
            self._control_frames += 1
            if self._control_frames > self._max_control_frames:
                raise RemoteProtocolError(
                    "a flood of control frames",
                    slug="control-frames",
                    code=CloseCode.POLICY_VIOLATION,
                )
        else:
            self._message.start_frame(frame)
        self._position += frame.size
        self._frame = frame
        self._frame_read = 0

    def _continue_frame(self, frame: FrameHeader) -> Event | None:
        """Takes what there is of the payload; leaves ``_frame`` as ``None`` when that was all of it."""
        missing = frame.length - self._frame_read
        begin, end = self._position, min(self._position + missing, len(self._buffer))
        size = end - begin
        finished = size == missing
        if size == 0 and not finished:
            return None
        if frame.mask_key is None:
            chunk = self._buffer[begin:end]
        else:
            # The key goes on where the last piece of this frame left off (RFC 6455 §5.3).
            turn = self._frame_read % 4
            key = frame.mask_key[turn:] + frame.mask_key[:turn] if turn else frame.mask_key
            # A view costs as much as copying a kilobyte does.
            masked = self._buffer[begin:end] if size < INTEGERS_SIZE else memoryview(self._buffer)[begin:end]
            chunk = apply_mask(masked, key)
        self._position = end
        self._frame_read += size
        if finished:
            self._frame = None
        if frame.opcode < Opcode.CLOSE:
            return self._message.receive(chunk, final=finished and frame.fin)
        self._control_payload += chunk
        return self._finish_control_frame(frame.opcode) if finished else None

    def _finish_control_frame(self, opcode: Opcode) -> Event:
        payload, self._control_payload = self._control_payload, b""
        if opcode is Opcode.PING:
            # RFC 6455 §5.5.2: a Ping MUST be answered unless a Close was received, and it was not.
            self._send_frame(FIN | Opcode.PONG, payload)
            return Ping(payload)
        if opcode is Opcode.PONG:
            return Pong(payload)
        return self._finish_close(payload)

    def _finish_close(self, payload: bytes) -> Event:
        code, reason = self._close_received = decode_close(payload)
        self._discard_input()
        # RFC 6455 §5.5.1: MUST answer a Close with a Close, once; it echoes the code.
        self._send_close(payload[:2])
        if self.role is Role.SERVER:
            # RFC 6455 §5.5.1: the server MUST close TCP immediately, the client waits for it.
            self._events = deque((self._enter_closed(clean=True),))
        return CloseReceived(code, reason)

    def _enter_closed(self, *, clean: bool) -> ConnectionClosed:
        self._state = State.CLOSED
        self._sends_plain = False
        self._discard_input()
        self._message.release()
        self._deflater = None
        # RFC 6455 §7.1.5, §7.1.6: code and reason are the peer's; 1006 when it sent no Close.
        code, reason = self._close_received or (CloseCode.ABNORMAL_CLOSURE, "")
        return ConnectionClosed(code, reason, clean)

    def _discard_input(self) -> None:
        self._buffer = b""
        self._position = 0
        self._incoming = bytearray()

    def _fail_remote(self, error: RemoteProtocolError) -> ConnectionFailed:
        reason = str(error)
        error.__traceback__ = None  # an event is not to keep alive all that was going on
        self._send_close(encode_close(error.code, reason))
        self._events = deque((self._enter_closed(clean=False),))
        return ConnectionFailed(error.code, reason, error)

    # Output. ``fin`` is no keyword-only argument: that would cost a small message a twentieth of its time.

    def send_text(self, data: str, fin: bool = True) -> None:
        """Queues a text message, or with ``fin=False`` a piece of one, to go on with.

        Raises `LocalProtocolError` when the connection is not open, when a binary message is
        unfinished, or when ``data`` has a surrogate and so no UTF-8 form.
        """
        try:
            payload = data.encode()
        except UnicodeEncodeError:
            raise LocalProtocolError("the text has a surrogate", slug="bad-text") from None
        except AttributeError:
            raise TypeError(f"a text is a str, not {type(data).__name__}") from None
        # What servers do all day, in one step: a message in one frame, without mask and compression.
        if fin and self._sends_plain:
            length = len(payload)
            if length < 126:
                self._output.append(_TEXT_HEADERS[length] + payload)
            elif length < _SEPARATE_SIZE:
                self._output.append(pack_header_16(_WHOLE_TEXT, 126, length) + payload)
            else:
                self._output += encode_header(_WHOLE_TEXT, length), payload
            return
        self._send_data(Opcode.TEXT, payload, fin=fin)

    def send_binary(self, data: bytes | bytearray | memoryview, fin: bool = True) -> None:
        """Queues a binary message, or with ``fin=False`` a piece of one, to go on with.

        Raises `LocalProtocolError` when the connection is not open or a text message is unfinished.
        """
        # Not bytes(data) alone: bytes(5) would be five zero bytes.
        payload = data if type(data) is bytes else bytes(memoryview(data))
        if fin and self._sends_plain:
            length = len(payload)
            if length < 126:
                self._output.append(_BINARY_HEADERS[length] + payload)
            elif length < _SEPARATE_SIZE:
                self._output.append(pack_header_16(_WHOLE_BINARY, 126, length) + payload)
            else:
                self._output += encode_header(_WHOLE_BINARY, length), payload
            return
        self._send_data(Opcode.BINARY, payload, fin=fin)

    def send_prepared(self, message: PreparedMessage) -> None:
        """Queues a message that many connections are sent: it is encoded, and compressed, once.

        Servers only: a client MUST pick a fresh masking key for each frame (RFC 6455 §5.3). Raises
        `LocalProtocolError` there, when the connection is not open, or inside an unfinished message.
        """
        # The hot path of a broadcast: the same bytes for every member.
        if self._sends_plain:
            self._output.append(message.plain_frame)
            return
        if self.role is Role.CLIENT:
            raise LocalProtocolError("a client masks each frame anew", slug="not-masked")
        self._check_can_send(None)
        frame = message.frame(self.deflate)
        if frame is None:
            for opcode, payload in message.parts:
                self._send_data(opcode, payload, fin=True)
        else:
            self._output.append(frame)

    def send_ping(self, data: bytes = b"") -> None:
        """Queues a Ping of 125 bytes at the most (RFC 6455 §5.5.2); raises `LocalProtocolError`."""
        self._send_control(Opcode.PING, data)

    def send_pong(self, data: bytes = b"") -> None:
        """Queues an unsolicited Pong of 125 bytes at the most; raises `LocalProtocolError`.

        The Pong that answers a Ping needs no call (RFC 6455 §5.5.3).
        """
        self._send_control(Opcode.PONG, data)

    def close(self, code: int | None = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Starts the closing handshake (RFC 6455 §7.1.2); ``None`` sends a Close without a code.

        Does nothing when a Close was sent already: the two ends may close at the same time. Raises
        `LocalProtocolError` for a code that must not be sent or a reason above 123 bytes.
        """
        payload = encode_close(code, reason)
        if self._state is State.OPEN:
            self._send_close(payload)

    def fail(self, code: int, reason: str = "") -> None:
        """Fails the connection from this side (RFC 6455 §7.1.7): a Close, and no more input.

        Unread events are dropped, `ConnectionClosed` follows. For policies and errors of the
        caller's; to end a connection in an orderly way, use `close`. Raises `LocalProtocolError` as
        `close` does.
        """
        payload = encode_close(code, reason)
        if self._state is not State.CLOSED:
            self._send_close(payload)
            self._events.clear()  # somebody may be iterating over them
            self._events = deque((self._enter_closed(clean=False),))

    def data_to_send(self) -> bytes:
        """The bytes to write to the socket now; each is given once."""
        self._control_frames = 0
        output = self._output
        if not output:
            return b""
        if len(output) == 1:
            return output.pop()
        data = b"".join(output)
        output.clear()
        return data

    def buffers_to_send(self) -> list[bytes]:
        """The bytes that `data_to_send` would give, not joined: for ``socket.sendmsg`` or ``writelines``."""
        self._control_frames = 0
        buffers, self._output = self._output, []
        return buffers

    def _check_can_send(self, opcode: Opcode | None) -> None:
        if self._state is not State.OPEN:
            # RFC 6455 §5.5.1: MUST NOT send any more data frames after a Close.
            raise LocalProtocolError(f"the connection is {self._state.value}", slug="not-open")
        if self._sending is not None and self._sending is not opcode:
            # RFC 6455 §5.4: fragments of two messages MUST NOT be interleaved.
            raise LocalProtocolError("another message is unfinished", slug="unfinished-message")

    def _send_data(self, opcode: Opcode, payload: bytes, *, fin: bool) -> None:
        self._check_can_send(opcode)
        begins = self._sending is None
        self._sending = None if fin else opcode
        self._sends_plain = fin and self.role is Role.SERVER and self.deflate is None
        first = int(opcode if begins else Opcode.CONTINUATION)
        if self._deflater is not None and self.deflate is not None:
            if begins:
                # How long a message in pieces becomes is not known: it is compressed.
                self._sending_compressed = not fin or len(payload) >= self.deflate.threshold
                # RFC 7692 §6.1: RSV1 is set on the first frame of a compressed message, and only there.
                first |= RSV1 if self._sending_compressed else 0
            if self._sending_compressed:
                payload = self._deflater.compress(payload, fin=fin)
        self._send_frame(FIN | first if fin else first, payload)

    def _send_control(self, opcode: Opcode, data: bytes) -> None:
        check_control_payload(data)
        if self._state is not State.OPEN:
            raise LocalProtocolError(f"the connection is {self._state.value}", slug="not-open")
        self._send_frame(FIN | opcode, data)

    def _send_close(self, payload: bytes) -> None:
        """Queues the one Close that this side sends, and enters CLOSING."""
        if not self._close_sent:
            self._close_sent = True
            self._state = State.CLOSING
            self._sends_plain = False
            self._send_frame(FIN | Opcode.CLOSE, payload)

    def _send_frame(self, first: int, payload: bytes) -> None:
        if self.role is Role.SERVER:
            self._output.append(encode_header(first, len(payload)))
            self._output.append(payload)
        else:
            # RFC 6455 §5.1, §5.3: a client MUST mask every frame, with a fresh key.
            mask_key = self._new_mask_key()
            self._output.append(encode_header(first, len(payload), mask_key))
            self._output.append(apply_mask(payload, mask_key))
