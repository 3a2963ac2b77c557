"""Figures of several processes, shown as one's."""

from __future__ import annotations

import json
from unittest import TestCase

from llmproxy.brief_record import parts_of
from llmproxy.instruments import Counter, Gauge
from llmproxy.model import RequestRecord
from llmproxy.observability.exposition import render, to_json
from llmproxy.observability.metrics import Metrics
from llmproxy.observability.metrics_of_workers import State, TotalMetrics, lasting, merged, state_of

RECORD = RequestRecord(
    "r1", 0.0, 0.3, "POST", "/v1/chat/completions", 200, "complete", "openai", first_byte=0.2,
    answered="gpt-4o", input_tokens=7, output_tokens=3, cost_usd=0.5, bytes_in=10, bytes_out=20,
)  # fmt: skip


def process(requests: int, breaker: str = "closed", longest: float = 1.0) -> Metrics:
    metrics = Metrics(lambda: {"openai": breaker}, lambda: 2)
    for _ in range(requests):
        metrics.observe_all([parts_of(RECORD)])
    metrics.reactor_lag.observe(0.01)
    metrics.in_flight = requests
    metrics.add(Gauge("open", "Open.", lambda: {"openai": float(requests)}, "api"))
    metrics.add(Gauge("longest", "Longest.", lambda: longest, across="max"))
    metrics.add(Gauge("least", "Least.", lambda: longest, across="min"))
    metrics.add(Counter("lines", "Lines.", lambda: requests))
    return metrics


def passed(state: State) -> State:
    """As it is after its way over the link."""
    return json.loads(json.dumps(state))  # type: ignore[no-any-return]


class MetricsOfWorkersTests(TestCase):
    def test_one_process(self) -> None:
        """Its figures are shown as it shows them itself, but for what is known of the process."""
        one = process(3)
        again = TotalMetrics(passed(state_of(one)))
        self.assertEqual(again.snapshot(), one.snapshot())
        self.assertEqual(json.loads(to_json(again)), json.loads(to_json(one)))

        def ours(metrics: Metrics) -> list[str]:
            lines = render(metrics)[1].decode().splitlines()
            return [line for line in lines if line.startswith("llmproxy_") and "_created" not in line]

        self.assertEqual(ours(again), ours(one))

    def test_two_processes(self) -> None:
        """Counts and histograms are added up; a gauge is what its kind says."""
        both = TotalMetrics(merged([passed(state_of(process(3))), passed(state_of(process(2, "open", 4.0)))]))
        found = json.loads(to_json(both))
        self.assertEqual((found["requests"], found["in_flight"], found["events_dropped"]), (5, 5, 4))
        self.assertEqual(found["latency"]["openai"]["request_duration_seconds"]["count"], 5)
        self.assertEqual(found["usage"]["openai"]["gpt-4o"]["cost_usd"], 2.5)
        self.assertEqual(found["gauges"], {"open": {"openai": 5}, "longest": 4, "least": 1, "lines": 5})
        self.assertEqual(found["circuit_breakers"], {"openai": "open"})
        self.assertEqual(both.breaker_counts(), {("openai", "closed"): 1, ("openai", "open"): 1})
        self.assertIn('llmproxy_circuit_breaker_state{api="openai",state="half-open"} 0.0', render(both)[1].decode())

    def test_one_that_has_ended(self) -> None:
        """What only rises stays; what is open now, and its breakers, are gone with it."""
        left = TotalMetrics(merged([lasting(passed(state_of(process(3, "open"))))]))
        found = json.loads(to_json(left))
        self.assertEqual((found["requests"], found["in_flight"], found["gauges"]), (3, 0, {"lines": 3}))
        self.assertEqual(found["circuit_breakers"], {})

    def test_none(self) -> None:
        self.assertEqual(TotalMetrics(merged(())).snapshot(), Metrics().snapshot())

    def test_what_is_known_of_processes(self) -> None:
        """It stands under each one's place."""
        from prometheus_client.metrics_core import GaugeMetricFamily

        states = []
        for worker, size in ((1, 10.0), (2, 20.0)):
            family = GaugeMetricFamily("process_resident_memory_bytes", "Memory.", value=size)
            states.append(passed(state_of(Metrics(), [family], worker)))
        page = render(TotalMetrics(merged(states)))[1].decode()
        for line in ('{worker="1"} 10.0', '{worker="2"} 20.0'):
            self.assertIn("process_resident_memory_bytes" + line, page)
