"""Serves requests whose head has a flow, as long as nothing about them is unusual."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from llmproxy import errors
from llmproxy.http.field_lines import FieldLines
from llmproxy.http.request_reader import MAX_WHOLE_BYTES
from llmproxy.instruments import Counter, Gauge, Instrument
from llmproxy.interfaces import IInstrumented
from llmproxy.proxy.accounting import Accounting
from llmproxy.proxy.context import Charge, RequestContext
from llmproxy.proxy.fast_path.call import FastCall
from llmproxy.proxy.fast_path.direct import DirectPath, RequestIdentity
from llmproxy.proxy.fast_path.direct_request import DirectRequest
from llmproxy.proxy.fast_path.flow import CacheableHead, Flow, FlowTable, KnownHead, OutgoingHead, Sending, holes_in
from llmproxy.proxy.fast_path.head_shape import HOLES, head_shape
from llmproxy.proxy.pipeline import Pipeline
from llmproxy.proxy.request_scheduler import RequestScheduler
from llmproxy.upstream.upstreams import Upstreams
from llmproxy.wire.client.agent import Agent
from llmproxy.wire.client.request_writer import BytesBody
from llmproxy.wire.client.response import Response
from llmproxy.wire.server.request import Request
from llmproxy.wire.server.request_body import RequestBody

BODY_PATIENCE_SECONDS = 0.05  # of silence while a body is on its way; then it is streamed as any other
MAX_BODY_LOOKS = 20  # how often that is looked at, so that no body is waited for for longer than a second

# Fields of a request by which something is decided that a flow does not hold.
_UNUSUAL = frozenset(b"expect origin range content-encoding transfer-encoding upgrade".split())


@implementer(IInstrumented)
class FastPath:
    """Sends the requests of flows, and leaves whatever is unusual about them or their responses to the pipeline.

    @ivar served: Requests that went all of their way here.
    @ivar direct: Serves what needs no context.
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
        self.served = 0
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
        self._holes, self._varying = holes, HOLES | holes
        self.table.clear()

    def instruments(self) -> Iterator[Instrument]:
        yield Counter("fast_path_requests", "Requests that went the short way.", lambda: self.all_served)
        yield Gauge("fast_path_flows", "Heads of requests that it knows.", lambda: len(self.table))

    @property
    def all_served(self) -> int:
        """Likewise, with those that were served directly."""
        return self.served + (0 if self.direct is None else self.direct.served)

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
        request = context.request
        if request.known_head is not None or not _is_usual(context) or not self._is_current(context):
            return
        assert context.grant is not None and context.route is not None
        if self._pipeline.policy.varies_with(self._varying, context.grant, context.route):
            return
        lines = [b"%b %b HTTP/1.1" % (request.method, request.uri), *request.lines]
        shape = head_shape(lines, self._holes)
        if shape is not None and self.table.is_due(shape, lines):
            flow = self._flow(context, lines, shape.holes)
            if flow is not None:
                self.table.put(shape, lines, request.lines.names, flow)

    def _is_current(self, context: RequestContext) -> bool:
        """Whether what the request found is still what the next one finds: its settings may have been reloaded, or its
        provider taken out of service, while it was under way."""
        route = context.route
        return (
            route is not None
            and self._pipeline.is_followed(route)
            and all(each.state == "enabled" for each in self._upstreams.of(route.api_name).members)
        )

    def _flow(self, context: RequestContext, lines: list[bytes], holes: tuple[tuple[int, bytes], ...]) -> Flow | None:
        route, session, lookup = context.route, context.session, context.lookup
        assert route is not None and session is not None
        way: Sending | CacheableHead
        if lookup is not None:
            filled = holes_in(lookup.request.lines, lines, holes)
            way = CacheableHead(lookup.request, filled or ())
        else:
            group = self._upstreams.of(route.api_name)
            keys, upstream = context.provider_keys, group.sole
            if keys is None or len(keys) > 1 or upstream is None:
                return None  # each request has a choice to make
            sent = [b"%b %b HTTP/1.1" % (context.request.method, route.target), *(context.outgoing_lines or ())]
            filled = holes_in(sent, lines, holes)
            pool = self._agents[route.api_name][0].pool(upstream.origin)
            way = Sending(keys, OutgoingHead(sent, filled or ()), pool, upstream, group)
        if filled is None:
            return None
        return Flow(session, route, context.dialect, context.operation, context.limits, way)

    # Serving

    def start(self, context: RequestContext) -> None:
        """Serve a request, whichever way that goes."""
        known, upload = context.request.known_head, context.request.upload
        if known is None:
            self._serve_in_full(context)
        elif upload.received is not None:
            if not self._serve(context, *known):
                self._serve_in_full(context)
        elif _may_be_awaited(upload) and known[0].flow.session.is_current():
            _AwaitedBody(context, self._clock, self._body_came)  # clients often send head and body one after the other
        else:
            self._serve_in_full(context)

    def _body_came(self, context: RequestContext) -> None:
        known, holes = context.request.known_head
        if context.request.gone:  # before it had said what it wants: nobody is asked
            known.flow.decide(context)
            self._accounting.begin()
            self._pipeline.start(context, self._pipeline.resume(context, errors.ClientGone(), None))
        elif not self._serve(context, known, holes):
            self._serve_in_full(context)

    def _serve_in_full(self, context: RequestContext) -> None:
        self._scheduler.begin(context, self._pipeline_then_learn)

    async def _pipeline_then_learn(self, context: RequestContext) -> None:
        await self._pipeline.serve(context)
        self._learn(context)

    def _serve(self, context: RequestContext, known: KnownHead, holes: list[bytes]) -> bool:
        """Serve the request; C{False} where it is for the pipeline to do so, and nothing has been done."""
        flow, body = known.flow, context.request.upload.received
        if body is None or len(body) > MAX_WHOLE_BYTES or self._pipeline.shutting_down:
            return False
        if not flow.session.is_current():
            self.table.drop(known)
            return False
        flow.decide(context)
        try:
            if not self._pipeline.prepare_now(context, body):
                return _undecided(context)
            context.authorized_at = self._clock.seconds()
            if isinstance(flow.way, Sending):
                return self._send(context, known, flow.way, body, holes)
            if not self._pipeline.send_cached_now(context, flow.way.fill(holes), body):
                return _undecided(context)
        except errors.ProxyError:
            return _undecided(context)  # the pipeline says so in its own way
        self.served += 1
        self._accounting.finish_now(context)
        return True

    def _send(self, context: RequestContext, known: KnownHead, way: Sending, body: bytes, holes: list[bytes]) -> bool:
        """Send the request to its provider; C{False} and errors as in L{_serve}."""
        flow, now = known.flow, self._clock.seconds()
        project = flow.session.grant.project_id
        if not self._pipeline.is_current(flow.session.grant, flow.route, way.provider_keys):
            self.table.drop(known)
            return _undecided(context)
        attempt = way.upstream.circuits.enter(project, now)
        connection = way.pool.take()
        if connection is None or not self._accounting.charge_now(context):
            if connection is not None:
                way.pool.on_idle(connection)
            self._accounting.uncharge(context)
            attempt.failed(CancelledError(), now)  # it is no verdict
            return _undecided(context)
        self._accounting.begin()
        if way.group.causes:
            way.group.budget.deposit(now)
        context.upstream_started = self._clock.seconds()
        context.request_sent = True
        call = FastCall(self, context, flow, way.outgoing.render(holes, len(body)), BytesBody(body), attempt)
        timeouts = partial(self._pipeline.head_timeouts, context)
        call.timer = self._upstreams.watch_head(call, way.upstream, context.request.upload, timeouts)
        context.request.on_gone = partial(self._client_left, call)
        connection.send(call)
        return True

    def responded(self, call: FastCall, response: Response) -> None:
        """The head of the response has come, and usually all of it."""
        context, now = call.context, self._clock.seconds()
        self._upstreams.unwatch_head(call.timer)
        try:
            call.attempt.responded(response.code, now)
            if response.code >= 400:
                self._go_on(call, response)  # which may be sent again, and says something of the key
                return
            self._pipeline.receive(context, response, now)
            if not self._pipeline.send_now(context, response):
                self._go_on(call, None)
                return
        except Exception as e:  # its connection would not know what to do with it
            self._go_on(call, e)
            return
        self.served += 1
        context.request.on_gone = None
        self._accounting.finish_now(context)

    def failed(self, call: FastCall, error: BaseException) -> None:
        """There is no response. The pipeline tries again where it would, or refuses."""
        self._upstreams.unwatch_head(call.timer)
        call.attempt.failed(error, self._clock.seconds())
        self._go_on(call, error)

    # Direct requests that turn out to be unusual

    def take_response(self, request: DirectRequest, response: Response) -> None:
        self.responded(self._call(request), response)

    def take_failure(self, request: DirectRequest, error: BaseException) -> None:
        self.failed(self._call(request), error)

    def take_leaving(self, request: DirectRequest, reason: Failure) -> None:
        self._call(request, gone=True).context.request.connectionLost(reason)

    def _call(self, direct: DirectRequest, *, gone: bool = False) -> FastCall:
        """The call that it would have been.

        @param gone: Whether its client has left, so that its connection knows it no more.
        """
        known, channel = direct.known, direct.channel
        flow, body = known.flow, BytesBody(direct.whole)
        direct.release()
        head = direct.parsed or known.parse(b"%d" % len(direct.whole))
        upload = RequestBody.of(direct.whole, channel.limits.messages.body, direct.buffers)
        request = Request(channel, head, upload)
        request.stalled, request.booked_first = direct.stalled, direct.reservation is not None
        if not gone:
            channel.hand_over(request)
        context = RequestContext(request, direct.request_id, direct.client, direct.started_at, direct.arrived_at)
        flow.decide(context)
        self._pipeline.bodies.observe_read(context, direct.whole, direct.content)
        context.body, context.charge = body, Charge()
        charge = context.charge
        charge.reservation, charge.slot, charge.ledger_id = direct.reservation, direct.slot, direct.ledger_id
        context.authorized_at, context.upstream_started, context.request_sent = direct.arrived_at, direct.sent_at, True
        context.attribution = direct.facts.attribution
        call = FastCall(self, context, flow, direct.head, body, direct.attempt)
        call.holder, call.gone = direct.holder, direct.gone
        call.started, call.sent, call.repeated = direct.started, direct.sent, direct.repeated
        request.on_gone = partial(self._client_left, call)
        return call

    def _client_left(self, call: FastCall) -> None:
        call.context.client_left = not self._pipeline.shutting_down
        call.give_up()
        self.failed(call, CancelledError())

    def _go_on(self, call: FastCall, outcome: Response | BaseException | None) -> None:
        way = call.flow.way
        assert isinstance(way, Sending)
        self._pipeline.start(call.context, self._pipeline.resume(call.context, outcome, way.upstream))


class _AwaitedBody:
    """A body that comes behind its head: it is waited for, but for no longer than one that is on its way takes."""

    __slots__ = ("_call", "_clock", "_context", "_count", "_looks", "_timer")

    def __init__(self, context: RequestContext, clock: IReactorTime, call: Callable[[RequestContext], object]) -> None:
        self._context = context
        self._call = call
        self._clock = clock
        self._looks = 0
        self._count = context.request.upload.count
        self._timer = clock.callLater(BODY_PATIENCE_SECONDS, self._look)
        context.request.upload.when_over(self._over)

    def _look(self) -> None:
        """Wait on as long as it goes on."""
        before, self._count = self._count, self._context.request.upload.count
        self._looks += 1
        if self._looks >= MAX_BODY_LOOKS:
            self._over()
        elif self._count != before:
            self._timer = self._clock.callLater(BODY_PATIENCE_SECONDS, self._look)
        else:  # under load it may be there, and just not have been read
            self._timer = self._clock.callLater(0, self._over)

    def _over(self) -> None:
        self._context.request.upload.when_over(None)
        if self._timer.active():
            self._timer.cancel()
        self._call(self._context)


def _may_be_awaited(upload: RequestBody) -> bool:
    """Whether a body is to be had whole, and all of it may be held until then."""
    return isinstance(upload.length, int) and upload.length <= min(MAX_WHOLE_BYTES, upload.limit) and upload.hold_all()


def _undecided(context: RequestContext) -> bool:
    """Nothing has been decided on this request: the pipeline begins anew."""
    context.route = context.session = context.grant = context.dialect = context.limits = None
    context.provider_key = context.provider_keys = context.body = context.authorized_at = context.lookup = None
    context.outgoing_lines = None
    context.forget_body()
    return False


def _is_usual(context: RequestContext) -> bool:
    """Whether all that was decided on a request is what will be decided on the next one with its head."""
    request, route, session, grant = context.request, context.route, context.session, context.grant
    if route is None or session is None or grant is None:
        return False
    answered = context.response is not None and context.provider_key is not None
    if context.lookup is None and not answered:
        return False
    if context.lookup is not None and context.lookup.outcome.status != "hit":
        return False  # a head whose responses are never there would be looked up twice
    decided_anew = (
        context.background
        or context.usage_injected
        or context.operation.deferred is not None
        or context.result_id
        or not session.key
        or grant.project_active is not True
        or route.api.forward_client_ip
        or route.api.metering.include_usage == "inject"
        or request.minor != 1
        or request.method != b"POST"
    )
    return not decided_anew and context.status == 200 and _has_usual_fields(request.lines)


def _has_usual_fields(lines: FieldLines) -> bool:
    """Whether a head means nothing beyond what a flow holds: its connection is kept, as many say anyway, or closed."""
    options = (value.lower() for value in lines.values(b"connection"))
    return _UNUSUAL.isdisjoint(lines.names) and all(option in (b"keep-alive", b"close") for option in options)
