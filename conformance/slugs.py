"""The table of slugs: every short error name in the code, what raises it, when, and what the peer is sent.

``slugs.toml`` has a sentence for each. This module finds the slugs in the source, compares them with the
table, and writes the page.
"""

import ast
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from rfc6455 import CloseCode

_HERE = Path(__file__).parent
_ROOT = _HERE.parent
_PAGE = _ROOT / "docs" / "slugs.md"

# Title, folder of the source, introduction.
PARTS = (
    (
        "The codec",
        _ROOT / "rfc6455",
        "`RemoteProtocolError` is part of `ConnectionFailed`, and `HandshakeError` of `HandshakeFailed`: the"
        " peer broke the protocol. A `RemoteProtocolError` is answered with the close code, by either role. A"
        " server answers a `HandshakeError` with the HTTP status; a client sends nothing."
        " `LocalProtocolError` is raised to the caller, and nothing is sent.",
    ),
    (
        "The server",
        _ROOT / "server" / "rfc6455_server",
        "`EngineError` and `PacketError` belong to Engine.IO and Socket.IO.",
    ),
)

_DEFAULTS = {"RemoteProtocolError": ("code", 1002), "HandshakeError": ("status", 400)}
"""By class: the keyword argument of the close code or HTTP status, and its default."""


@dataclass(frozen=True)
class Use:
    """A slug in the source, and the class of the error.

    ``answer`` is the close code or HTTP status: ``None`` if the class has neither or it is not a literal.
    """

    slug: str
    raised_as: str
    answer: int | None
    where: str


@dataclass(frozen=True)
class Row:
    """A row of the table; ``answer`` is given if the code does not say it."""

    slug: str
    raised_as: str
    when: str
    answer: str = ""


def read_rows(path: Path = _HERE / "slugs.toml") -> list[Row]:
    return [Row(**entry) for entry in tomllib.loads(path.read_text())["slug"]]


def find_uses(folder: Path) -> list[Use]:
    """Returns every use of a slug in the Python files of a folder."""
    return [use for path in sorted(folder.rglob("*.py")) for use in _Finder(path).find()]


class _Finder:
    """Finds the calls with ``slug="…"`` in a file, and the calls of its functions that pass one on."""

    def __init__(self, path: Path) -> None:
        self._tree = ast.parse(path.read_text())
        self._name = path.relative_to(_ROOT).as_posix()
        # By name: the position of the parameter ``slug``, and the call that it is passed to.
        self._helpers: dict[str, tuple[int, ast.Call]] = {}
        for function in ast.walk(self._tree):
            if isinstance(function, ast.FunctionDef) and function.name != "__init__":
                parameters = [parameter.arg for parameter in function.args.args]
                if "slug" in parameters:
                    (call,) = (call for call in _calls(function) if _keyword(call, "slug") is not None)
                    self._helpers[function.name] = parameters.index("slug"), call

    def find(self) -> Iterator[Use]:
        # The whole file, and then each class for the errors whose constructor sets the slug.
        for owner in [self._tree, *(node for node in ast.walk(self._tree) if isinstance(node, ast.ClassDef))]:
            for call in _calls(owner):
                called = ast.unparse(call.func)
                if called in self._helpers:
                    position, passed_on = self._helpers[called]
                    slug: ast.expr | None = call.args[position]
                    made = passed_on
                else:
                    slug, made = _keyword(call, "slug"), call
                # Without a literal, this is a helper or a constructor: its calls have the slug.
                if not isinstance(slug, ast.Constant):
                    continue
                in_constructor = ast.unparse(made.func) == "super().__init__"
                if isinstance(owner, ast.ClassDef) is in_constructor:
                    raised_as = owner.name if isinstance(owner, ast.ClassDef) else ast.unparse(made.func)
                    where = f"{self._name}:{call.lineno}"
                    yield Use(str(slug.value), raised_as, _answer(raised_as, made), where)


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    return (child for child in ast.walk(node) if isinstance(child, ast.Call))


def _keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((keyword.value for keyword in call.keywords if keyword.arg == name), None)


def _answer(raised_as: str, call: ast.Call) -> int | None:
    if raised_as not in _DEFAULTS:
        return None
    name, default = _DEFAULTS[raised_as]
    match _keyword(call, name):
        case None:
            return default
        case ast.Constant(value=int(status)):
            return status
        case ast.Attribute(attr=code) if code in CloseCode.__members__:
            return int(CloseCode[code])
    return None


def problems(rows: Iterable[Row], uses: Iterable[Use]) -> list[str]:
    """Returns what is wrong with the table, one line each: missing, outdated and repeated rows."""
    rows, uses = list(rows), list(uses)
    keys = [(row.slug, row.raised_as) for row in rows]
    in_code = {(use.slug, use.raised_as) for use in uses}
    found = [
        f"{use.where}: {use.slug} as {use.raised_as} has no row"
        for use in uses
        if (use.slug, use.raised_as) not in keys
    ]
    found += [f"{key[0]} as {key[1]}: not in the code" for key in keys if key not in in_code]
    found += [
        f"{key[0]} as {key[1]}: {keys.count(key)} rows" for key in sorted(set(keys)) if keys.count(key) > 1
    ]
    for row in rows:
        of_row = [use for use in uses if (use.slug, use.raised_as) == (row.slug, row.raised_as)]
        known = row.raised_as == "LocalProtocolError" or all(use.answer is not None for use in of_row)
        if bool(row.answer) is known:
            found.append(f"{row.slug} as {row.raised_as}: {'needless' if known else 'needs an'} answer")
    return found


def page(rows: Iterable[Row], uses: Iterable[Use]) -> str:
    """Returns the table as a page."""
    rows = list(rows)
    uses = list(uses)
    lines = [
        "# Errors and their slugs",
        "",
        "Each error has a `slug`: a short name that stays the same between releases, for metrics and tests.",
        "The texts of the errors may change.",
        "",
        "`python -m conformance slugs --write` writes this page from the code and `conformance/slugs.toml`.",
    ]
    for title, folder, introduction in PARTS:
        of_part = [use for use in uses if (_ROOT / use.where).is_relative_to(folder)]
        count = len({use.slug for use in of_part})
        lines += [
            "",
            f"## {title}",
            "",
            f"{count} slugs. {introduction}",
            "",
            "| slug | raised as | when | close code or HTTP status |",
            "|---|---|---|---|",
        ]
        for row in sorted(rows, key=lambda row: (row.slug, row.raised_as)):
            of_row = [use for use in of_part if (use.slug, use.raised_as) == (row.slug, row.raised_as)]
            if of_row:
                answers = sorted({use.answer for use in of_row if use.answer})
                answer = row.answer or ", ".join(map(str, answers)) or "—"
                lines.append(f"| `{row.slug}` | `{row.raised_as}` | {row.when} | {answer} |")
    return "\n".join(lines) + "\n"


def all_uses() -> list[Use]:
    return [use for _, folder, _ in PARTS for use in find_uses(folder)]


def show(*, write: bool) -> int:
    """Prints or writes the page; returns 1 if the table has problems."""
    console = Console()
    rows, uses = read_rows(), all_uses()
    text = page(rows, uses)
    if write:
        _PAGE.write_text(text)
        console.print(f"written: {_PAGE.relative_to(_ROOT)}")
    else:
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    found = problems(rows, uses)
    for line in found:
        console.print(line, style="bold red")
    return 1 if found else 0
