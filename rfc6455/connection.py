"""A connection after the opening handshake: bytes in, events out, for either role.

Implements: RFC 6455 §5.1, §5.5 (control frames), §6.1 (sending), §7 (closing).
Left to others: parsing (`reader`), messages and limits (`messages`), the opening handshake (`handshake`);
TCP, TLS and clocks (the embedder).

`Connection.receive_data` stores bytes. `Connection.next_event` and `Connection.next_batch` parse them, first
by the reader's hot path, then by its general path. A violation by the peer is raised as `RemoteProtocolError`
wherever it is found, and caught in one place, `_read_batch`.

The states (RFC 6455 §4.1, §7.1):

    OPEN     to CLOSING  we sent a Close, or a client answered one
    OPEN     to CLOSED   a server answered a Close; a failure; EOF
    CLOSING  to CLOSED   the server has the peer's Close; EOF; a failure

CLOSED means that there is nothing left to wait for: close TCP, if it is not closed yet.
`ConnectionClosed` is yielded on the way into that state, and only there.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from rfc6455.constants import (
    DEFAULT_MAX_CONTROL_FRAMES,
    DEFAULT_MAX_EMPTY_FRAGMENTS,
    DEFAULT_MAX_MESSAGE_SIZE,
    CloseCode,
    Opcode,
    Role,
    State,
    check_limits,
)
from rfc6455.deflate import DeflateParameters, Deflater
from rfc6455.errors import LocalProtocolError, RemoteProtocolError
from rfc6455.events import (
    NO_EVENTS,
    CloseReceived,
    ConnectionClosed,
    ConnectionFailed,
    Event,
    Ping,
    Pong,
)
from rfc6455.frames import (
    FIN,
    RSV1,
    check_control_payload,
    decode_close,
    encode_close,
    encode_header,
)
from rfc6455.masking import apply_mask, new_mask_key
from rfc6455.messages import PreparedMessage
from rfc6455.reader import ControlFrame, FrameReader

_JOINED_SIZE: Final = 2048
"""Payloads this large are queued separately from their header, which saves a copy."""

# The headers of a server's whole, uncompressed messages by payload length. A table lookup takes 70 ns less
# than packing a header of a medium frame, a tenth of sending 1 KiB (``benchmarks/codec.py``).
_WHOLE_TEXT: Final = FIN | Opcode.TEXT
_WHOLE_BINARY: Final = FIN | Opcode.BINARY
_TEXT_HEADERS: Final = tuple(encode_header(_WHOLE_TEXT, length) for length in range(_JOINED_SIZE))
_BINARY_HEADERS: Final = tuple(encode_header(_WHOLE_BINARY, length) for length in range(_JOINED_SIZE))


class Connection:
    """An open WebSocket connection, without I/O.

    Pass it bytes by `receive_data` and `receive_eof`, pull events by `next_event` or `events`, and write
    `data_to_send()` to the socket after each round. The peer's violations are events, never exceptions; the
    caller's misuse raises `LocalProtocolError` before anything has changed.

    ``subprotocol``: the agreed one, or ``None``.
    ``deflate``: the agreed parameters of permessage-deflate, or ``None``.
    ``max_message_size``: bytes of one message, all fragments together, after inflation.
    ``max_control_frames``: control frames that may arrive between two calls of `data_to_send`.
    ``max_empty_fragments``: fragments without payload in one message.
    ``assemble``: False yields fragments as they arrive instead of whole messages.
    ``trailing_data``: bytes that were read together with the opening handshake.
    ``mask_key_source``: returns 4 unpredictable bytes a call; a client's frames need them.

    Raises `ValueError` for a limit below 1, and `TypeError` for one that is no int and for a wrong role.
    """

    # Slots: a server has many connections, and most are idle.
    __slots__ = (
        "_close_received",
        "_close_sent",
        "_control_frames",
        "_deflater",
        "_eof",
        "_events",
        "_max_control_frames",
        "_new_mask_key",
        "_output",
        "_reader",
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
        check_limits(
            max_message_size=max_message_size,
            max_control_frames=max_control_frames,
            max_empty_fragments=max_empty_fragments,
        )
        if not isinstance(role, Role):
            raise TypeError(f"role must be a Role, not {role!r}")
        self.role = role
        self.subprotocol = subprotocol
        self.deflate = deflate

        self._state = State.OPEN
        self._close_sent = False
        self._close_received: tuple[int, str] | None = None
        self._eof = False

        # Input: frames that are not parsed yet, and events that are not pulled yet.
        self._reader = FrameReader(
            role,
            deflate=deflate,
            max_message_size=max_message_size,
            max_empty_fragments=max_empty_fragments,
            assemble=assemble,
        )
        self._events = NO_EVENTS
        self._max_control_frames = max_control_frames
        self._control_frames = 0  # since the last `data_to_send`

        # Output: encoded frames in order, and the type of the message that is being sent in fragments.
        self._output: list[bytes] = []
        self._new_mask_key = mask_key_source if role is Role.CLIENT else None  # RFC 6455 §5.1
        self._sending: Opcode | None = None
        self._sending_compressed = False
        self._deflater = Deflater(deflate, role) if deflate else None
        # Whether a whole message can be framed without masking, compression or checks: an open server
        # without permessage-deflate, between messages.
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
        """Whether the peer must close next: start a timer, and close TCP when it runs out.

        True from our Close until the peer's; for a client then until EOF, because the server closes TCP
        first (RFC 6455 §7.1.1).
        """
        return self._state is State.CLOSING

    @property
    def should_close(self) -> bool:
        """Whether we must close TCP once `data_to_send` is written (RFC 6455 §7.1.1).

        True for a server after both Closes, for a client after the server's EOF, and for both after a failure
        (RFC 6455 §7.1.7).
        """
        return self._state is State.CLOSED

    # Input.

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Takes bytes from the network; pull the events afterwards.

        Bytes after a Close, a failure or `ConnectionClosed` are discarded. Raises `LocalProtocolError` for
        bytes between `receive_eof` and `ConnectionClosed`, and `TypeError` for what is not bytes.
        """
        if self._state is State.CLOSED or self._close_received is not None:
            # RFC 6455 §5.5.1, §7.1.7: data after a Close or a failure is not processed.
            return
        if self._eof:
            raise LocalProtocolError("data after EOF", slug="data-after-eof")
        self._reader.receive_data(data)

    def receive_eof(self) -> None:
        """Takes the end of the input: the peer closed TCP, or TCP is lost; pull the events afterwards."""
        self._eof = True

    def events(self) -> Iterator[Event]:
        """Yields the events that are available, one at a time."""
        while (event := self.next_event()) is not None:
            yield event
            events = self._events  # the rest of its batch, without a call for each
            while events:
                yield events.popleft()

    def next_event(self) -> Event | None:
        """Returns the next event, or ``None`` if more data is needed. Never raises for what the peer sent."""
        if self._events:
            return self._events.popleft()
        batch = self._reader.read_messages() or self._read_batch()
        while not batch:
            if not self._reader.yielded:
                return None
            batch = self._read_batch()
        self._events = batch
        return batch.popleft()

    def next_batch(self) -> deque[Event]:
        """Returns the events that `next_event` would return next without parsing more; empty if none.

        Whole messages are returned together. A frame that may end the connection is never returned together
        with messages before it, so that they can be answered first. After 256 fragments, or after inflating
        1 MiB, it returns, so that others have a turn: while `yielded` is True, call it again.
        """
        events = self._events
        if not events:
            return self._reader.read_messages() or self._read_batch()
        batch = events.copy()
        events.clear()  # `events` may be iterating over it
        return batch

    @property
    def batch_size(self) -> int:
        """Bytes of the messages that `next_batch` returned last, after inflation.

        Frame headers are included if the messages came by the hot path (`reader`).
        """
        return self._reader.batch_size

    @property
    def unread(self) -> bool:
        """Whether pulling again may return an event: there is unparsed input, or EOF."""
        return self._reader.unread or (self._eof and self._state is not State.CLOSED)

    @property
    def held(self) -> int:
        """Bytes of memory that the input takes that was not returned: unparsed bytes, an unfinished message.

        Text takes up to four bytes for each byte on the wire. The decompressor's window is not counted.
        """
        return self._reader.held

    @property
    def yielded(self) -> bool:
        """Whether `next_batch` returned nothing so that others have a turn, and not for lack of data."""
        return self._reader.yielded

    def _read_batch(self) -> deque[Event]:
        """Parses by the general path until there is an event, or no more input."""
        if self._state is State.CLOSED:
            return NO_EVENTS
        try:
            return self._read()
        except RemoteProtocolError as error:
            return self._fail_remote(error)

    def _read(self) -> deque[Event]:
        reader = self._reader
        while self._close_received is None:
            item = reader.read()
            if isinstance(item, ControlFrame):
                reader.batch_size = 0
                return self._receive_control_frame(item)
            if item is not None:
                return deque((item,))
            if reader.yielded:
                return NO_EVENTS
            if not reader.refill():
                break
            messages = reader.read_messages()
            if messages:
                return messages
        if self._eof:
            clean = self._close_sent and self._close_received is not None
            return deque((self._enter_closed(clean=clean),))
        return NO_EVENTS

    def _receive_control_frame(self, frame: ControlFrame) -> deque[Event]:
        self._control_frames += 1
        if self._control_frames > self._max_control_frames:
            raise RemoteProtocolError(
                "a flood of control frames", slug="control-frames", code=CloseCode.POLICY_VIOLATION
            )
        payload = frame.payload
        if frame.opcode is Opcode.PING:
            # RFC 6455 §5.5.2: a Ping MUST be answered unless a Close was received; none was.
            self._send_frame(FIN | Opcode.PONG, payload)
            return deque((Ping(payload),))
        if frame.opcode is Opcode.PONG:
            return deque((Pong(payload),))
        return self._receive_close(payload)

    def _receive_close(self, payload: bytes) -> deque[Event]:
        code, reason = self._close_received = decode_close(payload)
        self._reader.discard_input()
        # RFC 6455 §5.5.1: a Close MUST be answered with a Close, once; the answer echoes the code.
        self._send_close(payload[:2])
        received = CloseReceived(code, reason)
        if self.role is Role.CLIENT:
            return deque((received,))
        # RFC 6455 §5.5.1: the server MUST close TCP immediately; the client waits for it.
        return deque((received, self._enter_closed(clean=True)))

    def _enter_closed(self, *, clean: bool) -> ConnectionClosed:
        self._state = State.CLOSED
        self._sends_plain = False
        self._reader.release()
        self._deflater = None
        # RFC 6455 §7.1.5, §7.1.6: code and reason are the peer's; 1006 if it sent no Close.
        code, reason = self._close_received or (CloseCode.ABNORMAL_CLOSURE, "")
        return ConnectionClosed(code, reason, clean)

    def _fail_remote(self, error: RemoteProtocolError) -> deque[Event]:
        reason = str(error)
        # The event must not keep the frames of the call stack alive, nor what they refer to.
        error.__traceback__ = error.__context__ = None
        self._send_close(encode_close(error.code, reason))
        return deque((ConnectionFailed(error.code, reason, error), self._enter_closed(clean=False)))

    # Output. ``fin`` is not keyword-only: on Python 3.11 that would cost a twentieth of sending 32 bytes
    # (``benchmarks/codec.py``).

    def send_text(self, data: str, fin: bool = True) -> None:
        """Queues a text message, or with ``fin=False`` a fragment of one.

        Raises `LocalProtocolError` if the connection is not open, if a binary message is unfinished, or if
        ``data`` has a surrogate and so no UTF-8 form.
        """
        try:
            payload = data.encode()
        except UnicodeEncodeError:
            raise LocalProtocolError("the text has a surrogate", slug="bad-text") from None
        except AttributeError:
            raise TypeError(f"send_text needs a str, not {type(data).__name__}") from None
        if not (fin and self._sends_plain):
            self._send_data(Opcode.TEXT, payload, fin)
        elif len(payload) < _JOINED_SIZE:
            # One call more would cost an eighth of sending 32 bytes (``benchmarks/codec.py``).
            self._output.append(_TEXT_HEADERS[len(payload)] + payload)
        else:
            self._send_frame(_WHOLE_TEXT, payload)

    def send_binary(self, data: bytes | bytearray | memoryview, fin: bool = True) -> None:
        """Queues a binary message, or with ``fin=False`` a fragment of one.

        Raises `LocalProtocolError` if the connection is not open or a text message is unfinished.
        """
        # Not ``bytes(data)``: ``bytes(5)`` is five zero bytes.
        payload = data if type(data) is bytes else bytes(memoryview(data))
        if not (fin and self._sends_plain):
            self._send_data(Opcode.BINARY, payload, fin)
        elif len(payload) < _JOINED_SIZE:
            self._output.append(_BINARY_HEADERS[len(payload)] + payload)
        else:
            self._send_frame(_WHOLE_BINARY, payload)

    def send_prepared(self, message: PreparedMessage) -> None:
        """Queues a message that is encoded, and compressed, once for many connections.

        For servers only: a client MUST choose a fresh masking key for each frame (RFC 6455 §5.3). Raises
        `LocalProtocolError` at a client, if the connection is not open, or inside an unfinished message.
        """
        # The hot path of a broadcast: the same bytes for every member.
        if self._sends_plain:
            try:
                self._output.append(message.plain_frame)
            except AttributeError:
                pass  # a TypeError, below
            else:
                return
        if not isinstance(message, PreparedMessage):
            raise TypeError(f"send_prepared needs a PreparedMessage, not {type(message).__name__}")
        if self.role is Role.CLIENT:
            raise LocalProtocolError("a client masks each frame with a fresh key", slug="not-masked")
        self._check_can_send(None)
        frame = message.frame(self.deflate)
        if frame is None:
            for opcode, payload in message.parts:
                self._send_data(opcode, payload, True)
        else:
            self._output.append(frame)

    def send_ping(self, data: bytes = b"") -> None:
        """Queues a Ping of at most 125 bytes (RFC 6455 §5.5.2); else raises `LocalProtocolError`."""
        self._send_control(Opcode.PING, data)

    def send_pong(self, data: bytes = b"") -> None:
        """Queues an unsolicited Pong of at most 125 bytes; else raises `LocalProtocolError`.

        The Pong that answers a Ping is queued without a call (RFC 6455 §5.5.3).
        """
        self._send_control(Opcode.PONG, data)

    def close(self, code: int | None = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Starts the closing handshake (RFC 6455 §7.1.2); ``None`` sends a Close without a code.

        Does nothing if a Close was sent: both ends may close at the same time. Raises `LocalProtocolError`
        for a code that must not be sent or a reason above 123 bytes.
        """
        payload = encode_close(code, reason)
        if self._state is State.OPEN:
            self._send_close(payload)

    def fail(self, code: int, reason: str = "") -> None:
        """Fails the connection from this side (RFC 6455 §7.1.7): sends a Close, and reads nothing more.

        Drops unread events; `ConnectionClosed` follows. It is for policies and for errors of the caller; to
        end a connection in an orderly way, use `close`. Raises `LocalProtocolError` as `close` does.
        """
        payload = encode_close(code, reason)
        if self._state is not State.CLOSED:
            self._send_close(payload)
            self._events.clear()  # `events` may be iterating over it
            self._events = deque((self._enter_closed(clean=False),))

    def data_to_send(self) -> bytes:
        """Returns the bytes to write to the socket now; each byte is returned once."""
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
        """Returns the bytes of `data_to_send`, not joined: for ``socket.sendmsg`` or ``writelines``."""
        self._control_frames = 0
        buffers, self._output = self._output, []
        return buffers

    def _check_can_send(self, opcode: Opcode | None) -> None:
        if self._state is not State.OPEN:
            # RFC 6455 §5.5.1: data frames MUST NOT be sent after a Close.
            raise LocalProtocolError(f"the connection is {self._state.value}", slug="not-open")
        if self._sending is not None and self._sending is not opcode:
            # RFC 6455 §5.4: fragments of two messages MUST NOT be interleaved.
            raise LocalProtocolError("another message is unfinished", slug="unfinished-message")

    def _send_data(self, opcode: Opcode, payload: bytes, fin: bool) -> None:
        self._check_can_send(opcode)
        begins = self._sending is None
        self._sending = None if fin else opcode
        self._sends_plain = fin and self.role is Role.SERVER and self.deflate is None
        first = int(opcode if begins else Opcode.CONTINUATION)
        if self._deflater is not None and self.deflate is not None:
            if begins:
                # The size of a fragmented message is not known in advance, so it is always compressed.
                self._sending_compressed = not fin or len(payload) >= self.deflate.threshold
                # RFC 7692 §6.1: RSV1 is set on the first frame of a compressed message, and only there.
                first |= RSV1 if self._sending_compressed else 0
            if self._sending_compressed:
                payload = self._deflater.compress(payload, fin=fin)
        self._send_frame(FIN | first if fin else first, payload)

    def _send_control(self, opcode: Opcode, data: bytes) -> None:
        data = data if type(data) is bytes else bytes(memoryview(data))
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
        if self._new_mask_key is None:
            self._output += encode_header(first, len(payload)), payload
        else:
            # RFC 6455 §5.1, §5.3: a client MUST mask every frame, with a fresh key.
            mask_key = self._new_mask_key()
            self._output += encode_header(first, len(payload), mask_key), apply_mask(payload, mask_key)
