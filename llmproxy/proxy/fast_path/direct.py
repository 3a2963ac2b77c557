"""Serves requests with a flow straight from their connection to their provider's and back: no L{Request}, no context,
no coroutine. Whatever is unusual about one, or about its response, goes on as any other from there.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from llmproxy import errors
from llmproxy.caching import CacheRequest
from llmproxy.http import credentials
from llmproxy.http.model_and_stream import read_model_and_stream
from llmproxy.http.plain_members import MAX_PLAIN_BYTES, read_plain
from llmproxy.http.request_reader import RequestContent
from llmproxy.http.whole_body import read_uncoded
from llmproxy.limits.limiter import LimitReservation
from llmproxy.metering import injection
from llmproxy.proxy.accounting import Accounting
from llmproxy.proxy.fast_path.arriving import ArrivingBodies, ArrivingRequest
from llmproxy.proxy.fast_path.direct_calls import DirectCalls
from llmproxy.proxy.fast_path.direct_hits import DirectHits, ReadRequest
from llmproxy.proxy.fast_path.direct_records import DirectRecords
from llmproxy.proxy.fast_path.direct_request import DirectRequest
from llmproxy.proxy.fast_path.direct_responses import DirectResponses
from llmproxy.proxy.fast_path.direct_streams import DirectStreams
from llmproxy.proxy.fast_path.fallback import DirectFallback
from llmproxy.proxy.fast_path.flow import FilledHead, FlowTable, KnownHead
from llmproxy.proxy.fast_path.head_deadlines import HeadDeadlines
from llmproxy.proxy.fast_path.joined_call import JoinedCall
from llmproxy.proxy.fast_path.late_responses import LateResponses
from llmproxy.proxy.fast_path.preparation import prepare
from llmproxy.proxy.fast_path.prepared_flow import PreparedFlow
from llmproxy.proxy.fast_path.request_identity import RequestIdentity, names_of
from llmproxy.proxy.pipeline import Pipeline
from llmproxy.wire.client.response import Response
from llmproxy.wire.parser import RequestHead
from llmproxy.wire.server.direct import DirectChannel
from llmproxy.wire.server.request_body import SMALL_BYTES, RequestBody

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
        self._has_time_to_read = accounting.reading_turns.has_time
        self._now = identity.now
        self._hits = DirectHits(table, pipeline, accounting, clock, identity)
        self._begin_sole = _never if pipeline.cache is None else pipeline.cache.begin_sole
        self._deadlines = HeadDeadlines(clock)
        self._calls = DirectCalls(table, accounting, fallback, clock, identity, self._deadlines)
        records = DirectRecords(accounting)
        self._responses = DirectResponses(pipeline, accounting, clock, self._deadlines, records)
        self._streams = DirectStreams(pipeline, accounting, clock, records)
        self._arriving = ArrivingBodies(clock, accounting.reading_turns, self, accounting.buffers)
        self._late = LateResponses(clock, self._take)
        self.accepts, self.complete = self._responses.accepts, self._responses.complete
        self.leaving = accounting.write_openings

    @property
    def served(self) -> int:
        """Requests that went all of their way here."""
        return self._responses.served + self._streams.served + self._hits.served

    # What channels ask

    def take(self, channel: DirectChannel, data: bytes) -> bool:
        known: KnownHead | None = channel.expected
        if known is not None and known.repeats:
            arrived_at = self._seconds()
            if self._hits.repeat(channel, data, self._now(), arrived_at, arrived_at):
                return True
        text = None if known is None else known.text
        if text is None or not data.startswith(text.start) or (found := text.match(data)) is None:
            known = self._table.find_in(data)
            if known is None or known.text is None or (found := known.text.match(data)) is None:
                return False
            text = known.text
            if known.is_short:
                channel.expected = known
        assert known is not None
        if not known.current:
            channel.expected = None
            return False
        values, length, body_start = found
        messages = channel.limits.messages
        if length != len(data) - body_start or length > messages.body or body_start > messages.head:
            return False
        if length > MAX_PLAIN_BYTES and not self._has_time_to_read():
            return False
        filled = None if known.varies_in_length_alone else FilledHead(known, text.lines(values))
        return channel.persistent and self._serve(channel, known, filled, data[body_start:])

    def serve(self, channel: DirectChannel, head: RequestHead, body: bytes) -> bool:
        filled: FilledHead = head.known
        if len(body) > MAX_PLAIN_BYTES and not self._has_time_to_read():
            self._arriving.wait_for_turn(channel, head, body, self._now())
            return True
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
        self._fallback.take_unread(request, *names_of(request, self._identity))

    def abandoned(self, request: ArrivingRequest, reason: Failure) -> None:
        self._fallback.take_abandoned(request, *names_of(request, self._identity), reason)

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
        if filled is not None and credentials.may_reveal(b"\n".join(filled.holes), prepared.token):
            return False  # what is in a hole passes
        buffers = accounting.buffers
        if buffers is not None and buffers.held >= buffers.limit:
            return False
        now, seconds = self._now, self._seconds
        started_at, arrived_at = (now(), seconds()) if since is None else since
        cacheable, asked = known.flow.cacheable, None
        if cacheable is not None:
            looked_at = seconds()
            if not self._table.is_good(known, looked_at, now):
                return False
            if known.repeats and known.text is not None:
                whole = known.text.with_body(None if filled is None else filled.holes, body)
                if self._hits.repeat(channel, whole, started_at, arrived_at, looked_at):
                    return True
        try:
            found = self._read(known, prepared, body)
            if found is None:
                return False
            content, model, stream = found
            model = prepared.model or model
            if cacheable is not None:
                read = _new(ReadRequest, (channel, known, filled, body, model, started_at, arrived_at))
                asked = self._hits.serve(read, cacheable)
                if asked is None:
                    return True
                if prepared.sending is None:
                    return False
        except errors.ProxyError:
            return False  # the pipeline says so in its own way
        request = DirectRequest()
        request.owner = request.path = self
        request.channel, request.known, request.filled = channel, known, filled
        request.read, request.received, request.whole, request.model = content, body, body, model
        request.expects_stream = stream or prepared.streams
        request.started_at, request.arrived_at, request.buffers = started_at, arrived_at, buffers
        size = len(body)
        if prepared.may_be_injected and content is not None and (asking := injection.request_usage(body, content)):
            if asked is not None:
                return False  # it is none for the cache
            request.whole, request.usage_injected, size = asking, True, size + len(asking)
        if asked is not None:
            if not self._begin_sole(asked, request):
                return False
            request.fill = asked
        channel.begin_direct(request)
        if size > SMALL_BYTES and buffers is not None:
            request.held = size
            buffers.hold(size)
        self._calls.add(request)
        return True

    def _read(
        self, known: KnownHead, prepared: PreparedFlow, body: bytes
    ) -> tuple[RequestContent | None, str, bool] | None:
        """What a body says, where all of that must be known; its model; and whether it asks for a stream.

        C{None} for one that is not usual; L{errors.ProxyError} where the policy forbids it.
        """
        if not prepared.is_read_whole:
            asked = read_model_and_stream(body)
            if asked is None:
                return None
            model, stream, tells_background = asked
            if not (tells_background and prepared.may_be_deferred):
                return None, model, stream
        is_policed, is_measured = prepared.is_policed, prepared.is_measured
        content = read_plain(body, prepared.plain, measured=is_measured)
        if content is None:
            content = read_uncoded(body, prepared.wanted, strictly=is_policed or is_measured, measured=is_measured)
            if content is None:
                return None
        if prepared.may_be_deferred and _may_ask_for_background(content):
            return None  # what its response announces must be kept
        if is_policed:
            flow = known.flow
            self._pipeline.policy.check_body(flow.session.grant, flow.route, flow.operation, content)
        return content, content.model, content.stream

    # What requests say

    def admit(self, request: DirectRequest, reservation: LimitReservation) -> None:
        self._calls.admit(request, reservation)

    def refuse(self, request: DirectRequest, error: BaseException) -> None:
        self._calls.refuse(request, error)

    def responded(self, request: DirectRequest, response: Response) -> None:
        """A response that was not there in one read, or is not usual."""
        self._deadlines.forget(request)
        if not self._late.wait(request, response):
            self._take(request, response)

    def _take(self, request: DirectRequest, response: Response) -> None:
        """All of it that is waited for has come."""
        if response.came_at and self._responses.accepts_late(request, response):
            self.complete(request)
        elif request.fill is not None or not self._streams.begin(request, response):
            self._fallback.take_response(request, response)

    def failed(self, request: DirectRequest, error: BaseException) -> None:
        """There is no response."""
        self._deadlines.forget(request)
        self._fallback.take_failure(request, error)

    def joined(self, request: DirectRequest) -> None:
        """Others wait for its response too."""
        if request.waits:
            self._calls.leave(request)
        elif (response := self._late.leave(request)) is not None:
            self._fallback.take_response(request, response)
        else:
            self._fallback.take_joined(request, JoinedCall(request, self.leaving, self._clock, self._deadlines).outcome)

    def client_left(self, request: DirectRequest, reason: Failure) -> None:
        request.gone = True
        if request.waits:
            self._calls.abandon(request, reason)
        elif (response := self._late.leave(request)) is not None:
            self._fallback.take_response(request, response, reason)
        else:
            self._deadlines.forget(request)
            self._fallback.take_leaving(request, reason)

    def close(self) -> None:
        """Leave no timer behind, unless somebody still waits for it."""
        self._arriving.close()
        self._late.close()
        self._deadlines.close()


def _may_ask_for_background(content: RequestContent) -> bool:
    """Whether C{background} may be there, and be anything but C{false} or C{null} to whoever reads it."""
    said = content.members.get("background") or "background" in content.repeated | content.oversize
    return bool(said or content.problem or not content.complete)


def _never(asked: CacheRequest, request: DirectRequest) -> bool:
    """There is no cache that could ask for it."""
    return False


def _expect(channel: DirectChannel, known: KnownHead) -> None:
    """Look for this head first in what is received next."""
    if known.text is not None and known.is_short:
        channel.expected = known
