from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy import errors
from llmproxy.config.api_settings import Api, Timeouts
from llmproxy.config.model import Settings
from llmproxy.config.routes import Route, Routes
from llmproxy.config.upstream_settings import Retries
from llmproxy.http.origin import Origin
from llmproxy.upstream.delivery import Delivery, OutgoingRequest
from llmproxy.upstream.provider_keys import ProviderKey
from llmproxy.upstream.upstreams import HeadTimeouts, Upstreams


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
    """A response that is all there."""

    whole = b""
    queue_time = 0.0

    def __init__(self, code: int = 200, *lines: bytes) -> None:
        self.code, self.lines = code, list(lines)


KEYS = (ProviderKey(b"sk-1", b"x-api-key: sk-1"),)


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
        self.upstreams = Upstreams(settings, {"main": [self.caller]}, self.clock)  # type: ignore[dict-item]
        self.route = route = Routes(settings).match(b"POST", b"/x?y")
        self.bounds = lambda: HeadTimeouts(api.timeouts.response_header, deadline())
        return self.deliver(route)

    def again(self, answer: Any) -> Deferred[Any]:
        """The next request of the same kind."""
        self.caller.answers.append(answer)
        return self.deliver(self.route)

    def deliver(self, route: Route) -> Deferred[Any]:
        request = OutgoingRequest(
            route, "p", b"POST", KEYS, lambda upstream, key: [b"A: b"], None, self.upload, self.bounds
        )
        delivery = Delivery(self.upstreams, self.upstreams.of("main"), self.clock, request)
        return Deferred.fromCoroutine(delivery.send())

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
        self.assertEqual(self.caller.sent, [(b"POST", Origin("http", "h", 81), b"/b/x?y", [b"A: b"], None, "p")])
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
        self.assertEqual(self.upstreams.of("main").members[0].circuits.all._failures, 2)

    def test_not_tried_again(self) -> None:
        """What may have been sent, what was not understood, what took too long."""
        for error in (unreachable(nothing_sent=False), errors.UpstreamBroken(), errors.UpstreamTimeout()):
            self.failureResultOf(self.send(error, attempts=3), type(error))
            self.assertEqual(len(self.caller.sent), 1)

    def test_an_open_circuit(self) -> None:
        """Nothing is sent at all."""
        self.successResultOf(self.send(Answer()))
        for _ in range(5):
            self.upstreams.of("main").members[0].circuits.enter("p", 0.0).failed(unreachable(), 0.0)
        route = Routes(
            Settings(default_api="main", apis={"main": Api(base_url="http://h", allowed_endpoints=("/x",))})
        ).match(b"POST", b"/x")
        self.failureResultOf(self.deliver(route), errors.CircuitOpen)
        self.assertEqual(len(self.caller.sent), 1)
