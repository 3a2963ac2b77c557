"""One call for many: who waits, who leaves, and how much is held; what is waited for is of no interest here."""

from __future__ import annotations

import contextlib
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.caching.collapsing import CollapsedRequest, InFlight
from llmproxy.wire.buffers import Buffers


class Failed(Exception):
    pass


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.buffers = Buffers(1000)
        self.in_flight: InFlight[str, str] = InFlight(100, 150, self.buffers, max_waiters=3)
        self.calling: Deferred[None] = Deferred()
        self.call = CollapsedRequest("k", "leader", self.in_flight)
        self.in_flight.register(self.call)
        self.leading = Deferred.fromCoroutine(self.call.lead(self.wait()))
        self.leading.addErrback(lambda failure: failure)

    async def wait(self) -> None:
        with contextlib.suppress(CancelledError):
            await self.calling

    def join(self, name: str) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.call.join(name))

    def shout(self, waiter: str) -> str | None:
        return None if waiter == "picky" else waiter.upper()


class Waiting(Case):
    def test_all_are_served(self) -> None:
        """Each with his own, and one who gets none makes a call of his own."""
        joined, picky = self.join("b"), self.join("picky")
        self.call.settle(self.shout)
        self.assertEqual(self.successResultOf(self.leading), "LEADER")
        self.assertEqual((self.successResultOf(joined), self.successResultOf(picky)), ("B", None))
        self.assertIsNone(self.in_flight.get("k"))

    def test_the_failure_of_the_provider(self) -> None:
        """It is everybody's, each with an exception of his own."""
        joined = self.join("b")
        self.call.fail(error := Failed("down"), for_all=True)
        self.assertIs(self.failureResultOf(self.leading, Failed).value, error)
        self.assertIsNot(self.failureResultOf(joined, Failed).value, error)

    def test_a_failure_of_the_leader_alone(self) -> None:
        """The others find out for themselves."""
        joined = self.join("b")
        self.call.fail(Failed("no tokens left"), for_all=False)
        self.failureResultOf(self.leading, Failed)
        self.assertIsNone(self.successResultOf(joined))

    def test_the_leader_leaves(self) -> None:
        """The call goes on for the other, and is the leader's until it is over."""
        joined = self.join("b")
        self.leading.cancel()
        self.assertNoResult(self.leading)
        self.assertFalse(self.calling.called)
        self.call.settle(self.shout)
        self.failureResultOf(self.leading, CancelledError)
        self.assertEqual(self.successResultOf(joined), "B")

    def test_the_last_one_leaves(self) -> None:
        """Then nobody wants the response."""
        joined = self.join("b")
        joined.cancel()
        self.failureResultOf(joined, CancelledError)
        self.assertFalse(self.calling.called)
        self.leading.cancel()
        self.assertTrue(self.calling.called)
        self.call.close()
        self.failureResultOf(self.leading, CancelledError)

    def test_joining_what_is_shared(self) -> None:
        """One who comes while the body arrives is served at once."""
        order: list[str] = []
        self.call.share(self.shout, lambda: order.append("begun" if not self.leading.called else "late"))
        self.assertEqual((order, self.successResultOf(self.leading)), (["begun"], "LEADER"))
        self.assertEqual(self.successResultOf(self.join("c")), "C")
        self.assertIs(self.in_flight.get("k"), self.call)

    def test_no_more_than_may_wait(self) -> None:
        """Who comes then makes a call of his own."""
        joined = [self.join(name) for name in "bcd"]
        self.assertIsNone(self.successResultOf(joined.pop()))
        self.call.settle(self.shout)
        self.assertEqual([self.successResultOf(each) for each in joined], ["B", "C"])

    def test_nothing_is_to_be_stored(self) -> None:
        """What is purged while it is in flight is joined by nobody."""
        self.in_flight.forbid_storing("other")
        self.assertTrue(self.call.storable)
        self.in_flight.forbid_storing("k")
        self.assertEqual((self.call.storable, len(self.in_flight)), (False, 0))

    def test_waiting_for_the_end(self) -> None:
        """Whoever waits for it is not sent away before."""
        closed = Deferred.fromCoroutine(self.call.wait_closed())
        closed.cancel()
        self.assertNoResult(closed)
        self.call.complete()
        self.successResultOf(closed)
        self.assertIn("k", self.in_flight)
        self.call.close()
        self.assertNotIn("k", self.in_flight)

    def test_a_call_beside_it(self) -> None:
        """One that nobody can join does not take the place of one that others can."""
        other = CollapsedRequest("k", "d", self.in_flight)
        self.in_flight.register(other)
        other.close()
        self.assertIs(self.in_flight.get("k"), self.call)


class Holding(Case):
    def test_bounds(self) -> None:
        """Of one response, of all, and of everything in this process."""
        other = CollapsedRequest("l", "d", self.in_flight)
        self.assertEqual([self.call.hold(100), self.call.hold(1)], [True, False])
        self.call.release()
        self.assertEqual(self.in_flight.buffered, 0)
        self.assertEqual([self.call.hold(90), other.hold(60), other.hold(1)], [True, True, False])
        self.call.close()
        self.buffers.hold(2000)
        self.assertFalse(other.hold(1))
        other.close()
        self.assertEqual(self.in_flight.buffered, 0)
