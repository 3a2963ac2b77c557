from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy import errors
from llmproxy.config.model import Api, CircuitBreaker, Retries, Settings, Timeouts
from llmproxy.config.routes import Routes
from llmproxy.http.origin import Origin
from llmproxy.model import Project
from llmproxy.upstream.upstreams import Circuits, HeadTimeouts, ProviderKeys, Upstreams
from tests.support.fakes import MemoryStore


class Keys(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore(self.clock)
        self.learnt: list[str] = []
        self.keys = ProviderKeys(self.store, self.clock, ttl=5.0, size=2, learn=self.learnt.append)
        for project in ("p", "q", "r"):
            self.keep(project, f"key of {project}")

    def keep(self, project: str, key: str) -> None:
        self.store.keys[project] = {"main": key}
        self.store.projects[project] = Project(project, project)

    def look_up(self, project: str = "p", api: str = "main") -> Deferred[bytes]:
        looking = Deferred.fromCoroutine(self.keys.look_up(project, api, "x-api-key"))
        return looking.addCallback(lambda key: key.value)

    def known(self, project: str, api: str = "main") -> bytes | None:
        key = self.keys.known(project, api)
        return None if key is None else key.value

    def test_remembered_for_a_while(self) -> None:
        self.assertIsNone(self.known("p"))
        self.assertEqual(self.successResultOf(self.look_up()), b"key of p")
        self.assertEqual(self.keys.known("p", "main"), (b"key of p", b"x-api-key: key of p"))
        self.assertEqual(self.learnt, ["key of p"])
        self.clock.advance(4.9)
        self.assertEqual(self.known("p"), b"key of p")
        self.assertIsNone(self.known("p", "other"))
        self.clock.advance(0.1)
        self.assertIsNone(self.known("p"))

    def test_forgotten(self) -> None:
        """One project's, when it has changed."""
        for project in ("p", "q"):
            self.successResultOf(self.look_up(project))
        self.keys.forget("p")
        self.assertEqual((self.known("p"), self.known("q")), (None, b"key of q"))
        self.keys.forget("")
        self.assertIsNone(self.known("q"))

    def test_changed_while_it_was_looked_up(self) -> None:
        """Is used this once, but not remembered: it may be the old one."""
        asking: Deferred[None] = Deferred()
        self.store.before = lambda name: asking
        looking = self.look_up()
        self.keys.forget("p")
        asking.callback(None)
        self.assertEqual(self.successResultOf(looking), b"key of p")
        self.assertIsNone(self.known("p"))

    def test_not_more_than_so_many(self) -> None:
        for project in ("p", "q", "r"):
            self.successResultOf(self.look_up(project))
        self.assertEqual([self.known(project) for project in ("p", "q", "r")], [None, b"key of q", b"key of r"])

    def test_none(self) -> None:
        self.failureResultOf(self.look_up(api="other"), errors.UpstreamAuthError)
        self.keep("p", "")
        self.failureResultOf(self.look_up(), errors.UpstreamAuthError)
        self.assertIsNone(self.known("p"))

    def test_one_that_cannot_be_sent(self) -> None:
        """Is refused each time, and never part of a head."""
        self.keep("p", "a\r\nX: y")
        self.failureResultOf(self.look_up(), errors.UpstreamAuthError)
        self.assertIsNone(self.known("p"))

    def test_a_store_that_fails(self) -> None:
        """In its own words is a store that does not answer."""

        def broken(name: str) -> None:
            raise OSError("password")

        self.store.before = broken
        error = self.failureResultOf(self.look_up(), errors.StoreUnavailable).value
        self.assertNotIn("password", str(error))

    def test_a_client_that_leaves_meanwhile(self) -> None:
        self.store.before = lambda name: Deferred()
        looking = self.look_up()
        looking.cancel()
        self.failureResultOf(looking, CancelledError)


class Breakers(SynchronousTestCase):
    """What counts for everybody, what for one project, and what for nobody."""

    def setUp(self) -> None:
        api = Api(
            base_url="http://h", allowed_endpoints=("/x",), circuit_breaker=CircuitBreaker(failures=2, cooldown=10.0)
        )
        self.circuits = Circuits(api, size=3)

    def answered(self, status: int, project: str = "p") -> None:
        self.circuits.enter(project, 0.0).answered(status, 0.0)

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
                self.answered(status)
            self.assert_open("p")
            self.assertEqual(self.circuits.state, "closed")

    def test_answers_that_do_not(self) -> None:
        for status in (200, 400, 401, 403, 404, 408, 429, 501, 529):
            for _ in range(3):
                self.answered(status)
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
            self.answered(status)
        self.assert_open()

    def test_the_probe(self) -> None:
        """One for everybody; a project whose own circuit is open does not use it up."""
        for project in ("p", "q"):
            self.failed(unreachable(), project)
        self.assertRaises(errors.CircuitOpen, self.circuits.enter, "p", 9.9)
        probe = self.circuits.enter("p", 10.0)
        self.assertEqual(self.circuits.state, "half-open")
        self.assertRaises(errors.CircuitOpen, self.circuits.enter, "q", 10.0)
        probe.answered(200, 10.0)
        self.assertEqual(self.circuits.state, "closed")
        self.circuits.enter("q", 10.0)

    def test_a_probe_that_another_circuit_refuses(self) -> None:
        """Is given back."""
        self.failed(unreachable(), "q")
        self.answered(500, "p")
        attempts = [self.circuits.enter("p", 5.0), self.circuits.enter("q", 5.0), self.circuits.enter("q", 5.0)]
        attempts[0].answered(500, 5.0)
        attempts[1].failed(unreachable(), 0.0)
        attempts[2].failed(unreachable(), 0.0)
        self.assertEqual(self.circuits.state, "open")
        self.assertRaises(errors.CircuitOpen, self.circuits.enter, "p", 12.0)  # its own is open until 15
        self.circuits.enter("q", 12.0).answered(200, 12.0)
        self.assertEqual(self.circuits.state, "closed")

    def test_not_more_than_so_many_projects(self) -> None:
        """Are remembered: those that were not seen for long are forgotten."""
        self.answered(500, "p")
        for project in ("a", "b", "c"):
            self.answered(200, project)
        self.answered(500, "p")
        self.assert_open()


class Caller:
    """Gives the answers it is told, in order; a callable one decides when it is asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[Any, ...]] = []

    def send(self, *request: Any) -> Deferred[Any]:
        self.sent.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            d: Deferred[Any] = Deferred()
            d.errback(answer)
            return d
        return answer if isinstance(answer, Deferred) else succeed(answer)


class Answer:
    code = 200


class Upload:
    count = 0
    awaited = False


def unreachable(*, nothing_sent: bool = True) -> errors.UpstreamUnreachable:
    error = errors.UpstreamUnreachable()
    error.nothing_sent = nothing_sent
    return error


class Sending(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.upload = Upload()
        self.cancelled = 0

    def send(
        self,
        *answers: Any,
        attempts: int = 1,
        deadline: Callable[[], float | None] = lambda: None,
        base_url: str = "http://h:81/b",
        **timeouts: float,
    ) -> Deferred[Any]:
        api = Api(
            base_url=base_url,
            allowed_endpoints=("/x",),
            retries=Retries(attempts=attempts),
            timeouts=Timeouts(**{"response_header": 10.0, "request": 100.0, **timeouts}),
        )
        settings = Settings(default_api="main", apis={"main": api})
        self.caller = Caller(*answers)
        self.upstreams = Upstreams(settings, {"main": self.caller}, self.clock)  # type: ignore[dict-item]
        self.route = route = Routes(settings).match(b"POST", b"/x?y")
        self.bounds = lambda: HeadTimeouts(api.timeouts.response_header, deadline())
        return Deferred.fromCoroutine(
            self.upstreams.send(route, "p", b"POST", [b"A: b"], None, self.upload, self.bounds)
        )

    def again(self, answer: Any) -> Deferred[Any]:
        """The next request of the same kind."""
        self.caller.answers.append(answer)
        sent = self.upstreams.send(self.route, "p", b"POST", [b"A: b"], None, self.upload, self.bounds)
        return Deferred.fromCoroutine(sent)

    def assert_nothing_left(self) -> None:
        self.upstreams.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def silent(self) -> Deferred[Any]:
        def cancelled(d: Deferred[Any]) -> None:
            self.cancelled += 1

        return Deferred(cancelled)

    def assert_late(self, sent: Deferred[Any], seconds: str) -> None:
        error = self.failureResultOf(sent, errors.UpstreamTimeout).value
        self.assertIn(f"within {seconds} s", str(error))
        self.assertEqual(self.cancelled, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_is_sent(self) -> None:
        answer = Answer()
        self.assertIs(self.successResultOf(self.send(answer)), answer)
        self.assertEqual(self.caller.sent, [(b"POST", Origin("http", "h", 81), b"/b/x?y", [b"A: b"], None)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_silence(self) -> None:
        sent = self.send(self.silent())
        self.clock.advance(9.9)
        self.assertNoResult(sent)
        self.clock.advance(0.1)
        self.assert_late(sent, "10")

    def test_an_answer_in_time(self) -> None:
        waiting = self.silent()
        sent = self.send(waiting)
        self.clock.advance(9.9)
        waiting.callback(Answer())
        self.successResultOf(sent)
        self.assert_nothing_left()

    def test_one_after_the_other(self) -> None:
        """The watch over one request serves for the next, with the time that this one has."""
        for seconds in (9.9, 5.0, 9.9):
            waiting = self.silent()
            sent = self.again(waiting) if seconds < 9 else self.send(waiting)
            self.clock.advance(seconds)
            waiting.callback(Answer())
            self.successResultOf(sent)
        late = self.again(self.silent())
        self.clock.advance(9.9)
        self.assertNoResult(late)
        self.clock.advance(0.1)
        self.assert_late(late, "10")
        self.assert_nothing_left()

    def test_an_upload_that_goes_on(self) -> None:
        """Is no silence."""
        sent = self.send(self.silent())
        for _ in range(4):
            self.upload.count += 1
            self.clock.advance(10)
            self.assertNoResult(sent)
        self.clock.advance(10)
        self.assert_late(sent, "50")

    def test_a_deadline(self) -> None:
        """Ends an upload too; it is asked for anew each time, as more becomes known."""
        known: list[float | None] = [None]
        sent = self.send(self.silent(), deadline=lambda: known[0])
        for _ in range(4):
            self.upload.count += 1
            self.clock.advance(10)
        known[0] = 44.0
        self.upload.count += 1
        self.clock.advance(10)
        self.assert_late(sent, "50")

    def test_a_deadline_without_a_limit_for_silence(self) -> None:
        sent = self.send(self.silent(), deadline=lambda: 100.0, response_header=0.0)
        self.clock.advance(99.9)
        self.assertNoResult(sent)
        self.clock.advance(0.1)
        self.assert_late(sent, "100")

    def test_no_limits(self) -> None:
        self.assertNoResult(self.send(self.silent(), response_header=0.0, request=0.0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_client_that_leaves(self) -> None:
        """Is not taken for lateness, and counts against nobody."""
        sent = self.send(self.silent())
        sent.cancel()
        self.failureResultOf(sent, CancelledError)
        self.assertEqual(self.cancelled, 1)
        self.assert_nothing_left()

    def test_tried_again(self) -> None:
        """As often as may be, while nothing has been sent."""
        answer = Answer()
        sent = self.send(unreachable(), unreachable(), answer, attempts=3)
        self.assertIs(self.successResultOf(sent), answer)
        self.assertEqual(len(self.caller.sent), 3)

    def test_tried_in_vain(self) -> None:
        self.upload.count = 5  # held here, and of no concern to the provider
        sent = self.send(unreachable(), unreachable(), attempts=2)
        self.failureResultOf(sent, errors.UpstreamUnreachable)
        self.assertEqual(self.upstreams.circuits["main"].all._failures, 1)

    def test_not_tried_again(self) -> None:
        """What may have been sent, what was not understood, what took too long."""
        for error in (unreachable(nothing_sent=False), errors.UpstreamBroken(), errors.UpstreamTimeout()):
            self.failureResultOf(self.send(error, attempts=3), type(error))
            self.assertEqual(len(self.caller.sent), 1)

    def test_an_open_circuit(self) -> None:
        """Nothing is sent at all."""
        self.successResultOf(self.send(Answer()))
        for _ in range(5):
            self.upstreams.circuits["main"].enter("p", 0.0).failed(unreachable(), 0.0)
        route = Routes(
            Settings(default_api="main", apis={"main": Api(base_url="http://h", allowed_endpoints=("/x",))})
        ).match(b"POST", b"/x")
        sent = Deferred.fromCoroutine(self.upstreams.send(route, "p", b"POST", [], None, self.upload))
        self.failureResultOf(sent, errors.CircuitOpen)
        self.assertEqual(len(self.caller.sent), 1)
