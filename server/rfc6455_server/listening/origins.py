"""The form of an origin."""

import re
from typing import Final

# scheme "://" host [ ":" port ], as browsers write it (RFC 6454 §6.2), without a path, not even a slash.
# Pages in the web views of applications have the origin file:// there.
_HOST: Final = r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])"
_ORIGIN: Final = re.compile(rf"[A-Za-z][A-Za-z0-9+.-]*://{_HOST}(?::([0-9]{{1,5}}))?|file://")

_MAX_PORT: Final = 65535


def is_origin(text: str) -> bool:
    """Whether ``text`` has the form of an origin, such as ``https://example.com``."""
    match = _ORIGIN.fullmatch(text)
    return match is not None and int(match[1] or 0) <= _MAX_PORT
