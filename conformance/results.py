"""Reads the results of the suite, counts them by group, and compares them with the expected ones."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rich.table import Table

EXPECTED = Path(__file__).parent / "expected.json"

# From the best to the worst.
_RANKS = ("OK", "INFORMATIONAL", "NON-STRICT", "UNIMPLEMENTED", "FAILED", "MISSING")


class Result(NamedTuple):
    """The result of one case: for the messages, and for the end of the connection."""

    behavior: str
    behavior_close: str

    @property
    def worst(self) -> str:
        """The worse of the two."""
        return max(self.behavior, self.behavior_close, key=_rank)


def _rank(behavior: str) -> int:
    # WRONG CODE, UNCLEAN and FAILED BY CLIENT (results of the close) count as FAILED.
    return _RANKS.index(behavior) if behavior in _RANKS else _RANKS.index("FAILED")


def read_results(folder: Path) -> dict[str, Result]:
    """Returns the results of the only agent in a folder of reports; empty if there is no report."""
    index = folder / "index.json"
    if not index.exists():
        return {}
    agents = json.loads(index.read_text())
    (cases,) = agents.values()
    return {case: Result(said["behavior"], said["behaviorClose"]) for case, said in cases.items()}


def differences(role: str, results: Mapping[str, Result], *, full: bool) -> tuple[list[str], list[str]]:
    """Returns (worse, better): a line for each case whose result differs from ``expected.json``."""
    expected = json.loads(EXPECTED.read_text())
    exceptions: dict[str, str] = expected["roles"][role]
    worse, better = [], []
    for case, result in sorted(results.items(), key=lambda item: case_key(item[0])):
        wanted = exceptions.get(case, "OK")
        said = f"{role} {case}: {result.behavior}, close {result.behavior_close}; expected {wanted}"
        if _rank(result.worst) > _rank(wanted):
            worse.append(said)
        elif _rank(result.worst) < _rank(wanted):
            better.append(said)
    if full and len(results) != expected["cases"]:
        worse.append(f"{role}: {len(results)} cases were run, expected {expected['cases']}")
    if not results:
        worse.append(f"{role}: no case was run")
    return worse, better


def case_key(case: str) -> tuple[int, ...]:
    """Returns a key that sorts 9.1.10 after 9.1.9."""
    return tuple(map(int, case.split(".")))


def table(role: str, results: Mapping[str, Result]) -> Table:
    """Returns a table of the counts by group of cases."""
    columns = [rank for rank in _RANKS if rank != "MISSING"]
    shown = Table(title=f"our {role}", title_justify="left")
    shown.add_column("group")
    for column in columns:
        shown.add_column(column, justify="right")
    groups: dict[int, Counter[str]] = {}
    for case, result in results.items():
        rank = _RANKS[_rank(result.worst)]
        groups.setdefault(case_key(case)[0], Counter())[rank] += 1
    for group, counts in sorted(groups.items()):
        shown.add_row(str(group), *(str(counts[column] or "") for column in columns))
    total = sum(groups.values(), Counter[str]())
    shown.add_section()
    shown.add_row("all", *(str(total[column]) for column in columns))
    return shown
