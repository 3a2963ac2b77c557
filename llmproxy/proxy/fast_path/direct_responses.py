"""Responses to direct requests that are all there: JSON or events, in chunks, in a coding, or neither."""

from __future__ import annotations

from functools import partial

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from llmproxy.caching import CacheOutcome
from llmproxy.http import body_hints, fields
from llmproxy.http.content_coding import decode_whole
from llmproxy.http.content_measure import measure_short_text
from llmproxy.http.masking import content_coding
from llmproxy.http.whole_body import measure_usual_body
from llmproxy.limits.headers import names_begin_with
from llmproxy.metering import injection
from llmproxy.metering.body_readers import MAX_BODY_BYTES, EventStreamReader
from llmproxy.metering.deferred import may_be_in_background
from llmproxy.metering.estimating import PromptEstimate, estimate_text
from llmproxy.metering.meter import NO_USAGE, Meter
from llmproxy.metering.sse import tells_text_alone
from llmproxy.model import Usage
from llmproxy.proxy.accounting import Accounting
from llmproxy.proxy.context import billed_members, prompt_estimate
from llmproxy.proxy.fast_path.direct_records import DirectRecords
from llmproxy.proxy.fast_path.direct_request import DirectRequest
from llmproxy.proxy.fast_path.head_deadlines import HeadDeadlines
from llmproxy.proxy.pipeline import Pipeline
from llmproxy.wire.body_framing import LAST_CHUNK, chunk
from llmproxy.wire.client.response import Response
from llmproxy.wire.client.response_heads import WholeResponse, shape_of

_JSON = b"application/json"
_READ = (_JSON, body_hints.EVENT_STREAM)  # types that are measured where they are in a coding
_log = Logger()


class DirectResponses:
    """Sends them, and accounts for them.

    @ivar served: How many.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        accounting: Accounting,
        clock: IReactorTime,
        deadlines: HeadDeadlines,
        records: DirectRecords,
    ) -> None:
        self.served = 0
        self._records = records
        self._forget = deadlines.forget
        self._pipeline = pipeline
        self._direct_lines = pipeline.sender.direct_lines
        self._accounting = accounting
        self._seconds = clock.seconds

    def accepts_late(self, request: DirectRequest, response: Response) -> bool:
        """As L{accepts}, of one whose body came behind its head."""
        lines, body, shape = response.lines, response.whole, shape_of(response.lines)
        if shape is None or body is None:
            return False
        whole = WholeResponse(shape, tuple(lines), body, b"\n".join((*lines, body)))
        return self.accepts(request, whole, response.came_at)

    def accepts(self, request: DirectRequest, response: WholeResponse, came_at: float = 0.0) -> bool:
        """Whether a response is usual: then all that the client gets is ready.

        @param came_at: When its head came, by the clock, where that is not just now.
        """
        known, prepared = request.known, request.known.prepared
        shape, values, body, data = response
        text, key = body, request.hop.key.value
        assert prepared is not None
        if shape.code != 200 or data.rfind(key) >= 0:  # faster than C{in} where it is not there
            return False
        if shape.length < 0 and body.rfind(key) >= 0:  # which chunks had cut
            return False
        kind = (
            body_hints.media_type_of(values[shape.kind]) if shape.kind >= 0 else body_hints.media_type(response.lines)
        )
        if shape.codings and (coding := content_coding([values[at] for at in shape.codings])):
            decoded = decode_whole(coding, body, MAX_BODY_BYTES) if kind in _READ else None
            if decoded is None or decoded.rfind(key) >= 0:
                return False  # what is to be said then takes longer
            text = decoded
        if prepared.may_be_deferred and may_be_in_background(text):
            return False
        is_cut = request.usage_injected and known.flow.dialect is not None
        if is_cut:
            body = injection.without_usage(body)
        request.response, request.response_text, request.response_type = response, text, kind
        request.stream = kind in body_hints.STREAM_TYPES or request.expects_stream
        request.response_bytes = len(body)
        request.first_byte_at = first = came_at or self._seconds()
        cache: str | CacheOutcome = "disabled"
        route, session, caching = known.flow.route, known.flow.session, self._pipeline.cache
        if caching is not None:
            if caching.reads.any:
                caching.invalidate(route, session.grant, known.method, known.fields, response)
            if request.fill is None:
                cache = "bypass"
            else:
                caching.end_sole(request.fill, request)
                cache = caching.fill(request.fill, response, first - request.sent_at, storable=request.storable)
        request.cache = cache if isinstance(cache, str) else cache.status
        limits = b"" if request.reservation is None else request.reservation.header_lines
        without = names_begin_with(route.api.provider) if limits else b""
        out = fields.incoming_of_shape(values, shape.names, own_cors=prepared.own_cors, without=without)
        out += prepared.cors_lines
        if limits:
            out.append(limits)
        arrived, authorized, sent = request.arrived_at, request.authorized_at, request.sent_at
        out.append(
            self._direct_lines(request.request_id, cache, arrived, authorized, sent, first, stream=request.stream)
        )
        if shape.length >= 0 or is_cut:
            out.append(b"Content-Length: %d" % len(body))
        else:
            out.append(b"Transfer-Encoding: chunked")
            body = b"%b%b" % (chunk(body), LAST_CHUNK) if body else LAST_CHUNK
        if not request.channel.persistent:
            out.append(b"Connection: close")
        request.reply = b"HTTP/1.1 200 %b\r\n%b\r\n\r\n%b" % (shape.phrase, b"\r\n".join(out), body)
        return True

    def complete(self, request: DirectRequest) -> None:
        """Send what was accepted, and account for it."""
        self._forget(request)
        self.served += 1
        request.ended_at = now = self._seconds()
        request.measure = self._measure
        channel, waits = request.channel, self._records.add(request)
        try:
            request.attempt.responded(200, now)
            request.hop.end(now)
            channel.write_final(request.reply, always_wait=request.reservation is not None)
            channel.request_done()
        except Exception:  # its connection would not know what to do with it
            _log.failure("A response could not be sent.")
        if not waits:
            self._records.account_all()

    def _measure(self, request: DirectRequest) -> bool:
        """Find out what the request used; whether anybody can."""
        flow, prepared = request.known.flow, request.known.prepared
        assert prepared is not None
        dialect, text, kind, typed = flow.dialect, request.response_text, request.response_type, prepared.typed
        if dialect is None:
            request.usage = NO_USAGE
            return False
        if typed is not None and kind in _READ:
            tier = b""
            if prepared.has_tier:
                tier = request.response.lines.value(b"x-gemini-service-tier") or b""
            usage = None
            if kind == _JSON:
                usage = typed.measured(text, request.model, tier, request.started_at)
            elif dialect.provider != "aws":  # the heads of whose responses may tell what no event does
                mark, also, prompt = dialect.operation.mark, dialect.operation.also, partial(_prompt, request)
                if tells_text_alone(text, mark, also):
                    usage = typed.measured_text(text, request.model, tier, request.started_at, prompt)
                else:
                    stream = EventStreamReader(mark, also)
                    stream.feed(text)
                    usage = typed.measured_stream(stream, request.model, tier, request.started_at, prompt)
            if usage is not None:
                request.usage = usage
                return True
        meter = Meter(dialect, request.response.lines, self._accounting.buffers, decoded=True)
        meter.feed(text)
        request.usage = measured_usage(request, meter)
        return True


def measured_usage(request: DirectRequest, meter: Meter) -> Usage:
    """What a request used whose response has ended; where that is an error, the request has failed."""
    usage = meter.measured(
        asked=request.model,
        given=partial(_prompt, request),
        complete=request.outcome == "complete",
        at=request.started_at,
        members=billed_members(request.known.flow.dialect, request),
    )
    if meter.error:
        request.outcome, request.error = "failed", meter.error
    return usage


def _prompt(request: DirectRequest) -> PromptEstimate:
    flow, prepared = request.known.flow, request.known.prepared
    assert prepared is not None
    body = request.received
    if prepared.is_measured:
        return prompt_estimate(request.content, None, request.lines, len(body), flow.dialect, request.model)
    text = measure_short_text(body)
    if text is not None and not text[1]:
        return estimate_text(text[0], "" if flow.dialect is None else flow.dialect.provider, request.model)
    content, lines = measure_usual_body(body, request.lines), request.lines
    return prompt_estimate(content, None, lines, len(body), flow.dialect, request.model)
