"""HTTP fields: an ordered multidict, and the grammar of lists and parameters in their values.

Implements: the grammar that RFC 6455 §4.3 and §9.1 borrow from HTTP (token, quoted-string, 1#element
lists, extension parameters), with the ASCII case-insensitivity of RFC 6455 §4.1.
Left to others: which fields are required and what their values mean (`handshake`), lines and bytes
(`http11`).
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from rfc6455.errors import HandshakeError, LocalProtocolError

# tchar = "!" / "#" / "$" / "%" / "&" / "'" / "*" / "+" / "-" / "." / "^" / "_" / "`" / "|" / "~"
#       / DIGIT / ALPHA
_TCHAR = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_TOKEN = re.compile(_TCHAR + r"+", re.ASCII)

# field-value = *( SP / HTAB / VCHAR / obs-text ), as characters of ISO-8859-1
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

# OWS = *( SP / HTAB )
_OWS = " \t"

# parameter = token [ OWS "=" OWS ( token / quoted-string ) ]
# quoted-string = DQUOTE *( qdtext / quoted-pair ) DQUOTE
_PARAMETER = re.compile(
    rf"(?P<name>{_TCHAR}+)"
    rf'(?:[ \t]*=[ \t]*(?:(?P<token>{_TCHAR}+)|"(?P<quoted>(?:[^"\\]|\\.)*)"))?',
    re.ASCII,
)

# The names that most heads consist of, as they are usually spelled, with the form that is compared. All heads
# share these objects. Not ``sys.intern``: since CPython 3.12 it keeps each name that a peer invents for ever.
_KNOWN_NAMES: Final = {
    spelled: (spelled, name.lower())
    for name in (
        "Accept",
        "Accept-Encoding",
        "Accept-Language",
        "Authorization",
        "Cache-Control",
        "Connection",
        "Content-Length",
        "Content-Type",
        "Cookie",
        "Date",
        "Forwarded",
        "Host",
        "Origin",
        "Pragma",
        "Referer",
        "Sec-CH-UA",
        "Sec-CH-UA-Mobile",
        "Sec-CH-UA-Platform",
        "Sec-Fetch-Dest",
        "Sec-Fetch-Mode",
        "Sec-Fetch-Site",
        "Sec-GPC",
        "Sec-WebSocket-Accept",
        "Sec-WebSocket-Extensions",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Version",
        "Server",
        "Transfer-Encoding",
        "Upgrade",
        "User-Agent",
        "Via",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Real-IP",
        "X-Request-ID",
    )
    for spelled in (name, name.lower())
}

_MAX_SEPARATORS: Final = 1024
"""Commas of a list, and semicolons in Sec-WebSocket-Extensions. Clients send a handful; a head has room for
60,000, which would take a third of a second to parse."""

_UPPER_TO_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def ascii_lower(text: str) -> str:
    """Returns ``text`` with A to Z in lower case and nothing else changed.

    RFC 6455 §4.1 asks for an ASCII case-insensitive match. ``str.lower`` would turn U+212A (the Kelvin sign)
    into ``k``, so that a text that is not ASCII would match a keyword.
    """
    return text.lower() if text.isascii() else text.translate(_UPPER_TO_LOWER)


def is_token(text: str) -> bool:
    """Whether ``text`` is an HTTP token: one or more visible ASCII characters without separators."""
    return _TOKEN.fullmatch(text) is not None


class Headers:
    """HTTP fields in their order; names compare without regard to ASCII case.

    A field may occur several times. `get` and ``headers[name]`` are for fields that may occur once, and raise
    `HandshakeError` for more; `get_all` is for fields that carry lists.
    """

    __slots__ = ("_index", "_pairs")

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        """Takes (name, value) pairs.

        Raises `LocalProtocolError` for a name that is not a token, or a value with a control character: a
        field that is written can never end its line early.
        """
        self._pairs: list[tuple[str, str]] = []
        # By the name in lower case: the index of the field in _pairs, or -1 if there are several.
        self._index: dict[str, int] = {}
        for name, value in pairs:
            self.add(name, value)

    def add(self, name: str, value: str) -> None:
        """Adds a field at the end; raises `LocalProtocolError` as the constructor does."""
        if not is_token(name):
            raise LocalProtocolError(f"not a field name: {name!r}", slug="bad-field-name")
        if _FIELD_VALUE.fullmatch(value) is None:
            raise LocalProtocolError(f"not a valid value of {name}", slug="bad-field-value")
        self.add_parsed([(name, value)])

    def add_parsed(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Adds fields whose syntax the caller has checked."""
        index = self._index
        for name, value in pairs:
            spelled, lower = _KNOWN_NAMES.get(name) or (name, name.lower())
            index[lower] = -1 if lower in index else len(self._pairs)
            self._pairs.append((spelled, value.strip(_OWS)))

    def get_all(self, name: str) -> list[str]:
        """Returns the values of all fields of that name, in order."""
        wanted = ascii_lower(name)
        place = self._index.get(wanted)
        if place is None:
            return []
        if place >= 0:
            return [self._pairs[place][1]]
        return [value for name, value in self._pairs if name.lower() == wanted]

    def get(self, name: str, default: str | None = None) -> str | None:
        """Returns the value of the field of that name, or ``default`` if there is none.

        Raises `HandshakeError` (status 400) if the field occurs more than once.
        """
        place = self._index.get(ascii_lower(name))
        if place is None:
            return default
        if place < 0:
            raise HandshakeError(f"more than one {name} field", slug="doubled-field")
        return self._pairs[place][1]

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and ascii_lower(name) in self._index

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    __hash__ = None  # type: ignore[assignment]  # fields can be added

    def __reduce__(self) -> tuple[Any, ...]:
        # By default, an object with slots is not pickled by the protocols 0 and 1.
        return type(self), (self._pairs,)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return [(name.lower(), value) for name, value in self] == [
            (name.lower(), value) for name, value in other
        ]

    def __repr__(self) -> str:
        return f"Headers({self._pairs!r})"


class Extension(NamedTuple):
    """One element of ``Sec-WebSocket-Extensions``: a name, and parameters in their order.

    A parameter without ``=`` has the value ``None``. A parameter may occur twice; the extension decides
    whether that is valid.
    """

    name: str
    parameters: tuple[tuple[str, str | None], ...] = ()

    def __str__(self) -> str:
        parameters = (
            f"; {name}" if value is None else f"; {name}={value}" for name, value in self.parameters
        )
        return self.name + "".join(parameters)


def split_list(values: Iterable[str]) -> list[str]:
    """Returns the elements of a list; ``values`` are those of all its lines.

    Raises `HandshakeError` for more than some 1,000.
    """
    value = ",".join(values)
    if value.count(",") > _MAX_SEPARATORS:
        raise HandshakeError("too many elements of a list", slug="too-many-elements", status=431)
    return value.split(",")


def parse_token_list(values: Iterable[str]) -> list[str]:
    """Returns the tokens of a ``1#token`` field; ``values`` are those of all its lines.

    Skips empty elements, as HTTP requires of a recipient. Raises `HandshakeError` for any other element that
    is not a token, and for more than some 1,000 elements.
    """
    tokens = []
    for element in split_list(values):
        token = element.strip(_OWS)
        if not token:
            continue
        if not is_token(token):
            raise HandshakeError("not a list of tokens", slug="bad-token-list")
        tokens.append(token)
    return tokens


def parse_extensions(values: Iterable[str]) -> list[Extension]:
    """Returns the elements of ``Sec-WebSocket-Extensions`` (RFC 6455 §9.1), in linear time.

    Raises `HandshakeError` for a value that does not match the grammar, and for more than some 1,000 elements
    and parameters.
    """
    values = list(values)
    if sum([value.count(",") + value.count(";") for value in values]) > _MAX_SEPARATORS:
        raise HandshakeError("too many extensions", slug="too-many-extensions", status=431)
    extensions = []
    for value in values:
        scanner = _Scanner(value)
        while True:
            while scanner.skip(","):
                pass
            if scanner.at_end():
                break
            extensions.append(_parse_extension(scanner))
            if not scanner.at_end() and not scanner.skip(","):
                raise _bad_extensions()
    return extensions


def _parse_extension(scanner: "_Scanner") -> Extension:
    name, value = scanner.parameter()
    if value is not None:
        raise _bad_extensions()
    parameters = []
    while scanner.skip(";"):
        parameters.append(scanner.parameter())
    return Extension(name, tuple(parameters))


class _Scanner:
    """A position in a field value; each step first skips white space."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def _skip_white_space(self) -> None:
        while self.text[self.position : self.position + 1] in (" ", "\t"):
            self.position += 1

    def at_end(self) -> bool:
        self._skip_white_space()
        return self.position == len(self.text)

    def skip(self, character: str) -> bool:
        self._skip_white_space()
        found = self.text.startswith(character, self.position)
        self.position += found
        return found

    def parameter(self) -> tuple[str, str | None]:
        self._skip_white_space()
        match = _PARAMETER.match(self.text, self.position)
        if match is None:
            raise _bad_extensions()
        self.position = match.end()
        value = match["token"]
        if match["quoted"] is not None:
            value = re.sub(r"\\(.)", r"\1", match["quoted"])
            # RFC 6455 §9.1: a quoted value must be a token after unescaping.
            if not is_token(value):
                raise _bad_extensions()
        return match["name"], value


def _bad_extensions() -> HandshakeError:
    return HandshakeError("malformed Sec-WebSocket-Extensions", slug="bad-extensions")
