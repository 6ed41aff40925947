"""permessage-deflate: its negotiation, and a codec that is bounded and costs nothing while idle.

Implements: RFC 7692 §5 (negotiation), §6 and §7 (the extension, its parameters, compression).
Left to others: the RSV1 bit (`frames`), which message is compressed (`connection`), size limits
(`messages`).

`PerMessageDeflate` is what one side wants, `DeflateParameters` what both agreed on; both are values without
state. A connection makes a `Deflater` and an `Inflater` of the agreement, and these hold no zlib object
before the first compressed message.

What it costs, a connection, once in use: a compressor with a window of 15 bits and memory level 8 holds
256 KiB, a decompressor 40 KiB. ``no_context_takeover`` frees them after each message, at the price of a
new one for the next, and of worse compression.
"""

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from rfc6455.constants import CloseCode, Role
from rfc6455.errors import HandshakeError, RemoteProtocolError
from rfc6455.headers import Extension

NAME: Final = "permessage-deflate"

MAX_WINDOW_BITS: Final = 15
MIN_WINDOW_BITS: Final = 8

DEFAULT_THRESHOLD: Final = 128
"""Bytes from which on a message is compressed: below, the work is not worth the few bytes."""

_TAIL: Final = b"\x00\x00\xff\xff"
"""What a sync flush ends with; the sender leaves it out (RFC 7692 §7.2.1)."""

_EMPTY_BLOCK: Final = b"\x00"
"""An empty stored block without the tail (RFC 7692 §7.2.3.6)."""

_SLICE: Final = 65536
"""Bytes given to zlib at a time: what it does not use it copies."""

_SHORT_SLICE: Final = 2048
"""The same, in a message of several deflate streams; see `Inflater`."""

# window-bits = "8" / "9" / "10" / … / "15", without leading zeros (RFC 7692 §7.1.2)
_WINDOW_BITS: Final = re.compile(r"[89]|1[0-5]")

_SERVER_TAKEOVER: Final = "server_no_context_takeover"
_CLIENT_TAKEOVER: Final = "client_no_context_takeover"
_SERVER_BITS: Final = "server_max_window_bits"
_CLIENT_BITS: Final = "client_max_window_bits"


@dataclass(frozen=True, slots=True)
class _Parameters:
    """The four parameters of the extension, and how this side compresses."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = MAX_WINDOW_BITS
    client_max_window_bits: int = MAX_WINDOW_BITS
    level: int = 6
    memory_level: int = 8
    threshold: int = DEFAULT_THRESHOLD


@dataclass(frozen=True, slots=True)
class DeflateParameters(_Parameters):
    """What client and server agreed on (RFC 7692 §7.1), and how this side compresses.

    ``level`` and ``memory_level`` are zlib's; ``threshold`` is in bytes.
    """

    def no_context_takeover(self, sender: Role) -> bool:
        """Whether ``sender`` compresses each message by itself."""
        if sender is Role.SERVER:
            return self.server_no_context_takeover
        return self.client_no_context_takeover

    def window_bits(self, sender: Role) -> int:
        """The size of the window that ``sender`` uses, as a power of two."""
        return self.server_max_window_bits if sender is Role.SERVER else self.client_max_window_bits


@dataclass(frozen=True, slots=True)
class PerMessageDeflate(_Parameters):
    """What one side asks for. Hand it to a `ServerHandshake` or a `ClientHandshake`.

    ``server_…`` speaks of what the server compresses, ``client_…`` of what the client does. A server can
    limit the client's window only where the client offers to be limited (RFC 7692 §7.1.2.2).

    Raises `ValueError` for window bits outside 8 to 15, and what zlib does not know.
    """

    def __post_init__(self) -> None:
        for bits in (self.server_max_window_bits, self.client_max_window_bits):
            if not MIN_WINDOW_BITS <= bits <= MAX_WINDOW_BITS:
                raise ValueError(f"window bits are 8 to 15, not {bits}")
        if not (0 <= self.level <= 9 and 1 <= self.memory_level <= 9 and self.threshold >= 0):
            raise ValueError("level is 0 to 9, memory_level 1 to 9, threshold at least 0")

    # The server.

    def accept(self, offers: Iterable[Extension]) -> tuple[DeflateParameters, Extension] | None:
        """The agreement and the answer to the first offer that can be met; ``None`` declines all.

        An offer with a parameter that is unknown, doubled or has a bad value is declined, and the next
        one considered (RFC 7692 §7.1).
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
        # The last but one is what must be; the others are hints that cost us nothing to follow. A bare
        # client_max_window_bits is an offer of 15.
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
            parameters.append((_SERVER_TAKEOVER, None))
        if agreed.client_no_context_takeover:
            parameters.append((_CLIENT_TAKEOVER, None))
        if offered.server_max_window_bits or agreed.server_max_window_bits < MAX_WINDOW_BITS:
            parameters.append((_SERVER_BITS, str(agreed.server_max_window_bits)))
        if agreed.client_max_window_bits < MAX_WINDOW_BITS:
            parameters.append((_CLIENT_BITS, str(agreed.client_max_window_bits)))
        return agreed, Extension(NAME, tuple(parameters))

    # The client.

    def offer(self) -> Extension:
        """What a client asks for; it always offers to have its window limited."""
        parameters: list[tuple[str, str | None]] = []
        if self.server_no_context_takeover:
            parameters.append((_SERVER_TAKEOVER, None))
        if self.client_no_context_takeover:
            parameters.append((_CLIENT_TAKEOVER, None))
        if self.server_max_window_bits < MAX_WINDOW_BITS:
            parameters.append((_SERVER_BITS, str(self.server_max_window_bits)))
        bits = self.client_max_window_bits
        parameters.append((_CLIENT_BITS, str(bits) if bits < MAX_WINDOW_BITS else None))
        return Extension(NAME, tuple(parameters))

    def agree(self, answers: list[Extension]) -> DeflateParameters | None:
        """The agreement that the server's answer to `offer` makes; ``None`` when it declined.

        Raises `HandshakeError` for anything that the offer does not allow (RFC 7692 §5.1, §7.1).
        """
        if not answers:
            return None
        if len(answers) > 1 or answers[0].name != NAME:
            raise HandshakeError("an extension that was not offered", slug="bad-extension", status=0)
        answer = _parse(answers[0], in_response=True)
        if self.server_no_context_takeover and not answer.server_no_context_takeover:
            # RFC 7692 §7.1.1.1: who accepts the offer MUST say so.
            raise _bad_parameter(_SERVER_TAKEOVER)
        server_bits = answer.server_max_window_bits or MAX_WINDOW_BITS
        if server_bits > self.server_max_window_bits:
            # RFC 7692 §7.1.2.1: the same value or a smaller one.
            raise _bad_parameter(_SERVER_BITS)
        client_bits = answer.client_max_window_bits or self.client_max_window_bits
        if client_bits > self.client_max_window_bits:
            raise _bad_parameter(_CLIENT_BITS)
        return self._agreement(
            server_no_context_takeover=answer.server_no_context_takeover,
            # A client may always forget its window: that asks nothing of the server.
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
    """The parameters of one offer or answer; window bits are 0 where they are absent."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = 0
    client_max_window_bits: int = 0


def _parse(extension: Extension, *, in_response: bool) -> _Parsed:
    """Raises `HandshakeError` for a parameter that is unknown, doubled or has a bad value."""
    parsed = _Parsed()
    seen = set()
    for name, value in extension.parameters:
        if name in seen:
            raise _bad_parameter(name)
        seen.add(name)
        if name in (_SERVER_TAKEOVER, _CLIENT_TAKEOVER) and value is None:
            setattr(parsed, name, True)
        elif name == _CLIENT_BITS and value is None and not in_response:
            # RFC 7692 §7.1.2.2: in an offer the value may be left out.
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
        # zlib has no raw deflate with 8 bits. With 9 it never reaches back further than
        # 512 - 262 = 250 bytes, because its look-ahead stands in the same window; that fits into the 256
        # of 8 bits. A test holds it to that.
        self._window_bits = max(parameters.window_bits(sender), 9)
        self._compressor: zlib._Compress | None = None

    def compress(self, data: bytes, *, fin: bool) -> bytes:
        """The payload of a frame that carries ``data``; ``fin`` ends the message."""
        if self._compressor is None:
            self._compressor = zlib.compressobj(
                self._level, zlib.DEFLATED, -self._window_bits, self._memory_level
            )
        payload = self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH)
        if not fin:
            return payload
        if self._forgets:
            self._compressor = None
        # A second flush without data in between gives nothing at all.
        return payload.removesuffix(_TAIL) or _EMPTY_BLOCK


class Inflater:
    """Decompresses the messages that ``sender`` sends (RFC 7692 §7.2.2), a piece at a time.

    `feed` it the payload of a frame, then `read` until it is ``exhausted``.

    A block may be the last of its deflate stream, and another stream may follow in the same message
    (RFC 7692 §7.2.3.4). zlib then hands back a copy of what it has not used; so as not to copy the
    rest of a long message for each of many short streams, it gets short slices from then on.
    """

    __slots__ = (
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
        self._final = False
        self.exhausted = True
        """Whether `read` has returned everything."""

    def feed(self, data: bytes, *, final: bool) -> None:
        """Takes the next bytes of the message; ``final`` says that they are its last."""
        # RFC 7692 §7.2.2: the tail that the sender left out is put back.
        self._input = data + _TAIL if final else data
        self._position = 0
        self._final = final
        self.exhausted = False

    def read(self, size: int) -> bytes:
        """The next bytes of the message, ``size`` at the most.

        Raises `RemoteProtocolError` 1007 when the data cannot be decompressed.
        """
        decompressor = self._decompressor
        if decompressor is None:
            decompressor = self._decompressor = zlib.decompressobj(-self._window_bits)
        data = memoryview(self._input)[self._position : self._position + self._slice]
        try:
            piece = decompressor.decompress(data, size)
        except zlib.error:
            # The data is not consistent with the type of the message (RFC 6455 §7.4.1).
            raise RemoteProtocolError(
                "the data cannot be decompressed",
                slug="bad-deflate",
                code=CloseCode.INVALID_PAYLOAD_DATA,
            ) from None
        self._position += len(data) - len(decompressor.unconsumed_tail) - len(decompressor.unused_data)
        if decompressor.eof:
            self._decompressor = None
            self._slice = _SHORT_SLICE
        elif len(piece) == size:
            return piece  # zlib may hold more, and need no input for it
        self._check_exhausted()
        return piece

    def _check_exhausted(self) -> None:
        left = len(self._input) - self._position
        ended_without_tail = self._final and self._decompressor is None and left == len(_TAIL)
        if left and not ended_without_tail:
            return
        self.exhausted = True
        self._input = b""
        if self._final:
            self._slice = _SLICE
            if self._forgets:
                self._decompressor = None
