import os
import subprocess
import sys
import threading

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfc6455 import apply_mask, masking, new_mask_key
from tests.helpers import peak_bytes

# Sizes around those where another path or another piece starts.
EDGES = sorted(
    {0, 1, 2, 3, 4, 5}
    | {masking.TABLE_SIZE + d for d in (-1, 0, 1, 2, 3, 4)}
    | {masking.INTEGERS_SIZE + d for d in range(-2, 9)}
    | {masking._PIECE + d for d in (-1, 0, 1, 2, 3, 4)}
    | {3 * masking._PIECE + 5}
)


def xor_by_the_letter(data: bytes, key: bytes) -> bytes:
    return bytes(octet ^ key[i % 4] for i, octet in enumerate(data))


def test_the_example_of_the_rfc() -> None:
    assert apply_mask(b"Hello", b"\x37\xfa\x21\x3d") == b"\x7f\x9f\x4d\x51\x58"


@pytest.mark.usefixtures("masking_path")
@pytest.mark.parametrize("size", EDGES)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_sizes_around_each_change_of_path(size: int, kind: type) -> None:
    data, key = os.urandom(size), b"\x5a\x01\x80\xff"
    masked = apply_mask(kind(data), key)
    assert type(masked) is bytes
    assert masked == xor_by_the_letter(data, key)


@given(st.binary(max_size=2000), st.binary(min_size=4, max_size=4))
def test_masking_is_xor_and_undoes_itself(data: bytes, key: bytes) -> None:
    masked = apply_mask(data, key)
    assert masked == xor_by_the_letter(data, key)
    assert apply_mask(masked, key) == data


def test_a_mask_repeats_the_key_over_its_size() -> None:
    masks = masking._Masks()
    for size in (*range(10), 1001):
        repeated, excess = masks[size]
        mask = int.from_bytes(b"\1\2\3\4") * repeated >> excess
        assert mask.to_bytes(size) == (b"\1\2\3\4" * 251)[:size]
        assert masks[size] is masks[size]


def test_large_payloads_are_masked_by_numpy_if_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_translate_lanes", None)
    assert apply_mask(bytes(5000), b"abcd") == b"abcd" * 1250


def test_many_payloads_are_masked_at_once_by_numpy_only(monkeypatch: pytest.MonkeyPatch) -> None:
    xor = masking.bulk_xor()
    assert xor is not None
    assert xor(memoryview(b"\1\2\xff"), b"\3\4\xff") == b"\2\6\0"
    monkeypatch.setattr(masking, "_numpy", lambda: None)
    assert masking.bulk_xor() is None


def test_numpy_is_used_if_installed_and_not_required(monkeypatch: pytest.MonkeyPatch) -> None:
    masking._numpy.cache_clear()
    assert masking._numpy() is numpy
    masking._numpy.cache_clear()
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert masking._numpy() is None
    assert apply_mask(bytes(5000), b"abcd") == b"abcd" * 1250
    masking._numpy.cache_clear()


def test_numpy_is_imported_only_for_large_payloads() -> None:
    program = (
        "import sys, rfc6455\n"
        "rfc6455.apply_mask(bytes(1535), b'abcd')\n"
        "print('numpy' in sys.modules)\n"
        "rfc6455.apply_mask(bytes(1536), b'abcd')\n"
        "print('numpy' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize("key", [b"", b"abc", b"abcde"])
def test_a_key_has_four_bytes(key: bytes) -> None:
    with pytest.raises(ValueError, match="4 bytes"):
        apply_mask(b"data", key)


def test_keys_come_from_the_operating_system_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def urandom(size: int) -> bytes:
        calls.append(size)
        return bytes(index & 0xFF for index in range(size))

    monkeypatch.setattr(os, "urandom", urandom)
    monkeypatch.setattr(masking, "_keys", [])
    block = {bytes([i & 0xFF, i + 1 & 0xFF, i + 2 & 0xFF, i + 3 & 0xFF]) for i in range(0, 4096, 4)}
    drawn = [new_mask_key() for _ in range(masking._KEYS_PER_BLOCK + 1)]
    assert set(drawn) <= block
    assert calls == [4 * masking._KEYS_PER_BLOCK] * 2


def test_threads_do_not_share_keys() -> None:
    drawn: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: drawn.extend([new_mask_key() for _ in range(5000)])) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Among 20,000 random 32-bit keys, 0.05 equal pairs are expected by chance, and practically never five.
    assert len(set(drawn)) > len(drawn) - 5


def test_a_forked_child_does_not_repeat_the_keys_of_its_parent() -> None:
    program = (
        "import os, rfc6455\n"
        "rfc6455.new_mask_key()\n"
        "read, write = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    os.write(write, b''.join(rfc6455.new_mask_key() for _ in range(64)))\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "child = os.read(read, 256)\n"
        "print(child == b''.join(rfc6455.new_mask_key() for _ in range(64)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def run(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_preloading_imports_numpy() -> None:
    program = "import sys, rfc6455\nrfc6455.preload_masking()\nprint('numpy' in sys.modules)\n"
    assert run(program) == ["True"]


def test_two_forked_children_do_not_share_keys() -> None:
    """Otherwise each child would use the block of keys that its parent has drawn."""
    program = (
        "import os, rfc6455\n"
        "rfc6455.new_mask_key()\n"
        "for _ in range(2):\n"
        "    read, write = os.pipe()\n"
        "    if os.fork() == 0:\n"
        "        os.write(write, b''.join(rfc6455.new_mask_key() for _ in range(64)))\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
        "    print(os.read(read, 256).hex())\n"
    )
    first, second = run(program)
    assert len(first) == len(second) == 512
    assert first != second


def test_the_mask_of_a_size_is_created_on_first_use_and_kept() -> None:
    program = (
        "from rfc6455 import apply_mask, masking\n"
        "print(max(masking.MASKS))\n"
        "apply_mask(bytes(1001), b'abcd')\n"
        "print(*sorted(masking.MASKS)[-3:])\n"
    )
    # 1001 uses the integer of 1004. 132 is the one for 129, a small frame with its key.
    assert run(program) == ["132", "132", "1001", "1004"]


def test_all_masks_take_600_kb() -> None:
    masks = [masking.MASKS[size] for size in range(masking.INTEGERS_SIZE + 4)]
    assert all(mask is masking.MASKS[size] for size, mask in enumerate(masks))
    # Four sizes share one integer.
    integers = {id(repeated): sys.getsizeof(repeated) for repeated, _ in masks}
    assert len(integers) == masking.INTEGERS_SIZE // 4 + 2
    assert sum(integers.values()) + sum(map(sys.getsizeof, masks)) + sys.getsizeof(masking.MASKS) < 600_000


@pytest.mark.usefixtures("masking_path")
@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_masking_a_large_payload_copies_it_once(kind: type) -> None:
    size = 4 << 20
    data = kind(bytes(size))
    assert peak_bytes(lambda: apply_mask(data, b"abcd")) < size * 1.25
