"""Serves requests with a flow straight from their connection to their provider's and back: no L{Request}, no context,
no coroutine. Whatever is unusual about one, or about its response, goes on as any other from there.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from llmproxy import errors
from llmproxy.http import fields
from llmproxy.http.field_lines import FieldLines
from llmproxy.http.model_and_stream import read_model_and_stream
from llmproxy.http.plain_members import read_plain
from llmproxy.http.request_reader import RequestContent, read_uncoded
from llmproxy.limits.limiter import LimitReservation, RequestSize
from llmproxy.metering.estimating import BYTES_PER_TOKEN
from llmproxy.proxy.accounting import Accounting
from llmproxy.proxy.fast_path.arriving import ArrivingBodies, ArrivingRequest
from llmproxy.proxy.fast_path.awaiting_limits import LimitedRequest, ReadRequest
from llmproxy.proxy.fast_path.direct_hits import DirectHits
from llmproxy.proxy.fast_path.direct_request import DirectRequest
from llmproxy.proxy.fast_path.direct_responses import DirectResponses
from llmproxy.proxy.fast_path.direct_streams import DirectStreams
from llmproxy.proxy.fast_path.fallback import DirectFallback
from llmproxy.proxy.fast_path.flow import FilledHead, FlowTable, KnownHead
from llmproxy.proxy.fast_path.head_deadlines import HeadDeadlines
from llmproxy.proxy.fast_path.preparation import prepare, request_facts
from llmproxy.proxy.fast_path.prepared_flow import PreparedSending
from llmproxy.proxy.fast_path.request_identity import RequestIdentity, request_id
from llmproxy.proxy.pipeline import Pipeline
from llmproxy.wire.client.request_writer import MAX_JOINED_BYTES, BytesBody
from llmproxy.wire.client.response import Response
from llmproxy.wire.parser import RequestHead
from llmproxy.wire.server.direct import DirectChannel
from llmproxy.wire.server.request_body import SMALL_BYTES, RequestBody

MAX_EXPECTED = 6  # heads that are looked for on one connection
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
        self._seconds = clock.seconds
        self._identity = identity
        self._now = identity.now
        self._hits = DirectHits(table, pipeline, accounting, clock, identity)
        self._deadlines = HeadDeadlines(clock, self.failed)
        self._responses = DirectResponses(pipeline, accounting, clock, self._deadlines)
        self._streams = DirectStreams(pipeline, accounting, clock)
        self._arriving = ArrivingBodies(clock, self)
        self.accepts, self.complete = self._responses.accepts, self._responses.complete
        self.leaving = accounting.write_openings

    @property
    def served(self) -> int:
        """Requests that went all of their way here."""
        return self._responses.served + self._streams.served + self._hits.served

    # What channels ask

    def take(self, channel: DirectChannel, data: bytes) -> bool:
        heads: tuple[KnownHead, ...] = channel.expected
        if heads[0].repeats:
            arrived_at = self._seconds()
            if self._hits.repeat(channel, data, self._now(), arrived_at, arrived_at):
                return True
        for known in heads:
            text = known.text
            if text is not None and data.startswith(text.start) and (found := text.match(data)) is not None:
                break
        else:
            return False
        if not known.current:
            channel.expected = None
            return False
        values, length, body_start = found
        messages = channel.limits.messages
        if length != len(data) - body_start or length > messages.body or body_start > messages.head:
            return False
        filled = None if known.varies_in_length_alone else FilledHead(known, text.lines(values))
        return channel.persistent and self._serve(channel, known, filled, data[body_start:])

    def serve(self, channel: DirectChannel, head: RequestHead, body: bytes) -> bool:
        filled: FilledHead = head.known
        if not self._serve(channel, filled.known, filled, body):
            return False
        _expect(channel, filled.known)
        return True

    def wait(self, channel: DirectChannel, head: RequestHead, upload: RequestBody) -> bool:
        known: KnownHead = head.known.known
        if known.flow.session.is_current():
            return self._arriving.wait(channel, head, upload, self._identity.now())
        self._table.drop(known)
        return False

    def _is_good(self, known: KnownHead, now: float) -> bool:
        """Whether nothing has changed that its flow, which is prepared, was made from.

        @param now: By the clock.
        """
        prepared = known.prepared
        assert prepared is not None
        sending, expires_at, wall = prepared.sending, prepared.expires_at, self._now
        if (
            known.current
            and now < prepared.grant.until
            and (sending is None or now < sending.keys.until)
            and (expires_at is None or wall() < expires_at)
        ):
            return True
        self._table.drop(known)
        return False

    # What arriving bodies say

    def arrived(self, request: ArrivingRequest) -> None:
        channel, upload, known = request.channel, request.upload, request.known
        body = upload.received
        if body is not None:
            upload.release()  # a direct request counts what is held of its body by itself
            if self._serve(channel, known, request.head.known, body, (request.started_at, request.arrived_at)):
                _expect(channel, known)
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
        try:
            if self._accounting.shutting_down:
                reservation.give_back()
            elif self._send(*read, reservation, request.let_through_at):
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
        filled: FilledHead | None,
        body: bytes,
        since: tuple[float, float] | None = None,
    ) -> bool:
        """
        @param since: When its head came, in seconds since the epoch and by the clock, if that was before.
        """
        prepared, accounting = known.prepared, self._accounting
        if prepared is None:
            prepared = known.prepared = prepare(known, self._pipeline, accounting)
            if prepared is None:
                self._table.drop(known)
                return False
        if prepared.is_coded or not body or accounting.shutting_down:
            return False
        buffers = accounting.buffers
        if buffers is not None and buffers.held >= buffers.limit:
            return False
        now, seconds = self._now, self._seconds
        started_at, arrived_at = (now(), seconds()) if since is None else since
        if prepared.sending is None:
            looked_at = seconds()
            if not self._is_good(known, looked_at):
                return False
            if known.repeats and known.text is not None:
                whole = known.text.with_body(None if filled is None else filled.holes, body)
                if whole is not None and self._hits.repeat(channel, whole, started_at, arrived_at, looked_at):
                    return True
        try:
            content = None
            if prepared.is_read_whole:
                is_policed, is_measured = prepared.is_policed, prepared.is_measured
                content = read_plain(body, prepared.plain, measured=is_measured)
                if content is None:
                    strictly = is_policed or is_measured
                    content = read_uncoded(body, prepared.wanted, strictly=strictly, measured=is_measured)
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
            model = prepared.model or model
            sending = prepared.sending
            if sending is not None and known.flow.limits is None:
                return self._send(channel, known, filled, body, content, model, stream, started_at, arrived_at)
            read = _new(ReadRequest, (channel, known, filled, body, content, model, stream, started_at, arrived_at))
            return self._hits.serve(read) if sending is None else self._reserve(read, sending)
        except errors.ProxyError:
            return False  # the pipeline says so in its own way

    def _reserve(self, read: ReadRequest, sending: PreparedSending) -> bool:
        """Send it once its limits admit it."""
        known, now, accounting = read.known, self._seconds(), self._accounting
        flow = known.flow
        if not self._is_good(known, now) or not sending.pool.sends_at_once():
            return False
        assert flow.limits is not None and read.content is not None
        asked = _new(RequestSize, (known.method, read.model, read.content, len(read.body)))
        try:
            reserved = accounting.limiter.reserve(flow.limits, flow.route, asked)
        except errors.ProxyError as e:
            if not self._is_good(known, now):
                return False
            LimitedRequest(read, self, now, accounting.buffers).refuse(e)
            return True
        if isinstance(reserved, LimitReservation):
            return self._send(*read, reserved)
        LimitedRequest(read, self, now, accounting.buffers).wait(reserved)
        return True

    def _send(
        self,
        channel: DirectChannel,
        known: KnownHead,
        filled: FilledHead | None,
        body: bytes,
        content: RequestContent | None,
        model: str,
        expects_stream: bool,
        started_at: float,
        arrived_at: float,
        reservation: LimitReservation | None = None,
        let_through_at: float = 0.0,
    ) -> bool:
        """Send it, where nothing has changed that its flow was made from, and nothing has to be waited for.

        Most parameters are those of a L{ReadRequest}.

        @param reservation: What is held of its limits; given back where it is not sent. It has waited for that from
            C{let_through_at} on.
        """
        prepared, accounting, identity, seconds = known.prepared, self._accounting, self._identity, self._seconds
        now = seconds()
        assert prepared is not None and prepared.sending is not None
        sending = prepared.sending
        pool, slots, attempt, uses = sending.pool, sending.slots, sending.attempt, sending.uses
        # Whether it may be sent
        is_looked_at = reservation is not None and not let_through_at  # just before it got its limits
        if not is_looked_at and not (self._is_good(known, now) and pool.sends_at_once()):
            return self._not_sent(reservation)
        if slots.taken >= slots.most:
            return self._not_sent(reservation)
        if (
            attempt is None
            or attempt.ticket != attempt.project.ticket
            or attempt.shared_ticket != attempt.shared.ticket
        ):
            attempt = sending.attempt = sending.upstream.circuits.enter_closed(sending.common[0])
            if attempt is None:
                return self._not_sent(reservation)
        if uses is None:
            uses = known.flow.session.use_known()
            if uses is None:
                return self._not_sent(reservation)
        # What it is
        begin, open_line, fresh_id = accounting.begin, accounting.open_alike, identity.fresh_id  # no methods
        size = len(body)
        request = DirectRequest()
        request.owner, request.channel, request.known, request.filled = self, channel, known, filled
        request.read, request.whole, request.model = content, body, model
        request.started_at, request.arrived_at = started_at, arrived_at
        request.authorized_at, request.sent_at = let_through_at or now, now
        request.attempt, request.reservation, request.slot = attempt, reservation, slots
        request.expects_stream = expects_stream = expects_stream or prepared.streams
        client = channel.remote
        request.client = identity.client(client, known.lines(filled)) if identity.believes_proxies else client
        request.facts = facts = prepared.facts or request_facts(filled, known, prepared, accounting)
        own_id = fields.request_id(known.lines(filled)) if prepared.has_own_id else None
        request.request_id = called = fresh_id() if own_id is None else own_id.decode("ascii")
        # Its line in the ledger
        alike = sending.openings.get(model) or sending.opening(model)
        estimated = -(-size // BYTES_PER_TOKEN) if prepared.estimates_input else 0
        request.ledger_id = open_line(
            alike, started_at, called, size, estimated, uses, facts.attribution, own_id is None
        )
        # Its bytes
        request.body = _JOINED if size < MAX_JOINED_BYTES else BytesBody(body)
        outgoing = sending.outgoing
        if outgoing.start:
            request.head = b"%b%d\r\n\r\n" % (outgoing.start, size)
        else:
            request.head = outgoing.render(() if filled is None else filled.holes, size)
        request.buffers = buffers = accounting.buffers
        if size > SMALL_BYTES and buffers is not None:
            request.held = size
            buffers.hold(size)
        if sending.group.causes:
            sending.group.budget.deposit(now)
        slots.taken += 1  # not sooner: nobody would give it back where something fails before
        begin()
        channel.begin_direct(request)
        if expects_stream:
            due = min(arrived_at + prepared.stream_total, now + prepared.header_timeout)
        else:
            due = arrived_at + prepared.total
        self._deadlines.watch(request, due)
        pool.send(request)
        return True

    def _not_sent(self, reservation: LimitReservation | None) -> bool:
        """Nothing is held for it any more."""
        if reservation is not None:
            reservation.give_back()
        return False

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


def _expect(channel: DirectChannel, known: KnownHead) -> None:
    """Look for this head in what is received next."""
    heads: tuple[KnownHead, ...] = channel.expected or ()
    if known.text is not None and known not in heads:
        channel.expected = (known, *(each for each in heads if each.current))[:MAX_EXPECTED]
