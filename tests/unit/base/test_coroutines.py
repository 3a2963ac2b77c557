from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.base.coroutines import FairLock, Pause, as_deferred, deferred, within


class Late(Exception):
    """What the end of a wait means."""


class DeferredMethods(SynchronousTestCase):
    def test_what_comes_of_them(self) -> None:
        """A coroutine's value or exception is the Deferred's; its name stays."""

        @deferred
        async def halve(number: int) -> float:
            """In two."""
            return number / 2 if number else 1 / 0

        self.assertEqual(self.successResultOf(halve(3)), 1.5)
        self.failureResultOf(halve(0), ZeroDivisionError)
        self.assertEqual((halve.__name__, halve.__doc__), ("halve", "In two."))

    def test_they_begin_at_once(self) -> None:
        begun = []

        @deferred
        async def begin() -> None:
            begun.append(True)
            await Deferred()

        self.assertNoResult(begin())
        self.assertEqual(begun, [True])


class Within(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.cancelled: list[bool] = []

    def waiting(self) -> Deferred[str]:
        return Deferred(lambda _: self.cancelled.append(True))

    def wait(self, waiting: Deferred[str], seconds: float = 5.0) -> Deferred[str]:
        return Deferred.fromCoroutine(within(seconds, self.clock, waiting, Late()))

    def assert_no_timer(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_in_time(self) -> None:
        waiting = self.waiting()
        got = self.wait(waiting)
        self.clock.advance(4.9)
        waiting.callback("there")
        self.assertEqual(self.successResultOf(got), "there")
        self.assert_no_timer()

    def test_too_late(self) -> None:
        """What was waited for is cancelled, and the error is ours, at the very moment."""
        got = self.wait(self.waiting())
        self.clock.advance(4.9)
        self.assertNoResult(got)
        self.clock.advance(0.1)
        self.failureResultOf(got, Late)
        self.assertEqual(self.cancelled, [True])
        self.assert_no_timer()

    def test_a_canceller_with_an_error_of_its_own(self) -> None:
        """Ours stands all the same, with that one as its cause."""
        got = self.wait(Deferred(lambda d: d.errback(OSError("mine"))))
        self.clock.advance(5)
        late = self.failureResultOf(got, Late).value
        self.assertIsInstance(late.__cause__, OSError)

    def test_a_canceller_that_has_a_result(self) -> None:
        got = self.wait(Deferred(lambda d: d.callback("just")))
        self.clock.advance(5)
        self.assertEqual(self.successResultOf(got), "just")

    def test_another_failure(self) -> None:
        waiting = self.waiting()
        got = self.wait(waiting)
        waiting.errback(KeyError())
        self.failureResultOf(got, KeyError)
        self.assert_no_timer()

    def test_given_up_from_outside(self) -> None:
        """Is no lateness."""
        got = self.wait(self.waiting())
        got.cancel()
        self.failureResultOf(got, CancelledError)
        self.assertEqual(self.cancelled, [True])
        self.assert_no_timer()

    def test_no_limit(self) -> None:
        got = self.wait(self.waiting(), seconds=0)
        self.assert_no_timer()
        self.assertNoResult(got)

    def test_what_is_there_already(self) -> None:
        """Needs no timer."""
        self.assertEqual(self.successResultOf(self.wait(succeed("there"))), "there")
        self.assert_no_timer()


class Soon(SynchronousTestCase):
    def test_a_deferred(self) -> None:
        """Is itself."""
        waiting: Deferred[int] = Deferred()
        self.assertIs(as_deferred(waiting), waiting)

    def test_a_coroutine(self) -> None:
        async def three() -> int:
            return 3

        self.assertEqual(self.successResultOf(as_deferred(three())), 3)


class Pauses(SynchronousTestCase):
    def test_time_passes(self) -> None:
        clock = Clock()
        waiting = Deferred.fromCoroutine(Pause(clock).wait(2.0))
        clock.advance(1.9)
        self.assertNoResult(waiting)
        clock.advance(0.1)
        self.successResultOf(waiting)

    def test_it_is_ended(self) -> None:
        """Then nothing is left behind, and it can be used again; nobody has to be waiting."""
        clock = Clock()
        pause = Pause(clock)
        pause.end()
        for _ in range(2):
            waiting = Deferred.fromCoroutine(pause.wait(2.0))
            pause.end()
            self.successResultOf(waiting)
            self.assertEqual(clock.getDelayedCalls(), [])


class Locks(SynchronousTestCase):
    """One at a time, in order."""

    def setUp(self) -> None:
        self.lock = FairLock()
        self.done: list[int] = []

    async def work(self, number: int, until: Deferred[None] | None = None) -> None:
        await self.lock.acquire()
        try:
            if until is not None:
                await until
            self.done.append(number)
        finally:
            self.lock.release()

    def test_thousands_whose_work_ends_at_once(self) -> None:
        """Python's stack is no limit to how many may wait; C{DeferredLock} ends at some ninety, and stays taken."""
        first: Deferred[None] = Deferred()
        working = [Deferred.fromCoroutine(self.work(0, first))]
        working += [Deferred.fromCoroutine(self.work(number)) for number in range(1, 5000)]
        self.assertEqual(self.done, [])
        first.callback(None)
        for each in working:
            self.successResultOf(each)
        self.assertEqual(self.done, list(range(5000)))
        self.assertFalse(self.lock.locked)

    def test_one_that_takes_its_time_holds_up_the_others(self) -> None:
        first, second = Deferred[None](), Deferred[None]()
        for number, until in enumerate((first, second, None)):
            Deferred.fromCoroutine(self.work(number, until))
        first.callback(None)
        self.assertEqual((self.done, self.lock.locked), ([0], True))
        second.callback(None)
        self.assertEqual((self.done, self.lock.locked), ([0, 1, 2], False))

    def test_who_leaves_is_passed_over(self) -> None:
        held = self.lock.acquire()
        leaving, staying = self.lock.acquire(), self.lock.acquire()
        leaving.cancel()
        self.failureResultOf(leaving, CancelledError)
        self.successResultOf(held)
        self.lock.release()
        self.successResultOf(staying)

    def test_a_wait_has_an_end(self) -> None:
        clock = Clock()
        self.successResultOf(self.lock.acquire())

        async def hold() -> None:
            async with self.lock.within(5.0, clock, Late()):
                self.done.append(1)

        waiting, patient = Deferred.fromCoroutine(hold()), self.lock.acquire()
        clock.advance(5)
        self.failureResultOf(waiting, Late)
        self.lock.release()
        self.successResultOf(patient)
        again = Deferred.fromCoroutine(hold())
        self.lock.release()
        self.successResultOf(again)
        self.assertEqual((self.done, self.lock.locked, clock.getDelayedCalls()), ([1], False, []))
