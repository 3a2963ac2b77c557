"""Parts of the tree that are made when somebody asks for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET
from twisted.web.server import Request as TwistedRequest

from llmproxy.proxy.own_response import HYBRID, refuse
from llmproxy.web.respond import identify
from llmproxy.wire.server.site import Request
from llmproxy.wire.server.twisted_adapter import adapt


class LateResource(Resource):
    """Stands for a resource that is made for its first request, and answers all requests as that does.

    Requests that come while it is made wait for it; where a client leaves meanwhile, nothing is done for it. Where it
    cannot be made they are refused, and the next one tries again.
    """

    isLeaf = True

    def __init__(self, make: Callable[[], Awaitable[IResource]], flavour: str = HYBRID) -> None:
        """
        @param make: Makes a resource that answers each request by itself: its C{render} returns C{NOT_DONE_YET}.
        @param flavour: How those are refused that ask for it while it cannot be made.
        """
        Resource.__init__(self)
        self._make = make
        self._flavour = flavour
        self._made: IResource | None = None
        self._waiting: list[tuple[TwistedRequest, Request]] = []

    def render(self, request: TwistedRequest) -> int:
        if self._made is not None:
            self._made.render(request)
            return NOT_DONE_YET
        self._waiting.append((request, adapt(request)))
        if len(self._waiting) == 1:
            Deferred.fromCoroutine(self._answer_waiting())
        return NOT_DONE_YET

    async def _answer_waiting(self) -> None:
        problem: Exception | None = None
        try:
            made = self._made = await self._make()
        except Exception as e:  # there is nobody else who could answer
            problem = e
        waiting, self._waiting = self._waiting, []
        for request, writable in waiting:
            if writable.gone:
                continue
            try:
                if problem is not None:
                    raise problem
                made.render(request)
            except Exception as e:  # the others that wait are to be answered all the same
                refuse(writable, e, self._flavour, identify(request))
