"""Entries in the file and in the store, and what happens while the store is down."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.errors import StoreUnavailable
from llmproxy.model import AuditEntry
from llmproxy.observability.stored_audit import (
    FIRST_PURGE_SECONDS,
    MAX_WAITING_ENTRIES,
    PATIENCE_SECONDS,
    PURGE_SECONDS,
    RETRY_SECONDS,
    StoredAudit,
)
from tests.support.fakes import MemoryAudit


class MemoryRows:
    """Keeps rows; C{down} while it keeps none."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.down = self.hangs = False
        self.purged: list[float] = []

    def append(self, entries: list[tuple[float, str]], *, again: bool = False) -> Deferred[None]:
        if self.hangs:
            return Deferred()
        if self.down:
            return fail(StoreUnavailable())
        self.rows += [json.loads(text) for _, text in entries]
        return succeed(None)

    def purge(self, before: float) -> Deferred[int]:
        self.purged.append(before)
        return succeed(0)


class StoredAuditTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.file = MemoryAudit()
        self.rows = MemoryRows()

    def audit(self, file: MemoryAudit | None, **more: Any) -> StoredAudit:
        audit = StoredAudit(file, self.rows, self.clock, self.clock.seconds, **more)
        audit.startService()
        return audit

    def log(self, audit: StoredAudit, action: str) -> Deferred[None]:
        return audit.log(AuditEntry(1.0, action, "management"))

    def test_both(self) -> None:
        audit = self.audit(self.file, redact=lambda text: text.replace("secret", "[redacted]"))
        self.successResultOf(self.log(audit, "secret"))
        self.assertEqual((self.file.entries[0].action, self.rows.rows[0]["action"]), ("secret", "[redacted]"))

    def test_while_the_store_is_down(self) -> None:
        """The file has it, and nobody waits; the store gets it later, in order; it is told how many wait."""
        audit = self.audit(self.file)
        (check,) = audit.health_checks()
        self.rows.down = True
        for action in "ab":
            self.successResultOf(self.log(audit, action))
        self.assertEqual(check.read(), "2 entries wait")
        self.rows.down = False
        self.successResultOf(self.log(audit, "c"))
        self.clock.advance(RETRY_SECONDS)
        self.assertEqual([row["action"] for row in self.rows.rows], ["a", "b", "c"])
        self.assertEqual(check.read(), "ok")

    def test_while_the_store_hangs(self) -> None:
        """Whoever revokes does not wait for a store that is locked: a second at most, and then not at all."""
        audit = self.audit(self.file)
        self.rows.hangs = True
        first = self.log(audit, "a")
        self.assertNoResult(first)
        self.clock.advance(PATIENCE_SECONDS)
        self.successResultOf(first)
        self.successResultOf(self.log(audit, "b"))
        self.rows.hangs = False
        self.clock.advance(RETRY_SECONDS)
        self.assertEqual([row["action"] for row in self.rows.rows], ["a", "b"])

    def test_too_many_wait(self) -> None:
        audit = self.audit(self.file)
        self.rows.down = True
        for _ in range(MAX_WAITING_ENTRIES + 2):
            self.log(audit, "a")
        (counter,) = audit.instruments()
        self.assertEqual(counter.read(), 2)

    def test_without_a_file(self) -> None:
        """The store must take it at once."""
        audit = self.audit(None)
        self.successResultOf(self.log(audit, "a"))
        self.rows.down = True
        self.failureResultOf(self.log(audit, "b"), StoreUnavailable)

    def test_a_file_that_fails(self) -> None:
        """Then it is written nowhere."""
        self.file.failing = StoreUnavailable()
        self.failureResultOf(self.log(self.audit(self.file), "a"), StoreUnavailable)
        self.assertEqual(self.rows.rows, [])

    def test_stop(self) -> None:
        """What waits is stored if it can be."""
        audit = self.audit(self.file)
        self.rows.down = True
        self.log(audit, "a")
        self.rows.down = False
        self.successResultOf(audit.stopService())
        self.assertEqual(len(self.rows.rows), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_retention(self) -> None:
        """Soon after the start, and then each hour."""
        self.audit(self.file, keep=100.0)
        self.clock.advance(FIRST_PURGE_SECONDS)
        self.clock.advance(PURGE_SECONDS)
        self.assertEqual(self.rows.purged, [FIRST_PURGE_SECONDS - 100.0, FIRST_PURGE_SECONDS + PURGE_SECONDS - 100.0])
