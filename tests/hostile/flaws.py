"""`flaw` names what a test would find; the tables of docs/security.md are made from it.

`python -m tests.hostile.flaws --write` writes them again. `test_flaws.py` checks that they are current, and
that each test here names a flaw.
"""

import importlib
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeVar

_HERE: Final = Path(__file__).parent
PAGE: Final = _HERE.parent.parent / "docs" / "security.md"
START: Final = "<!-- tables: python -m tests.hostile.flaws --write -->\n"

_PUBLIC: Final = {
    re.compile(r"CVE-\d{4}-\d+"): "https://nvd.nist.gov/vuln/detail/{}",
    re.compile(r"GHSA(-\w{4}){3}"): "https://github.com/advisories/{}",
    re.compile(r"PYSEC-\d{4}-\d+"): "https://osv.dev/vulnerability/{}",
    re.compile(r"([\w.-]+/[\w.-]+)#(\d+)"): "https://github.com/{}/issues/{}",
}
_FOUND_HERE: Final = re.compile(r"found here")

_Test = TypeVar("_Test", bound=Callable[..., Any])


@dataclass(frozen=True)
class Flaw:
    """What others had, or we, and what happens here."""

    identifiers: tuple[str, ...]
    what: str
    here: str


def flaw(*identifiers: str, what: str, here: str) -> Callable[[_Test], _Test]:
    """Marks a test of a known flaw. Several may be given to one test.

    ``identifiers``: public ones (``"CVE-2020-27813"``, ``"GHSA-…"``, ``"aio-libs/aiohttp#13274"``), or
    ``"found here"`` for a flaw that this project had. ``what`` says what a peer does and what it gains,
    ``here`` what happens instead.
    """

    def mark(test: _Test) -> _Test:
        flaws: list[Flaw] = test.__dict__.setdefault("flaws", [])
        flaws.insert(0, Flaw(identifiers, what, here))
        return test

    return mark


def modules() -> list[ModuleType]:
    """Returns the modules of tests in this folder, but not the test of this one."""
    names = sorted(path.stem for path in _HERE.glob("test_*.py"))
    return [importlib.import_module(f"tests.hostile.{name}") for name in names if name != "test_flaws"]


def flaws_by_test(module: ModuleType) -> list[tuple[str, list[Flaw]]]:
    """Returns the name of each test of a module, and the flaws that it names."""
    return [
        (name, getattr(test, "flaws", []))
        for name, test in vars(module).items()
        if name.startswith("test_") and inspect.isfunction(test) and test.__module__ == module.__name__
    ]


def link(identifier: str) -> str:
    """Returns an identifier with a link to its text. Raises `ValueError` for one of no known form."""
    for pattern, address in _PUBLIC.items():
        if match := pattern.fullmatch(identifier):
            return (
                f"[{identifier}]({address.format(*(match.groups() if '#' in identifier else [identifier]))})"
            )
    if _FOUND_HERE.fullmatch(identifier):
        return identifier
    raise ValueError(f"no identifier of a flaw: {identifier!r}")


def tables() -> str:
    """Returns a section for each module, with a row for each flaw of each test."""
    lines = []
    for module in modules():
        title = inspect.getdoc(module) or ""
        lines += ["", f"### {title.splitlines()[0].rstrip('.')}", ""]
        lines += [f"`tests/hostile/{Path(str(module.__file__)).name}`", ""]
        lines += ["| flaw | what a peer does | here | test |", "|---|---|---|---|"]
        for name, flaws in flaws_by_test(module):
            for one in flaws:
                links = ", ".join(map(link, one.identifiers)) or "–"
                lines.append(f"| {links} | {one.what} | {one.here} | `{name}` |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """Returns the text of docs/security.md with current tables at its end."""
    text, start, _ = PAGE.read_text().partition(START)
    assert start, f"{PAGE} has no line {START!r}"
    return text + start + tables()


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    # Imported again under its own name: the tests mark themselves with that module's class.
    PAGE.write_text(importlib.import_module("tests.hostile.flaws").page())
