"""The heads of HTTP/1.1 requests and responses: found, bounded, parsed, written.

Implements: what RFC 6455 §4.1 and §4.2.1 need of HTTP/1.1, strictly: lines end with CRLF, nothing is
folded, names are tokens, values have no control characters.
Left to others: what the fields must say (`handshake`), bodies (whoever embeds this).

The parser takes a line as soon as it is complete, and refuses it then, so that the first offending line
decides, and the outcome is the same whether the bytes come at once or one at a time. A head that comes at
once and has nothing wrong, as nearly all do, is taken in one go.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Generic, TypeVar

from rfc6455.constants import DEFAULT_MAX_FIELDS, DEFAULT_MAX_HEAD_SIZE, DEFAULT_MAX_LINE_SIZE
from rfc6455.errors import HandshakeError, LocalProtocolError
from rfc6455.headers import Extension, Headers, is_token, parse_extensions, parse_token_list

# request-line = method SP request-target SP HTTP-version
# The target has visible ASCII characters only; a fragment is never sent (RFC 6455 §3).
_TARGET = re.compile(r"[!-\"$-~]+")
_REQUEST_LINE = re.compile(rf"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ({_TARGET.pattern}) HTTP/([0-9]\.[0-9])")

# status-line = HTTP-version SP 3DIGIT SP [ reason-phrase ]; some servers leave out the last space
_STATUS_LINE = re.compile(r"HTTP/([0-9]\.[0-9]) ([1-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?")

# field-line = field-name ":" OWS field-value OWS; Headers takes the white space off, because a pattern
# for it would cost quadratic time
_FIELD_LINE = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t\x20-\x7e\x80-\xff]*)")
_FIELD_LINE_IN_HEAD = re.compile(rf"^{_FIELD_LINE.pattern}\r\n", re.MULTILINE)

_REASON = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


@dataclass(slots=True)
class Request:
    """The head of a request: also the event of a `ServerHandshake`.

    ``target`` is what stands in the request line: ASCII, starts with ``/`` or is an absolute URI.
    """

    method: str
    target: str
    headers: Headers = field(default_factory=Headers)
    version: str = "1.1"

    @property
    def path(self) -> str:
        """The path of the resource name, as it came: not percent-decoded, without the query."""
        return self._resource_name().partition("?")[0]

    @property
    def query(self) -> str:
        """What follows the ``?`` of the resource name; empty when there is none."""
        return self._resource_name().partition("?")[2]

    def _resource_name(self) -> str:
        """The target without scheme and authority (RFC 6455 §4.2.1, item 1)."""
        if self.target.startswith("/"):
            return self.target
        match = re.match(r"https?://[^/?]*", self.target, re.ASCII | re.IGNORECASE)
        rest = self.target[match.end() :] if match else self.target
        return rest if rest.startswith("/") else "/" + rest

    @property
    def origin(self) -> str | None:
        """The Origin field, ``None`` from clients that are no browser (RFC 6455 §10.2)."""
        return self.headers.get("Origin")

    @property
    def subprotocols(self) -> list[str]:
        """The subprotocols on offer, the preferred first; raises `HandshakeError`."""
        return parse_token_list(self.headers.get_all("Sec-WebSocket-Protocol"))

    @property
    def extensions(self) -> list[Extension]:
        """The extensions on offer, the preferred first; raises `HandshakeError`."""
        return parse_extensions(self.headers.get_all("Sec-WebSocket-Extensions"))

    def encode(self) -> bytes:
        """The bytes of the head; raises `LocalProtocolError` for a method or target of bad form."""
        if not is_token(self.method):
            raise LocalProtocolError("not a method", slug="bad-method")
        if not is_target(self.target):
            raise LocalProtocolError("not a request target", slug="bad-target")
        return encode_head(f"{self.method} {self.target} HTTP/{self.version}", self.headers)


@dataclass(slots=True)
class Response:
    """The head of a response; ``reason`` is the standard phrase unless it is given."""

    status: int
    headers: Headers = field(default_factory=Headers)
    reason: str | None = None
    version: str = "1.1"

    def encode(self) -> bytes:
        """The bytes of the head; raises `LocalProtocolError` for a status or reason of bad form."""
        if not 100 <= self.status <= 599:
            raise LocalProtocolError(f"not an HTTP status: {self.status}", slug="bad-status")
        reason = _standard_reason(self.status) if self.reason is None else self.reason
        if _REASON.fullmatch(reason) is None:
            raise LocalProtocolError("not a reason phrase", slug="bad-reason")
        return encode_head(f"HTTP/{self.version} {self.status} {reason}", self.headers)


def is_target(target: str) -> bool:
    """Whether ``target`` may stand in a request line: visible ASCII characters, no ``#``."""
    return _TARGET.fullmatch(target) is not None


def _standard_reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def encode_head(start_line: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """The bytes of a head; the caller has checked what they say."""
    lines = [start_line, *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


_Head = TypeVar("_Head", Request, Response)


class _HeadParser(ABC, Generic[_Head]):
    """Finds and parses one head; what follows it stays in ``trailing_data``.

    ``max_line_size`` and ``max_head_size`` are bytes, ``max_fields`` counts lines.
    """

    # The status and the message for a start line that is too long.
    _start_line_too_long = (431, "the start line is too long")

    def __init__(
        self,
        *,
        max_line_size: int = DEFAULT_MAX_LINE_SIZE,
        max_fields: int = DEFAULT_MAX_FIELDS,
        max_head_size: int = DEFAULT_MAX_HEAD_SIZE,
    ) -> None:
        self._max_line_size = max_line_size
        self._max_fields = max_fields
        self._max_head_size = max_head_size
        self._buffer = bytearray()
        self._line_start = 0
        self._searched = 0  # no line feed stands between _line_start and here
        self._head: _Head | None = None
        self._done = False

    @property
    def trailing_data(self) -> bytes:
        """What has come after the head."""
        return bytes(self._buffer) if self._done else b""

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Takes bytes from the network."""
        self._buffer += data

    def next_head(self) -> _Head | None:
        """The head, once; ``None`` while it is incomplete, and afterwards.

        Raises `HandshakeError` with the HTTP status that fits as soon as a line is bad or too long.
        """
        if self._searched == 0 and not self._done:
            head = self._take_whole_head()
            if head is not None:
                return head
        while not self._done:
            line = self._next_line()
            if line is None:
                return None
            if self._head is None:
                self._head = self._parse_start_line(line)
            elif line:
                self._add_field(self._head.headers, line)
            else:
                del self._buffer[: self._line_start]
                self._done = True
                return self._head
        return None

    def _take_whole_head(self) -> _Head | None:
        """The head, if all of it is there, its field lines are right, and it is within every limit."""
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n", 0, min(self._max_line_size, self._max_head_size)) + 2
        start = buffer.find(b"\n", 0, end) + 1
        if not buffer.endswith(b"\r\n", 0, start):
            return None
        lines = buffer[:end].decode("latin-1")
        fields = _FIELD_LINE_IN_HEAD.findall(lines, start)
        # Each is one line, from its beginning to its end: where there are as many as lines, all are right.
        if not lines.count("\n", start) == len(fields) <= self._max_fields:
            return None
        head = self._parse_start_line(lines[: start - 2])
        head.headers.add_parsed(fields)
        del buffer[: end + 2]
        self._done = True
        return head

    def _next_line(self) -> str | None:
        """The next complete line without its CRLF.

        Whether a limit is hit depends only on the bytes up to it: ``end`` is where this line must
        have ended, by its own limit or by that of the head.
        """
        line_end = self._line_start + self._max_line_size + 2
        end = min(line_end, self._max_head_size)
        line_feed = self._buffer.find(b"\n", self._searched, end)
        if line_feed < 0:
            self._searched = len(self._buffer)
            if self._searched < end:
                return None
            if self._head is None and end == line_end:
                status, message = self._start_line_too_long
                raise HandshakeError(message, slug="start-line-too-long", status=status)
            raise HandshakeError("the head is too large", slug="head-too-large", status=431)
        line = self._buffer[self._line_start : line_feed].decode("latin-1")
        self._line_start = self._searched = line_feed + 1
        if line[-1:] != "\r":
            raise HandshakeError("a line ends without CR", slug="bare-line-feed")
        return line[:-1]

    def _add_field(self, headers: Headers, line: str) -> None:
        if len(headers) == self._max_fields:
            raise HandshakeError("too many fields", slug="too-many-fields", status=431)
        match = _FIELD_LINE.fullmatch(line)
        if match is None:
            raise HandshakeError("a malformed field line", slug="bad-field-line")
        headers.add(match[1], match[2])

    @abstractmethod
    def _parse_start_line(self, line: str) -> _Head:
        """The head so far: what the start line says, and no fields."""


class RequestParser(_HeadParser[Request]):
    """The head of a request."""

    _start_line_too_long = (414, "the request line is too long")

    def _parse_start_line(self, line: str) -> Request:
        match = _REQUEST_LINE.fullmatch(line)
        if match is None:
            raise HandshakeError("a malformed request line", slug="bad-request-line")
        method, target, version = match.groups()
        return Request(method, target, Headers(), version)


class ResponseParser(_HeadParser[Response]):
    """The head of a response."""

    def _parse_start_line(self, line: str) -> Response:
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            raise HandshakeError("a malformed status line", slug="bad-status-line")
        version, status, reason = match.groups("")
        return Response(int(status), reason=reason, version=version)
