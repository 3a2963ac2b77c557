"""What goes on in the background: one error never ends it, and what fails is counted and shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from twisted.internet.defer import CancelledError, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from llmproxy.base.outage_log import OutageLog
from llmproxy.errors import ProxyError
from llmproxy.instruments import Counter, HealthCheck, Instrument

MAX_PAUSE_SECONDS = 10.0  # between two attempts of a loop that fails, unless its interval is longer
STUCK_SECONDS = 60.0  # after which a loop whose work has not come back counts as stuck


class Task:
    """One thing that goes on in the background, and how it does.

    @ivar name: By which metrics, readiness and the log call it.
    """

    _log = Logger(namespace="llmproxy.base.background")

    def __init__(self, name: str, clock: IReactorTime) -> None:
        self.name = name
        self._clock = clock
        self._failing = False
        self._outages: OutageLog[Failure | None] = OutageLog(clock, self._report)

    @property
    def failures(self) -> int:
        """How often it failed with an error that nobody had foreseen."""
        return self._outages.failures

    @property
    def state(self) -> str:
        """C{ok}, or C{failing} since its last attempt failed."""
        return "failing" if self._failing else "ok"

    def failed(self, failure: Failure | None = None) -> None:
        """It failed, with this or with the exception that is being handled. Never raises; an errback may be this."""
        self._failing = True
        self._outages.failed(failure)

    def _report(self, failure: Failure | None, count: int) -> None:
        failure = failure or Failure()
        if failure.check(ProxyError):  # such as a store that does not answer: where it happened says nothing
            self._log.warn(
                "{task} failed, and is tried again ({failures} failures so far): {error}",
                task=self.name,
                failures=self.failures,
                error=failure.getErrorMessage(),
            )
            return
        self._log.failure(
            "{task} failed, and is tried again ({failures} failures so far).",
            failure,
            task=self.name,
            failures=self.failures,
        )

    def worked(self) -> None:
        """It works, or works again."""
        if self._failing:
            self._failing = False
            self._log.info("{task} works again.", task=self.name)


class Loop(Task):
    """Does something every C{interval} seconds for as long as it is told to.

    Like Twisted's C{LoopingCall} it never overlaps with itself. Unlike it, an error does not end it: the pause before
    the next attempt is twice the one before, up to L{MAX_PAUSE_SECONDS}.
    """

    def __init__(self, name: str, work: Callable[[], Any], interval: float, clock: IReactorTime) -> None:
        """
        @param work: May return a Deferred or a coroutine, which is waited for.
        """
        super().__init__(name, clock)
        self.running = False
        self._work = work
        self._interval = interval
        self._timer: IDelayedCall | None = None
        self._begun: float | None = None
        self._in_a_row = 0

    @property
    def state(self) -> str:
        """C{ok}, C{failing}, or C{stuck} while its work has not come back for L{STUCK_SECONDS}."""
        stuck = self._begun is not None and self._clock.seconds() - self._begun >= STUCK_SECONDS
        return "stuck" if stuck else super().state

    def start(self, *, now: bool = False, after: float | None = None) -> None:
        """Begin at once, C{after} so many seconds, or after the first interval."""
        self.running = True
        if now:
            self._turn()
        else:
            self._later(self._interval if after is None else after)

    def stop(self) -> None:
        """Begin nothing more; what is under way goes on."""
        self.running = False
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _later(self, seconds: float) -> None:
        if self.running and self._timer is None and self._begun is None:
            self._timer = self._clock.callLater(seconds, self._turn)

    def _turn(self) -> None:
        self._timer = None
        self._begun = self._clock.seconds()
        maybeDeferred(self._work).addCallbacks(self._done, self._not_done)

    def _done(self, result: object) -> None:
        took = self._clock.seconds() - (self._begun or 0.0)
        self._begun = None
        self._in_a_row = 0
        self.worked()
        self._later(self._interval - took % self._interval)

    def _not_done(self, failure: Failure) -> None:
        self._begun = None
        if not self.running and failure.check(CancelledError):
            return
        self._in_a_row += 1
        self.failed(failure)
        longest = max(self._interval, MAX_PAUSE_SECONDS)
        self._later(min(self._interval * 2.0 ** min(self._in_a_row, 30), longest))


class BackgroundTasks:
    """Counts what fails in the background, and says which of it fails now."""

    def __init__(self) -> None:
        self._tasks: dict[str, list[Task]] = {}

    def add(self, part: object) -> None:
        """Watch what this part of the process does in the background: its attribute C{tasks}, if any."""
        for task in getattr(part, "tasks", ()):
            self._tasks.setdefault(task.name, []).append(task)

    @property
    def state(self) -> str:
        """C{ok}, or the tasks that are not, each with how it does."""
        wrong = {f"{task.name} {task.state}" for tasks in self._tasks.values() for task in tasks if task.state != "ok"}
        return ", ".join(sorted(wrong)) or "ok"

    @property
    def failures(self) -> Mapping[str, int]:
        """Errors that nobody had foreseen, by the task's name."""
        return {name: sum(task.failures for task in self._tasks[name]) for name in sorted(self._tasks)}

    def instruments(self) -> Iterator[Instrument]:
        yield Counter(
            "background_failures",
            "Errors that work in the background did not foresee.",
            lambda: self.failures,
            "task",
        )

    def health_checks(self) -> Iterator[HealthCheck]:
        yield HealthCheck("background", lambda: self.state)
