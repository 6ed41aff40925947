"""Routing and refusal of requests, without a server. `test_listener` tests the same over TCP."""

import pytest

from rfc6455 import HandshakeError, HandshakeFailed, Headers, Request
from rfc6455_server import Refusal, Server, bearer_token
from rfc6455_server.http.heads import ServedRequest
from rfc6455_server.http.routes import HttpRoute, HttpRoutes, fixed
from rfc6455_server.listening.routing import (
    Match,
    Route,
    Router,
    Site,
    check_origins,
    compile_route,
    same_origin,
)


def request(target: str = "/", *headers: tuple[str, str]) -> Request:
    return Request("GET", target, Headers([("Host", "example.com"), *headers]))


async def handler(*_: object, **__: str) -> None:
    """A handler."""


def router(*routes: Route, **options: object) -> Router:
    return Router(Site(routes=list(routes), **options))  # type: ignore[arg-type]


def judge(request_: Request, *routes: Route, **options: object) -> Match | int:
    """Returns the match, or the status of the refusal."""
    verdict = router(*routes, **options).judge(request_, draining=False)
    return verdict.status if isinstance(verdict, Refusal) else verdict


def test_the_first_route_that_matches_is_used() -> None:
    first, second = compile_route("/{a}/x", handler), compile_route("/{a}/{b}", handler)
    assert judge(request("/1/x"), first, second) == Match(first, {"a": "1"})
    assert judge(request("/1/%79?q"), first, second) == Match(second, {"a": "1", "b": "y"})
    assert judge(request("/1"), first, second) == 404


def test_the_order_of_refusals() -> None:
    """Draining is checked first. The origin precedes the path, so that another origin cannot probe paths."""
    elsewhere = request("/none", ("Origin", "https://elsewhere.example"))
    assert judge(elsewhere) == 403
    assert judge(request("/none")) == 404
    refusal = router().judge(elsewhere, draining=True)
    assert isinstance(refusal, Refusal)
    assert refusal.status == 503
    assert ("Retry-After", "5") in refusal.headers


def test_the_check_of_a_route_replaces_the_origin_check() -> None:
    elsewhere = request("/", ("Origin", "https://elsewhere.example"))
    welcoming = compile_route("/", handler, lambda _: None)
    assert judge(elsewhere, welcoming) == Match(welcoming, {})
    assert judge(request(), compile_route("/", handler, lambda _: Refusal(418))) == 418


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        (None, None, True),
        (None, "http://example.com", True),
        (None, "HTTP://EXAMPLE.com", True),
        (None, "http://example.com:80", False),
        (None, "http://[", False),
        (["https://a.example"], "https://A.example", True),
        (["https://a.example"], "http://example.com", False),
        (["https://a.example"], None, True),
        ([], "http://example.com", False),
        (["*"], "null", False),
        (["*"], "NULL", False),
        (["*"], "https://anything.example", True),
        (None, "https://example.com", False),
        (None, "null", False),
        (None, "http://example.com/", False),
        (None, "example.com", False),
        (None, "", False),
    ],
)
def test_origins(origins: list[str] | None, origin: str | None, allowed: bool) -> None:
    fields = [] if origin is None else [("Origin", origin)]
    route = compile_route("/", handler)
    expected: object = Match(route, {}) if allowed else 403
    assert judge(request("/", *fields), route, origins=origins) == expected


@pytest.mark.parametrize(
    ("scheme", "host", "origin", "same"),
    [
        ("https", "example.com", "https://example.com", True),
        ("https", "example.com:443", "https://example.com", True),
        ("https", "example.com:8443", "https://example.com:8443", True),
        ("https", "example.com:443", "https://example.com:443", False),
        ("https", "example.com:80", "https://example.com", False),
        ("https", "example.com", "http://example.com", False),
        ("http", "example.com:80", "http://example.com", True),
        ("http", "example.com:8080", "http://example.com", False),
        ("http", "[::1]:80", "http://[::1]", True),
        ("http", "example.com", "https://example.com", False),
        ("http", "example.com", "ws://example.com", False),
    ],
)
def test_the_same_origin_has_the_same_scheme_host_and_port(
    scheme: str, host: str, origin: str, same: bool
) -> None:
    fields = Headers([("Host", host), ("Origin", origin)])
    assert same_origin(ServedRequest("GET", "/", fields, scheme=scheme)) is same


def test_null_is_no_origin_to_allow() -> None:
    assert check_origins(None) is None
    assert check_origins(["HTTPS://a.example", "*"]) == ["https://a.example", "*"]
    with pytest.raises(ValueError, match="null"):
        Server(origins=["https://a.example", "Null"])


def test_same_origin_without_a_host() -> None:
    assert not same_origin(Request("GET", "/", Headers([("Origin", "http://example.com")])))


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (None, None),
        ("a", "a"),
        ("x, b, a", "b"),
        ("x", None),
        ("bearer, secret", "bearer"),
        ("bearer, a", "a"),
        ("bearer", None),
    ],
)
def test_subprotocols(offered: str | None, chosen: str | None) -> None:
    fields = [] if offered is None else [("Sec-WebSocket-Protocol", offered)]
    assert router(subprotocols=["a", "b"]).choose_subprotocol(request("/", *fields)) == chosen


def test_the_token_of_a_malformed_list() -> None:
    with pytest.raises(HandshakeError):
        bearer_token(
            request("/", ("Sec-WebSocket-Protocol", "bearer, no token")),
        )


@pytest.mark.parametrize(
    ("failed", "over_http"),
    [
        (request("/page"), True),
        (request("/none"), True),
        (request("/both"), True),
        (request("/ws"), False),
        (request("/page", ("Upgrade", "h2c")), True),
        (request("/page", ("Upgrade", "h2c"), ("Upgrade", "TLS/1.0")), True),
        (request("/ws", ("Upgrade", "h2c")), False),
        (request("/page", ("Upgrade", "h2c, WebSocket")), False),
        (request("/page", ("Upgrade", "h2c"), ("Upgrade", "websocket")), False),
        (None, False),
    ],
)
def test_which_requests_are_answered_over_http(failed: Request | None, over_http: bool) -> None:
    http = HttpRoutes()
    for path in ("/page", "/both"):
        http.add(path, HttpRoute(fixed(b"", "text/plain")))
    routes = [compile_route(path, handler) for path in ("/ws", "/both")]
    failure = HandshakeFailed(HandshakeError("no", slug="no", status=426), failed)
    assert router(*routes, http=http).is_http(failure) is over_http
