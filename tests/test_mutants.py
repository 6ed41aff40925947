"""The stored results of mutation testing: every module, its score, a reason for each survivor."""

from pathlib import Path

import pytest

from tests import mutants
from tests.mutants import LEAST, MODULES, PAGE, ROOT, reasons, results

WITHOUT_MUTANTS = {"__init__", "__main__", "constants", "events"}


def test_every_module_of_the_codec_is_tested() -> None:
    modules = {path.stem for path in (ROOT / "rfc6455").glob("*.py")}
    assert modules == WITHOUT_MUTANTS | {*MODULES}
    assert list(results()) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_the_score_of_a_module(module: str) -> None:
    assert results()[module].score() >= LEAST


def test_each_survivor_has_a_reason_and_each_reason_a_survivor() -> None:
    survivors = {mutant for result in results().values() for mutant in result.survivors}
    assert survivors == reasons().keys()


def test_the_page_is_current() -> None:
    """``python -m tests.mutants --write`` writes it."""
    assert PAGE.read_text() == mutants.page()


@pytest.mark.parametrize(
    ("mutant", "text"),
    [
        ('raise LocalProtocolError("A BAD FLAG", slug="bad-flag")', True),
        ('raise LocalProtocolError(None, slug="bad-flag")', True),
        ('raise LocalProtocolError("a bad flag", slug="XXbad-flagXX")', False),
        ('raise LocalProtocolError(slug="bad-flag")', False),
        ("pass", False),
    ],
)
def test_which_mutants_change_a_text_only(mutant: str, text: bool, tmp_path: Path) -> None:
    was = 'raise LocalProtocolError("a bad flag", slug="bad-flag")'
    file = tmp_path / "x.py"
    file.write_text(
        f"class A:\n"
        f"    def xǁAǁcheck__mutmut_orig(self):\n        {was}\n\n"
        f"    def xǁAǁcheck__mutmut_1(self):\n        {mutant}\n"
    )
    functions = mutants._functions(file)
    name = "rfc6455.x.xǁAǁcheck__mutmut_1"
    assert mutants._changes_a_text(functions, name) is text
    assert mutants._change(functions, name) == mutants.Mutant("A.check", was, mutant)
