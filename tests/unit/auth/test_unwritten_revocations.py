"""What is revoked is refused here at once, whether the store can take it or not."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.auth.unwritten_revocations import UnwrittenRevocations
from llmproxy.errors import NotFound, StoreUnavailable
from llmproxy.errors.management import RevocationNotStored


class Doors:
    """Remembers what is refused."""

    def __init__(self) -> None:
        self.blocked: set[tuple[str, str]] = set()

    def block(self, kind: str, name: str) -> None:
        self.blocked.add((kind, name))

    def unblock(self, kind: str, name: str) -> None:
        self.blocked.discard((kind, name))


class UnwrittenRevocationsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.doors = Doors()
        self.written: list[str] = []
        self.failing: Exception | None = StoreUnavailable(reason="disk full")
        self.unwritten = self.made()
        self.unwritten.startService()

    def made(self, **more: Any) -> UnwrittenRevocations:
        writes: Any = {"token": self.write, "project": self.write}
        return UnwrittenRevocations(self.doors, writes, self.clock, nullcontext, **more)

    def write(self, name: str) -> Deferred[None]:
        if self.failing is not None:
            raise self.failing
        self.written.append(name)
        return succeed(None)

    def revoke(self, name: str = "t", kind: Any = "token") -> Deferred[None]:
        async def revoke() -> None:
            async with self.unwritten.in_force(kind, name):
                self.assertIn((kind, name), self.doors.blocked)
                await self.write(name)

        return Deferred.fromCoroutine(revoke())

    def test_stored_at_once(self) -> None:
        """Then the store has the last word, and nothing is left to do."""
        self.failing = None
        self.successResultOf(self.revoke())
        self.assertEqual((self.doors.blocked, len(self.unwritten), self.unwritten.state), (set(), 0, "ok"))

    def test_not_stored(self) -> None:
        """It is in force, that is said with the reason, and it is tried again every second until it is stored."""
        error = self.failureResultOf(self.revoke(), RevocationNotStored).value
        self.assertEqual((error.status, error.reason), (503, "disk full"))
        self.assertIn("In force here, not stored", error.message)
        self.assertIn("disk full", error.message)
        self.assertEqual(self.unwritten.state, "1 in force here, not stored")
        self.clock.advance(1)
        self.clock.advance(1)
        self.assertEqual(self.doors.blocked, {("token", "t")})
        self.failing = None
        self.clock.advance(1)
        self.assertEqual((self.written, self.doors.blocked, self.unwritten.state), (["t"], set(), "ok"))

    def test_asked_for_again(self) -> None:
        """The same once more is still one; one that the store takes in the end is over."""
        for _ in range(2):
            self.failureResultOf(self.revoke(), RevocationNotStored)
        self.assertEqual(len(self.unwritten), 1)
        self.failing = None
        self.successResultOf(self.revoke())
        self.assertEqual((len(self.unwritten), self.doors.blocked), (0, set()))

    def test_what_is_not_there(self) -> None:
        """Is refused to nobody, whether that is known at once or later."""
        self.failureResultOf(self.revoke(), RevocationNotStored)
        self.failing = NotFound()
        self.failureResultOf(self.revoke("u"), NotFound)
        self.assertEqual(self.doors.blocked, {("token", "t")})
        self.clock.advance(1)
        self.assertEqual((len(self.unwritten), self.doors.blocked), (0, set()))

    def test_made_active_again(self) -> None:
        """A project that was deactivated and is active again is not deactivated later."""
        self.failureResultOf(self.revoke("p", "project"), RevocationNotStored)
        self.unwritten.withdraw("project", "p")
        self.failing = None
        self.clock.advance(2)
        self.assertEqual((self.written, self.doors.blocked), ([], set()))

    def test_too_many(self) -> None:
        """Beyond the bound it is not in force, and that is not said."""
        self.unwritten = self.made(limit=1)
        self.failureResultOf(self.revoke("t"), RevocationNotStored)
        error = self.failureResultOf(self.revoke("u"), StoreUnavailable).value
        self.assertNotIsInstance(error, RevocationNotStored)
        self.assertEqual(self.doors.blocked, {("token", "t")})

    def test_an_error_that_nobody_foresaw(self) -> None:
        """Is counted, and does not end the attempts."""
        self.failureResultOf(self.revoke(), RevocationNotStored)
        self.failing = ZeroDivisionError()
        self.clock.advance(1)
        self.assertEqual(self.unwritten.tasks[0].failures, 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.failing = None
        self.clock.advance(2)
        self.assertEqual(self.written, ["t"])

    def test_stopping(self) -> None:
        """What was never stored is named in the log."""
        self.failureResultOf(self.revoke(), RevocationNotStored)
        self.unwritten.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
