"""What is recorded of direct requests: what they have in common is kept with their head, the rest are figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from twisted.logger import Logger

from llmproxy.brief_record import ROUNDING, BriefRecord, RecordFigures, RecordKind, RecordKinds
from llmproxy.ledger.records import FinishedRequest
from llmproxy.metering.meter import NO_USAGE
from llmproxy.model import RequestRecord, Usage
from llmproxy.proxy.accounting import Accounting
from llmproxy.proxy.fast_path.flow import KnownHead
from llmproxy.proxy.fast_path.prepared_flow import MAX_RECORD_KINDS, RequestFacts

if TYPE_CHECKING:
    from llmproxy.proxy.fast_path.direct_request import DirectRequest

KIND_BYTES = 2048  # that a kind takes, roughly, with its text
_new = tuple.__new__  # makes a NamedTuple in a third of the time that a call of its class takes
_log = Logger()


class DirectRecords:
    """Accounts for direct requests that have been answered, under load for those of a turn together.

    One step for all of them, and then the next, as L{DirectCalls<llmproxy.proxy.fast_path.direct_calls>}.
    """

    def __init__(self, accounting: Accounting) -> None:
        self._accounting = accounting
        self._join = accounting.join
        self._answered: list[DirectRequest] = []

    def add(self, request: DirectRequest) -> bool:
        """Account for it, at the latest before the turn is over; C{False} where that is to be asked for
        (L{account_all}), once its response has been written.

        What limits must know they know before anything else of its client is read, also by another process.
        """
        reservation, answered = request.reservation, self._answered
        if reservation is not None and not reservation.is_local:
            self.account((request,))  # not later: its client may go on at another process once it has left
            return True
        answered.append(request)
        return len(answered) > 1 or self._join(self.account_all, reservation is not None)

    def account_all(self) -> None:
        """Account for those that were added."""
        answered, self._answered = self._answered, []
        self.account(answered)

    def account(self, requests: Sequence[DirectRequest]) -> None:
        """Account for these. One with which that fails takes none of the others with it."""
        for request in requests:
            try:
                request.is_measured = request.measure(request)
            except Exception:
                _log.failure("What a request used could not be measured.")
                request.usage, request.is_measured = NO_USAGE, False
        self._accounting.conclude(requests)
        finished, kinds = [], self._accounting.kinds
        for request in requests:
            try:
                record = record_of(request, kinds)
            except Exception:  # its line in the ledger is closed as that of a process that has died
                _log.failure("A request could not be recorded.")
                continue
            finished.append(_new(FinishedRequest, (record, request.ledger_id, True, None, None)))
        self._accounting.report_all(finished)


def record_of(request: DirectRequest, kinds: RecordKinds) -> BriefRecord:
    """The record of one that has been answered."""
    usage, prepared, arrived, now = request.usage, request.known.prepared, request.arrived_at, request.ended_at
    first, authorized, sent = request.first_byte_at, request.authorized_at, request.sent_at
    assert prepared is not None
    key = (
        request.model,
        usage.model,
        usage.basis,
        usage.cost_usd is None,
        request.stream,
        request.cache,
        request.outcome,
        request.error,
        request.client,
        request.facts,
    )
    kind = prepared.record_kinds.get(key) or _kind_of(request, key, kinds)
    whole = ROUNDING
    figures = RecordFigures(  # times to the microsecond
        ((now - arrived) * 1e6 + whole - whole) / 1e6,
        len(request.received),
        request.response_bytes,
        0.0 if authorized == arrived else ((authorized - arrived) * 1e6 + whole - whole) / 1e6,
        0.0 if authorized == sent else ((sent - authorized) * 1e6 + whole - whole) / 1e6,
        usage.input_tokens,
        usage.cached_tokens,
        usage.cache_write_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
        ((first - arrived) * 1e6 + whole - whole) / 1e6,
        ((first - sent) * 1e6 + whole - whole) / 1e6,
        usage.cost_usd,
    )
    return BriefRecord(kind, request.request_id, request.started_at, figures)


def _kind_of(request: DirectRequest, key: tuple[object, ...], kinds: RecordKinds) -> RecordKind:
    sample = _sample(request.known, request.model, request.client, request.facts, request.usage, stream=request.stream)
    sample = sample._replace(
        outcome=request.outcome,
        first_byte=0.0,
        upstream_time=0.0,
        upstream_status=200,
        cache=request.cache,
        error=request.error,
        attempts=1,
    )
    return _kept(kinds.kind_of(sample), request.known, key)


def kind_of_hit(
    known: KnownHead, model: str, client: str, facts: RequestFacts, kinds: RecordKinds, *, stream: bool
) -> RecordKind:
    """The kind of the records of those to which the cache has responded."""
    key, prepared = (model, stream, client, facts), known.prepared
    assert prepared is not None
    kind = prepared.record_kinds.get(key)
    if kind is None:
        sample = _sample(known, model, client, facts, NO_USAGE, stream=stream)
        kind = _kept(kinds.kind_of(sample._replace(cache="hit")), known, key)
    return kind


def _kept(kind: RecordKind, known: KnownHead, key: tuple[object, ...]) -> RecordKind:
    assert known.prepared is not None
    kinds = known.prepared.record_kinds
    if kind.is_kept:
        if len(kinds) >= MAX_RECORD_KINDS:
            known.grow(-KIND_BYTES * len(kinds))
            kinds.clear()
        kinds[key] = kind
        known.grow(KIND_BYTES)
    return kind


def _sample(
    known: KnownHead, model: str, client: str, facts: RequestFacts, usage: Usage, *, stream: bool
) -> RequestRecord:
    """A record with what all requests of a flow have in common that ask for this model and used so much."""
    route, grant, prepared = known.flow.route, known.flow.session.grant, known.prepared
    assert prepared is not None
    return RequestRecord(
        request_id="",
        started_at=0.0,
        duration=0.0,
        method="POST",
        path=prepared.path,
        status=200,
        outcome="complete",
        api=route.api_name,
        endpoint=route.endpoint,
        project_id=grant.project_id,
        token_id=grant.token_id,
        model=model,
        stream=stream,
        client=client,
        user_agent=facts.user_agent,
        sdk_retry=facts.sdk_retry,
        answered=usage.model,
        basis=usage.basis,
        cost_usd=usage.cost_usd,
        attribution=facts.attribution,
    )
