"""Compression of the answers to clients that poll.

Implements: the content codings gzip and deflate (RFC 9110, section 8.4.1), and their negotiation.
Left to others: which answers are compressed (`transports`).
"""

import asyncio
import zlib
from typing import Final, Literal

from rfc6455 import Request, ascii_lower

Coding = Literal["gzip", "deflate"]

DEFAULT_THRESHOLD: Final = 1024
"""Bytes from which on an answer is compressed; the official server's default."""

_MAX_ACCEPTED: Final = 1024

_PIECE: Final = 1 << 16
"""Bytes that are compressed before others have their turn."""

_LEVEL: Final = 1
# JSON events: 64 KiB take 0.5 ms and shrink to 26 %; zlib's default level takes 3.4 ms for 21 %.

_WINDOW_BITS: Final[dict[Coding, int]] = {"gzip": 31, "deflate": 15}  # zlib's way to write the two formats


def choose_coding(request: Request) -> Coding | None:
    """Returns a coding that the client accepts, gzip if it has the choice.

    None for more than `_MAX_ACCEPTED` bytes of Accept-Encoding: 60 KB would hold up the event loop for 50 ms.
    """
    accepted = ",".join(request.headers.get_all("Accept-Encoding"))
    if len(accepted) > _MAX_ACCEPTED:
        return None
    qualities: dict[str, float] = {}
    for element in accepted.split(","):
        name, _, parameter = element.partition(";")
        key, _, value = parameter.partition("=")
        try:
            quality = float(value) if ascii_lower(key.strip()) == "q" else 1.0
        except ValueError:
            quality = 0.0
        qualities[ascii_lower(name.strip())] = quality
    codings: tuple[Coding, Coding] = ("gzip", "deflate")
    best = max(codings, key=lambda coding: _quality(qualities, coding))
    return best if _quality(qualities, best) > 0 else None


def _quality(qualities: dict[str, float], coding: Coding) -> float:
    return qualities.get(coding, qualities.get("*", 0.0))


class Compressor:
    """Compresses one answer after the other, so that only one has a compressor's memory, some 260 KB."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    @property
    def turn(self) -> asyncio.Lock:
        """Held from before a body is made until it is compressed, so that no bodies wait."""
        return self._lock

    async def compress(self, body: bytes, coding: Coding) -> bytes:
        """Returns ``body`` in a coding, in turns with other tasks. The caller holds `turn`."""
        compressor = zlib.compressobj(_LEVEL, wbits=_WINDOW_BITS[coding])
        pieces = []
        for start in range(0, len(body), _PIECE):
            if start:
                await asyncio.sleep(0)
            pieces.append(compressor.compress(body[start : start + _PIECE]))
        return b"".join([*pieces, compressor.flush()])
