"""Masking: ``apply_mask`` against the pure-Python paths of the peers, and against C."""

import importlib.util
import os
import sys
import time
from collections.abc import Callable

import aiohttp._websocket.helpers as aiohttp_helpers
from websockets.speedups import apply_mask as websockets_c
from wsproto.frame_protocol import XorMaskerSimple

from benchmarks.common import OURS, Report, interleaved, options
from rfc6455 import apply_mask, masking

SIZES = [16, 64, 125, 1 << 10, 1 << 14, 1 << 16, 1 << 20, 1 << 24]
SECONDS = 0.01  # a measurement lasts about this long


def pure_websockets() -> Callable[[bytes, bytes], bytes]:
    """Its module chooses the C routine when it is imported: here it is imported once more, without."""
    speedups = sys.modules.pop("websockets.speedups")
    sys.modules["websockets.speedups"] = None
    try:
        spec = importlib.util.find_spec("websockets.utils")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.modules["websockets.speedups"] = speedups
    pure: Callable[[bytes, bytes], bytes] = module.apply_mask
    assert pure is not websockets_c
    return pure


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
    "websockets": pure_websockets(),
    "aiohttp": aiohttp_python,
    "wsproto": wsproto_python,
    "websockets, C": websockets_c,
}


def main() -> None:
    """Prints ns a call and the ratios."""
    asked = options(__doc__)
    for name, numpy in (("masking", False), ("masking-speed", True)):
        if not numpy:
            masking._numpy = lambda: None  # the standard library alone
        else:
            importlib.reload(masking)
        PATHS[OURS] = masking.apply_mask
        measure_all(name, asked.quick)


def measure_all(name: str, quick: bool) -> None:
    """All sizes, with ours as it is set up now."""
    report = Report(name, "ns a call", quick=quick)
    for size in SIZES[:-1] if quick else SIZES:
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

        figures = interleaved(list(PATHS), 5 if quick else 15, measure, f"{size} bytes")
        target = round(1 / 1.8, 2) if size <= 125 else 1.0
        targets = dict.fromkeys(["websockets", "aiohttp", "wsproto"], target)
        if name == "masking-speed" and size >= 1 << 16:
            targets["websockets, C"] = 2.0
        report.add(f"{size} B", figures, targets)
    report.finish()


if __name__ == "__main__":
    main()
