"""Masking: the XOR of a payload with a repeated key of four bytes, and where keys come from.

Implements: RFC 6455 §5.3; the reason why it exists is in §10.3.
Left to others: who masks (`frames`, `connection`).

Python has no operation on all bytes of a string but two: arithmetic on big integers, and ``translate``.
Which is the faster depends on the size; the figures come from ``benchmarks/masking.py``.

- Up to `TABLE_SIZE` bytes, a frame of the shortest form: the payload becomes an integer; the key becomes
  one as long by a multiplication with 0x…0000000100000001, from a table. One XOR, and back.
- Below `_LANES_SIZE` the same, but the key is repeated as bytes: a table for each size would be large.
- From there on, every fourth byte is translated by the table for its byte of the key, in pieces that stay
  in the processor's cache. A bytearray is cut and translated twice as fast as bytes are.
- With numpy (the extra ``speed``), from `_NUMPY_SIZE` on, its XOR is used instead, in place in a BytesIO:
  its ``getvalue`` gives the buffer away without copying it, and so one copy is all that is made.
  numpy is not imported before the first payload of that size.
"""

import os
from functools import cache
from io import BytesIO
from types import ModuleType
from typing import Final

TABLE_SIZE: Final = 125

_LANES_SIZE: Final = 1280
"""Bytes from which on translation beats integers."""

_NUMPY_SIZE: Final = 1024
"""Bytes from which on numpy beats integers, and pays for being called."""

_PIECE: Final = 65536
"""Bytes translated at a time: a multiple of four, so that each piece begins with the key's first byte."""

REPEATED: Final = tuple(
    int.from_bytes(b"\0\0\0\1" * ((size + 3) // 4), "big") for size in range(4 + TABLE_SIZE + 1)
)
"""``key * REPEATED[size]`` is the key repeated over ``size`` bytes, rounded up to whole keys."""

EXCESS: Final = tuple(-size % 4 * 8 for size in range(4 + TABLE_SIZE + 1))
"""The bits that ``REPEATED[size]`` has beyond ``size`` bytes."""

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
    if size >= _NUMPY_SIZE and (numpy := _numpy()) is not None:
        return _xor_arrays(numpy, data, key)
    if size >= _LANES_SIZE:
        return _translate_lanes(data, key)
    mask = _from_bytes((key * ((size + 3) // 4))[:size])
    return (_from_bytes(data) ^ mask).to_bytes(size)


def _translate_lanes(data: bytes | bytearray | memoryview, key: bytes) -> bytes:
    masked = bytearray(data)
    for start in range(0, len(masked), _PIECE):
        end = start + _PIECE
        for lane, octet in enumerate(key, start):
            masked[lane:end:4] = masked[lane:end:4].translate(_XOR_TABLES[octet])
    return bytes(masked)


@cache
def _numpy() -> ModuleType | None:
    """numpy, if it is installed."""
    try:
        import numpy  # noqa: PLC0415 - late: it takes a tenth of a second, and 20 MB
    except ImportError:
        return None
    return numpy


def _xor_arrays(numpy: ModuleType, data: bytes | bytearray | memoryview, key: bytes) -> bytes:
    words, rest = divmod(len(data), 8)
    masked = BytesIO(data)
    array = numpy.frombuffer(masked.getbuffer(), numpy.uint64, words)
    array ^= numpy.frombuffer(key * 2, numpy.uint64)
    del array  # it holds the buffer, and so keeps it from being given away
    if rest:
        masked.seek(words * 8)
        masked.write(apply_mask(memoryview(data)[words * 8 :], key))
    return masked.getvalue()


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
