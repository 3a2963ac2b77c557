"""Streams that answer direct requests and come in several reads: relayed as any other (L{Relay}), without a context,
a coroutine or anything else of a request but what is recorded of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import UNKNOWN_LENGTH

from llmproxy.http import body_hints, fields
from llmproxy.http.masking import FilterChain, KeyFilter, content_coding, events_mask
from llmproxy.limits.headers import replace_rate_limits
from llmproxy.metering.injection import UsageEventFilter
from llmproxy.metering.meter import NO_USAGE, Meter
from llmproxy.proxy.accounting import Accounting
from llmproxy.proxy.fast_path.direct_records import DirectRecords
from llmproxy.proxy.fast_path.direct_request import DirectRequest
from llmproxy.proxy.fast_path.direct_responses import measured_usage
from llmproxy.proxy.pipeline import Pipeline
from llmproxy.wire.body_framing import LAST_CHUNK, chunk
from llmproxy.wire.chunk_passing import GatheringTap
from llmproxy.wire.client.response import Response
from llmproxy.wire.relay import Relay
from llmproxy.wire.server.direct import DirectChannel

_log = Logger()


class DirectStream:
    """The client's side of one: to its relay it is where events go, to its channel what is answered.

    @ivar request: As it was sent.
    @ivar tap: What shows the meter what passes.
    @ivar gone: Whether its client has left; C{left}: by itself, and not because this process ends.
    """

    __slots__ = ("_head", "channel", "gone", "left", "meter", "owner", "relay", "request", "stalled", "tap")
    begun = True
    chunked = 1
    minor = 1
    paced = True
    relay: Relay

    def __init__(self, request: DirectRequest, owner: DirectStreams) -> None:
        self.request = request
        self.owner = owner
        self.channel: DirectChannel = request.channel
        self.meter: Meter | None = None
        self.tap: GatheringTap | None = None
        self.stalled = request.stalled
        self.gone = self.left = False
        self._head = b""

    # What its relay says

    def begin(self, code: int, phrase: bytes, lines: Sequence[bytes], length: int | None, hold: bool) -> None:
        """It is of unknown length, and its head waits for the first event."""
        framing = b"" if self.channel.persistent else b"\r\nConnection: close"
        self._head = b"HTTP/1.1 %d %b\r\n%b\r\nTransfer-Encoding: chunked%b\r\n\r\n" % (
            code,
            phrase,
            b"\r\n".join(lines),
            framing,
        )

    def respond(self, code: int, phrase: bytes, lines: Sequence[bytes], length: int | None, body: bytes) -> None:
        raise NotImplementedError("A stream that is all there needs no relay.")

    def write(self, data: bytes) -> None:
        if not self.gone:
            if self._head:
                head, self._head = self._head, b""
                self.channel.write_soon(b"%b%x\r\n%b\r\n" % (head, len(data), data))
            else:
                self.channel.write_soon(b"%x\r\n%b\r\n" % (len(data), data))

    def flush(self) -> None:
        head, self._head = self._head, b""
        if head and not self.gone:
            self.channel.write(head)

    def finish(self, last: bytes = b"") -> None:
        head, self._head = self._head, b""
        end = b"%b%b%b" % (head, chunk(last), LAST_CHUNK) if last else head + LAST_CHUNK
        self.channel.write_final(end, always_wait=self.request.reservation is not None)
        self.channel.request_done()

    def abort(self) -> None:
        if not self.gone:
            self.flush()
            self.gone = True
            self.channel.cut(visible=True)

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        self.channel.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self.channel.unregisterProducer()

    def ended(self, outcome: str) -> None:
        self.owner.complete(self, outcome)

    # What its channel says

    @property
    def upload(self) -> DirectRequest:
        """What is held of the request's body is held by that."""
        return self.request

    def connectionLost(self, reason: Failure) -> None:
        self.gone, self.left = True, not self.owner.shutting_down
        self.relay.transport.offer_chunks(None)
        self.relay.stopProducing()


class DirectStreams:
    """Begins them, and accounts for them.

    @ivar served: How many.
    """

    def __init__(self, pipeline: Pipeline, accounting: Accounting, clock: IReactorTime, records: DirectRecords) -> None:
        self.served = 0
        self._records = records
        self._pipeline = pipeline
        self._accounting = accounting
        self._clock = clock
        self.seconds = clock.seconds

    @property
    def shutting_down(self) -> bool:
        """Whether clients are left by this process, and not the other way round."""
        return self._accounting.shutting_down

    def begin(self, request: DirectRequest, response: Response) -> bool:
        """Relay a response, of which nothing was taken yet; C{False} for what is not a usual stream."""
        key, flow, lines, prepared = request.hop.key.value, request.known.flow, response.lines, request.known.prepared
        assert prepared is not None
        if response.code != 200 or response.length != UNKNOWN_LENGTH or response.whole is not None:
            return False
        names = lines.names
        if names.count(b"content-type") != 1 or (b"content-encoding" in names and content_coding(lines)):
            return False
        if body_hints.media_type_of(lines[names.index(b"content-type")]) != body_hints.EVENT_STREAM:
            return False
        if key in b"\n".join(lines) or key in response.phrase:
            return False  # it is masked
        request.stream, request.head = True, b""
        request.first_byte_at = first = self._clock.seconds()
        request.attempt.responded(200, first)
        request.hop.accept_key(first)
        request.cache = cache = "disabled"
        if self._pipeline.cache is not None:
            request.cache = cache = "bypass"
            self._pipeline.cache.invalidate(
                flow.route, flow.session.grant, request.known.method, request.known.fields, response
            )
        stream, body_filter = DirectStream(request, self), _events_filter(request, key)
        if flow.dialect is not None:
            stream.meter = Meter(flow.dialect, lines, self._accounting.buffers, events=True)
            stream.tap = GatheringTap(stream.meter.feed)
            response.watch(stream.tap.feed)
        sender, out = self._pipeline.sender, fields.incoming(lines, own_cors=prepared.own_cors)
        out += prepared.cors_lines
        if request.reservation is not None:
            out = replace_rate_limits(out, request.reservation.header_lines, flow.route.api.provider)
        arrived, authorized, sent = request.arrived_at, request.authorized_at, request.sent_at
        out.append(sender.direct_lines(request.request_id, cache, arrived, authorized, sent, first, stream=True))
        stream.relay = sender.relay_to(
            stream,
            flow.route,
            request.arrived_at,
            stream=True,
            comments=True,
            body_filter=body_filter,
            on_end=stream.ended,
        )
        request.channel.hand_over(stream)
        stream.relay.carry(response, out)
        sender.pass_chunks(stream.relay, request.channel.write_soon, response, body_filter, stream.tap)
        return True

    def complete(self, stream: DirectStream, outcome: str) -> None:
        """Account for one that has ended so."""
        self.served += 1
        request = stream.request
        try:
            request.hop.leave()
            request.outcome, request.error = self._accounting.end_of(outcome, left=stream.left)
            request.response_bytes = stream.relay.count
            request.ended_at, request.measure = self._clock.seconds(), partial(_measure, stream.meter, stream.tap)
            if request.reservation is not None:  # its end is written already, and may wait for nothing else
                self._records.account((request,))
            elif not self._records.add(request):
                self._records.account_all()
            del stream.relay  # which knows it, too: nothing is to be left to the collector
        except Exception:  # neither its provider's connection nor its client's would know what to do with it
            _log.failure("A stream could not be accounted for.")


def _events_filter(request: DirectRequest, key: bytes) -> KeyFilter | None:
    """What the events of a stream must pass: as the pipeline has it."""
    mask = events_mask(key)
    if not request.usage_injected or request.known.flow.dialect is None:
        return mask
    swallowing = UsageEventFilter()
    return swallowing if mask is None else FilterChain(mask, swallowing)


def _measure(meter: Meter | None, tap: GatheringTap | None, request: DirectRequest) -> bool:
    """Find out what a request used; whether anybody can. Nothing here knows the stream, which knows the request."""
    if meter is None or tap is None:
        request.usage = NO_USAGE
        return False
    tap.show()
    request.usage = measured_usage(request, meter)
    return True
