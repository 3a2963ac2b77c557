"""Responses of this proxy's own, and the one place where an exception becomes HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES, datetimeToString

from llmproxy.errors import BuffersFull, ClientGone, InternalError, ProxyError
from llmproxy.http import error_body
from llmproxy.wire.server.site import Request

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
    if request.gone:
        return
    lines = list(response.lines)
    if not any(line.lower().startswith(b"date:") for line in lines):
        lines.append(b"Date: " + datetimeToString())
    length = None if response.code in NO_BODY else len(response.body)
    request.begin(response.code, RESPONSES.get(response.code, b""), lines, length)
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
    if isinstance(error, ClientGone) or (request.gone and isinstance(error, ProxyError | CancelledError)):
        return None
    reported = as_proxy_error(error, request_id)
    if request.gone:
        return None
    if request.begun:
        request.abort()
        return reported
    head, body = error_body.render(reported, flavour, request_id)
    send(request, BufferedResponse(reported.status, body, (*head, NOSNIFF, *lines)))
    return reported


def as_proxy_error(error: BaseException, request_id: str) -> ProxyError:
    """The error itself, or what is reported of one that nobody has foreseen; that is logged with its traceback."""
    if isinstance(error, ProxyError):
        return error
    if isinstance(error, MemoryError):  # a limit of the system's (ulimit -v) that is below ours
        _log.error("Request {request_id}: the system gave no more memory.", request_id=request_id)
        return BuffersFull("The system gave this proxy no more memory. Try again.", retry_after=1.0)
    _log.failure("Request {request_id} failed.", Failure(error), request_id=request_id)
    return InternalError()
