"""Prometheus, OpenMetrics and people each get what they can read."""

from __future__ import annotations

import json
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.brief_record import parts_of
from llmproxy.instruments import Counter, Gauge
from llmproxy.model import RequestRecord
from llmproxy.observability.exposition import render, to_json
from llmproxy.observability.metrics import Metrics
from tests.unit.observability.test_metrics import Part

# What Prometheus 3 sends.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,*/*;q=0.1"
)
SECRETS = ("r1", "gpt-4o", "token-7", "project-7", "/v1/chat/completions", "203.0.113.9", "curl/8")


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
        "project_id": "project-7",
        "token_id": "token-7",
        "model": "gpt-4o",
        "client": "203.0.113.9",
        "user_agent": "curl/8",
        "first_byte": 0.03,
    }
    return RequestRecord(**values | changes)


class ExpositionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.metrics = Metrics(breakers=lambda: {"openai": "half-open"}, events_dropped=lambda: 3)
        self.metrics.started()
        self.metrics.observe_all([parts_of(record(bytes_in=10, bytes_out=20, stream=True, cache="hit", sdk_retry=1))])
        self.metrics.observe_all(
            [parts_of(record(status=404, outcome="refused", error="not_found", api="", first_byte=None))]
        )

    def samples(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        _, body = render(self.metrics)
        families: list[Metric] = list(text_string_to_metric_families(body.decode()))
        return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}

    def value(self, name: str, **labels: str) -> float:
        return self.samples()[f"llmproxy_{name}", frozenset(labels.items())]

    def test_figures(self) -> None:
        """Every count is there under its name and labels."""
        self.assertEqual(self.value("requests_total", api="openai", status="2xx", outcome="complete"), 1)
        self.assertEqual(self.value("requests_total", api="", status="4xx", outcome="refused"), 1)
        self.assertEqual(self.value("errors_total", api=""), 1)
        self.assertEqual(self.value("refusals_total", api="", code="not_found"), 1)
        self.assertEqual(self.value("streams_total", api="openai"), 1)
        self.assertEqual(self.value("cache_hits_total", api="openai"), 1)
        self.assertEqual(self.value("request_bytes_total", api="openai"), 10)
        self.assertEqual(self.value("response_bytes_total", api="openai"), 20)
        self.assertEqual(self.value("sdk_retries_total", api="openai"), 1)
        self.assertEqual(self.value("upstream_errors_total", api="openai"), 0)
        self.assertEqual(self.value("requests_in_flight"), 1)
        self.assertEqual(self.value("events_dropped_total"), 3)

    def test_histograms(self) -> None:
        """Durations and first bytes are there by API; what had no first byte is not counted there."""
        self.assertEqual(self.value("request_duration_seconds_bucket", api="openai", le="0.1"), 0)
        self.assertEqual(self.value("request_duration_seconds_bucket", api="openai", le="0.25"), 1)
        self.assertEqual(self.value("request_duration_seconds_sum", api="openai"), 0.25)
        self.assertEqual(self.value("first_byte_seconds_count", api="openai"), 1)
        self.assertEqual(self.value("first_byte_seconds_count", api=""), 0)

    def test_breakers(self) -> None:
        """The state of each breaker is one of three series."""
        states = {
            s: self.value("circuit_breaker_state", api="openai", state=s) for s in ("closed", "open", "half-open")
        }
        self.assertEqual(states, {"closed": 0, "open": 0, "half-open": 1})

    def test_process(self) -> None:
        """The process and the interpreter are there too, and nothing of another registry."""
        names = {name for name, _ in self.samples()}
        self.assertIn("process_resident_memory_bytes", names)
        self.assertIn("process_start_time_seconds", names)
        self.assertIn("python_gc_collections_total", names)
        self.assertIn("python_info", names)

    def test_extras(self) -> None:
        """Figures that others keep are shown; one that cannot be read is left out and said."""
        self.metrics.register(Part(Gauge("open_connections", "Open connections.", lambda: 5)))
        self.metrics.register(Part(Gauge("events_queued", "Queued events.", lambda: {"file": 2.0}, label="sink")))
        self.metrics.register(Part(Counter("log_lines_lost", "Lines lost.", lambda: 9)))
        self.metrics.register(Part(Gauge("broken", "Broken.", lambda: 1 / 0)))
        self.assertEqual(self.value("open_connections"), 5)
        self.assertEqual(self.value("events_queued", sink="file"), 2)
        self.assertEqual(self.value("log_lines_lost_total"), 9)
        self.assertNotIn(("llmproxy_broken", frozenset()), self.samples())
        self.assertGreater(len(self.flushLoggedErrors(ZeroDivisionError)), 0)

    def test_no_secrets(self) -> None:
        """No label names a model, token, project, path or client."""
        for accept in ("", PROMETHEUS, "application/json"):
            text = render(self.metrics, accept)[1].decode()
            for secret in SECRETS:
                self.assertNotIn(secret, text)


class NegotiationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.metrics = Metrics()
        self.metrics.observe_all([parts_of(record())])

    def content_type(self, accept: str) -> str:
        return render(self.metrics, accept)[0].split(";")[0]

    def test_accept(self) -> None:
        """Text is the default, OpenMetrics and JSON are for those who ask; the greater weight wins."""
        self.assertEqual(self.content_type(""), "text/plain")
        self.assertEqual(self.content_type("*/*"), "text/plain")
        self.assertEqual(self.content_type("text/html,garbage;q=x"), "text/plain")
        self.assertEqual(self.content_type(PROMETHEUS), "application/openmetrics-text")
        self.assertEqual(self.content_type("application/json"), "application/json")
        self.assertEqual(self.content_type("Application/JSON, */*;q=0.8"), "application/json")
        self.assertEqual(self.content_type("text/plain, application/json;q=0.5"), "text/plain")
        self.assertEqual(self.content_type("text/plain;q=0.5, application/json;q=0.9"), "application/json")
        self.assertEqual(self.content_type("application/json;q=0"), "text/plain")

    def test_openmetrics(self) -> None:
        """What is sent as OpenMetrics is valid as such."""
        content_type, body = render(self.metrics, PROMETHEUS)
        self.assertIn("version=1.0.0", content_type)
        names = {family.name for family in openmetrics_families(body.decode())}
        self.assertIn("llmproxy_requests", names)
        self.assertTrue(body.endswith(b"# EOF\n"))

    def test_json(self) -> None:
        """People get the snapshot under the names it has in Python, and the rest beside it."""
        self.metrics.register(Part(Gauge("open_connections", "Open connections.", lambda: 5)))
        shown = json.loads(to_json(self.metrics))
        self.assertEqual((shown["requests"], shown["by_status"], shown["cache_hits"]), (1, {"200": 1}, 0))
        self.assertEqual(shown["gauges"], {"open_connections": 5})
        self.assertEqual(shown["latency"]["openai"]["request_duration_seconds"]["count"], 1)
        self.assertEqual(shown["circuit_breakers"], {})
