"""Direct requests until they are sent: each is told of once, none takes another with it, and nothing of one is held
when it is over."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from llmproxy import errors
from llmproxy.http.field_lines import FieldLines
from llmproxy.http.request_reader import NO_CONTENT
from llmproxy.limits.counted import NO_LIMITS
from llmproxy.limits.limiter import LimitReservation
from llmproxy.limits.pending import PendingReservation
from llmproxy.model import Verdict
from llmproxy.proxy.fast_path.direct_calls import DirectCalls
from llmproxy.proxy.fast_path.direct_request import DirectRequest
from llmproxy.proxy.fast_path.next_hop import NextHop
from llmproxy.upstream.key_states import KeyState
from llmproxy.upstream.provider_keys import ProviderKey
from llmproxy.wire.buffers import Buffers

GONE = Failure(ConnectionLost())
BODY = b"x" * 100_000


class Reservation(LimitReservation):
    """Counts how often it was given back."""

    given_back = 0

    def __init__(self) -> None:
        """It is of no counters."""

    def give_back(self) -> None:
        self.given_back += 1


class Explained(Exception):
    """What is said of another error."""


class Pending(PendingReservation[Any]):
    """A reservation of which a test has the word."""

    def __init__(self) -> None:
        super().__init__(NO_LIMITS, (1, 0, 0))
        self.held = Reservation()

    def judge(self, verdict: Verdict) -> LimitReservation:
        if verdict.refused is not None:
            raise errors.RateLimited
        return self.held

    def explain(self, error: BaseException) -> BaseException:
        return error if isinstance(error, errors.ProxyError) else Explained()


class DirectCallsTests(SynchronousTestCase):
    """Nothing but the objects around it is not real: what is sent is looked at where it comes to its pool."""

    def setUp(self) -> None:
        self.heard: list[tuple[str, ...]] = []
        self.buffers = Buffers(10**6)
        self.reserved: Any = Reservation()
        self.good = True
        self.loaded: list[Callable[[], object]] | None = None
        fallback: Any = SimpleNamespace(
            take_refused=lambda r, called, client, error: self.hear("refused", r, type(error).__name__),
            take_left=lambda r, called, client, reason: self.hear("left", r),
            take_undecided=lambda r, called, client: self.hear("undecided", r),
        )
        accounting: Any = SimpleNamespace(
            limiter=SimpleNamespace(reserve=lambda *asked: self.reserve()),
            join=self.join,
            shutting_down=False,
            begin=lambda: None,
            open_alike=lambda *opening: "line",
            buffers=self.buffers,
        )
        identity: Any = SimpleNamespace(
            believes_proxies=False, now=lambda: 7.0, fresh_id=lambda: "id", client=lambda remote, lines: remote
        )
        table: Any = SimpleNamespace(is_good=lambda known, now, wall: self.good)
        deadlines: Any = SimpleNamespace(watch=lambda request, due: None)
        self.slots = SimpleNamespace(taken=0, most=2)
        self.clock = Clock()
        self.clock.advance(1)
        self.calls = DirectCalls(table, accounting, fallback, self.clock, identity, deadlines)

    def hear(self, what: str, request: DirectRequest, *more: str) -> None:
        self.heard.append((what, request.model, *more))

    def reserve(self) -> Any:
        if isinstance(self.reserved, BaseException):
            raise self.reserved
        return self.reserved

    def join(self, work: Callable[[], object], always: bool) -> bool:
        if self.loaded is not None:
            self.loaded.append(work)
        return self.loaded is not None

    def request(self, name: str = "a", *, limited: bool = True) -> DirectRequest:
        """One that was read."""
        alike = SimpleNamespace(ticket=1)
        attempt: Any = SimpleNamespace(ticket=1, shared_ticket=1, project=alike, shared=alike)
        pool: Any = SimpleNamespace(
            sends_at_once=lambda: True, send=lambda request: self.heard.append(("sent", request.model))
        )
        outgoing: Any = SimpleNamespace(start=b"POST / HTTP/1.1\r\nContent-Length: ")
        self.upstream: Any = SimpleNamespace(in_flight=0)
        state, key = KeyState("p", "masked", b"its"), ProviderKey(b"key", b"Authorization: Bearer key")
        hop = NextHop(self.upstream, key, state, outgoing, None, pool, attempt)
        sending = SimpleNamespace(
            hops=(hop,),
            sole=hop,
            slots=self.slots,
            uses=1,
            openings={name: object()},
            common=("p", "t", "a", "/"),
            group=SimpleNamespace(causes=()),
        )
        prepared = SimpleNamespace(
            sending=sending, facts=SimpleNamespace(attribution=""), has_own_id=False, estimates_input=False, total=1.0
        )
        known: Any = SimpleNamespace(
            flow=SimpleNamespace(limits=object() if limited else None, route=None),
            prepared=prepared,
            method=b"POST",
            lines=lambda filled: FieldLines([], []),
        )
        channel: Any = SimpleNamespace(
            remote="127.0.0.1", abortConnection=lambda: self.heard.append(("cut", name)), request=None
        )
        owner: Any = self.calls
        request = DirectRequest()
        request.owner = request.path = owner
        request.channel, request.known, request.filled = channel, known, None
        request.read, request.model, request.expects_stream = NO_CONTENT, name, False
        request.received = request.whole = BODY
        request.started_at, request.arrived_at, request.buffers = 7.0, 0.0, self.buffers
        request.held = len(BODY)
        self.buffers.hold(len(BODY))
        return request

    def waiting(self) -> tuple[DirectRequest, Pending]:
        """One whose limits are counted elsewhere."""
        self.reserved = pending = Pending()
        request = self.request()
        self.calls.add(request)
        self.assertEqual((self.heard, request.waits, self.buffers.held), ([], True, len(BODY)))
        return request, pending

    def test_at_once(self) -> None:
        """Where there is no load, with limits and without."""
        for limited in (True, False):
            request = self.request(limited=limited)
            self.calls.add(request)
            self.assertEqual((request.waits, request.waits_since, self.upstream.in_flight), (False, 0.0, 1))
        self.assertEqual((self.heard, self.slots.taken), ([("sent", "a")] * 2, 2))

    def test_under_load(self) -> None:
        """All of a turn go together, in their order; one that has left meanwhile does not."""
        self.loaded = []
        requests = [self.request(name) for name in "abc"]
        for request in requests:
            self.calls.add(request)
        requests[1].gone = True
        self.calls.abandon(requests[1], GONE)
        self.assertEqual((self.heard, len(self.loaded)), ([("left", "b")], 1))
        self.loaded.pop()()
        self.assertEqual(self.heard, [("left", "b"), ("sent", "a"), ("sent", "c")])

    def test_no_room(self) -> None:
        """What cannot be sent at once goes to the pipeline, and holds neither limits nor buffers."""
        self.slots.taken = 2
        self.calls.add(self.request())
        self.assertEqual((self.heard, self.buffers.held), ([("undecided", "a")], 0))
        self.assertEqual((self.reserved.given_back, self.slots.taken), (1, 2))

    def test_something_has_changed(self) -> None:
        """Its limits are not asked then: the pipeline does it."""
        self.good, self.reserved = False, AssertionError("asked")
        self.calls.add(self.request())
        self.calls.add(self.request("b", limited=False))
        self.assertEqual((self.heard, self.buffers.held), ([("undecided", "a"), ("undecided", "b")], 0))

    def test_no_use_is_left(self) -> None:
        """The pipeline says so, as it does of any other request; what was reserved is given back."""

        def used_up() -> int:
            raise errors.QuotaExceeded

        request = self.request()
        broken: Any = request.known
        broken.prepared.sending.uses, broken.flow.session = None, SimpleNamespace(use_known=used_up)
        self.calls.add(request)
        self.assertEqual((self.heard, self.buffers.held), ([("undecided", "a")], 0))
        self.assertEqual((self.reserved.given_back, self.slots.taken), (1, 0))

    def test_refused_at_once(self) -> None:
        self.reserved, request = errors.RateLimited(), self.request()
        self.calls.add(request)
        self.assertEqual((self.heard, self.buffers.held), ([("refused", "a", "RateLimited")], 0))
        self.assertEqual(request.waits_since, 1.0)

    def test_admitted_later(self) -> None:
        """Its body counts as held for as long as it waits, and on its way."""
        request, pending = self.waiting()
        pending.decided(Verdict())
        self.assertEqual((self.heard, request.reservation), ([("sent", "a")], pending.held))

    def test_it_has_changed_meanwhile(self) -> None:
        """What is reserved is given back; the pipeline decides."""
        _, pending = self.waiting()
        self.good = False
        pending.decided(Verdict())
        self.assertEqual((self.heard, pending.held.given_back, self.buffers.held), ([("undecided", "a")], 1, 0))

    def test_refused_later(self) -> None:
        _, pending = self.waiting()
        pending.decided(Verdict(0))
        self.assertEqual((self.heard, self.buffers.held), ([("refused", "a", "RateLimited")], 0))

    def test_they_cannot_be_counted(self) -> None:
        """Then it is refused, with what clients may know of it."""
        _, pending = self.waiting()
        pending.failed(ZeroDivisionError("password"))
        self.assertEqual(self.heard, [("refused", "a", "Explained")])

    def test_its_client_leaves(self) -> None:
        """Who counts is told that nobody waits any more; it is no refusal as well."""
        cancelled: list[object] = []
        request, pending = self.waiting()
        pending.follow(Deferred[Verdict](cancelled.append))
        self.calls.abandon(request, GONE)
        self.assertEqual((len(cancelled), self.heard, self.buffers.held), (1, [("left", "a")], 0))

    def test_what_is_decided_when_its_client_has_left(self) -> None:
        """It is given back, and nobody hears of it."""
        for verdict in (Verdict(), Verdict(0)):
            self.heard.clear()
            request, pending = self.waiting()
            self.calls.abandon(request, GONE)
            pending.decided(verdict)
            self.assertEqual(pending.held.given_back, verdict.refused is None)
            self.assertEqual(self.heard, [("left", "a")])

    def test_a_verdict_that_is_there(self) -> None:
        """It waits for nothing."""
        self.reserved = Pending()
        self.reserved.decided(Verdict())
        self.calls.add(self.request())
        self.assertEqual(self.heard, [("sent", "a")])

    def test_one_that_fails(self) -> None:
        """It is logged, its connection ends, and none of the others notices: at its limits, and when it is sent."""
        for at_limits in (True, False):
            self.heard.clear()
            self.slots.taken, self.loaded = 0, []
            requests = [self.request(name, limited=False) for name in "abc"]
            broken: Any = requests[1].known
            if at_limits:
                del broken.flow.limits
            else:
                del broken.prepared.facts
            for request in requests:
                self.calls.add(request)
            self.loaded.pop()()
            self.assertEqual(sorted(self.heard), [("cut", "b"), ("sent", "a"), ("sent", "c")])
            self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
