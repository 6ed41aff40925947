import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfc6455 import Extension, HandshakeError, Headers, LocalProtocolError, Request, Response
from rfc6455.http11 import RequestParser, ResponseParser
from tests.helpers import split_at

HEAD = b"GET /chat?room=1 HTTP/1.1\r\nHost: example.com\r\nX-Empty:\r\nX-Pad: \t a b \t\r\n\r\n"


def parse(data: bytes, **limits: int) -> Request | None:
    parser = RequestParser(**limits)
    parser.receive_data(data)
    return parser.next_head()


def rejection(data: bytes, **limits: int) -> tuple[int, str]:
    """Returns (status, slug); checks that they are the same at once and byte by byte."""
    with pytest.raises(HandshakeError) as whole:
        parse(data, **limits)
    parser = RequestParser(**limits)

    def byte_by_byte() -> None:
        for octet in data:
            parser.receive_data(bytes([octet]))
            parser.next_head()

    with pytest.raises(HandshakeError) as pieces:
        byte_by_byte()
    assert str(pieces.value) == str(whole.value)
    return whole.value.status, whole.value.slug


def test_a_request_head() -> None:
    request = parse(HEAD)
    assert request == Request(
        "GET", "/chat?room=1", Headers([("Host", "example.com"), ("X-Empty", ""), ("X-Pad", "a b")])
    )
    assert (request.path, request.query, request.version) == ("/chat", "room=1", "1.1")


def test_a_head_that_arrives_as_a_whole_is_parsed_in_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RequestParser, "_next_line", None)
    for limits in ({}, {"max_fields": 3}):
        parser = RequestParser(**limits)
        parser.receive_data(HEAD + b"rest\r\n\r\n")
        head = parser.next_head()
        assert head is not None
        assert [name for name, _ in head.headers] == ["Host", "X-Empty", "X-Pad"]
        assert parser.trailing_data == b"rest\r\n\r\n"
    with pytest.raises(TypeError):
        parse(HEAD, max_fields=2)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_heads_can_be_pickled(protocol: int) -> None:
    fields = Headers([("A", "b"), ("a", "c")])
    for head in (Request("PUT", "/a", fields, "1.0"), Response(403, fields, "No", "1.0")):
        assert pickle.loads(pickle.dumps(head, protocol)) == head


def test_only_bytes_are_received() -> None:
    parser = RequestParser()
    for kind in (bytearray, memoryview, bytes):
        parser.receive_data(kind(b"GET "))
    for wrong in ("GET ", 5, [65], None):
        with pytest.raises(TypeError):
            parser.receive_data(wrong)  # type: ignore[arg-type]
    parser.receive_data(b"/ HTTP/1.1\r\n\r\n")
    with pytest.raises(HandshakeError):
        parser.next_head()  # of "GET GET GET / HTTP/1.1"


def test_a_head_that_begins_with_a_line_feed() -> None:
    assert rejection(b"\n" + HEAD) == (400, "bare-line-feed")


def test_bytes_after_the_head_are_kept() -> None:
    parser = RequestParser()
    parser.receive_data(HEAD[:-1])
    assert parser.next_head() is None
    assert parser.trailing_data == b""
    parser.receive_data(HEAD[-1:] + b"\x81\x80")
    assert parser.next_head() is not None
    assert parser.next_head() is None
    parser.receive_data(b"more")
    assert parser.trailing_data == b"\x81\x80more"


@given(st.lists(st.integers(min_value=0), max_size=10))
def test_the_head_is_the_same_for_any_split(cuts: list[int]) -> None:
    parser = RequestParser()
    heads = []
    for chunk in split_at(HEAD + b"rest", cuts):
        parser.receive_data(chunk)
        head = parser.next_head()
        if head is not None:
            heads.append(head)
    assert heads == [parse(HEAD)]
    assert parser.trailing_data == b"rest"


LINES = [
    b"GET / HTTP/1.1\r\n",
    b"GET /\r\n",
    b"Host: a\r\n",
    b"X-Long: " + b"a" * 60 + b"\r\n",
    b"X:\t b \r\n",
    b"\r\n",
    b"X: 1\n",
    b"X: \r1\r\n",
    b"no colon\r\n",
    b": no name\r\n",
    b"\n",
]


def outcome(chunks: list[bytes], **limits: int) -> tuple[object, bytes]:
    """Returns the head or the error, and the bytes after the head."""
    parser = RequestParser(**limits)
    try:
        for chunk in chunks:
            parser.receive_data(chunk)
            head = parser.next_head()
            if head is not None:
                return head, parser.trailing_data
    except HandshakeError as error:
        return (str(error), error.slug, error.status), b""
    return None, b""


@given(
    st.lists(st.sampled_from(LINES + LINES[:1] * 5 + LINES[2:6] * 5), max_size=7),
    st.fixed_dictionaries(
        {},
        optional={
            "max_line_size": st.integers(1, 80),
            "max_fields": st.integers(0, 4),
            "max_head_size": st.integers(1, 150),
        },
    ),
)
def test_any_lines_have_the_same_outcome_byte_by_byte(lines: list[bytes], limits: dict[str, int]) -> None:
    data = b"".join(lines)
    at_once, rest = outcome([data], **limits)
    by_the_byte, _ = outcome([data[i : i + 1] for i in range(len(data))], **limits)
    assert at_once == by_the_byte
    assert data.endswith(rest)


@pytest.mark.parametrize(
    ("head", "slug"),
    [
        (b"\r\n", "bad-request-line"),
        (b"GET /\r\n", "bad-request-line"),
        (b"GET  / HTTP/1.1\r\n", "bad-request-line"),
        (b"GET / HTTP/1.1 \r\n", "bad-request-line"),
        (b" GET / HTTP/1.1\r\n", "bad-request-line"),
        (b"GET / http/1.1\r\n", "bad-request-line"),
        (b"GET / HTTP/11.1\r\n", "bad-request-line"),
        (b"GET / HTTP/1.\xb9\r\n", "bad-request-line"),
        (b"GET /a b HTTP/1.1\r\n", "bad-request-line"),
        (b"GET /a#b HTTP/1.1\r\n", "bad-request-line"),
        (b"GET /\xc3\xa9 HTTP/1.1\r\n", "bad-request-line"),
        (b"GET /\0 HTTP/1.1\r\n", "bad-request-line"),
        (b"G(T / HTTP/1.1\r\n", "bad-request-line"),
        (b"\x16\x03\x01\x02\x00\x01\x00\n", "bare-line-feed"),
        (b"GET / HTTP/1.1\n", "bare-line-feed"),
        (b"GET / HTTP/1.1\r\nHost: a\n", "bare-line-feed"),
        (b"GET / HTTP/1.1\r\n\n", "bare-line-feed"),
        (b"GET / HTTP/1.1\r\r\n", "bad-request-line"),
        (b"GET / HTTP/1.1\r\nHost: a\r\r\n", "bad-field-line"),
        (b"GET / HTTP/1.1\r\nHost: a\rb\r\n", "bad-field-line"),
        (b"GET / HTTP/1.1\r\nHost : a\r\n", "bad-field-line"),
        (b"GET / HTTP/1.1\r\n Host: a\r\n", "bad-field-line"),
        (b"GET / HTTP/1.1\r\nX: a\r\n b\r\n", "bad-field-line"),
        (b"GET / HTTP/1.1\r\nX: a\r\n\tb\r\n", "bad-field-line"),
        (b"GET / HTTP/1.1\r\nHost\r\n", "bad-field-line"),
        (b"GET / HTTP/1.1\r\n: a\r\n", "bad-field-line"),
        (b"GET / HTTP/1.1\r\nX: a\0b\r\n", "bad-field-line"),
        (b"GET / HTTP/1.1\r\nX: \x7f\r\n", "bad-field-line"),
        (b"GET / HTTP/1.1\r\n\xe2\x84\xaaey: a\r\n", "bad-field-line"),
    ],
)
def test_an_invalid_line_is_rejected_when_it_ends(head: bytes, slug: str) -> None:
    assert parse(head[:-1]) is None
    assert rejection(head) == (400, slug)
    assert rejection(head + b"Host: a\r\n\r\n") == (400, slug)


def test_bytes_above_ascii_are_latin_1_in_values() -> None:
    request = parse(b"GET / HTTP/1.1\r\nX: caf\xc3\xa9\r\n\r\n")
    assert request is not None
    assert request.headers["X"] == "caf\xc3\xa9"


def request_line(size: int) -> bytes:
    return b"GET /" + b"a" * (size - 14) + b" HTTP/1.1\r\n"


def test_limits_are_exact() -> None:
    assert parse(request_line(20) + b"\r\n", max_line_size=20) is not None
    assert rejection(request_line(21) + b"\r\n", max_line_size=20) == (414, "start-line-too-long")
    head = request_line(20) + b"X: " + b"a" * 17 + b"\r\n"
    assert parse(head + b"\r\n", max_line_size=20) is not None
    assert rejection(head + b"Y: " + b"a" * 18 + b"\r\n\r\n", max_line_size=20) == (431, "head-too-large")
    fields = b"".join(b"X: %d\r\n" % i for i in range(3))
    assert parse(request_line(20) + fields + b"\r\n", max_fields=3) is not None
    assert rejection(request_line(20) + fields + b"\r\n", max_fields=2) == (431, "too-many-fields")
    head = request_line(20) + fields + b"\r\n"
    assert parse(head, max_head_size=len(head)) is not None
    assert rejection(head, max_head_size=len(head) - 1) == (431, "head-too-large")


def test_limits_do_not_wait_for_the_end_of_the_line() -> None:
    assert rejection(b"a" * 22, max_line_size=20) == (414, "start-line-too-long")
    assert rejection(request_line(20) + b"a" * 22, max_line_size=20) == (431, "head-too-large")
    assert rejection(b"a" * 30, max_head_size=30) == (431, "head-too-large")


def test_default_limits() -> None:
    assert parse(request_line(8192) + b"\r\n") is not None
    assert rejection(request_line(8193)) == (414, "start-line-too-long")
    assert parse(request_line(99) + b"X: 1\r\n" * 128 + b"\r\n") is not None
    assert rejection(request_line(99) + b"X: 1\r\n" * 129) == (431, "too-many-fields")
    assert rejection(request_line(99) + b"X: %s\r\n" % (b"a" * 8000) * 9) == (431, "head-too-large")


@given(st.binary(max_size=60), st.lists(st.integers(min_value=0), max_size=8))
def test_any_bytes_have_the_same_outcome_for_any_split(data: bytes, cuts: list[int]) -> None:
    limits = {"max_line_size": 20, "max_fields": 1, "max_head_size": 40}
    data = b"GET / HTTP/1.1\r\n" + data
    in_pieces, _ = outcome(split_at(data, cuts), **limits)
    at_once, _ = outcome([data], **limits)
    assert in_pieces == at_once


@pytest.mark.parametrize(
    "line",
    [b"X:" + b" " * 8180, b"X:" + b" " * 8180 + b"\0", b"X" * 8190, b"\t" * 8190],
    ids=["blank", "blank then NUL", "no colon", "tabs"],
)
def test_a_hostile_line_costs_linear_time(line: bytes) -> None:
    # With quadratic time, this test would time out.
    head = b"GET / HTTP/1.1\r\n" + line + b"\r\n\r\n"
    for _ in range(300):
        try:
            request = parse(head)
        except HandshakeError as error:
            assert error.slug == "bad-field-line"
        else:
            assert request is not None
            assert request.headers["X"] == ""


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/a/b?c=d?e", "/a/b", "c=d?e"),
        ("http://example.com/chat?x", "/chat", "x"),
        ("HTTPS://example.com:443", "/", ""),
        ("https://example.com?x", "/", "x"),
        ("*", "/*", ""),
    ],
)
def test_path_and_query_come_from_the_resource_name(target: str, path: str, query: str) -> None:
    request = Request("GET", target)
    assert (request.path, request.query) == (path, query)


def test_the_fields_of_the_handshake_are_attributes() -> None:
    request = Request(
        "GET",
        "/",
        Headers(
            [
                ("Origin", "https://example.com"),
                ("Sec-WebSocket-Protocol", "a, b"),
                ("Sec-WebSocket-Protocol", "c"),
                ("Sec-WebSocket-Extensions", "x; y=1"),
            ]
        ),
    )
    assert request.origin == "https://example.com"
    assert request.subprotocols == ["a", "b", "c"]
    assert request.extensions == [Extension("x", (("y", "1"),))]
    assert Request("GET", "/").origin is None


def test_a_request_is_encoded() -> None:
    request = Request("GET", "/chat", Headers([("Host", "example.com"), ("X", "é")]))
    assert request.encode() == b"GET /chat HTTP/1.1\r\nHost: example.com\r\nX: \xe9\r\n\r\n"


@pytest.mark.parametrize(
    ("request_", "slug"),
    [
        (Request("G T", "/"), "bad-method"),
        (Request("GET\r\n", "/"), "bad-method"),
        (Request("GET", ""), "bad-target"),
        (Request("GET", "/a b"), "bad-target"),
        (Request("GET", "/\r\nX: y"), "bad-target"),
        (Request("GET", "/é"), "bad-target"),
        (Request("GET", "/#a"), "bad-target"),
        (Request("GET", "/\n"), "bad-target"),
    ],
)
def test_an_invalid_request_is_not_encoded(request_: Request, slug: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        request_.encode()
    assert caught.value.slug == slug


def test_a_response_is_encoded() -> None:
    assert Response(101).encode() == b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
    assert Response(299).encode() == b"HTTP/1.1 299 \r\n\r\n"
    assert Response(404, Headers([("X", "1")]), "Gone fishing").encode() == (
        b"HTTP/1.1 404 Gone fishing\r\nX: 1\r\n\r\n"
    )


@pytest.mark.parametrize("status", [100, 599])
def test_the_first_and_the_last_status(status: int) -> None:
    assert Response(status, reason="x").encode() == b"HTTP/1.1 %d x\r\n\r\n" % status


@pytest.mark.parametrize(
    ("response", "slug"),
    [
        (Response(99), "bad-status"),
        (Response(600), "bad-status"),
        (Response(200, reason="a\r\nX: y"), "bad-reason"),
        (Response(200, reason="\u212a"), "bad-reason"),
    ],
)
def test_an_invalid_response_is_not_encoded(response: Response, slug: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        response.encode()
    assert caught.value.slug == slug


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        (b"HTTP/1.1 101 Switching Protocols", 101, "Switching Protocols"),
        (b"HTTP/1.1 404 ", 404, ""),
        (b"HTTP/1.1 404", 404, ""),
        (b"HTTP/1.0 200 caf\xe9", 200, "caf\xe9"),
    ],
)
def test_status_lines(line: bytes, status: int, reason: str) -> None:
    parser = ResponseParser()
    parser.receive_data(line + b"\r\nX: 1\r\n\r\nbody")
    response = parser.next_head()
    assert response is not None
    assert (response.status, response.reason, response.headers["x"]) == (status, reason, "1")
    assert parser.trailing_data == b"body"


@pytest.mark.parametrize(
    "line",
    [b"HTTP/1.1", b"HTTP/1.1 1O1 x", b"HTTP/1.1 10 x", b"HTTP/1.1 600 x", b"HTTP/1.1  101", b"ICY 200"],
)
def test_bad_status_lines(line: bytes) -> None:
    parser = ResponseParser()
    parser.receive_data(line + b"\r\n")
    with pytest.raises(HandshakeError) as caught:
        parser.next_head()
    assert caught.value.slug == "bad-status-line"


def test_the_version_of_a_response() -> None:
    parser = ResponseParser()
    parser.receive_data(b"HTTP/1.0 101 x\r\n\r\n")
    response = parser.next_head()
    assert response == Response(101, reason="x", version="1.0")


def test_a_long_status_line_is_not_414() -> None:
    parser = ResponseParser(max_line_size=20)
    parser.receive_data(b"HTTP/1.1 200 " + b"x" * 20)
    with pytest.raises(HandshakeError) as caught:
        parser.next_head()
    assert (caught.value.slug, caught.value.status) == ("start-line-too-long", 431)


def test_the_buffer_holds_only_what_follows_the_head() -> None:
    for chunks in ([HEAD + b"rest"], [HEAD[:-1], HEAD[-1:] + b"rest"]):
        parser = RequestParser()
        for chunk in chunks:
            parser.receive_data(chunk)
            parser.next_head()
        assert parser._buffer == b"rest"
        assert parser.next_head() is None
        parser.receive_data(HEAD)
        assert parser.next_head() is None
        assert parser.trailing_data == b"rest" + HEAD


@pytest.mark.parametrize("split", [False, True])
def test_limits_are_exact_whole_and_by_lines(split: bool) -> None:
    """A head that arrives whole is parsed in one step, another by lines."""

    def slug(data: bytes, **limits: int) -> str | None:
        parser = RequestParser(**limits)
        try:
            for chunk in [data[:3], data[3:]] if split else [data]:
                parser.receive_data(chunk)
                head = parser.next_head()
        except HandshakeError as error:
            return error.slug
        return None if head else "incomplete"

    head = request_line(20) + b"X: " + b"a" * 17 + b"\r\n" + b"Y: 1\r\n\r\n"
    assert slug(head, max_line_size=20) is None
    assert slug(head, max_line_size=19) == "start-line-too-long"
    assert slug(head.replace(b"X", b"XX"), max_line_size=20) == "head-too-large"
    assert slug(head, max_fields=2) is None
    assert slug(head, max_fields=1) == "too-many-fields"
    assert slug(head, max_head_size=len(head)) is None
    assert slug(head, max_head_size=len(head) - 1) == "head-too-large"
