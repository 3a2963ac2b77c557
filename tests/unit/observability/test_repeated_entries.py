"""However often the same is refused, the audit log has two entries a minute of it, and the number."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from llmproxy.interfaces import IAuditLogger
from llmproxy.model import AuditEntry
from llmproxy.observability.repeated_entries import RepeatedEntries
from tests.support.fakes import MemoryAudit


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.audit = MemoryAudit()
        self.repeated = RepeatedEntries(self.audit, self.clock, keys=5)

    def entry(self, token: str = "t", code: str = "project_inactive", **more: Any) -> AuditEntry:
        at = self.clock.seconds()
        given: dict[str, Any] = {"outcome": "denied", "project_id": "p", "client": "192.0.2.1", **more}
        return AuditEntry(at, "request.refused", f"token:{token}", token_id=token, details={"code": code}, **given)

    def log(self, *args: Any, **more: Any) -> None:
        self.assertIsNone(self.successResultOf(self.repeated.log(self.entry(*args, **more))))

    def written(self) -> list[tuple[str, float, object]]:
        return [(entry.token_id, entry.at, entry.details.get("count")) for entry in self.audit.entries]


class RepeatedEntriesTests(Case):
    def test_provides_its_interface(self) -> None:
        verifyObject(IAuditLogger, self.repeated)

    def test_once_a_minute_with_a_count(self) -> None:
        """The first at once, the others at the minute's end as the last of them; then it begins anew."""
        for _ in range(100):
            self.log()
            self.clock.advance(0.5)
        self.assertEqual(self.written(), [("t", 0, None)])
        self.clock.advance(10)
        self.assertEqual(self.written(), [("t", 0, None), ("t", 49.5, 99)])
        self.assertEqual(self.audit.entries[1].details, {"code": "project_inactive", "count": 99})
        self.log()
        self.assertEqual(self.written()[2:], [("t", 60, None)])
        self.clock.advance(300)
        self.assertEqual(len(self.audit.entries), 3)

    def test_what_is_of_another_kind(self) -> None:
        """Another token, another reason, and without a token another client have entries of their own."""
        self.log()
        self.log("u")
        self.log("t", "token_inactive")
        self.log("", client="192.0.2.1")
        self.log("", client="192.0.2.2")
        self.log(client="192.0.2.9")
        self.assertEqual(len(self.audit.entries), 5)
        self.clock.advance(60)
        self.assertEqual(self.written()[5:], [("t", 0, 1)])

    def test_each_minute_ends_for_itself(self) -> None:
        for token in ("t", "u", "v"):
            self.log(token)
            self.log(token)
            self.clock.advance(20)
        self.assertEqual(self.written()[3:], [("t", 0, 1)])
        self.clock.advance(20)
        self.assertEqual(self.written()[4:], [("u", 20, 1)])
        self.clock.advance(20)
        self.assertEqual(self.written()[5:], [("v", 40, 1)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_more_kinds_than_are_remembered(self) -> None:
        """Further ones are counted together, by what was refused; nobody is named there."""
        for n in range(1000):
            self.log(f"t{n}")
        self.assertEqual(len(self.audit.entries), 6)
        self.assertEqual((self.audit.entries[5].actor, self.audit.entries[5].token_id), ("various", ""))
        self.clock.advance(60)
        self.assertEqual(self.written()[6:], [("", 0, 994)])

    def test_stopping(self) -> None:
        """Writes what was counted, and then everything as it comes."""
        self.log()
        self.log()
        self.log()
        self.successResultOf(self.repeated.stopService())
        self.assertEqual(self.written(), [("t", 0, None), ("t", 0, 2)])
        self.log()
        self.log()
        self.assertEqual(len(self.audit.entries), 4)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_audit_log_fails(self) -> None:
        """Whoever begins a minute hears it, and so does the next; what was only counted is told of in the log."""
        self.audit.failing = OSError("disk full")
        for _ in range(2):
            self.failureResultOf(self.repeated.log(self.entry()), OSError)
        self.audit.failing = None
        self.log()
        self.log()
        self.audit.failing = OSError("disk full")
        self.clock.advance(60)
        self.assertEqual((self.written(), self.repeated.lost), ([("t", 0, None)], 1))

    def test_counted_while_the_first_could_not_be_written(self) -> None:
        """They are due at once."""
        waiting: list[Deferred[None]] = []
        self.audit.log = lambda entry: waiting.append(Deferred()) or waiting[-1]  # type: ignore[func-returns-value,method-assign,return-value]
        first = self.repeated.log(self.entry())
        self.log()
        self.log()
        del self.audit.log  # type: ignore[method-assign]
        waiting[0].errback(OSError("disk full"))
        self.failureResultOf(first, OSError)
        self.assertEqual(self.written(), [("t", 0, 2)])
        self.log()
        self.assertEqual(self.written()[1:], [("t", 0, None)])
