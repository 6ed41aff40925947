"""Violations of RFC 6455 §5 to §8, in one table for both roles."""

import pytest

from rfc6455 import Opcode, Role
from tests.helpers import close_payload, raw_frame

TEXT, BINARY, CONTINUATION = Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION


def violations(role: Role) -> list[tuple[str, int, str, bytes]]:
    """Returns (name, close code, slug, frames as the peer of ``role`` sends them) for each violation."""

    def frame(opcode: int, payload: bytes = b"", **flaws: object) -> bytes:
        return raw_frame(role, opcode, payload, **flaws)  # type: ignore[arg-type]

    begun = frame(TEXT, b"a", fin=False)
    rules = [
        (f"opcode {opcode}", 1002, "bad-opcode", frame(opcode))
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    ]
    rules += [(f"RSV {rsv}", 1002, "bad-rsv", frame(TEXT, b"a", rsv=rsv)) for rsv in range(1, 8)]
    rules += [(f"RSV1 on {op}", 1002, "bad-rsv", begun + frame(op, rsv=4)) for op in (0, 8, 9, 10)]
    rules += [
        ("wrong masking", 1002, "not-masked" if role is Role.SERVER else "masked",
         frame(TEXT, b"a", masked=role is Role.CLIENT)),
        ("wrong masking, empty", 1002, "not-masked" if role is Role.SERVER else "masked",
         frame(BINARY, masked=role is Role.CLIENT)),
        ("16 bits for 125", 1002, "bad-length", frame(BINARY, bytes(125), length_form=16)),
        ("16 bits for 0", 1002, "bad-length", frame(TEXT, length_form=16)),
        ("64 bits for 65535", 1002, "bad-length", frame(BINARY, length=65535, length_form=64)),
        ("64 bits for 1", 1002, "bad-length", frame(BINARY, b"a", length_form=64)),
        ("the 64th bit", 1002, "length-too-long", frame(BINARY, length=1 << 63)),
        ("too long, declared", 1009, "message-too-big", frame(BINARY, length=1 << 20 | 1)),
        ("2**63 - 1", 1009, "message-too-big", frame(BINARY, length=(1 << 63) - 1)),
        ("too long, summed", 1009, "message-too-big",
         frame(BINARY, b"a", fin=False) + frame(CONTINUATION, length=1 << 20)),
        ("continuation first", 1002, "unexpected-continuation", frame(CONTINUATION, b"a")),
        ("unfinished continuation first", 1002, "unexpected-continuation", frame(CONTINUATION, fin=False)),
        ("text in a text", 1002, "expected-continuation", begun + frame(TEXT, b"b")),
        ("binary in a text", 1002, "expected-continuation", begun + frame(BINARY, b"b", fin=False)),
        ("bad UTF-8", 1007, "bad-utf8", frame(TEXT, b"abc\xff")),
        ("overlong", 1007, "bad-utf8", frame(TEXT, b"\xc0\x80")),
        ("a surrogate", 1007, "bad-utf8", frame(TEXT, b"\xed\xa0\x80")),
        ("above U+10FFFF", 1007, "bad-utf8", frame(TEXT, b"\xf4\x90\x80\x80")),
        ("UTF-8 cut short", 1007, "bad-utf8", frame(TEXT, b"\xe2\x82")),
        ("bad UTF-8 across frames", 1007, "bad-utf8",
         frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"\x28")),
        ("UTF-8 cut short by the last fragment", 1007, "bad-utf8",
         frame(TEXT, b"\xe2\x82", fin=False) + frame(CONTINUATION)),
        ("close of one byte", 1002, "bad-close-payload", frame(8, b"\x03")),
        ("close with a bad reason", 1007, "bad-close-reason", frame(8, close_payload(1000, b"\xff"))),
        ("close with half a reason", 1007, "bad-close-reason", frame(8, close_payload(1000, b"\xe2\x82"))),
    ]  # fmt: skip
    for opcode in (8, 9, 10):
        rules.append((f"long control {opcode}", 1002, "control-too-long", frame(opcode, bytes(126))))
        rules.append(
            (f"long control {opcode}, 64 bits", 1002, "control-too-long", frame(opcode, length=1 << 16))
        )
        rules.append((f"fragmented control {opcode}", 1002, "fragmented-control", frame(opcode, fin=False)))
    for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535):
        rules.append((f"close code {code}", 1002, "bad-close-code", frame(8, close_payload(code))))
    return rules


RULES = [
    pytest.param(role, *rest, id=f"{role.value}: {name}") for role in Role for name, *rest in violations(role)
]
