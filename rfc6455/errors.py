"""The exceptions.

Two kinds, told apart by who is to blame: `RemoteProtocolError` when the peer broke the protocol,
`LocalProtocolError` when the caller misused the API. The first never leaves `Connection` or a
handshake as an exception, it travels inside an event; the second is raised before anything changed.

Each error has a ``slug``: a short name that stays the same between releases, for metrics and tests.
"""

from rfc6455.constants import CloseCode


class WebSocketError(Exception):
    """The base of every error that this package raises or reports."""

    def __init__(self, message: str, *, slug: str) -> None:
        super().__init__(message)
        self.slug = slug


class LocalProtocolError(WebSocketError):
    """The caller asked for something that the protocol does not allow (here, or now)."""


class RemoteProtocolError(WebSocketError):
    """The peer broke the protocol on an open connection.

    ``code`` is the close code that says so: 1002, 1007, 1008 or 1009.
    """

    def __init__(self, message: str, *, slug: str, code: CloseCode = CloseCode.PROTOCOL_ERROR) -> None:
        super().__init__(message, slug=slug)
        self.code = code


class HandshakeError(WebSocketError):
    """The peer's opening handshake is not acceptable.

    ``status`` is the HTTP status that a server answers with (RFC 6455 §4.2.1), ``headers`` are the
    fields that belong to it. A client sends no answer; for it, ``status`` is 0.
    """

    def __init__(
        self,
        message: str,
        *,
        slug: str,
        status: int = 400,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message, slug=slug)
        self.status = status
        self.headers = headers
