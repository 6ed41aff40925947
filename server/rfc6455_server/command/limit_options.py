"""The options of the command for `Limits`: one for each field, so that every limit can be set.

Left to others: parsing the command line and the environment (`cli`), what the limits do.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable
from dataclasses import fields
from itertools import pairwise
from typing import Any, Final, NamedTuple, get_type_hints

from rfc6455_server.limits import Limits

_WIDTH: Final = 79


class LimitOption(NamedTuple):
    """An option of the command line."""

    field: str
    """Its name in `Limits`."""
    default: float | None
    parse: Callable[[str], float]
    """Raises `ValueError` for text that is not such a number."""

    @property
    def name(self) -> str:
        """Its name on the command line, without the two hyphens."""
        return self.field.replace("_", "-")


def parse_integer(text: str) -> int:
    """Returns the number that ASCII digits write; raises `ValueError` for anything else."""
    if not re.fullmatch("[0-9]+", text):
        raise ValueError
    return int(text)


def parse_number(text: str) -> float:
    """Returns a decimal number, as a float; raises `ValueError` for anything else."""
    if not re.fullmatch("[0-9.eE+-]+", text):
        raise ValueError
    return float(text)


def _count(text: str) -> int:
    count = parse_integer(text)
    if count < 1:
        raise ValueError
    return count


def _number(text: str) -> float:
    number = parse_number(text)
    if not 0 < number < float("inf"):
        raise ValueError
    return number


def limit_options() -> list[LimitOption]:
    """Returns an option for each field of `Limits`, in their order."""
    types, defaults = get_type_hints(Limits), Limits()
    return [
        LimitOption(
            field.name, getattr(defaults, field.name), _count if types[field.name] is int else _number
        )
        for field in fields(Limits)
    ]


def attribute_docs(owner: type[Any]) -> dict[str, str]:
    """Returns the text below each attribute in the source of a class, in one line each.

    It is empty if the source is not there: Python does not keep these texts.
    """
    try:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    except OSError:
        return {}
    assert isinstance(definition, ast.ClassDef)  # noqa: S101 - it is the source of a class
    docs = {}
    for attribute, below in pairwise(definition.body):
        match attribute, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                docs[name] = " ".join(text.split())
    return docs


def limits_help() -> str:
    """Returns a text about every limit, for a terminal of 80 columns."""
    docs = attribute_docs(Limits)
    lines = ["The limits; each is an option of Server, too. Sizes are bytes, times seconds."]
    for option in limit_options():
        default = "none" if option.default is None else f"{option.default:.15g}"
        lines.append(f"  --{option.name} N  ({default})")
        text = docs.get(option.field, "").replace("`", "")
        lines += textwrap.wrap(text, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines) + "\n"
