"""The response to what is no request: written by the channel, for no resource ever sees it."""

from __future__ import annotations

from twisted.web.http import RESPONSES, datetimeToString

from llmproxy.errors import ProxyError
from llmproxy.http import error_body

_PHRASES = {413: b"Content Too Large", 414: b"URI Too Long", 431: b"Request Header Fields Too Large"}


class _Refused(ProxyError):
    """What the parser said, in the words of the error bodies."""

    retry = False

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def refusal(status: int, code: str, message: str, request_id: str, allow: bytes) -> bytes:
    """The bytes of a whole response, after which the connection ends.

    @param allow: The line that a 405 must carry.
    """
    lines, body = error_body.render(_Refused(status, code, message), "hybrid", request_id)
    phrase = _PHRASES.get(status) or RESPONSES.get(status, b"Error")
    if status == 405:
        lines.append(allow)
    head = [
        b"HTTP/1.1 %d %b" % (status, phrase),
        *lines,
        b"Date: " + datetimeToString(),
        b"Content-Length: %d" % len(body),
        b"Connection: close",
        b"\r\n",
    ]
    return b"\r\n".join(head) + body
