"""A client of the simulator in memory: one connection with a transport that notes each write, on a fake clock."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.simulator.keys import Keys
from llmproxy.simulator.site import make_site

OPENAI = "Authorization: Bearer sk-sim-openai"


class Turns(Clock):
    """A clock on which a call made for "now" waits for the next turn, as it does on a real reactor."""

    def advance(self, amount: float) -> None:
        self.rightNow += amount
        for call in [call for call in self.calls if call.getTime() <= self.seconds()]:
            if call.active():
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)


class Transport(StringTransport):
    """Remembers each write by itself, and how the connection was ended."""

    def __init__(self) -> None:
        super().__init__(lenient=True)
        self.writes: list[bytes] = []
        self.half_closed = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        super().write(data)

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def abortConnection(self) -> None:
        self.disconnected = True

    def loseWriteConnection(self) -> None:
        self.half_closed = True


class Client:
    """Sends requests to a simulator of its own, and leaves when the test is over."""

    def __init__(self, test: SynchronousTestCase) -> None:
        self.clock = Turns()
        self.site = make_site(Keys(), self.clock)
        self._open: list[Any] = []
        self.connect()
        test.addCleanup(self._leave_all)

    def connect(self) -> None:
        """Open a further connection, which is the one used from here on."""
        self.transport = Transport()
        self.channel: Any = self.site.buildProtocol(None)
        self.channel.makeConnection(self.transport)
        self._open.append(self.channel)

    def start(self, method: str, target: str, *lines: str, body: bytes = b"", version: str = "HTTP/1.1") -> None:
        """Send a request and nothing more."""
        fields = ["Host: sim", *lines, *([f"Content-Length: {len(body)}"] if body else [])]
        self.send("\r\n".join([f"{method} {target} {version}", *fields, "", ""]).encode("latin-1") + body)

    def send(self, data: bytes) -> None:
        self.channel.dataReceived(data)

    def turn(self, times: int = 60, seconds: float = 0.0) -> None:
        """Let reactor turns pass."""
        for _ in range(times):
            self.clock.advance(seconds)

    def leave(self) -> None:
        """Lose the connection."""
        self._open.remove(self.channel)
        self.channel.connectionLost(Failure(ConnectionDone()))

    def _leave_all(self) -> None:
        for channel in self._open:
            channel.connectionLost(Failure(ConnectionDone()))

    def ask(self, method: str, target: str, *lines: str, body: Any = b"") -> tuple[int, list[bytes], bytes]:
        """Send a request; give status, header lines and the raw body of the answer."""
        self.exchange(method, target, *lines, body=body)
        return self.answer()

    def exchange(self, method: str, target: str, *lines: str, body: Any = b"") -> bytes:
        """Send a request, let it be answered, and give what came, which need not be HTTP."""
        self.transport.clear()
        self.transport.writes.clear()
        self.start(method, target, *lines, body=body if isinstance(body, bytes) else json.dumps(body).encode())
        self.turn()
        return self.transport.value()

    def answer(self) -> tuple[int, list[bytes], bytes]:
        head, _, body = self.transport.value().partition(b"\r\n\r\n")
        status, *lines = head.split(b"\r\n")
        return int(status.split(b" ")[1]), lines, body

    def recorded(self) -> list[dict[str, Any]]:
        shown: list[dict[str, Any]] = self.site.journal.shown()["requests"]
        return shown


def dechunked(data: bytes) -> bytes:
    """What a complete chunked body carries; fails where it is not complete."""
    body = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            assert data == b"\r\n", data
            return body
        body, data = body + data[:length], data[length + 2 :]
