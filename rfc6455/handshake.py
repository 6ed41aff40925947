"""The opening handshake: ends in a `Connection` or an HTTP error response.

Implements: RFC 6455 §4 for both roles, §1.3 (the accept value), §11.3 (which fields may occur once); with
`deflate`, RFC 7692 §5.
Left to others: paths, origins and users: the caller checks them and calls `ServerHandshake.accept` or
`ServerHandshake.reject`. Redirects, authentication and proxies are also left to the caller (RFC 6455 §4.1,
§4.2.2).

An error of the peer is raised as `HandshakeError` wherever it is found. ``next_event`` catches it and returns
`HandshakeFailed`; a server also queues an HTTP response.
"""

import os
import re
from base64 import b64encode
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha1
from typing import TypedDict, Unpack

from rfc6455.connection import Connection
from rfc6455.constants import (
    DEFAULT_MAX_EARLY_DATA,
    DEFAULT_MAX_FIELDS,
    DEFAULT_MAX_HEAD_SIZE,
    DEFAULT_MAX_LINE_SIZE,
    GUID,
    VERSION,
    Role,
    check_limits,
)
from rfc6455.deflate import DeflateParameters, PerMessageDeflate
from rfc6455.errors import HandshakeError, LocalProtocolError
from rfc6455.headers import (
    Headers,
    ascii_lower,
    is_token,
    parse_extensions,
    parse_token_list,
    split_list,
)
from rfc6455.http11 import Request, RequestParser, Response, ResponseParser, encode_head, is_target

# base64 of 16 bytes: 22 characters and two of padding (RFC 6455 §4.1, step 7; RFC 4648 §4)
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")

# version = DIGIT / NZDIGIT DIGIT / "1" DIGIT DIGIT / "2" DIGIT DIGIT (RFC 6455 §4.3)
_VERSION = re.compile(r"[0-9]|[1-9][0-9]|[12][0-9][0-9]")

# Content-Length = 1*DIGIT, for no content
_ZERO = re.compile(r"0+")

# Host = uri-host [ ":" port ], loosely: a name or an address, without separators
_HOST = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=%]+|\[[0-9A-Za-z:.%\-_~]+\])(?::[0-9]{1,5})?")

# Fields that the handshake writes itself, and those that announce a body, which a 101 cannot have.
_OWN_FIELDS = frozenset(
    {
        "connection",
        "content-length",
        "host",
        "origin",
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
        "transfer-encoding",
        "upgrade",
    }
)

# The beginning of every response that accepts, up to the value of the third field.
_ACCEPTED = (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
)

_VERSION_FIELD = ("Sec-WebSocket-Version", str(VERSION))

_MAX_INTERIM_RESPONSES = 8


class ConnectionOptions(TypedDict, total=False):
    """The arguments that a handshake passes to its `Connection`; they are documented there."""

    max_message_size: int
    max_control_frames: int
    max_empty_fragments: int
    assemble: bool
    mask_key_source: Callable[[], bytes]


class HeadLimits(TypedDict, total=False):
    """The limits of an HTTP head: bytes of a line, number of fields, bytes of the head."""

    max_line_size: int
    max_fields: int
    max_head_size: int


@dataclass(slots=True)
class HandshakeFailed:
    """The peer's part of the handshake is not acceptable; a server's error response is already queued.

    ``request`` is the client's request, or ``None`` if it could not be parsed. A server that also serves HTTP
    on this port can answer it itself and ignore what is queued.
    """

    error: HandshakeError
    request: Request | None = None


@dataclass(slots=True)
class HandshakeAccepted:
    """The server accepted (RFC 6455 §4.1). The connection has the bytes that followed the response."""

    response: Response
    connection: Connection


@dataclass(slots=True)
class HandshakeRejected:
    """The server answered with a status other than 101: HTTP rules apply (RFC 6455 §4.1).

    The handshake's ``trailing_data`` is the beginning of the body.
    """

    response: Response


def accept_value(key: str) -> str:
    """Returns the ``Sec-WebSocket-Accept`` for a ``Sec-WebSocket-Key`` (RFC 6455 §4.2.2, step 5.4)."""
    return b64encode(sha1(key.encode() + GUID, usedforsecurity=False).digest()).decode()


class ServerHandshake:
    """The server's side: yields one `Request` or one `HandshakeFailed`.

    After a `Request`, call `accept` or `reject`. ``deflate`` says which offers of permessage-deflate are
    accepted; ``None`` declines all. ``max_line_size``, ``max_fields`` and ``max_head_size`` limit the head,
    ``max_early_data`` the bytes behind it. The other keyword arguments are passed to the `Connection`.

    A client waits for the answer before it sends more (RFC 6455 §4.1). While you decide, pause reading: early
    bytes are held until the answer, and more than ``max_early_data`` fail the handshake.
    """

    def __init__(
        self,
        *,
        deflate: PerMessageDeflate | None = None,
        max_line_size: int = DEFAULT_MAX_LINE_SIZE,
        max_fields: int = DEFAULT_MAX_FIELDS,
        max_head_size: int = DEFAULT_MAX_HEAD_SIZE,
        max_early_data: int = DEFAULT_MAX_EARLY_DATA,
        **options: Unpack[ConnectionOptions],
    ) -> None:
        self._parser = RequestParser(
            max_line_size=max_line_size, max_fields=max_fields, max_head_size=max_head_size
        )
        check_limits(0, max_early_data=max_early_data)
        self._max_early_data = max_early_data
        self._deflate = deflate
        self._options = options
        self._given: Request | None = None  # a head that the embedder parsed
        self._early_data = bytearray()  # the bytes after that head
        self._request: Request | None = None
        self._failed: HandshakeFailed | None = None  # until it is pulled
        self._eof = False
        self._done = False
        self._should_close = False
        self._output = b""

    @classmethod
    def from_request(
        cls,
        request: Request,
        *,
        trailing_data: bytes = b"",
        deflate: PerMessageDeflate | None = None,
        max_early_data: int = DEFAULT_MAX_EARLY_DATA,
        **options: Unpack[ConnectionOptions],
    ) -> "ServerHandshake":
        """For an embedder that has parsed the head itself; ``trailing_data`` are the bytes it read after it.

        The request is checked nevertheless: `next_event` returns it or `HandshakeFailed`.
        """
        handshake = cls(deflate=deflate, max_early_data=max_early_data, **options)
        handshake._given = request
        handshake.receive_data(trailing_data)
        return handshake

    @property
    def should_close(self) -> bool:
        """Whether to close TCP once `data_to_send` is written: the handshake failed or was rejected."""
        return self._should_close

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Takes bytes from the network; call `next_event` afterwards, even after a `Request`.

        Raises `LocalProtocolError` after `accept`: later bytes belong to the `Connection`.
        """
        if self._done and not self._should_close:
            raise LocalProtocolError("the handshake is over", slug="handshake-over")
        if self._should_close:
            return  # after a rejection, nothing is read
        if self._given is not None:
            self._early_data += bytes(memoryview(data))
        else:
            self._parser.receive_data(data)
        if self._early_size > self._max_early_data:
            self._fail(_early_data(), self._request or self._given)

    def receive_eof(self) -> None:
        """Takes the end of the input; the handshake fails if the request is incomplete."""
        self._eof = True

    def next_event(self) -> Request | HandshakeFailed | None:
        """Returns the `Request` or `HandshakeFailed` once; ``None`` before and afterwards.

        `HandshakeFailed` also follows a `Request` if too much arrives before its answer.
        """
        if self._request is None and not self._done:
            request = self._given
            try:
                request = request or self._parser.next_head()
                if request is None and self._eof:
                    raise HandshakeError("the request is incomplete", slug="incomplete")
                if request is not None:
                    _check_request(request)
                    self._request = request
                    if self._early_size > self._max_early_data:
                        raise _early_data()
                return request
            except HandshakeError as error:
                self._fail(error, request)
        failed, self._failed = self._failed, None
        return failed

    def accept(
        self,
        subprotocol: str | None = None,
        *,
        headers: Iterable[tuple[str, str]] = (),
        max_message_size: int | None = None,
    ) -> Connection:
        """Queues the 101 and returns the `Connection`, which has the bytes that followed the request.

        ``subprotocol`` is one that the client offered, or ``None``. ``headers`` are added to the response.
        ``max_message_size`` overrides the handshake's, if it depends on the request. Raises
        `LocalProtocolError` for a subprotocol that was not offered, a field that the handshake writes itself,
        and without a pending request.
        """
        request = self._pending_request()
        # RFC 6455 §4.2.2, step 4: the subprotocol MUST be one of the client's.
        if subprotocol is not None and subprotocol not in request.subprotocols:
            raise LocalProtocolError("a subprotocol that was not offered", slug="bad-subprotocol")
        accept = accept_value(request.headers["Sec-WebSocket-Key"])
        fields = Headers()
        if subprotocol is not None:
            fields.add("Sec-WebSocket-Protocol", subprotocol)
        agreement = self._deflate.accept(request.extensions) if self._deflate else None
        if agreement is not None:
            fields.add("Sec-WebSocket-Extensions", str(agreement[1]))
        _add_callers_fields(fields, headers)
        options = self._options
        if max_message_size is not None:
            options = ConnectionOptions(**{**options, "max_message_size": max_message_size})
        connection = Connection(
            Role.SERVER,
            subprotocol=subprotocol,
            deflate=agreement[0] if agreement else None,
            trailing_data=bytes(self._early_data) if self._given else self._parser.trailing_data,
            **options,
        )
        # Nothing has changed before: whoever gives a wrong option can still reject.
        self._output = encode_head(_ACCEPTED + accept, fields)
        self._done = True
        return connection

    def reject(
        self,
        status: int,
        *,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> None:
        """Queues an HTTP response instead of the 101, with any final status from 200 to 599.

        ``headers`` are added to ``Connection: close`` and ``Content-Length``. Raises `LocalProtocolError` for
        another status, a body with 204 or 304, a field that the handshake writes itself, and without a
        pending request.
        """
        self._pending_request()
        self._answer(status, headers, body)

    def data_to_send(self) -> bytes:
        """Returns the bytes to write to the socket now; each byte is returned once."""
        data, self._output = self._output, b""
        return data

    @property
    def _early_size(self) -> int:
        return self._parser.excess if self._given is None else len(self._early_data)

    def _fail(self, error: HandshakeError, request: Request | None) -> None:
        _drop_traceback(error)
        # RFC 6455 §4.2.1: the server MUST stop and return an HTTP error.
        self._answer(error.status, error.headers, f"{error}\n".encode())
        self._failed = HandshakeFailed(error, request)

    def _pending_request(self) -> Request:
        if self._request is None or self._done:
            raise LocalProtocolError("no request is waiting for an answer", slug="no-request")
        return self._request

    def _answer(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        if not 200 <= status <= 599:
            raise LocalProtocolError(f"not a final HTTP status: {status}", slug="bad-status")
        headers = list(headers)
        # RFC 9110 §7.8: an Upgrade field needs the connection option.
        upgrade = any(ascii_lower(name) == "upgrade" for name, _ in headers)
        fields = Headers([("Connection", "close, Upgrade" if upgrade else "close")])
        if status not in (204, 304):
            fields.add("Content-Length", str(len(body)))
        elif body:
            raise LocalProtocolError(f"status {status} has no body", slug="bad-body")
        _add_callers_fields(fields, headers, may_say={"upgrade", "sec-websocket-version"})
        if body and "Content-Type" not in fields:
            fields.add("Content-Type", "text/plain; charset=utf-8")
        self._output = Response(status, fields).encode() + body
        self._done = self._should_close = True
        self._parser.discard_input()
        self._early_data.clear()


class ClientHandshake:
    """The client's side: yields `HandshakeAccepted`, `HandshakeRejected` or `HandshakeFailed`, once.

    ``host`` is the value of the Host field, with ``:port`` unless it is the default one (``authority`` of
    `rfc6455.parse_uri`). ``target`` is the resource name. ``subprotocols`` are offered in this order,
    ``origin`` is the value of its field, and ``headers`` are added to the request. ``deflate`` is the offer
    of permessage-deflate. ``key_source`` returns 16 random bytes (RFC 6455 §4.1, step 7). ``limits`` apply to
    the head of the response. The other keyword arguments are passed to the `Connection`.

    Raises `LocalProtocolError` for arguments that are invalid in a request.
    """

    def __init__(
        self,
        host: str,
        target: str = "/",
        *,
        subprotocols: Sequence[str] = (),
        origin: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
        deflate: PerMessageDeflate | None = None,
        key_source: Callable[[], bytes] = lambda: os.urandom(16),
        limits: HeadLimits | None = None,
        **options: Unpack[ConnectionOptions],
    ) -> None:
        if _HOST.fullmatch(host) is None:
            raise LocalProtocolError("not a valid host", slug="bad-host")
        if not (target.startswith("/") and is_target(target)):
            raise LocalProtocolError("not a resource name", slug="bad-target")
        # RFC 6455 §4.1, step 10: different tokens.
        if not all(map(is_token, subprotocols)) or len(set(subprotocols)) < len(subprotocols):
            raise LocalProtocolError("subprotocols must be different tokens", slug="bad-subprotocol")
        self._subprotocols = tuple(subprotocols)
        self._deflate = deflate
        Connection(Role.CLIENT, **options)  # raises for a wrong option now, and not when the answer arrives
        self._options = options
        self._limits = limits or HeadLimits()
        self._parser = ResponseParser(**self._limits)
        self._interim_responses = 0
        self._key = b64encode(key_source()).decode()
        self._eof = False
        self._done = False
        fields = Headers(
            [
                ("Host", host),
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Key", self._key),
                _VERSION_FIELD,
            ]
        )
        if origin is not None:
            fields.add("Origin", origin)
        if subprotocols:
            fields.add("Sec-WebSocket-Protocol", ", ".join(subprotocols))
        if deflate is not None:
            fields.add("Sec-WebSocket-Extensions", str(deflate.offer()))
        _add_callers_fields(fields, headers)
        self._output = Request("GET", target, fields).encode()

    @property
    def trailing_data(self) -> bytes:
        """The bytes after the head of a response other than 101: the beginning of its body."""
        return self._parser.trailing_data

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Takes bytes from the network; call `next_event` afterwards.

        Raises `LocalProtocolError` after the event: later bytes belong to the `Connection`.
        """
        if self._done:
            raise LocalProtocolError("the handshake is over", slug="handshake-over")
        self._parser.receive_data(data)

    def receive_eof(self) -> None:
        """Takes the end of the input; the handshake fails if the response is incomplete."""
        self._eof = True

    def next_event(self) -> HandshakeAccepted | HandshakeRejected | HandshakeFailed | None:
        """Returns the outcome once; ``None`` before and afterwards."""
        if self._done:
            return None
        try:
            response = self._next_response()
            if response is None:
                if not self._eof:
                    return None
                raise HandshakeError("the response is incomplete", slug="incomplete", status=0)
            self._done = True
            if response.status != 101:
                return HandshakeRejected(response)
            subprotocol, deflate = self._check_response(response)
        except HandshakeError as error:
            # RFC 6455 §4.1: the client MUST fail the connection; before it is open, it sends nothing.
            self._done = True
            error.status = 0  # a client sends no answer
            _drop_traceback(error)
            return HandshakeFailed(error)
        connection = Connection(
            Role.CLIENT,
            subprotocol=subprotocol,
            deflate=deflate,
            trailing_data=self._parser.trailing_data,
            **self._options,
        )
        return HandshakeAccepted(response, connection)

    def data_to_send(self) -> bytes:
        """Returns the bytes to write to the socket now; each byte is returned once."""
        data, self._output = self._output, b""
        return data

    def _next_response(self) -> Response | None:
        """Returns the final response; skips interim ones (100, 103) as HTTP requires."""
        while True:
            response = self._parser.next_head()
            if response is None or response.status == 101 or response.status >= 200:
                return response
            self._interim_responses += 1
            if self._interim_responses > _MAX_INTERIM_RESPONSES:
                raise HandshakeError("too many interim responses", slug="interim", status=0)
            rest = self._parser.trailing_data
            self._parser = ResponseParser(**self._limits)
            self._parser.receive_data(rest)

    def _check_response(self, response: Response) -> tuple[str | None, DeflateParameters | None]:
        """Returns what a valid 101 agrees to; raises `HandshakeError` for another (RFC 6455 §4.1)."""
        headers = response.headers
        if response.version != "1.1":
            raise _bad_response("the response is not HTTP/1.1", "bad-version")
        if ascii_lower(headers.get("Upgrade") or "") != "websocket":
            raise _bad_response("Upgrade: websocket is missing", "bad-upgrade")
        if not _names_upgrade(headers.get_all("Connection")):
            raise _bad_response("Connection: Upgrade is missing", "bad-connection")
        if headers.get("Sec-WebSocket-Accept") != accept_value(self._key):
            raise _bad_response("Sec-WebSocket-Accept is wrong", "bad-accept")
        # RFC 6455 §11.3.2: MUST NOT appear more than once in a response; `get` raises for that.
        extensions = parse_extensions([headers.get("Sec-WebSocket-Extensions") or ""])
        if extensions and self._deflate is None:
            raise _bad_response("an extension that was not offered", "bad-extension")
        deflate = self._deflate.agree(extensions) if self._deflate else None
        subprotocol = headers.get("Sec-WebSocket-Protocol")
        if subprotocol is not None and subprotocol not in self._subprotocols:
            raise _bad_response("a subprotocol that was not offered", "bad-subprotocol")
        _check_no_body(headers)
        return subprotocol, deflate


def _early_data() -> HandshakeError:
    # RFC 6455 §4.1: the client MUST wait for the answer.
    return HandshakeError("too much data before the answer", slug="early-data")


def _drop_traceback(error: HandshakeError) -> None:
    """Makes sure that an event does not keep the handshake and its data alive."""
    error.__traceback__ = error.__context__ = None


def _check_request(request: Request) -> None:
    """Raises `HandshakeError` unless this is a client's opening handshake (RFC 6455 §4.2.1)."""
    headers = request.headers
    if request.version != "1.1":
        # RFC 6455 §4.2.1, item 1: HTTP/1.1 or higher; higher versions have no Upgrade.
        status = 505 if request.version[0] > "1" else 400
        raise HandshakeError("HTTP/1.1 is required", slug="bad-version", status=status)
    if request.method != "GET":
        raise HandshakeError(
            "the method must be GET", slug="bad-method", status=405, headers=(("Allow", "GET"),)
        )
    if not is_target(request.target) or not _is_resource_name(request.target):
        raise HandshakeError("the target must be a path or an http URI", slug="bad-target")
    if _HOST.fullmatch(headers.get("Host") or "") is None:
        raise HandshakeError("a valid Host is required", slug="bad-host")
    # Several lines of a list are one list (RFC 9110 §5.3). For another repeated field, `get` raises.
    if not _names_websocket(headers.get_all("Upgrade")):
        raise _upgrade_required("Upgrade: websocket is required", "bad-upgrade")
    if not _names_upgrade(headers.get_all("Connection")):
        raise _upgrade_required("Connection: Upgrade is required", "bad-connection")
    # Before the key, so that a client of an old version, which may have none, is told the version.
    _check_version(headers.get("Sec-WebSocket-Version"))
    key = headers.get("Sec-WebSocket-Key")
    if key is None:
        raise HandshakeError("Sec-WebSocket-Key is required", slug="bad-key")
    if _KEY.fullmatch(key) is None:
        raise HandshakeError("Sec-WebSocket-Key must be base64 of 16 bytes", slug="bad-key")
    headers.get("Origin")
    if "Sec-WebSocket-Protocol" in headers:
        # RFC 6455 §4.1, step 10: one or more, all different.
        subprotocols = request.subprotocols
        if not subprotocols or len(set(subprotocols)) < len(subprotocols):
            raise HandshakeError("subprotocols must be different tokens", slug="bad-subprotocol")
    if "Sec-WebSocket-Extensions" in headers:
        _ = request.extensions  # RFC 6455 §9.1: a malformed value fails the handshake
    _check_no_body(headers)


def _is_resource_name(target: str) -> bool:
    return target.startswith("/") or ascii_lower(target).startswith(("http://", "https://"))


def _check_version(version: str | None) -> None:
    if version == _VERSION_FIELD[1]:
        return
    if version is not None and _VERSION.fullmatch(version) is None:
        raise HandshakeError(
            "a valid Sec-WebSocket-Version is required", slug="bad-version", headers=(_VERSION_FIELD,)
        )
    # RFC 6455 §4.2.2: MUST abort, and name the supported versions. The oldest clients name none.
    raise _upgrade_required("Sec-WebSocket-Version must be 13", "unsupported-version")


def _check_no_body(headers: Headers) -> None:
    """Raises `HandshakeError` for a body: a proxy could take frames for a body, or a body for frames."""
    content_length = headers.get("Content-Length")
    has_content = content_length is not None and _ZERO.fullmatch(content_length) is None
    if has_content or "Transfer-Encoding" in headers:
        raise HandshakeError("a handshake must not have a body", slug="body")


def _names_websocket(values: list[str]) -> bool:
    """Whether the lines of an Upgrade field name the protocol ``websocket``, without a version."""
    if ascii_lower(",".join(values)) == "websocket":
        return True  # the usual case
    found = False
    for element in split_list(values):
        # protocol = protocol-name [ "/" protocol-version ], both tokens (RFC 9110 §7.8)
        parse_token_list(element.split("/", 1))
        found |= ascii_lower(element.strip(" \t")) == "websocket"
    return found


def _names_upgrade(values: list[str]) -> bool:
    """Whether the lines of a Connection field name the option ``upgrade``."""
    if ascii_lower(",".join(values)) == "upgrade":
        return True  # the usual case
    return "upgrade" in map(ascii_lower, parse_token_list(values))


def _upgrade_required(message: str, slug: str) -> HandshakeError:
    return HandshakeError(message, slug=slug, status=426, headers=(("Upgrade", "websocket"), _VERSION_FIELD))


def _bad_response(message: str, slug: str) -> HandshakeError:
    return HandshakeError(message, slug=slug, status=0)


def _add_callers_fields(
    fields: Headers, headers: Iterable[tuple[str, str]], may_say: Collection[str] = ()
) -> None:
    for name, value in headers:
        lower = ascii_lower(name)
        if lower in _OWN_FIELDS and lower not in may_say:
            raise LocalProtocolError(f"the handshake writes {name} itself", slug="own-field")
        fields.add(name, value)
