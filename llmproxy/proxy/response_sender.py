"""Sends the client its response: the provider's own, or one from the cache, with the fields that this proxy adds."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

from twisted.internet.interfaces import IReactorTime

from llmproxy import errors
from llmproxy.caching import CachedResponse, CacheOutcome, Subscriber
from llmproxy.config.model import Server
from llmproxy.config.routes import Route
from llmproxy.http import body_hints, cors, error_body, fields
from llmproxy.http.masking import ErrorMask, FilterChain, KeyFilter, mask_plan
from llmproxy.limits import headers as limit_headers
from llmproxy.metering import injection
from llmproxy.proxy.context import RequestContext
from llmproxy.proxy.hit_response import HIT_TIMING
from llmproxy.wire.chunk_passing import MAX_UNSEEN_BYTES, ChunkPassing, GatheringTap
from llmproxy.wire.client.transport import Response
from llmproxy.wire.deadline import Deadlines, LateWatch
from llmproxy.wire.relay import BodyFilter, Downstream, Relay

CLIENT_STALL_TIMEOUT = 600.0  # seconds after which a client that takes nothing is cut, on a site that is not ours

# What the debugging fields say of a request that has nothing to do with the cache.
_CACHE_LINES = {
    "disabled": [b"X-Cache-Status: disabled", b"X-Cache-Debug: no cache", b"Cache-Status: llmproxy; fwd=bypass"],
    "bypass": [b"X-Cache-Status: bypass", b"X-Cache-Debug: bypass", b"Cache-Status: llmproxy; fwd=bypass"],
}
# This proxy's own lines of direct responses, with a place for the request's id, by whether they are streams.
_OWN_LINES = {False: b"X-Request-ID: %b", True: b"X-Request-ID: %b\r\nX-Accel-Buffering: no"}
NOT_SHOWN_SECONDS = 0.000_049  # are less than the half of what these times are rounded to
_TIMING_AT_ONCE = (
    b"X-Upstream-Response-Time: %.0f\r\nServer-Timing: auth;dur=0.0, queue;dur=0.0, upstream;dur=%.1f, proxy;dur=0.0"
)


@lru_cache(256)
def _own_debug_lines(cache: str | CacheOutcome, stream: bool) -> tuple[bytes, bytes]:
    """Those with debugging fields, which have a place for what L{timing_lines} says, too; and with what that says of a
    request that was sent at once, with a place for each of two times."""
    own, told = _OWN_LINES[stream], _CACHE_LINES[cache] if isinstance(cache, str) else cache.debug_headers()
    return b"\r\n".join([own, *told, b"%b"]), b"\r\n".join([own, *told, _TIMING_AT_ONCE])


class ResponseSender:
    """Begins the client's response, and carries its body until that has ended, one way or the other.

    @ivar debug_headers: Whether fields are added that tell what came of the request.
    """

    def __init__(self, server: Server, clock: IReactorTime) -> None:
        self.debug_headers = server.debug_headers
        self._clock = clock
        self._deadlines = Deadlines(clock)
        self._late = LateWatch(clock)

    def send_cached(self, context: RequestContext, cached: CachedResponse) -> None:
        """Write all of a response that the cache has at once."""
        context.relay = cached
        context.status, context.stream, context.outcome = cached.code, cached.entry.stream, "complete"
        lines = self._add_own_headers(context, cached.lines)
        context.request.respond(cached.code, cached.phrase, lines, cached.length, cached.body)

    async def relay(
        self, context: RequestContext, response: Response | Subscriber | CachedResponse, key: bytes | None
    ) -> None:
        """Send a response as it arrives.

        @param key: The provider's, to be masked in the body; C{None} where it has been.
        """
        request, route = context.request, context.route
        assert route is not None
        context.stream = body_hints.is_stream_response(response.lines) or (
            response.code < 400 and context.expects_stream
        )
        lines, body_filter = _filtered(context, route, response, key)
        context.relay = relay = self.relay_to(
            request,
            route,
            context.arrived_at,
            stream=context.stream,
            comments=_takes_comments(context, response.lines),
            body_filter=body_filter,
        )
        context.status = response.code
        lines = fields.incoming(lines, own_cors=bool(route.api.allowed_origins))
        relay.carry(response, self._add_own_headers(context, lines))
        if context.stream and not relay.outcome:
            if isinstance(response, Response) and body_hints.is_event_stream(response.lines):
                self.pass_chunks(relay, request.write_chunk, response, body_filter)
            if context.on_stream is not None:
                context.on_stream(context)
        context.outcome = relay.outcome or await relay.done

    def relay_to(
        self,
        downstream: Downstream,
        route: Route,
        arrived: float,
        *,
        stream: bool,
        comments: bool,
        body_filter: BodyFilter | None,
        on_end: Callable[[str], object] | None = None,
    ) -> Relay:
        """A relay that holds to what the API's settings say.

        @param arrived: When the request came, by the clock.
        @param comments: Whether comments may be put into the response.
        """
        api, timeouts = route.api, route.api.timeouts
        total = timeouts.stream if stream else timeouts.request
        return Relay(
            downstream,
            self._clock,
            idle=timeouts.idle if stream else 0.0,
            stalled=0.0 if downstream.paced else CLIENT_STALL_TIMEOUT,
            deadline=arrived + total if total else None,
            flush_interval=timeouts.flush_interval,
            heartbeat=api.heartbeat if comments else 0.0,
            drain=timeouts.drain if api.on_client_abort == "drain" else 0.0,
            body_filter=body_filter,
            on_end=on_end,
            deadlines=self._deadlines,
            late=self._late,
        )

    def pass_chunks(
        self,
        relay: Relay,
        write: Callable[[bytes], bool | None],
        response: Response,
        body_filter: BodyFilter | None,
        tap: GatheringTap | None = None,
    ) -> None:
        """Have a stream that is relayed passed on without being taken apart, where that is all the same.

        @param write: As in L{ChunkPassing}.
        @param body_filter: The relay's.
        @param tap: The response's, where it may see later what has passed.
        """
        if relay.is_plain and (body_filter is None or isinstance(body_filter, ErrorMask)):
            unseen_bytes = 0 if tap is None else MAX_UNSEEN_BYTES
            tap = tap or GatheringTap(response.tap)
            passing = ChunkPassing(relay, write, tap, body_filter, self._clock.seconds, unseen_bytes)
            response.offer_chunks(passing.take)

    def _add_own_headers(self, context: RequestContext, lines: list[bytes]) -> list[bytes]:
        """The fields that pass, and this proxy's own."""
        route, charge = context.route, context.charge
        assert route is not None
        if route.api.allowed_origins:
            lines += cors.response_lines(context.request.lines, route.api.allowed_origins)
        if charge is not None and charge.reservation is not None:
            lines = limit_headers.replace_rate_limits(lines, charge.reservation.header_lines, route.api.provider)
        lines.append(b"X-Request-ID: " + context.request_id.encode())
        if context.stream:
            lines.append(b"X-Accel-Buffering: no")
        if self.debug_headers:
            lines += _CACHE_LINES[context.cache] if context.lookup is None else context.lookup.outcome.debug_headers()
            lines += self._timing_headers(context)
        return lines

    def _timing_headers(self, context: RequestContext) -> list[bytes]:
        arrived, authorized = context.arrived_at, context.authorized_at
        started, first = context.upstream_started, context.first_byte_at
        assert authorized is not None
        if started is None or first is None:
            return [HIT_TIMING % ((authorized - arrived) * 1000, (self._clock.seconds() - authorized) * 1000)]
        return [timing_lines(arrived, authorized, started, first)]

    def direct_lines(
        self,
        request_id: str,
        cache: str | CacheOutcome,
        arrived: float,
        authorized: float,
        sent: float,
        first: float,
        *,
        stream: bool,
    ) -> bytes:
        """This proxy's own lines of a direct response, in one line's place; as L{_add_own_headers} has them.

        @param cache: What came of the request at the cache, or why it had nothing to do with that.
        @param arrived: When its request did, by the clock; then when it was C{authorized} and C{sent}, and when the
            C{first} byte of the response came.
        """
        if not self.debug_headers:
            return _OWN_LINES[stream] % request_id.encode()
        upstream = (first - sent) * 1000
        lines, lines_at_once = _own_debug_lines(cache, stream)
        if sent - arrived < NOT_SHOWN_SECONDS:  # as almost always
            return lines_at_once % (request_id.encode(), upstream, upstream)
        return lines % (request_id.encode(), timing_lines(arrived, authorized, sent, first))


def timing_lines(arrived: float, authorized: float, started: float, first: float) -> bytes:
    """The fields that tell where the time went: two, in one line's place. All by one clock's seconds."""
    upstream = (first - started) * 1000
    return (
        b"X-Upstream-Response-Time: %.0f\r\n"
        b"Server-Timing: auth;dur=%.1f, queue;dur=%.1f, upstream;dur=%.1f, proxy;dur=%.1f"
        % (
            upstream,
            (authorized - arrived) * 1000,
            (started - authorized) * 1000,
            upstream,
            (started - arrived) * 1000,
        )
    )


def _takes_comments(context: RequestContext, lines: list[bytes]) -> bool:
    """Whether a response is a stream of events into which something can be put."""
    coding = fields.values(lines, b"content-encoding")
    return context.request.method != b"HEAD" and body_hints.is_event_stream(lines) and coding in ([], [b"identity"])


def _filtered(
    context: RequestContext, route: Route, response: Response | Subscriber | CachedResponse, key: bytes | None
) -> tuple[list[bytes], KeyFilter | None]:
    """The response's lines, and what its body must pass: without the provider's key, and without what the client did
    not ask for.
    """
    lines, body_filter = response.lines, None
    if key is not None and context.request.method != b"HEAD":
        notice = partial(_withheld, response.code, route, context.request_id)
        lines, body_filter = mask_plan(response.code, lines, key, notice, stream=context.stream, whole=response.whole)
    is_cut = context.usage_injected and context.stream and response.code < 400 and context.meter is not None
    if is_cut and isinstance(response, Response):
        swallowing = injection.UsageEventFilter()
        body_filter = swallowing if body_filter is None else FilterChain(body_filter, swallowing)
    return lines, body_filter


def _withheld(code: int, route: Route, request_id: str) -> bytes:
    """What stands for an error that cannot be looked into."""
    return error_body.render(errors.UpstreamErrorWithheld(code), error_body.error_format_of(route.api), request_id)[1]
