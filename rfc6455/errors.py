"""The exceptions.

The class says who is at fault. `RemoteProtocolError` and `HandshakeError`: the peer broke the protocol. A
`Connection` or a handshake does not raise them; it puts them into an event. `LocalProtocolError`: the caller
misused the API. It is raised before anything has changed.

Each error has a ``slug``: a short name that stays the same between releases, for metrics and tests.
``docs/slugs.md`` lists all of them. All can be pickled and copied.
"""

from typing import Any

from rfc6455.constants import CloseCode


class WebSocketError(Exception):
    """The base class of all errors that this package raises or reports."""

    def __init__(self, message: str, *, slug: str) -> None:
        super().__init__(message)
        self.slug = slug

    def __reduce__(self) -> tuple[Any, ...]:
        # By default, a copy is made by ``__init__`` from the message alone: too little for any of them.
        return type(self).__new__, (type(self), *self.args), self.__dict__


class LocalProtocolError(WebSocketError):
    """The caller asked for something that the protocol does not allow, or not in this state."""


class RemoteProtocolError(WebSocketError):
    """The peer broke the protocol on an open connection.

    ``code`` is the close code to send: 1002, 1007, 1008 or 1009.
    """

    def __init__(self, message: str, *, slug: str, code: CloseCode = CloseCode.PROTOCOL_ERROR) -> None:
        super().__init__(message, slug=slug)
        self.code = code


class HandshakeError(WebSocketError):
    """The peer's opening handshake is not acceptable.

    ``status`` is the HTTP status that a server answers with (RFC 6455 §4.2.1), and ``headers`` are the fields
    that go with it. A client sends no answer; there, ``status`` has no meaning.
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
