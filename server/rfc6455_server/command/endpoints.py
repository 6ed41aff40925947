"""Where ``rfc6455-server`` listens, from its options. An option that would have no effect is an error."""

import os
import re
import socket
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from rfc6455_server.listening.acceptor import Endpoint
from rfc6455_server.listening.certificates import Certificate
from rfc6455_server.listening.proxy import UNIX

_MAX_PATH: Final = 107 if sys.platform == "linux" else 103
"""Maximum bytes of the path of a Unix socket: those of ``sun_path`` without the NUL at its end."""


def make_endpoints(options: Namespace, passed: Sequence[socket.socket] = ()) -> list[Endpoint]:
    """Returns the endpoints to listen on. ``passed`` are the sockets that the service manager has opened.

    ``options.given`` are the names of the options that were given. Raises `ValueError` for options that do
    not go together and for a wrong URL, and `OSError` for a file that cannot be used.
    """
    _check(options)
    certificate = Certificate(options.cert, options.key or None) if options.cert else None
    if passed:
        endpoints = _passed_endpoints(options, certificate, passed)
    elif options.listen:
        endpoints = [_endpoint_of_url(url, certificate) for url in options.listen]
    else:
        endpoints = [Endpoint(options.host, options.port, certificate=certificate)]
    endpoints = [
        endpoint._replace(reuse_port=options.reuse_port, proxy_protocol=options.proxy_protocol)
        for endpoint in endpoints
    ]
    _check_endpoints(options, endpoints)
    if options.metrics:
        # Each process has its own figures, and Prometheus sends no PROXY header.
        endpoints.append(_endpoint_of_url(options.metrics, certificate)._replace(metrics=True))
    if certificate is not None and not any(endpoint.tls for endpoint in endpoints):
        raise ValueError("--cert has no effect: no --listen starts with https://")
    return endpoints


def _check(options: Namespace) -> None:
    if options.key and not options.cert:
        raise ValueError("--key needs --cert")
    if options.proxy_protocol and not options.trust:
        raise ValueError("--proxy-protocol needs --trust: no address may send PROXY headers")
    for name in ("host", "port"):
        if "listen" in options.given and name in options.given:
            raise ValueError(f"--{name} and --listen exclude each other, also in the environment")


def _check_endpoints(options: Namespace, endpoints: Sequence[Endpoint]) -> None:
    are_unix = [endpoint.path is not None or _is_unix(endpoint.listening) for endpoint in endpoints]
    if options.reuse_port and all(are_unix):
        raise ValueError("--reuse-port has no effect: a Unix socket has no port")
    if options.proxy_protocol and any(are_unix) and UNIX not in options.trust:
        raise ValueError(
            "--proxy-protocol needs --trust unix: nobody may send PROXY headers to the Unix socket"
        )
    if options.proxy_protocol and not all(are_unix) and set(options.trust) == {UNIX}:
        raise ValueError("--proxy-protocol needs --trust: no address may send PROXY headers")


def _is_unix(listening: socket.socket | None) -> bool:
    return listening is not None and listening.family == socket.AF_UNIX


def _passed_endpoints(
    options: Namespace, certificate: Certificate | None, passed: Sequence[socket.socket]
) -> list[Endpoint]:
    """Returns endpoints for passed sockets. With a certificate, all but Unix sockets use TLS."""
    for name in ("host", "port", "listen", "reuse_port"):
        if name in options.given:
            shown = name.replace("_", "-")
            raise ValueError(f"--{shown} has no effect: the service manager has passed sockets")
    return [
        Endpoint(
            listening=listening,
            certificate=None if _is_unix(listening) else certificate,
        )
        for listening in passed
    ]


def _endpoint_of_url(url: str, certificate: Certificate | None) -> Endpoint:
    problem = f"cannot listen on {url!r}: use http://H:P, https://H:P or unix:PATH"
    if url.startswith("unix:"):
        path = re.sub(r"^//(?=/)", "", url.removeprefix("unix:"))
        if not path or path.startswith("//"):
            raise ValueError(problem)
        if len(os.fsencode(path)) > _MAX_PATH:
            raise ValueError(f"cannot listen on {path}: a Unix path has at most {_MAX_PATH} bytes here")
        return Endpoint(path=path)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{problem}. {error}") from error
    beside = (parts.username, parts.password, parts.query, parts.fragment, parts.path.removeprefix("/"))
    if parts.scheme not in ("http", "https") or not parts.hostname or any(beside):
        raise ValueError(problem)
    secure = parts.scheme == "https"
    if secure and certificate is None:
        raise ValueError(f"{url} needs --cert")
    if port is None:
        port = 443 if secure else 80
    return Endpoint(parts.hostname, port, certificate=certificate if secure else None)
