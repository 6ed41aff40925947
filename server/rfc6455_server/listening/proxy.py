"""The client behind a proxy: ``X-Forwarded-For``, ``X-Forwarded-Proto``, and the PROXY protocol, version 2.

Only trusted addresses may report another client.
Left to others: reading the bytes (`acceptor`).
"""

import ipaddress
import struct
from collections.abc import Iterable
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Final

from rfc6455 import Request, WebSocketError, ascii_lower

UNIX: Final = "unix"
"""The address of every peer of a Unix socket."""

UNKNOWN: Final = "unknown"
"""The address of every client whose address a PROXY header leaves out. It is never trusted."""

PREFIX_SIZE: Final = 16
"""Bytes of a PROXY header up to and including the length of its second part."""

MAX_ADDRESSES_SIZE: Final = 4096
"""Maximum bytes of the second part: the addresses, and extensions, which are ignored."""

MAX_HOPS: Final = 100
"""Maximum addresses of X-Forwarded-For that are read, from the right."""

_MAPPED: Final = bytes(10) + b"\xff\xff"
"""How an IPv6 address begins whose rest is an IPv4 address."""

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_VERSION_AND_LOCAL: Final = 0x20
_VERSION_AND_PROXY: Final = 0x21
_INET: Final = 1
_INET6: Final = 2
_FAMILY_SIZES: Final = {_INET: 12, _INET6: 36, 3: 216}
"""Bytes of the addresses of each family; extensions follow them."""

_TLS_EXTENSION: Final = 0x20
_CLIENT_USED_TLS: Final = 0x01

_SCHEMES: Final = {"http": "http", "ws": "http", "https": "https", "wss": "https"}


class ProxyHeaderError(WebSocketError):
    """A connection does not start with a valid PROXY header from a trusted proxy."""

    def __init__(self, message: str) -> None:
        super().__init__(message, slug="proxy-header")


class Trusted:
    """The addresses of trusted proxies: addresses, networks such as ``10.0.0.0/8``, and ``unix``.

    Raises `ValueError` for anything else.
    """

    def __init__(self, addresses: Iterable[str] = ()) -> None:
        addresses = set(addresses)
        self._unix = UNIX in addresses
        self._networks = [_network(address) for address in sorted(addresses - {UNIX})]

    def __contains__(self, address: str) -> bool:
        if address == UNIX:
            return self._unix
        if not self._networks:
            return False
        try:
            parsed = ipaddress.ip_address(canonical_address(address))
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)


def canonical_address(address: str) -> str:
    """Returns the one spelling of an IP address: without a zone, and IPv4 if it is mapped to IPv6.

    A socket for both families writes the address of an IPv4 peer as IPv6. What is no IPv6 address is returned
    as it is.
    """
    if ":" not in address:
        return address
    try:  # not by `ipaddress`: it takes 14 us instead of 1.2, at each connection
        packed = inet_pton(AF_INET6, address.partition("%")[0])
    except (OSError, ValueError):
        return address
    if packed.startswith(_MAPPED):
        return inet_ntop(AF_INET, packed[len(_MAPPED) :])
    return inet_ntop(AF_INET6, packed)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    network = ipaddress.ip_network(text)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    bits = network.prefixlen - 8 * len(_MAPPED)
    return network if mapped is None or bits < 0 else ipaddress.IPv4Network((mapped, bits))


def forwarded_for(request: Request, address: str, trusted: Trusted) -> str:
    """Returns the client's address by ``X-Forwarded-For``, if ``address`` is a trusted proxy's.

    Each proxy appends its peer's address at the right. So the rightmost address that is not trusted is the
    client's. Everything left of it may be forged. Reads at most `MAX_HOPS`.
    """
    if address not in trusted:
        return address
    hops = ",".join(request.headers.get_all("X-Forwarded-For")).rsplit(",", MAX_HOPS)
    for hop in hops[: -MAX_HOPS - 1 : -1]:
        try:
            address = str(ipaddress.ip_address(canonical_address(hop.strip())))
        except ValueError:
            return address  # not an address: the last proxy is as much as we know
        if address not in trusted:
            return address
    return address


def forwarded_scheme(request: Request, scheme: str, address: str, trusted: Trusted) -> str:
    """Returns ``http`` or ``https``, as ``X-Forwarded-Proto`` says if ``address`` is a trusted proxy's.

    Without a valid field it is ``scheme``, that of the connection. Of several values the first counts: the
    proxy that the client spoke to wrote it. A client that forges it is no browser, and only a browser's
    origin is compared with the scheme.
    """
    if address not in trusted:
        return scheme
    first = ",".join(request.headers.get_all("X-Forwarded-Proto")).partition(",")[0]
    return _SCHEMES.get(ascii_lower(first.strip()), scheme)


def proxy_addresses_size(prefix: bytes) -> int:
    """Returns how many bytes follow the first `PREFIX_SIZE` of a PROXY header; raises `ProxyHeaderError`."""
    if prefix[:12] != _SIGNATURE or prefix[12] not in (_VERSION_AND_LOCAL, _VERSION_AND_PROXY):
        raise ProxyHeaderError("not a PROXY header of version 2")
    size = int.from_bytes(prefix[14:16], "big")
    if size > MAX_ADDRESSES_SIZE:
        raise ProxyHeaderError("the PROXY header is too long")
    return size


def proxied_address(prefix: bytes, addresses: bytes) -> str | None:
    """Returns the client's address of a PROXY header; ``None`` if the proxy connects for itself.

    A client that reached the proxy by other means than IP is `UNKNOWN`: it is not the proxy, and what it says
    about addresses is not believed. Raises `ProxyHeaderError` if the header announces an address and has
    none.
    """
    if prefix[12] == _VERSION_AND_LOCAL:
        return None
    family = prefix[13] >> 4
    try:
        if family == _INET:
            return str(ipaddress.IPv4Address(struct.unpack_from("!4s4sHH", addresses)[0]))
        if family == _INET6:
            address = str(ipaddress.IPv6Address(struct.unpack_from("!16s16sHH", addresses)[0]))
            return canonical_address(address)
    except struct.error:
        raise ProxyHeaderError("the PROXY header lacks its addresses") from None
    return UNKNOWN


def used_tls(prefix: bytes, addresses: bytes) -> bool:
    """Whether the client used TLS to reach the proxy, by the extension ``PP2_TYPE_SSL`` of a PROXY header.

    HAProxy sends it with ``send-proxy-v2-ssl``.
    """
    if prefix[12] == _VERSION_AND_LOCAL:
        return False
    position = _FAMILY_SIZES.get(prefix[13] >> 4, 0)
    while position + 3 <= len(addresses):
        kind, size = struct.unpack_from("!BH", addresses, position)
        value = addresses[position + 3 : position + 3 + size]
        if kind == _TLS_EXTENSION:
            return bool(value and value[0] & _CLIENT_USED_TLS)
        position += 3 + size
    return False
