"""Socket.IO packets, protocol version 5: encodes an application's data into Engine.IO messages, and back.

Implements: https://github.com/socketio/socket.io-protocol, the format of each packet and its limits.
Left to others: the JSON inside (`packet_json`); which packet is allowed when, namespaces and acknowledgements
(`clients`, `sockets`); the messages that carry packets, and time (`engine`).

    packet     = type [attachments "-"] [namespace ","] [id] [JSON]
    type       = one digit, see `PacketType`
    namespace  = "/" ...; "/" if it is missing; its comma may be missing at the end of the packet

A packet that carries bytes is several messages: the text, in whose JSON ``{"_placeholder":true,"num":0}``
stands for the first bytes, and then each bytes object as a binary message.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, TypedDict

from rfc6455_server.socketio.packet_json import (
    JsonDecoder,
    JsonEncoder,
    PacketError,
    decode_json,
    encode_json,
    find_places,
    memory_cost,
)

__all__ = [
    "DEFAULT_OPTIONS",
    "MAX_ID",
    "RESERVED_EVENTS",
    "Decoder",
    "Packet",
    "PacketError",
    "PacketOptions",
    "PacketOptionsDict",
    "PacketType",
    "encode",
]

MESSAGE_COST: Final = 128
"""Bytes counted for each message of a packet that is not complete, besides its payload."""

_HUGE: Final = 10**21  # from here on, JavaScript writes whole numbers with an exponent

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
# No comma, which ends a namespace; no U+001E, which polling cannot carry; no lone surrogate.
_NAMESPACE: Final = re.compile(r"/[^,\x1e\ud800-\udfff]*")


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


class PacketOptionsDict(TypedDict, total=False):
    """The fields of `PacketOptions` as keyword arguments."""

    max_attachments: int
    max_attachments_sent: int
    max_nesting: int
    max_event_name: int
    max_namespace_length: int
    max_packet_size: int
    max_auth_size: int
    json_encoder: JsonEncoder | None
    json_decoder: JsonDecoder | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketOptions:
    """The limits of packets, most of them above what the official server accepts or clients send.

    Raises `ValueError` for a limit below 1.
    """

    max_attachments: int = 100
    """Maximum bytes objects in a received packet. The official server's parser takes 10."""
    max_attachments_sent: int = 10
    """Maximum bytes objects in a packet that is sent. The official JavaScript client takes 10."""
    max_nesting: int = 256
    """Maximum arrays and objects around one value, including the event's own array."""
    max_event_name: int = 1 << 16
    """Maximum code points of an event's name."""
    max_namespace_length: int = 4096
    """Maximum code points of a namespace."""
    max_packet_size: int = 64 << 20
    """Maximum bytes of a received packet that has attachments: of all its messages, and of the objects that
    Python holds for its JSON, which is an estimate from above."""
    max_auth_size: int = 1 << 16
    """Maximum bytes of a CONNECT, with the client's ``auth``, counted in the same way. It is kept while the
    client is connected. A client that sends more is refused."""
    json_encoder: JsonEncoder | None = None
    """A function that returns JSON as text or bytes, such as ``orjson.dumps``. It is given lists and dicts
    without bytes, and decides which other objects, keys and numbers it takes."""
    json_decoder: JsonDecoder | None = None
    """A function that returns the lists and dicts of a JSON text, such as ``orjson.loads``. All limits apply
    to what it returns."""

    def __post_init__(self) -> None:
        counts = (self.max_attachments, self.max_attachments_sent, self.max_nesting, self.max_event_name)
        if min(*counts, self.max_namespace_length, self.max_packet_size, self.max_auth_size) < 1:
            raise ValueError("a limit must be at least 1")


DEFAULT_OPTIONS: Final = PacketOptions()


def encode(packet: Packet, options: PacketOptions = DEFAULT_OPTIONS) -> list[str | bytes]:
    """Returns the messages of a packet: its text, then its attachments in the order of their placeholders.

    The data may hold what JSON can represent, tuples as arrays, and, in an EVENT or ACK, bytes, bytearray
    and memoryview. A lone surrogate is sent as an escape.

    Raises `TypeError` for any other object in the data, and for a key that is not a string. Raises
    `ValueError` for data that does not fit the type, a reserved event name, a bad namespace or id, NaN, an
    infinite number, a circular reference, and too many attachments; and whatever ``json_encoder`` raises.
    """
    type_ = packet.type
    _check(packet)
    encoded = ""
    attachments: Sequence[bytes] = ()
    if packet.data is not None:
        encoded, attachments = encode_json(packet.data, options.max_attachments_sent, options.json_encoder)
        if attachments and type_ not in _WITH_BYTES:
            raise TypeError(f"{type_.name} carries no bytes")
    head = f"{_DIGITS[_WITH_BYTES[type_]]}{len(attachments)}-" if attachments else _DIGITS[type_]
    if packet.namespace != "/":
        head += packet.namespace + ","
    if packet.id is not None:
        head += str(packet.id)
    return [head + encoded, *attachments]


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


class Decoder:
    """Assembles packets from messages, for either role. The transport must limit the size of a message."""

    __slots__ = ("_attachments", "_options", "_packet", "_places", "held")

    def __init__(self, options: PacketOptions = DEFAULT_OPTIONS) -> None:
        self._options = options
        # The packet that waits for attachments, how many have arrived, and the place of each.
        self._packet: Packet | None = None
        self._attachments = 0
        self._places: list[tuple[Any, Any]] = []
        self.held = 0
        """Bytes that an incomplete packet takes in memory: its messages and the objects of its JSON."""

    @property
    def pending(self) -> bool:
        """Whether attachments are missing, so that the next message must be binary."""
        return self._packet is not None

    def receive(self, message: str | bytes) -> Packet | None:
        """Returns the packet that a message completes, or ``None`` while attachments are missing.

        The name of an event is always text: a number, which JavaScript's clients may send, becomes its
        digits, and a lone surrogate U+FFFD. Raises `PacketError` if the message is not part of a packet; the
        decoder cannot be used after that.
        """
        if isinstance(message, str):
            if self._packet is not None:
                raise PacketError("text while attachments are missing", slug="attachment-missing")
            return self._receive_text(message)
        if self._packet is None:
            raise PacketError("a binary message that no packet announced", slug="unexpected-binary")
        self._hold(len(message))
        container, key = self._places[self._attachments]
        container[key] = message
        self._attachments += 1
        if self._attachments < len(self._places):
            return None
        packet, self._packet, self._places, self.held = self._packet, None, [], 0
        return packet

    def _hold(self, size: int) -> None:
        self.held += size + MESSAGE_COST
        if self.held > self._options.max_packet_size:
            raise PacketError("the packet is too large", slug="packet-too-large")

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
        elif len(namespace) > self._options.max_namespace_length or _NAMESPACE.fullmatch(namespace) is None:
            raise PacketError("not a namespace, or too long", slug="bad-namespace")
        id_ = None if digits is None else _id(digits, base_type)
        if attachments:
            self._hold(memory_cost(text))
        data = self._data(text, head.end())
        self._check_data(base_type, data, id_)
        packet = Packet(base_type, namespace, data, id_)
        if not attachments:
            return packet
        self._places = find_places(data, attachments)
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
        limit = self._options.max_attachments
        if len(announced) > len(str(limit)) or int(announced) > limit:
            raise PacketError("too many attachments", slug="too-many-attachments")
        return int(announced)

    def _data(self, text: str, start: int) -> Any:
        if start == len(text):
            return None
        if text[start] not in "[{":
            # No packet carries any other value, and white space is allowed inside only.
            raise PacketError("neither an array nor an object", slug="bad-data")
        return decode_json(text[start:], self._options.max_nesting, self._options.json_decoder)

    def _check_data(self, type_: PacketType, data: Any, id_: int | None) -> None:
        match type_:
            case PacketType.EVENT:
                if not isinstance(data, list) or not data:
                    raise PacketError("an event without a name", slug="bad-data")
                if not isinstance(data[0], str):
                    data[0] = _number_as_name(data[0])
                if len(data[0]) > self._options.max_event_name:
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


def _number_as_name(name: Any) -> str:
    """Returns a number that is the name of an event as text; a whole one as JavaScript writes it."""
    if type(name) not in (int, float) or not -_HUGE < name < _HUGE:  # a bool is an int to Python
        raise PacketError("an event without a name", slug="bad-data")
    return str(int(name)) if name == int(name) else repr(name)
