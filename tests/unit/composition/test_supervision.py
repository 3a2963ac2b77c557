"""What workers have counted is counted once, whatever they do while others are waited for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.composition.supervision import WorkerMetrics
from llmproxy.instruments import Counter
from llmproxy.observability.metrics import Metrics
from llmproxy.observability.metrics_of_workers import State, state_of
from llmproxy.process.supervisor import Supervisor
from llmproxy.process.worker_process import WorkerProcess


def counted(number: int) -> State:
    metrics = Metrics()
    metrics.add(Counter("lines", "Lines.", lambda: float(number)))
    return state_of(metrics)


def worker(name: str, state: str) -> WorkerProcess:
    process = WorkerProcess(Clock(), int(name[0]), name, lambda *of: None, lambda ended: None)
    process.state = state
    return process


class WorkerMetricsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.answers: Deferred[list[tuple[WorkerProcess, State]]] = Deferred()
        supervisor: Any = SimpleNamespace(
            ask_processes=lambda name, but: self.answers,
            terms=SimpleNamespace(workers=1),
            serving=1,
            problem="",
            roll_failures=0,
            restarts=0,
        )
        self.metrics = WorkerMetrics(cast(Supervisor, supervisor))
        self.old, self.new = worker("1.1", "draining"), worker("1.2", "ready")

    def end(self) -> None:
        self.old.state = "ended"
        self.metrics.end(self.old)

    def asked(self) -> Deferred[State]:
        """The new worker is scraped, and the old one is asked for what it has counted."""
        self.answers = Deferred()
        return Deferred.fromCoroutine(self.metrics.others(self.new, counted(0)))

    def lines(self, asked: Deferred[State], *answers: tuple[WorkerProcess, State]) -> float:
        self.answers.callback(list(answers))
        found = self.successResultOf(asked)["instruments"]
        return sum(float(reading) for name, *_, reading in found if name == "lines")

    def test_it_ends(self) -> None:
        self.metrics.note(self.old, counted(9))
        self.end()
        self.assertEqual(self.lines(self.asked()), 9)

    def test_it_ends_while_others_are_waited_for(self) -> None:
        """Its answer has come before its end, and is read behind it."""
        asked = self.asked()
        self.metrics.note(self.old, counted(9))
        self.end()
        self.assertEqual(self.lines(asked, (self.old, counted(7))), 9)
        self.assertEqual(self.lines(self.asked()), 9)

    def test_it_is_about_to_end_while_others_are_waited_for(self) -> None:
        """What it counted last is not undone by what it had answered before."""
        asked = self.asked()
        self.metrics.note(self.old, counted(9))
        self.assertEqual(self.lines(asked, (self.old, counted(7))), 9)
        self.end()
        self.assertEqual(self.lines(self.asked()), 9)

    def test_it_is_heard_after_its_end(self) -> None:
        self.assertEqual(self.lines(self.asked(), (self.old, counted(7))), 7)
        self.end()
        self.metrics.note(self.old, counted(9))
        self.assertEqual(self.lines(self.asked()), 7)
