"""Responses of this proxy's own, and the one place where an exception becomes HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import ITCPTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES, Request, datetimeToString

from llmproxy.errors import BuffersFull, ClientGone, InternalError, ProxyError
from llmproxy.http import error_body

_log = Logger()

HYBRID = "hybrid"  # the shape that both the OpenAI and the Anthropic SDK understand
NOSNIFF = b"X-Content-Type-Options: nosniff"
NO_BODY = frozenset({204, 304})


@dataclass(frozen=True, slots=True)
class BufferedResponse:
    """A response in full: status, header lines without framing, body."""

    code: int
    body: bytes = b""
    lines: tuple[bytes, ...] = ()

    def with_request_id(self, request_id: str) -> BufferedResponse:
        """The same with the request's id in its head."""
        return (
            replace(self, lines=(*self.lines, b"X-Request-ID: " + request_id.encode("ascii"))) if request_id else self
        )


def send(request: Request, response: BufferedResponse) -> None:
    """Write the response and finish; nothing where the client has left."""
    if gone(request):
        return
    lines = list(response.lines)
    if not any(line.lower().startswith(b"date:") for line in lines):
        lines.append(b"Date: " + datetimeToString())
    begin(request, response.code, lines, None if response.code in NO_BODY else len(response.body))
    if response.body and response.code not in NO_BODY and request.method != b"HEAD":
        request.write(response.body)
    request.finish()


def refuse(
    request: Request, error: BaseException, flavour: str = HYBRID, request_id: str = "", lines: Sequence[bytes] = ()
) -> ProxyError | None:
    """Turn C{error} into the response, in the error shape that the API's clients know.

    What is no L{ProxyError} is logged with its traceback and becomes a 500 and nothing of its text. Where the
    head of a response is already out, the response is cut. Nothing is sent where the client has left.

    @param flavour: The API's C{error_format}; see L{llmproxy.http.error_body.render}.
    @param lines: Further header lines of the response.
    @return: What was reported to the client, for the access log; C{None} where that was nothing because it had left.
    """
    if isinstance(error, ClientGone) or (gone(request) and isinstance(error, ProxyError | CancelledError)):
        return None
    reported = as_proxy_error(error, request_id)
    if gone(request):
        return None
    if begun(request):
        cut(request)
        return reported
    head, body = error_body.render(reported, flavour, request_id)
    send(request, BufferedResponse(reported.status, body, (*head, NOSNIFF, *lines)))
    return reported


def gone(request: Request) -> bool:
    """Whether the client has left (or the response is finished), so that nothing more can be written."""
    left = getattr(request, "gone", None)
    return bool(request.channel is None or request.finished) if left is None else bool(left)


def begun(request: Request) -> bool:
    """Whether the head of a response is out."""
    return bool(getattr(request, "begun", False) or request.startedWriting)


def cut(request: Request) -> None:
    """End a half-sent response so that the client can tell that it is not whole."""
    if hasattr(request, "abort"):
        request.abort()
    elif request.channel is not None:
        cast(ITCPTransport, request.transport).abortConnection()


def as_proxy_error(error: BaseException, request_id: str) -> ProxyError:
    """The error itself, or what is reported of one that nobody has foreseen; that is logged with its traceback."""
    if isinstance(error, ProxyError):
        return error
    if isinstance(error, MemoryError):  # a limit of the system's (ulimit -v) that is below ours
        _log.error("Request {request_id}: the system gave no more memory.", request_id=request_id)
        return BuffersFull("The system gave this proxy no more memory. Try again.", retry_after=1.0)
    _log.failure("Request {request_id} failed.", Failure(error), request_id=request_id)
    return InternalError()


def begin(request: Request, code: int, lines: list[bytes], length: int | None) -> None:
    """Write the head.

    @param length: Bytes of the body; C{None} where it ends when it ends.
    """
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
