"""What a supervisor and a monitor ask: is it alive, is it ready, what has it counted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request

from llmproxy.errors import MethodNotAllowed
from llmproxy.proxy.own_response import NOSNIFF, BufferedResponse
from llmproxy.web.respond import NO_STORE, identify, json_response, run

Render = Callable[[str], Awaitable[tuple[str, bytes]]]

TEXT = "text/plain"
MAX_ACCEPT_BYTES = 4096


class ReadyChecks(Protocol):
    """States by their names, each C{ok} or what is wrong.

    @ivar required: Without these no request is to be sent here: 503; C{lesser}: those that are only mentioned, as
        C{degraded}, with 200.
    """

    @property
    def required(self) -> Mapping[str, str]: ...
    @property
    def lesser(self) -> Mapping[str, str]: ...


Readiness = Callable[[], Awaitable[ReadyChecks]]


class OpsPage(Resource):
    """Answers GET and HEAD with what C{answer} makes of the request."""

    isLeaf = True

    def __init__(self, answer: Callable[[Request], Awaitable[BufferedResponse]]) -> None:
        Resource.__init__(self)
        self._answer = answer

    def render(self, request: Request) -> int:
        run(request, self._answered(request), request_id=identify(request))
        return NOT_DONE_YET

    async def _answered(self, request: Request) -> BufferedResponse:
        if request.method not in (b"GET", b"HEAD"):
            raise MethodNotAllowed(headers={"Allow": "GET, HEAD"})
        return await self._answer(request)


def pages(
    render: Render,
    readiness: Readiness,
    admit: Callable[[Request], Awaitable[object]] | None = None,
) -> Mapping[bytes, IResource]:
    """The ops pages by their path, for L{llmproxy.web.root.Root}.

    @param render: Makes the metrics page: from the request's C{Accept} to content type and body.
    @param readiness: Gives what was checked, and how that is.
    @param admit: Raises where a request may not see the metrics: what was spent for which model is not for everybody.
    """

    async def live(request: Request) -> BufferedResponse:
        return json_response({"status": "ok", "checks": {}})

    async def ready(request: Request) -> BufferedResponse:
        found = await readiness()
        checks, lesser = found.required, found.lesser
        if any(state != "ok" for state in checks.values()):
            status = "unavailable"
        else:
            status = "ok" if all(state == "ok" for state in lesser.values()) else "degraded"
        return json_response(
            {"status": status, "checks": {**checks, **lesser}}, 503 if status == "unavailable" else 200
        )

    async def metrics(request: Request) -> BufferedResponse:
        if admit is not None:
            await admit(request)
        return _page(*await render(accepted(request)))

    async def prometheus(request: Request) -> BufferedResponse:
        if admit is not None:
            await admit(request)
        return _page(*await render(TEXT))

    alive, prepared = OpsPage(live), OpsPage(ready)
    return {
        b"/health": alive,
        b"/healthz": alive,
        b"/live": alive,
        b"/livez": alive,
        b"/ready": prepared,
        b"/readyz": prepared,
        b"/metrics": OpsPage(metrics),
        b"/metrics/prometheus": OpsPage(prometheus),
    }


def accepted(request: Request) -> str:
    """The request's C{Accept} as one line; C{""} where there is none. What is longer than any scraper's is cut."""
    return b", ".join(request.requestHeaders.getRawHeaders(b"accept") or [])[:MAX_ACCEPT_BYTES].decode("latin-1")


def _page(content_type: str, body: bytes) -> BufferedResponse:
    return BufferedResponse(200, body, (b"Content-Type: " + content_type.encode("ascii"), NO_STORE, NOSNIFF))
