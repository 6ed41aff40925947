"""Socket.IO packets, protocol version 5: encodes an application's data into Engine.IO messages, and back.

Implements: https://github.com/socketio/socket.io-protocol, the format of each packet and its limits.
Left to others: which packet is allowed when, namespaces and acknowledgements (`clients`, `sockets`);
the messages that carry packets, and time (`engine`).

    packet     = type [attachments "-"] [namespace ","] [id] [JSON]
    type       = one digit, see `PacketType`
    namespace  = "/" ...; "/" if it is missing; its comma may be missing at the end of the packet

A packet that carries bytes is several messages: the text, in whose JSON ``{"_placeholder":true,"num":0}``
stands for the first bytes, and then each bytes object as a binary message.

JSON is read strictly, as far as the official clients comply: no NaN, no infinite number, no lone surrogate,
limited nesting. If an object has a key twice, the last one counts.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NoReturn

from rfc6455 import WebSocketError

DEFAULT_MAX_ATTACHMENTS: Final = 10
"""Maximum binary messages of one packet; the official parsers' limit."""
DEFAULT_MAX_NESTING: Final = 64
"""Maximum arrays and objects around one value, including the event's own array."""
DEFAULT_MAX_NAMESPACE: Final = 256
"""Maximum code points of a namespace."""
DEFAULT_MAX_EVENT_NAME: Final = 256
"""Maximum code points of an event's name."""

MAX_ID: Final = 2**53 - 1
"""The largest id; above it, JavaScript's numbers are not exact."""

RESERVED_EVENTS: Final = frozenset(
    ("connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener")
)
"""Names of the libraries' own events. Received from a peer, they could be mistaken for those."""

# What stands before the JSON. If it has another form, the JSON parser meets it and fails.
_HEAD: Final = re.compile(
    r"(?P<type>[0-6])(?:(?P<attachments>[0-9]+)-)?(?:(?P<namespace>/[^,]*)(?:,|\Z))?(?P<id>[0-9]+)?"
)
# No comma, which ends a namespace; no control character; no lone surrogate.
_NAMESPACE: Final = re.compile(r"/[^,\x00-\x1f\x7f-\x9f\ud800-\udfff]*")
# Matches a surrogate, paired or not, that is written as an escape.
_SURROGATE_ESCAPE: Final = re.compile(r"\\u[dD][89a-fA-F]")


class PacketType(IntEnum):
    """The packet types. The last two appear on the wire only: EVENT and ACK that carry bytes."""

    CONNECT = 0
    DISCONNECT = 1
    EVENT = 2
    ACK = 3
    CONNECT_ERROR = 4
    BINARY_EVENT = 5
    BINARY_ACK = 6


_WITH_BYTES: Final = {PacketType.EVENT: PacketType.BINARY_EVENT, PacketType.ACK: PacketType.BINARY_ACK}
_WITHOUT_BYTES: Final = {binary: type_ for type_, binary in _WITH_BYTES.items()}
_TYPES: Final = {str(int(type_)): type_ for type_ in PacketType}
_DIGITS: Final = {type_: digit for digit, type_ in _TYPES.items()}

_BYTES: Final = (bytes, bytearray, memoryview)
_CONTAINERS: Final = (dict, list, tuple)
_JSON_CONTAINERS: Final = (dict, list)


class PacketError(WebSocketError):
    """The peer sent what is not a packet. The connection must be closed."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet, with bytes in place of their placeholders.

    ``data`` by type: CONNECT ``None`` or a dict; DISCONNECT ``None``; EVENT a list that starts with the
    event's name; ACK a list; CONNECT_ERROR a dict with ``message`` and optionally ``data``.
    ``id``: that of an EVENT that asks for an acknowledgement, and of the ACK that answers it.
    """

    type: PacketType
    namespace: str = "/"
    data: Any = None
    id: int | None = None


def encode(packet: Packet) -> list[str | bytes]:
    """Returns the messages of a packet: its text, then its attachments in the order of their placeholders.

    The data may hold what JSON can represent, tuples as arrays, and, in an EVENT or ACK, bytes, bytearray
    and memoryview.

    Raises `TypeError` for any other object in the data, and for a key that is not a string. Raises
    `ValueError` for data that does not fit the type, a reserved event name, a bad namespace or id, NaN, an
    infinite number, a lone surrogate, a circular reference, and more than 10 attachments.
    """
    type_, data = packet.type, packet.data
    _check(packet)
    attachments: list[bytes] = []
    encoded = ""
    if data is not None:
        try:
            text = _encode_without_bytes(data)
            if text is None and type_ not in _WITH_BYTES:
                raise TypeError(f"{type_.name} carries no bytes")
            encoded = _encode_binary(data, attachments) if text is None else text
            _check_keys(data)
        except RecursionError:
            raise ValueError("the data is nested too deeply") from None
    head = f"{_DIGITS[_WITH_BYTES[type_]]}{len(attachments)}-" if attachments else _DIGITS[type_]
    if packet.namespace != "/":
        head += packet.namespace + ","
    if packet.id is not None:
        head += str(packet.id)
    text = head + encoded
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("the data has a lone surrogate") from None
    return [text, *attachments]


def _check(packet: Packet) -> None:
    """Raises `ValueError` if the parts of a packet do not fit its type."""
    type_, data, id_ = packet.type, packet.data, packet.id
    match type_:
        case PacketType.EVENT:
            if not isinstance(data, list) or not data or not isinstance(data[0], str):
                raise ValueError("the data of an EVENT must be a list that starts with the event's name")
            if data[0] in RESERVED_EVENTS:
                raise ValueError(f"reserved event name: {data[0]}")
        case PacketType.ACK:
            if not isinstance(data, list) or id_ is None:
                raise ValueError("an ACK must have an id, and a list as its data")
        case PacketType.CONNECT:
            if not isinstance(data, dict | None):
                raise ValueError("the data of a CONNECT must be a dict or None")
        case PacketType.CONNECT_ERROR:
            if not isinstance(data, dict):
                raise ValueError("the data of a CONNECT_ERROR must be a dict")
        case PacketType.DISCONNECT:
            if data is not None:
                raise ValueError("a DISCONNECT carries no data")
        case _:
            raise ValueError("use EVENT or ACK: whether a packet is binary follows from its data")
    if packet.namespace != "/" and _NAMESPACE.fullmatch(packet.namespace) is None:
        raise ValueError(f"not a namespace: {packet.namespace!r}")
    if id_ is not None:
        if type_ not in _WITH_BYTES:
            raise ValueError(f"{type_.name} has no id")
        if type(id_) is not int or not 0 <= id_ <= MAX_ID:  # a bool is an int to Python
            raise ValueError(f"not an id: {id_}")


class _BytesMetError(Exception):
    """The data holds bytes."""


def _stop_at_bytes(value: object) -> NoReturn:
    if isinstance(value, _BYTES):
        raise _BytesMetError
    raise TypeError(f"JSON cannot represent {type(value).__name__}")


def _encoder(default: Any) -> json.JSONEncoder:
    return json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=default)


# Most packets carry no bytes, so this encoder is tried first.
_WITHOUT_BYTES_ENCODER: Final = _encoder(_stop_at_bytes)


def _encode_without_bytes(data: Any) -> str | None:
    """Returns the JSON of ``data``, or ``None`` if it holds bytes."""
    try:
        return _WITHOUT_BYTES_ENCODER.encode(data)
    except _BytesMetError:
        return None


def _encode_binary(data: list[Any], attachments: list[bytes]) -> str:
    """Returns the JSON of ``data``, with placeholders for its bytes, which it appends to ``attachments``."""

    def replace(value: object) -> dict[str, object]:
        if not isinstance(value, _BYTES):
            _stop_at_bytes(value)
        if len(attachments) == DEFAULT_MAX_ATTACHMENTS:
            raise ValueError(f"more than {DEFAULT_MAX_ATTACHMENTS} attachments")
        attachments.append(bytes(value))
        return {"_placeholder": True, "num": len(attachments) - 1}

    encoded = _encoder(replace).encode(data)
    # The peer could not tell the application's own placeholders from ours. Inside a JSON string, each quote
    # follows a backslash, so that these matches can only be keys.
    placeholders = encoded.count('{"_placeholder":true') + encoded.count(',"_placeholder":true')
    if placeholders != len(attachments):
        raise ValueError("the data has an object that looks like a placeholder")
    return encoded


def _check_keys(value: Any) -> None:
    """Raises `TypeError` for a key that is not a string; json would convert it, and merge 1 and "1"."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"a key must be a string, not {type(key).__name__}")
        value = value.values()
    for item in value:
        if isinstance(item, _CONTAINERS):
            _check_keys(item)


class Decoder:
    """Assembles packets from messages, for either role.

    ``max_attachments``: maximum binary messages of one packet; the transport must limit their size.
    ``max_nesting``: maximum arrays and objects around one value, including the outermost.
    ``max_namespace`` and ``max_event_name``: maximum code points.

    Raises `ValueError` for a limit below 1.
    """

    __slots__ = (
        "_attachments",
        "_max_attachments",
        "_max_event_name",
        "_max_namespace",
        "_max_nesting",
        "_packet",
        "_places",
    )

    def __init__(
        self,
        *,
        max_attachments: int = DEFAULT_MAX_ATTACHMENTS,
        max_nesting: int = DEFAULT_MAX_NESTING,
        max_namespace: int = DEFAULT_MAX_NAMESPACE,
        max_event_name: int = DEFAULT_MAX_EVENT_NAME,
    ) -> None:
        if min(max_attachments, max_nesting, max_namespace, max_event_name) < 1:
            raise ValueError("a limit must be at least 1")
        self._max_attachments = max_attachments
        self._max_nesting = max_nesting
        self._max_namespace = max_namespace
        self._max_event_name = max_event_name
        # The packet that waits for attachments, how many have arrived, and the place of each.
        self._packet: Packet | None = None
        self._attachments = 0
        self._places: list[tuple[Any, Any]] = []

    @property
    def pending(self) -> bool:
        """Whether attachments are missing, so that the next message must be binary."""
        return self._packet is not None

    def receive(self, message: str | bytes) -> Packet | None:
        """Returns the packet that a message completes, or ``None`` while attachments are missing.

        Raises `PacketError` if the message is not part of a packet; the decoder cannot be used after that.
        """
        if isinstance(message, str):
            if self._packet is not None:
                raise PacketError("text while attachments are missing", slug="attachment-missing")
            return self._receive_text(message)
        if self._packet is None:
            raise PacketError("a binary message that no packet announced", slug="unexpected-binary")
        container, key = self._places[self._attachments]
        container[key] = message
        self._attachments += 1
        if self._attachments < len(self._places):
            return None
        packet, self._packet, self._places = self._packet, None, []
        return packet

    def _receive_text(self, text: str) -> Packet | None:
        head = _HEAD.match(text)
        if head is None:
            raise PacketError("unknown packet type", slug="bad-packet-type")
        number, announced, namespace, digits = head.groups()
        type_ = _TYPES[number]
        base_type = _WITHOUT_BYTES.get(type_, type_)
        attachments = self._attachment_count(announced, binary=base_type is not type_)
        if namespace is None:
            namespace = "/"
        elif len(namespace) > self._max_namespace or _NAMESPACE.fullmatch(namespace) is None:
            raise PacketError("not a namespace, or too long", slug="bad-namespace")
        id_ = None if digits is None else _id(digits, base_type)
        data = self._data(text, head.end())
        self._check_data(base_type, data, id_)
        packet = Packet(base_type, namespace, data, id_)
        if not attachments:
            return packet
        self._places = _find_places(data, attachments)
        self._attachments = 0
        self._packet = packet
        return None

    def _attachment_count(self, announced: str | None, *, binary: bool) -> int:
        if not binary and announced is None:
            return 0
        # The official parser fails for no attachments too. The length is checked first, because `int` of a
        # long number is slow.
        if not binary or announced is None or announced[0] == "0":
            raise PacketError("a bad number of attachments", slug="bad-attachments")
        if len(announced) > len(str(self._max_attachments)) or int(announced) > self._max_attachments:
            raise PacketError("too many attachments", slug="too-many-attachments")
        return int(announced)

    def _data(self, text: str, start: int) -> Any:
        if start == len(text):
            return None
        if text[start] not in "[{":
            # No packet carries any other value, and white space is allowed inside only.
            raise PacketError("neither an array nor an object", slug="bad-data")
        encoded = text[start:]
        try:
            data = _JSON.decode(encoded)
            if encoded.count("[") + encoded.count("{") > self._max_nesting:
                _check_nesting(data, self._max_nesting)
            # A lone surrogate, literal or as an escape, could not be encoded when it is sent on.
            if not encoded.isascii():
                encoded.encode()
            if _SURROGATE_ESCAPE.search(encoded) is not None:
                json.dumps(data, ensure_ascii=False).encode()
        except RecursionError:
            raise _too_deep() from None
        except UnicodeEncodeError:
            raise PacketError("a lone surrogate", slug="lone-surrogate") from None
        except ValueError:
            # Bad JSON, NaN, an infinite number, or an integer with more digits than Python converts.
            raise PacketError("bad JSON", slug="bad-json") from None
        return data

    def _check_data(self, type_: PacketType, data: Any, id_: int | None) -> None:
        match type_:
            case PacketType.EVENT:
                if not isinstance(data, list) or not data or not isinstance(data[0], str):
                    raise PacketError("an event without a name", slug="bad-data")
                if len(data[0]) > self._max_event_name:
                    raise PacketError("the name of an event is too long", slug="event-name-too-long")
                if data[0] in RESERVED_EVENTS:
                    raise PacketError("a reserved event name", slug="reserved-event")
            case PacketType.ACK:
                if not isinstance(data, list):
                    raise PacketError("an acknowledgement whose data is not an array", slug="bad-data")
                if id_ is None:
                    raise PacketError("an acknowledgement without an id", slug="bad-id")
            case PacketType.CONNECT:
                if not isinstance(data, dict | None):
                    raise PacketError("a CONNECT whose data is not an object", slug="bad-data")
            case PacketType.CONNECT_ERROR:
                if not isinstance(data, dict):
                    raise PacketError("a CONNECT_ERROR whose data is not an object", slug="bad-data")
            case _:
                if data is not None:
                    raise PacketError("a DISCONNECT with data", slug="bad-data")


def _id(digits: str, type_: PacketType) -> int:
    if type_ not in _WITH_BYTES:
        raise PacketError(f"{type_.name} with an id", slug="bad-id")
    if len(digits) > len(str(MAX_ID)) or int(digits) > MAX_ID or (digits[0] == "0" and digits != "0"):
        raise PacketError("an id that is too large, or starts with 0", slug="bad-id")
    return int(digits)


def _too_deep() -> PacketError:
    return PacketError("the data is nested too deeply", slug="too-deep")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("the number is too large")
    return value


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_JSON: Final = json.JSONDecoder(parse_float=_finite, parse_constant=_reject_constant)


def _check_nesting(data: Any, limit: int) -> None:
    level = [data]
    for _ in range(limit):
        items = (item for container in level for _, item in _items(container))
        level = [item for item in items if isinstance(item, _JSON_CONTAINERS)]
        if not level:
            return
    raise _too_deep()


def _find_places(data: Any, count: int) -> list[tuple[Any, Any]]:
    """Returns the place of each attachment, in order: (container, key or index).

    Raises `PacketError` unless each of the ``count`` attachments has exactly one well-formed placeholder.
    """
    places: dict[int, tuple[Any, Any]] = {}
    containers = [data]
    while containers:
        container = containers.pop()
        for key, item in _items(container):
            if isinstance(item, dict) and item.get("_placeholder") is True:
                number = item.get("num")
                # A bool is an int to Python.
                if len(item) != 2 or type(number) is not int or not 0 <= number < count or number in places:
                    raise PacketError("a bad placeholder", slug="bad-placeholder")
                places[number] = (container, key)
            elif isinstance(item, _JSON_CONTAINERS):
                containers.append(item)
    if len(places) != count:
        raise PacketError("fewer placeholders than attachments", slug="bad-attachments")
    return [places[number] for number in range(count)]


def _items(container: Any) -> Iterator[tuple[Any, Any]]:
    return iter(container.items()) if isinstance(container, dict) else enumerate(container)
