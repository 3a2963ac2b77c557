"""The Resource for everything that is proxied: starts a request's pipeline, and sees to its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from llmproxy import errors
from llmproxy.config.routes import Routes
from llmproxy.http import cors, fields, refusals
from llmproxy.http.forwarded import client_address, networks
from llmproxy.ledger.records import Deferral
from llmproxy.model import RequestRecord
from llmproxy.proxy.context import RequestContext
from llmproxy.proxy.deferred_results import deferral
from llmproxy.proxy.pipeline import Pipeline
from llmproxy.web.respond import refuse
from llmproxy.wire.buffers import Buffers
from llmproxy.wire.relay import Relay
from llmproxy.wire.server.foreign_request import adapted
from llmproxy.wire.server.site import Request
from llmproxy.wire.write_coalescing import Turn

Observer = Callable[[RequestRecord], object]


class Counting(Protocol):
    """Counts requests: how many are under way, and how they ended."""

    def started(self) -> None: ...
    def ended(self) -> None: ...
    def observe(self, record: RequestRecord) -> None: ...


class Settling(Protocol):
    """The ledger: is told how a request ended, by the id of its line, or C{""} where it never left."""

    def settle(self, ledger_id: str, record: RequestRecord, sent: bool, deferral: Deferral | None) -> None: ...


# How a relay's end is told: outcome and error code of the record.
_ENDS = {
    "complete": ("complete", ""),
    "cancelled": ("cancelled", ""),
    "truncated": ("truncated", "upstream_truncated"),
    "silent": ("truncated", "upstream_timeout"),
    "late": ("truncated", "upstream_timeout"),
    "stalled": ("cancelled", "client_stalled"),
}


class ProxyResource(Resource):
    """Forwards whatever it is asked.

    @param observers: Told of every request once, when it is over; they must not raise.
    @param fresh_id: Makes an id for a request whose client sent none.
    @param ledger: Told of every request of a known token.
    @param endings: Where, under load, what is to be told of a request waits for the end of the reactor's turn.
    @param buffers: Says when too much is held for a further request.
    @param trusted_proxies: Addresses and networks whose C{X-Forwarded-For} is believed.
    """

    isLeaf = True
    starts_on_head = True

    def __init__(
        self,
        pipeline: Pipeline,
        routes: Routes,
        metrics: Counting,
        *,
        observers: Sequence[Observer],
        clock: IReactorTime,
        now: Callable[[], float],
        fresh_id: Callable[[], str],
        trusted_proxies: Sequence[str] = (),
        ledger: Settling | None = None,
        endings: Turn | None = None,
        buffers: Buffers | None = None,
    ) -> None:
        Resource.__init__(self)
        self._pipeline = pipeline
        pipeline.observer = self
        self._routes = routes
        self._counting = metrics
        self._observers = observers
        self._clock = clock
        self._now = now
        self._fresh_id = fresh_id
        self._trusted = networks(tuple(trusted_proxies))
        self._ledger = ledger
        self._endings = endings
        self._buffers = buffers
        self._shutting_down = False

    def shut_down(self) -> None:
        """What is cut from now on is cut by this process, because it ends."""
        self._shutting_down = True

    def render(self, request: Request) -> int:
        """Twisted's entry: every method and every path comes here."""
        request = adapted(request)
        given = fields.request_id(request.lines)
        request_id = self._fresh_id() if given is None else given.decode("ascii")
        self._counting.started()
        client = client_address(request.remote, request.lines, self._trusted)
        context = RequestContext(request, request_id, client, self._now(), self._clock.seconds())
        travelling = Deferred.fromCoroutine(self._travel(context))
        if not travelling.called:
            request.on_gone = partial(self._left, context, travelling)
        return NOT_DONE_YET

    def _left(self, context: RequestContext, travelling: Deferred[None]) -> None:
        """A client that leaves ends whatever its request is waiting for, but a provider that is to be heard out."""
        context.client_left = not self._shutting_down
        relay = context.relay
        if isinstance(relay, Relay) and relay.drains:
            relay.stopProducing()
        else:
            travelling.cancel()

    async def _travel(self, context: RequestContext) -> None:
        try:
            if self._buffers is not None:
                self._buffers.check()
            await self._pipeline.handle(context)
        except Exception as e:  # everything ends here, a cancelled wait included
            self._refused(e, context)
        context.request.on_gone = None  # it holds the context, which holds the request: the collector's work
        if context.result_collection is not None:
            await self._pipeline.collect(context)
        self.over(context)

    def _refused(self, error: Exception, context: RequestContext) -> None:
        request = context.request
        begun = request.begun
        if request.gone or isinstance(error, errors.ClientGone):
            context.outcome = "cancelled"
            return
        told = refuse(request, error, self._flavour(context), context.request_id, self._cors(context))
        if told is None:
            context.outcome = "cancelled"
            return
        context.error = told.code
        context.outcome = "failed" if told.status >= 500 else "refused"
        if not begun:
            context.status = told.status

    def begun(self, context: RequestContext) -> None:
        """The proxy makes a request of its own."""
        self._counting.started()

    def over(self, context: RequestContext) -> None:
        """A request is over, however it ended: tell everybody."""
        if context.relay is not None and context.outcome in _ENDS:
            context.outcome, error = _ENDS[context.outcome]
            context.error = context.error or error
        if self._shutting_down and (context.outcome, context.error, context.client_left) == ("cancelled", "", False):
            context.outcome, context.error = "truncated", "shutdown"
        if context.slot is not None:
            context.slot.leave()
        self._counting.ended()
        tell = partial(self._tell, context, self._clock.seconds())
        # What is reserved is given back at once; all else may wait a moment, and is cheaper together.
        if context.reservation is not None or self._endings is None or not self._endings.wait(tell):
            tell()

    def _tell(self, context: RequestContext, finished: float) -> None:
        record = context.record(finished)
        context.settle(record)
        if self._ledger is not None and context.grant is not None and not context.result_recorded:
            self._ledger.settle(context.ledger_id, record, context.request_sent, deferral(context))
        self._counting.observe(record)
        for observe in self._observers:
            observe(record)

    def _flavour(self, context: RequestContext) -> str:
        api = context.route.api if context.route else self._routes.api_of(context.request.uri)
        return "auto" if api is None else refusals.flavour_of(api)

    def _cors(self, context: RequestContext) -> list[bytes]:
        """A browser shows its page what went wrong only if the refusal says that it may."""
        if context.route is None or not context.route.api.allowed_origins:
            return []
        return cors.answer(context.request.lines, context.route.api.allowed_origins)
