"""Every finished request leaves one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import StringIO
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.config.model import Logging
from llmproxy.model import RequestRecord
from llmproxy.observability.access_log import AccessLog, line
from llmproxy.observability.log_output import Redactor, observer


def record(**changes: Any) -> RequestRecord:
    values: dict[str, Any] = {
        "request_id": "r1",
        "started_at": 1700000000.0,
        "duration": 0.25,
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "outcome": "complete",
    }
    return RequestRecord(**values | changes)


class LineTests(SynchronousTestCase):
    def test_fields(self) -> None:
        """The line says when the request ended and all that is known of it, but nothing that is empty."""
        shown = line(record(api="openai", first_byte=0.123457, stream=True))
        self.assertEqual(
            shown,
            {
                "ts": "2023-11-14T22:13:20.250Z",
                "level": "info",
                "logger": "access",
                "msg": "request",
                "request_id": "r1",
                "duration": 0.25,
                "method": "POST",
                "path": "/v1/chat/completions",
                "status": 200,
                "outcome": "complete",
                "api": "openai",
                "stream": True,
                "bytes_in": 0,
                "bytes_out": 0,
                "first_byte": 0.123457,
                "cache": "disabled",
                "sdk_retry": 0,
                "attempts": 0,
                "input_tokens": 0,
                "cached_tokens": 0,
                "cache_write_tokens": 0,
                "output_tokens": 0,
                "reasoning_tokens": 0,
            },
        )

    def test_every_field(self) -> None:
        """Nothing of a record is left out where it has a value."""
        full = RequestRecord(
            **{name: 1.0 if name in ("started_at", "duration") else "x" for name in RequestRecord._fields}
        )
        self.assertEqual(set(RequestRecord._fields) - set(line(full)), {"started_at"})


class AccessLogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.written: list[list[str]] = []
        self.access = AccessLog(self.write, self.clock, interval=0.2, batch=3)
        self.access.startService()

    def write(self, lines: Sequence[dict[str, Any]]) -> None:
        self.written.append([one["request_id"] for one in lines])

    def observe(self, *ids: str) -> None:
        for request_id in ids:
            self.access.observe(record(request_id=request_id))

    def test_interval(self) -> None:
        """Lines wait for company, but not for long, and cost no timer while there are none."""
        self.observe("a")
        self.clock.advance(0.1)
        self.observe("b")
        self.assertEqual(self.written, [])
        self.clock.advance(0.1)
        self.assertEqual(self.written, [["a", "b"]])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_batch(self) -> None:
        """A full batch is written at once."""
        self.observe("a", "b", "c", "d")
        self.assertEqual(self.written, [["a", "b", "c"]])
        self.clock.advance(0.2)
        self.assertEqual(self.written[1:], [["d"]])
        self.assertEqual(self.access.lines, 4)

    def test_stop(self) -> None:
        """Stopping loses nothing, not even what ends afterwards."""
        self.observe("a")
        self.access.stopService()
        self.observe("b")
        self.assertEqual(self.written, [["a"], ["b"]])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_output(self) -> None:
        """The lines stand among the logs, on one line each, without secrets."""
        stream = StringIO()
        output = observer(Logging(level="error"), stream, Redactor())
        access = AccessLog(output.write, self.clock)
        access.observe(record(user_agent="evil\r\nts=1", path="/sk-lp-" + "x" * 43))
        access.stopService()
        (written,) = stream.getvalue().splitlines()
        self.assertEqual(json.loads(written)["user_agent"], "evil\r\nts=1")
        self.assertEqual(json.loads(written)["path"], "/[redacted]")
