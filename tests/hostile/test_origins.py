"""Pages of other origins (cross-site hijacking of WebSockets)."""

import asyncio
import re

import pytest

from rfc6455 import ClientHandshake, Headers, Request
from rfc6455_server import Endpoint, HttpRequest, HttpResponse, Server
from rfc6455_server.socketio import SocketIO
from rfc6455_server.testing import TestClient, settle
from tests.hostile.flaws import flaw
from tests.server_helpers import Certificate, RawPeer, Recorder, echo_server, serving
from tests.test_acceptor import PROXY
from tests.test_http import ask

ALLOWED = "https://chat.example"
VARIANTS = [
    "null",
    "NULL",
    "",
    "chat.example",
    "//chat.example",
    "http://chat.example",
    "ws://chat.example",
    "wss://chat.example",
    "https://chat.example.",
    "https://chat.example/",
    "https://chat.example:443",
    "https://chat.example:80",
    "https://chat.example:8443",
    "https://chat.example.evil.test",
    "https://chat.example@evil.test",
    "https://evil.test/https://chat.example",
    "https://evil.test?https://chat.example",
    "https://evil.test#https://chat.example",
    "https://evilchat.example",
    "https://sub.chat.example",
    "https://chat-example",
    "https://chatxexample",
    "https://chat.example https://evil.test",
    "https://evil.test, https://chat.example",
    "https://chat.example, https://evil.test",
    "https:chat.example",
    "https:///chat.example",
    "https:\\\\chat.example",
    "https://chat.example\\.evil.test",
    "https://chat.example%00.evil.test",
    "https://chat.example%2eevil.test",
    "https://[chat.example",
    "https://xn--chat-example",
    "https://ch\xe4t.example",
    "file://",
    "chrome-extension://chat.example",
]


async def status(server: Server, fields: list[tuple[str, str]], target: str = "/echo") -> int:
    """Returns the status of a request for a WebSocket."""
    async with TestClient(server) as client:
        peer = Recorder(client.clock)
        handshake = ClientHandshake("chat.example", target).data_to_send()
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields).encode("latin-1")
        client.open(peer, "127.0.0.1").write(handshake[:-2] + lines + b"\r\n")
        await settle()
        return int(peer.received.split()[1])


def socketio_server(**options: object) -> Server:
    server = Server(trusted=["127.0.0.1"])
    server.mount(SocketIO(**options))  # type: ignore[arg-type]
    return server


ENGINE = "/socket.io/?EIO=4&transport=websocket"


@flaw(
    "CVE-2019-13611",
    "CVE-2025-24010",
    what="opens a WebSocket from a foreign page, with the cookies of its user: any way to write an origin"
    " that resembles an allowed one",
    here="403: an origin is compared as a whole, with its scheme and port; `null` is never allowed",
)
@pytest.mark.parametrize("origin", VARIANTS)
@pytest.mark.parametrize("kind", ["own", "listed", "Socket.IO", "Socket.IO listed"])
async def test_every_variant_of_an_origin_is_refused(kind: str, origin: str) -> None:
    fields = [("Origin", origin), ("X-Forwarded-Proto", "https")]
    listed = kind.endswith("listed")
    if kind.startswith("Socket.IO"):
        server, target = socketio_server(cors=[ALLOWED] if listed else ()), ENGINE
    else:
        server, target = echo_server(trusted=["127.0.0.1"], origins=[ALLOWED] if listed else None), "/echo"
    assert await status(server, [("Origin", ALLOWED), ("X-Forwarded-Proto", "https")], target) == 101
    assert await status(server, fields, target) == 403


@flaw(
    "CVE-2019-13611",
    what="names two origins, one of which is allowed",
    here="400: the field occurs once",
)
@pytest.mark.parametrize("origins", [[ALLOWED, "https://evil.test"], ["https://evil.test", ALLOWED]])
async def test_two_origins_are_none(origins: list[str]) -> None:
    fields = [("Origin", origin) for origin in origins] + [("X-Forwarded-Proto", "https")]
    assert await status(echo_server(trusted=["127.0.0.1"], origins=[ALLOWED]), fields) == 400
    assert await status(socketio_server(cors=[ALLOWED]), fields, ENGINE) == 400


@flaw(
    "found here",
    what="hides its origin (a sandboxed frame sends `null`), which `*` or a rule allows",
    here="403, whatever the rule; `null` as a rule raises",
)
@pytest.mark.parametrize("rule", ["*", lambda origin, request: True, re.compile(".*")])
async def test_a_hidden_origin_never_passes(rule: object) -> None:
    assert await status(echo_server(origins=["*"]), [("Origin", "null")]) == 403
    assert await status(echo_server(origins=["*"]), [("Origin", "https://any.test")]) == 101
    assert await status(socketio_server(cors=rule), [("Origin", "null")], ENGINE) == 403
    assert await status(socketio_server(cors=rule), [("Origin", "https://any.test")], ENGINE) == 101
    server = socketio_server(cors=rule)
    async with serving(server) as url:
        for method in ("GET", "OPTIONS"):
            request = f"{method} /socket.io/?EIO=4&transport=polling HTTP/1.1\nHost: a\nOrigin: null\n"
            answer = await ask(url, request)
            assert (answer.status, "access-control-allow-origin" in answer.fields) == (403, False)
    with pytest.raises(ValueError, match="null"):
        SocketIO(cors=["null"])
    with pytest.raises(ValueError, match="null"):
        Server(origins=["null"])


@flaw(
    "found here",
    what="serves a page of the same name over HTTP (as a man in the middle), which connects over TLS",
    here="403: the scheme is part of an origin. It is that of TLS, or what a trusted proxy reports",
)
@pytest.mark.parametrize(
    ("trusted", "proto", "origin", "expected"),
    [
        (["127.0.0.1"], "https", "https://chat.example", 101),
        (["127.0.0.1"], "https", "http://chat.example", 403),
        (["127.0.0.1"], "http", "http://chat.example", 101),
        (["127.0.0.1"], "http", "https://chat.example", 403),
        (["127.0.0.1"], None, "http://chat.example", 101),
        (["127.0.0.1"], None, "https://chat.example", 403),
        ([], "https", "http://chat.example", 101),  # not believed
        ([], "https", "https://chat.example", 403),
    ],
)
async def test_the_scheme_is_part_of_an_origin(
    trusted: list[str], proto: str | None, origin: str, expected: int
) -> None:
    fields = [("Origin", origin), *([("X-Forwarded-Proto", proto)] if proto else [])]
    assert await status(echo_server(trusted=trusted), fields) == expected
    server = Server(trusted=trusted)
    server.mount(SocketIO())
    assert await status(server, fields, ENGINE) == expected


@flaw(
    "found here",
    what="serves a page of the same name over HTTP, which opens a WebSocket over TLS",
    here="403, with TLS of the server's own, and with that of a proxy that sends a PROXY header",
)
@pytest.mark.parametrize("kind", ["tls", "proxy", "proxy with tls"])
async def test_the_scheme_of_a_real_connection(kind: str, certificate: Certificate) -> None:
    server = echo_server(trusted=["127.0.0.1"])
    context = certificate.server_context() if kind == "tls" else None
    await server.listen(Endpoint("127.0.0.1", ssl_context=context, proxy_protocol=kind != "tls"))
    secure = kind != "proxy"
    for scheme in ("http", "https"):
        if kind == "tls":
            opening = asyncio.open_connection(
                "127.0.0.1", server.port, ssl=certificate.client_context(), server_hostname="localhost"
            )
        else:
            opening = asyncio.open_connection("127.0.0.1", server.port)
        peer = RawPeer(*await opening)
        if kind == "proxy":
            peer.writer.write(PROXY)
        elif kind == "proxy with tls":
            extension = b"\x20\0\x05\x01\0\0\0\0"
            size = (12 + len(extension)).to_bytes(2, "big")
            peer.writer.write(PROXY[:14] + size + PROXY[16:] + extension)
        peer.writer.write(ClientHandshake("a.test", "/echo", origin=f"{scheme}://a.test").data_to_send())
        head = await peer.reader.readuntil(b"\r\n\r\n")
        assert int(head.split()[1]) == (101 if (scheme == "https") is secure else 403)
        peer.writer.transport.abort()
        await peer.close()
    await server.stop()


@flaw(
    "found here",
    what="reaches a proxy by other means than IP, and writes X-Forwarded-For itself: a PROXY header without"
    " an address (UNSPEC, UNIX) made the client the trusted proxy",
    here="its address is `unknown`, which is never trusted, and counts as one address",
)
@pytest.mark.parametrize("family", [b"\x00", b"\x31"])
async def test_a_proxy_header_without_an_address_gives_no_trust(family: bytes) -> None:
    server = Server(trusted=["127.0.0.1", "unix"], max_connections_per_address=1)
    seen: list[str] = []

    @server.http("/")
    async def page(request: HttpRequest) -> HttpResponse:
        seen.append(request.address)
        return HttpResponse(b"hi")

    await server.listen(Endpoint("127.0.0.1", proxy_protocol=True))
    url = f"ws://127.0.0.1:{server.port}"
    addresses = bytes(216) if family == b"\x31" else b""
    header = PROXY[:13] + family + len(addresses).to_bytes(2, "big") + addresses
    peer, second = await RawPeer.connect(url), await RawPeer.connect(url)
    peer.writer.write(header + b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n")
    assert b" 200 " in await peer.reader.readuntil(b"\r\n")
    assert seen == ["unknown"]
    second.writer.write(header + b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.8\r\n\r\n")
    assert b" 429 " in await second.reader.readuntil(b"\r\n")
    await peer.close()
    await second.close()
    await server.stop()


@flaw(
    "CVE-2019-13611",
    what="is no browser and sends no origin: it can act for nobody but itself",
    here="allowed; a browser sends its origin with every WebSocket (RFC 6455 §10.2)",
)
async def test_a_client_without_an_origin_is_no_browser() -> None:
    assert await status(echo_server(), []) == 101
    assert Request("GET", "/", Headers()).origin is None
