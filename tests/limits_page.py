"""The table of every public option and its default: docs/limits.md, made from the code.

A class or function says in its docstring what each of its options means, or in the text below the attribute.
`python -m tests.limits_page --write` writes the page; `test_limits.py` checks that it is current, that each
option is documented, and that no default is without a bound.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Final, get_args, get_type_hints

from rfc6455 import ClientHandshake, Connection, PerMessageDeflate, ServerHandshake
from rfc6455_server import Endpoint, Limits, Server, connect
from rfc6455_server.command.limit_options import attribute_docs, limit_options
from rfc6455_server.socketio import EngineOptions, PacketOptions, SocketIO

PAGE: Final = Path(__file__).parent.parent / "docs" / "limits.md"

OWNERS: Final[dict[str, tuple[Any, Any]]] = {
    "Limits": (Limits, Limits),
    "Server": (Server, Server),
    "Server.run": (Server.run, Server.run),
    "Endpoint": (Endpoint, Endpoint.__new__),
    "SocketIO": (SocketIO, SocketIO),
    "EngineOptions": (EngineOptions, EngineOptions),
    "PacketOptions": (PacketOptions, PacketOptions),
    "connect": (connect, connect),
    "Connection": (Connection, Connection),
    "ServerHandshake": (ServerHandshake, ServerHandshake),
    "ClientHandshake": (ClientHandshake, ClientHandshake),
    "PerMessageDeflate": (PerMessageDeflate, PerMessageDeflate),
}
"""What has options: where they are documented, and what takes them."""

NO_LIMIT: Final = {
    "message_rate": "Without it, TCP pushes back, and what waits is bounded.",
    "byte_rate": "Without it, TCP pushes back, and what waits is bounded.",
    "join_rate": "Without it, `max_rooms` bounds what a connection holds.",
    "connection_rate": "Without it, `max_connections_per_address` bounds what an address holds.",
    "recovery": "Without it, nothing is kept.",
    "http_compression": "Without it, nothing is compressed.",
}
"""The numbers that may be ``None``, and what bounds the server then."""

COMMAND: Final = {
    ("Server", "origins"): "origin",
    ("Server", "compression"): "compression",
    ("Server", "slow_consumer"): "slow-consumer",
    ("Server", "trusted"): "trust",
    ("Server.run", "host"): "host",
    ("Server.run", "port"): "port",
    ("Server.run", "endpoints"): "listen",
    ("Server.run", "drain_time"): "drain-time",
    ("Endpoint", "reuse_port"): "reuse-port",
    ("Endpoint", "proxy_protocol"): "proxy-protocol",
    ("Endpoint", "certificate"): "cert",
    ("Endpoint", "metrics"): "metrics",
} | {("Limits", option.field): option.name for option in limit_options()}
"""The options that the command line has, too."""

_INTRODUCTION = """\
# Every option and its default

Every limit is finite by default. `Server` takes the options of `Limits` as keyword arguments, `SocketIO`
those of `EngineOptions` and `PacketOptions`, and a handshake those of `Connection`. The command
`rfc6455-server` has an option for each of `Limits` (`rfc6455-server --help-limits`), and those that
`rfc6455-server --help` shows. Each can also be set in the environment: `RFC6455_MAX_QUEUE` for `--max-queue`.

Times are in seconds. `python -m tests.limits_page --write` writes this page from the code.

"""


@dataclass(frozen=True)
class Option:
    """An option that users may set."""

    owner: str
    name: str
    default: Any
    text: str
    """What it means; empty if nobody has said."""
    is_number: bool
    """Whether its values are numbers, ``None`` aside."""

    @property
    def command(self) -> str:
        """Its option on the command line, or an empty text."""
        name = COMMAND.get((self.owner, self.name))
        return f"`--{name}`" if name else ""


def options() -> list[Option]:
    """Returns all public options that have a default."""
    return [option for name, (owner, taker) in OWNERS.items() for option in options_of(name, owner, taker)]


def options_of(name: str, owner: Any, taker: Callable[..., object]) -> Iterator[Option]:
    """Yields the options that ``taker`` takes and ``owner`` documents."""
    docs: dict[str, str] = {}
    for base in reversed(getattr(owner, "__mro__", ())):
        docs |= attribute_docs(base) if "__dataclass_fields__" in vars(base) else {}
    hints = get_type_hints(taker if inspect.isfunction(taker) else inspect.unwrap(vars(owner)["__init__"]))
    defaults = {field.name: field.default for field in fields(owner)} if is_dataclass(owner) else {}
    for parameter in inspect.signature(taker).parameters.values():
        if parameter.default is parameter.empty:
            continue
        text = docs.get(parameter.name) or sentence_about(parameter.name, inspect.getdoc(owner) or "")
        is_number = _is_number(hints.get(parameter.name))
        default = defaults.get(parameter.name, parameter.default)
        yield Option(name, parameter.name, default, _markdown(text), is_number)


def sentence_about(name: str, doc: str) -> str:
    """Returns the sentence of a docstring that starts with a parameter, or else the first that names it."""
    sentences = re.split(r"(?<=\.)\s+(?=[A-Z`])", " ".join(doc.split()))
    named = [sentence for sentence in sentences if f"``{name}``" in sentence]
    named.sort(key=lambda sentence: not sentence.startswith(f"``{name}``"))
    sentence = named[0].removeprefix(f"``{name}``: ") if named else ""
    return sentence[:1].upper() + sentence[1:]


def _markdown(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


def _is_number(hint: Any) -> bool:
    kinds = set(get_args(hint)) - {type(None)} if isinstance(hint, UnionType) else {hint}
    return bool(kinds) and kinds <= {int, float}


def shown(option: Option) -> str:
    """Returns a default as the page shows it."""
    default = option.default
    if default is None:
        return "none"
    if isinstance(default, bool) or not isinstance(default, int | float):
        name = getattr(default, "__name__", repr(default))
        return "a function" if name == "<lambda>" else f"`{name}`"
    text = f"{default:,}" if isinstance(default, int) else f"{default:g}"
    for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if "byte" in option.text.lower() and default >= size and default % size == 0:
            return f"{text} ({default // size:g} {unit})"
    return text


def page() -> str:
    """Returns the text of the page."""
    lines = ["| of | option | command line | default | meaning |", "|---|---|---|---|---|"]
    first: dict[tuple[str, str], str] = {}  # the option that a sentence about several stands at
    for option in options():
        text, named = option.text, first.setdefault((option.owner, option.text), option.name)
        if named != option.name:
            text = f"See `{named}`."
        if option.default is None and option.name in NO_LIMIT:
            text += f" {NO_LIMIT[option.name]}"
        cells = (f"`{option.owner}`", f"`{option.name}`", option.command, shown(option), text)
        lines.append("| " + " | ".join(cells) + " |")
    return _INTRODUCTION + "\n".join(lines) + "\n"


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    PAGE.write_text(page())
