"""Masking: the XOR of a payload with a repeated key of four bytes, and the source of keys.

Implements: RFC 6455 §5.3; §10.3 gives the reason.
Left to others: which side masks (`frames`, `reader`, `connection`).

Python has only two operations that work on all bytes of a string at once: arithmetic on big integers, and
``translate``. Which one is faster depends on the size; ``benchmarks/masking.py`` has the figures.

- Below `INTEGERS_SIZE`, the payload becomes an integer. A multiplication of the key by 0x…0000000100000001,
  from a table, makes it as long as the payload. Then one XOR, and back to bytes.
- From there on, every fourth byte is translated by the table for its byte of the key, in pieces that fit the
  processor's cache. Slicing and translating a bytearray is twice as fast as for bytes. The pieces are written
  into a BytesIO, whose ``getvalue`` returns its buffer without a copy; mapping memory for a second buffer
  would take a quarter of the time of a large payload.
- For the same sizes with numpy (the extra ``speed``), its XOR is used instead, in place in a BytesIO.
- With numpy, many frames of one read are unmasked by one XOR over all of them (`bulk_xor`), because one call
  of numpy costs as much as masking a kilobyte.

numpy is imported when the first payload of that size arrives, or by `preload_masking`.
"""

import os
import sys
from collections.abc import Callable
from functools import cache
from io import BytesIO
from types import ModuleType
from typing import Final

INTEGERS_SIZE: Final = 1536
"""From this many bytes on, translation or numpy is faster than integers."""

TABLE_SIZE: Final = 130

_PIECE: Final = 1 << 16
"""Bytes translated in one step: a multiple of four, so that each piece begins with the key's first byte."""


class _Masks(dict[int, tuple[int, int]]):
    """For each payload size: the multiplier that repeats a key over it, and the bits to shift away.

    ``key * repeated >> excess`` is the key repeated over the payload. Entries are made on first use; all
    together take 600 KB.
    """

    def __missing__(self, size: int) -> tuple[int, int]:
        whole = (size + 3) // 4 * 4
        repeated = int.from_bytes(b"\0\0\0\1" * (size // 4), "big") if size == whole else self[whole][0]
        self[size] = repeated, (whole - size) * 8
        return self[size]


MASKS: Final = _Masks()

# A tuple is a little faster than a dictionary: 15 of 230 ns at 16 bytes (``benchmarks/masking.py``).
_SMALL_MASKS: Final = tuple(MASKS[size] for size in range(TABLE_SIZE))

_IDENTITY: Final = int.from_bytes(bytes(range(256)), "big")
_XOR_TABLES: Final = tuple(
    (_IDENTITY ^ int.from_bytes(bytes((octet,)) * 256, "big")).to_bytes(256, "big") for octet in range(256)
)
"""``_XOR_TABLES[k][i]`` is ``i ^ k``: what ``translate`` needs for one byte of the key."""

_from_bytes = int.from_bytes  # big-endian by default, as is to_bytes

_KEYS_PER_BLOCK: Final = 1024

_keys: list[bytes] = []


def apply_mask(data: bytes | bytearray | memoryview, key: bytes) -> bytes:
    """Returns ``data`` masked with ``key``; the same call unmasks it (RFC 6455 §5.3).

    ``key`` has 4 bytes, else `ValueError`. The result is as long as ``data``.
    """
    if len(key) != 4:
        raise ValueError(f"a masking key has 4 bytes, not {len(key)}")
    size = len(data)
    if size < TABLE_SIZE:
        repeated, excess = _SMALL_MASKS[size]
    elif size < INTEGERS_SIZE:
        repeated, excess = MASKS[size]
    else:
        return _apply_mask_large(data, key)
    mask = _from_bytes(key) * repeated
    return (_from_bytes(data) ^ (mask >> excess if excess else mask)).to_bytes(size)


def _apply_mask_large(data: bytes | bytearray | memoryview, key: bytes) -> bytes:
    numpy = _numpy()
    return _translate_lanes(data, key) if numpy is None else _xor_arrays(numpy, data, key)


def _translate_lanes(data: bytes | bytearray | memoryview, key: bytes) -> bytes:
    if len(data) <= _PIECE:
        return bytes(_translate_piece(data, key))
    masked = BytesIO(data)
    buffer = masked.getbuffer()
    for start in range(0, len(buffer), _PIECE):
        piece = slice(start, start + _PIECE)
        buffer[piece] = _translate_piece(buffer[piece], key)
    del buffer
    return masked.getvalue()


def _translate_piece(data: bytes | bytearray | memoryview, key: bytes) -> bytearray:
    piece = bytearray(data)
    for lane, octet in enumerate(key):
        piece[lane::4] = piece[lane::4].translate(_XOR_TABLES[octet])
    return piece


def preload_masking() -> None:
    """Imports numpy now, if it is installed.

    Otherwise the first large payload does it, which takes a tenth of a second. A server calls this before it
    listens.
    """
    _numpy()


@cache
def _numpy() -> ModuleType | None:
    """numpy, if it is installed."""
    try:
        import numpy  # noqa: PLC0415 - it takes a tenth of a second and 20 MB, and not everyone needs it
    except ImportError:
        return None
    return numpy


def _xor_arrays(numpy: ModuleType, data: bytes | bytearray | memoryview, key: bytes) -> bytes:
    masked = BytesIO(data)
    buffer = masked.getbuffer()
    size = len(buffer)
    array = numpy.frombuffer(buffer, numpy.uint32, size // 4)
    array ^= _from_bytes(key, sys.byteorder)
    del array
    for index in range(size - size % 4, size):
        buffer[index] ^= key[index % 4]
    del buffer  # like the array, it would keep ``getvalue`` from returning the buffer without a copy
    return masked.getvalue()


def bulk_xor() -> Callable[[bytes | memoryview, bytes], bytes] | None:
    """Returns a function that XORs two strings of the same length; ``None`` without numpy."""
    numpy = _numpy()
    return None if numpy is None else _xor_function(numpy)


@cache
def _xor_function(numpy: ModuleType) -> Callable[[bytes | memoryview, bytes], bytes]:
    frombuffer, octet = numpy.frombuffer, numpy.uint8

    def xor(data: bytes | memoryview, mask: bytes) -> bytes:
        return (frombuffer(data, octet) ^ frombuffer(mask, octet)).tobytes()  # type: ignore[no-any-return]  # numpy is untyped here

    return xor


def new_mask_key() -> bytes:
    """Returns a fresh masking key of 4 bytes, from the operating system's randomness (RFC 6455 §5.3, §10.3).

    Keys are drawn in blocks, because a system call for each would cost more than the masking. Each key is
    returned once, whatever the number of threads: ``list.pop`` is atomic.
    """
    while True:
        try:
            return _keys.pop()
        except IndexError:
            block = os.urandom(4 * _KEYS_PER_BLOCK)
            _keys.extend(block[start : start + 4] for start in range(0, len(block), 4))


# A forked child must not use the keys that its parent will use.
os.register_at_fork(after_in_child=_keys.clear)
