"""The log: one line for each connection and each problem, as text or as JSON.

A line is an event and its fields, and a traceback may follow. Text that a peer may have written is escaped,
in fields and in the messages of exceptions, so that it can neither break a line nor control a terminal.
Queries and header fields are never logged, because they may hold tokens.
"""

import json
import logging
import re
import traceback
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Final

logger: Final = logging.getLogger("rfc6455_server")

errors: Final[Counter[str]] = Counter()
"""How often each event was logged as an error in this process: here, so that no failure is forgotten."""

_CONTROLS: Final = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Characters that break lines, control terminals or reorder text. Surrogates too: a file in UTF-8 takes none,
and the record would be lost. LF aside: it ends a line of a traceback."""

_MAX_CAUSES: Final = 20
"""Maximum exceptions of a chain or a group that are written."""

_MAX_MESSAGE: Final = 4096
"""Maximum characters of an exception's message that are written: it may quote what a peer has sent."""

_ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

_UNQUOTED: Final = re.compile(r"[A-Za-z0-9_.:/@%+~-]+")


def log(level: int, event: str, *, exception: bool | BaseException = False, **fields: object) -> None:
    """Logs ``event`` and its fields; with ``exception``, also that one; True is the one being handled.

    ``event`` is a literal: it becomes a label of the metrics.
    """
    if level >= logging.ERROR:
        errors[event] += 1
    if logger.isEnabledFor(level):
        extra = {"event": event, "fields": fields}
        logger.log(level, "%s", _render(event, fields), extra=extra, exc_info=exception)


def _render(event: str, fields: dict[str, object]) -> str:
    return " ".join([event, *(f"{name}={_escape(value)}" for name, value in fields.items())])


def _escape(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if _UNQUOTED.fullmatch(text) else json.dumps(text)


def format_exception(error: BaseException) -> str:
    """Returns the traceback of an exception with those of its causes. Each message is one escaped line."""
    lines = list(_lines_of(error, {id(error)}))
    return "\n".join(lines)


def _lines_of(error: BaseException, seen: set[int]) -> Iterator[str]:
    """Yields the lines of an exception after those of its cause, as Python orders them."""
    earlier, sentence = (
        error.__cause__,
        "It was the direct cause of the following exception:",
    )
    if earlier is None and not error.__suppress_context__:
        earlier, sentence = error.__context__, "While it was handled, another exception occurred:"
    if earlier is not None and _is_new(earlier, seen):
        yield from _lines_of(earlier, seen)
        yield from ("", sentence, "")
    if error.__traceback__ is not None:
        yield "Traceback (most recent call last):"
        for frame in traceback.format_tb(error.__traceback__):
            yield from frame.rstrip("\n").split("\n")
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    message = _message_of(error)
    yield f"{name}: {message}" if message else name
    for note in getattr(error, "__notes__", ()):
        yield _one_line(str(note))
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            if _is_new(part, seen):
                yield from (f"  | {line}" for line in _lines_of(part, seen))


def _is_new(error: BaseException, seen: set[int]) -> bool:
    if id(error) in seen or len(seen) >= _MAX_CAUSES:
        return False
    seen.add(id(error))
    return True


def _message_of(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - whatever the exception's own method raises
        return "<the exception has no text>"
    more = len(text) - _MAX_MESSAGE
    return _one_line(text[:_MAX_MESSAGE]) + (f" … {more} more characters" if more > 0 else "")


def _one_line(text: str) -> str:
    return _without_controls(text).replace("\n", "\\n")


def _without_controls(text: str) -> str:
    """Returns ``text`` with its control characters, LF aside, as Python writes them: ``\\x1b``."""
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _write_traceback(record: logging.LogRecord) -> bool:
    """Sets the text of the traceback, so that formatters of others show the escaped one, too."""
    if record.exc_info and record.exc_info[1] is not None:
        record.exc_text = format_exception(record.exc_info[1])
    return True


logger.addFilter(_write_traceback)


class TextFormatter(logging.Formatter):
    """Formats a record as text: time, level, event, fields; a traceback follows on lines of its own."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return _without_controls(super().format(record))

    def formatException(self, ei: _ExceptionInfo) -> str:  # noqa: N802 - logging's name
        return "" if ei[1] is None else format_exception(ei[1])


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object: ``time`` (RFC 3339), ``level``, ``event``, and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", None) or record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = record.exc_text or self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _time(record: logging.LogRecord) -> str:
    """Returns local time with its distance from UTC."""
    return datetime.fromtimestamp(record.created, UTC).astimezone().isoformat(timespec="milliseconds")
