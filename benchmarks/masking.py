"""Masking: ``apply_mask`` compared with the pure-Python functions of the peers, and with C."""

import importlib.util
import os
import sys
import time
from collections.abc import Callable
from typing import cast
from unittest.mock import patch

import aiohttp._websocket.helpers as aiohttp_helpers
from websockets.speedups import apply_mask as websockets_c
from wsproto.frame_protocol import XorMaskerSimple

from benchmarks.common import OURS, Report, interleaved, options
from rfc6455 import apply_mask, masking

SIZES = [16, 64, 125, 1 << 10, 1 << 14, 1 << 16, 1 << 20, 1 << 24]
SECONDS = 0.01  # the approximate time of one measurement


def pure_websockets() -> Callable[[bytes, bytes], bytes]:
    """Returns the pure-Python function of websockets, which replaces it by C on import if it can."""
    with patch.dict(sys.modules, {"websockets.speedups": None}):
        spec = importlib.util.find_spec("websockets.utils")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    pure: Callable[[bytes, bytes], bytes] = module.apply_mask
    assert pure is not websockets_c
    return pure


def aiohttp_python(data: bytes, key: bytes) -> bytes:
    """Masks with aiohttp's pure-Python function, which works in place on a bytearray; callers need bytes."""
    buffer = bytearray(data)
    aiohttp_helpers._websocket_mask_python(key, buffer)
    return bytes(buffer)


# Annotated to take a bytearray, but takes bytes as well. The cast is here because it would be measured below.
_wsproto_process = cast("Callable[[XorMaskerSimple, bytes], bytes]", XorMaskerSimple.process)


def wsproto_python(data: bytes, key: bytes) -> bytes:
    """Masks with wsproto, which has only this function."""
    return bytes(_wsproto_process(XorMaskerSimple(key), data))


PATHS: dict[str, Callable[[bytes, bytes], bytes]] = {
    OURS: apply_mask,
    "websockets": pure_websockets(),
    "aiohttp": aiohttp_python,
    "wsproto": wsproto_python,
    "websockets, C": websockets_c,
}


def main() -> None:
    """Prints ns per call, and the ratios."""
    args = options(__doc__)
    with patch.object(masking, "_numpy", lambda: None):  # the standard library alone
        measure_all("masking", args.quick)
    measure_all("masking-speed", args.quick)


def measure_all(name: str, quick: bool) -> None:
    """Measures all sizes, with numpy or without, as it is set up now."""
    report = Report(name, "ns per call", quick=quick)
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
