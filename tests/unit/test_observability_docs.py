"""Nothing can be observed that the documentation does not explain."""

from __future__ import annotations

import json
import re
import unittest
from dataclasses import fields
from pathlib import Path
from typing import Any

from llmproxy.brief_record import parts_of
from llmproxy.config.model import Logging
from llmproxy.model import AuditEntry, RequestRecord
from llmproxy.observability.exposition import registry, to_json
from llmproxy.observability.log_output import entry
from llmproxy.observability.metrics import Metrics, ProxyMetrics
from llmproxy.observability.request_lines import access_fields

PAGE = Path(__file__).parents[2] / "docs" / "observability.md"
SOURCES = PAGE.parents[1] / "llmproxy"
ACTION = r'"((?:admin|project|token|management(?!\.oidc)|request)(?:\.(?!html")[a-z_]+)+)"'
INSTRUMENT = r'\b(Gauge|Counter)\(\s*"([a-z_]+)"'
RECORD = RequestRecord("r1", 0.0, 0.1, "GET", "/v1/models", 200, "complete")


def _found(pattern: str) -> list[Any]:
    """Whatever matches in our own sources."""
    return [found for path in SOURCES.rglob("*.py") for found in re.findall(pattern, path.read_text("utf-8"))]


class ObservabilityPageTests(unittest.TestCase):
    def setUp(self) -> None:
        self.words = set(re.findall(r"`([^`\n]+)`", PAGE.read_text("utf-8")))

    def assertDocumented(self, names: set[str]) -> None:
        self.assertEqual(names - self.words, set())

    def test_metrics(self) -> None:
        """Every metric of ours has its row, under the name that is scraped; no row is left of one that is gone."""
        metrics = Metrics()
        metrics.observe_all([parts_of(RECORD)])
        scraped = {
            f"{family.name}_total" if family.type == "counter" else family.name
            for family in registry(metrics).collect()
            if family.name.startswith("llmproxy_")
        }
        instruments = {f"llmproxy_{name}" + "_total" * (kind == "Counter") for kind, name in _found(INSTRUMENT)}
        self.assertEqual(scraped | instruments, {word for word in self.words if word.startswith("llmproxy_")})

    def test_snapshot(self) -> None:
        """Every name of the snapshot, and of the JSON, is explained."""
        self.assertDocumented({f.name for f in fields(ProxyMetrics)})
        self.assertDocumented({"latency", "circuit_breakers", "gauges", "usage"})
        self.assertEqual(
            set(json.loads(to_json(Metrics()))) - {f.name for f in fields(ProxyMetrics)},
            {"latency", "circuit_breakers", "gauges", "usage"},
        )

    def test_events_and_access_log(self) -> None:
        """Every field of a record is explained, and so are those that only the access log has."""
        self.assertDocumented(set(RequestRecord._fields) - {"steps"})  # which are in neither
        self.assertDocumented(set(access_fields(RECORD)))

    def test_audit(self) -> None:
        """Every field of an audit entry is explained."""
        self.assertDocumented({f.name for f in fields(AuditEntry)})

    def test_audit_actions(self) -> None:
        """Every action that the program can write down is explained."""
        actions = set(_found(ACTION))
        self.assertIn("project.create", actions)
        self.assertDocumented(actions)

    def test_logs(self) -> None:
        """Every field of a log line, and every setting of the logs, is explained."""
        self.assertDocumented({*entry({"log_time": 0.0, "log_format": ""}), "exception"})
        for name in Logging.model_fields:
            self.assertRegex(PAGE.read_text("utf-8"), rf"\b{name}\b")
