"""What happened is counted once, under names that cannot be made up by a client."""

from __future__ import annotations

import unittest
from collections.abc import Iterable
from typing import Any

from zope.interface import implementer

from llmproxy.brief_record import RecordKinds, parts_of
from llmproxy.instruments import Counter, Gauge, Instrument
from llmproxy.interfaces import IInstrumented
from llmproxy.model import RequestRecord
from llmproxy.observability.exposition import render
from llmproxy.observability.metrics import DURATION_BOUNDS, MAX_KINDS, MAX_MODELS, Histogram, Metrics, ProxyMetrics
from llmproxy.observability.metrics_of_workers import state_of


def record(**changes: Any) -> RequestRecord:
    values: dict[str, Any] = {
        "request_id": "r1",
        "started_at": 0.0,
        "duration": 0.25,
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "outcome": "complete",
        "api": "openai",
    }
    return RequestRecord(**values | changes)


class SnapshotTests(unittest.TestCase):
    def counted(self, **changes: Any) -> ProxyMetrics:
        metrics = Metrics()
        metrics.observe_all([parts_of(record(**changes))])
        return metrics.snapshot()

    def test_nothing(self) -> None:
        """Before the first request everything is zero."""
        self.assertEqual(Metrics().snapshot(), ProxyMetrics())

    def test_sums(self) -> None:
        """Requests, bytes and streams are summed up over all APIs, and told apart by API and status."""
        metrics = Metrics(events_dropped=lambda: 7)
        metrics.observe_all([parts_of(record(bytes_in=10, bytes_out=100, stream=True, sdk_retry=2))])
        metrics.observe_all([parts_of(record(api="google", status=529, upstream_status=529, bytes_in=1))])
        metrics.observe_all([parts_of(record(bytes_out=5))])
        counted = metrics.snapshot()
        self.assertEqual((counted.requests, counted.bytes_in, counted.bytes_out), (3, 11, 105))
        self.assertEqual((counted.streams, counted.sdk_retries, counted.events_dropped), (1, 1, 7))
        self.assertEqual((counted.errors, counted.upstream_errors), (1, 1))
        self.assertEqual(counted.by_status, {200: 2, 529: 1})
        self.assertEqual(counted.by_api, {"openai": 2, "google": 1})

    def test_in_flight(self) -> None:
        """Requests under way are counted up and down."""
        metrics = Metrics()
        metrics.started()
        metrics.started()
        metrics.ended()
        self.assertEqual(metrics.snapshot().in_flight, 1)

    def test_outcomes(self) -> None:
        """A refusal and a failure are errors; a client that left is none; a cut answer is the provider's fault."""
        refused = self.counted(status=401, outcome="refused", error="missing_token")
        self.assertEqual((refused.refused, refused.errors, refused.upstream_errors), (1, 1, 0))
        self.assertEqual(refused.by_error, {"missing_token": 1})
        cancelled = self.counted(status=499, outcome="cancelled")
        self.assertEqual((cancelled.cancelled, cancelled.errors), (1, 0))
        truncated = self.counted(outcome="truncated")
        self.assertEqual((truncated.truncated, truncated.errors, truncated.upstream_errors), (1, 1, 1))
        failed = self.counted(status=500, outcome="failed", error="internal_error")
        self.assertEqual((failed.failed, failed.errors, failed.upstream_errors), (1, 1, 0))

    def test_provider_faults(self) -> None:
        """The provider failed where it was not reached, not understood or too late; not where its key is missing."""
        faults = [("upstream_unreachable", 1), ("upstream_protocol_error", 1), ("upstream_timeout", 1)]
        for error, count in [*faults, ("upstream_auth_error", 0), ("circuit_open", 0)]:
            self.assertEqual(self.counted(status=502, outcome="refused", error=error).upstream_errors, count, error)

    def test_cache(self) -> None:
        """Every state of the cache counts as the spec's names say."""
        expected = {
            "hit": (1, 0, 0, 0),
            "revalidated": (1, 0, 0, 0),
            "coalesced": (1, 0, 0, 0),
            "stale": (1, 0, 0, 0),
            "miss": (0, 1, 0, 0),
            "stored": (0, 1, 0, 1),
            "bypass": (0, 0, 1, 0),
            "disabled": (0, 0, 0, 0),
        }
        for state, counts in expected.items():
            got = self.counted(cache=state)
            self.assertEqual((got.cache_hits, got.cache_misses, got.cache_bypass, got.cache_stores), counts, state)

    def test_bounded(self) -> None:
        """Were a plugin to invent error codes without end, memory does not grow and no request is left out."""
        metrics = Metrics()
        for n in range(MAX_KINDS + 50):
            metrics.observe_all([parts_of(record(status=400, outcome="refused", error=f"made_up_{n}"))])
        self.assertEqual(len(metrics.kinds), MAX_KINDS + 1)
        self.assertEqual((metrics.snapshot().requests, metrics.snapshot().by_error["other"]), (MAX_KINDS + 50, 50))


class HistogramTests(unittest.TestCase):
    def test_bounds(self) -> None:
        """A duration counts in every bucket whose bound it does not exceed."""
        histogram = Histogram()
        for seconds in (0.0, 0.005, 0.0051, 601.0):
            histogram.observe(seconds)
        buckets = dict(histogram.buckets)
        self.assertEqual((buckets["0.005"], buckets["0.01"], buckets["600.0"], buckets["+Inf"]), (2, 3, 3, 4))
        self.assertEqual(len(buckets), len(DURATION_BOUNDS) + 1)
        self.assertAlmostEqual(histogram.sum, 601.0101)


@implementer(IInstrumented)
class Part:
    """Shows these figures."""

    def __init__(self, *instruments: Instrument) -> None:
        self._instruments = instruments

    def instruments(self) -> Iterable[Instrument]:
        return self._instruments


class RegisterTests(unittest.TestCase):
    def test_twice(self) -> None:
        """Two figures of one name are a mistake of ours, found at the start."""
        metrics = Metrics()
        metrics.register(Part(Gauge("open_connections", "Open connections.", lambda: 1)))
        for again in (
            Counter("open_connections", "Again.", lambda: 1),
            Gauge("open_connections", "Again.", lambda: 1),
            Gauge("open_connections", "Again.", lambda: {"a": 1}, "by"),
        ):
            with self.assertRaises(ValueError):
                metrics.register(Part(again))

    def test_one_label_from_several_parts(self) -> None:
        """Each part has its values of it."""
        metrics = Metrics()
        for use in ("cache", "limits"):
            metrics.register(Part(Gauge("redis_available", "Available.", lambda use=use: {use: 1.0}, "use")))
        [(instrument, reading)] = metrics.readings()
        self.assertEqual((instrument.label, reading), ("use", {"cache": 1.0, "limits": 1.0}))

    def test_parts_with_nothing_to_show(self) -> None:
        """Are let alone."""
        metrics = Metrics()
        metrics.register(None)
        metrics.register(object())
        self.assertEqual(list(metrics.readings()), [])


class SpendingTests(unittest.TestCase):
    def test_by_model(self) -> None:
        """Tokens and cost are summed up by API and the model that answered; what is not known is counted as such."""
        metrics = Metrics()
        used: dict[str, Any] = {"input_tokens": 10, "cached_tokens": 4, "output_tokens": 5, "reasoning_tokens": 1}
        metrics.observe_all([parts_of(record(**used, answered="gpt-4o", cost_usd=0.5, basis="exact"))])
        metrics.observe_all([parts_of(record(**used, answered="gpt-4o", basis="estimated"))])
        metrics.observe_all([parts_of(record(**used, cost_usd=0.25))])
        metrics.observe_all([parts_of(record(answered="gpt-4o"))])
        spent = metrics.spent["openai", "gpt-4o"]
        self.assertEqual((spent.input, spent.cached, spent.output, spent.reasoning), (20, 8, 10, 2))
        self.assertEqual((spent.cost, spent.estimated, spent.unpriced), (0.5, 1, 1))
        self.assertEqual(metrics.spent["openai", "unknown"].cost, 0.25)

    def test_what_is_paid_by_the_request(self) -> None:
        """An image, say, has a price and no tokens."""
        metrics = Metrics()
        for cost in (0.04, 0.0, None):
            metrics.observe_all([parts_of(record(answered="dall-e-3", cost_usd=cost))])
        spent = metrics.spent["openai", "dall-e-3"]
        self.assertEqual((spent.cost, spent.input, spent.unpriced), (0.04, 0, 0))

    def test_what_many_have_in_common(self) -> None:
        """Requests of one kind count as each of them would alone."""
        together, alone, kinds = Metrics(), Metrics(), RecordKinds()
        records = [
            record(answered="m", input_tokens=3, output_tokens=2, cost_usd=0.5, bytes_in=5, stream=True),
            record(answered="m", input_tokens=7, basis="estimated", sdk_retry=3, status=503, upstream_status=503),
            record(outcome="truncated", error="upstream_truncated", duration=3.0),
        ] * 4
        together.observe_all(map(kinds.parts_of, records))
        alone.observe_all(map(parts_of, records))
        self.assertEqual(together.snapshot(), alone.snapshot())
        self.assertEqual(state_of(together), state_of(alone))

    def test_models_without_end(self) -> None:
        """A provider that repeats whatever model it is asked for does not fill the memory."""
        metrics = Metrics()
        for number in range(1000):
            metrics.observe_all([parts_of(record(answered=f"m{number}", input_tokens=1))])
        self.assertEqual(len(metrics.spent), MAX_MODELS + 1)
        self.assertEqual(metrics.spent["openai", "other"].input, 1000 - MAX_MODELS)

    def test_a_secret_for_a_model(self) -> None:
        """What is shown of it is masked."""
        metrics = Metrics(redact=lambda text: text.replace("secret", "[redacted]"))
        metrics.observe_all([parts_of(record(answered="a secret model", input_tokens=1))])
        text = render(metrics)[1].decode()
        self.assertIn('llmproxy_input_tokens_total{api="openai",model="a [redacted] model"} 1.0', text)
        self.assertNotIn("secret", text)
