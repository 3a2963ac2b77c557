"""The Resource for everything that is proxied: hands each request on to be served, and notices clients that leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from llmproxy.http import fields
from llmproxy.http.forwarded import TrustedProxies
from llmproxy.proxy.context import RequestContext
from llmproxy.proxy.fast_path.service import FastPath
from llmproxy.proxy.request_scheduler import RequestScheduler
from llmproxy.wire.server.site import Request
from llmproxy.wire.server.twisted_adapter import adapt


class ProxyResource(Resource):
    """Forwards every request.

    @param fresh_id: Makes an id for a request whose client sent none.
    @param fast_path: Serves requests with heads that it knows, as far as it can.
    @param trusted_proxies: Addresses and networks whose C{X-Forwarded-For} is believed.
    """

    isLeaf = True
    starts_on_head = True

    def __init__(
        self,
        scheduler: RequestScheduler,
        *,
        clock: IReactorTime,
        now: Callable[[], float],
        fresh_id: Callable[[], str],
        trusted_proxies: Sequence[str] = (),
        fast_path: FastPath | None = None,
    ) -> None:
        Resource.__init__(self)
        self._fast_path = fast_path
        self.known_heads = None if fast_path is None else fast_path.table
        self._scheduler = scheduler
        self._clock = clock
        trusted = TrustedProxies(trusted_proxies)
        self.believes_proxies, self.client = bool(trusted), trusted.client
        self.now, self.fresh_id = now, fresh_id
        self.direct = None if fast_path is None else fast_path.serve_directly(self)

    def render(self, request: Request) -> int:
        """Twisted's entry: every method and every path comes here."""
        request = adapt(request)
        own_id = fields.request_id(request.lines)
        request_id = self.fresh_id() if own_id is None else own_id.decode("ascii")
        client = self.client(request.remote, request.lines)
        context = RequestContext(request, request_id, client, self.now(), self._clock.seconds())
        if self._fast_path is None:
            self._scheduler.begin(context)
        else:
            self._fast_path.start(context)
        return NOT_DONE_YET


def request_ids(random: Callable[[int], bytes]) -> Callable[[], str]:
    """Makes request ids: unguessable per process, and cheap; of lower-case hexadecimal digits and hyphens."""
    start, numbers = random(9).hex(), count(1)
    return lambda: f"{start}-{next(numbers):x}"
