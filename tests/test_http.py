import pytest

from rfc6455 import Request
from rfc6455_server.http import Page, respond

PAGES = {"/": Page(b"<p>hi", "text/html")}


@pytest.mark.parametrize(
    ("method", "target", "status", "body"),
    [
        ("GET", "/", 200, b"<p>hi"),
        ("GET", "/?x", 200, b"<p>hi"),
        ("HEAD", "/", 200, b""),
        ("GET", "/other", 404, b"not found\n"),
        ("HEAD", "/other", 404, b""),
        ("GET", "//", 404, b"not found\n"),
        ("POST", "/", 405, b"method not allowed\n"),
    ],
)
def test_answers(method: str, target: str, status: int, body: bytes) -> None:
    head, _, sent = respond(Request(method, target), PAGES).partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0].startswith(b"HTTP/1.1 %d " % status)
    assert sent == body
    assert b"Connection: close" in lines
    assert b"X-Content-Type-Options: nosniff" in lines
    if method == "HEAD" and status == 200:
        assert b"Content-Length: 5" in lines
    if status == 405:
        assert b"Allow: GET, HEAD" in lines
