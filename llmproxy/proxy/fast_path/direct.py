"""Serves requests with a flow straight from their connection to their provider's and back: no L{Request}, no context,
no coroutine. Whatever is unusual about one, or about its response, goes on as any other from there.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from llmproxy import errors
from llmproxy.http.field_lines import FieldLines
from llmproxy.http.model_and_stream import read_model_and_stream
from llmproxy.http.request_reader import read_uncoded
from llmproxy.ledger.records import LedgerLineOpening
from llmproxy.limits.in_flight import Slot
from llmproxy.limits.limiter import LimitReservation, RequestSize
from llmproxy.metering.estimating import tokens
from llmproxy.proxy.accounting import Accounting
from llmproxy.proxy.fast_path.arriving import ArrivingBodies, ArrivingRequest
from llmproxy.proxy.fast_path.awaiting_limits import AwaitedLimits, LimitedRequest, ReadRequest
from llmproxy.proxy.fast_path.direct_hits import DirectHits
from llmproxy.proxy.fast_path.direct_request import DirectRequest
from llmproxy.proxy.fast_path.direct_responses import DirectResponses
from llmproxy.proxy.fast_path.direct_streams import DirectStreams
from llmproxy.proxy.fast_path.fallback import DirectFallback
from llmproxy.proxy.fast_path.flow import CacheableHead, FlowTable, KnownHead, Sending
from llmproxy.proxy.fast_path.head_deadlines import HeadDeadlines
from llmproxy.proxy.fast_path.preparation import prepare, request_facts
from llmproxy.proxy.fast_path.prepared_flow import PreparedFlow
from llmproxy.proxy.fast_path.request_identity import RequestIdentity, request_id
from llmproxy.proxy.pipeline import Pipeline
from llmproxy.wire.client.request_writer import MAX_JOINED_BYTES, BytesBody
from llmproxy.wire.client.response import Response
from llmproxy.wire.parser import RequestHead
from llmproxy.wire.server.direct import DirectChannel
from llmproxy.wire.server.request_body import SMALL_BYTES, RequestBody

_JOINED = BytesBody(b"")  # stands for the body that is sent together with its head
_new = tuple.__new__  # makes a NamedTuple in a third of the time that a call of its class takes


class DirectPath:
    """Serves requests of flows directly."""

    def __init__(
        self,
        table: FlowTable,
        pipeline: Pipeline,
        accounting: Accounting,
        fallback: DirectFallback,
        clock: IReactorTime,
        identity: RequestIdentity,
    ) -> None:
        self._table = table
        self._pipeline = pipeline
        self._accounting = accounting
        self._fallback = fallback
        self._clock = clock
        self._identity = identity
        self._hits = DirectHits(table, pipeline, accounting, clock, identity)
        self._deadlines = HeadDeadlines(clock, self.failed)
        self._responses = DirectResponses(pipeline, accounting, clock, self._deadlines)
        self._streams = DirectStreams(pipeline, accounting, clock)
        self._arriving = ArrivingBodies(clock, self)
        self._limits = AwaitedLimits(self)
        self.accepts, self.complete = self._responses.accepts, self._responses.complete

    @property
    def served(self) -> int:
        """Requests that went all of their way here."""
        return self._responses.served + self._streams.served + self._hits.served

    # What channels ask

    def take(self, channel: DirectChannel, data: bytes) -> bool:
        known: KnownHead = channel.flow
        if not known.current:
            channel.flow = None
            return False
        assert known.ends is not None
        before, behind = known.ends
        if not data.startswith(before):
            return False
        start = len(before)
        stop = data.find(b"\r", start, start + 16)
        if stop < 0 or not data.startswith(behind, stop):
            return False
        length, body_start = data[start:stop], stop + len(behind)
        if not length.isdigit() or not int(length) == len(data) - body_start <= channel.limits.messages.body:
            return False
        return channel.persistent and self._serve(channel, known, None, data[body_start:])

    def serve(self, channel: DirectChannel, head: RequestHead, body: bytes) -> bool:
        known: KnownHead = head.known[0]
        if not self._serve(channel, known, head, body):
            return False
        if known.ends is not None:
            channel.flow = known
        return True

    def wait(self, channel: DirectChannel, head: RequestHead, upload: RequestBody) -> bool:
        return self._is_current(head.known[0]) and self._arriving.wait(channel, head, upload, self._identity.now())

    def _is_current(self, known: KnownHead) -> bool:
        """Whether its token is still what it was."""
        if known.flow.session.is_current():
            return True
        self._table.drop(known)
        return False

    # What arriving bodies say

    def arrived(self, request: ArrivingRequest) -> None:
        channel, upload, known = request.channel, request.upload, request.known
        body = upload.received
        if body is not None:
            upload.release()  # a direct request counts what is held of its body by itself
            if self._serve(channel, known, request.head, body, (request.started_at, request.arrived_at)):
                if known.ends is not None:
                    channel.flow = known
                return
            upload.hold(len(body))
        self._fallback.take_unread(request, *self._names(request))

    def abandoned(self, request: ArrivingRequest, reason: Failure) -> None:
        self._fallback.take_abandoned(request, *self._names(request), reason)

    def _names(self, request: ArrivingRequest | ReadRequest) -> tuple[str, str]:
        lines = request.lines
        return self._request_id(lines), self._identity.client(request.channel.remote, lines)

    # What limits say

    def admit(self, request: LimitedRequest, reservation: LimitReservation) -> None:
        read = request.read
        prepared, way = read.known.prepared, read.known.flow.way
        assert prepared is not None and isinstance(way, Sending)
        try:
            if self._accounting.shutting_down:
                reservation.give_back()
            elif self._send(read, prepared, way, reservation, request.let_through_at):
                return
        except errors.ProxyError:
            pass  # the pipeline says so in its own way
        self._fallback.take_undecided(request, *self._names(read))

    def refuse(self, request: LimitedRequest, error: BaseException) -> None:
        self._fallback.take_refused(request, *self._names(request.read), error)

    def abandon(self, request: LimitedRequest, reason: Failure) -> None:
        self._fallback.take_left(request, *self._names(request.read), reason)

    # The way

    def _serve(
        self,
        channel: DirectChannel,
        known: KnownHead,
        head: RequestHead | None,
        body: bytes,
        since: tuple[float, float] | None = None,
    ) -> bool:
        """
        @param since: When its head came, in seconds since the epoch and by the clock, if that was before.
        """
        prepared = known.prepared
        if prepared is None:
            prepared = known.prepared = prepare(known, self._pipeline, self._accounting)
        if prepared.is_coded or not body or self._accounting.shutting_down:
            return False
        buffers = self._accounting.buffers
        if buffers is not None and buffers.held >= buffers.limit:
            return False
        lines = known.fields if head is None else head.lines
        started_at, arrived_at = since or (self._identity.now(), self._clock.seconds())
        way = known.flow.way
        if isinstance(way, CacheableHead):
            if not known.flow.session.is_current():
                self._table.drop(known)
                return False
            values = (channel, known, head, lines, body, None, "", False, started_at, arrived_at)
            if self._hits.serve_again(_new(ReadRequest, values)):
                return True
        try:
            content = None
            if prepared.is_read_whole:
                is_policed, is_measured = prepared.is_policed, prepared.is_measured
                content = read_uncoded(body, prepared.wanted, strictly=is_policed or is_measured, measured=is_measured)
                if content is None:
                    return False
                if is_policed:
                    self._pipeline.policy.check_body(
                        known.flow.session.grant, known.flow.route, known.flow.operation, content
                    )
                model, stream = content.model, content.stream
            else:
                asked = read_model_and_stream(body)
                if asked is None:
                    return False
                model, stream = asked
            model = known.flow.route.model or model
            read = _new(
                ReadRequest, (channel, known, head, lines, body, content, model, stream, started_at, arrived_at)
            )
            if isinstance(way, Sending):
                return self._send(read, prepared, way)
            return self._hits.serve(read, way)
        except errors.ProxyError:
            return False  # the pipeline says so in its own way

    def _send(
        self,
        read: ReadRequest,
        prepared: PreparedFlow,
        way: Sending,
        reservation: LimitReservation | None = None,
        let_through_at: float = 0.0,
    ) -> bool:
        """
        @param reservation: What it has waited for from C{let_through_at} on; given back where it is not sent.
        """
        flow, now, accounting = read.known.flow, self._clock.seconds(), self._accounting
        session, route = flow.session, flow.route
        attempt = admitted = None
        try:
            if not self._pipeline.is_current(session.grant, route, way.provider_keys):
                self._table.drop(read.known)
            elif way.pool.sends_at_once:
                if reservation is None and flow.limits is not None:
                    asked = _new(RequestSize, (read.known.method, read.model, read.content, len(read.body)))
                    try:
                        reserved = accounting.reserve(flow.limits, route, asked)
                    except errors.ProxyError as e:
                        if self._is_current(read.known):
                            self._limits.reject(read, e, now, accounting.buffers)
                            return True
                        return False
                    if not isinstance(reserved, LimitReservation):
                        self._limits.wait(read, reserved, now, accounting.buffers)
                        return True
                    reservation = reserved
                attempt = way.upstream.circuits.enter_closed(session.grant.project_id)
                admitted = None if attempt is None else accounting.admit_now(session, route)
        except Exception:
            self._not_sent(read.known, reservation)
            raise
        if attempt is None or admitted is None:
            self._not_sent(read.known, reservation)
            return False
        request = self._made(read, prepared, way, admitted)
        request.attempt, request.reservation = attempt, reservation
        request.authorized_at, request.sent_at = let_through_at or now, now
        if way.group.causes:
            way.group.budget.deposit(now)
        read.channel.begin_direct(request)
        self._deadlines.watch(request, prepared.due(read.arrived_at, now, streams=request.expects_stream))
        way.pool.send(request)
        return True

    def _not_sent(self, known: KnownHead, reservation: LimitReservation | None) -> None:
        """Nothing is held for it any more."""
        if reservation is not None:
            reservation.give_back()
        self._is_current(known)  # else it is known no more

    def _made(
        self, read: ReadRequest, prepared: PreparedFlow, way: Sending, admitted: tuple[Slot, int]
    ) -> DirectRequest:
        """The request that is sent, with its line in the ledger."""
        channel, known, head, lines, body, content, model, stream, started_at, arrived_at = read
        accounting, identity, size = self._accounting, self._identity, len(body)
        route, grant = known.flow.route, known.flow.session.grant
        request = DirectRequest()
        request.owner, request.channel, request.known, request.parsed = self, channel, known, head
        request.read, request.whole, request.started_at, request.arrived_at = content, body, started_at, arrived_at
        request.model = model
        request.request_id = identity.fresh_id() if head is None else self._request_id(lines)
        request.client = identity.client(channel.remote, lines)
        request.facts = facts = prepared.facts or request_facts(lines, known, self._accounting)
        request.expects_stream = stream or prepared.streams
        request.body = _JOINED if size < MAX_JOINED_BYTES else BytesBody(body)
        if prepared.outgoing:
            request.head = b"%b%d\r\n\r\n" % (prepared.outgoing, size)
        else:
            request.head = way.outgoing.render(known.holes(lines), size)
        request.buffers = accounting.buffers
        if size > SMALL_BYTES and request.buffers is not None:
            request.held = size
            request.buffers.hold(size)
        accounting.begin()
        request.slot, uses = admitted
        request.ledger_id = accounting.open_line(
            _new(
                LedgerLineOpening,
                (
                    "",
                    started_at,
                    request.request_id,
                    grant.project_id,
                    grant.token_id,
                    route.api_name,
                    route.endpoint,
                    model,
                    size,
                    tokens(size) if prepared.estimates_input else 0,
                    uses,
                    facts.attribution,
                ),
            )
        )
        return request

    def _request_id(self, lines: FieldLines) -> str:
        return request_id(lines, self._identity)

    # What requests say

    def responded(self, request: DirectRequest, response: Response) -> None:
        """A response that was not there in one read, or is not usual."""
        self._deadlines.forget(request)
        if not self._streams.begin(request, response):
            self._fallback.take_response(request, response)

    def failed(self, request: DirectRequest, error: BaseException) -> None:
        """There is no response."""
        self._deadlines.forget(request)
        self._fallback.take_failure(request, error)

    def client_left(self, request: DirectRequest, reason: Failure) -> None:
        self._deadlines.forget(request)
        request.gone = True
        self._fallback.take_leaving(request, reason)

    def close(self) -> None:
        """Leave no timer behind, unless somebody still waits for it."""
        self._arriving.close()
        self._deadlines.close()
