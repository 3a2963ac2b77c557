from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from llmproxy import errors
from llmproxy.config.upstream_settings import CircuitBreaker
from llmproxy.upstream.circuits import Circuits


def unreachable(*, nothing_sent: bool = True) -> errors.UpstreamUnreachable:
    error = errors.UpstreamUnreachable()
    error.nothing_sent = nothing_sent
    return error


class Breakers(SynchronousTestCase):
    """What counts for everybody, what for one project, and what for nobody."""

    def setUp(self) -> None:
        self.circuits = Circuits(CircuitBreaker(failures=2, cooldown=10.0), size=3)

    def responded(self, status: int, project: str = "p") -> None:
        self.circuits.enter(project, 0.0).responded(status, 0.0)

    def failed(self, error: BaseException, project: str = "p") -> None:
        self.circuits.enter(project, 0.0).failed(error, 0.0)

    def assert_open(self, *projects: str, now: float = 0.0) -> None:
        for project in ("p", "q"):
            if project in projects:
                error = self.assertRaises(errors.CircuitOpen, self.circuits.enter, project, now)
                self.assertEqual(error.retry_after, 10.0 - now)
            else:
                self.circuits.enter(project, now).failed(CancelledError(), now)

    def test_unreachable(self) -> None:
        """Counts for everybody, whoever asked."""
        self.failed(unreachable(), "p")
        self.assert_open()
        self.failed(unreachable(), "q")
        self.assertEqual(self.circuits.state, "open")
        self.assert_open("p", "q", now=4.0)

    def test_answers_that_say_failure(self) -> None:
        for status in (500, 502, 503, 504):
            self.setUp()
            for _ in range(2):
                self.responded(status)
            self.assert_open("p")
            self.assertEqual(self.circuits.state, "closed")

    def test_answers_that_do_not(self) -> None:
        for status in (200, 400, 401, 403, 404, 408, 429, 501, 529):
            for _ in range(3):
                self.responded(status)
        self.assert_open()

    def test_no_answer_or_a_broken_one(self) -> None:
        for error in (errors.UpstreamTimeout(), errors.UpstreamBroken(), unreachable(nothing_sent=False)):
            self.setUp()
            for _ in range(2):
                self.failed(error)
            self.assert_open("p")

    def test_faults_that_are_not_the_providers(self) -> None:
        for error in (CancelledError(), errors.ClientGone(), errors.RequestTooLarge(), ValueError()):
            for _ in range(3):
                self.failed(error)
        self.assert_open()

    def test_a_success_in_between(self) -> None:
        for status in (500, 200, 500):
            self.responded(status)
        self.assert_open()

    def test_the_probe(self) -> None:
        """One for everybody; a project whose own circuit is open does not use it up."""
        for project in ("p", "q"):
            self.failed(unreachable(), project)
        self.assertRaises(errors.CircuitOpen, self.circuits.enter, "p", 9.9)
        probe = self.circuits.enter("p", 10.0)
        self.assertEqual(self.circuits.state, "half-open")
        self.assertRaises(errors.CircuitOpen, self.circuits.enter, "q", 10.0)
        probe.responded(200, 10.0)
        self.assertEqual(self.circuits.state, "closed")
        self.circuits.enter("q", 10.0)

    def test_a_probe_that_another_circuit_refuses(self) -> None:
        """Is given back."""
        self.failed(unreachable(), "q")
        self.responded(500, "p")
        attempts = [self.circuits.enter("p", 5.0), self.circuits.enter("q", 5.0), self.circuits.enter("q", 5.0)]
        attempts[0].responded(500, 5.0)
        attempts[1].failed(unreachable(), 0.0)
        attempts[2].failed(unreachable(), 0.0)
        self.assertEqual(self.circuits.state, "open")
        self.assertRaises(errors.CircuitOpen, self.circuits.enter, "p", 12.0)  # its own is open until 15
        self.circuits.enter("q", 12.0).responded(200, 12.0)
        self.assertEqual(self.circuits.state, "closed")

    def test_not_more_than_so_many_projects(self) -> None:
        """Are remembered: those that were not seen for long are forgotten."""
        self.responded(500, "p")
        for project in ("a", "b", "c"):
            self.responded(200, project)
        self.responded(500, "p")
        self.assert_open()

    def test_an_attempt_that_many_begin_with(self) -> None:
        """Its tickets are good as long as nothing has happened to its breakers, and they are still those in use."""

        def open_own() -> None:
            self.failed(errors.UpstreamBroken())

        def open_all() -> None:
            for _ in range(2):
                self.failed(unreachable())

        def crowd_out() -> None:
            for number in range(3):
                self.responded(200, f"other {number}")

        for change in (open_own, open_all, crowd_out, lambda: self.circuits.all.hold(1.0)):
            self.setUp()
            attempt = self.circuits.enter_closed("p")
            assert attempt is not None
            attempt.responded(200, 0.0)
            attempt.failed(errors.UpstreamBroken(), 0.0)
            now = (attempt.shared.ticket, attempt.project.ticket)
            self.assertEqual(now, (attempt.shared_ticket, attempt.ticket))
            change()
            now = (attempt.shared.ticket, attempt.project.ticket)
            self.assertNotEqual(now, (attempt.shared_ticket, attempt.ticket))
