"""A provider on a real socket that answers with exactly the bytes it is told."""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure


class Line(Protocol):
    """One connection to the provider."""

    factory: Provider

    def connectionMade(self) -> None:
        self.received = b""
        self.closed: Deferred[None] = Deferred()
        self.factory.lines.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        while (request := whole_request(self.received)) and self.factory.answers:
            self.factory.requests.append(request)
            self.received = self.received[len(request) :]
            answer = self.factory.answers.popleft()
            self.transport.write(answer)  # type: ignore[union-attr]
            if self.factory.closing:
                self.transport.loseConnection()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed.callback(None)


class Provider(Factory):
    """Answers each whole request with the next of C{answers}."""

    protocol: Any = Line
    noisy = False

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.requests: list[bytes] = []
        self.answers: deque[bytes] = deque()
        self.closing = False


def whole_request(data: bytes) -> bytes:
    """The first request in these bytes, once its body is complete; only as clever as the tests need."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        return b""
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line[15:])
        if line == b"transfer-encoding: chunked":
            length = rest.find(b"0\r\n\r\n") + 5
            if length < 5:
                return b""
    return data[: len(head) + 4 + length] if len(rest) >= length else b""
