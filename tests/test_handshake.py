"""Both sides of the opening handshake."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfc6455 import (
    BinaryMessage,
    ClientHandshake,
    Connection,
    ConnectionFailed,
    DeflateParameters,
    HandshakeAccepted,
    HandshakeFailed,
    HandshakeRejected,
    Headers,
    LocalProtocolError,
    Opcode,
    PerMessageDeflate,
    Request,
    Role,
    ServerHandshake,
    State,
    TextMessage,
    accept_value,
    encode_frame,
)
from rfc6455.handshake import ConnectionOptions
from tests.helpers import KEY, peak_bytes, raw_frame, split_at

SAMPLE_KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 §1.3
SAMPLE_ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

FIELDS = [
    ("Host", "server.example.com"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", SAMPLE_KEY),
    ("Origin", "http://example.com"),
    ("Sec-WebSocket-Protocol", "chat, superchat"),
    ("Sec-WebSocket-Version", "13"),
]
REQUEST_LINE = "GET /chat HTTP/1.1"


def head(start_line: str, fields: list[tuple[str, str]]) -> bytes:
    lines = [start_line, *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def changed(name: str, *values: str, fields: list[tuple[str, str]] = FIELDS) -> list[tuple[str, str]]:
    """Returns `fields` with one line of `name` for each of `values`: none removes it, two double it."""
    return [field for field in fields if field[0] != name] + [(name, value) for value in values]


def serve(data: bytes, **options: object) -> tuple[ServerHandshake, Request | HandshakeFailed | None]:
    handshake = ServerHandshake(**options)  # type: ignore[arg-type]
    handshake.receive_data(data)
    return handshake, handshake.next_event()


def parsed_response(data: bytes) -> tuple[int, dict[str, str], bytes]:
    top, _, body = data.partition(b"\r\n\r\n")
    status_line, *lines = top.decode().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    assert len(fields) == len(lines)
    return int(status_line.split(" ")[1]), fields, body


def test_the_accept_value_of_the_rfc() -> None:
    assert accept_value(SAMPLE_KEY) == SAMPLE_ACCEPT


# The server.


def test_the_example_of_the_rfc() -> None:
    """RFC 6455 §1.3, with the subprotocol that its server picks."""
    handshake, request = serve(head(REQUEST_LINE, FIELDS))
    assert request == Request("GET", "/chat", Headers(FIELDS))
    assert isinstance(request, Request)
    assert (request.origin, request.subprotocols) == ("http://example.com", ["chat", "superchat"])
    assert handshake.next_event() is None
    assert handshake.data_to_send() == b""
    connection = handshake.accept(subprotocol="chat")
    assert handshake.data_to_send() == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"Sec-WebSocket-Protocol: chat\r\n\r\n"
    )
    assert handshake.data_to_send() == b""
    assert not handshake.should_close
    assert (connection.role, connection.state, connection.subprotocol) == (Role.SERVER, State.OPEN, "chat")


@given(st.lists(st.integers(min_value=0), max_size=10))
def test_any_split_of_request_and_early_frames(cuts: list[int]) -> None:
    data = head(REQUEST_LINE, FIELDS) + encode_frame(Opcode.TEXT, b"early", mask_key=KEY)
    handshake = ServerHandshake()
    requests = []
    for chunk in split_at(data, cuts):
        handshake.receive_data(chunk)
        request = handshake.next_event()
        if request is not None:
            requests.append(request)
    assert requests == [Request("GET", "/chat", Headers(FIELDS))]
    assert list(handshake.accept().events()) == [TextMessage("early")]


ACCEPTABLE = {
    "names in another case": [(name.upper(), value) for name, value in FIELDS],
    "Upgrade in another case": changed("Upgrade", "WebSocket"),
    "Upgrade among others": changed("Upgrade", "h2c, websocket"),
    "Upgrade among others with versions": changed("Upgrade", "HTTP/2.0, websocket,"),
    "Upgrade on two lines": changed("Upgrade", "h2c", "websocket"),
    "two Upgrade": changed("Upgrade", "websocket", "websocket"),
    "two Connection": changed("Connection", "Upgrade", "Upgrade"),
    "Connection on two lines": changed("Connection", "keep-alive", "Upgrade"),
    "Connection among others": changed("Connection", "keep-alive, UPGRADE"),
    "Host with a port": changed("Host", "example.com:8080"),
    "Host as IPv6": changed("Host", "[::1]:8080"),
    "no Origin": changed("Origin"),
    "no subprotocol": changed("Sec-WebSocket-Protocol"),
    "subprotocols on two lines": changed("Sec-WebSocket-Protocol", "a", "b, c"),
    "unknown extensions": changed("Sec-WebSocket-Extensions", "x; y=1", "z"),
    "Content-Length: 0": changed("Content-Length", "0"),
    "another key": changed("Sec-WebSocket-Key", "AQIDBAUGBwgJCgsMDQ4PEC=="),
    "a cookie": changed("Cookie", "a=b; c=d"),
}


@pytest.mark.parametrize("name", ACCEPTABLE)
def test_acceptable_requests(name: str) -> None:
    handshake, request = serve(head(REQUEST_LINE, ACCEPTABLE[name]))
    assert isinstance(request, Request)
    handshake.accept()
    assert handshake.data_to_send().startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("target", ["/", "/chat?a=b", "http://server.example.com/chat", "HTTPS://x/"])
def test_targets_that_are_resource_names(target: str) -> None:
    assert isinstance(serve(head(f"GET {target} HTTP/1.1", FIELDS))[1], Request)


REJECTED: dict[str, tuple[int, str, bytes]] = {
    "POST": (405, "bad-method", head("POST /chat HTTP/1.1", FIELDS)),
    "get": (405, "bad-method", head("get /chat HTTP/1.1", FIELDS)),
    "HTTP/1.0": (400, "bad-version", head("GET /chat HTTP/1.0", FIELDS)),
    "HTTP/0.9": (400, "bad-version", head("GET /chat HTTP/0.9", FIELDS)),
    "HTTP/2.0": (505, "bad-version", head("GET /chat HTTP/2.0", FIELDS)),
    "target *": (400, "bad-target", head("GET * HTTP/1.1", FIELDS)),
    "target without a slash": (400, "bad-target", head("GET chat HTTP/1.1", FIELDS)),
    "target ws:": (400, "bad-target", head("GET ws://h/ HTTP/1.1", FIELDS)),
    "target with a fragment": (400, "bad-request-line", head("GET /#a HTTP/1.1", FIELDS)),
    "obs-fold": (400, "bad-field-line", head(REQUEST_LINE, [*FIELDS, (" X", "y")])),
    "a space before the colon": (400, "bad-field-line", head(REQUEST_LINE, [*FIELDS, ("X ", "y")])),
    "NUL": (400, "bad-field-line", head(REQUEST_LINE, changed("Origin", "a\0b"))),
    "bare LF": (400, "bare-line-feed", head(REQUEST_LINE, FIELDS).replace(b"\r\n", b"\n")),
    "a long request line": (414, "start-line-too-long", b"GET /" + b"a" * 9000),
    "a long field": (431, "head-too-large", head(REQUEST_LINE, [("X", "a" * 9000)])),
    "many fields": (431, "too-many-fields", head(REQUEST_LINE, [("X", "a")] * 200)),
}
for _name, _slug, _statuses in [
    ("Host", "bad-host", 400),
    ("Upgrade", "bad-upgrade", 426),
    ("Connection", "bad-connection", 426),
    ("Sec-WebSocket-Key", "bad-key", 400),
    ("Sec-WebSocket-Version", "unsupported-version", 426),
]:
    _value = dict(FIELDS)[_name]
    REJECTED[f"no {_name}"] = (_statuses, _slug, head(REQUEST_LINE, changed(_name)))
    if _name != "Sec-WebSocket-Version":
        REJECTED[f"an empty {_name}"] = (_statuses, _slug, head(REQUEST_LINE, changed(_name, "")))
    if _name not in ("Upgrade", "Connection"):
        REJECTED[f"two {_name}"] = (400, "doubled-field", head(REQUEST_LINE, changed(_name, _value, _value)))
for _name, _value, _status, _slug in [
    ("Host", "a b", 400, "bad-host"),
    ("Host", "a, b", 400, "bad-host"),
    ("Host", "user@a", 400, "bad-host"),
    ("Host", "a:port", 400, "bad-host"),
    ("Upgrade", "h2c", 426, "bad-upgrade"),
    ("Upgrade", "websocket/13", 426, "bad-upgrade"),
    ("Upgrade", "h2c/websocket", 426, "bad-upgrade"),
    ("Upgrade", "HTTP 2", 400, "bad-token-list"),
    ("Upgrade", "HTTP/2/0", 400, "bad-token-list"),
    ("Upgrade", "web\xc5\xbfocket", 400, "bad-token-list"),
    ("Upgrade", "websoc\xe2\x84\xaaet", 400, "bad-token-list"),
    ("Connection", "keep-alive", 426, "bad-connection"),
    ("Connection", "Upgrade;", 400, "bad-token-list"),
    ("Sec-WebSocket-Key", SAMPLE_KEY[:-1], 400, "bad-key"),
    ("Sec-WebSocket-Key", SAMPLE_KEY[1:], 400, "bad-key"),
    ("Sec-WebSocket-Key", SAMPLE_KEY + "=", 400, "bad-key"),
    ("Sec-WebSocket-Key", "AQIDBAUGBwgJCgsMDQ4P", 400, "bad-key"),  # 15 bytes
    ("Sec-WebSocket-Key", "AQIDBAUGBwgJCgsMDQ4PEBE=", 400, "bad-key"),  # 17 bytes
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZ_==", 400, "bad-key"),
    ("Sec-WebSocket-Key", SAMPLE_KEY + ", " + SAMPLE_KEY, 400, "bad-key"),
    ("Sec-WebSocket-Version", "12", 426, "unsupported-version"),
    ("Sec-WebSocket-Version", "25", 426, "unsupported-version"),
    ("Sec-WebSocket-Version", "0", 426, "unsupported-version"),
    ("Sec-WebSocket-Version", "", 400, "bad-version"),
    ("Sec-WebSocket-Version", "013", 400, "bad-version"),
    ("Sec-WebSocket-Version", "13, 8", 400, "bad-version"),
    ("Sec-WebSocket-Version", "1300", 400, "bad-version"),
    ("Sec-WebSocket-Version", "\xb2", 400, "bad-version"),
    ("Sec-WebSocket-Protocol", "a b", 400, "bad-token-list"),
    ("Sec-WebSocket-Protocol", "a, b, a", 400, "bad-subprotocol"),
    ("Sec-WebSocket-Protocol", "", 400, "bad-subprotocol"),
    ("Sec-WebSocket-Protocol", ", ,", 400, "bad-subprotocol"),
    ("Sec-WebSocket-Extensions", "a; b=", 400, "bad-extensions"),
    ("Content-Length", "1", 400, "body"),
    ("Content-Length", "00001", 400, "body"),
    ("Content-Length", "-0", 400, "body"),
    ("Content-Length", "0, 0", 400, "body"),
    ("Content-Length", "", 400, "body"),
    ("Transfer-Encoding", "chunked", 400, "body"),
    ("Transfer-Encoding", "identity", 400, "body"),
]:
    REJECTED[f"{_name}: {_value}"] = (_status, _slug, head(REQUEST_LINE, changed(_name, _value)))
for _name in ("Origin", "Content-Length"):
    REJECTED[f"two {_name}"] = (400, "doubled-field", head(REQUEST_LINE, changed(_name, "0", "0")))


UNREADABLE = {"bad-request-line", "bad-field-line", "bare-line-feed", "start-line-too-long"}
UNREADABLE |= {"head-too-large", "too-many-fields"}


@pytest.mark.parametrize("name", REJECTED)
def test_requests_that_are_rejected(name: str) -> None:
    status, slug, data = REJECTED[name]
    for chunks in ([data], [data[i : i + 1] for i in range(len(data))]):
        handshake = ServerHandshake()
        events = []
        for chunk in chunks:
            handshake.receive_data(chunk)
            event = handshake.next_event()
            if event is not None:
                events.append(event)
        (failed,) = events
        assert isinstance(failed, HandshakeFailed)
        assert (failed.error.status, failed.error.slug) == (status, slug)
        assert (failed.request is None) is (slug in UNREADABLE)
        assert handshake.should_close
        answer = handshake.data_to_send()
        answered, fields, body = parsed_response(answer)
        assert answered == status
        assert fields["Connection"].startswith("close")
        assert fields["Content-Length"] == str(len(body))
        assert body == f"{failed.error}\n".encode()
        assert handshake.data_to_send() == b""
        with pytest.raises(LocalProtocolError):
            handshake.accept()


def test_version_negotiation() -> None:
    """RFC 6455 §4.2.2 and §4.4: the response names the version that the client may retry with."""
    handshake, _ = serve(head(REQUEST_LINE, changed("Sec-WebSocket-Version", "25")))
    status, fields, _ = parsed_response(handshake.data_to_send())
    assert status == 426
    assert fields["Sec-WebSocket-Version"] == "13"
    # RFC 9110 §15.5.22, §7.8: a 426 contains Upgrade, which Connection lists.
    assert fields["Upgrade"] == "websocket"
    assert fields["Connection"] == "close, Upgrade"


@pytest.mark.parametrize("version", [(), ("0",), ("8",)], ids=["none", "0", "8"])
@pytest.mark.parametrize("key", [(), ("18x 6]8vM;54 *(5:  {   U1]8  z [  8",)], ids=["no key", "an old key"])
def test_an_old_client_is_told_the_version_whatever_its_key(
    version: tuple[str, ...], key: tuple[str, ...]
) -> None:
    """RFC 6455 §4.2.2. The drafts before version 4 had other keys, and the first had no version."""
    fields = changed("Sec-WebSocket-Version", *version, fields=changed("Sec-WebSocket-Key", *key))
    handshake, failed = serve(head(REQUEST_LINE, fields))
    assert isinstance(failed, HandshakeFailed)
    assert (failed.error.status, failed.error.slug) == (426, "unsupported-version")
    assert parsed_response(handshake.data_to_send())[1]["Sec-WebSocket-Version"] == "13"


def test_a_missing_key_and_a_malformed_one_read_differently() -> None:
    messages = set()
    for key in ((), ("",), (SAMPLE_KEY[1:],)):
        _, failed = serve(head(REQUEST_LINE, changed("Sec-WebSocket-Key", *key)))
        assert isinstance(failed, HandshakeFailed)
        messages.add(str(failed.error))
    assert messages == {"Sec-WebSocket-Key is required", "Sec-WebSocket-Key must be base64 of 16 bytes"}


def test_the_lines_of_a_list_are_checked_in_any_order() -> None:
    for values in (("websocket", "a b"), ("a b", "websocket")):
        _, failed = serve(head(REQUEST_LINE, changed("Upgrade", *values)))
        assert isinstance(failed, HandshakeFailed)
        assert failed.error.slug == "bad-token-list"


def test_a_405_response_names_the_allowed_method() -> None:
    handshake, _ = serve(head("POST / HTTP/1.1", FIELDS))
    assert parsed_response(handshake.data_to_send())[1]["Allow"] == "GET"


def test_limits_can_be_set() -> None:
    data = head(REQUEST_LINE, FIELDS)
    for limits, status in [
        ({"max_line_size": 10}, 414),
        ({"max_fields": 2}, 431),
        ({"max_head_size": 99}, 431),
    ]:
        _, failed = serve(data, **limits)
        assert isinstance(failed, HandshakeFailed)
        assert failed.error.status == status


def test_eof_before_the_request() -> None:
    handshake = ServerHandshake()
    handshake.receive_data(b"GET / HT")
    assert handshake.next_event() is None
    handshake.receive_eof()
    failed = handshake.next_event()
    assert isinstance(failed, HandshakeFailed)
    assert failed.error.slug == "incomplete"
    assert handshake.next_event() is None
    # Later data is discarded.
    handshake.receive_data(b"x" * 100)
    assert handshake.next_event() is None


def test_eof_after_the_request() -> None:
    handshake = ServerHandshake()
    handshake.receive_data(head(REQUEST_LINE, FIELDS))
    handshake.receive_eof()
    assert isinstance(handshake.next_event(), Request)


def test_options_reach_the_connection() -> None:
    handshake, _ = serve(head(REQUEST_LINE, FIELDS), max_message_size=3)
    connection = handshake.accept()
    connection.receive_data(raw_frame(Role.SERVER, 2, b"1234"))
    assert [type(event).__name__ for event in connection.events()] == [
        "ConnectionFailed",
        "ConnectionClosed",
    ]


def test_accept_adds_fields() -> None:
    handshake, _ = serve(head(REQUEST_LINE, FIELDS))
    handshake.accept(headers=[("Set-Cookie", "a=b"), ("Set-Cookie", "c=d")])
    assert handshake.data_to_send().endswith(b"\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\n")


def misuses_of_accept() -> list[tuple[str, Callable[[ServerHandshake], object]]]:
    own = ["Upgrade", "CONNECTION", "Sec-WebSocket-Accept", "Sec-WebSocket-Extensions"]
    own += ["sec-websocket-protocol", "Content-Length", "Transfer-Encoding", "Sec-WebSocket-Version"]
    return [
        ("bad-subprotocol", lambda h: h.accept("other")),
        ("bad-subprotocol", lambda h: h.accept("")),
        ("bad-field-value", lambda h: h.accept(headers=[("X", "a\r\nY: b")])),
        ("bad-field-name", lambda h: h.accept(headers=[("X\r\n", "a")])),
        *[("own-field", lambda h, name=name: h.accept(headers=[(name, "x")])) for name in own],
        ("bad-status", lambda h: h.reject(101)),
        ("bad-status", lambda h: h.reject(199)),
        ("bad-status", lambda h: h.reject(600)),
        ("bad-body", lambda h: h.reject(204, body=b"x")),
        ("bad-body", lambda h: h.reject(304, body=b"x")),
        ("own-field", lambda h: h.reject(400, headers=[("content-length", "5")])),
        ("bad-field-value", lambda h: h.reject(302, headers=[("Location", "/\r\nX: y")])),
    ]


@pytest.mark.parametrize(("slug", "misuse"), misuses_of_accept())
def test_misuse_changes_nothing(slug: str, misuse: Callable[[ServerHandshake], object]) -> None:
    handshake, _ = serve(head(REQUEST_LINE, FIELDS))
    with pytest.raises(LocalProtocolError) as caught:
        misuse(handshake)
    assert caught.value.slug == slug
    assert handshake.data_to_send() == b""
    assert not handshake.should_close
    assert isinstance(handshake.accept(), Connection)


@pytest.mark.parametrize(
    ("status", "headers", "body", "expected"),
    [
        (403, [], b"no\n", b"Content-Length: 3\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nno\n"),
        (
            401,
            [("WWW-Authenticate", "Basic")],
            b"",
            b"Content-Length: 0\r\nWWW-Authenticate: Basic\r\n\r\n",
        ),
        (302, [("Location", "/other")], b"", b"Content-Length: 0\r\nLocation: /other\r\n\r\n"),
        (
            200,
            [("content-type", "text/html")],
            b"<p>",
            b"Content-Length: 3\r\ncontent-type: text/html\r\n\r\n<p>",
        ),
        (204, [], b"", b"Connection: close\r\n\r\n"),
        (599, [], b"", b"Content-Length: 0\r\n\r\n"),
    ],
)
def test_reject_with_any_response(
    status: int, headers: list[tuple[str, str]], body: bytes, expected: bytes
) -> None:
    handshake, _ = serve(head(REQUEST_LINE, FIELDS))
    handshake.reject(status, headers=headers, body=body)
    answer = handshake.data_to_send()
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(expected)
    assert handshake.should_close
    handshake.receive_data(b"ignored")
    for call in (handshake.accept, lambda: handshake.reject(400)):
        with pytest.raises(LocalProtocolError) as caught:
            call()
        assert caught.value.slug == "no-request"


def test_no_answer_without_a_request() -> None:
    with pytest.raises(LocalProtocolError) as caught:
        ServerHandshake().accept()
    assert caught.value.slug == "no-request"


def test_data_after_accept_belongs_to_the_connection() -> None:
    handshake, _ = serve(head(REQUEST_LINE, FIELDS))
    handshake.accept()
    with pytest.raises(LocalProtocolError) as caught:
        handshake.receive_data(b"x")
    assert caught.value.slug == "handshake-over"


@pytest.mark.parametrize("given", [True, False], ids=["a given head", "a head of bytes"])
@pytest.mark.parametrize("together", [True, False], ids=["with the head", "after the head"])
@pytest.mark.parametrize("size", [100, 101])
def test_early_data_up_to_the_limit(*, given: bool, together: bool, size: int) -> None:
    """RFC 6455 §4.1: the client MUST wait for the answer; a little is tolerated."""
    request = Request("GET", "/chat", Headers(FIELDS))
    early = encode_frame(Opcode.BINARY, bytes(size - 6), mask_key=KEY)
    first, later = (early, b"") if together else (b"", early)
    if given:
        handshake = ServerHandshake.from_request(request, trailing_data=first, max_early_data=100)
    else:
        handshake = ServerHandshake(max_early_data=100)
        handshake.receive_data(head(REQUEST_LINE, FIELDS) + first)
    events = [handshake.next_event()]
    for i in range(len(later)):
        handshake.receive_data(later[i : i + 1])
        events.append(handshake.next_event())
    *earlier, failed = [event for event in events if event is not None] if size > 100 else [*events, None]
    assert earlier[:1] == ([] if together and size > 100 else [request])
    if size == 100:
        assert list(handshake.accept().events()) == [BinaryMessage(bytes(94))]
        return
    assert isinstance(failed, HandshakeFailed)
    assert (failed.error.status, failed.error.slug) == (400, "early-data")
    assert failed.error.__traceback__ is None
    assert failed.request == request
    assert handshake.next_event() is None
    assert handshake.should_close
    assert parsed_response(handshake.data_to_send())[0] == 400
    for call in (handshake.accept, lambda: handshake.reject(403)):
        with pytest.raises(LocalProtocolError) as caught:
            call()
        assert caught.value.slug == "no-request"


def test_a_request_that_was_parsed_elsewhere() -> None:
    frame = encode_frame(Opcode.BINARY, b"early", mask_key=KEY)
    request = Request("GET", "/chat", Headers(FIELDS))
    options = ConnectionOptions(max_message_size=10)
    handshake = ServerHandshake.from_request(request, trailing_data=frame[:3], **options)
    assert handshake.next_event() is request
    assert handshake.next_event() is None
    handshake.receive_data(frame[3:] + raw_frame(Role.SERVER, 2, bytes(11)))
    connection = handshake.accept()
    first, second, _ = connection.events()
    assert first == BinaryMessage(b"early")
    assert type(second).__name__ == "ConnectionFailed"
    assert b" 101 " in handshake.data_to_send()


@pytest.mark.parametrize(
    ("request_", "slug"),
    [
        (Request("GET", "/a b", Headers(FIELDS)), "bad-target"),
        (Request("GET", "/\r\n", Headers(FIELDS)), "bad-target"),
        (Request("GET", "/é", Headers(FIELDS)), "bad-target"),
        (Request("GET", "/", Headers(changed("Upgrade"))), "bad-upgrade"),
        (Request("POST", "/", Headers(FIELDS)), "bad-method"),
        (Request("GET", "/", Headers(FIELDS), version="1.0"), "bad-version"),
    ],
)
def test_a_request_that_was_parsed_elsewhere_is_checked(request_: Request, slug: str) -> None:
    handshake = ServerHandshake.from_request(request_)
    failed = handshake.next_event()
    assert isinstance(failed, HandshakeFailed)
    assert failed.error.slug == slug
    assert handshake.should_close


# The client.

RESPONSE_FIELDS = [
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Accept", SAMPLE_ACCEPT),
]
STATUS_LINE = "HTTP/1.1 101 Switching Protocols"


def sample_client(**options: object) -> ClientHandshake:
    return ClientHandshake(
        "server.example.com",
        "/chat",
        key_source=lambda: b"the sample nonce",
        subprotocols=["chat", "superchat"],
        **options,  # type: ignore[arg-type]
    )


def test_the_request_of_a_client() -> None:
    handshake = sample_client(origin="http://example.com", headers=[("Cookie", "a=b")])
    assert handshake.data_to_send() == (
        b"GET /chat HTTP/1.1\r\n"
        b"Host: server.example.com\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"Origin: http://example.com\r\n"
        b"Sec-WebSocket-Protocol: chat, superchat\r\n"
        b"Cookie: a=b\r\n\r\n"
    )
    assert handshake.data_to_send() == b""
    assert ClientHandshake("h").data_to_send().startswith(b"GET / HTTP/1.1\r\nHost: h\r\n")


def test_each_client_has_a_random_key() -> None:
    """RFC 6455 §4.1, step 7."""
    requests = {ClientHandshake("h").data_to_send() for _ in range(10)}
    assert len(requests) == 10
    for request in requests:
        assert isinstance(serve(request)[1], Request)


def test_a_server_accepts() -> None:
    fields = [*RESPONSE_FIELDS, ("Sec-WebSocket-Protocol", "superchat")]
    data = head(STATUS_LINE, fields) + encode_frame(Opcode.TEXT, b"early")
    for chunks in ([data], [data[i : i + 1] for i in range(len(data))]):
        handshake = sample_client(max_message_size=100)
        accepted = None
        remaining = iter(chunks)
        while accepted is None:
            handshake.receive_data(next(remaining))
            accepted = handshake.next_event()
        assert isinstance(accepted, HandshakeAccepted)
        assert accepted.response.status == 101
        connection = accepted.connection
        for chunk in remaining:
            connection.receive_data(chunk)
        assert (connection.role, connection.subprotocol) == (Role.CLIENT, "superchat")
        assert list(connection.events()) == [TextMessage("early")]
        assert handshake.next_event() is None
        with pytest.raises(LocalProtocolError):
            handshake.receive_data(b"x")


GOOD_RESPONSES = {
    "the bare minimum": RESPONSE_FIELDS,
    "other case": changed(
        "Upgrade", "WebSocket", fields=changed("Connection", "upgrade", fields=RESPONSE_FIELDS)
    ),
    "white space": changed("Sec-WebSocket-Accept", f" \t{SAMPLE_ACCEPT}\t ", fields=RESPONSE_FIELDS),
    "Connection among others": changed("Connection", "keep-alive, Upgrade", fields=RESPONSE_FIELDS),
    "Connection on two lines": changed("Connection", "keep-alive", "Upgrade", fields=RESPONSE_FIELDS),
    "cookies": [*RESPONSE_FIELDS, ("Set-Cookie", "a=b"), ("Set-Cookie", "c=d")],
    "no extensions": [*RESPONSE_FIELDS, ("Sec-WebSocket-Extensions", "")],
}


@pytest.mark.parametrize("name", GOOD_RESPONSES)
def test_acceptable_responses(name: str) -> None:
    handshake = sample_client()
    handshake.receive_data(head(STATUS_LINE, GOOD_RESPONSES[name]))
    accepted = handshake.next_event()
    assert isinstance(accepted, HandshakeAccepted)
    assert accepted.connection.subprotocol is None


BAD_RESPONSES: dict[str, tuple[str, bytes]] = {
    "HTTP/1.0": ("bad-version", head("HTTP/1.0 101 x", RESPONSE_FIELDS)),
    "no HTTP": ("bad-status-line", b"\x81\x05Hello\r\n"),
    "bare LF": ("bare-line-feed", head(STATUS_LINE, RESPONSE_FIELDS).replace(b"\r\n", b"\n")),
    "too large": ("head-too-large", head(STATUS_LINE, [("X", "a" * 9000)])),
}
for _name, _slug, _values in [
    ("Upgrade", "bad-upgrade", [[], [""], ["h2c"], ["websocket, h2c"], ["websoc\xe2\x84\xaaet"]]),
    ("Upgrade", "doubled-field", [["websocket", "websocket"]]),
    ("Connection", "bad-connection", [[], [""], ["close"], ["Upgraded"]]),
    ("Connection", "bad-token-list", [["Upgrade;"]]),
    ("Sec-WebSocket-Accept", "bad-accept", [[], [""], [SAMPLE_ACCEPT.lower()], [SAMPLE_ACCEPT + "x"]]),
    ("Sec-WebSocket-Accept", "doubled-field", [[SAMPLE_ACCEPT, SAMPLE_ACCEPT]]),
    ("Sec-WebSocket-Protocol", "bad-subprotocol", [[""], ["other"], ["Chat"], ["chat, superchat"]]),
    ("Sec-WebSocket-Protocol", "doubled-field", [["chat", "chat"]]),
    ("Sec-WebSocket-Extensions", "bad-extension", [["permessage-deflate"], ["x"]]),
    ("Sec-WebSocket-Extensions", "bad-extensions", [["x;"]]),
    ("Sec-WebSocket-Extensions", "doubled-field", [["", ""]]),
    ("Content-Length", "body", [["5"]]),
    ("Transfer-Encoding", "body", [["chunked"]]),
]:
    for _list in _values:
        _data = head(STATUS_LINE, changed(_name, *_list, fields=RESPONSE_FIELDS))
        BAD_RESPONSES[f"{_name}: {_list}"] = (_slug, _data)


@pytest.mark.parametrize("name", BAD_RESPONSES)
def test_responses_that_fail_the_handshake(name: str) -> None:
    slug, data = BAD_RESPONSES[name]
    handshake = sample_client()
    handshake.data_to_send()
    handshake.receive_data(data)
    failed = handshake.next_event()
    assert isinstance(failed, HandshakeFailed)
    assert failed.error.slug == slug
    assert handshake.data_to_send() == b""
    assert handshake.next_event() is None


@pytest.mark.parametrize("status", [200, 301, 400, 401, 403, 426, 503])
def test_a_rejection_by_the_server(status: int) -> None:
    handshake = sample_client()
    handshake.receive_data(head(f"HTTP/1.1 {status} x", [("Content-Length", "5")]) + b"hello")
    rejected = handshake.next_event()
    assert isinstance(rejected, HandshakeRejected)
    assert rejected.response.status == status
    assert handshake.trailing_data == b"hello"
    assert handshake.next_event() is None


def test_interim_responses_are_skipped() -> None:
    interim = head("HTTP/1.1 103 Early Hints", [("Link", "</x>")])
    handshake = sample_client()
    handshake.receive_data(interim * 8 + head(STATUS_LINE, RESPONSE_FIELDS))
    assert isinstance(handshake.next_event(), HandshakeAccepted)
    handshake = sample_client()
    handshake.receive_data(interim * 9)
    failed = handshake.next_event()
    assert isinstance(failed, HandshakeFailed)
    assert failed.error.slug == "interim"


def test_the_limits_of_a_response_can_be_set() -> None:
    handshake = sample_client(limits={"max_fields": 2})
    handshake.receive_data(head(STATUS_LINE, RESPONSE_FIELDS))
    failed = handshake.next_event()
    assert isinstance(failed, HandshakeFailed)
    assert failed.error.slug == "too-many-fields"


def test_eof_before_the_response() -> None:
    handshake = sample_client()
    assert handshake.next_event() is None
    handshake.receive_eof()
    failed = handshake.next_event()
    assert isinstance(failed, HandshakeFailed)
    assert failed.error.slug == "incomplete"


@pytest.mark.parametrize(
    ("slug", "arguments"),
    [
        ("bad-host", {"host": ""}),
        ("bad-host", {"host": "a b"}),
        ("bad-host", {"host": "a\r\nX: y"}),
        ("bad-host", {"host": "a/b"}),
        ("bad-target", {"target": "chat"}),
        ("bad-target", {"target": "/a b"}),
        ("bad-target", {"target": "/\r\n"}),
        ("bad-target", {"target": "/#"}),
        ("bad-subprotocol", {"subprotocols": ["a", "a"]}),
        ("bad-subprotocol", {"subprotocols": [""]}),
        ("bad-subprotocol", {"subprotocols": ["a b"]}),
        ("bad-subprotocol", {"subprotocols": ["a\n"]}),
        ("bad-field-value", {"origin": "a\nb"}),
        ("bad-field-value", {"headers": [("X", "a\0")]}),
        ("own-field", {"headers": [("host", "x")]}),
        ("own-field", {"headers": [("Sec-WebSocket-Key", "x")]}),
    ],
)
def test_invalid_arguments_of_a_client_raise(slug: str, arguments: dict[str, object]) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        ClientHandshake(**{"host": "h", **arguments})  # type: ignore[arg-type]
    assert caught.value.slug == slug


# Client and server together.


@given(
    st.lists(st.sampled_from(["a", "b", "chat.v2"]), unique=True),
    st.binary(max_size=100),
    st.lists(st.integers(min_value=0), max_size=5),
)
def test_client_and_server_agree(subprotocols: list[str], blob: bytes, cuts: list[int]) -> None:
    client = ClientHandshake("example.com:8080", "/x?y", subprotocols=subprotocols)
    server = ServerHandshake()
    for chunk in split_at(client.data_to_send(), cuts):
        server.receive_data(chunk)
    request = server.next_event()
    assert isinstance(request, Request)
    assert request.subprotocols == subprotocols
    chosen = subprotocols[-1] if subprotocols else None
    server_connection = server.accept(chosen)
    server_connection.send_binary(blob)
    client.receive_data(server.data_to_send() + server_connection.data_to_send())
    accepted = client.next_event()
    assert isinstance(accepted, HandshakeAccepted)
    assert accepted.connection.subprotocol == server_connection.subprotocol == chosen
    assert list(accepted.connection.events()) == [BinaryMessage(blob)]


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_end_in_one_event_and_no_exception(data: bytes, plausible: bool) -> None:
    server, client = ServerHandshake(), sample_client()
    server.receive_data((b"GET / HTTP/1.1\r\n" if plausible else b"") + data)
    client.receive_data((b"HTTP/1.1 101 x\r\n" if plausible else b"") + data)
    for handshake in (server, client):
        handshake.receive_eof()
        assert handshake.next_event() is not None
        assert handshake.next_event() is None


def test_work_is_linear_when_bytes_come_one_at_a_time() -> None:
    searched = 0

    class Counted(bytearray):
        def find(self, wanted: bytes, start: int = 0, end: int = 1 << 30) -> int:  # type: ignore[override]
            nonlocal searched
            searched += max(0, min(end, len(self)) - start)
            return super().find(wanted, start, end)

    data = head(REQUEST_LINE, [("X", "a" * 20_000)] * 4 + FIELDS)
    handshake = ServerHandshake(max_line_size=1 << 15, max_head_size=1 << 17)
    handshake._parser._buffer = Counted()
    for octet in data:
        handshake.receive_data(bytes([octet]))
        event = handshake.next_event()
    assert isinstance(event, Request)
    assert len(data) <= searched < 4 * len(data)


@pytest.mark.parametrize("embedded", [False, True])
def test_compression_is_negotiated(embedded: bool) -> None:
    client = ClientHandshake("h", "/", deflate=PerMessageDeflate(client_max_window_bits=9))
    request = client.data_to_send()
    offer = b"\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=9\r\n"
    assert offer in request
    server, event = serve(request, deflate=PerMessageDeflate())
    if embedded:
        assert isinstance(event, Request)
        server = ServerHandshake.from_request(event, deflate=PerMessageDeflate())
        server.next_event()
    connection = server.accept()
    response = server.data_to_send()
    assert offer in response
    connection.send_text("a" * 1000)
    client.receive_data(response + connection.data_to_send())
    accepted = client.next_event()
    assert isinstance(accepted, HandshakeAccepted)
    assert accepted.connection.deflate == connection.deflate == DeflateParameters(client_max_window_bits=9)
    assert list(accepted.connection.events()) == [TextMessage("a" * 1000)]


def test_compression_that_only_one_side_enables() -> None:
    server, _ = serve(ClientHandshake("h", deflate=PerMessageDeflate()).data_to_send())
    assert server.accept().deflate is None
    assert b"Extensions" not in server.data_to_send()
    server, _ = serve(ClientHandshake("h").data_to_send(), deflate=PerMessageDeflate())
    assert server.accept().deflate is None
    assert b"Extensions" not in server.data_to_send()


def test_a_response_that_the_offer_does_not_allow() -> None:
    handshake = sample_client(deflate=PerMessageDeflate(server_max_window_bits=9))
    answer = ("Sec-WebSocket-Extensions", "permessage-deflate; server_max_window_bits=10")
    handshake.receive_data(head(STATUS_LINE, [*RESPONSE_FIELDS, answer]))
    failed = handshake.next_event()
    assert isinstance(failed, HandshakeFailed)
    assert failed.error.slug == "bad-extension"


def test_accept_may_override_max_message_size() -> None:
    request = head(REQUEST_LINE, FIELDS)
    for asked, expected in ((None, 1009), (200, None)):
        handshake, _ = serve(request + raw_frame(Role.SERVER, 2, bytes(150)), max_message_size=100)
        connection = handshake.accept(max_message_size=asked)
        events = list(connection.events())
        codes = [event.code for event in events if isinstance(event, ConnectionFailed)]
        assert codes == ([expected] if expected else [])
        assert handshake._options["max_message_size"] == 100


# What a handshake holds, and when it stops parsing.


def failed_server() -> ServerHandshake:
    handshake, failed = serve(head("POST / HTTP/1.1", FIELDS))
    assert isinstance(failed, HandshakeFailed)
    return handshake


def rejected_server() -> ServerHandshake:
    handshake, _ = serve(head(REQUEST_LINE, FIELDS))
    handshake.reject(403)
    return handshake


@pytest.mark.parametrize("make", [failed_server, rejected_server])
def test_data_after_the_end_of_a_handshake_is_dropped(make: Callable[[], ServerHandshake]) -> None:
    handshake = make()
    answer = handshake.data_to_send()
    assert answer
    data = head(REQUEST_LINE, FIELDS) * 1000

    def receive() -> None:
        handshake.receive_data(data)
        assert handshake.next_event() is None

    assert peak_bytes(receive) < 10_000
    assert handshake.data_to_send() == b""


def test_a_pending_request_is_returned_once() -> None:
    handshake, request = serve(head(REQUEST_LINE, FIELDS) * 2)
    assert isinstance(request, Request)
    assert handshake.next_event() is None
    handshake.receive_data(head(REQUEST_LINE, FIELDS))
    assert handshake.next_event() is None
    handshake.accept()
    assert handshake.next_event() is None


def test_a_client_parses_nothing_after_the_outcome() -> None:
    for first in (head("HTTP/1.1 101 x", []), head("HTTP/1.1 403 x", [])):
        handshake = sample_client()
        handshake.receive_data(first + head(STATUS_LINE, RESPONSE_FIELDS))
        assert isinstance(handshake.next_event(), HandshakeFailed | HandshakeRejected)
        assert handshake.next_event() is None
        with pytest.raises(LocalProtocolError) as caught:
            handshake.receive_data(head(STATUS_LINE, RESPONSE_FIELDS))
        assert caught.value.slug == "handshake-over"
        assert handshake.next_event() is None


def test_frames_that_arrive_before_accept_reach_the_connection() -> None:
    frames = [raw_frame(Role.SERVER, Opcode.TEXT, b"%d" % number) for number in range(3)]
    for embedded in (False, True):
        if embedded:
            request = Request("GET", "/chat", Headers(FIELDS))
            handshake = ServerHandshake.from_request(request, trailing_data=frames[0])
        else:
            handshake = ServerHandshake()
            handshake.receive_data(head(REQUEST_LINE, FIELDS) + frames[0])
        assert isinstance(handshake.next_event(), Request)
        handshake.receive_data(frames[1])
        handshake.receive_data(memoryview(frames[2]))
        assert list(handshake.accept().events()) == [TextMessage("0"), TextMessage("1"), TextMessage("2")]


def test_the_limits_apply_after_interim_responses() -> None:
    handshake = sample_client(limits={"max_fields": 2})
    handshake.receive_data(head("HTTP/1.1 103 Early Hints", []) + head(STATUS_LINE, RESPONSE_FIELDS))
    failed = handshake.next_event()
    assert isinstance(failed, HandshakeFailed)
    assert failed.error.slug == "too-many-fields"


def test_a_failure_keeps_nothing_alive_but_itself() -> None:
    server, client = ServerHandshake(), ClientHandshake("h")
    server.receive_data(b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n")
    client.receive_data(b"HTTP/1.1 2\r\n\r\n")
    for handshake, status in ((server, 400), (client, 0)):
        failed = handshake.next_event()
        assert isinstance(failed, HandshakeFailed)
        assert failed.error.status == status
        assert (failed.error.__traceback__, failed.error.__context__) == (None, None)


def test_nothing_is_kept_after_a_rejection() -> None:
    handshake = ServerHandshake.from_request(Request("GET", "/", Headers(FIELDS)), trailing_data=b"x")
    assert isinstance(handshake.next_event(), Request)
    handshake.reject(403)
    handshake.receive_data(bytes(1000))
    assert handshake._early_data == b""
