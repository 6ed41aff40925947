"""Shared by the tests: frames built by hand, and functions that feed a connection."""

import gc
import itertools
import logging
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest

from rfc6455 import (
    Connection,
    ConnectionClosed,
    ConnectionFailed,
    Event,
    Opcode,
    Role,
    apply_mask,
    preload_masking,
)

preload_masking()  # so that no test counts the memory of numpy's import

KEY = b"\x37\xfa\x21\x3d"  # the masking key of RFC 6455 §5.7

ABNORMAL = ConnectionClosed(1006, "", False)

both_roles = pytest.mark.parametrize("role", list(Role), ids=lambda role: role.value)


def raw_frame(
    role: Role,
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool | None = None,
    length: int | None = None,
    length_form: int | None = None,
    key: bytes = KEY,
) -> bytes:
    """Returns a frame as the peer of ``role`` sends it, with any violation, without the code under test.

    ``length_form`` forces 7, 16 or 64 bits; ``length`` declares a length other than the payload's.
    """
    if masked is None:
        masked = role is Role.SERVER
    declared = len(payload) if length is None else length
    form = length_form or (7 if declared < 126 else 16 if declared < 65536 else 64)
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    mask = 0x80 if masked else 0
    if form == 7:
        header = bytes([first, mask | declared])
    elif form == 16:
        header = bytes([first, mask | 126]) + declared.to_bytes(2, "big")
    else:
        header = bytes([first, mask | 127]) + declared.to_bytes(8, "big")
    if not masked:
        return header + payload
    masked_payload = bytearray(payload)
    for i, octet in enumerate(key):
        masked_payload[i::4] = payload[i::4].translate(bytes(byte ^ octet for byte in range(256)))
    return header + key + masked_payload


def make_connection(role: Role, **options: object) -> Connection:
    """Returns a connection whose masking keys are always `KEY`, so that its output can be compared."""
    return Connection(role, mask_key_source=lambda: KEY, **options)  # type: ignore[arg-type]


def sent_frames(role: Role, data: bytes) -> list[tuple[int, bytes]]:
    """Returns (first byte, unmasked payload) of each frame that a connection of ``role`` has sent."""
    frames = []
    position = 0
    while position < len(data):
        first, second = data[position], data[position + 1]
        assert bool(second & 0x80) is (role is Role.CLIENT)
        length = second & 0x7F
        position += 2
        if length >= 126:
            size = 2 if length == 126 else 8
            length = int.from_bytes(data[position : position + size], "big")
            position += size
        key = b"\0\0\0\0"
        if second & 0x80:
            key = data[position : position + 4]
            position += 4
        frames.append((first, apply_mask(data[position : position + length], key)))
        position += length
    assert position == len(data)
    return frames


def split_at(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Returns ``data`` split at the offsets in ``cuts``, taken modulo its size."""
    offsets = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(offsets)]


def feed(connection: Connection, chunks: Sequence[bytes], *, eof: bool = False) -> list[Event]:
    """Feeds ``chunks`` one by one; returns all events."""
    events: list[Event] = []
    for chunk in chunks:
        connection.receive_data(chunk)
        events += connection.events()
    if eof:
        connection.receive_eof()
        events += connection.events()
    return events


def plain(event: Event) -> object:
    """Returns the event in a form that compares by value, because exceptions compare by identity."""
    if isinstance(event, ConnectionFailed):
        return event.code, event.reason, event.error.slug
    return event


def pump(client: Connection, server: Connection) -> tuple[list[Event], list[Event]]:
    """Moves bytes both ways until there are none; returns (the client's events, the server's)."""
    seen: tuple[list[Event], list[Event]] = ([], [])
    while True:
        moved = False
        for source, target, events_of_target in ((client, server, seen[1]), (server, client, seen[0])):
            data = source.data_to_send()
            if data:
                moved = True
                target.receive_data(data)
            events_of_target.extend(target.events())
        if not moved:
            return seen


def close_payload(code: int, reason: bytes = b"") -> bytes:
    return code.to_bytes(2, "big") + reason


DATA_OPCODES = (Opcode.TEXT, Opcode.BINARY)


def outcome(role: Role, data: bytes, **options: object) -> tuple[list[Event], list[tuple[int, bytes]]]:
    """Events and sent frames; asserts that they are the same at once and byte by byte."""
    results = []
    for chunks in ([data[i : i + 1] for i in range(len(data))], [data]):
        connection = make_connection(role, **options)
        events = feed(connection, chunks)
        results.append((events, sent_frames(role, connection.data_to_send())))
    comparable = [([plain(event) for event in events], sent) for events, sent in results]
    assert comparable[0] == comparable[1]
    return results[0]


class Held:
    """Bytes that have been allocated since this object was created, and are still in use."""

    def __init__(self) -> None:
        gc.collect()
        tracemalloc.reset_peak()
        self._before = tracemalloc.get_traced_memory()[0]

    def __call__(self) -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - self._before

    def peak(self) -> int:
        """Returns the most that was in use at any time."""
        return tracemalloc.get_traced_memory()[1] - self._before

    def __repr__(self) -> str:
        """Where most was allocated: pytest shows this for an assertion that failed."""
        return "; ".join(map(str, tracemalloc.take_snapshot().statistics("lineno")[:10]))


runner_lock: AbstractContextManager[object] = nullcontext()
"""While it is held, pytest-xdist handles no message: one that moves tests to another worker takes 100 kB."""


@contextmanager
def measured() -> Iterator[Held]:
    """Counts what is allocated, but not what the tests hold.

    Coverage holds a frame for each coroutine that waits, pytest what is logged, pytest-xdist its messages.
    """
    tracer, disabled = sys.gettrace(), logging.root.manager.disable
    with runner_lock:
        sys.settrace(None)
        logging.disable()
        tracemalloc.start()
        try:
            yield Held()
        finally:
            tracemalloc.stop()
            sys.settrace(tracer)
            logging.disable(disabled)


def bytes_held(make: Callable[[], object]) -> int:
    """Bytes that are allocated while the result of ``make`` is alive, and nothing else of the call."""
    make()  # fills the caches of the modules
    with measured() as held:
        result = make()
        size = held()
    del result
    return size


def peak_bytes(call: Callable[[], object]) -> int:
    """Maximum bytes that were allocated during ``call``."""
    with measured() as held:
        call()
        return held.peak()
