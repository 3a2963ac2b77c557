"""Serves requests whose head has a flow, as long as nothing about them is unusual."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from llmproxy import errors
from llmproxy.caching import CacheLookup
from llmproxy.config.routes import Route
from llmproxy.http import fields
from llmproxy.http.field_lines import FieldLines
from llmproxy.instruments import Counter, Gauge, Instrument
from llmproxy.interfaces import IInstrumented
from llmproxy.proxy.accounting import Accounting
from llmproxy.proxy.context import Charge, RequestContext
from llmproxy.proxy.fast_path.arriving import ArrivingRequest
from llmproxy.proxy.fast_path.direct import DirectPath
from llmproxy.proxy.fast_path.direct_request import DirectRequest
from llmproxy.proxy.fast_path.flow import CacheableHead, Flow, FlowTable, Sending, holes_in
from llmproxy.proxy.fast_path.head_shape import HOLES, HeadShape
from llmproxy.proxy.fast_path.next_hop import NextHop
from llmproxy.proxy.fast_path.outgoing_head import OutgoingHead
from llmproxy.proxy.fast_path.request_identity import RequestIdentity
from llmproxy.proxy.outgoing_fields import outgoing_lines
from llmproxy.proxy.pipeline import Pipeline, SentOutcome
from llmproxy.proxy.request_scheduler import RequestScheduler
from llmproxy.upstream.provider_keys import ProviderKey
from llmproxy.upstream.upstreams import Upstream, Upstreams
from llmproxy.wire.client.agent import Agent
from llmproxy.wire.client.request_writer import BytesBody
from llmproxy.wire.client.response import Response
from llmproxy.wire.parser import RequestHead, connection_options
from llmproxy.wire.server.request import Request
from llmproxy.wire.server.request_body import RequestBody

MAX_HOPS = 16  # that the requests of a flow may have to choose from
# Fields of a request by which something is decided that a flow does not hold.
_UNUSUAL = frozenset(b"expect range content-encoding transfer-encoding".split())
# What clients say of their connection that has no meaning here but for C{close}: a switch to HTTP/2 is not taken up.
_USUAL_OPTIONS = frozenset(b"keep-alive close te upgrade http2-settings".split())


@implementer(IInstrumented)
class FastPath:
    """Sends the requests of flows, and leaves whatever is unusual about them or their responses to the pipeline.

    @ivar direct: Serves them.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        scheduler: RequestScheduler,
        accounting: Accounting,
        upstreams: Upstreams,
        agents: dict[str, tuple[Agent, ...]],
        clock: IReactorTime,
        holes: frozenset[bytes] = frozenset(),
    ) -> None:
        """
        @param agents: By the name of the API whose upstreams they reach.
        @param holes: Names of fields that differ by request and change nothing but what is recorded of it, in lower
            case.
        """
        self.table = FlowTable()
        self.direct: DirectPath | None = None
        self._pipeline = pipeline
        self._scheduler = scheduler
        self._accounting = accounting
        self._upstreams = upstreams
        self._agents = agents
        self._clock = clock
        self.reconfigure(holes)

    def reconfigure(self, holes: frozenset[bytes]) -> None:
        """Forget all flows, and look for these holes from now on."""
        self._varying = HOLES | holes
        self.table.expect(self._varying)

    def instruments(self) -> Iterator[Instrument]:
        yield Counter("fast_path_requests", "Requests that went the short way.", lambda: self.served)
        yield Gauge("fast_path_flows", "Heads of requests that it knows.", lambda: len(self.table))

    @property
    def served(self) -> int:
        """Requests that went all of their way here."""
        return 0 if self.direct is None else self.direct.served

    def serve_directly(self, identity: RequestIdentity) -> DirectPath:
        """Serve those directly that allow it, under the names that C{identity} gives them."""
        self.direct = DirectPath(self.table, self._pipeline, self._accounting, self, self._clock, identity)
        return self.direct

    def close(self) -> None:
        """Leave no timer behind."""
        if self.direct is not None:
            self.direct.close()

    # Learning

    def _learn(self, context: RequestContext) -> None:
        """A request has gone all the way through the pipeline: the next with its head may take the short one."""
        request, filled = context.request, context.request.known_head
        known = filled.known if filled is not None and filled.known.current else None
        if known is not None and (known.flow.sending is not None or context.response is None):
            return
        if not self._may_learn(context):
            return
        lines = [b"%b %b HTTP/1.1" % (request.method, request.uri), *request.lines]
        shape = self.table.shape_due(lines) if known is None else known.shape
        if shape is None or _was_emptied(shape, lines, context.lines or ()):
            return
        flow = self._flow(context, lines, shape.holes)
        if flow is None:
            return
        if known is not None:  # which is known from hits alone
            self.table.drop(known)
        self.table.put(shape, lines, request.lines.names, flow)

    def _may_learn(self, context: RequestContext) -> bool:
        """Whether the next request with its head is decided on as this one was."""
        if not _is_usual(context) or not self._is_current(context):
            return False
        assert context.grant is not None and context.route is not None
        if context.lookup is not None:
            if self._pipeline.cache is None or not self._pipeline.cache.is_local:
                return False
        elif self._pipeline.may_be_cached(context):
            return False  # its body was none for the cache, but that of the next one may be
        return not self._pipeline.policy.varies_with(self._varying, context.grant, context.route)

    def _is_current(self, context: RequestContext) -> bool:
        """Whether what the request found is still what the next one finds: its settings may have been reloaded, or its
        provider taken out of service, while it was under way."""
        route = context.route
        if route is None or not self._pipeline.is_followed(route):
            return False
        sole = self._upstreams.of(route.api_name).sole  # of several, each request looks at the state
        return sole is None or sole.state == "enabled"

    def _flow(self, context: RequestContext, lines: list[bytes], holes: tuple[tuple[int, bytes], ...]) -> Flow | None:
        route, session, lookup = context.route, context.session, context.lookup
        assert route is not None and session is not None
        sending = cacheable = None
        if lookup is not None:
            filled = holes_in(lookup.request.lines, lines, holes)
            if filled is None:
                return None
            cacheable = CacheableHead(lookup.request, filled)
        if context.response is not None:
            sending = self._sending(context, route, lines, holes)
            if sending is None:
                return None
        return Flow(session, route, context.dialect, context.operation, context.limits, sending, cacheable)

    def _sending(
        self, context: RequestContext, route: Route, lines: list[bytes], holes: tuple[tuple[int, bytes], ...]
    ) -> Sending | None:
        """How requests with this head go to their provider; C{None} where that is not clear."""
        group, keys = self._upstreams.of(route.api_name), context.provider_keys or ()
        places = [(upstream, key) for upstream in group.members for key in keys]
        if not 0 < len(places) <= MAX_HOPS:
            return None
        hops = [self._hop(context, lines, holes, *place) for place in places]
        return None if None in hops else Sending(keys, tuple(filter(None, hops)), group)

    def _hop(
        self,
        context: RequestContext,
        lines: list[bytes],
        holes: tuple[tuple[int, bytes], ...],
        upstream: Upstream,
        key: ProviderKey,
    ) -> NextHop | None:
        """One of those where requests with this head may go; C{None} where it is not clear what would be sent there."""
        route, grant = context.route, context.grant
        assert route is not None and grant is not None
        target = upstream.target(route.path, route.query)
        request_line = b"%b %b HTTP/1.1" % (context.request.method, target)
        injects = self._pipeline.bodies.needs(grant, route, context.operation, context.limits).injects
        heads = []
        for is_uncoded in (False, True) if injects else (False,):
            sent = [request_line, *outgoing_lines(context, upstream, key, is_uncoded=is_uncoded)]
            filled = holes_in(sent, lines, holes)
            if filled is None:
                return None
            heads.append(OutgoingHead(sent, filled, names_client=route.api.forward_client_ip))
        state = self._upstreams.keys.of(route.api_name, upstream.base_url, grant.project_id, key.value)
        pool = self._agents[route.api_name][upstream.number].pool(upstream.origin)
        return NextHop(upstream, key, state, heads[0], heads[1] if injects else None, pool)

    # Serving

    def start(self, context: RequestContext) -> None:
        """Serve a request by the pipeline, and learn from it."""
        self._scheduler.begin(context, self._pipeline_then_learn)

    async def _pipeline_then_learn(self, context: RequestContext) -> None:
        """A stream may take minutes, and all is known of its head when it has begun."""
        context.on_stream = self._learn_from_stream
        await self._pipeline.serve(context)
        if context.on_stream is not None:
            self._learn(context)

    def _learn_from_stream(self, context: RequestContext) -> None:
        if context.lookup is None:
            context.on_stream = None
            self._learn(context)

    # Direct requests that turn out to be unusual

    def take_response(self, request: DirectRequest, response: Response, gone: Failure | None = None) -> None:
        """One that is not there at once, or says something else than 200; C{gone}: whose client has left."""
        context = self._context(request, gone=gone is not None)
        if gone is not None:
            context.client_left = not self._pipeline.shutting_down
            context.request.connectionLost(gone)
        request.attempt.responded(response.code, self._clock.seconds())
        request.hop.leave()
        self._go_on(context, request, response)

    def take_joined(self, request: DirectRequest, outcome: Deferred[Response | BaseException]) -> None:
        """One for whose response others wait, too."""
        self._go_on(self._context(request), request, outcome)

    def take_failure(self, request: DirectRequest, error: BaseException) -> None:
        """There is no response. The pipeline tries again where it would, or refuses."""
        self._fail(self._context(request), request, error)

    def take_leaving(self, request: DirectRequest, reason: Failure) -> None:
        context = self._context(request, gone=True)
        context.client_left = not self._pipeline.shutting_down
        request.give_up()
        context.request.connectionLost(reason)
        self._fail(context, request, CancelledError())

    def take_unread(self, request: ArrivingRequest, request_id: str, client: str) -> None:
        """One whose body did not come, or is not usual."""
        context = self._new_context(request, request.head, request.upload, request_id, client, stalled=request.stalled)
        request.channel.hand_over(context.request)
        self.start(context)

    def take_abandoned(self, request: ArrivingRequest, request_id: str, client: str, reason: Failure) -> None:
        """Before it had said what it wants: nobody is asked."""
        context = self._new_context(request, request.head, request.upload, request_id, client, stalled=request.stalled)
        request.known.flow.decide(context)
        self._accounting.begin()
        context.request.connectionLost(reason)
        self._pipeline.start(context, self._pipeline.resume(context, errors.ClientGone(), None))

    def take_undecided(self, request: DirectRequest, request_id: str, client: str) -> None:
        """One that cannot be sent at once: its limits are asked, or asked again."""
        context = self._waiting(request, request_id, client)
        request.channel.hand_over(context.request)
        self.start(context)

    def take_refused(self, request: DirectRequest, request_id: str, client: str, error: BaseException) -> None:
        """One that its limits do not admit."""
        context = self._waiting(request, request_id, client)
        request.channel.hand_over(context.request)
        self._end(context, request, error)

    def take_left(self, request: DirectRequest, request_id: str, client: str, reason: Failure) -> None:
        """One whose client has not waited until it was sent."""
        context = self._waiting(request, request_id, client)
        context.request.connectionLost(reason)
        self._end(context, request, errors.ClientGone())

    def _waiting(self, request: DirectRequest, request_id: str, client: str) -> RequestContext:
        self._leave_cache(request)
        body = request.received
        upload = RequestBody.of(body, request.channel.limits.messages.body, self._accounting.buffers)
        head = request.known.parsed(request.filled, len(body))
        return self._new_context(request, head, upload, request_id, client, stalled=request.stalled)

    def _end(self, context: RequestContext, request: DirectRequest, error: BaseException) -> None:
        """End one that was not sent."""
        body, since = request.received, request.waits_since or self._clock.seconds()
        request.known.flow.decide(context)
        self._pipeline.bodies.observe_read(context, body, request.content)
        context.body, context.charge, context.authorized_at = BytesBody(body), Charge(), since
        context.mark("auth", since)
        context.under_way = "turn"
        self._accounting.begin()
        self._pipeline.start(context, self._pipeline.resume(context, error, None, self._lookup(request)))

    def _context(self, direct: DirectRequest, *, gone: bool = False) -> RequestContext:
        """What the pipeline would know of it.

        @param gone: Whether its client has left, so that its connection knows it no more.
        """
        known, channel = direct.known, direct.channel
        self._leave_cache(direct)
        self._accounting.write_openings()  # it may be sent by others from now on
        direct.release()
        head = known.parsed(direct.filled, len(direct.received))
        upload = RequestBody.of(direct.received, channel.limits.messages.body, direct.buffers)
        context = self._new_context(direct, head, upload, direct.request_id, direct.client, stalled=direct.stalled)
        request = context.request
        request.booked_first = direct.reservation is not None
        if not gone:
            channel.hand_over(request)
        known.flow.decide(context)
        context.provider_key = direct.hop.key
        self._pipeline.bodies.observe_read(context, direct.received, direct.content)
        context.body, context.charge = BytesBody(direct.whole), Charge()
        context.usage_injected = direct.usage_injected
        charge = context.charge
        charge.reservation, charge.slot, charge.ledger_id = direct.reservation, direct.slot, direct.ledger_id
        context.authorized_at, context.upstream_started = direct.authorized_at, direct.sent_at
        context.request_sent, context.attribution = True, direct.facts.attribution
        if direct.sent_at > direct.authorized_at:
            context.mark("auth", direct.authorized_at)
            context.mark("turn", direct.sent_at)
        return context

    def _new_context(
        self,
        before: DirectRequest | ArrivingRequest,
        head: RequestHead,
        upload: RequestBody,
        request_id: str,
        client: str,
        *,
        stalled: bool,
    ) -> RequestContext:
        request = Request(before.channel, head, upload)
        request.stalled = stalled
        return RequestContext(request, request_id, client, before.started_at, before.arrived_at)

    def _fail(self, context: RequestContext, request: DirectRequest, error: BaseException) -> None:
        request.attempt.failed(error, self._clock.seconds())
        request.hop.leave()
        self._go_on(context, request, error)

    def _go_on(self, context: RequestContext, request: DirectRequest, outcome: SentOutcome) -> None:
        upstream = request.hop.upstream
        self._pipeline.start(context, self._pipeline.resume(context, outcome, upstream, self._lookup(request)))

    def _leave_cache(self, request: DirectRequest) -> None:
        """It is no call of its own any more that others may join."""
        if request.fill is not None and self._pipeline.cache is not None:
            self._pipeline.cache.end_sole(request.fill, request)

    @staticmethod
    def _lookup(request: DirectRequest) -> CacheLookup | None:
        """How it deals with the cache from now on; C{None} where it does not."""
        if request.fill is None:
            return None
        lookup = CacheLookup(request.fill)
        lookup.storable = request.storable
        return lookup


def _is_usual(context: RequestContext) -> bool:
    """Whether all that was decided on a request is what will be decided on the next one with its head."""
    request, route, session, grant = context.request, context.route, context.session, context.grant
    if route is None or session is None or grant is None:
        return False
    answered = context.response is not None and context.provider_key is not None
    if not answered and (context.lookup is None or context.lookup.outcome.status != "hit"):
        return False  # it was another's, or none
    decided_anew = (
        context.background
        or (context.operation.deferred is not None and not context.operation.deferred_in_background)
        or context.result_id
        or not session.key
        or grant.project_active is not True
        or request.minor != 1
        or request.method != b"POST"
    )
    return not decided_anew and context.status == 200 and _has_usual_fields(request.lines)


def _has_usual_fields(lines: FieldLines) -> bool:
    """Whether a head means nothing beyond what a flow holds: its connection is kept, as many say anyway, or closed."""
    return _UNUSUAL.isdisjoint(lines.names) and _USUAL_OPTIONS.issuperset(connection_options(lines))


def _was_emptied(shape: HeadShape, lines: Sequence[bytes], kept: Sequence[bytes]) -> bool:
    """Whether a field with a hole that passes was taken out for what stands in it, which another's need not hold.

    @param lines: The client's head; C{kept}: its field lines without credentials.
    """
    for at, name in shape.holes:
        lower = name.lower()
        if (
            lower != b"cookie" and fields.passes(lower) and lines[at] not in kept
        ):  # a cookie that has a hole never passes
            return True
    return False
