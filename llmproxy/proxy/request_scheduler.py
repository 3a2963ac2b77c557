"""When requests begin that take the whole way: at once, or, where many come together, in turns that others get too."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from llmproxy import errors
from llmproxy.base.fair_queue import FairQueue
from llmproxy.instruments import Gauge, Instrument
from llmproxy.interfaces import IInstrumented
from llmproxy.proxy.accounting import Accounting
from llmproxy.proxy.context import RequestContext, RequestSender
from llmproxy.proxy.pipeline import Pipeline

# That requests may begin in, in one turn of the reactor: less than it takes to read those that came in it, so that who
# stands behind a crowd is seen before all of that has begun.
TURN_SECONDS = 0.0005

Serving = Callable[[RequestContext], Coroutine[Any, Any, None]]

_log = Logger()


@implementer(IInstrumented)
class RequestScheduler:
    """Begins requests, for no longer than L{TURN_SECONDS} in a turn of the reactor.

    Those that come when this time is over wait for the next turns. There, clients take turns, as in fair queueing: one
    that sends a thousand requests at once does not make another wait for all of them. How many can wait is bounded by
    the number of connections, for each has one request under way.
    """

    def __init__(self, pipeline: Pipeline, accounting: Accounting, clock: IReactorTime) -> None:
        self._pipeline = pipeline
        self._accounting = accounting
        self._clock = clock
        self._waiting: FairQueue[RequestSender, tuple[RequestContext, Serving]] = FairQueue()
        self._turn_ends = 0.0
        self._in_turn = False

    def instruments(self) -> Iterator[Instrument]:
        yield Gauge(
            "requests_waiting_to_begin",
            "Requests that wait for the reactor to have time for them.",
            lambda: len(self._waiting),
        )

    def begin(self, context: RequestContext, serve: Serving | None = None) -> None:
        """Serve a request, now or as soon as it is its client's turn.

        @param serve: Serves it, and never raises; the pipeline does where it is not there.
        """
        serve = serve or self._pipeline.serve
        if not self._in_turn:
            self._in_turn = True
            self._turn_ends = self._clock.seconds() + TURN_SECONDS
            self._clock.callLater(0, self._next_turn)
        elif self._waiting.owners or self._clock.seconds() > self._turn_ends:
            client, waiting = context.sender, (context, serve)
            self._waiting.push(client, waiting)
            context.request.on_gone = partial(self._client_left, client, waiting)
            return
        self._pipeline.start(context, serve(context))

    def _next_turn(self) -> None:
        if not self._waiting.owners:
            self._in_turn = False
            return
        self._turn_ends = self._clock.seconds() + TURN_SECONDS
        self._clock.callLater(0, self._next_turn)
        while self._waiting.owners and self._clock.seconds() <= self._turn_ends:
            context, serve = self._waiting.pop()
            context.mark("scheduler", self._clock.seconds())
            context.request.on_gone = None
            try:
                self._pipeline.start(context, serve(context))
            except Exception:  # the fault of one is none of the others'
                _log.failure("A request that waited could not begin.")

    def _client_left(self, client: RequestSender, waiting: tuple[RequestContext, Serving]) -> None:
        self._waiting.remove(client, waiting)
        context, _ = waiting
        context.mark("scheduler", self._clock.seconds())
        context.client_left = not self._pipeline.shutting_down
        self._accounting.begin()
        self._pipeline.start(context, self._pipeline.resume(context, errors.ClientGone(), None))
