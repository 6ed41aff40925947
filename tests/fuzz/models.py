"""What inputs must mean, read in the plainest way: nothing here uses the code under test."""

import re
import zlib
from base64 import b64decode
from codecs import getincrementaldecoder

from rfc6455 import Role

Event = tuple[object, ...]
"""("text", str), ("binary", bytes), ("ping", bytes), ("pong", bytes), ("close", code, reason), or
("failed", code)."""

STREAMS = 64
"""Deflate streams of a message, besides one for each KiB of its content."""

_CONTROL = {9: "ping", 10: "pong"}
_CODES = {*range(1000, 1015), *range(3000, 5000)} - {1004, 1005, 1006}
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


class _Violation(Exception):  # noqa: N818 - the peer's, and no error
    """The peer broke the protocol; its argument is the close code."""


class _Frames:
    """Reads frames by RFC 6455 §5, without extensions and limits but that of a message."""

    def __init__(self, role: Role, limit: int) -> None:
        self._masked = role is Role.SERVER
        self._limit = limit
        self.events: list[Event] = []
        self._begin(0)

    def _begin(self, opcode: int) -> None:
        self._opcode = opcode  # of the unfinished message
        self._declared = 0
        self._payload = b""
        self._text = ""
        self._decoder = getincrementaldecoder("utf-8")("strict")

    def frame(self, data: bytes) -> int:
        """Reads a frame, or as much of it as is there. Returns its size; 0 if it is incomplete."""
        fin, opcode = data[0] & 0x80, data[0] & 0x0F
        if data[0] & 0x70 or opcode not in (0, 1, 2, 8, 9, 10) or (opcode >= 8 and not fin):
            raise _Violation(1002)
        if len(data) < 2:
            return 0
        length = data[1] & 0x7F
        if (data[1] >= 0x80) is not self._masked or (opcode >= 8 and length > 125):
            raise _Violation(1002)
        start = {126: 4, 127: 10}.get(length, 2)
        if len(data) < start:
            return 0
        if length > 125:
            length = int.from_bytes(data[2:start], "big")
            if length < (126 if start == 4 else 65536) or length >= 1 << 63:
                raise _Violation(1002)
        key = data[start : start + 4] if self._masked else bytes(4)
        start += 4 if self._masked else 0
        if len(data) < start:
            return 0
        self._start(opcode, length)
        payload = bytes(byte ^ key[i % 4] for i, byte in enumerate(data[start : start + length]))
        whole = len(payload) == length
        if opcode < 8:
            self._data(payload, final=bool(fin) and whole)
        elif whole:
            self._control(opcode, payload)
        return start + length if whole else 0

    def _start(self, opcode: int, length: int) -> None:
        if opcode >= 8:
            return
        if (opcode == 0) is not (self._opcode > 0):
            raise _Violation(1002)
        self._opcode = opcode or self._opcode
        self._declared += length
        if self._declared > self._limit:
            raise _Violation(1009)

    def _data(self, payload: bytes, *, final: bool) -> None:
        self._payload += payload
        if self._opcode == 1:
            try:
                self._text += self._decoder.decode(payload, final)
            except UnicodeDecodeError:
                raise _Violation(1007) from None
            undecoded = self._decoder.getstate()[0]
            if undecoded[:1] == b"\xed" and undecoded[1:] >= b"\xa0":  # no surrogate can follow
                raise _Violation(1007)
        if final:
            self.events.append(("text", self._text) if self._opcode == 1 else ("binary", self._payload))
            self._begin(0)

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode != 8:
            self.events.append((_CONTROL[opcode], payload))
            return
        code = int.from_bytes(payload[:2], "big") if payload else 1005
        if payload and (len(payload) == 1 or code not in _CODES):
            raise _Violation(1002)
        try:
            self.events.append(("close", code, payload[2:].decode()))
        except UnicodeDecodeError:
            raise _Violation(1007) from None


def read_frames(role: Role, data: bytes, limit: int) -> list[Event]:
    """Returns what a connection of ``role`` makes of ``data``, up to a Close or a violation."""
    frames = _Frames(role, limit)
    try:
        while data and (size := frames.frame(data)):
            data = data[size:]
            if frames.events and frames.events[-1][0] == "close":
                break
    except _Violation as violation:
        frames.events.append(("failed", *violation.args))
    return frames.events


def inflate(payloads: list[bytes], window_bits: int, limit: int, *, forgets: bool) -> list[Event]:
    """Returns the messages of RFC 7692 §7.2.2, up to the first that fails."""
    events: list[Event] = []
    decompressor = None
    for payload in payloads:
        data, message = payload + b"\x00\x00\xff\xff", b""
        streams = 0
        while data:
            decompressor = decompressor or zlib.decompressobj(-window_bits)
            try:
                message += decompressor.decompress(data, limit + 1 - len(message))
            except zlib.error:
                return [*events, ("failed", 1007)]
            streams += decompressor.eof
            if streams > STREAMS + len(message) // 1024:
                return [*events, ("failed", 1008)]
            if len(message) > limit:
                return [*events, ("failed", 1009)]
            data = decompressor.unconsumed_tail or decompressor.unused_data
            if decompressor.eof:
                decompressor = None
                if data == b"\x00\x00\xff\xff":
                    break  # the stream has ended, and only the tail that we added is left
        if forgets:
            decompressor = None
        events.append(("binary", message))
    return events


def read_payload(body: bytes) -> tuple[list[str | bytes], str | None]:
    """Returns the messages of a POST body, and why it ends the session: no PONG is due."""
    messages: list[str | bytes] = []
    try:
        parts = body.decode().split("\x1e")
    except UnicodeDecodeError:
        return [], "parse error"
    for part in parts:
        if part[:1] == "4":
            messages.append(part[1:])
        elif part[:1] == "b" and _BASE64.fullmatch(part[1:].replace("\n", "")):
            messages.append(b64decode(part[1:]))
        else:
            return messages, "transport close" if part[:1] == "1" else "parse error"
    return messages, None
