"""Nothing depends on ``assert``, which ``python -O`` leaves out.

``make test-optimized`` runs all tests that way. Here are what no test would notice, and a sample of them.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from rfc6455 import Role
from tests.helpers import raw_frame, sent_frames
from tests.server_helpers import ROOT

CODEC = sorted((ROOT / "rfc6455").rglob("*.py"))
SERVER = sorted((ROOT / "server" / "rfc6455_server").rglob("*.py"))

SAMPLE = [
    "tests/test_errors.py",
    "tests/test_frames.py",
    "tests/hostile/test_lengths.py",
    "tests/hostile/test_close_reasons.py",
    "tests/hostile/test_header_injection.py",
]


def assertions(source: str) -> list[ast.expr]:
    return [node.test for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assert)]


def only_narrows(test: ast.expr) -> bool:
    """Whether an assertion tells mypy a type, and evaluates nothing that could have an effect."""
    match test:
        case ast.Compare(left=value, ops=[ast.IsNot()], comparators=[ast.Constant(value=None)]):
            pass
        case ast.Call(
            func=ast.Name(id="isinstance"), args=[value, ast.Name() | ast.Attribute()], keywords=[]
        ):
            pass
        case _:
            return False
    return all(isinstance(node, ast.Name | ast.Attribute | ast.expr_context) for node in ast.walk(value))


@pytest.mark.parametrize("path", CODEC, ids=lambda path: path.stem)
def test_the_codec_has_no_assertions(path: Path) -> None:
    assert assertions(path.read_text()) == []


def test_those_of_the_server_only_narrow_types() -> None:
    """What they say follows from the code around them: a check of input raises."""
    found = [
        (path.stem, ast.unparse(test), only_narrows(test))
        for path in SERVER
        for test in assertions(path.read_text())
    ]
    assert found
    assert [one for one in found if not one[2]] == []


@pytest.mark.parametrize(
    "test", ["f() is not None", "(x := y) is not None", "x > 5", "x", "isinstance(f(), A)"]
)
def test_an_assertion_that_does_more_is_noticed(test: str) -> None:
    assert [only_narrows(one) for one in assertions(f"assert {test}")] == [False]


@pytest.mark.parametrize("path", [*CODEC, *SERVER], ids=lambda path: path.stem)
def test_nothing_asks_whether_it_is_optimized(path: Path) -> None:
    assert "__debug__" not in path.read_text()


def test_the_assertions_of_tests_are_checked() -> None:
    """Also under ``python -O``, and in the modules that tests share: otherwise, a run would show nothing."""
    with pytest.raises(AssertionError):
        assert CODEC == []
    with pytest.raises(AssertionError):
        sent_frames(Role.SERVER, raw_frame(Role.SERVER, 1, b"masked"))  # a server masks nothing


if __debug__:

    def test_a_sample_of_the_tests_passes_optimized() -> None:
        options = ["-q", "--no-cov", "-p", "no:xdist", "-p", "no:cacheprovider"]
        command = [sys.executable, "-O", "-m", "pytest", *options, "tests/test_optimized.py", *SAMPLE]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
