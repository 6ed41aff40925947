"""Masking: the XOR of a payload with a repeated key of four bytes, and where keys come from.

Implements: RFC 6455 §5.3; the reason why it exists is in §10.3.
Left to others: who masks (`frames`, `connection`).

Python has no operation on all bytes of a string but two: arithmetic on big integers, and ``translate``.
Which is the faster depends on the size; the figures come from ``benchmarks/masking.py``.

- Up to `TABLE_SIZE` bytes, a frame of the shortest form: the payload becomes an integer; the key becomes
  one as long by a multiplication with 0x…0000000100000001, from a table. One XOR, and back.
- Below `INTEGERS_SIZE` the same, from a table that is filled as sizes come.
- From there on, every fourth byte is translated by the table for its byte of the key, in pieces that stay
  in the processor's cache. A bytearray is cut and translated twice as fast as bytes are. The pieces are put
  into a BytesIO, whose ``getvalue`` gives its buffer away without copying it: where a payload is large, what
  memory has to be mapped for it costs a quarter of the time.
- There, with numpy (the extra ``speed``), its XOR is used instead, in place in a BytesIO again.
- With numpy, many frames in one read are unmasked by one XOR over all of them (`bulk_xor`): calling numpy
  costs as much as a kilobyte does.

numpy is not imported before there is something of that size.
"""

import os
import sys
from collections.abc import Callable
from functools import cache
from io import BytesIO
from types import ModuleType
from typing import Final

TABLE_SIZE: Final = 125

INTEGERS_SIZE: Final = 1536
"""Bytes from which on translation, or numpy, beats integers."""

_PIECE: Final = 1 << 16
"""Bytes translated at a time: a multiple of four, so that each piece begins with the key's first byte."""

REPEATED: Final = tuple(
    int.from_bytes(b"\0\0\0\1" * ((size + 3) // 4), "big") for size in range(4 + TABLE_SIZE + 1)
)
"""``key * REPEATED[size]`` is the key repeated over ``size`` bytes, rounded up to whole keys."""

EXCESS: Final = tuple(-size % 4 * 8 for size in range(4 + TABLE_SIZE + 1))
"""The bits that ``REPEATED[size]`` has beyond ``size`` bytes."""


class _Repeated(dict[int, tuple[int, int]]):
    """Filled as it is asked; no more than 600 KB when it has all that it is asked for."""

    def __missing__(self, size: int) -> tuple[int, int]:
        whole = (size + 3) // 4 * 4
        repeated = int.from_bytes(b"\0\0\0\1" * (size // 4), "big") if size == whole else self[whole][0]
        self[size] = repeated, (whole - size) * 8
        return self[size]


REPEATED_AND_EXCESS: Final = _Repeated()
"""The same two by size, for payloads below `INTEGERS_SIZE`."""

_IDENTITY: Final = int.from_bytes(bytes(range(256)), "big")
_XOR_TABLES: Final = tuple(
    (_IDENTITY ^ int.from_bytes(bytes((octet,)) * 256, "big")).to_bytes(256, "big") for octet in range(256)
)
"""``_XOR_TABLES[k][i]`` is ``i ^ k``: what ``translate`` needs for one byte of the key."""

_from_bytes = int.from_bytes  # big-endian, as is to_bytes

_KEYS_AT_A_TIME: Final = 1024

_keys: list[bytes] = []


def apply_mask(data: bytes | bytearray | memoryview, key: bytes) -> bytes:
    """``data`` masked with ``key``; the same call unmasks it (RFC 6455 §5.3).

    ``key`` has 4 bytes, else `ValueError`. The result is as long as ``data``.
    """
    if len(key) != 4:
        raise ValueError(f"a masking key has 4 bytes, not {len(key)}")
    size = len(data)
    if size > TABLE_SIZE:
        return _apply_mask_large(data, key, size)
    return (_from_bytes(data) ^ (_from_bytes(key) * REPEATED[size] >> EXCESS[size])).to_bytes(size)


def _apply_mask_large(data: bytes | bytearray | memoryview, key: bytes, size: int) -> bytes:
    if size < INTEGERS_SIZE:
        repeated, excess = REPEATED_AND_EXCESS[size]
        mask = _from_bytes(key) * repeated
        if excess:
            mask >>= excess
        mask ^= _from_bytes(data)
        return mask.to_bytes(size)
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


@cache
def _numpy() -> ModuleType | None:
    """numpy, if it is installed."""
    try:
        import numpy  # noqa: PLC0415 - late: it takes a tenth of a second, and 20 MB
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
    del buffer  # as the array did, it would keep the buffer from being given away
    return masked.getvalue()


def bulk_xor() -> Callable[[bytes | memoryview, bytes], bytes] | None:
    """A function that gives the XOR of two strings of the same length, if numpy is installed."""
    numpy = _numpy()
    return None if numpy is None else _xor_function(numpy)


@cache
def _xor_function(numpy: ModuleType) -> Callable[[bytes | memoryview, bytes], bytes]:
    frombuffer, octet = numpy.frombuffer, numpy.uint8

    def xor(data: bytes | memoryview, mask: bytes) -> bytes:
        return (frombuffer(data, octet) ^ frombuffer(mask, octet)).tobytes()  # type: ignore[no-any-return]  # numpy is untyped here

    return xor


def new_mask_key() -> bytes:
    """A fresh masking key of 4 bytes, from the operating system's randomness (RFC 6455 §5.3, §10.3).

    Keys are drawn in blocks, because a system call for each would cost more than the masking. A key
    is handed out once, whatever the number of threads: ``list.pop`` is atomic.
    """
    while True:
        try:
            return _keys.pop()
        except IndexError:
            block = os.urandom(4 * _KEYS_AT_A_TIME)
            _keys.extend(block[start : start + 4] for start in range(0, len(block), 4))


# A forked child must not hand out the keys that its parent will.
os.register_at_fork(after_in_child=_keys.clear)
