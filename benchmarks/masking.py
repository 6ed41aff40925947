"""Masking: ``apply_mask`` against the pure-Python paths of the peers, and against C."""

import os
import time
from collections.abc import Callable

import aiohttp._websocket.helpers as aiohttp_helpers
from websockets.speedups import apply_mask as websockets_c
from wsproto.frame_protocol import XorMaskerSimple

from benchmarks.common import OURS, Report, interleaved, options
from rfc6455 import apply_mask

SIZES = [16, 64, 125, 1 << 10, 1 << 14, 1 << 16, 1 << 20, 1 << 24]
SECONDS = 0.01  # a measurement lasts about this long


def websockets_python(data: bytes, key: bytes) -> bytes:
    """What websockets does without its C extension: XOR of two integers."""
    length = len(data)
    repeated = key * (length // 4) + key[: length % 4]
    return (int.from_bytes(data, "little") ^ int.from_bytes(repeated, "little")).to_bytes(length, "little")


def aiohttp_python(data: bytes, key: bytes) -> bytes:
    """aiohttp's pure path; it masks a bytearray in place, and callers need bytes."""
    buffer = bytearray(data)
    aiohttp_helpers._websocket_mask_python(key, buffer)
    return bytes(buffer)


def wsproto_python(data: bytes, key: bytes) -> bytes:
    """wsproto's only path."""
    return bytes(XorMaskerSimple(key).process(data))


PATHS: dict[str, Callable[[bytes, bytes], bytes]] = {
    OURS: apply_mask,
    "websockets": websockets_python,
    "aiohttp": aiohttp_python,
    "wsproto": wsproto_python,
    "websockets, C": websockets_c,
}


def main() -> None:
    """Prints ns a call and the ratios."""
    asked = options(__doc__)
    report = Report("masking", "ns a call", quick=asked.quick)
    for size in SIZES[:-1] if asked.quick else SIZES:
        data, key = os.urandom(size), os.urandom(4)
        for path in PATHS.values():
            assert path(data, key) == apply_mask(data, key)

        def measure(name: str, data: bytes = data, key: bytes = key) -> float:
            path = PATHS[name]
            count = 0
            begin = time.process_time()
            while (spent := time.process_time() - begin) < SECONDS:
                for _ in range(max(1, 20_000 // (1 + len(data) // 64))):
                    path(data, key)
                    count += 1
            return spent / count * 1e9

        figures = interleaved(list(PATHS), 5 if asked.quick else 15, measure, f"{size} bytes")
        target = 1 / 1.8 if size <= 125 else 1.0
        report.add(f"{size} B", figures, dict.fromkeys(["websockets", "aiohttp", "wsproto"], target))
    report.finish()


if __name__ == "__main__":
    main()
