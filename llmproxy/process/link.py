"""What a supervisor and a worker say to each other: JSON in frames over a socket that both have from the start."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure

from llmproxy.base.direct_write import socket_of, write_at_once

ANSWER_SECONDS = 5.0
MAX_FRAME_BYTES = 64 * 1024 * 1024  # what a worker has counted is the largest


class LinkLost(Exception):
    """The other side is not there, or did not answer in time."""


class Link(Int32StringReceiver):
    """One end of it. Questions are answered in any order; what is only told has no response.

    @ivar connected_to_peer: Whether the other side is still there, as far as is known.
    """

    MAX_LENGTH = MAX_FRAME_BYTES
    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        perform: Callable[[str, Any], Any],
        on_lost: Callable[[], object] = lambda: None,
    ) -> None:
        """
        @param perform: Called with a name and a body; what it returns, or its Deferred fires with, is the response.
        @param on_lost: Called once the other side has gone.
        """
        self.connected_to_peer = False
        self._clock = clock
        self._perform = perform
        self._on_lost = on_lost
        self._number = 0
        self._questions: dict[int, Deferred[Any]] = {}
        self._socket: socket.socket | None = None

    def tell(self, name: str, body: Any = None) -> None:
        """Have it done there; lost where nobody is there."""
        if self.connected_to_peer:
            self._send({"do": name, "with": body})

    def ask(self, name: str, body: Any = None, seconds: float = ANSWER_SECONDS) -> Deferred[Any]:
        """Fire with the response; L{LinkLost} where none comes."""
        if not self.connected_to_peer:
            return fail(LinkLost("There is no connection."))
        self._number = number = self._number + 1
        answer: Deferred[Any] = Deferred(lambda _: self._forget(number))
        self._questions[number] = answer
        timer = self._clock.callLater(seconds, self._give_up, number)

        def ended(result: Any) -> Any:
            if timer.active():
                timer.cancel()
            return result

        answer.addBoth(ended)
        self._send({"id": number, "do": name, "with": body})
        return answer

    def close(self) -> None:
        """Say nothing more."""
        if self.transport is not None:
            self.transport.loseConnection()

    def _forget(self, number: int) -> None:
        self._questions.pop(number, None)

    def _give_up(self, number: int) -> None:
        question = self._questions.pop(number, None)
        if question is not None:
            question.errback(LinkLost("No answer came in time."))

    def _send(self, message: dict[str, Any]) -> None:
        text = json.dumps(message, separators=(",", ":")).encode()
        frame = len(text).to_bytes(self.prefixLength, "big") + text
        write_at_once(self.transport, self._socket, frame)  # in this turn, before what others may act upon

    # What Twisted calls

    def connectionMade(self) -> None:
        self.connected_to_peer = True
        self._socket = socket_of(self.transport)

    def stringReceived(self, string: bytes) -> None:
        message = json.loads(string)
        if "re" in message:
            question = self._questions.pop(message["re"], None)
            if question is None:
                return  # it came too late
            if "error" in message:
                question.errback(LinkLost(message["error"]))
            else:
                question.callback(message["ok"])
            return
        doing = maybeDeferred(self._perform, message["do"], message["with"])
        number = message.get("id")
        if number is None:
            doing.addErrback(self._failed, message["do"])
        else:
            doing.addCallbacks(lambda result: {"re": number, "ok": result}, self._error, errbackArgs=(number,))
            doing.addCallback(lambda reply: self._send(reply) if self.connected_to_peer else None)
            doing.addErrback(self._failed, message["do"])

    def _error(self, failure: Failure, number: int) -> dict[str, Any]:
        self._log.warn("A question of another process failed: {error}", error=failure.getErrorMessage())
        return {"re": number, "error": failure.getErrorMessage()}

    def _failed(self, failure: Failure, name: str) -> None:
        self._log.failure("What another process asked for failed: {name}.", failure, name=name)

    def connectionLost(self, reason: Any = None) -> None:
        self.connected_to_peer, self._socket = False, None
        questions, self._questions = self._questions, {}
        for question in questions.values():
            question.errback(LinkLost("The other process has gone."))
        self._on_lost()


def tell_at_once(descriptor: int, name: str, body: Any) -> None:
    """Say this over a socket that no L{Link} has yet, such as why this process ends before its reactor runs."""
    text = json.dumps({"do": name, "with": body}, separators=(",", ":")).encode()
    with suppress(OSError):
        os.write(descriptor, len(text).to_bytes(4, "big") + text)


def connect(reactor: Any, descriptor: int, link: Link) -> None:
    """Have C{link} speak over this connected UNIX socket, which is taken over."""
    with socket.socket(fileno=descriptor) as end:
        end.setblocking(False)
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda addr: link  # type: ignore[method-assign]
        reactor.adoptStreamConnection(end.fileno(), socket.AF_UNIX, factory)
