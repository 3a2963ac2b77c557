"""One request on its way to a response, and whether it may be sent again."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer

from llmproxy import errors
from llmproxy.wire.client.request_writer import BytesBody, whole_of
from llmproxy.wire.client.response import Response
from llmproxy.wire.client.response_heads import WholeResponse

IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))


class Cancellable(Protocol):
    """Whoever has a request in hand: a place in a queue, an attempt to connect, a connection."""

    def cancel(self) -> object: ...


class RequestOwner(Protocol):
    """Whoever made a request, and is told of what becomes of it."""

    def accepts(self, request: Any, response: WholeResponse) -> bool:
        """Whether this response, which was all in one read, is to come to L{complete}; else it comes to L{responded},
        as any other."""

    def leaving(self) -> object:
        """A request is about to leave: called before its first byte does."""

    def complete(self, request: Any) -> None:
        """The response that was accepted is over, and the connection belongs to others now."""

    def responded(self, request: Any, response: Response) -> None:
        """The head of its response has come."""

    def failed(self, request: Any, error: BaseException) -> None:
        """There will be no response."""


class PendingRequest:
    """One request, until the head of its response.

    @ivar head: The request's head as it goes out.
    @ivar project: With whose requests it takes turns where all connections are busy.
    @ivar raw: Whether the response's C{headers} are to be left as they came.
    @ivar responded: Fires with the L{Response}. Cancelled, it aborts whatever is under way.
    @ivar holder: Who has it in hand now.
    @ivar gone: Whether the one who asked has left.
    @ivar started: Whether the body's producer has been asked for anything.
    @ivar sent: Whether one byte or more of the request may have left.
    @ivar queue_time: Seconds for which it has waited for a connection, all of them being busy.
    @ivar owner: Who takes what becomes of it; C{None}: C{responded} tells.
    """

    owner: RequestOwner | None = None
    __slots__ = (
        "body",
        "gone",
        "head",
        "holder",
        "method",
        "project",
        "queue_time",
        "raw",
        "repeated",
        "responded",
        "sent",
        "started",
        "whole",
    )

    def __init__(self, method: bytes, head: bytes, body: IBodyProducer | None, *, raw: bool, project: str = "") -> None:
        self.method = method
        self.head = head
        self.body = body
        self.raw = raw
        self.project = project
        self.queue_time = 0.0
        self.whole = whole_of(body)
        self.holder: Cancellable | None = None
        self.started = self.sent = self.repeated = self.gone = False
        self.responded: Deferred[Response] = Deferred(self._cancelled)

    def _cancelled(self, _: object) -> None:
        self.gone = True
        holder, self.holder = self.holder, None
        if holder is not None:
            holder.cancel()

    @property
    def untouched(self) -> bool:
        """Whether nothing of it has left and its body can still be sent."""
        return not self.sent and self._replayable

    @property
    def _replayable(self) -> bool:
        return self.body is None or self.whole is not None or not self.started

    def may_repeat(self) -> bool:
        """Whether sending it again, once, cannot make the provider do twice what it was asked to do once."""
        return not self.repeated and self._replayable and (not self.sent or self.method in IDEMPOTENT)

    def repeat(self) -> None:
        """Make it ready to be sent again."""
        self.repeated, self.sent, self.started = True, False, False
        if self.whole is not None:
            self.body = BytesBody(self.whole)

    def succeed(self, answer: Response) -> None:
        self.holder = None
        if self.queue_time:
            answer.queue_time = self.queue_time
        self.responded.callback(answer)

    def fail(self, error: BaseException | Failure) -> None:
        """There will be no response."""
        self.holder = None
        if isinstance(error, errors.UpstreamFailure):
            error.nothing_sent = self.untouched
            error.retry = error.retry or self.untouched
            error.queue_time = self.queue_time
        if not self.gone:
            self.responded.errback(error)


class OwnedRequest(PendingRequest):
    """As L{PendingRequest}, without a Deferred: what becomes of it is told to its owner."""

    __slots__ = ("owner",)

    owner: RequestOwner

    def succeed(self, response: Response) -> None:
        self.holder = None
        self.owner.responded(self, response)

    def fail(self, error: BaseException | Failure) -> None:
        self.holder = None
        if isinstance(error, Failure):
            error = error.value or error
        if isinstance(error, errors.UpstreamFailure):
            error.nothing_sent = self.untouched
            error.retry = error.retry or self.untouched
        if not self.gone:
            self.gone = True
            self.owner.failed(self, error)

    def give_up(self) -> None:
        """Let go of its connection, wherever that is. Nobody is told."""
        self.gone = True
        holder, self.holder = self.holder, None
        if holder is not None:
            holder.cancel()
