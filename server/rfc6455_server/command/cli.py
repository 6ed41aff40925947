"""The command ``rfc6455-server``: an echo, rooms, and pages to try them; ``connect`` is a client."""

import argparse
import logging
import os
import ssl
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, NoReturn

from rfc6455 import PerMessageDeflate, __version__
from rfc6455_server.app import DRAIN_TIME, Server
from rfc6455_server.command.endpoints import make_endpoints
from rfc6455_server.command.limit_options import limit_options, limits_help, parse_integer, parse_number
from rfc6455_server.command.terminal import chat, escape
from rfc6455_server.limits import MAX_SECONDS
from rfc6455_server.listening.proxy import Trusted
from rfc6455_server.listening.routing import check_origins
from rfc6455_server.logs import JsonFormatter, TextFormatter
from rfc6455_server.pages import add_pages
from rfc6455_server.systemd import passed_sockets
from rfc6455_server.websocket.handler import Handler
from rfc6455_server.websocket.websocket import WebSocket

_PREFIX: Final = "RFC6455_"


def _nonempty(text: str) -> str:
    if not text:
        raise ValueError
    return text


class _Option(NamedTuple):
    """An option, which can also be set in the environment."""

    name: str
    metavar: str  # empty for a flag
    default: Any
    text: str
    parse: Callable[[str], Any] = _nonempty
    repeatable: bool = False
    target: str = ""  # what it sets, if that has another name

    @property
    def variable(self) -> str:
        return _PREFIX + self.name.upper().replace("-", "_")

    @property
    def attribute(self) -> str:
        return self.target or self.name.replace("-", "_")


def _port(text: str) -> int:
    port = parse_integer(text)
    if port > 65535:
        raise ValueError
    return port


def _seconds(text: str) -> float:
    seconds = parse_number(text)
    if not 0 <= seconds <= MAX_SECONDS:
        raise ValueError
    return seconds


def _origin(text: str) -> str:
    return _explained(check_origins, text)


def _trusted(text: str) -> str:
    return _explained(Trusted, text)


def _explained(check: Callable[[list[str]], object], text: str) -> str:
    """Returns ``text`` if ``check`` accepts it; the error says why not."""
    try:
        check([text])
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _policy(text: str) -> str:
    if text not in ("disconnect", "drop_oldest", "drop_newest"):
        raise ValueError
    return text


def _format(text: str) -> str:
    if text not in ("text", "json"):
        raise ValueError
    return text


def _level(text: str) -> str:
    if text not in ("debug", "info", "warning", "error"):
        raise ValueError
    return text


_OPTIONS: Final = (
    _Option("host", "H", "127.0.0.1", "address to listen on"),
    _Option("port", "P", 8765, "TCP port, 0 for a free one", _port),
    _Option("listen", "URL", [], "http://H:P, https://H:P, unix:PATH instead", repeatable=True),
    _Option("metrics", "URL", "", "a listener for /metrics, and only there"),
    _Option("cert", "FILE", "", "certificate chain for TLS, in PEM"),
    _Option("key", "FILE", "", "its private key, if in another file"),
    _Option("origin", "ORIGIN", [], "origins to allow, * for all", _origin, repeatable=True),
    _Option("trust", "NET", [], "trusted proxies: IPs, networks, unix", _trusted, repeatable=True),
    _Option("proxy-protocol", "", False, "require PROXY headers, version 2"),
    _Option("reuse-port", "", False, "let several processes use the port"),
    _Option("slow-consumer", "POLICY", "disconnect", "or drop_oldest, drop_newest", _policy),
    _Option("drain-time", "S", DRAIN_TIME, "seconds over which to close all", _seconds),
    _Option("compression", "", False, "permessage-deflate: 300 KiB each"),
    _Option("no-pages", "", False, "no web pages and no Socket.IO"),
    _Option("log-format", "FORMAT", "text", "or json", _format),
    _Option("log-level", "LEVEL", "info", "or debug, warning, error", _level),
)

_LIMITS: Final = {option.field: option for option in limit_options()}
_PER_ADDRESS: Final = _LIMITS["max_connections_per_address"]
_ALL_OPTIONS: Final = (
    *_OPTIONS,
    *(_Option(limit.name, "N", limit.default, "", limit.parse) for limit in _LIMITS.values()),
    # A shorter name.
    _Option("max-per-address", "N", _PER_ADDRESS.default, "", _PER_ADDRESS.parse, target=_PER_ADDRESS.field),
)

_DESCRIPTION: Final = "usage: rfc6455-server [OPTION]...   or: rfc6455-server connect --help\n"


def make_server(*, pages: bool = True, **options: Any) -> Server:
    """Returns a server with ``/echo``, ``/rooms/{name}`` and the pages; ``options`` are those of `Server`."""
    server = Server(**options)

    @server.websocket("/echo")
    async def echo(ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    @server.websocket("/rooms/{name}")
    class Member(Handler):
        def __init__(self, name: str) -> None:
            self.room = server.rooms[name]

        def on_open(self, ws: WebSocket) -> None:
            self.room.join(ws)

        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            self.room.broadcast(message, exclude=[ws])

    if pages:
        add_pages(server)
    return server


class _Parser(argparse.ArgumentParser):
    """Prints errors in one line, and help that fits on one screen."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"rfc6455-server: {escape(message)}\n")

    def format_help(self) -> str:
        lines = [_DESCRIPTION]
        for option in _OPTIONS:
            default = option.default or ("none" if option.metavar else "off")
            if option.name == "origin":
                default = "its own"  # pages of the server itself
            if isinstance(default, float):
                default = f"{default:g}"
            shown = f"--{option.name} {option.metavar}".rstrip()
            lines.append(f"  {shown:<25} {option.text} ({default})\n")
        lines.append("Limits, such as --max-message-size: rfc6455-server --help-limits\n")
        lines.append(f"--check and --version exit. {_PREFIX}PORT=80 means --port 80; lists take commas.\n")
        return "".join(lines)


def _from_environment(environment: Mapping[str, str], arguments: Sequence[str], parser: _Parser) -> list[str]:
    """Returns the options that the environment sets, as arguments, unless the command line sets them."""
    found = []
    for option in _ALL_OPTIONS:
        value = environment.get(option.variable)
        given = any(argument.split("=")[0] == f"--{option.name}" for argument in arguments)
        if value is None or given:
            continue
        if not value:
            parser.error(f"{option.variable} is empty")
        if option.metavar:
            parts = value.split(",") if option.repeatable else [value]
            for part in parts:
                if problem := _problem(option.parse, part):
                    parser.error(f"{option.variable}: {problem}")
            found += [f"--{option.name}={part}" for part in parts]
        elif value.lower() in ("1", "true", "yes", "on"):
            found.append(f"--{option.name}")
        elif value.lower() not in ("0", "false", "no", "off"):
            parser.error(f"{option.variable} must be on or off, not {value!r}")
    return found


def _problem(parse: Callable[[str], Any], text: str) -> str:
    """Returns why a value is not valid, or an empty text."""
    try:
        parse(text)
    except argparse.ArgumentTypeError as error:
        return str(error)
    except ValueError:
        return f"invalid value: {text!r}"
    return ""


class _Once(argparse.Action):
    """Stores a value; a second one is an error."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, value: Any, *_: object
    ) -> None:
        if hasattr(namespace, self.dest):
            raise argparse.ArgumentError(self, "it is given twice")
        setattr(namespace, self.dest, value)


class _HelpLimits(argparse.Action):
    """Prints the limits."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        print(limits_help(), end="")
        parser.exit()


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Returns the options, and as ``given`` the names of those that the arguments or the environment set."""
    parser = _Parser(allow_abbrev=False, argument_default=argparse.SUPPRESS)
    parser.add_argument("--help-limits", action=_HelpLimits, nargs=0)
    for option in _ALL_OPTIONS:
        if not option.metavar:
            parser.add_argument(f"--{option.name}", action="store_true", default=argparse.SUPPRESS)
        else:
            action: str | type[argparse.Action] = "append" if option.repeatable else "store"
            if option.name == "metrics":
                action = _Once  # --listen can be repeated, so that one might expect the same here
            parser.add_argument(
                f"--{option.name}",
                type=_named(option.parse, option.name),
                action=action,
                dest=option.attribute,
            )
    parser.add_argument("--check", action="store_true", default=False)
    parser.add_argument("--version", action="version", version=f"rfc6455-server {__version__}")
    options = parser.parse_args([*_from_environment(os.environ, arguments, parser), *arguments])
    options.given = set(vars(options))
    for option in _ALL_OPTIONS:
        if option.attribute not in options.given:
            setattr(options, option.attribute, None if option.repeatable else option.default)
    return options


def _named(parse: Callable[[str], Any], name: str) -> Callable[[str], Any]:
    """Gives ``parse`` the name that argparse puts into its errors: "invalid port value"."""

    def named(text: str) -> Any:
        return parse(text)

    named.__name__ = name
    return named


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] == "connect":
        return chat(arguments[1:])
    options = _parse(arguments)
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if options.log_format == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], level=options.log_level.upper())
    try:
        endpoints = make_endpoints(options, passed_sockets())
        server = make_server(
            pages=not options.no_pages,
            slow_consumer=options.slow_consumer,
            origins=options.origin,
            trusted=options.trust or (),
            compression=PerMessageDeflate() if options.compression else None,
            **{name: getattr(options, name) for name in _LIMITS},
        )
    except ssl.SSLError as error:
        return _fail(f"cannot use the certificate: {getattr(error, 'reason', None) or error}")
    except OSError as error:
        return _fail(f"cannot read {error.filename}: {error.strerror or error}")
    except ValueError as error:
        return _fail(str(error))

    if options.check:
        print("rfc6455-server: the options are valid")
        return 0

    def started() -> None:
        for url in server.urls:
            print(f"serving on {url}", flush=True)

    try:
        server.run(endpoints=endpoints, drain_time=options.drain_time, started=started)
    except OSError as error:
        doing = f"listen on {error.filename}" if error.filename else "run"  # such as when stdout is closed
        return _fail(f"cannot {doing}: {error.strerror or error}")
    return 0


def _fail(message: str) -> int:
    print(f"rfc6455-server: {escape(message)}", file=sys.stderr)
    return 2
