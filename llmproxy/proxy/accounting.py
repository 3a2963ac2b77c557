"""What every request is held to and charged with: limits, requests in flight, usage, ledger, metrics and observers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from llmproxy.auth.authenticator import Session
from llmproxy.base.coroutines import deferred
from llmproxy.brief_record import RecordKinds
from llmproxy.config.routes import Route
from llmproxy.http.field_lines import FieldLines
from llmproxy.ledger import Ledger
from llmproxy.ledger.kinds import AlikeOpenings
from llmproxy.ledger.records import FinishedRequest, LedgerLineOpening
from llmproxy.limits.in_flight import InFlightLimit, Slots
from llmproxy.limits.limiter import Limiter, LimitReservation, RequestSize
from llmproxy.limits.pending import PendingReservation
from llmproxy.metering.catalog import Meters, Operations
from llmproxy.metering.deferred import Announcement, Collection
from llmproxy.metering.estimating import tokens
from llmproxy.metering.meter import Meter
from llmproxy.model import Grant, RequestRecord, Usage
from llmproxy.observability.metrics import Metrics
from llmproxy.proxy.attribution import AttributionFields
from llmproxy.proxy.context import Charge, RequestContext
from llmproxy.proxy.deferred_results import DeferredResults, deferral
from llmproxy.proxy.reading import ResponseReading
from llmproxy.proxy.reading_turns import ReadingTurns
from llmproxy.proxy.reporting import Observer, RequestReports, going_on
from llmproxy.wire.buffers import Buffers
from llmproxy.wire.client.response import Response
from llmproxy.wire.write_coalescing import WriteCoalescer

# Outcome and error code of the record, by how the relay of a response's body has ended.
_ENDS = {
    "complete": ("complete", ""),
    "cancelled": ("cancelled", ""),
    "truncated": ("truncated", "upstream_truncated"),
    "idle_timeout": ("truncated", "upstream_timeout"),
    "deadline_exceeded": ("truncated", "upstream_timeout"),
    "client_stalled": ("cancelled", "client_stalled"),
}


_log = Logger()

LOOK_SECONDS = 0.01  # between two looks for requests that are not reported yet, where the process ends

Join = Callable[[Callable[[], object], bool], bool]
"""As L{WriteCoalescer.join}."""


class AnsweredRequest(Protocol):
    """A direct request whose response is over, and what was taken for it.

    @ivar is_measured: Whether anybody has measured what it used.
    """

    slot: Slots
    reservation: LimitReservation | None
    usage: Usage
    is_measured: bool


class Accounting:
    """Accounts for each request from its first byte to its last record.

    @ivar limiter: As given, like C{buffers}.
    @ivar begin: A request has come, or the proxy makes one of its own; L{finish} must follow.
    @ivar open_line: Opens a direct request's line in the ledger; C{""} where there is none. Likewise C{open_alike},
        after which C{write_openings} must follow before a byte of the request leaves.
    @ivar report: A direct request is over for which nothing is held; C{report_all}: several are.
    @ivar join: L{WriteCoalescer.join} of reports.
    @ivar kinds: Finds the kinds of records.
    @ivar reading_turns: When bodies are read, of requests and of responses.
    @ivar shutting_down: Whether what is cut from now on is cut by this process, because it ends.
    """

    def __init__(
        self,
        *,
        limiter: Limiter,
        in_flight: InFlightLimit,
        meters: Meters,
        operations: Operations,
        metrics: Metrics,
        observers: Sequence[Observer],
        clock: IReactorTime,
        ledger: Ledger | None = None,
        results: DeferredResults | None = None,
        buffers: Buffers | None = None,
        coalescer: WriteCoalescer | None = None,
        attribution: AttributionFields | None = None,
    ) -> None:
        """
        @param observers: Called with the record of every request, once it is over; where one raises, it is counted.
        @param ledger: Has a line for every request with a valid token.
        @param results: Settles what is reported later than the response, where there is a ledger to keep it.
        @param buffers: Counts what is kept of responses until they are measured, and says when that is too much.
        @param coalescer: Where, under load, a request's report waits for the end of the reactor's turn.
        @param attribution: Tells whom a request is attributed to, where anything is.
        """
        self.shutting_down = False
        self.limiter = limiter
        self._in_flight = in_flight
        self._ledger = ledger
        self.begin: Callable[[], None] = metrics.started
        self.open_line: Callable[[LedgerLineOpening], str] = _no_line if ledger is None else ledger.open_line
        self.open_alike: Callable[[AlikeOpenings, float, str, int, int, int, str, bool], str]
        self.open_alike = _no_line_alike if ledger is None else ledger.open_alike
        self.write_openings: Callable[[], object] = _nothing if ledger is None else ledger.write_openings
        self._results = results
        self.buffers = buffers
        self._clock = clock
        self.reading_turns = ReadingTurns(clock)
        self._meters = meters
        self._operations = operations
        self._metrics = metrics
        self.kinds = RecordKinds()
        self._reports = RequestReports((going_on(metrics.observe_all), *observers), clock, ledger, coalescer)
        self.report: Callable[[FinishedRequest], None] = self._reports.add
        self.report_all: Callable[[Sequence[FinishedRequest]], None] = self._reports.add_all
        self.join: Join = _not_waiting if coalescer is None else coalescer.join
        self.tasks = self._reports.tasks
        self._attribution = attribution or None

    def reconfigure(self, attribution: AttributionFields) -> None:
        """Attribute requests by these fields from now on."""
        self._attribution = attribution or None

    def check_buffers(self) -> None:
        """L{errors.BuffersFull} where too much is held for a further request."""
        if self.buffers is not None:
            self.buffers.check()

    def classify(self, context: RequestContext) -> None:
        """Tell the context what its request does, how its response is measured, and which limits hold for it."""
        route, grant, method = context.route, context.grant, context.request.method
        assert route is not None and grant is not None
        context.dialect = self._meters.dialect(method, route.api_name, route.path)
        context.operation = self._operations.operation(method, route.api_name, route.path)
        context.limits = self.limiter.plan(grant, route)

    async def open(self, context: RequestContext) -> Charge:
        """Hold what the call to the provider may use at most; L{Limiter.reserve} has the errors.

        The usual request waits for nothing.
        """
        context.charge = charge = Charge()
        if context.lookup is not None:
            context.mark("cache", self._clock.seconds())
        reserved = self._reserve(context)
        if reserved is not None and not isinstance(reserved, LimitReservation):
            context.under_way = "turn"
            reserved = await reserved
        if reserved is not None:
            charge.reservation = reserved
            context.request.booked_first = True
        context.mark(context.under_way or "limits", self._clock.seconds())
        return charge

    def _reserve(self, context: RequestContext) -> LimitReservation | PendingReservation[LimitReservation] | None:
        if context.limits is None:
            return None
        assert context.route is not None
        method, content = context.request.method, context.content
        size = RequestSize(method, context.route.model or content.model, content, context.body_bytes)
        return self.limiter.reserve(context.limits, context.route, size)

    def slots(self, session: Session, route: Route) -> Slots:
        """Those that its direct requests take."""
        return self._in_flight.slots(route.api_name, session.grant.project_id)

    def attribution_of(self, lines: FieldLines, grant: Grant) -> str:
        """Whom a request with these lines is attributed to."""
        return "" if self._attribution is None else self._attribution.of(lines, grant)

    def attributing_fields(self) -> frozenset[bytes]:
        """The names of the fields by which requests are attributed, in lower case."""
        return frozenset() if self._attribution is None else self._attribution.field_names

    def conclude(self, requests: Sequence[AnsweredRequest]) -> None:
        """Direct requests have been answered: nothing is held for them any more. C{report_all} must follow."""
        self._metrics.in_flight -= len(requests)
        for request in requests:
            request.slot.taken -= 1
            reservation, used = request.reservation, request.usage
            if reservation is not None:
                try:
                    if request.is_measured:
                        cost = 0.0 if used.basis == "none" else used.cost_usd
                        reservation.settle(used.input_tokens + used.output_tokens, cost)
                    else:
                        reservation.keep()
                except Exception:  # it takes none of the others with it
                    _log.failure("Limits could not be settled.")

    async def admit(self, context: RequestContext) -> None:
        """Nothing but the provider stands in the way: take one of its project's slots, count one use of the token, and
        open a line in the ledger, which is kept whatever becomes of this process.

        L{errors.TooManyOpen} where the project has no slot left, L{errors.QuotaExceeded} where the token has no use.
        """
        route, session, charge = context.route, context.session, context.charge
        assert route is not None and session is not None and charge is not None
        charge.slot = self._in_flight.acquire(route.api_name, session.grant.project_id)
        self._enter(context, await session.count_use())
        context.mark("admission", self._clock.seconds())

    def _enter(self, context: RequestContext, uses: int) -> None:
        """Open the request's line in the ledger."""
        route, session, charge = context.route, context.session, context.charge
        assert route is not None and session is not None and charge is not None
        if self._ledger is not None:
            if self._attribution is not None:
                context.attribution = self._attribution.of(context.request.lines, session.grant)
            dialect, size = context.dialect, context.body_bytes
            charge.ledger_id = self._ledger.open_line(
                LedgerLineOpening(
                    id="",
                    at=context.started_at,
                    request_id=context.request_id,
                    project_id=session.grant.project_id,
                    token_id=session.grant.token_id,
                    api=route.api_name,
                    endpoint=route.endpoint,
                    model=route.model or context.content.model,
                    bytes_in=size,
                    estimated_input_tokens=tokens(size) if dialect is not None and dialect.takes else 0,
                    uses=uses,
                    attribution=context.attribution,
                )
            )

    def nothing_sent(self, context: RequestContext) -> None:
        """The call has failed before anything left: it is no use of the token, and takes nothing of limits."""
        assert context.session is not None
        context.request_sent = False
        context.session.undo_use()

    def watch(self, context: RequestContext, response: Response) -> None:
        """A response has begun: read in it what it used. To be called before its body is taken."""
        if response.code >= 300:
            return
        if context.dialect is not None:
            context.meter = meter = Meter(context.dialect, response.lines, self.buffers)
            self._read(context, response, meter)
        if self._results is not None:
            assert context.route is not None
            tap = self._results.watch(context, context.route, response)
            if tap is not None:
                self._read(context, response, tap)

    def _read(self, context: RequestContext, response: Response, tap: Meter | Announcement | Collection) -> None:
        if tap.steps is None:
            response.watch(tap.feed)
            return
        if context.response_reading is None:
            hold = bool if self.buffers is None else self.buffers.hold
            turns = self.reading_turns
            context.response_reading = ResponseReading(response, self._clock, turns, context.sender, hold)
        context.response_reading.watch(tap.steps)

    async def finish(self, context: RequestContext) -> None:
        """A request is over, however it ended: settle it, and report it to everybody. Never raises."""
        if context.response_reading is not None and context.response_reading.pending:
            await context.response_reading.whole()
        while context.meter is not None and context.meter.behind:
            await self.reading_turns.turn(context.sender)
            context.meter.work()
        if context.reading is not None and context.request.upload.done:
            await context.reading.turn()
        if self._results is not None and context.result_collection is not None:
            await self._results.collect(context, self._clock.seconds())
        self.finish_now(context)

    def finish_now(self, context: RequestContext) -> None:
        """As L{finish}, of a request whose response has been read, and was no result of another."""
        self._conclude(context)
        self._metrics.ended()
        if context.delivery is not None:
            context.delivery.end()
        if context.lookup is not None:
            context.lookup.call = None  # which knows the lookup
        if self._attribution is not None and context.grant is not None and not context.attribution:
            context.attribution = self._attribution.of(context.request.lines, context.grant)
        charge = context.charge
        if charge is not None and charge.slot is not None:
            charge.slot.release()
        record, ledger_id = context.record(self._clock.seconds()), None
        # What is reserved is given back at once; all else may wait a moment, and is cheaper together.
        if charge is not None and charge.reservation is not None:
            _settle(charge.reservation, context, record)
        if context.grant is not None and not context.result_recorded:
            ledger_id = "" if charge is None else charge.ledger_id
        then = None if context.announcement is None else context.announcement.close
        parts = self.kinds.parts_of(record)
        self._reports.add(FinishedRequest(parts, ledger_id, context.request_sent, deferral(context), then))

    @deferred
    async def all_reported(self) -> None:
        """Fire once every request that has begun is reported. Cancelled, it leaves out those that are not over."""
        try:
            while self._metrics.in_flight > 0:  # a response that has left may still be read
                await deferLater(self._clock, LOOK_SECONDS)
        finally:
            self._reports.flush()

    def _conclude(self, context: RequestContext) -> None:
        """Outcome and error as they are recorded."""
        if context.relay is not None and context.outcome in _ENDS:
            context.outcome, error = _ENDS[context.outcome]
            context.error = context.error or error
        context.outcome, context.error = self._blamed(context.outcome, context.error, left=context.client_left)

    def end_of(self, outcome: str, *, left: bool) -> tuple[str, str]:
        """Outcome and error of a direct request, by how its relay has ended.

        @param left: Whether its client has left by itself.
        """
        return self._blamed(*_ENDS[outcome], left=left)

    def _blamed(self, outcome: str, error: str, *, left: bool) -> tuple[str, str]:
        if self.shutting_down and (outcome, error, left) == ("cancelled", "", False):
            return "truncated", "shutdown"
        return outcome, error


def _not_waiting(call: Callable[[], object], always: bool) -> bool:
    return False


def _nothing() -> None:
    """There is no ledger to write into."""


def _no_line(opening: LedgerLineOpening) -> str:
    return ""


def _no_line_alike(*opening: object) -> str:
    return ""


def _settle(reservation: LimitReservation, context: RequestContext, record: RequestRecord) -> None:
    """What was reserved is over: given back where nothing was sent, else charged with what the record says."""
    if not context.request_sent:
        reservation.give_back()
    elif context.announced_id:
        reservation.keep(recorded=True)  # until its result is fetched
    elif context.result_usage is not None:
        reservation.settle(0, 0.0)  # which was reserved when it was asked for
    elif context.dialect is None and record.status < 400:
        reservation.keep()  # nobody has measured it
    else:
        used = record.input_tokens + record.output_tokens
        reservation.settle(used, 0.0 if record.basis == "none" else record.cost_usd)
