"""permessage-deflate: negotiation, and a codec with bounded memory.

Implements: RFC 7692 §5 (negotiation), §6 and §7 (the extension, its parameters, compression).
Left to others: the RSV1 bit (`frames`), which message is compressed (`connection`), size limits (`messages`).

`PerMessageDeflate` is what one side asks for, `DeflateParameters` what both sides agreed on; both are values
without state. A connection makes a `Deflater` and an `Inflater` from the agreement. They hold no zlib object
before the first compressed message.

Once in use, a compressor with a window of 15 bits and memory level 8 holds 256 KiB for each connection, and a
decompressor 40 KiB. ``no_context_takeover`` frees them after each message; the next message then needs a new
one, and compresses worse.
"""

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from rfc6455.constants import CloseCode, Role, check_limits
from rfc6455.errors import HandshakeError, RemoteProtocolError
from rfc6455.headers import Extension

NAME: Final = "permessage-deflate"

MAX_WINDOW_BITS: Final = 15
MIN_WINDOW_BITS: Final = 8

DEFAULT_THRESHOLD: Final = 128
"""Messages smaller than this many bytes are not compressed: too little would be saved."""

_TAIL: Final = b"\x00\x00\xff\xff"
"""The end of a sync flush; the sender removes it (RFC 7692 §7.2.1)."""

_EMPTY_BLOCK: Final = b"\x00"
"""An empty stored block without the tail (RFC 7692 §7.2.3.6)."""

_SLICE: Final = 65536
"""Maximum bytes passed to zlib in one call: zlib copies what it does not use."""

_SHORT_SLICE: Final = 2048
"""The same in a message of several deflate streams; see `Inflater`."""

_STREAM_COST: Final = 1024
"""Bytes of output that pay for one deflate stream: inflating them takes about as long as the stream."""

_CREDIT: Final = 64 * _STREAM_COST
"""What a message may cost in streams beyond what its output pays for."""

# window-bits = "8" / "9" / "10" / … / "15", without leading zeros (RFC 7692 §7.1.2)
_WINDOW_BITS: Final = re.compile(r"[89]|1[0-5]")

_SERVER_NO_TAKEOVER: Final = "server_no_context_takeover"
_CLIENT_NO_TAKEOVER: Final = "client_no_context_takeover"
_SERVER_BITS: Final = "server_max_window_bits"
_CLIENT_BITS: Final = "client_max_window_bits"


@dataclass(frozen=True, slots=True)
class _Parameters:
    """The four parameters of the extension, and the options of this side's compressor."""

    server_no_context_takeover: bool = False
    """Whether the server compresses each message independently of the messages before it."""
    client_no_context_takeover: bool = False
    """Whether the client compresses each message independently of the messages before it."""
    server_max_window_bits: int = MAX_WINDOW_BITS
    """The size of the server's window, as an exponent of two: 8 to 15."""
    client_max_window_bits: int = MAX_WINDOW_BITS
    """The size of the client's window, as an exponent of two: 8 to 15."""
    level: int = 6
    """zlib's level: 0 to 9, from fast to small."""
    memory_level: int = 8
    """zlib's memory level: 1 to 9."""
    threshold: int = DEFAULT_THRESHOLD
    """A message of fewer bytes is sent uncompressed."""


@dataclass(frozen=True, slots=True)
class DeflateParameters(_Parameters):
    """What client and server agreed on (RFC 7692 §7.1), and the options of this side's compressor."""

    def no_context_takeover(self, sender: Role) -> bool:
        """Whether ``sender`` compresses each message independently of the messages before it."""
        if sender is Role.SERVER:
            return self.server_no_context_takeover
        return self.client_no_context_takeover

    def window_bits(self, sender: Role) -> int:
        """The window size of ``sender``, as an exponent of two."""
        return self.server_max_window_bits if sender is Role.SERVER else self.client_max_window_bits


@dataclass(frozen=True, slots=True)
class PerMessageDeflate(_Parameters):
    """What one side asks for: an argument of `ServerHandshake` and `ClientHandshake`.

    ``server_…`` applies to what the server compresses, ``client_…`` to what the client compresses. A server
    can limit the client's window only if the client's offer allows it (RFC 7692 §7.1.2.2).

    Raises `ValueError` for window bits outside 8 to 15, and for options that zlib does not have;
    `TypeError` for numbers that are no ints.
    """

    def __post_init__(self) -> None:
        check_limits(
            0,
            server_max_window_bits=self.server_max_window_bits,
            client_max_window_bits=self.client_max_window_bits,
            level=self.level,
            memory_level=self.memory_level,
            threshold=self.threshold,
        )
        for bits in (self.server_max_window_bits, self.client_max_window_bits):
            if not MIN_WINDOW_BITS <= bits <= MAX_WINDOW_BITS:
                raise ValueError(f"window bits are 8 to 15, not {bits}")
        if not (self.level <= 9 and 1 <= self.memory_level <= 9):
            raise ValueError("level is 0 to 9, memory_level 1 to 9")

    # The server.

    def accept(self, offers: Iterable[Extension]) -> tuple[DeflateParameters, Extension] | None:
        """Returns the agreement and the answer for the first acceptable offer; ``None`` declines all.

        An offer with an unknown or repeated parameter, or a bad value, is declined, and the next one is
        tried (RFC 7692 §7.1).
        """
        for offer in offers:
            if offer.name == NAME:
                try:
                    return self._accept(_parse(offer, in_response=False))
                except HandshakeError:
                    continue
        return None

    def _accept(self, offered: "_Parsed") -> tuple[DeflateParameters, Extension]:
        # RFC 7692 §7.1.1, §7.1.2. (o: in the offer, w: what we want)
        #
        #                                o -, w -   o -, w +         o +, w -   o +, w +
        # server_no_context_takeover     absent     present          present    present
        # client_no_context_takeover     absent     present          present    present
        # server_max_window_bits         absent     w                o          min(o, w)
        # client_max_window_bits         absent     absent, 15       o          min(o, w)
        #
        # What the offer says of the server binds us. What it says of the client is a hint that costs us
        # nothing to follow. client_max_window_bits without a value counts as 15.
        agreed = self._agreement(
            server_no_context_takeover=offered.server_no_context_takeover or self.server_no_context_takeover,
            client_no_context_takeover=offered.client_no_context_takeover or self.client_no_context_takeover,
            server_max_window_bits=min(
                offered.server_max_window_bits or MAX_WINDOW_BITS, self.server_max_window_bits
            ),
            client_max_window_bits=min(offered.client_max_window_bits, self.client_max_window_bits)
            if offered.client_max_window_bits
            else MAX_WINDOW_BITS,
        )
        parameters: list[tuple[str, str | None]] = []
        if agreed.server_no_context_takeover:
            parameters.append((_SERVER_NO_TAKEOVER, None))
        if agreed.client_no_context_takeover:
            parameters.append((_CLIENT_NO_TAKEOVER, None))
        if offered.server_max_window_bits or agreed.server_max_window_bits < MAX_WINDOW_BITS:
            parameters.append((_SERVER_BITS, str(agreed.server_max_window_bits)))
        if agreed.client_max_window_bits < MAX_WINDOW_BITS:
            parameters.append((_CLIENT_BITS, str(agreed.client_max_window_bits)))
        return agreed, Extension(NAME, tuple(parameters))

    # The client.

    def offer(self) -> Extension:
        """Returns the client's offer; it always allows the server to limit the client's window."""
        parameters: list[tuple[str, str | None]] = []
        if self.server_no_context_takeover:
            parameters.append((_SERVER_NO_TAKEOVER, None))
        if self.client_no_context_takeover:
            parameters.append((_CLIENT_NO_TAKEOVER, None))
        if self.server_max_window_bits < MAX_WINDOW_BITS:
            parameters.append((_SERVER_BITS, str(self.server_max_window_bits)))
        bits = self.client_max_window_bits
        parameters.append((_CLIENT_BITS, str(bits) if bits < MAX_WINDOW_BITS else None))
        return Extension(NAME, tuple(parameters))

    def agree(self, answers: list[Extension]) -> DeflateParameters | None:
        """Returns the agreement from the server's answer to `offer`; ``None`` if the server declined.

        Raises `HandshakeError` for an answer that the offer does not allow (RFC 7692 §5.1, §7.1).
        """
        if not answers:
            return None
        if len(answers) > 1 or answers[0].name != NAME:
            raise HandshakeError("an extension that was not offered", slug="bad-extension", status=0)
        answer = _parse(answers[0], in_response=True)
        if self.server_no_context_takeover and not answer.server_no_context_takeover:
            # RFC 7692 §7.1.1.1: a server that accepts the offer MUST include the parameter.
            raise _bad_parameter(_SERVER_NO_TAKEOVER)
        server_bits = answer.server_max_window_bits or MAX_WINDOW_BITS
        if server_bits > self.server_max_window_bits:
            # RFC 7692 §7.1.2.1: the value of the offer, or a smaller one.
            raise _bad_parameter(_SERVER_BITS)
        client_bits = answer.client_max_window_bits or self.client_max_window_bits
        if client_bits > self.client_max_window_bits:
            raise _bad_parameter(_CLIENT_BITS)
        return self._agreement(
            server_no_context_takeover=answer.server_no_context_takeover,
            # A client may always reset its window: the server need not know.
            client_no_context_takeover=answer.client_no_context_takeover or self.client_no_context_takeover,
            server_max_window_bits=server_bits,
            client_max_window_bits=client_bits,
        )

    def _agreement(
        self,
        *,
        server_no_context_takeover: bool,
        client_no_context_takeover: bool,
        server_max_window_bits: int,
        client_max_window_bits: int,
    ) -> DeflateParameters:
        return DeflateParameters(
            server_no_context_takeover,
            client_no_context_takeover,
            server_max_window_bits,
            client_max_window_bits,
            self.level,
            self.memory_level,
            self.threshold,
        )


@dataclass(slots=True)
class _Parsed:
    """The parameters of one offer or answer; absent window bits are 0."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = 0
    client_max_window_bits: int = 0


def _parse(extension: Extension, *, in_response: bool) -> _Parsed:
    """Raises `HandshakeError` for an unknown or repeated parameter, or a bad value."""
    parsed = _Parsed()
    seen = set()
    for name, value in extension.parameters:
        if name in seen:
            raise _bad_parameter(name)
        seen.add(name)
        if name in (_SERVER_NO_TAKEOVER, _CLIENT_NO_TAKEOVER) and value is None:
            setattr(parsed, name, True)
        elif name == _CLIENT_BITS and value is None and not in_response:
            # RFC 7692 §7.1.2.2: in an offer, the value is optional.
            parsed.client_max_window_bits = MAX_WINDOW_BITS
        elif name in (_SERVER_BITS, _CLIENT_BITS) and _WINDOW_BITS.fullmatch(value or ""):
            setattr(parsed, name, int(value or ""))
        else:
            raise _bad_parameter(name)
    return parsed


def _bad_parameter(name: str) -> HandshakeError:
    return HandshakeError(f"{NAME}: {name} is not acceptable", slug="bad-extension", status=0)


class Deflater:
    """Compresses the messages that ``sender`` sends (RFC 7692 §7.2.1)."""

    __slots__ = ("_compressor", "_forgets", "_level", "_memory_level", "_window_bits")

    def __init__(self, parameters: DeflateParameters, sender: Role) -> None:
        self._level = parameters.level
        self._memory_level = parameters.memory_level
        self._forgets = parameters.no_context_takeover(sender)
        # zlib has no raw deflate with 8 bits. With 9 bits it refers back at most 512 - 262 = 250 bytes,
        # because its look-ahead buffer is part of the window. That fits into the 256 bytes of 8 bits; a test
        # checks it.
        self._window_bits = max(parameters.window_bits(sender), 9)
        self._compressor: zlib._Compress | None = None

    def compress(self, data: bytes, *, fin: bool) -> bytes:
        """Returns the payload of a frame that carries ``data``; ``fin`` ends the message."""
        if self._compressor is None:
            self._compressor = zlib.compressobj(
                self._level, zlib.DEFLATED, -self._window_bits, self._memory_level
            )
        payload = self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH)
        if not fin:
            return payload
        if self._forgets:
            self._compressor = None
        # A second flush without data in between returns nothing.
        return payload.removesuffix(_TAIL) or _EMPTY_BLOCK


class Inflater:
    """Decompresses the messages that ``sender`` sends (RFC 7692 §7.2.2), piece by piece.

    Call `feed` with the payload of a frame, then `read` until it is ``exhausted``.

    A block may be the last of its deflate stream, and another stream may follow in the same message (RFC 7692
    §7.2.3.4). At the end of a stream zlib returns a copy of its unused input. From then on it gets short
    slices, so that many short streams do not copy the rest of a long message each time.

    A stream needs a new decompressor, which takes as long as inflating a KiB, and it may have only two bytes.
    So the streams of a message are limited: each takes some of a credit that grows with the output.
    """

    __slots__ = (
        "_credit",
        "_decompressor",
        "_final",
        "_forgets",
        "_input",
        "_position",
        "_slice",
        "_window_bits",
        "exhausted",
    )

    def __init__(self, parameters: DeflateParameters, sender: Role) -> None:
        self._forgets = parameters.no_context_takeover(sender)
        self._window_bits = max(parameters.window_bits(sender), 9)
        self._decompressor: zlib._Decompress | None = None
        self._input = b""
        self._position = 0
        self._slice = _SLICE
        self._credit = _CREDIT  # for this message
        self._final = False
        self.exhausted = True
        """Whether `read` has returned everything."""

    def feed(self, data: bytes, *, final: bool) -> None:
        """Takes the next bytes of the message; ``final`` marks its last bytes."""
        # RFC 7692 §7.2.2: appends the tail that the sender removed.
        self._input = data + _TAIL if final else data
        self._position = 0
        self._final = final
        self.exhausted = False

    def read(self, size: int) -> bytes:
        """Returns the next bytes of the message, at most ``size``.

        Raises `RemoteProtocolError`: 1007 if the data cannot be decompressed, 1008 for a flood of deflate
        streams.
        """
        decompressor = self._decompressor
        if decompressor is None:
            decompressor = self._decompressor = zlib.decompressobj(-self._window_bits)
        data = memoryview(self._input)[self._position : self._position + self._slice]
        try:
            piece = decompressor.decompress(data, size)
        except zlib.error:
            # RFC 6455 §7.4.1: data inconsistent with the type of the message.
            raise RemoteProtocolError(
                "the data cannot be decompressed",
                slug="bad-deflate",
                code=CloseCode.INVALID_PAYLOAD_DATA,
            ) from None
        self._position += len(data) - len(decompressor.unconsumed_tail) - len(decompressor.unused_data)
        self._credit += len(piece)
        if decompressor.eof:
            self._end_stream()
        elif len(piece) == size:
            return piece  # zlib may have more output without more input
        self._check_exhausted()
        return piece

    def _end_stream(self) -> None:
        self._decompressor = None
        self._slice = _SHORT_SLICE
        self._credit -= _STREAM_COST
        if self._credit < 0:
            raise RemoteProtocolError(
                "a flood of deflate streams", slug="deflate-streams", code=CloseCode.POLICY_VIOLATION
            )

    def _check_exhausted(self) -> None:
        left = len(self._input) - self._position
        ended_without_tail = self._final and self._decompressor is None and left == len(_TAIL)
        if left and not ended_without_tail:
            return
        self.exhausted = True
        self._input = b""
        if self._final:
            self._slice = _SLICE
            self._credit = _CREDIT
            if self._forgets:
                self._decompressor = None
