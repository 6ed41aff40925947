"""The log: one line for each connection and each problem, as text or as JSON.

A line is an event and its fields. Text that a peer may have written is escaped, so that it cannot break a
line. Queries and header fields are never logged, because they may hold tokens.
"""

import json
import logging
import re
from collections import Counter
from datetime import UTC, datetime
from typing import Final

logger: Final = logging.getLogger("rfc6455_server")

errors: Final[Counter[str]] = Counter()
"""How often each event was logged as an error in this process: here, so that no failure is forgotten."""

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


class TextFormatter(logging.Formatter):
    """Formats a record as text: time, level, event, fields."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")


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
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _time(record: logging.LogRecord) -> str:
    """Returns local time with its distance from UTC."""
    return datetime.fromtimestamp(record.created, UTC).astimezone().isoformat(timespec="milliseconds")
