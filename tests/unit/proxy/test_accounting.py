from __future__ import annotations

from collections.abc import Coroutine, Sequence
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred

from llmproxy import errors
from llmproxy.brief_record import parts_of
from llmproxy.config.api_settings import Api, ConnectionSettings
from llmproxy.config.model import Settings
from llmproxy.ledger.kinds import AlikeOpenings
from llmproxy.ledger.records import FinishedRequest, LedgerLineOpening
from llmproxy.limits.counted import NO_LIMITS
from llmproxy.limits.in_flight import InFlightLimit, Slots
from llmproxy.limits.limiter import LimitReservation
from llmproxy.model import Grant, RequestRecord, Usage
from llmproxy.proxy.accounting import Accounting
from llmproxy.proxy.context import RequestContext
from llmproxy.proxy.reporting import one_by_one
from llmproxy.wire.relay import Relay
from tests.unit.proxy.scripted import ROUTES, WHERE, ProxyCase

ONE = ConnectionSettings(max_open_per_project=1)


class Outcomes(ProxyCase):
    def test_how_a_relay_ended(self) -> None:
        for end, outcome, error in [
            ("complete", "complete", ""),
            ("cancelled", "cancelled", ""),
            ("truncated", "truncated", "upstream_truncated"),
            ("idle_timeout", "truncated", "upstream_timeout"),
            ("deadline_exceeded", "truncated", "upstream_timeout"),
            ("client_stalled", "cancelled", "client_stalled"),
        ]:
            self.setUp()

            async def way(context: RequestContext, end: str = end) -> None:
                await self.pipeline.answer(context)
                context.relay = Relay(context.request, self.clock)
                context.relay.count = 7
                context.outcome = end

            self.pipeline.way = way
            self.ask()
            record = self.record()
            self.assertEqual((record.outcome, record.error, record.bytes_out), (outcome, error, 7))

    def test_a_process_that_ends(self) -> None:
        """What it cuts is truncated, not left by its client; what a client has left before is left."""
        for ends, outcome, error in [(True, "truncated", "shutdown"), (False, "cancelled", "")]:
            self.setUp()
            self.waits()
            self.ask()
            if ends:
                self.pipeline.shut_down()
            self.leave()
            self.pipeline.shut_down()
            record = self.record()
            self.assertEqual((record.outcome, record.error), (outcome, error))

    def test_all_reported(self) -> None:
        """Not before the last one is; where it is given up, what is over is reported."""
        self.waits()
        self.ask()
        waiting = self.accounting.all_reported()
        self.clock.advance(1)
        self.assertNoResult(waiting)
        self.leave()
        self.clock.advance(1)
        self.successResultOf(waiting)
        self.record()
        self.successResultOf(self.accounting.all_reported())


class Limiter:
    """Grants what is asked, at once, and keeps what became of it."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    def reserve(self, *of: object) -> LimitReservation:
        ends = self.ends

        class Held(LimitReservation):
            budgets = ()  # type: ignore[assignment]

            def give_back(self) -> None:
                ends.append("given back")

            def keep(self, *, recorded: bool = False) -> None:
                ends.append(f"kept, recorded={recorded}")

            def settle(self, tokens: int, cost: float | None) -> None:
                ends.append(f"settled {tokens} {cost}")

        unused: Any = None
        return Held(unused, unused, NO_LIMITS, (1, 0, 0), None, (), None)


class RecordingLedger:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def open_line(self, opening: LedgerLineOpening) -> str:
        self.calls.append(("open", *opening[2:]))
        return "line-1"

    def open_alike(self, alike: AlikeOpenings, *rest: Any) -> str:
        self.calls.append(("open alike", *alike.common, *rest))
        return "line-2"

    def write_openings(self) -> None:
        self.calls.append(("write openings",))

    def settle_all(self, requests: Sequence[FinishedRequest]) -> None:
        for record, ledger_id, sent, deferral, _ in requests:
            if ledger_id is not None:
                self.calls.append(
                    ("settle", ledger_id, record.kind.sample.outcome, sent, deferral and deferral.result_id)
                )


class Uses:
    """A session whose uses are counted.

    @ivar left: How many uses are left: none is refused.
    """

    grant = Grant("p", "t")

    def __init__(self, left: int = 1) -> None:
        self.left = left

    async def count_use(self) -> int:
        if not self.left:
            raise errors.QuotaExceeded
        self.left -= 1
        return 1

    def undo_use(self) -> None:
        self.left += 1


class Reports(ProxyCase):
    """What is told of a request once it is over."""

    def test_one_that_fails(self) -> None:
        """Whoever does not take it, all others do, and it is counted; the next request is told as ever."""

        def fail(record: RequestRecord) -> None:
            if record.path == "/bad":
                raise ZeroDivisionError

        reports = self.accounting._reports
        reports._observers = (one_by_one(fail), *reports._observers, one_by_one(fail), *reports._observers)
        (task,) = reports.tasks
        self.ask("/bad")
        self.assertEqual((task.failures, task.state), (2, "failing"))
        self.assertEqual([record.path for record in (*self.records, *self.again)], ["/bad"] * 4)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)  # once a minute
        self.ask("/good")
        self.assertEqual((task.failures, task.state), (2, "ok"))
        self.assertEqual([record.path for record in self.records[2:]], ["/good"] * 2)


class Charges(ProxyCase):
    """What a call to a provider takes, and what becomes of it."""

    def setUp(self) -> None:
        super().setUp()
        self.limiter, self.ledger, self.session = Limiter(), RecordingLedger(), Uses()
        self.in_flight = InFlightLimit(Settings(default_api="main", apis={"main": Api(**WHERE, connection=ONE)}))
        limiter: Any = self.limiter
        unused: Any = None
        self.accounting = Accounting(
            limiter=limiter,
            in_flight=self.in_flight,
            meters=unused,
            operations=unused,
            metrics=self.metrics,
            observers=[],
            clock=self.clock,
            ledger=self.ledger,
        )
        self.ask()
        (context,) = self.pipeline.contexts
        session: Any = self.session
        limits: Any = ()
        context.route, context.session, context.grant = ROUTES.match(b"POST", b"/main/x"), session, Grant("p", "t")
        context.limits = limits
        self.context = context

    def done(self, step: Coroutine[Any, Any, Any]) -> None:
        self.successResultOf(Deferred.fromCoroutine(step))

    def called(self) -> None:
        """As far as the provider."""
        self.done(self.accounting.open(self.context))
        self.done(self.accounting.admit(self.context))
        self.context.request_sent = True

    def test_a_direct_request(self) -> None:
        """It is told to everybody once, and to metrics no more often."""
        record = RequestRecord("r", 0.0, 0.1, "POST", "/x", 200, "complete")
        self.accounting.begin()
        alike = AlikeOpenings(("p", "t", "main", "/x", ""))
        self.assertEqual(self.accounting.open_alike(alike, 0.0, "r", 0, 0, 1, "", False), "line-2")
        slot = Slots(1)
        self.accounting.conclude([SimpleNamespace(slot=slot, reservation=None, is_measured=True, usage=Usage())])
        self.accounting.report_all([FinishedRequest(parts_of(record), "line-1")])
        self.assertEqual(slot.taken, -1)
        counted = self.metrics.snapshot()
        self.assertEqual((counted.requests, counted.in_flight), (2, 0))  # with the one of setUp
        opened = ("open alike", "p", "t", "main", "/x", "", 0.0, "r", 0, 0, 1, "", False)
        self.assertEqual(self.ledger.calls, [opened, ("settle", "line-1", "complete", True, None)])

    def test_settled(self) -> None:
        """Reserved, used and on the books before it leaves; in the end no slot is taken, and the line is closed."""
        self.called()
        self.assertEqual((self.in_flight.open["main"], self.session.left), (1, 0))
        self.assertTrue(self.context.request.booked_first)
        self.assertEqual(self.ledger.calls, [("open", "fresh", "p", "t", "main", "/x", "", 0, 0, 1, "")])
        self.context.status = 500
        self.done(self.accounting.finish(self.context))
        self.assertEqual((self.in_flight.open["main"], self.session.left), (0, 0))
        self.assertEqual(self.ledger.calls[1:], [("settle", "line-1", "complete", True, None)])
        self.assertEqual(self.limiter.ends, ["settled 0 0.0"])

    def test_nothing_sent(self) -> None:
        """All is given back; the line says that it is no use."""
        self.called()
        self.accounting.nothing_sent(self.context)
        self.done(self.accounting.finish(self.context))
        self.assertEqual((self.in_flight.open["main"], self.session.left), (0, 1))
        self.assertEqual(self.ledger.calls[1:], [("settle", "line-1", "complete", False, None)])
        self.assertEqual(self.limiter.ends, ["given back"])

    def test_not_measured(self) -> None:
        """What nobody has measured is charged at its most."""
        self.called()
        self.done(self.accounting.finish(self.context))
        self.assertEqual(self.limiter.ends, ["kept, recorded=False"])

    def test_announced(self) -> None:
        """What a result will use stays charged until that is fetched."""
        self.called()
        self.context.announced_id = "batch-1"
        self.done(self.accounting.finish(self.context))
        self.assertEqual(self.limiter.ends, ["kept, recorded=True"])
        self.assertEqual(self.ledger.calls[1:], [("settle", "line-1", "complete", True, "batch-1")])

    def test_fetched(self) -> None:
        """A result's use was reserved when it was asked for, and is in the ledger already."""
        self.called()
        self.context.result_usage, self.context.result_recorded = Usage(basis="exact", input_tokens=5), True
        self.done(self.accounting.finish(self.context))
        self.assertEqual(self.limiter.ends, ["settled 0 0.0"])
        self.assertEqual(len(self.ledger.calls), 1)

    def test_no_slot(self) -> None:
        """Then no use is counted, and no line opened."""
        taken = self.in_flight.acquire("main", "p")
        self.done(self.accounting.open(self.context))
        self.failureResultOf(Deferred.fromCoroutine(self.accounting.admit(self.context)), errors.TooManyOpen)
        self.assertEqual((taken.taken, self.session.left, self.ledger.calls), (1, 1, []))

    def test_no_use_left(self) -> None:
        """The slot is free again, what was reserved is given back; the ledger has a line of the refusal."""
        self.session.left = 0
        self.done(self.accounting.open(self.context))
        self.failureResultOf(Deferred.fromCoroutine(self.accounting.admit(self.context)), errors.QuotaExceeded)
        self.done(self.accounting.finish(self.context))
        self.assertEqual((self.in_flight.open["main"], self.limiter.ends), (0, ["given back"]))
        self.assertEqual(self.ledger.calls, [("settle", "", "complete", False, None)])

    def test_never_called(self) -> None:
        """What the cache has served, or what was refused, is on the books if its token was known."""
        self.done(self.accounting.finish(self.context))
        self.context.grant = None
        self.done(self.accounting.finish(self.context))
        self.assertEqual(self.ledger.calls, [("settle", "", "complete", False, None)])
