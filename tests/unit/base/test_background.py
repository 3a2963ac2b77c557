"""Work in the background that fails, and goes on."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.base.background import MAX_PAUSE_SECONDS, STUCK_SECONDS, BackgroundTasks, Loop, Task
from llmproxy.base.outage_log import INTERVAL_SECONDS
from llmproxy.errors import StoreUnavailable


class LoopTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.begun: list[float] = []
        self.answer: Any = lambda: succeed(None)
        self.loop = Loop("sweep", self.work, 2.0, self.clock)

    def work(self) -> Any:
        self.begun.append(self.clock.seconds())
        return self.answer()

    def advance(self, seconds: float) -> None:
        self.clock.pump([0.5] * int(seconds * 2))

    def test_regular(self) -> None:
        """It begins once an interval, at once where it is told to, and not any more after it was stopped."""
        self.loop.start(now=True)
        self.advance(6)
        self.loop.stop()
        self.advance(6)
        self.assertEqual(self.begun, [0, 2, 4, 6])
        self.assertEqual((self.loop.state, self.loop.failures, self.clock.calls), ("ok", 0, []))

    def test_slow_work(self) -> None:
        """It never overlaps, and comes back to its rhythm."""
        under_way: Deferred[None] = Deferred()
        self.answer = lambda: under_way
        self.loop.start()
        self.advance(7)
        self.assertEqual(self.begun, [2])
        self.answer = lambda: None
        under_way.callback(None)
        self.advance(3)
        self.assertEqual(self.begun, [2, 8, 10])

    def test_errors_do_not_end_it(self) -> None:
        """Whether it raises or fails later; pauses grow, up to a bound, and are short again once it works."""

        def raising() -> None:
            raise ZeroDivisionError

        self.answer = raising
        self.loop.start()
        self.advance(20)
        self.answer = lambda: fail(KeyError("x"))
        self.advance(30)
        self.assertEqual(self.begun, [2, 6, 14, 24, 34, 44])
        self.assertLessEqual(max(b - a for a, b in zip(self.begun, self.begun[1:], strict=False)), MAX_PAUSE_SECONDS)
        self.assertEqual((self.loop.failures, self.loop.state), (6, "failing"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError, KeyError)), 1)  # within one minute
        self.answer = lambda: None
        self.advance(8)
        self.assertEqual((self.begun[-3:], self.loop.state), ([54, 56, 58], "ok"))

    def test_said_again_after_a_minute(self) -> None:
        """What still fails stays in the log, without filling it."""
        self.answer = lambda: fail(KeyError("x"))
        self.loop.start()
        self.advance(2 * INTERVAL_SECONDS + 5)
        self.assertIn(len(self.flushLoggedErrors(KeyError)), (2, 3))

    def test_stuck(self) -> None:
        """Work that does not come back is shown."""
        self.answer = Deferred
        self.loop.start(now=True)
        self.assertEqual(self.loop.state, "ok")
        self.advance(STUCK_SECONDS)
        self.assertEqual(self.loop.state, "stuck")

    def test_stopped_while_it_works(self) -> None:
        """What is under way may end; nothing is begun any more."""
        under_way: Deferred[None] = Deferred()
        self.answer = lambda: under_way
        self.loop.start(now=True)
        self.loop.stop()
        under_way.cancel()
        self.advance(10)
        self.assertEqual((self.begun, self.loop.failures), ([0], 0))


class TaskTests(SynchronousTestCase):
    def test_as_an_errback(self) -> None:
        """What fails is counted and goes no further."""
        task = Task("ledger", Clock())
        failed: Deferred[None] = fail(KeyError("x"))
        failed.addErrback(task.failed)
        self.assertIsNone(self.successResultOf(failed))
        self.assertEqual((task.failures, task.state), (1, "failing"))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        task.worked()
        self.assertEqual((task.failures, task.state), (1, "ok"))

    def test_what_was_foreseen_has_no_traceback(self) -> None:
        """A store that does not answer is no fault of the program: one sentence, and counted like any other."""
        said: list[Any] = []
        globalLogPublisher.addObserver(said.append)
        self.addCleanup(globalLogPublisher.removeObserver, said.append)
        task = Task("secrets", Clock())
        task.failed(Failure(StoreUnavailable()))
        self.assertEqual((task.failures, task.state), (1, "failing"))
        (event,) = (event for event in said if event.get("task") == "secrets")
        self.assertNotIn("log_failure", event)
        self.assertIn(str(StoreUnavailable()), formatEvent(event))


class BackgroundTasksTests(SynchronousTestCase):
    def test_services(self) -> None:
        """Failures are summed by the task's name, those that fail now are named; parts without tasks are let alone."""
        clock = Clock()

        class Busy:
            tasks = (Task("b", clock), Task("a", clock))

        class Other:
            tasks = (Task("a", clock),)

        background, busy, other = BackgroundTasks(), Busy(), Other()
        for part in (object(), busy, other, None):
            background.add(part)
        self.assertEqual((background.state, background.failures), ("ok", {"a": 0, "b": 0}))
        for task in (busy.tasks[1], other.tasks[0]):
            task.failed(Failure(KeyError("x")))
        self.assertEqual((background.state, background.failures), ("a failing", {"a": 2, "b": 0}))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 2)
        [counter] = background.instruments()
        self.assertEqual(
            (counter.name, counter.label, counter.read()), ("background_failures", "task", {"a": 2, "b": 0})
        )
        [check] = background.health_checks()
        self.assertEqual((check.name, check.read(), check.required), ("background", "a failing", False))
