"""Heads of HTTP, as the codec reads them."""

import sys
from collections.abc import Iterator

import pytest

from rfc6455 import (
    ClientHandshake,
    HandshakeAccepted,
    HandshakeFailed,
    HandshakeRejected,
    Headers,
    PerMessageDeflate,
    Request,
    ServerHandshake,
    accept_value,
)
from rfc6455.http11 import RequestParser
from rfc6455_server.listening.routing import Router, Site
from tests.helpers import bytes_held, peak_bytes
from tests.hostile.flaws import flaw

FIELDS = {
    "Host": "a",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
    "Origin": "http://a",
    "Sec-WebSocket-Protocol": "chat",
    "Sec-WebSocket-Extensions": "permessage-deflate",
}
ANSWER = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Accept": accept_value("A" * 22 + "=="),
    "Sec-WebSocket-Protocol": "chat",
    "Sec-WebSocket-Extensions": "permessage-deflate",
}


def head(fields: dict[str, str], *more: str, line: str = "GET / HTTP/1.1") -> bytes:
    lines = [line, *(f"{name}: {value}" for name, value in fields.items()), *more, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def served(data: bytes) -> Request | HandshakeFailed | None:
    """Returns the event; asserts that it is the same byte by byte, and that a 4xx answers a failure."""
    at_once = ServerHandshake(deflate=PerMessageDeflate())
    at_once.receive_data(data)
    event = at_once.next_event()
    in_bytes = ServerHandshake(deflate=PerMessageDeflate())
    events = []
    for byte in data:
        in_bytes.receive_data(bytes([byte]))
        events.append(in_bytes.next_event())
    found = [one for one in events if one is not None]
    assert len(found) <= 1
    same = found[0] if found else None
    if isinstance(event, HandshakeFailed):
        assert isinstance(same, HandshakeFailed)
        assert same.error.slug == event.error.slug
        assert at_once.data_to_send().startswith(b"HTTP/1.1 4")
    else:
        assert same == event
    return event


def failure(data: bytes) -> tuple[int, str]:
    """Returns the status and the slug with which a request is refused."""
    event = served(data)
    assert isinstance(event, HandshakeFailed)
    return event.error.status, event.error.slug


def asked(data: bytes) -> HandshakeAccepted | HandshakeRejected | HandshakeFailed | None:
    """Returns the event of a client that receives ``data``."""
    handshake = ClientHandshake(
        "a", subprotocols=["chat"], deflate=PerMessageDeflate(), key_source=lambda: bytes(16)
    )
    handshake.receive_data(data)
    return handshake.next_event()


@flaw(
    "CVE-2026-69243",
    what="sends an Upgrade with a body, by both lengths, chunked or doubled: a proxy sees two requests",
    here="400, and the connection is closed",
)
@pytest.mark.parametrize(
    "more",
    [
        ("Content-Length: 5",),
        ("Transfer-Encoding: chunked",),
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Content-Length: 0", "Transfer-Encoding: chunked"),
        ("Content-Length: 0", "Content-Length: 5"),
        ("Content-Length: 0", "Content-Length: 0"),
        ("Content-Length: 0, 5",),
        ("Content-Length: +0",),
        ("Content-Length: 0x0",),
        ("Content-Length: 0_0",),
        ("Content-Length: \xb2",),
        ("Content-Length:",),
        ("Transfer-Encoding:",),
        ("Transfer-Encoding: \x0bchunked",),
        ("Transfer-Encoding : chunked",),
        ("Transfer-Encoding: identity",),
        (" Transfer-Encoding: chunked",),
    ],
)
def test_an_upgrade_with_a_body(more: tuple[str, ...]) -> None:
    assert isinstance(served(head(FIELDS)), Request)
    assert isinstance(asked(head(ANSWER, line="HTTP/1.1 101 OK")), HandshakeAccepted)
    status, slug = failure(head(FIELDS, *more))
    assert status == 400
    assert slug in ("body", "doubled-field", "bad-field-line")
    assert isinstance(asked(head(ANSWER, *more, line="HTTP/1.1 101 OK")), HandshakeFailed)


@flaw(
    "GHSA-4mp9-239f-g9hg",
    what="leaves out Upgrade or Connection, or asks for an old version, and is taken for a WebSocket",
    here="426, which names `websocket` and version 13; a malformed version is a 400",
)
@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("Upgrade", None, (426, "bad-upgrade")),
        ("Upgrade", "h2c", (426, "bad-upgrade")),
        ("Upgrade", "websocket2", (426, "bad-upgrade")),
        ("Upgrade", "web socket", (400, "bad-token-list")),
        ("Connection", None, (426, "bad-connection")),
        ("Connection", "keep-alive", (426, "bad-connection")),
        ("Connection", "Upgrade2", (426, "bad-connection")),
        ("Sec-WebSocket-Version", None, (426, "unsupported-version")),
        *(("Sec-WebSocket-Version", str(old), (426, "unsupported-version")) for old in (0, 4, 7, 8, 12, 14)),
        ("Sec-WebSocket-Version", "8, 13", (400, "bad-version")),
        ("Sec-WebSocket-Version", "1_3", (400, "bad-version")),
        ("Sec-WebSocket-Version", "+13", (400, "bad-version")),
        ("Sec-WebSocket-Version", "013", (400, "bad-version")),
        ("Sec-WebSocket-Version", "13.0", (400, "bad-version")),
        ("Sec-WebSocket-Version", "\xef\xbc\x91\xef\xbc\x93", (400, "bad-version")),
        ("Sec-WebSocket-Version", "\xb9\xb3", (400, "bad-version")),
    ],
)
def test_what_is_no_upgrade_to_this_version(name: str, value: str | None, expected: tuple[int, str]) -> None:
    fields = {**FIELDS, name: value or ""}
    if value is None:
        del fields[name]
    assert failure(head(fields)) == expected
    if name in ANSWER and value is not None:
        answer = head({**ANSWER, name: value}, line="HTTP/1.1 101 OK")
        assert isinstance(asked(answer), HandshakeFailed)


SEPARATORS = ["\n", "\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\xe2\x80\xa8", "\xe2\x80\xa9"]


@flaw(
    "CVE-2026-44546",
    what="hides a field behind a line end that only `str.splitlines` knows: VT, FF, FS, NEL, U+2028",
    here="a line ends with CRLF only; control characters are a 400, and NEL is a character of the value",
)
@pytest.mark.parametrize("separator", SEPARATORS, ids=ascii)
def test_line_ends(separator: str) -> None:
    event = served(head(FIELDS, f"X: a{separator}Transfer-Encoding: chunked"))
    if separator[0] in "\x85\xe2":
        assert isinstance(event, Request)
        assert event.headers["X"] == f"a{separator}Transfer-Encoding: chunked"
        assert "Transfer-Encoding" not in event.headers
        assert len(event.headers) == len(FIELDS) + 1
    else:
        assert isinstance(event, HandshakeFailed)
        assert event.error.slug in ("bad-field-line", "bare-line-feed")
    # In the request line there is no such character at all.
    assert failure(head(FIELDS, line=f"GET /{separator} HTTP/1.1"))[0] == 400


LOOKALIKES = [
    ("Upgrade", "websoc\u212aet"),  # the Kelvin sign, whose lower case is k
    ("Upgrade", "web\u017focket"),  # the long s, whose upper case is S
    ("Upgrade", "webs\u00f6cket"),
    ("Connection", "upgr\u00e0de"),
    ("Connection", "\uff35pgrade"),
    ("Sec-WebSocket-Version", "\uff11\uff13"),
    ("Sec-WebSocket-Version", "\u0661\u0663"),
    ("Sec-WebSocket-Key", "\uff21QIDBAUGBwgJCgsMDQ4PEA=="[:24]),
    ("Host", "\u212a"),
    ("Host", "a:\u0661"),
]


@flaw(
    what="writes a keyword with a character that case folding turns into ASCII, or a number in other digits",
    here="only ASCII matches ASCII, as bytes on the wire and as text that another server has parsed",
)
@pytest.mark.parametrize(("name", "value"), LOOKALIKES, ids=ascii)
def test_case_folding_and_other_digits(name: str, value: str) -> None:
    as_bytes = value.encode().decode("latin-1")
    assert failure(head({**FIELDS, name: as_bytes}))[0] in (400, 426)
    given = Headers()
    given.add_parsed({**FIELDS, name: value}.items())  # an embedder that decodes UTF-8
    event = ServerHandshake.from_request(Request("GET", "/", given)).next_event()
    assert isinstance(event, HandshakeFailed)
    if name in ANSWER:
        assert isinstance(asked(head({**ANSWER, name: as_bytes}, line="HTTP/1.1 101 OK")), HandshakeFailed)


@flaw(
    "CVE-2026-42544",
    what="puts bytes that are not ASCII into a field of the handshake, and the server raises",
    here="400 or 426, or a value like any other where the field is free text; nothing is raised",
)
@pytest.mark.parametrize("value", ["\xff", "caf\xe9", "\xe4\xbd\xa0", "\x80\x81", "\xa0", "\xad"], ids=ascii)
@pytest.mark.parametrize("name", [*FIELDS, "Cookie", "User-Agent"])
def test_other_characters_in_every_field(name: str, value: str) -> None:
    for text in (value, FIELDS.get(name, "") + value, value + FIELDS.get(name, "")):
        event = served(head({**FIELDS, name: text}))
        if name in ("Origin", "Cookie", "User-Agent"):
            assert isinstance(event, Request)
            assert event.headers[name] == text
        else:
            assert isinstance(event, HandshakeFailed)
        answer = asked(head({**ANSWER, name: text}, line=f"HTTP/1.1 101 {value}"))
        assert isinstance(answer, HandshakeFailed) is (name in ANSWER)
    assert failure(head(FIELDS, f"{value}: x")) == (400, "bad-field-line")
    assert failure(head(FIELDS, line=f"GET /{value} HTTP/1.1")) == (400, "bad-request-line")


def calls_of(data: bytes, read: int) -> int:
    """Returns how many functions a handshake calls for ``data``, in reads of ``read`` bytes."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    handshake = ServerHandshake(deflate=PerMessageDeflate())
    sys.setprofile(count)
    try:
        for start in range(0, len(data), read):
            handshake.receive_data(data[start : start + read])
            if handshake.next_event() is not None:
                break
    finally:
        sys.setprofile(None)
    return calls


@flaw(
    "CVE-2021-32640",
    "CVE-2024-37890",
    "CVE-2023-43669",
    what="sends a flood of fields, one endless line, or values whose parsing takes quadratic time",
    here="414 or 431 at 8 KiB a line, 128 fields, 64 KiB a head; the calls that it costs grow with its bytes",
)
@pytest.mark.parametrize("read", [1, 10_000], ids=["byte by byte", "at once"])
@pytest.mark.parametrize(
    ("data", "slug"),
    [
        (b"GET /" + b"a" * 20_000, "start-line-too-long"),
        (b"A" * 20_000, "start-line-too-long"),
        (head({"X": "a" * 20_000}), "head-too-large"),
        (head({f"X{i}": "" for i in range(2000)}), "too-many-fields"),
        (head({f"X{i}": "a" * 1000 for i in range(100)}), "head-too-large"),
        (head({**FIELDS, "Sec-WebSocket-Protocol": "a, " * 1000 + "a"}), "bad-subprotocol"),
        (head({**FIELDS, "Sec-WebSocket-Protocol": "a" + " " * 4000 + "b"}), "bad-token-list"),
        (head({**FIELDS, "Sec-WebSocket-Extensions": 'a; b="' + "\\" * 4001}), "bad-extensions"),
        (head({**FIELDS, "Sec-WebSocket-Extensions": "a" + ";a" * 1000 + "\x80"}), "bad-extensions"),
        (head({**FIELDS, "Sec-WebSocket-Extensions": "a" + ";a" * 3000}), "too-many-extensions"),
        (head({**FIELDS, "Connection": "a," * 1000 + "\x80"}), "bad-token-list"),
        (head({**FIELDS, "Upgrade": "a/" * 4000}), "bad-token-list"),
    ],
)
def test_floods(data: bytes, slug: str, read: int) -> None:
    handshake = ServerHandshake()
    for start in range(0, len(data), read):
        handshake.receive_data(data[start : start + read])
        event = handshake.next_event()
        if event is not None:
            break
    assert isinstance(event, HandshakeFailed)
    assert event.error.slug == slug
    size = min(len(data), start + read)
    assert size <= 65_537 + read
    # For each byte that arrives alone there are 12 calls or so, and as many again for each that is parsed.
    assert calls_of(data, read) < (20 if read == 1 else 6) * size + 500


@flaw(
    "found here",
    what="fills the head with the elements of a list, `,`: 56,000 in Upgrade took 35 ms in one turn",
    here="431 above 1,024 commas, before any element is looked at; Upgrade of HTTP requests is not split",
)
@pytest.mark.parametrize("name", ["Connection", "Upgrade", "Sec-WebSocket-Protocol"])
@pytest.mark.parametrize("element", [",", "a,", " ,", "a/b,"])
def test_more_elements_than_anybody_sends(name: str, element: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = element * (8000 // len(element)) + "x"
    fields = Headers([*((one, text) for one, text in FIELDS.items() if one != name), *[(name, value)] * 7])
    handshake = ServerHandshake()
    data = Request("GET", "/", fields).encode()
    assert calls_of(data, len(data)) < 1000
    handshake.receive_data(data)
    event = handshake.next_event()
    assert isinstance(event, HandshakeFailed)
    assert event.error.slug == "too-many-elements"
    assert handshake.data_to_send().startswith(b"HTTP/1.1 431 ")
    monkeypatch.setattr("rfc6455_server.listening.routing.ascii_lower", None)
    assert Router(Site()).is_http(event) is (name == "Upgrade")


@flaw(
    "CVE-2024-37890",
    what="trickles a head, so that each byte costs a search of all that came before",
    here="each byte is searched once",
)
def test_a_trickled_head_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    searched = 0

    class Buffer(bytearray):
        def find(self, what: object, start: object = 0, end: object = None) -> int:
            nonlocal searched
            stop = len(self) if end is None else min(len(self), int(str(end)))
            searched += max(0, stop - int(str(start)))
            return super().find(what, start, stop)  # type: ignore[arg-type]

    def trickle() -> Iterator[bytes]:
        yield b"GET /"
        for _ in range(8000):
            yield b"a"

    parser = RequestParser()
    parser._buffer = Buffer()
    for chunk in trickle():
        parser.receive_data(chunk)
        assert parser.next_head() is None
    assert 8000 < searched < 3 * 8005


@flaw(
    "found here",
    what="sends 200 MiB behind its request while the application decides, and all of it is held",
    here="more than `max_early_data` (64 KiB) fails the handshake with 400, and it is dropped",
)
@pytest.mark.parametrize("given", [True, False], ids=["a given head", "a head of bytes"])
def test_early_data(*, given: bool) -> None:
    def waiting() -> ServerHandshake:
        if given:
            handshake = ServerHandshake.from_request(Request("GET", "/", Headers(FIELDS.items())))
        else:
            handshake = ServerHandshake()
            handshake.receive_data(head(FIELDS))
        assert isinstance(handshake.next_event(), Request)
        for _ in range(200):
            handshake.receive_data(bytes(10_000))
        return handshake

    assert peak_bytes(waiting) < 200_000
    assert bytes_held(waiting) < 20_000
    handshake = waiting()
    failed = handshake.next_event()
    assert isinstance(failed, HandshakeFailed)
    assert (failed.error.status, failed.error.slug) == (400, "early-data")
    assert handshake.should_close


@flaw(
    "found here",
    what="sends data that nobody pulls an event of: the head is never looked at, and all of it is held",
    here="more than a head and `max_early_data` fails the handshake",
)
def test_input_that_nobody_pulls() -> None:
    def flooded() -> ServerHandshake:
        handshake = ServerHandshake()
        for _ in range(200):
            handshake.receive_data(bytes(10_000))
        return handshake

    assert peak_bytes(flooded) < 400_000
    assert isinstance(flooded().next_event(), HandshakeFailed)


@flaw(
    "found here",
    what="invents names of fields, which are interned: for ever, on CPython 3.12: 134 MB of 1,000 requests",
    here="nothing of a request that is gone is kept; only names of a fixed table are shared",
)
def test_invented_names() -> None:
    serial = iter(range(1_000_000))

    def refused() -> None:
        for _ in range(20):
            number = next(serial)
            handshake = ServerHandshake()
            handshake.receive_data(head({f"X{number}-{i}-{'n' * 400}": "v" for i in range(100)}))
            assert isinstance(handshake.next_event(), HandshakeFailed)

    assert bytes_held(refused) < 5000  # the names have 820 KB


@flaw(
    "found here",
    what="invents names of fields, and interned ones outlive the request on some versions of Python only",
    here="no name of a request is interned",
)
def test_no_name_is_interned() -> None:
    name = "".join(["X-Invented-", "Name"])
    first, second = Headers([(name, "1")]), Headers([("".join(["X-Invented-", "Name"]), "1")])
    assert next(iter(first))[0] is not next(iter(second))[0]
    assert next(iter(first._index)) is not next(iter(second._index))
