"""What is wrong with a value: where, what was expected, and in which form a client is told.

Left to others: how values are checked (`shapes`, `records`, `models`), and when (`signatures`, `declared`).

    {"error": {"code": "invalid", "message": "the arguments are wrong",
               "problems": [{"path": "data.text", "reason": "got a number", "expected": "string"}]}}
"""

import json
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol, TypeVar

MAX_PROBLEMS: Final = 20
"""Maximum problems that are reported of one event; checking stops at the next one."""
MAX_PATH: Final = 200
"""Maximum code points of a path; the middle of a longer one is left out."""
MAX_KEY: Final = 60
"""Maximum code points of one key in a path."""
MAX_REASON: Final = 200
"""Maximum code points of a reason."""

_Result = TypeVar("_Result")

Path = tuple[Any, str | int] | None
"""A place in a value: the path of the object or array around it, and the key or index in it."""


class Problem(NamedTuple):
    """One thing that is wrong with a value."""

    path: str
    """Where: ``data.items[3].name``; it starts with the argument's name."""
    reason: str
    expected: str
    """The type or the bounds."""


class InvalidDataError(ValueError):
    """A value is not of the type that was agreed on; ``problems`` are at most 20 of what is wrong with it.

    ``more``: whether there may be others.
    """

    def __init__(self, message: str, problems: list[Problem], *, more: bool = False) -> None:
        first = [f": {one.path}: {one.reason}, expected {one.expected}" for one in problems[:1]]
        super().__init__(message + "".join(first))
        self.message = message
        self.problems = problems
        self.more = more

    def __reduce__(self) -> tuple[Any, ...]:
        # By default, a copy is made by ``__init__`` from the text alone.
        return type(self).__new__, (type(self), *self.args), self.__dict__

    @property
    def answer(self) -> dict[str, Any]:
        """What the client is told, under the key ``"error"``."""
        error: dict[str, Any] = {
            "code": "invalid",
            "message": self.message,
            "problems": [problem._asdict() for problem in self.problems],
        }
        if self.more:
            error["more"] = True
        return error


INTERNAL_ERROR: Final = {"code": "internal", "message": "internal error"}
"""What the client is told, under the key ``"error"``, if something of the server is wrong."""


class _FullError(Exception):
    """There is no room for another problem."""


class Checker(Protocol):
    """Checks a value and returns it converted; it adds what is wrong to ``problems``, and then returns
    anything."""

    def __call__(self, value: Any, path: Path, problems: "Problems") -> Any: ...


class Problems:
    """Collects what is wrong with one value while it is checked. One object serves one direction only."""

    __slots__ = ("_limit", "_tried", "found")

    def __init__(self, limit: int = MAX_PROBLEMS, tried: dict[Any, Any] | None = None) -> None:
        self.found: list[Problem] = []
        self._limit = limit
        # What `attempt` has found, so that unions in unions take linear time. It holds the value too: while
        # that lives, no other object has its id.
        self._tried: dict[tuple[int, int], tuple[Any, bool, Any]] = {} if tried is None else tried

    def add(self, path: Path, reason: str, expected: str) -> None:
        """Adds a problem; ends the check if there are too many."""
        if len(self.found) >= self._limit:
            raise _FullError
        self.found.append(Problem(render(path), shorten(reason, MAX_REASON), expected))

    def attempt(self, owner: object, check: Checker, value: Any) -> tuple[bool, Any]:
        """Returns whether ``check`` of a shape finds no problem, and its result. Works once for each pair."""
        key = id(owner), id(value)
        known = self._tried.get(key)
        if known is None:
            try:
                known = value, True, check(value, None, Problems(0, self._tried))
            except _FullError:
                known = value, False, None
            self._tried[key] = known
        return known[1], known[2]


def run(message: str, work: Callable[[Problems], _Result]) -> _Result:
    """Returns what ``work`` returns. Raises `InvalidDataError` if it adds a problem."""
    problems = Problems()
    more = False
    try:
        result = work(problems)
    except _FullError:
        more = True
    except RecursionError:
        problems.found.append(Problem("", "nested too deeply", "less nesting"))
    else:
        if not problems.found:
            return result
    raise InvalidDataError(message, problems.found, more=more)


def render(path: Path) -> str:
    """Returns a path as text, as JavaScript would write it."""
    keys: list[str | int] = []
    while path is not None:
        path, key = path
        keys.append(key)
    parts = [_render_key(key, first=i == len(keys) - 1) for i, key in enumerate(keys)]
    text = "".join(reversed(parts))
    half = MAX_PATH // 2
    return text if len(text) <= MAX_PATH else f"{text[: half - 1]}…{text[len(text) - half :]}"


def _render_key(key: str | int, *, first: bool) -> str:
    if isinstance(key, int):
        return f"[{key}]"
    if key.isidentifier():
        return shorten(key if first else f".{key}", MAX_KEY)
    return f"[{json.dumps(shorten(key, MAX_KEY), ensure_ascii=False)}]"


def shorten(text: str, limit: int) -> str:
    """Returns ``text``, cut to ``limit`` code points. A lone surrogate becomes a question mark."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def describe(value: object) -> str:
    """Returns what a value is, in JSON's words; for others, the name of its type. Never the value itself."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case dict():
            return "an object"
        case bytes() | bytearray() | memoryview():
            return "bytes"
        case _:
            return type(value).__name__


def wrong(value: object, path: Path, expected: str, problems: Problems) -> None:
    """Adds the problem that a value has another type."""
    problems.add(path, f"got {describe(value)}", expected)
