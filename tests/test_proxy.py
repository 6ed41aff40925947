import struct

import pytest

from rfc6455 import Headers, Request
from rfc6455_server.listening.proxy import (
    PREFIX_SIZE,
    UNKNOWN,
    ProxyHeaderError,
    Trusted,
    forwarded_for,
    forwarded_scheme,
    proxied_address,
    proxy_addresses_size,
    used_tls,
)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


@pytest.mark.parametrize(
    ("trusted", "address", "expected"),
    [
        ((), "127.0.0.1", False),
        (["127.0.0.1"], "127.0.0.1", True),
        (["127.0.0.1"], "127.0.0.2", False),
        (["10.0.0.0/8"], "10.1.2.3", True),
        (["10.0.0.0/8"], "::ffff:10.1.2.3", True),
        (["fd00::/8"], "fd12::1", True),
        (["fd00::/8"], "10.1.2.3", False),
        (["unix"], "unix", True),
        (["10.0.0.0/8"], "unix", False),
        (["unix"], "10.1.2.3", False),
        (["10.0.0.0/8"], "no address", False),
    ],
)
def test_trusted_addresses(trusted: list[str], address: str, expected: bool) -> None:
    assert (address in Trusted(trusted)) is expected


def test_an_invalid_address() -> None:
    with pytest.raises(ValueError, match=r"proxy\.example"):
        Trusted(["proxy.example"])


@pytest.mark.parametrize(
    ("fields", "peer", "expected"),
    [
        (["203.0.113.9"], "127.0.0.1", "203.0.113.9"),
        (["203.0.113.9"], "198.51.100.7", "198.51.100.7"),  # not a trusted proxy
        (["1.1.1.1, 203.0.113.9"], "127.0.0.1", "203.0.113.9"),  # the client wrote the left one
        (["1.1.1.1, 203.0.113.9, 10.0.0.5"], "127.0.0.1", "203.0.113.9"),
        (["1.1.1.1", "203.0.113.9"], "127.0.0.1", "203.0.113.9"),
        (["10.0.0.4, 10.0.0.5"], "127.0.0.1", "10.0.0.4"),
        (["2001:db8::1"], "127.0.0.1", "2001:db8::1"),
        (["evil\u0000", "10.0.0.5"], "127.0.0.1", "10.0.0.5"),
        (["unknown"], "127.0.0.1", "127.0.0.1"),
        ([""], "127.0.0.1", "127.0.0.1"),
        ([], "127.0.0.1", "127.0.0.1"),
        (["203.0.113.9"], "unix", "unix"),
    ],
)
def test_forwarded_for(fields: list[str], peer: str, expected: str) -> None:
    headers = Headers()
    for value in fields:
        headers._pairs.append(("X-Forwarded-For", value)) if "\0" in value else headers.add(
            "X-Forwarded-For", value
        )
    trusted = Trusted(["127.0.0.1", "10.0.0.0/8"])
    assert forwarded_for(Request("GET", "/", headers), peer, trusted) == expected


def header(command: int, family: int, rest: bytes) -> tuple[bytes, bytes]:
    return SIGNATURE + bytes([0x20 | command, family]) + struct.pack("!H", len(rest)), rest


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (header(1, 0x11, bytes([203, 0, 113, 9, 10, 0, 0, 1]) + b"\x12\x34\0\x50"), "203.0.113.9"),
        (header(1, 0x11, bytes([203, 0, 113, 9, 10, 0, 0, 1]) + b"\x12\x34\0\x50\x04\0\1x"), "203.0.113.9"),
        (header(1, 0x21, b"\x20\x01\x0d\xb8" + bytes(11) + b"\1" + bytes(16) + b"\0\1\0\2"), "2001:db8::1"),
        (header(0, 0x00, b""), None),
        (header(0, 0x11, b"whatever it says"), None),
        (header(1, 0x31, bytes(216)), UNKNOWN),
        (header(1, 0x00, b""), UNKNOWN),
    ],
)
def test_proxy_headers(parts: tuple[bytes, bytes], expected: str | None) -> None:
    prefix, rest = parts
    assert len(prefix) == PREFIX_SIZE
    assert proxy_addresses_size(prefix) == len(rest)
    assert proxied_address(prefix, rest) == expected


def extension(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


TLS = extension(0x20, b"\x01" + bytes(4) + extension(0x21, b"TLSv1.3"))


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (header(1, 0x11, bytes(12) + TLS), True),
        (header(1, 0x21, bytes(36) + extension(0x01, b"h2") + TLS), True),
        (header(1, 0x31, bytes(216) + TLS), True),
        (header(1, 0x00, TLS), True),
        (header(1, 0x11, bytes(12)), False),
        (header(1, 0x11, bytes(12) + extension(0x20, b"\0" + bytes(4))), False),  # not over TLS
        (header(1, 0x11, bytes(12) + extension(0x20, b"")), False),
        (header(1, 0x11, bytes(12) + extension(0x04, TLS)), False),  # inside of another extension
        (header(1, 0x11, bytes(12) + TLS[:3]), False),
        (header(1, 0x11, TLS), False),  # in the place of the addresses
        (header(0, 0x11, bytes(12) + TLS), False),  # the proxy speaks for itself
    ],
)
def test_tls_between_client_and_proxy(parts: tuple[bytes, bytes], expected: bool) -> None:
    assert used_tls(*parts) is expected


@pytest.mark.parametrize(
    ("values", "peer", "scheme", "expected"),
    [
        (["https"], "127.0.0.1", "http", "https"),
        (["HTTPS"], "127.0.0.1", "http", "https"),
        (["wss"], "127.0.0.1", "http", "https"),
        (["http"], "127.0.0.1", "https", "http"),
        (["https, http"], "127.0.0.1", "http", "https"),
        (["https", "http"], "127.0.0.1", "http", "https"),
        (["gopher"], "127.0.0.1", "https", "https"),
        ([], "127.0.0.1", "https", "https"),
        (["https"], "198.51.100.7", "http", "http"),  # not a trusted proxy
        (["https"], UNKNOWN, "http", "http"),
    ],
)
def test_forwarded_scheme(values: list[str], peer: str, scheme: str, expected: str) -> None:
    request = Request("GET", "/", Headers([("X-Forwarded-Proto", value) for value in values]))
    assert forwarded_scheme(request, scheme, peer, Trusted(["127.0.0.1"])) == expected


@pytest.mark.parametrize(
    "prefix",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 1.2.3",
        SIGNATURE + b"\x11\x11\0\x0c",
        SIGNATURE + b"\x22\x11\0\x0c",
        SIGNATURE + b"\x21\x11\xff\xff",
    ],
)
def test_invalid_proxy_headers(prefix: bytes) -> None:
    with pytest.raises(ProxyHeaderError) as caught:
        proxy_addresses_size(prefix)
    assert caught.value.slug == "proxy-header"


@pytest.mark.parametrize("family", [0x11, 0x21])
def test_a_proxy_header_without_its_addresses(family: int) -> None:
    with pytest.raises(ProxyHeaderError):
        proxied_address(*header(1, family, b"short"))
