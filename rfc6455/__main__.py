"""``python -m rfc6455 explain HEX…``: explains the bytes of frames.

For learning and debugging. It uses the `decode_header` of a connection.
"""

import argparse
import sys
from collections.abc import Sequence

from rfc6455.constants import Opcode
from rfc6455.errors import RemoteProtocolError
from rfc6455.frames import MASK, FrameHeader, decode_close, decode_header
from rfc6455.masking import apply_mask

_SHOWN = 64
"""Maximum bytes of a payload that are printed."""


def explain(data: bytes) -> tuple[list[str], bool]:
    """Returns lines that explain the frames in ``data``, and whether all frames are valid."""
    lines: list[str] = []
    position = 0
    while position < len(data):
        masked = len(data) > position + 1 and bool(data[position + 1] & MASK)
        try:
            frame = decode_header(data, position, masked=masked, rsv1_allowed=True)
            if frame is None:
                return [*lines, f"{_hex(data[position:])}  incomplete header"], True
            lines += _explain_header(data[position : position + frame.size], frame)
            position += frame.size
            payload = data[position : position + frame.length]
            position += frame.length
            lines += _explain_payload(payload, frame)
        except RemoteProtocolError as error:
            return [*lines, f"violation: {error} (close code {error.code:d}, {error.slug})"], False
    return lines, True


def _explain_header(header: bytes, frame: FrameHeader) -> list[str]:
    sender = "from a server" if frame.mask_key is None else "from a client"
    flags = f"FIN={frame.fin:d} RSV1={frame.rsv1:d}"
    key_start = len(header) if frame.mask_key is None else len(header) - 4
    lines = [
        f"{_hex(header[:1])}  {flags} opcode={frame.opcode:#x} ({frame.opcode.name.lower()})",
        f"{_hex(header[1:key_start])}  MASK={frame.mask_key is not None:d} ({sender}), "
        f"payload of {frame.length} bytes",
    ]
    if frame.mask_key is not None:
        lines.append(f"{_hex(frame.mask_key)}  masking key")
    return lines


def _explain_payload(payload: bytes, frame: FrameHeader) -> list[str]:
    missing = frame.length - len(payload)
    if missing:
        return [f"{_hex(payload)}  payload, {missing} more to come"]
    if not payload:
        return []
    unmasked = payload if frame.mask_key is None else apply_mask(payload, frame.mask_key)
    if frame.opcode is Opcode.CLOSE:
        code, reason = decode_close(unmasked)
        meaning = f"close code {code}, reason {reason!r}"
    elif frame.rsv1:
        meaning = f"compressed: {_hex(unmasked)}"
    else:
        meaning = repr(unmasked[:_SHOWN].decode("utf-8", "backslashreplace"))
    return [f"{_hex(payload)}  payload: {meaning}"]


def _hex(data: bytes) -> str:
    return data[:_SHOWN].hex(" ") + ("…" if len(data) > _SHOWN else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 1 if a frame breaks the protocol, 2 for bad arguments."""
    parser = argparse.ArgumentParser(prog="python -m rfc6455", description="Tools of the rfc6455 codec.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "explain", help="explain the bytes of frames", description="Explains the bytes of frames."
    )
    command.add_argument("hex", nargs="+", help="bytes in hexadecimal, with or without spaces")
    options = parser.parse_args(arguments)
    try:
        data = bytes.fromhex("".join(options.hex))
    except ValueError:
        print("python -m rfc6455: the bytes are not hexadecimal", file=sys.stderr)
        return 2
    lines, valid = explain(data)
    print("\n".join(lines))
    return 0 if valid else 1


if __name__ == "__main__":
    sys.exit(main())
