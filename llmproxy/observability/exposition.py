"""Shows what was counted: as Prometheus' text, as OpenMetrics, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from llmproxy.instruments import Gauge
from llmproxy.observability.metrics import HITS, MISSES, ApiTotals, Histogram, Metrics, ModelTotals, RequestKind, sums
from llmproxy.observability.metrics_of_workers import TotalMetrics

PREFIX = "llmproxy_"
STATES = ("closed", "open", "half-open")

Label = Callable[[RequestKind], tuple[str, ...] | None]

BY_KIND: tuple[tuple[str, str, tuple[str, ...], Label], ...] = (
    (
        "requests",
        "Finished requests.",
        ("api", "status", "outcome"),
        lambda k: (k.api, f"{k.status // 100}xx", k.outcome),
    ),
    (
        "errors",
        "Requests answered with 400 or above, failed or truncated.",
        ("api",),
        lambda k: (k.api,) if k.erred else None,
    ),
    (
        "refusals",
        "Requests that ended with an error of the proxy's own, by its code.",
        ("api", "code"),
        lambda k: (k.api, k.error) if k.error else None,
    ),
    ("streams", "Requests answered with a stream.", ("api",), lambda k: (k.api,) if k.stream else None),
    ("cache_hits", "Answered from the cache.", ("api",), lambda k: (k.api,) if k.cache in HITS else None),
    ("cache_misses", "Not found in the cache.", ("api",), lambda k: (k.api,) if k.cache in MISSES else None),
    ("cache_bypass", "Not looked up in the cache.", ("api",), lambda k: (k.api,) if k.cache == "bypass" else None),
    ("cache_stores", "Put into the cache.", ("api",), lambda k: (k.api,) if k.cache == "stored" else None),
)
BY_API: tuple[tuple[str, str, Callable[[ApiTotals], int]], ...] = (
    ("request_bytes", "Bytes of request bodies.", lambda t: t.bytes_in),
    ("response_bytes", "Bytes of response bodies.", lambda t: t.bytes_out),
    ("upstream_errors", "Requests on which the provider failed.", lambda t: t.upstream_errors),
    ("sdk_retries", "Requests that a client library says it repeats.", lambda t: t.sdk_retries),
)
HISTOGRAMS: tuple[tuple[str, str, Callable[[ApiTotals], Histogram]], ...] = (
    ("request_duration_seconds", "From a request's arrival to its end.", lambda t: t.duration),
    ("first_byte_seconds", "From a request's arrival to the provider's first byte.", lambda t: t.first_byte),
)
BY_MODEL: tuple[tuple[str, str, Callable[[ModelTotals], float]], ...] = (
    ("input_tokens", "Input tokens, those from the provider's cache included.", lambda s: s.input),
    ("cached_tokens", "Input tokens read from the provider's cache.", lambda s: s.cached),
    ("cache_write_tokens", "Input tokens written to the provider's cache.", lambda s: s.cache_write),
    ("output_tokens", "Output tokens, those of reasoning included.", lambda s: s.output),
    ("reasoning_tokens", "Output tokens of reasoning.", lambda s: s.reasoning),
    ("cost_usd", "What tokens cost, as far as prices are known.", lambda s: s.cost),
    ("usage_estimated", "Requests whose tokens are estimated.", lambda s: s.estimated),
    ("usage_unpriced", "Requests that used tokens of a model without a known price.", lambda s: s.unpriced),
)
LAG = ("reactor_lag_seconds", "How late the reactor came to what was due, twenty times a second.")
IN_FLIGHT = ("requests_in_flight", "Requests under way.")
DROPPED = ("events_dropped", "Events that no sink received.")
BREAKERS = ("circuit_breaker_state", "1 for the state that the API's circuit breaker is in, 0 for the others.")
NAMES = frozenset(row[0] for row in (*BY_KIND, *BY_API, *BY_MODEL, *HISTOGRAMS, LAG, IN_FLIGHT, DROPPED, BREAKERS))


class _Families(Collector):
    """What was counted, in Prometheus' terms."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        counts = [(RequestKind(*kind), count) for kind, count in self._metrics.kinds.items()]
        for name, text, labels, of in BY_KIND:
            found = sums((values, count) for kind, count in counts if (values := of(kind)))
            yield _family(CounterMetricFamily(PREFIX + name, text, labels=labels), found)
        for name, text, figure in BY_API:
            found = {(api,): figure(traffic) for api, traffic in self._metrics.traffic.items()}
            yield _family(CounterMetricFamily(PREFIX + name, text, labels=("api",)), found)
        for name, text, sum_of in BY_MODEL:
            spent = sums(((api, found.model), sum_of(found)) for (api, _), found in self._metrics.spent.items())
            yield _family(CounterMetricFamily(PREFIX + name, text, labels=("api", "model")), spent)
        for name, text, histogram in HISTOGRAMS:
            family = HistogramMetricFamily(PREFIX + name, text, labels=("api",))
            for api, traffic in self._metrics.traffic.items():
                family.add_metric((api,), histogram(traffic).buckets, histogram(traffic).sum)
            yield family
        lag = self._metrics.reactor_lag
        yield HistogramMetricFamily(PREFIX + LAG[0], LAG[1], buckets=lag.buckets, sum_value=lag.sum)
        yield GaugeMetricFamily(PREFIX + IN_FLIGHT[0], IN_FLIGHT[1], value=self._metrics.in_flight)
        yield CounterMetricFamily(PREFIX + DROPPED[0], DROPPED[1], value=self._metrics.events_dropped())
        breakers = self._metrics.breaker_counts()
        apis = dict.fromkeys(api for api, _ in breakers)
        states = {(api, state): breakers.get((api, state), 0.0) for api in apis for state in STATES}
        yield _family(GaugeMetricFamily(PREFIX + BREAKERS[0], BREAKERS[1], labels=("api", "state")), states)
        yield from self._registered()

    def _registered(self) -> Iterator[Metric]:
        for instrument, reading in self._metrics.readings():
            labels = (instrument.label,) if isinstance(reading, Mapping) else ()
            values = {(k,): v for k, v in reading.items()} if isinstance(reading, Mapping) else {(): reading}
            kind = GaugeMetricFamily if isinstance(instrument, Gauge) else CounterMetricFamily
            yield _family(kind(PREFIX + instrument.name, instrument.help, labels=labels), values)


def _family(
    family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[Any, float]
) -> CounterMetricFamily | GaugeMetricFamily:
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def to_json(metrics: Metrics) -> bytes:
    """The snapshot, the histograms, the breakers and the figures of others, as one JSON object."""
    latency = {
        api: {
            name: {"count": sum(of(traffic).counts), "sum": of(traffic).sum, "buckets": dict(of(traffic).buckets)}
            for name, _, of in HISTOGRAMS
        }
        for api, traffic in metrics.traffic.items()
    }
    usage: dict[str, dict[str, dict[str, float]]] = {}
    for (api, _), spent in metrics.spent.items():
        usage.setdefault(api, {})[spent.model] = {name: of(spent) for name, _, of in BY_MODEL}
    shown = asdict(metrics.snapshot()) | {
        "usage": usage,
        "latency": latency,
        "circuit_breakers": dict(metrics.breakers()),
        "gauges": {instrument.name: reading for instrument, reading in metrics.readings()},
    }
    return json.dumps(shown).encode("ascii")


def render(metrics: Metrics, accept: str = "") -> tuple[str, bytes]:
    """The content type and the body that a client with this C{Accept} field understands best."""
    if _preferred(accept) == "application/json":
        return "application/json", to_json(metrics)
    encode, content_type = choose_encoder(accept)
    return content_type, encode(registry(metrics))


def registry(metrics: Metrics) -> CollectorRegistry:
    """Everything there is to scrape: our own figures, the process and the interpreter."""
    made = CollectorRegistry()
    made.register(_Families(metrics))
    if isinstance(metrics, TotalMetrics):
        made.register(_Processes(metrics))
        PlatformCollector(registry=made)
        return made
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=made)
    return made


def process_families() -> list[Metric]:
    """What is known of this process and its interpreter."""
    made = CollectorRegistry()
    for collector in (ProcessCollector, GCCollector):
        collector(registry=made)
    return list(made.collect())


class _Processes(Collector):
    """What is known of several processes."""

    def __init__(self, metrics: TotalMetrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics.process


def _preferred(accept: str) -> str:
    """The media type of the greatest weight, the first of several (RFC 9110, section 12.5.1)."""
    best, weight = "", 0.0
    for item in accept.lower().split(","):
        name, *params = (part.strip() for part in item.split(";"))
        q = next((p[2:] for p in params if p.startswith("q=")), "1")
        try:
            found = float(q)
        except ValueError:
            continue
        if found > weight:
            best, weight = name, found
    return best
