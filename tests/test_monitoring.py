"""The alerts and the dashboard in docs/: they name only metrics, labels and values that exist."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from rfc6455_server import Cause, Limits, Server
from rfc6455_server.command.cli import make_server
from rfc6455_server.logs import errors
from rfc6455_server.stats import Stats
from tests.server_helpers import ROOT, serving
from tests.test_http import ask

DOCS = ROOT / "docs"
PAGE = (DOCS / "monitoring.md").read_text()
RULES = [
    rule for group in yaml.safe_load((DOCS / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
DASHBOARD = json.loads((DOCS / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

# What Prometheus and Grafana add.
ADDED_LABELS = {"job", "instance"}
ADDED_METRICS = {"up": set[str]()}
PROMQL = {
    "sum",
    "by",
    "rate",
    "increase",
    "histogram_quantile",
    "ignoring",
    "or",
    "unless",
    "offset",
    "label_values",
}

EXPRESSIONS = {
    **{f"alert {rule['alert']}": rule["expr"] for rule in RULES},
    **{
        f"panel {panel['title']} {target['refId']}": target["expr"]
        for panel in PANELS
        for target in panel["targets"]
    },
    **{
        f"variable {v['name']}": v["query"]["query"]
        for v in DASHBOARD["templating"]["list"]
        if v["type"] == "query"
    },
}


def fill(stats: Stats) -> None:
    """Counts each thing once, so that each metric has its labels."""
    stats.closes[1000, Cause.PEER.value] += 1
    stats.refused[403, "origin"] += 1
    stats.dropped["drop_oldest"] += 1
    stats.unanswered["tls"] += 1
    stats.session_closes["too slow"] += 1
    stats.socket_connects["refused"] += 1
    stats.socket_recoveries["recovered"] += 1
    errors["a test failed"] += 1


@pytest.fixture(scope="module")
def metrics() -> dict[str, set[str]]:
    """The labels of each metric, by the names that PromQL uses."""
    server = make_server()
    fill(server.stats)

    async def scrape() -> str:
        async with serving(server) as url:
            return (await ask(url, "GET /metrics HTTP/1.1\nHost: a\n")).body.decode()

    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(asyncio.run(scrape())):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def ours(metrics: dict[str, set[str]]) -> dict[str, set[str]]:
    """Those of this project, a histogram by its own name."""
    found: dict[str, set[str]] = {}
    for name, labels in metrics.items():
        if name.startswith("rfc6455_"):
            found.setdefault(re.sub(r"_(bucket|count|sum)$", "", name), set()).update(labels)
    return found


def words(expression: str) -> Iterator[str]:
    """The names in an expression of PromQL: metrics, labels, functions; neither texts nor durations."""
    bare = re.sub(r'"[^"]*"', "", expression).replace("$__rate_interval", "")
    return iter(re.findall(r"(?<![\w$])[a-zA-Z_]\w*", bare))


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_names_what_exists(name: str, metrics: dict[str, set[str]]) -> None:
    expression = EXPRESSIONS[name]
    known = {**metrics, **ADDED_METRICS}
    named = [word for word in words(expression) if word in known]
    assert named
    labels = set[str]().union(*(known[word] for word in named)) | ADDED_LABELS
    assert set(words(expression)) - set(known) - PROMQL <= labels
    for opening, closing in ("()", "{}", "[]"):
        assert expression.count(opening) == expression.count(closing)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_a_selector_has_labels_and_values_that_exist(name: str, metrics: dict[str, set[str]]) -> None:
    values: dict[str, set[str]] = {
        "option": set(Limits.__dataclass_fields__),
        "cause": {cause.value for cause in Cause},
        "le": {str(bound) for bound in Stats().loop_lag.bounds},
        "reason": {"too slow"},
        "result": {"refused"},
        "status": {"404"},
        "job": {"rfc6455", "$job"},
        "instance": {"$instance"},
    }
    known = {**metrics, **ADDED_METRICS}
    for metric, selector in re.findall(r"(\w+)\{([^}]*)\}", EXPRESSIONS[name]):
        for label, value in re.findall(r'(\w+)[!=~]+"([^"]*)"', selector):
            assert label in known[metric] | ADDED_LABELS
            assert set(value.split("|")) <= values[label], f"{label}={value}"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_is_complete(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"([A-Z][a-z]+)+", rule["alert"])
    assert re.fullmatch(r"\d+m", rule.get("for", "0m"))
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"].keys() == {"summary", "description"}
    assert re.search(r"[<>=] ?[\d.]+$", rule["expr"].strip())
    text = " ".join(rule["annotations"].values())
    assert text.count("{{") == text.count("}}")
    if "sum by" in rule["expr"]:
        kept = set(re.split(r", ", re.findall(r"sum by \(([^)]*)\)", rule["expr"])[0]))
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= kept


def test_the_page_lists_every_metric_with_its_labels(metrics: dict[str, set[str]]) -> None:
    rows = re.findall(r"^\| `(rfc6455_\w+)` \|([^|]*)\|", PAGE, re.MULTILINE)
    listed = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    assert listed == ours(metrics)
    for name in re.findall(r"`((?:process|python)_\w+)`", PAGE):
        assert name in metrics


def test_the_page_lists_every_cause_and_every_alert() -> None:
    causes = PAGE.partition("## The causes")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `([a-z ]+)` \| [A-Z]", causes, re.MULTILINE) == [cause.value for cause in Cause]
    alerts = PAGE.partition("## The alerts")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", alerts, re.MULTILINE) == [rule["alert"] for rule in RULES]


def test_the_dashboard_shows_every_metric_of_ours(metrics: dict[str, set[str]]) -> None:
    shown = {word for target in EXPRESSIONS.values() for word in words(target)}
    assert set(ours(metrics)) <= {re.sub(r"_bucket$", "", word) for word in shown}


def test_the_dashboard_is_laid_out() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(set(cells)) == len(cells), "panels overlap"
    assert max(x for x, _ in cells) < 24
    for panel in PANELS:
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            for selector in re.findall(r"\{([^}]*)\}", target["expr"]):
                assert 'job=~"$job", instance=~"$instance"' in selector
            legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            grouped = re.search(r"sum by \(([^)]*)\)", target["expr"])
            assert not grouped or legend <= set(grouped[1].split(", "))


async def test_a_server_has_no_other_metric_of_ours() -> None:
    """Those of Socket.IO are not there without it, and the others always are, with or without samples."""
    async with serving(Server()) as url:
        text = (await ask(url, "GET /metrics HTTP/1.1\nHost: a\n")).body.decode()
    names = set(re.findall(r"^# TYPE (rfc6455_\w+)", text, re.MULTILINE))
    listed = set(re.findall(r"^\| `(rfc6455_\w+)`", PAGE, re.MULTILINE))
    assert names == {name for name in listed if "socketio" not in name}
