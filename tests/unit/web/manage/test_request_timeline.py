from __future__ import annotations

from typing import Any
from unittest import TestCase

from llmproxy.model import RequestRecord
from llmproxy.web.manage.request_timeline import TimelineStep, timeline


def shown(**values: Any) -> list[tuple[Any, ...]]:
    record = RequestRecord("r", 0.0, values.pop("duration", 1.0), "POST", "/x", 200, "complete", **values)
    found = timeline(record)
    for each in found:
        TimelineStep(**each)
    return [(each["step"], each["at"], each["seconds"], each["result"]) for each in found]


class TimelineTests(TestCase):
    def test_a_request_whose_times_say_all(self) -> None:
        """One that a flow sent has no steps of its own."""
        self.assertEqual(
            shown(first_byte=0.5, upstream_time=0.4, auth_time=0.05, upstream_status=200, attempts=1),
            [
                ("auth", 0.0, 0.05, None),
                ("admission", 0.05, 0.05, None),
                ("attempt", 0.1, 0.4, "200"),
                ("response", 0.5, 0.5, None),
            ],
        )
        self.assertEqual(
            shown(first_byte=0.25, upstream_time=0.25, upstream_status=200),
            [("auth", 0.0, 0.0, None), ("attempt", 0.0, 0.25, "200"), ("response", 0.25, 0.75, None)],
        )

    def test_one_that_waited_for_its_limits(self) -> None:
        self.assertEqual(
            shown(first_byte=0.5, upstream_time=0.25, auth_time=0.05, queue_time=0.2, upstream_status=200),
            [
                ("auth", 0.0, 0.05, None),
                ("turn", 0.05, 0.2, None),
                ("attempt", 0.25, 0.25, "200"),
                ("response", 0.5, 0.5, None),
            ],
        )

    def test_what_is_written_down(self) -> None:
        self.assertEqual(
            shown(steps="auth:0.1 limits:0.4 0/0:429@0.4+0.1 0/1:200@0.5+0.25", first_byte=0.75, upstream_time=0.25),
            [
                ("auth", 0.0, 0.1, None),
                ("limits", 0.1, 0.3, None),
                ("attempt", 0.4, 0.1, "429"),
                ("attempt", 0.5, 0.25, "200"),
                ("response", 0.75, 0.25, None),
            ],
        )

    def test_without_a_provider(self) -> None:
        self.assertEqual(shown(cache="hit"), [("cache", 0.0, 1.0, None)])
        self.assertEqual(shown(error="token_not_found"), [("auth", 0.0, 1.0, None)])
        self.assertEqual(shown(steps="auth:0.25 body:0.5 limits:1.0"), [
            ("auth", 0.0, 0.25, None), ("body", 0.25, 0.25, None), ("limits", 0.5, 0.5, None),
        ])  # fmt: skip
