"""What was audited is on the disk before anybody is told that it is done."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from llmproxy import errors
from llmproxy.interfaces import IAuditLogger
from llmproxy.model import AuditEntry
from llmproxy.observability.audit import FileAudit, NullAudit


def entry(action: str, **more: Any) -> AuditEntry:
    return AuditEntry(1700000000.25, action, "management", **more)


class Threads:
    """Threads that work only when told to."""

    def __init__(self) -> None:
        self.work: list[Callable[[], None]] = []

    def __call__(self, act: Callable[..., None], *args: Any, **kwargs: Any) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self.work.append(lambda: execute(act, *args, **kwargs).chainDeferred(done))
        return done

    def run(self) -> None:
        self.work.pop(0)()


class FileAuditTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp()) / "audit.jsonl"
        self.clock = Clock()
        self.threads = Threads()

    def audit(self, in_thread: Any = None, **options: Any) -> FileAudit:
        audit = FileAudit(str(self.path), self.clock, in_thread or partial(execute), **options)
        audit.startService()
        return audit

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def test_promise(self) -> None:
        self.assertTrue(verifyObject(IAuditLogger, self.audit()))

    def test_entry(self) -> None:
        """An entry is one line with all its fields, in a file that only its owner may read."""
        audit = self.audit()
        self.successResultOf(audit.log(entry("project.create", project_id="p1", details={"name": "T\nx"})))
        self.assertEqual(
            self.lines(),
            [
                {
                    "at": "2023-11-14T22:13:20.250000Z",
                    "action": "project.create",
                    "actor": "management",
                    "outcome": "success",
                    "project_id": "p1",
                    "token_id": "",
                    "request_id": "",
                    "client": "",
                    "details": {"name": "T\nx"},
                }
            ],
        )
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    def test_waits_for_the_disk(self) -> None:
        """Nobody is told before the line is there; those that come meanwhile share the next write, in order."""
        audit = self.audit(self.threads)
        written = [audit.log(entry(action)) for action in "abc"]
        self.assertNoResult(written[0])
        self.threads.run()
        self.successResultOf(written[0])
        self.assertEqual(len(self.threads.work), 1)
        self.assertNoResult(written[1])
        self.threads.run()
        for one in written[1:]:
            self.successResultOf(one)
        self.assertEqual([line["action"] for line in self.lines()], ["a", "b", "c"])
        self.assertEqual(self.threads.work, [])

    def test_disk_fails(self) -> None:
        """Where the disk fails the management call answers 503, until it works again."""
        self.path.mkdir(parents=True)
        audit = self.audit()
        refused = self.failureResultOf(audit.log(entry("a")), errors.StoreUnavailable)
        self.assertIn("audit", refused.value.message)
        self.path.rmdir()
        self.successResultOf(audit.log(entry("b")))
        self.assertEqual([line["action"] for line in self.lines()], ["b"])

    def test_disk_hangs(self) -> None:
        """Where the disk hangs, waiting has an end, and the number of those who wait has too."""
        audit = self.audit(self.threads, limit=2, patience=10.0)
        written = [audit.log(entry(action)) for action in "abc"]
        self.failureResultOf(audit.log(entry("d")), errors.StoreUnavailable)
        self.clock.advance(10.0)
        for one in written:
            self.failureResultOf(one, errors.StoreUnavailable)
        self.threads.run()
        self.threads.run()
        self.assertEqual([line["action"] for line in self.lines()], ["a", "b", "c"])

    def test_redacted(self) -> None:
        """A secret that found its way into an entry is masked."""
        audit = self.audit(redact=lambda text: text.replace("hunter2", "[redacted]"))
        self.successResultOf(audit.log(entry("a", details={"key": "hunter2"})))
        self.assertEqual(self.lines()[0]["details"], {"key": "[redacted]"})

    def test_stop(self) -> None:
        """Stopping waits for what is being written; afterwards nothing more is taken."""
        audit = self.audit(self.threads)
        written = audit.log(entry("a"))
        stopped = audit.stopService()
        self.failureResultOf(audit.log(entry("b")), errors.StoreUnavailable)
        self.threads.run()
        self.successResultOf(written)
        self.assertNoResult(stopped)
        self.threads.run()
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_while_the_disk_hangs(self) -> None:
        """A disk that hangs does not keep the process from ending."""
        audit = self.audit(self.threads, patience=10.0)
        written = audit.log(entry("a"))
        stopped = audit.stopService()
        self.clock.advance(10.0)
        self.failureResultOf(written, errors.StoreUnavailable)
        self.successResultOf(stopped)


class ThreadedAuditTests(TestCase):
    def test_many(self) -> Deferred[None]:
        """With real threads, whatever comes at once is written in order."""
        path = self.mktemp()
        audit = FileAudit(path, reactor, deferToThread)

        async def journey() -> None:
            for one in [audit.log(entry(str(n))) for n in range(200)]:
                await one
            await audit.stopService()
            await deferLater(reactor, 0)  # leave the queue of calls from threads, which trial's cleaning up works off
            actions = [json.loads(line)["action"] for line in Path(path).read_text().splitlines()]
            self.assertEqual(actions, [str(n) for n in range(200)])

        return Deferred.fromCoroutine(journey())


class NullAuditTests(SynchronousTestCase):
    def test_promise(self) -> None:
        """Done at once, and nothing is written."""
        audit = NullAudit()
        self.assertTrue(verifyObject(IAuditLogger, audit))
        self.successResultOf(audit.log(entry("a")))
