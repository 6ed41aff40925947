"""Measures the codec that is on the import path, for `benchmarks.before_after`.

Each line of standard input is a case: parse or serialise, a size in bytes, numpy or standard. The answer is
the seconds per message.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Final

from rfc6455 import Connection, Opcode, Role, encode_frame, masking

READ: Final = 1 << 18  # bytes per read: the maximum of asyncio


def parse(size: int) -> float:
    """Returns the CPU time in seconds to parse a masked text message of ``size`` bytes."""
    count = max(16, 6_000_000 // (size + 600))
    payload = (b"The quick brown fox " * (size // 20 + 1))[:size]
    wire = b"".join(encode_frame(Opcode.TEXT, payload, mask_key=os.urandom(4)) for _ in range(count))
    chunks = [wire[start : start + READ] for start in range(0, len(wire), READ)]
    connection = Connection(Role.SERVER)
    begin = time.process_time()
    for chunk in chunks:
        connection.receive_data(chunk)
        for event in connection.events():
            assert event
    return (time.process_time() - begin) / count


def serialise(size: int) -> float:
    """Returns the CPU time in seconds to serialise a text message of ``size`` bytes."""
    count = max(16, 40_000_000 // (size + 2000))
    connection = Connection(Role.SERVER)
    text = "x" * size
    begin = time.process_time()
    for _ in range(count):
        connection.send_text(text)
        connection.buffers_to_send()
    return (time.process_time() - begin) / count


CODEC: Final[dict[str, Callable[[int], float]]] = {"parse": parse, "serialise": serialise}


def main() -> None:
    """Reads cases from standard input and prints the results."""
    numpy = masking._numpy
    for line in sys.stdin:
        kind, size, with_numpy = line.split()
        masking._numpy = numpy if with_numpy == "numpy" else lambda: None  # type: ignore[assignment]  # a stand-in without a cache
        measure = CODEC[kind]
        measure(int(size))  # warm-up: maps memory and fills tables
        print(statistics.median(measure(int(size)) for _ in range(3)), flush=True)


if __name__ == "__main__":
    main()
