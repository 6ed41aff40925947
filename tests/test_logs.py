import ast
import json
import logging
import re
from collections import Counter
from datetime import datetime

import pytest

from rfc6455_server.logs import JsonFormatter, TextFormatter, errors, format_exception, log
from tests.server_helpers import ROOT


def line(formatter: logging.Formatter, caplog: pytest.LogCaptureFixture) -> str:
    return formatter.format(caplog.records[-1])


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/echo", "/echo"),
        ("a b", '"a b"'),
        ("line\nfeed", '"line\\nfeed"'),
        ("\x1b[31mred", '"\\u001b[31mred"'),
        ('quote"', '"quote\\""'),
        ("한국어", '"\\ud55c\\uad6d\\uc5b4"'),
        ("", '""'),
        (1.23456789, "1.23457"),
        (5, "5"),
        (None, "None"),
    ],
)
def test_text_from_a_peer_cannot_leave_its_field(
    value: object, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="rfc6455_server"):
        log(logging.INFO, "something happened", field=value)
    assert line(TextFormatter(), caplog).endswith(f"INFO something happened field={shown}")
    assert json.loads(line(JsonFormatter(), caplog))["field"] == value


def test_json_lines(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="rfc6455_server"):
        try:
            raise ZeroDivisionError("100 %s")
        except ZeroDivisionError:
            log(logging.ERROR, "it failed", exception=True, id="x")
        logging.getLogger("rfc6455_server").info("by %s", "others")
    first, second = (json.loads(JsonFormatter().format(record)) for record in caplog.records)
    assert (first["level"], first["event"], first["id"]) == ("error", "it failed", "x")
    assert first["exception"].endswith("\nZeroDivisionError: 100 %s")
    assert second["event"] == "by others"
    assert set(second) == {"time", "level", "event"}


def test_json_times_have_milliseconds_and_the_distance_from_utc() -> None:
    record = logging.makeLogRecord({"msg": "x", "created": 1_700_000_000.0625})
    time = json.loads(JsonFormatter().format(record))["time"]
    assert re.fullmatch(r"2023-11-1[45]T\d\d:\d\d:20\.062[+-]\d\d:\d\d", time)
    assert datetime.fromisoformat(time).timestamp() == 1_700_000_000.062


def test_a_record_below_the_level_is_not_formatted(caplog: pytest.LogCaptureFixture) -> None:
    class Loud:
        def __str__(self) -> str:
            raise AssertionError

    with caplog.at_level(logging.WARNING, logger="rfc6455_server"):
        log(logging.INFO, "quiet", field=Loud())


def test_an_event_is_a_literal() -> None:
    """Events are labels of the metrics, and a peer must not make up labels."""
    calls = 0
    for path in (ROOT / "server" / "rfc6455_server").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "log":
                assert isinstance(node.args[1], ast.Constant), f"{path}:{node.lineno}"
                calls += 1
    assert calls > 20


def test_errors_are_counted_although_the_log_is_off(caplog: pytest.LogCaptureFixture) -> None:
    before = dict(errors)
    with caplog.at_level(logging.CRITICAL + 1, logger="rfc6455_server"):
        log(logging.ERROR, "a test failed", id=1)
        log(logging.WARNING, "a test warned")
    assert caplog.records == []
    assert errors - Counter(before) == {"a test failed": 1}


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:  # noqa: BLE001 - whatever it is
        return caught


def test_a_traceback_has_causes_groups_and_notes() -> None:
    try:
        try:
            raise KeyError("first")
        except KeyError:
            raise ValueError("second")  # noqa: B904 - a context, and no cause
    except ValueError as caught:
        second = caught
    group = ExceptionGroup("several", [raised(OSError(5, "part")), second])
    group.add_note("a note")
    error = raised(RuntimeError())
    error.__cause__ = group
    text = format_exception(error)
    lines = text.split("\n")
    assert lines[-1] == "RuntimeError"
    assert lines[0] == "ExceptionGroup: several (2 sub-exceptions)"  # it was never raised
    assert lines[1] == "a note"
    assert "  | OSError: [Errno 5] part" in lines
    place = lines.index("  | KeyError: 'first'")
    assert lines[place + 2] == "  | While it was handled, another exception occurred:"
    assert lines.index("  | ValueError: second") > place
    assert lines[-6] == "It was the direct cause of the following exception:"
    assert 'raise KeyError("first")' in text


def test_a_traceback_ends() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__context__, other.__context__ = other, one
    assert format_exception(one).count("ValueError: ") == 2
    chain = ValueError("last")
    for number in range(1000):
        error = ValueError(str(number))
        error.__context__, chain = chain, error
    assert format_exception(chain).count("ValueError: ") == 20
    assert (
        format_exception(ExceptionGroup("many", [ValueError("part") for _ in range(1000)])).count("part")
        == 19
    )
    quoted = format_exception(ValueError("x" * 1_000_000))
    assert len(quoted) < 5000
    assert quoted.endswith("x … 995904 more characters")


def test_an_exception_without_a_text() -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    assert format_exception(OddError()).endswith("OddError: <the exception has no text>")


def test_lines_of_other_loggers(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        try:
            raise ZeroDivisionError("a\nb")
        except ZeroDivisionError:
            logging.getLogger("another").exception("it \x1b[31mfailed")
        logging.getLogger("another").info("x", exc_info=(None, None, None))
    first, second = caplog.records
    first.exc_text = second.exc_text = None  # another formatter has written them
    text = TextFormatter().format(first)
    assert "ERROR it \\x1b[31mfailed\nTraceback (most recent call last):\n" in text
    assert text.endswith("\nZeroDivisionError: a\\nb")
    assert TextFormatter().format(second).endswith("INFO x")
