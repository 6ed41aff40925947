"""Secrets that the server is asked for."""

import ast
from pathlib import Path

import pytest

from tests.hostile.flaws import flaw
from tests.server_helpers import ROOT

SECRETS = {"sid", "pid", "token", "secret", "password", "authorization", "cookie", "api_key"}

FILES = [path for folder in ("server", "examples") for path in sorted((ROOT / folder).rglob("*.py"))]


def comparisons(tree: ast.AST) -> list[int]:
    """Returns the lines that compare a secret with ``==``, which stops at the first other character."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare):
            continue
        if not any(isinstance(operator, ast.Eq | ast.NotEq) for operator in node.ops):
            continue
        names: set[str] = set()
        for side in (node.left, *node.comparators):
            if isinstance(side, ast.Constant) and side.value in ("", None):
                names.clear()
                break
            names |= {part.id for part in ast.walk(side) if isinstance(part, ast.Name)}
            names |= {part.attr for part in ast.walk(side) if isinstance(part, ast.Attribute)}
        if {name.lower().strip("_") for name in names} & SECRETS:
            found.append(node.lineno)
    return found


@flaw(
    "found here",
    what="guesses the id of a session or a token character by character, by the time of a comparison",
    here="no secret is compared: it is looked up by its hash, with a key that differs for each process",
)
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_secret_is_compared_character_by_character(path: Path) -> None:
    assert comparisons(ast.parse(path.read_text())) == []


@flaw(
    "found here",
    what="guesses a token",
    here="the test above finds a comparison of one",
)
@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("if token == given: pass", [1]),
        ("x = 1\ny = request.sid != session._sid", [2]),
        ("headers['a'].token == f(x)", [1]),
        ("sid in sessions", []),
        ("sid is None or sid == ''", []),
        ("hmac.compare_digest(token, given)", []),
    ],
)
def test_a_comparison_is_found(source: str, lines: list[int]) -> None:
    assert comparisons(ast.parse(source)) == lines
