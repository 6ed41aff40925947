"""``/metrics`` in the format of Prometheus, written by prometheus-client from what `stats` has counted.

Left to others: counting. The extra ``server`` has prometheus-client; without it, the page says 501.
"""

from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from itertools import accumulate
from typing import Any

from rfc6455_server.http.routes import HttpRequest, HttpResponse
from rfc6455_server.stats import Histogram, Stats

Gauges = Callable[[], dict[str, tuple[str, float]]]
"""Gives what is counted at the moment: a help text and a value by name."""


class Metrics:
    """The page. ``gauges`` is asked each time."""

    def __init__(self, stats: Stats, gauges: Gauges) -> None:
        self._stats = stats
        self._gauges = gauges

    async def __call__(self, _: HttpRequest) -> HttpResponse:
        """Answers a request."""
        if find_spec("prometheus_client") is None:
            return HttpResponse(b"needs prometheus-client: install rfc6455[server]\n", status=501)
        from prometheus_client import CollectorRegistry, exposition  # noqa: PLC0415 - optional, and late

        registry = CollectorRegistry()
        registry.register(self)
        return HttpResponse(exposition.generate_latest(registry), exposition.CONTENT_TYPE_LATEST)

    def collect(self) -> Iterator[Any]:
        """The metrics, as prometheus-client asks for them."""
        from prometheus_client import core  # noqa: PLC0415 - as above

        stats = self._stats
        for name, (text, value) in self._gauges().items():
            yield core.GaugeMetricFamily(f"rfc6455_{name}", text, value)
        counted = {
            "messages": ("Messages.", {("in",): stats.messages_in, ("out",): stats.messages_out}),
            "bytes": ("Bytes of the network.", {("in",): stats.bytes_in, ("out",): stats.bytes_out}),
        }
        for name, (text, values) in counted.items():
            yield self._counter(core, name, text, ["direction"], values)
        yield self._counter(core, "accepted", "WebSockets that were opened.", [], {(): stats.connections})
        dropped = {(policy,): count for policy, count in stats.dropped.items()}
        yield self._counter(core, "dropped", "Messages that slow consumers did not get.", ["policy"], dropped)
        closes = {(str(code), cause): count for (code, cause), count in stats.closes.items()}
        yield self._counter(core, "closes", "Ended WebSockets.", ["code", "cause"], closes)
        refused = {(str(status),): count for status, count in stats.refused.items()}
        yield self._counter(core, "refused", "Requests that were refused.", ["status"], refused)
        yield self._histogram(core, "latency_seconds", "From a Ping to its Pong.", stats.latency)
        yield self._histogram(core, "loop_lag_seconds", "How late the event loop was.", stats.loop_lag)

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
