"""Plain HTTP on the same port: the few pages that a server has.

Each answer closes its connection.
"""

from collections.abc import Mapping
from typing import NamedTuple

from rfc6455 import Headers, Request, Response


class Page(NamedTuple):
    """A body and its media type."""

    body: bytes
    content_type: str


def respond(request: Request, pages: Mapping[str, Page]) -> bytes:
    """The whole answer to a request that asks for no upgrade: 200, 404 or 405."""
    if request.method not in ("GET", "HEAD"):
        return _answer(405, Page(b"method not allowed\n", "text/plain"), [("Allow", "GET, HEAD")])
    page = pages.get(request.path)
    status = 200 if page else 404
    page = page or Page(b"not found\n", "text/plain")
    return _answer(status, page, [], with_body=request.method == "GET")


def _answer(status: int, page: Page, fields: list[tuple[str, str]], *, with_body: bool = True) -> bytes:
    headers = Headers(
        [
            ("Content-Type", f"{page.content_type}; charset=utf-8"),
            ("Content-Length", str(len(page.body))),
            ("Connection", "close"),
            ("X-Content-Type-Options", "nosniff"),
            ("Content-Security-Policy", "default-src 'self'; img-src 'self' data:; base-uri 'none'"),
            *fields,
        ]
    )
    return Response(status, headers).encode() + (page.body if with_body else b"")
