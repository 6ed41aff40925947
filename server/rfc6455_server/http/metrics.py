"""``/metrics`` in the format of Prometheus, written by prometheus-client from the counters of `stats`.

prometheus-client is in the extra ``server``. Without it, the answer is 501.
Left to others: counting.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from itertools import accumulate
from typing import Any

from rfc6455 import __version__
from rfc6455_server.http.extras import load_prometheus
from rfc6455_server.http.routes import HttpRequest, HttpResponse
from rfc6455_server.limits import Limits
from rfc6455_server.logs import errors
from rfc6455_server.stats import Histogram, Stats

Gauges = Callable[[], dict[str, tuple[str, float]]]
"""Returns the current gauges: help text and value, by name."""


class Metrics:
    """The handler of the page, and the collector that prometheus-client calls."""

    def __init__(self, stats: Stats, limits: Limits, gauges: Gauges) -> None:
        self._stats = stats
        self._limits = limits
        self._gauges = gauges
        self._registry: Any = None  # made by the first request

    async def __call__(self, _: HttpRequest) -> HttpResponse:
        prometheus = load_prometheus()
        if prometheus is None:
            return HttpResponse(
                b"needs prometheus-client: install rfc6455[server]\n",
                status=501,
                reason="no prometheus-client",
            )
        if self._registry is None:
            self._registry = registry = prometheus.CollectorRegistry()
            registry.register(self)
            # Memory, descriptors and CPU time of the process, its garbage collector, and its Python.
            for collector in ("ProcessCollector", "GCCollector", "PlatformCollector"):
                getattr(prometheus, collector)(registry=registry)
        text = prometheus.generate_latest(self._registry)
        return HttpResponse(text, prometheus.exposition.CONTENT_TYPE_LATEST)

    def collect(self) -> Iterator[Any]:
        prometheus = load_prometheus()
        assert prometheus is not None  # noqa: S101 - it calls this method
        core = prometheus.core
        stats = self._stats
        yield core.InfoMetricFamily("rfc6455", "The version.", {"version": __version__})
        for name, (text, value) in self._gauges().items():
            yield core.GaugeMetricFamily(f"rfc6455_{name}", text, value)
        limits = core.GaugeMetricFamily("rfc6455_limit", "The options of Limits.", labels=["option"])
        for option, value in asdict(self._limits).items():
            if value is not None:
                limits.add_metric((option,), value)
        yield limits
        for name, text, labels, values in self._counted():
            yield self._counter(core, name, text, labels, values)
        if stats.session_counts:
            yield from self._sessions(core)
        yield self._histogram(core, "latency_seconds", "Seconds from a Ping to its Pong.", stats.latency)
        yield self._histogram(core, "loop_lag_seconds", "Lag of the event loop in seconds.", stats.loop_lag)

    def _counted(self) -> Iterator[tuple[str, str, list[str], Mapping[Any, int]]]:
        """Yields counters: name, help text, labels, and numbers by the labels' values."""
        stats = self._stats
        directions = ["direction"]
        messages = {("in",): stats.messages_in, ("out",): stats.messages_out}
        yield "messages", "Messages.", directions, messages
        sizes = {("in",): stats.bytes_in, ("out",): stats.bytes_out}
        yield "bytes", "Network bytes.", directions, sizes
        yield "accepted", "Opened WebSockets.", [], {(): stats.connections}
        dropped = _labelled(stats.dropped)
        yield "dropped", "Messages dropped for slow consumers.", ["policy"], dropped
        closes: Counter[tuple[str, ...]] = Counter()
        for (code, cause), count in stats.closes.items():
            closes[_code_label(code), cause] += count
        yield "closes", "Ended WebSockets, by the code that we sent.", ["code", "cause"], closes
        refused = {(str(status), reason): count for (status, reason), count in stats.refused.items()}
        yield "refused", "Refused requests and connections.", ["status", "reason"], refused
        text = "Connections that ended without an answer to their first request."
        yield "unanswered", text, ["reason"], _labelled(stats.unanswered)
        yield "errors", "Errors that the process logged.", ["event"], _labelled(errors)

    def _sessions(self, core: Any) -> Iterator[Any]:
        stats = self._stats
        counts: Counter[str] = Counter(polling=0, websocket=0)
        for count in stats.session_counts:
            counts.update(count())
        family = core.GaugeMetricFamily("rfc6455_socketio_sessions", "Open sessions.", labels=["transport"])
        for transport, number in counts.items():
            family.add_metric((transport,), number)
        yield family
        for name, text, label, numbers in (
            ("closes", "Ended sessions.", "reason", stats.session_closes),
            ("connects", "Clients that asked for a namespace.", "result", stats.socket_connects),
            ("recoveries", "Clients that came back.", "result", stats.socket_recoveries),
        ):
            yield self._counter(core, f"socketio_{name}", text, [label], _labelled(numbers))

    @staticmethod
    def _counter(core: Any, name: str, text: str, labels: list[str], values: Mapping[Any, int]) -> Any:
        family = core.CounterMetricFamily(f"rfc6455_{name}", text, labels=labels)
        for label_values, value in values.items():
            family.add_metric(label_values, value)
        return family

    @staticmethod
    def _histogram(core: Any, name: str, text: str, histogram: Histogram) -> Any:
        bounds = [*map(str, histogram.bounds), "+Inf"]
        buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
        return core.HistogramMetricFamily(f"rfc6455_{name}", text, buckets=buckets, sum_value=histogram.total)


def _labelled(numbers: Mapping[str, int]) -> dict[tuple[str, ...], int]:
    return {(value,): number for value, number in numbers.items()}


def _code_label(code: int | None) -> str:
    """Returns the label of a close code that we sent: one for all codes of applications, 3000 to 4999.

    We send a peer's code back, so a peer could make up 2000 labels.
    """
    if code is None:
        return "none"
    return str(code) if code < 3000 else "private"
