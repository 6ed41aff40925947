"""Addresses of clients, which limits count

A client that has many addresses, or many spellings of one, and proxies that report them.
"""

import asyncio
import socket
from typing import Any

import pytest

from rfc6455 import Headers, Request
from rfc6455_server import Endpoint, Server
from rfc6455_server.limits import Addresses, Limits
from rfc6455_server.listening.acceptor import Acceptor
from rfc6455_server.listening.proxy import MAX_HOPS, Trusted, forwarded_for, proxied_address
from rfc6455_server.testing import ManualClock, TestClient, settle
from tests.hostile.flaws import flaw
from tests.server_helpers import echo_server

PROXY = "10.0.0.1"


def forwarded(*lines: str, trusted: Trusted | None = None) -> str:
    """Returns the client's address by lines of X-Forwarded-For."""
    request = Request("GET", "/", Headers([("X-Forwarded-For", line) for line in lines]))
    return forwarded_for(request, PROXY, trusted or Trusted(["10.0.0.0/8"]))


@flaw(
    "found here",
    what="connects from each of the 2**64 addresses that one host has in its IPv6 network",
    here="they count as one address: 429 above `max_connections_per_address` from a /64",
)
async def test_addresses_of_one_network() -> None:
    clock = ManualClock()
    server = Server(clock=clock, max_connections_per_address=2)
    async with TestClient(server, clock) as test:
        first = test.open(asyncio.Protocol(), "2001:db8:0:1::1")
        test.open(asyncio.Protocol(), "2001:db8:0:1:ffff::")
        with pytest.raises(ConnectionRefusedError, match="429"):
            test.open(asyncio.Protocol(), "2001:db8:0:1::2")
        test.open(asyncio.Protocol(), "2001:db8:0:2::1")
        first.abort()
        await settle()
        test.open(asyncio.Protocol(), "2001:db8:0:1::3")


@flaw(
    "found here",
    what="opens connections at a high rate, each from another address of its IPv6 network",
    here="`connection_rate` is that of a /64; what is no address counts alone",
)
def test_the_rate_of_one_network() -> None:
    addresses = Addresses(Limits(connection_rate=1))
    tried = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::", "no:address", "192.0.2.1"]
    assert [addresses.admit(address, 0) for address in tried] == [True, True, False, True, True, True]


@flaw(
    "found here",
    what="is counted under two addresses, as IPv4 and as IPv6 that IPv4 is mapped to",
    here="both are the IPv4 address: of TCP, of a PROXY header, of X-Forwarded-For, of `trusted`",
)
@pytest.mark.parametrize("trusted", ["10.0.0.0/8", "::ffff:10.0.0.0/104"])
async def test_spellings_of_one_address(trusted: str) -> None:
    proxies = Trusted([trusted])
    assert PROXY in proxies
    assert f"::ffff:{PROXY}" in proxies
    assert "11.0.0.1" not in proxies
    assert forwarded(f"1.2.3.4, ::FFFF:{PROXY}", trusted=proxies) == "1.2.3.4"
    assert {forwarded(one) for one in ("1.2.3.4", "::ffff:1.2.3.4", "::ffff:102:304")} == {"1.2.3.4"}
    assert forwarded("2001:DB8:0::1") == "2001:db8::1"
    prefix = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24"
    mapped = bytes(10) + b"\xff\xff\1\2\3\4"
    assert proxied_address(prefix, mapped + bytes(20)) == "1.2.3.4"


async def accepted_address(monkeypatch: pytest.MonkeyPatch, reported: tuple[Any, ...]) -> str:
    """Returns the address that a connection counts for, by what the operating system reports."""
    server = echo_server()
    await server.listen(Endpoint("127.0.0.1"))
    (acceptor,) = server._acceptors
    ours, theirs = socket.socketpair()
    seen: list[str] = []

    class Listening:
        def accept(self) -> tuple[socket.socket, tuple[Any, ...]]:
            return theirs, reported

    def make_protocol(address: str, deadline: float) -> bytes:
        seen.append(address)
        return b""

    with monkeypatch.context() as patch:
        patch.setattr(acceptor, "socket", Listening())
        patch.setattr(acceptor, "_make_protocol", make_protocol)
        Acceptor._accept(acceptor, 1)
    ours.close()
    await server.stop()
    return seen[0]


@flaw(
    "found here",
    what="connects by IPv4 to a socket for both families, or by a link that names its zone",
    here="its address is the IPv4 one, or has no zone",
)
async def test_addresses_that_the_operating_system_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await accepted_address(monkeypatch, ("::ffff:192.0.2.1", 1, 0, 0)) == "192.0.2.1"
    assert await accepted_address(monkeypatch, ("fe80::1%eth0", 1, 0, 2)) == "fe80::1"
    assert await accepted_address(monkeypatch, ("192.0.2.1", 1)) == "192.0.2.1"


@flaw(
    "found here",
    what="reports an address with a zone of 5,000 characters, which is kept and logged",
    here="the zone is dropped; what is no address is not used",
)
def test_zones() -> None:
    assert forwarded(f"fe80::1%{'z' * 5000}") == "fe80::1"
    assert forwarded("fe80::1%\u00e9") == "fe80::1"
    for wrong in (
        "%" + "z" * 5000,
        "1.2.3.4%eth0",
        "1.2.3.4:80",
        "[2001:db8::1]:443",
        "01.2.3.4",
        "::g",
        ":" * 8000,
    ):
        assert forwarded(wrong) == PROXY


@flaw(
    "found here",
    what="reports 6,230 hops that are trusted: 88 ms in one turn",
    here="at most 100 are read, from the right",
)
def test_many_hops() -> None:
    class Counting(Trusted):
        asked = 0

        def __contains__(self, address: str) -> bool:
            self.asked += 1
            return super().__contains__(address)

    trusted = Counting(["10.0.0.0/8"])
    assert forwarded(*[",".join([PROXY] * 890)] * 7, trusted=trusted) == PROXY
    assert trusted.asked == MAX_HOPS + 1
    near, far = [f"1.2.3.4{f', {PROXY}' * hops}" for hops in (MAX_HOPS - 1, MAX_HOPS)]
    assert (forwarded(near), forwarded(far)) == ("1.2.3.4", PROXY)
