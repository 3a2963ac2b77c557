"""Every finished request leaves one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import StringIO
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.brief_record import parts_of
from llmproxy.config.model import Logging
from llmproxy.model import RequestRecord
from llmproxy.observability.access_log import AccessLog
from llmproxy.observability.log_output import Redactor, observer
from llmproxy.observability.request_lines import RequestLines


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


class AccessLogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.written: list[list[str]] = []
        self.access = AccessLog(self.write, self.clock, interval=0.2, batch=3)
        self.access.startService()

    def write(self, records: Sequence[RequestRecord]) -> None:
        self.written.append([one.request_id for one in records])

    def observe(self, *ids: str) -> None:
        for request_id in ids:
            self.access.observe_all([parts_of(record(request_id=request_id))])

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

    def test_a_line_that_fails(self) -> None:
        """It takes none of the others with it, and is counted."""

        def write(records: Sequence[RequestRecord]) -> None:
            if any(one.request_id == "bad" for one in records):
                raise ValueError("no line")
            self.write(records)

        access = AccessLog(write, self.clock)
        for request_id in ("a", "bad", "b"):
            access.observe_all([parts_of(record(request_id=request_id))])
        access.flush()
        self.assertEqual((self.written, access.lines), ([["a"], ["b"]], 2))
        self.assertEqual(access.tasks[0].failures, 1)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_output(self) -> None:
        """The lines stand among the logs, on one line each, without secrets."""
        stream = StringIO()
        redactor = Redactor()
        output, lines = observer(Logging(level="error"), stream, redactor), RequestLines(redactor)
        access = AccessLog(lambda waiting: output.write_masked(lines.access_lines(waiting), len(waiting)), self.clock)
        access.observe_all([parts_of(record(user_agent="evil\r\nts=1", path="/sk-lp-" + "x" * 43))])
        access.stopService()
        (written,) = stream.getvalue().splitlines()
        self.assertEqual(json.loads(written)["user_agent"], "evil\r\nts=1")
        self.assertEqual(json.loads(written)["path"], "/[redacted]")
