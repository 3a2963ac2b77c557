"""A deadline that moves."""

from __future__ import annotations

import weakref
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.wire.deadline import MAX_STALE_ENTRIES, Deadline, Deadlines, LateWatch


class DeadlineTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.expired: list[float] = []
        self.deadlines = Deadlines(self.clock)
        self.deadline = Deadline(self.deadlines, lambda: self.expired.append(self.clock.seconds()))

    def test_it_expires_once(self) -> None:
        self.deadline.set(5)
        self.clock.pump([1] * 20)
        self.assertEqual(self.expired, [5])

    def test_later(self) -> None:
        self.deadline.set(5)
        self.clock.advance(3)
        self.deadline.set(5)
        self.clock.pump([1] * 20)
        self.assertEqual(self.expired, [8])

    def test_sooner(self) -> None:
        self.deadline.set(50)
        self.deadline.set(5)
        self.clock.pump([1] * 60)
        self.assertEqual(self.expired, [5])

    def test_sooner_moves_no_timer(self) -> None:
        """Twisted looks through all timers for one that is to be moved forward: with many connections, for ever."""
        self.deadline.set(50)
        (first,) = self.clock.getDelayedCalls()
        self.deadline.set(5)
        (second,) = self.clock.getDelayedCalls()
        self.assertIsNot(first, second)

    def test_never(self) -> None:
        self.deadline.set(5)
        self.deadline.clear()
        self.clock.pump([1] * 20)
        self.assertEqual(self.expired, [])

    def test_setting_it_for_every_message_makes_one_timer(self) -> None:
        for _ in range(1000):
            self.deadline.set(75)
            self.deadline.clear()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_stopping_leaves_nothing_behind(self) -> None:
        self.deadline.set(5)
        self.deadline.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_is_over_is_let_go(self) -> None:
        """Although others go on to share its timer."""
        self.deadline.set(50)
        owner = Owner()
        over, gone = Deadline(self.deadlines, owner.expired), weakref.ref(owner)
        over.set(60)
        over.end()
        del owner
        self.assertIsNone(gone())
        self.clock.pump([10] * 10)
        self.assertEqual(self.expired, [50])


class Owner:
    """Somebody who waits."""

    def expired(self) -> None:
        raise AssertionError("It is over.")


ACT = st.tuples(st.sampled_from(("set", "clear", "stop", "pass")), st.integers(0, 4), st.integers(0, 30))


class DeadlinesTests(TestCase):
    """Several under one timer."""

    @given(st.lists(ACT, max_size=40))
    def test_each_is_exact(self, acts: list[tuple[str, int, int]]) -> None:
        """Whatever is set, cleared and stopped: each expires when the last time that was set has come, and only then;
        there is at most one timer, and none where all are stopped."""
        clock, expired, wanted = Clock(), list[tuple[int, float]](), dict[int, float]()
        deadlines = Deadlines(clock)
        each = [Deadline(deadlines, lambda n=n: expired.append((n, clock.seconds()))) for n in range(5)]
        expected = list[tuple[int, float]]()
        for act, number, seconds in [*acts, ("pass", 0, 100)]:
            if act == "set":
                each[number].set(seconds)
                wanted[number] = clock.seconds() + seconds
            elif act == "clear":
                each[number].clear()
                wanted.pop(number, None)
            elif act == "stop":
                each[number].stop()
                wanted.pop(number, None)
            else:
                for _ in range(seconds):
                    clock.advance(1)
                    over = sorted(n for n, at in wanted.items() if at <= clock.seconds())
                    expected += [(n, clock.seconds()) for n in over]
                    for n in over:
                        del wanted[n]
            self.assertLessEqual(len(clock.getDelayedCalls()), 1)
        self.assertEqual(sorted(expired), sorted(expected))
        for deadline in each:
            deadline.stop()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_those_that_are_gone_are_forgotten(self) -> None:
        """Connections that come and go leave nothing behind while others stay."""
        deadlines = Deadlines(Clock())
        Deadline(deadlines, lambda: None).set(75)
        for _ in range(10_000):
            gone = Deadline(deadlines, lambda: None)
            gone.set(75)
            gone.stop()
        self.assertLess(len(deadlines._heap), 2 * MAX_STALE_ENTRIES)

    def test_one_that_fails(self) -> None:
        """Is logged; the others come in time."""
        clock, expired, logged = Clock(), list[str](), list[dict[str, object]]()
        deadlines = Deadlines(clock)
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        Deadline(deadlines, lambda: 1 // 0 and None).set(5)
        Deadline(deadlines, lambda: expired.append("other")).set(5)
        clock.advance(5)
        self.assertEqual(expired, ["other"])
        self.assertTrue(any("log_failure" in event for event in logged))

    def test_set_where_it_expires(self) -> None:
        """It may be set again there."""
        clock, expired = Clock(), list[float]()
        deadlines = Deadlines(clock)

        def again() -> None:
            expired.append(clock.seconds())
            deadline.set(5)

        deadline = Deadline(deadlines, again)
        deadline.set(5)
        clock.pump([1] * 12)
        self.assertEqual(expired, [5, 10])


class Seen:
    """Something that may have to be watched: when it was."""

    def __init__(self, clock: Clock, fails: bool = False) -> None:
        self._clock = clock
        self._fails = fails
        self.at: list[float] = []

    def watch(self) -> None:
        self.at.append(self._clock.seconds())
        if self._fails:
            raise ValueError


class LateWatches(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.late = LateWatch(self.clock)

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.25] * round(seconds / 0.25))

    def test_what_is_over_soon_is_never_watched(self) -> None:
        """And leaves no timer behind."""
        seen = Seen(self.clock)
        self.late.add(seen)
        self.pass_time(0.75)
        self.late.discard(seen)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.late.discard(seen)
        self.pass_time(3.0)
        self.assertEqual(seen.at, [])

    def test_each_is_watched_once_a_second_after_it_was_added(self) -> None:
        """Or half a second later."""
        seen = [Seen(self.clock) for _ in range(9)]
        for each in seen:
            self.late.add(each)
            self.pass_time(0.25)
        self.pass_time(3.0)
        for number, each in enumerate(seen):
            (at,) = each.at
            self.assertTrue(1.0 <= at - number * 0.25 <= 1.5, at)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_time_that_passes_at_once(self) -> None:
        """A reactor that was held up is no reason to wait for longer."""
        seen = [Seen(self.clock), Seen(self.clock)]
        self.late.add(seen[0])
        self.clock.advance(0.5)
        self.late.add(seen[1])
        self.clock.advance(600.0)
        self.assertEqual([each.at for each in seen], [[600.5], [600.5]])

    def test_one_that_fails_takes_no_other_with_it(self) -> None:
        seen = [Seen(self.clock, fails=True), Seen(self.clock)]
        for each in seen:
            self.late.add(each)
        self.pass_time(2.0)
        self.assertEqual([len(each.at) for each in seen], [1, 1])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
