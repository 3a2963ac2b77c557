"""What is at a path where nothing is."""

from __future__ import annotations

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from llmproxy.errors import NotFound
from llmproxy.web.respond import identify, refuse


class Nothing(Resource):
    """404 in JSON, for every method and every path below."""

    isLeaf = True

    def __init__(self) -> None:
        Resource.__init__(self)

    def render(self, request: Request) -> int:
        refuse(request, NotFound(), request_id=identify(request))
        return NOT_DONE_YET
