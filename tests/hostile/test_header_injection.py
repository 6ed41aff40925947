"""What the codec writes into HTTP."""

from collections.abc import Callable

import pytest

from rfc6455 import (
    ClientHandshake,
    Extension,
    HandshakeFailed,
    Headers,
    LocalProtocolError,
    PerMessageDeflate,
    Request,
    Response,
    ServerHandshake,
)
from tests.hostile.flaws import flaw

SAFE = "x"
BAD = ["\r\nX: 1", "\nX: 1", "\rX", "\0", "\x0b", "\x1b[2J", "\x7f", "\u2028", "\u010a", "\ud800"]
"""CR, LF and NUL; other control characters; U+010A, whose low byte is LF; what Latin-1 does not have."""

REQUEST = Request(
    "GET",
    "/",
    Headers(
        [
            ("Host", "a"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Protocol", "x"),
        ]
    ),
)


def pending() -> ServerHandshake:
    handshake = ServerHandshake.from_request(REQUEST)
    assert handshake.next_event() is REQUEST
    return handshake


def accepted(**arguments: object) -> bytes:
    handshake = pending()
    handshake.accept(**arguments)  # type: ignore[arg-type]
    return handshake.data_to_send()


def rejected(headers: list[tuple[str, str]]) -> bytes:
    handshake = pending()
    handshake.reject(403, headers=headers, body=b"no")
    return handshake.data_to_send().removesuffix(b"no")


def requested(host: str = "a", target: str = "/", **arguments: object) -> bytes:
    return ClientHandshake(host, target, **arguments).data_to_send()  # type: ignore[arg-type]


WRITERS: dict[str, Callable[[str], bytes]] = {
    "accept, a value": lambda text: accepted(headers=[("X", text)]),
    "accept, a name": lambda text: accepted(headers=[("X" + text, "y")]),
    "accept, the subprotocol": lambda text: accepted(subprotocol=text),
    "reject, a value": lambda text: rejected([("Location", "/" + text)]),
    "reject, a name": lambda text: rejected([("X" + text, "y")]),
    "client, the host": lambda text: requested(host="a" + text),
    "client, the target": lambda text: requested(target="/" + text),
    "client, the origin": lambda text: requested(origin="http://a" + text),
    "client, a subprotocol": lambda text: requested(subprotocols=["a" + text]),
    "client, a value": lambda text: requested(headers=[("Cookie", text)]),
    "client, a name": lambda text: requested(headers=[("X" + text, "y")]),
    "a request, the method": lambda text: Request("GET" + text, "/").encode(),
    "a request, the target": lambda text: Request("GET", "/" + text).encode(),
    "a request, a value": lambda text: Request("GET", "/", Headers([("X", text)])).encode(),
    "a response, the reason": lambda text: Response(200, reason="OK" + text).encode(),
    "a response, a value": lambda text: Response(200, Headers([("X", text)])).encode(),
}


@flaw(
    "CVE-2020-7695",
    "CVE-2026-1527",
    what="makes an application write CR, LF or NUL of the peer into a head, and so a field or a response",
    here="`LocalProtocolError` for each part of a head, before anything is queued",
)
@pytest.mark.parametrize("text", BAD, ids=ascii)
@pytest.mark.parametrize("writer", WRITERS)
def test_control_characters_in_what_is_written(writer: str, text: str) -> None:
    lines = WRITERS[writer](SAFE).count(b"\r\n")
    for where in (text, SAFE + text, text + SAFE):
        try:
            written = WRITERS[writer](where)
        except LocalProtocolError:
            continue
        pytest.fail(f"{lines} lines became {written!r}")


@flaw(
    "CVE-2026-1527",
    what="makes an application write a version of HTTP that ends the line",
    here="`LocalProtocolError`",
)
@pytest.mark.parametrize("version", ["1.1\r\nX: y", "1.1\n", "", "11", "1.10", "１.１"], ids=ascii)
def test_the_version_that_is_written(version: str) -> None:
    for head in (Request("GET", "/", version=version), Response(200, version=version)):
        with pytest.raises(LocalProtocolError) as caught:
            head.encode()
        assert caught.value.slug == "bad-version"
    assert Request("GET", "/", version="1.0").encode().startswith(b"GET / HTTP/1.0\r\n")


@flaw(
    "CVE-2020-7695",
    what="sends what comes back in the answer that refuses it: a name, a value or a target",
    here="the answers are fixed texts; nothing of the request is in them",
)
@pytest.mark.parametrize(
    "line",
    [
        b"GET /<script>injected\xff HTTP/1.1\r\n",
        b"GET / injected HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\ninjected\x1b: 1\r\n",
        b"GET / HTTP/1.1\r\nHost: injected host\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: injected,;\r\n",
        b"injected / HTTP/1.1\r\n",
        b"GET injected: HTTP/1.1\r\nHost: a\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: injected\r\n",
    ],
)
def test_an_answer_has_nothing_of_the_request(line: bytes) -> None:
    handshake = ServerHandshake()
    handshake.receive_data(line + b"\r\n")
    assert isinstance(handshake.next_event(), HandshakeFailed)
    answer = handshake.data_to_send()
    assert b"injected" not in answer
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 4")
    assert b"Content-Length: %d" % len(body) in head
    assert b"Content-Type: text/plain; charset=utf-8" in head


@flaw(
    what="offers an extension whose parameters would come back in the answer",
    here="the answer is made of our own names and numbers",
)
def test_an_extension_has_nothing_of_the_offer() -> None:
    offer = Extension("permessage-deflate", (("server_max_window_bits", "10\r\nX: y"),))
    assert PerMessageDeflate().accept([offer]) is None
    offer = Extension("permessage-deflate", (("server_max_window_bits", "10"),))
    accepted = PerMessageDeflate().accept([offer])
    assert accepted is not None
    assert str(accepted[1]) == "permessage-deflate; server_max_window_bits=10"
