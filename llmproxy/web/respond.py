"""How an answer of our own leaves: JSON, and the one place where an exception becomes HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, cast
from uuid import uuid4

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer, ITCPTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES, Request, datetimeToString
from zope.interface import implementer

from llmproxy.errors import BuffersFull, ClientGone, InternalError, ProxyError
from llmproxy.http import fields, refusals

_log = Logger()

HYBRID = "hybrid"  # the shape that both the OpenAI and the Anthropic SDK understand
NO_STORE = b"Cache-Control: no-store"
JSON = b"Content-Type: application/json"
NOSNIFF = b"X-Content-Type-Options: nosniff"
NO_BODY = frozenset({204, 304})


@dataclass(frozen=True, slots=True)
class BufferedResponse:
    """An answer in full: status, header lines without framing, body."""

    code: int
    body: bytes = b""
    lines: tuple[bytes, ...] = ()

    def with_request_id(self, request_id: str) -> BufferedResponse:
        """The same with the request's id in its head."""
        return (
            replace(self, lines=(*self.lines, b"X-Request-ID: " + request_id.encode("ascii"))) if request_id else self
        )


@dataclass(frozen=True, slots=True)
class StreamedResponse:
    """An answer whose body comes in parts, and ends when they do.

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
    """An L{BufferedResponse} of C{value} as JSON that no cache keeps and no browser takes for anything else."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    return BufferedResponse(code, body, (JSON, NO_STORE, NOSNIFF, *lines))


def send(request: Request, answer: BufferedResponse) -> None:
    """Write C{answer} and finish; nothing where the client has left."""
    if gone(request):
        return
    lines = list(answer.lines)
    if not any(line.lower().startswith(b"date:") for line in lines):
        lines.append(b"Date: " + datetimeToString())
    _head(request, answer.code, lines, None if answer.code in NO_BODY else len(answer.body))
    if answer.body and answer.code not in NO_BODY and request.method != b"HEAD":
        request.write(answer.body)
    request.finish()


@implementer(IPushProducer)
class Stream:
    """Writes the parts of an answer, at the pace at which the client takes them."""

    def __init__(self, request: Request, answer: StreamedResponse) -> None:
        self._request = request
        self._answer = answer
        self._resumed: Deferred[None] | None = None

    async def run(self) -> None:
        """Write all of it; nothing more where the client has left."""
        try:
            await self._write()
        finally:
            with suppress(ProxyError):  # what closes it may be closed itself
                await self._answer.close()

    async def _write(self) -> None:
        request, answer = self._request, self._answer
        if gone(request):
            return
        _head(request, answer.code, [*answer.lines, b"Date: " + datetimeToString()], None)
        if request.method != b"HEAD":
            request.registerProducer(self, True)
            async for part in answer.parts:
                if self._resumed is not None:
                    await self._resumed
                if gone(request):
                    return
                request.write(part)
            if gone(request):
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


def refuse(
    request: Request, error: BaseException, flavour: str = HYBRID, request_id: str = "", lines: Sequence[bytes] = ()
) -> ProxyError | None:
    """Turn C{error} into the answer, in the error shape that the API's clients know.

    What is no L{ProxyError} is logged with its traceback and answered with 500 and nothing of its text. Where the
    head of an answer is already out, the answer is cut. Nothing is sent where the client has left.

    @param flavour: The API's C{error_format}; see L{llmproxy.http.refusals.render}.
    @param lines: Further header lines of the answer.
    @return: What the client was told, for the access log; C{None} where that was nothing because it had left.
    """
    if isinstance(error, ClientGone) or (gone(request) and isinstance(error, ProxyError | CancelledError)):
        return None
    told = error if isinstance(error, ProxyError) else _fault(error, request_id)
    if gone(request):
        return None
    if begun(request):
        cut(request)
        return told
    head, body = refusals.render(told, flavour, request_id)
    send(request, BufferedResponse(told.status, body, (*head, NOSNIFF, *lines)))
    return told


def run(
    request: Request,
    answering: Coroutine[Deferred[Any], Any, BufferedResponse | StreamedResponse],
    flavour: str = HYBRID,
    request_id: str = "",
) -> Deferred[None]:
    """Start C{answering}, and send what comes of it, be it an L{BufferedResponse} or an exception.

    It runs to its end even if the client leaves: what it changes is then changed and audited as a whole.
    """

    async def answered() -> None:
        try:
            answer = (await answering).with_request_id(request_id)
            if isinstance(answer, StreamedResponse):
                await Stream(request, answer).run()
                return
        except Exception as e:  # everything ends here, a cancelled wait included: nobody else would answer
            refuse(request, e, flavour, request_id)
        else:
            send(request, answer)

    return Deferred.fromCoroutine(answered())


def identify(request: Request, fresh: Callable[[], str] = lambda: str(uuid4())) -> str:
    """The request's id: the client's own C{X-Request-ID} if L{fields.request_id} takes it, else a fresh one."""
    lines = [b"X-Request-ID: " + value for value in request.requestHeaders.getRawHeaders(b"x-request-id") or []]
    given = fields.request_id(lines)
    return fresh() if given is None else given.decode("ascii")


def gone(request: Request) -> bool:
    """Whether the client has left (or the answer is finished), so that nothing more can be written."""
    left = getattr(request, "gone", None)
    return bool(request.channel is None or request.finished) if left is None else bool(left)


def begun(request: Request) -> bool:
    """Whether the head of an answer is out."""
    return bool(getattr(request, "begun", False) or request.startedWriting)


def cut(request: Request) -> None:
    """End a half-sent answer so that the client can tell that it is not whole."""
    if hasattr(request, "abort"):
        request.abort()
    elif request.channel is not None:
        cast(ITCPTransport, request.transport).abortConnection()


def _fault(error: BaseException, request_id: str) -> ProxyError:
    if isinstance(error, MemoryError):  # a limit of the system's (ulimit -v) that is below ours
        _log.error("Request {request_id}: the system gave no more memory.", request_id=request_id)
        return BuffersFull("The system gave this proxy no more memory. Try again.", retry_after=1.0)
    _log.failure("Request {request_id} failed.", Failure(error), request_id=request_id)
    return InternalError()


def _head(request: Request, code: int, lines: list[bytes], length: int | None) -> None:
    phrase = RESPONSES.get(code, b"")
    if hasattr(request, "begin"):
        request.begin(code, phrase, lines, length)
        return
    request.setResponseCode(code, phrase)
    for name in (b"Server", b"Date", b"Content-Type"):
        request.responseHeaders.removeHeader(name)
    if length is not None:
        lines.append(b"Content-Length: %d" % length)
    for line in lines:
        name, _, value = line.partition(b":")
        request.responseHeaders.addRawHeader(name, value.strip())
