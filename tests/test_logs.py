import ast
import json
import logging
import re
from collections import Counter
from datetime import datetime

import pytest

from rfc6455_server.logs import JsonFormatter, TextFormatter, errors, log
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
    assert "ZeroDivisionError: 100 %s" in first["exception"]
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
