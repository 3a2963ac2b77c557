"""The tree's root: ops pages, management, admin pages, and everything else to the proxy."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request

from llmproxy.errors import NotFound
from llmproxy.proxy.own_response import HYBRID, refuse
from llmproxy.web.respond import identify
from llmproxy.wire.server.twisted_adapter import adapt

OPS = frozenset(
    [
        b"/health",
        b"/healthz",
        b"/live",
        b"/livez",
        b"/ready",
        b"/readyz",
        b"/metrics",
        b"/metrics/prometheus",
    ]
)


class NotFoundResource(Resource):
    """404 in JSON, for every method and every path below."""

    isLeaf = True

    def __init__(self, flavour: str = HYBRID) -> None:
        Resource.__init__(self)
        self._flavour = flavour

    def render(self, request: Request) -> int:
        refuse(adapt(request), NotFound(), self._flavour, identify(request))
        return NOT_DONE_YET


class Root(Resource):
    """Decides on the raw path which part of the tree a request is for.

    C{/manage}, C{/admin} and the ops paths belong to this proxy on every listener: where their part is left out
    they are 404, and are never forwarded to a provider.

    @param ops: Pages by their exact path, as L{llmproxy.web.ops.pages} makes them.
    """

    isLeaf = False

    def __init__(
        self,
        *,
        proxy: IResource | None = None,
        manage: IResource | None = None,
        admin: IResource | None = None,
        ops: Mapping[bytes, IResource] | None = None,
    ) -> None:
        Resource.__init__(self)
        self.known_heads = getattr(proxy, "known_heads", None)  # the channel asks before it parses one
        self.direct = getattr(proxy, "direct", None)
        nothing = NotFoundResource()
        self._proxy = proxy or nothing
        self._trees = {b"manage": manage or nothing, b"admin": admin or nothing}
        self._pages = dict.fromkeys(OPS, nothing) | dict(ops or {})

    def getChild(self, path: bytes, request: Request) -> IResource:
        """The resource for the first segment of the raw path; that segment is C{path}, decoded, and not looked at."""
        return self.at(request.path)

    def at(self, path: bytes) -> IResource:
        """The resource at a raw path."""
        page = self._pages.get(path)
        if page is not None:
            return page
        return self._trees.get(path[1:].partition(b"/")[0], self._proxy)
