"""What resources of C{twisted.web} expect of a request beside what a plain relay needs: made on first use."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.web import http, server
from twisted.web.http_headers import Headers

from llmproxy.http.field_lines import FieldLines
from llmproxy.wire.server import forms
from llmproxy.wire.server.request_body import RequestBody


class _OnFirstUse:
    """An attribute that is made when it is first asked for, and may be replaced."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, request: Any, owner: type) -> Any:
        if request is None:
            return self
        made = request.__dict__[self._name] = self._make(request)
        return made


def _on_first_use(make: Callable[[Any], Any]) -> Any:
    return _OnFirstUse(make)


class RequestAttributes(server.Request):
    """Makes the attributes of a L{twisted.web.server.Request} out of the head and the body, each when it is asked for.

    The base's C{__init__} is not called: it makes all of them.
    """

    lines: FieldLines
    minor: int
    upload: RequestBody

    requestHeaders = _on_first_use(lambda request: request._made_headers())
    responseHeaders = _on_first_use(lambda request: Headers())
    args = _on_first_use(lambda request: request._made_args())
    content = _on_first_use(lambda request: BytesIO(request.upload.received or b""))
    received_cookies = _on_first_use(lambda request: request._made_cookies())
    cookies = _on_first_use(lambda request: [])
    notifications = _on_first_use(lambda request: [])
    prepath = _on_first_use(lambda request: [])
    postpath = _on_first_use(lambda request: request._made_segments())
    sitepath = _on_first_use(lambda request: [])
    clientproto = _on_first_use(lambda request: b"HTTP/1.1" if request.minor else b"HTTP/1.0")
    client = _on_first_use(lambda request: request.channel.getPeer())
    host = _on_first_use(lambda request: request.channel.getHost())
    transport = _on_first_use(lambda request: request.channel.transport)
    _adapterCache = _on_first_use(lambda request: {})

    def _made_headers(self) -> Headers:
        headers = Headers()
        for line in self.lines:
            name, _, value = line.partition(b":")
            headers.addRawHeader(name, value.strip(b" \t"))
        return headers

    def _made_args(self) -> dict[bytes, list[bytes]]:
        args: dict[bytes, list[bytes]] = http.parse_qs(self.uri.partition(b"?")[2], True)
        if self.method == b"POST" and (kind := self.getHeader(b"Content-Type")):
            args.update(forms.fields(kind, self.upload.received or b""))
        return args

    def _made_segments(self) -> list[bytes]:
        segments = self.path[1:].split(b"/")
        return [unquote_to_bytes(segment) for segment in segments] if b"%" in self.path else segments

    def _made_cookies(self) -> dict[bytes, bytes]:
        received: dict[bytes, bytes] = {}
        self.__dict__["received_cookies"] = received
        self.parseCookies()  # type: ignore[no-untyped-call]
        return received
