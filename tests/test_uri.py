import pytest

from rfc6455 import LocalProtocolError, WebSocketURI, parse_uri


@pytest.mark.parametrize(
    ("uri", "expected", "authority"),
    [
        ("ws://example.com/", WebSocketURI(False, "example.com", 80, "/"), "example.com"),
        ("wss://example.com/", WebSocketURI(True, "example.com", 443, "/"), "example.com"),
        ("ws://example.com", WebSocketURI(False, "example.com", 80, "/"), "example.com"),
        ("WSS://Example.COM/Chat", WebSocketURI(True, "example.com", 443, "/Chat"), "example.com"),
        ("ws://h:80/", WebSocketURI(False, "h", 80, "/"), "h"),
        ("ws://h:443/", WebSocketURI(False, "h", 443, "/"), "h:443"),
        ("wss://h:8443/a?b=c", WebSocketURI(True, "h", 8443, "/a?b=c"), "h:8443"),
        ("ws://h?b", WebSocketURI(False, "h", 80, "/?b"), "h"),
        ("ws://h/a?", WebSocketURI(False, "h", 80, "/a"), "h"),
        ("ws://[::1]:9000/x", WebSocketURI(False, "::1", 9000, "/x"), "[::1]:9000"),
        ("ws://[::1]/", WebSocketURI(False, "::1", 80, "/"), "[::1]"),
        ("ws://bücher.example/é%20x?ü=%2f", WebSocketURI(False, "xn--bcher-kva.example", 80,
         "/%C3%A9%20x?%C3%BC=%2f"), "xn--bcher-kva.example"),
        ('ws://h/a"b', WebSocketURI(False, "h", 80, "/a%22b"), "h"),
    ],
)  # fmt: skip
def test_valid_uris(uri: str, expected: WebSocketURI, authority: str) -> None:
    assert parse_uri(uri) == expected
    assert expected.authority == authority


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "http://example.com/",
        "example.com/chat",
        "ws:example.com",
        "ws:///chat",
        "ws://:80/",
        "ws://h/#fragment",
        "ws://h/#",
        "ws://user@h/",
        "ws://user:secret@h/",
        "ws://h:port/",
        "ws://h:99999/",
        "ws://h:0/",
        "ws://h:-1/",
        "ws://[::1/",
        "ws://h/a b",
        "ws://h/\r\nX: y",
        "ws://h\t/",
        "ws://h/\x7f",
        "ws://a..b/",
        'ws://h"/',
        "ws://" + "a" * 64 + "é/",
    ],
)
def test_invalid_uris(uri: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        parse_uri(uri)
    assert caught.value.slug == "bad-uri"
