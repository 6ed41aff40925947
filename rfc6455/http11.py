"""The heads of HTTP/1.1 requests and responses: limits, parsing, encoding.

Implements: the part of HTTP/1.1 that RFC 6455 §4.1 and §4.2.1 need, strictly: lines end with CRLF, no line is
folded, names are tokens, values have no control characters.
Left to others: what the fields must say (`handshake`), bodies (the embedder).

The parser checks each line as soon as it is complete. So the first bad line decides, and the outcome is the
same whether the bytes arrive together or one at a time. A valid head that arrives as a whole, the usual case,
is parsed in one step.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Generic, TypeVar

from rfc6455.constants import (
    DEFAULT_MAX_FIELDS,
    DEFAULT_MAX_HEAD_SIZE,
    DEFAULT_MAX_LINE_SIZE,
    check_limits,
)
from rfc6455.errors import HandshakeError, LocalProtocolError
from rfc6455.headers import Extension, Headers, is_token, parse_extensions, parse_token_list

# request-line = method SP request-target SP HTTP-version
# The target has only visible ASCII characters and no fragment (RFC 6455 §3).
_TARGET = re.compile(r"[!-\"$-~]+")
_HTTP_VERSION = re.compile(r"[0-9]\.[0-9]")
_REQUEST_LINE = re.compile(
    rf"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ({_TARGET.pattern}) HTTP/({_HTTP_VERSION.pattern})"
)

# status-line = HTTP-version SP 3DIGIT SP [ reason-phrase ]; some servers omit the last space
_STATUS_LINE = re.compile(r"HTTP/([0-9]\.[0-9]) ([1-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?")

# field-line = field-name ":" OWS field-value OWS; Headers strips the white space, because a pattern for it
# would take quadratic time
_FIELD_LINE = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t\x20-\x7e\x80-\xff]*)")
_FIELD_LINE_IN_HEAD = re.compile(rf"^{_FIELD_LINE.pattern}\r\n", re.MULTILINE)

_REASON = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


@dataclass(slots=True)
class Request:
    """The head of a request; also the event of a `ServerHandshake`.

    ``target`` is the request target as sent: ASCII, a path that begins with ``/`` or an absolute URI.
    """

    method: str
    target: str
    headers: Headers = field(default_factory=Headers)
    version: str = "1.1"

    @property
    def path(self) -> str:
        """The path of the resource name, not percent-decoded, without the query."""
        return self._resource_name().partition("?")[0]

    @property
    def query(self) -> str:
        """The resource name after its first ``?``; empty if there is none."""
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
        """The Origin field; browsers send it, other clients need not (RFC 6455 §10.2)."""
        return self.headers.get("Origin")

    @property
    def subprotocols(self) -> list[str]:
        """The offered subprotocols, preferred first. Raises `HandshakeError` if the field is malformed."""
        return parse_token_list(self.headers.get_all("Sec-WebSocket-Protocol"))

    @property
    def extensions(self) -> list[Extension]:
        """The offered extensions, preferred first. Raises `HandshakeError` if the field is malformed."""
        return parse_extensions(self.headers.get_all("Sec-WebSocket-Extensions"))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.method, self.target, self.headers, self.version)

    def encode(self) -> bytes:
        """Returns the bytes of the head. Raises `LocalProtocolError` if a part is malformed."""
        if not is_token(self.method):
            raise LocalProtocolError("not an HTTP method", slug="bad-method")
        if not is_target(self.target):
            raise LocalProtocolError("not a request target", slug="bad-target")
        _check_version(self.version)
        return encode_head(f"{self.method} {self.target} HTTP/{self.version}", self.headers)


@dataclass(slots=True)
class Response:
    """The head of a response; without a ``reason``, the standard phrase of the status is sent."""

    status: int
    headers: Headers = field(default_factory=Headers)
    reason: str | None = None
    version: str = "1.1"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.status, self.headers, self.reason, self.version)

    def encode(self) -> bytes:
        """Returns the bytes of the head. Raises `LocalProtocolError` if a part is malformed."""
        if not 100 <= self.status <= 599:
            raise LocalProtocolError(f"not an HTTP status: {self.status}", slug="bad-status")
        reason = _standard_reason(self.status) if self.reason is None else self.reason
        if _REASON.fullmatch(reason) is None:
            raise LocalProtocolError("not a reason phrase", slug="bad-reason")
        _check_version(self.version)
        return encode_head(f"HTTP/{self.version} {self.status} {reason}", self.headers)


def is_target(target: str) -> bool:
    """Whether ``target`` is valid in a request line: visible ASCII characters, no ``#``."""
    return _TARGET.fullmatch(target) is not None


def _standard_reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _check_version(version: str) -> None:
    if _HTTP_VERSION.fullmatch(version) is None:
        raise LocalProtocolError("not a version of HTTP", slug="bad-version")


def encode_head(start_line: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Returns the bytes of a head; the caller has checked its syntax."""
    lines = [start_line, *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


_Head = TypeVar("_Head", Request, Response)


class _HeadParser(ABC, Generic[_Head]):
    """Parses one head; the bytes after it stay in ``trailing_data``.

    ``max_line_size`` and ``max_head_size`` are bytes, ``max_fields`` counts lines. Raises as `check_limits`.
    """

    # Status and message of the error for a start line over the limit.
    _start_line_too_long = (431, "the start line is too long")

    def __init__(
        self,
        *,
        max_line_size: int = DEFAULT_MAX_LINE_SIZE,
        max_fields: int = DEFAULT_MAX_FIELDS,
        max_head_size: int = DEFAULT_MAX_HEAD_SIZE,
    ) -> None:
        check_limits(0, max_line_size=max_line_size, max_fields=max_fields, max_head_size=max_head_size)
        self._max_line_size = max_line_size
        self._max_fields = max_fields
        self._max_head_size = max_head_size
        self._buffer = bytearray()
        self._line_start = 0
        self._searched = 0  # there is no line feed between _line_start and here
        self._head: _Head | None = None
        self._done = False

    @property
    def trailing_data(self) -> bytes:
        """The bytes received after the head."""
        return bytes(self._buffer) if self._done else b""

    @property
    def excess(self) -> int:
        """How many bytes it holds beyond what a head may have: after the head, all of them."""
        return len(self._buffer) - (0 if self._done else self._max_head_size)

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Takes bytes from the network."""
        # A copy: a bytearray takes no memoryview with gaps.
        self._buffer += data if type(data) is bytes else bytes(memoryview(data))

    def discard_input(self) -> None:
        """Drops all bytes that it holds."""
        self._buffer.clear()

    def next_head(self) -> _Head | None:
        """Returns the head once; ``None`` before it is complete, and afterwards.

        Raises `HandshakeError` with an HTTP status as soon as a line is malformed or over a limit.
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
        """Returns the head if it is complete, its field lines are valid, and it exceeds no limit."""
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n", 0, min(self._max_line_size, self._max_head_size)) + 2
        start = buffer.find(b"\n", 0, end) + 1
        if not buffer.endswith(b"\r\n", 0, start):
            return None
        lines = buffer[:end].decode("latin-1")
        fields = _FIELD_LINE_IN_HEAD.findall(lines, start)
        # Each match is one whole line. If there are as many matches as lines, all lines are valid.
        if not lines.count("\n", start) == len(fields) <= self._max_fields:
            return None
        head = self._parse_start_line(lines[: start - 2])
        head.headers.add_parsed(fields)
        del buffer[: end + 2]
        self._done = True
        return head

    def _next_line(self) -> str | None:
        """Returns the next complete line without its CRLF.

        Whether a limit is exceeded depends only on the bytes up to that limit: ``end`` is where this line
        must have ended, by the limit of a line or of the head.
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
            raise HandshakeError("a line ends with LF instead of CRLF", slug="bare-line-feed")
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
        """Returns the head with the start line's values and no fields."""


class RequestParser(_HeadParser[Request]):
    """Parses the head of a request."""

    _start_line_too_long = (414, "the request line is too long")

    def _parse_start_line(self, line: str) -> Request:
        match = _REQUEST_LINE.fullmatch(line)
        if match is None:
            raise HandshakeError("a malformed request line", slug="bad-request-line")
        method, target, version = match.groups()
        return Request(method, target, Headers(), version)


class ResponseParser(_HeadParser[Response]):
    """Parses the head of a response."""

    def _parse_start_line(self, line: str) -> Response:
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            raise HandshakeError("a malformed status line", slug="bad-status-line")
        version, status, reason = match.groups("")
        return Response(int(status), reason=reason, version=version)
