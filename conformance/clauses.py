"""The map of clauses: every normative statement of the RFCs, with the code that implements it and its tests.

The map is ``clauses.toml``. This module reads it, checks that the names in it exist, and shows it.
"""

import ast
import importlib
import tomllib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_HERE = Path(__file__).parent
_ROOT = _HERE.parent
_MARKDOWN = _ROOT / "docs" / "rfc-clauses.md"

LEVELS = ("MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "MAY")
ROLES = ("client", "server", "both", "intermediary")

# The sections with normative statements.
SECTIONS = {
    6455: "4.1 4.2 4.2.1 4.2.2 4.3 4.4 5.1 5.2 5.3 5.4 5.5 5.5.1 5.5.2 5.5.3 5.6 5.8 6.1 6.2 "
    "7.1.1 7.1.2 7.1.7 7.2.1 7.2.2 7.2.3 7.3 7.4 7.4.1 8.1 9 9.1 9.2 10.2 10.3 10.4 10.6 10.7",
    7692: "5 5.1 6 6.1 6.2 7 7.1.1.1 7.1.1.2 7.1.2.1 7.1.2.2 7.2.1 7.2.2",
}


@dataclass(frozen=True)
class Clause:
    """One statement. It has either ``code`` and ``tests``, or ``left``, the reason why not."""

    rfc: int
    section: str
    level: str
    role: str
    says: str
    code: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    left: str = ""


def read_clauses(path: Path = _HERE / "clauses.toml") -> list[Clause]:
    """Returns the map in the order of the file."""
    entries = tomllib.loads(path.read_text())["clause"]
    return [_clause(entry) for entry in entries]


def _clause(entry: dict[str, Any]) -> Clause:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
    return Clause(**values)


def problems(clauses: Iterable[Clause]) -> list[str]:
    """Returns the problems of the map, one line each: gaps, unknown names, sections without a clause."""
    found = []
    clauses = list(clauses)
    for clause in clauses:
        where = f"RFC {clause.rfc} §{clause.section}, {clause.says!r}"
        if clause.level not in LEVELS or clause.role not in ROLES:
            found.append(f"{where}: unknown level or role")
        if bool(clause.left) is bool(clause.code and clause.tests):
            found.append(f"{where}: needs code and tests, or a reason in left")
        found += [f"{where}: no {name} in the code" for name in clause.code if not _in_code(name)]
        found += [f"{where}: no test {name}" for name in clause.tests if not _in_tests(name)]
    for rfc, names in SECTIONS.items():
        sections = names.split()
        named = {clause.section for clause in clauses if clause.rfc == rfc}
        found += [f"RFC {rfc} §{section}: no clause" for section in sections if section not in named]
        found += [f"RFC {rfc} §{section}: no such section here" for section in named.difference(sections)]
    return found


def _in_code(name: str) -> bool:
    module_name, _, qualname = name.partition(":")
    try:
        found: object = importlib.import_module(module_name)
        for part in qualname.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return False
    return bool(qualname)


def _in_tests(name: str) -> bool:
    module_name, _, qualname = name.partition(":")
    return qualname in _names_of_tests(module_name)


@cache
def _names_of_tests(module_name: str) -> frozenset[str]:
    path = _ROOT / "tests" / f"{module_name}.py"
    if not path.exists():
        return frozenset()
    return frozenset(
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    )


def counts(clauses: Iterable[Clause]) -> Counter[tuple[int, str]]:
    """Counts the clauses by RFC and by whether this project implements them or leaves them to others."""
    return Counter((clause.rfc, "left" if clause.left else "ours") for clause in clauses)


def markdown(clauses: Iterable[Clause]) -> str:
    """Returns the map as a page."""
    clauses = list(clauses)
    lines = [
        "# The clauses of the RFCs, and the code that implements them",
        "",
        "Generated from `conformance/clauses.toml` by `python -m conformance clauses --markdown`.",
        "The statements are paraphrases; the RFCs are authoritative.",
    ]
    for rfc in SECTIONS:
        of_rfc = [clause for clause in clauses if clause.rfc == rfc]
        counted = counts(of_rfc)
        lines += [
            "",
            f"## RFC {rfc}",
            "",
            f"{len(of_rfc)} clauses: {counted[rfc, 'ours']} with code and tests, "
            f"{counted[rfc, 'left']} left to others.",
            "",
            "| § | level | role | statement | code | tests |",
            "|---|---|---|---|---|---|",
        ]
        for clause in of_rfc:
            where = clause.left or "<br>".join(f"`{name}`" for name in clause.code)
            tests = "<br>".join(f"`{name}`" for name in clause.tests)
            lines.append(
                f"| {clause.section} | {clause.level} | {clause.role} | {clause.says} | {where} | {tests} |"
            )
    return "\n".join(lines) + "\n"


def show(*, markdown_file: bool) -> int:
    """Prints the map and its counts, or writes the page. Returns the exit status: 1 if there are problems."""
    console = Console()
    clauses = read_clauses()
    if markdown_file:
        _MARKDOWN.write_text(markdown(clauses))
        console.print(f"wrote {_MARKDOWN.relative_to(_ROOT)}")
    else:
        table = Table("RFC", "§", "level", "role", "statement", "code")
        for clause in clauses:
            where = clause.left or "\n".join(clause.code)
            table.add_row(str(clause.rfc), clause.section, clause.level, clause.role, clause.says, where)
        console.print(table)
    for (rfc, kind), count in sorted(counts(clauses).items()):
        console.print(f"RFC {rfc}: {count} {kind}")
    found = problems(clauses)
    for line in found:
        console.print(line, style="bold red")
    return 1 if found else 0
