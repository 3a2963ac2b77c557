"""How a response of our own leaves: JSON, a stream, or what an exception becomes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.web.http import RESPONSES, datetimeToString
from twisted.web.server import Request as TwistedRequest
from zope.interface import implementer

from llmproxy.errors import ProxyError
from llmproxy.http import fields
from llmproxy.proxy.own_response import HYBRID, NOSNIFF, BufferedResponse, refuse, send
from llmproxy.wire.server.site import Request
from llmproxy.wire.server.twisted_adapter import adapt

NO_STORE = b"Cache-Control: no-store"
JSON = b"Content-Type: application/json"


@dataclass(frozen=True, slots=True)
class StreamedResponse:
    """A response whose body comes in parts, and ends when they do.

    @ivar parts: Its parts, each asked for when the client has taken those before.
    @ivar close: Called when no more parts are wanted: after the last, or because the client has left.
    """

    code: int
    parts: AsyncIterator[bytes]
    lines: tuple[bytes, ...]
    close: Callable[[], Awaitable[None]]

    def with_request_id(self, request_id: str) -> StreamedResponse:
        """The same with the request's id in its head."""
        return replace(self, lines=(*self.lines, b"X-Request-ID: " + request_id.encode("ascii")))


def json_response(value: object, code: int = 200, lines: Sequence[bytes] = ()) -> BufferedResponse:
    """A L{BufferedResponse} of C{value} as JSON that no cache keeps and no browser takes for anything else."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    return BufferedResponse(code, body, (JSON, NO_STORE, NOSNIFF, *lines))


@implementer(IPushProducer)
class StreamWriter:
    """Writes the parts of a response, at the pace at which the client takes them."""

    def __init__(self, request: Request, answer: StreamedResponse) -> None:
        self._request = request
        self._response = answer
        self._resumed: Deferred[None] | None = None

    async def run(self) -> None:
        """Write all of it; nothing more where the client has left."""
        try:
            await self._write()
        finally:
            with suppress(ProxyError):  # what closes it may be closed itself
                await self._response.close()

    async def _write(self) -> None:
        request, answer = self._request, self._response
        if request.gone:
            return
        lines = [*answer.lines, b"Date: " + datetimeToString()]
        request.begin(answer.code, RESPONSES.get(answer.code, b""), lines, None)
        if request.method != b"HEAD":
            request.registerProducer(self, True)
            async for part in answer.parts:
                if self._resumed is not None:
                    await self._resumed
                if request.gone:
                    return
                request.write(part)
            if request.gone:
                return
            request.unregisterProducer()
        request.finish()

    def pauseProducing(self) -> None:
        if self._resumed is None:
            self._resumed = Deferred()

    def resumeProducing(self) -> None:
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.callback(None)

    def stopProducing(self) -> None:
        self.resumeProducing()


def run(
    request: TwistedRequest,
    response: Coroutine[Deferred[Any], Any, BufferedResponse | StreamedResponse],
    flavour: str = HYBRID,
    request_id: str = "",
) -> Deferred[None]:
    """Start C{response}, and send what comes of it, be it a response or an exception.

    It runs to its end even if the client leaves: what it changes is then changed and audited as a whole.
    """
    writable = adapt(request)

    async def respond() -> None:
        try:
            answer = (await response).with_request_id(request_id)
            if isinstance(answer, StreamedResponse):
                await StreamWriter(writable, answer).run()
                return
        except Exception as e:  # everything ends here, a cancelled wait included: nobody else would answer
            refuse(writable, e, flavour, request_id)
        else:
            send(writable, answer)

    return Deferred.fromCoroutine(respond())


def identify(request: TwistedRequest, fresh: Callable[[], str] = lambda: str(uuid4())) -> str:
    """The request's id: the client's own C{X-Request-ID} if L{fields.request_id} takes it, else a fresh one."""
    lines = [b"X-Request-ID: " + value for value in request.requestHeaders.getRawHeaders(b"x-request-id") or []]
    given = fields.request_id(lines)
    return fresh() if given is None else given.decode("ascii")
