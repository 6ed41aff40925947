"""The JSON of Socket.IO packets, written and read: strict, bounded, and with placeholders for bytes.

Left to others: what stands around the JSON, and which data each type carries (`packets`).

It is read strictly, as far as the official clients comply: no NaN, no infinite number, limited nesting. If an
object has a key twice, the last one counts.

A lone surrogate is what JavaScript leaves of a character that it cuts in two: ``"😀".slice(0, -1)``. Its
clients send it as an escape. Python could neither write it to a file nor send it on, so it is read as U+FFFD,
as a browser does when it encodes text. In what the application sends, a lone surrogate is written as an
escape, as the official server does: nothing is lost, and nothing fails.
"""

import gc
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NoReturn

from rfc6455 import WebSocketError

JsonEncoder = Callable[[Any], str | bytes]
"""Returns the JSON of an array or object, such as ``orjson.dumps``."""
JsonDecoder = Callable[[str], Any]
"""Returns the value of a JSON text, such as ``orjson.loads``; raises for anything else."""

_BYTES: Final = (bytes, bytearray, memoryview)
_CONTAINERS: Final = (dict, list, tuple)
_JSON_CONTAINERS: Final = (dict, list)

# Matches a surrogate, paired or not, that is written as an escape.
_SURROGATE_ESCAPE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")

_LARGE: Final = 1 << 14
"""Code points of a JSON text from which on it is read without the garbage collector, which would visit all
that is read again and again: 0.2 of 0.25 s for 330,000 empty arrays, and there is nothing to collect."""

_MAX_COPY_DEPTH: Final = 256  # levels of data for a JSON encoder of the application


class PacketError(WebSocketError):
    """The peer sent what is not a packet. The connection must be closed."""


# Writing.


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


class _Attachments(list[bytes]):
    """The bytes that are taken out of the data of one packet."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def take(self, value: Any) -> dict[str, object]:
        """Adds bytes, and returns their placeholder. Raises `ValueError` for too many."""
        if len(self) == self._limit:
            raise ValueError(f"more than {self._limit} attachments")
        self.append(bytes(value))
        return {"_placeholder": True, "num": len(self) - 1}


def encode_json(data: Any, max_attachments: int, encoder: JsonEncoder | None) -> tuple[str, Sequence[bytes]]:
    """Returns the JSON of ``data``, with placeholders for its bytes, and the bytes.

    ``encoder`` replaces the strict one of this module. Raises as `packets.encode` does, and whatever the
    encoder raises.
    """
    attachments: Sequence[bytes] = ()
    try:
        if encoder is None:
            try:
                text = _WITHOUT_BYTES_ENCODER.encode(data)
            except _BytesMetError:
                text, attachments = _encode_with_bytes(data, max_attachments)
            if "{" in text:
                _check_keys(data)
        else:
            text, attachments = _encode_by(encoder, data, max_attachments)
    except RecursionError:
        raise ValueError("the data is nested too deeply") from None
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            text = _LONE_SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    return text, attachments


def _encode_with_bytes(data: Any, max_attachments: int) -> tuple[str, Sequence[bytes]]:
    attachments = _Attachments(max_attachments)

    def replace(value: object) -> dict[str, object]:
        if not isinstance(value, _BYTES):
            _stop_at_bytes(value)
        return attachments.take(value)

    encoded = _encoder(replace).encode(data)
    # The peer could not tell the application's own placeholders from ours. Inside a JSON string, each quote
    # follows a backslash, so that these matches can only be keys.
    placeholders = encoded.count('{"_placeholder":true') + encoded.count(',"_placeholder":true')
    if placeholders != len(attachments):
        raise _placeholder_in_data()
    return encoded, attachments


def _placeholder_in_data() -> ValueError:
    return ValueError("the data has an object that looks like a placeholder")


def _check_keys(data: Any) -> None:
    """Raises `TypeError` for a key that is not a string; json would convert it, and merge 1 and "1"."""
    containers = [data]
    for container in containers:
        if isinstance(container, dict):
            for key, item in container.items():
                if not isinstance(key, str):
                    raise TypeError(f"a key must be a string, not {type(key).__name__}")
                if isinstance(item, _CONTAINERS):
                    containers.append(item)
        else:
            for item in container:
                if isinstance(item, _CONTAINERS):
                    containers.append(item)  # noqa: PERF401 - a comprehension takes longer


def _encode_by(encoder: JsonEncoder, data: Any, max_attachments: int) -> tuple[str, Sequence[bytes]]:
    """Returns what the application's encoder makes of ``data``; the encoder sees no bytes."""
    attachments = _Attachments(max_attachments)
    copy = _copy_without_bytes(data, attachments, _MAX_COPY_DEPTH)
    if attachments and _has_placeholder(data):
        raise _placeholder_in_data()
    encoded = encoder(copy if attachments else data)
    text = encoded.decode() if isinstance(encoded, bytes) else encoded
    opening = "{" if isinstance(data, dict) else "["
    if not isinstance(text, str) or text[:1] != opening or "\x1e" in text:
        raise ValueError("the JSON encoder did not return the JSON of its argument")
    return text, attachments


def _copy_without_bytes(value: Any, attachments: _Attachments, depth: int) -> Any:
    if isinstance(value, _BYTES):
        return attachments.take(value)
    if not isinstance(value, _CONTAINERS):
        return value
    if depth == 0:
        raise ValueError("the data is nested too deeply, or contains itself")
    if isinstance(value, dict):
        return {key: _copy_without_bytes(item, attachments, depth - 1) for key, item in value.items()}
    return [_copy_without_bytes(item, attachments, depth - 1) for item in value]


def _has_placeholder(data: Any) -> bool:
    containers = [data]
    while containers:
        container = containers.pop()
        if isinstance(container, dict) and container.get("_placeholder") is True:
            return True
        containers += [item for _, item in _items(container) if isinstance(item, _CONTAINERS)]
    return False


# Reading.


def decode_json(text: str, max_nesting: int, decoder: JsonDecoder | None) -> Any:
    """Returns the value of an array or object in JSON. Raises `PacketError`.

    ``max_nesting``: maximum arrays and objects around one value. ``decoder`` replaces the strict one of this
    module, and decides what else it accepts.
    """
    if len(text) < _LARGE or not gc.isenabled():
        return _decode_json(text, max_nesting, decoder)
    gc.disable()
    try:
        return _decode_json(text, max_nesting, decoder)
    finally:
        gc.enable()


def _decode_json(text: str, max_nesting: int, decoder: JsonDecoder | None) -> Any:
    decode: JsonDecoder = decoder or _JSON.decode
    try:
        if not text.isascii():
            text = _replace_literal_surrogates(text)
        escapes = _SURROGATE_ESCAPE.search(text) is not None
        if escapes and decoder is not None:
            # Not every decoder accepts lone surrogates.
            text = _replace_escaped_surrogates(text, _JSON.decode(text)) or text
        data = decode(text)
        if text.count("[") + text.count("{") > max_nesting:
            _check_nesting(data, max_nesting)
        if escapes and decoder is None:
            replaced = _replace_escaped_surrogates(text, data)
            data = data if replaced is None else decode(replaced)
    except PacketError:
        raise
    except RecursionError:
        raise _too_deep() from None
    except Exception:  # noqa: BLE001 - whatever the application's decoder raises
        # Bad JSON, NaN, an infinite number, or an integer with more digits than Python converts.
        raise PacketError("bad JSON", slug="bad-json") from None
    return data


def _replace_literal_surrogates(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return _LONE_SURROGATE.sub("\ufffd", text)
    return text


def _replace_escaped_surrogates(text: str, data: Any) -> str | None:
    """Returns the JSON of ``data`` with U+FFFD for lone surrogates; ``None`` if it has none."""
    written = json.dumps(data, ensure_ascii=False)
    replaced = _replace_literal_surrogates(written)
    return None if replaced is written else replaced


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
    # Lists, and no generators: 0.03 instead of 0.14 s for 330,000 empty arrays, which stop the event loop.
    level = [data]
    for _ in range(limit):
        contents = [one.values() if isinstance(one, dict) else one for one in level if one]
        level = [item for items in contents for item in items if isinstance(item, _JSON_CONTAINERS)]
        if not level:
            return
    raise _too_deep()


def find_places(data: Any, count: int) -> list[tuple[Any, Any]]:
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


def memory_cost(text: str) -> int:
    """Returns the bytes that a text and the objects of its JSON take in memory, estimated from above."""
    strings = len(text) if text.isascii() else 4 * len(text)
    objects = 80 * text.count("[") + 96 * text.count("{") + 40 * text.count(",") + 80 * text.count(":")
    return strings + objects + 25 * text.count('"')  # two for each string


def _items(container: Any) -> Iterator[tuple[Any, Any]]:
    return iter(container.items()) if isinstance(container, dict) else enumerate(container)
