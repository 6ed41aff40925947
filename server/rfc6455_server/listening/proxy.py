"""Who the peer is when a proxy stands between: ``X-Forwarded-For``, and the PROXY protocol, version 2.

Left to others: reading the bytes (`acceptor`). Nothing here is believed of an address that is not trusted.
"""

import ipaddress
import struct
from collections.abc import Collection, Iterable
from typing import Final

from rfc6455 import Request, WebSocketError

UNIX: Final = "unix"
"""The address of whoever comes over a Unix socket."""

PREFIX_SIZE: Final = 16
"""Bytes of a PROXY header up to its length, that included."""

MAX_REST: Final = 4096
"""Bytes that may follow these: addresses, and extensions that are not looked at."""

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_VERSION_AND_LOCAL: Final = 0x20
_VERSION_AND_PROXY: Final = 0x21
_INET: Final = 1
_INET6: Final = 2


class ProxyHeaderError(WebSocketError):
    """What came is no PROXY header of version 2."""

    def __init__(self, message: str) -> None:
        super().__init__(message, slug="proxy-header")


class Trusted:
    """The addresses that are believed: single ones, networks such as ``10.0.0.0/8``, and ``unix``.

    Raises `ValueError` for what is none of these.
    """

    def __init__(self, addresses: Iterable[str] = ()) -> None:
        addresses = set(addresses)
        self._unix = UNIX in addresses
        self._networks = [ipaddress.ip_network(address) for address in sorted(addresses - {UNIX})]

    def __contains__(self, address: str) -> bool:
        if address == UNIX:
            return self._unix
        if not self._networks:
            return False
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        # An IPv4 peer of a socket for both is written as IPv6.
        parsed = getattr(parsed, "ipv4_mapped", None) or parsed
        return any(parsed in network for network in self._networks)


def forwarded_for(request: Request, address: str, trusted: Trusted) -> str:
    """The client's address, as far as trusted proxies tell it.

    Each proxy adds the address that it was called from at the right. So, from the right, the first one that
    is not itself trusted is the client's; what stands left of it, anyone may have written.
    """
    if address not in trusted:
        return address
    fields: Collection[str] = request.headers.get_all("X-Forwarded-For")
    hops = [hop.strip() for field in fields for hop in field.split(",")]
    for hop in reversed(hops):
        try:
            address = str(ipaddress.ip_address(hop))
        except ValueError:
            return address  # no address: whoever is named last wrote it
        if address not in trusted:
            return address
    return address


def proxy_rest_size(prefix: bytes) -> int:
    """How many bytes follow the first `PREFIX_SIZE` of a PROXY header; raises `ProxyHeaderError`."""
    if prefix[:12] != _SIGNATURE or prefix[12] not in (_VERSION_AND_LOCAL, _VERSION_AND_PROXY):
        raise ProxyHeaderError("no PROXY header of version 2")
    size = int.from_bytes(prefix[14:16], "big")
    if size > MAX_REST:
        raise ProxyHeaderError("a PROXY header that is too long")
    return size


def proxied_address(prefix: bytes, rest: bytes) -> str | None:
    """The client's address of a whole PROXY header; ``None`` when the proxy speaks for itself.

    Raises `ProxyHeaderError` where an address is promised and missing.
    """
    if prefix[12] == _VERSION_AND_LOCAL:
        return None
    family = prefix[13] >> 4
    try:
        if family == _INET:
            return str(ipaddress.IPv4Address(struct.unpack_from("!4s4sHH", rest)[0]))
        if family == _INET6:
            return str(ipaddress.IPv6Address(struct.unpack_from("!16s16sHH", rest)[0]))
    except struct.error:
        raise ProxyHeaderError("a PROXY header without its addresses") from None
    return None
