"""An HTTP response, as a client has received it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Response:
    """A response, as far as it has come; C{status} is 0 where nothing has.

    @ivar lines: The header fields, as C{Name: value}, in order.
    @ivar complete: Whether its end was there, as its framing tells it.
    @ivar rest: What came after it.
    @ivar chunks: The body's chunks, where it was chunked.
    """

    status: int = 0
    phrase: str = ""
    lines: list[str] = field(default_factory=list)
    body: bytes = b""
    complete: bool = False
    rest: bytes = b""
    chunks: list[bytes] = field(default_factory=list)

    @classmethod
    def whole(cls, status: int, phrase: str, fields: Iterable[tuple[str, str]], body: bytes) -> Response:
        """One that another client has read to its end."""
        return cls(status, phrase, [f"{name}: {value}" for name, value in fields], body, complete=True)

    def all(self, name: str) -> list[str]:
        """The values of all fields of that name, in order."""
        split = [line.split(": ", 1) for line in self.lines]
        return [value for other, value in split if other.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The first field's value."""
        return next(iter(self.all(name)), None)

    def __getitem__(self, name: str) -> str:
        """The value of the only field of that name."""
        (value,) = self.all(name)
        return value

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def parse_response(data: bytes, method: str = "") -> Response:
    """Take apart what a client received, as a strict client would that had sent a request with this method."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        raise AssertionError(f"no response: {data!r}")
    status, *lines = head.decode("latin-1").split("\r\n")
    version, code, phrase = status.split(" ", 2)
    assert version == "HTTP/1.1", version
    response = Response(int(code), phrase, lines)
    if response.status in (204, 304) or method == "HEAD":
        response.complete, response.rest = True, rest
    elif response.all("Transfer-Encoding"):
        assert not response.all("Content-Length")
        _parse_chunks(response, rest)
    else:
        length = int(response["Content-Length"])
        response.body, response.rest, response.complete = rest[:length], rest[length:], len(rest) >= length
    return response


def _parse_chunks(response: Response, data: bytes) -> None:
    while True:
        size, end, data = data.partition(b"\r\n")
        if not end:
            return
        length = int(size, 16)
        chunk = data[:length]
        response.body += chunk
        if len(data) < length + 2:
            return
        assert data[length : length + 2] == b"\r\n", data
        data = data[length + 2 :]
        if not length:
            response.complete, response.rest = True, data
            return
        response.chunks.append(chunk)
