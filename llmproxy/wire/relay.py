"""Carries one response from the provider to the client, each chunk in the turn in which it was read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IProtocol, IPushProducer, IReactorTime, ITransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from zope.interface import implementer

from llmproxy.http.masking import KeyFound
from llmproxy.wire.deadline import LATE_SECONDS, Deadline, Deadlines, LateWatch
from llmproxy.wire.heartbeat import Heartbeat

Tap = Callable[[bytes], object]


class Downstream(Protocol):
    """What a relay needs of the client's request (L{llmproxy.wire.server.Request} has it)."""

    gone: bool
    paced: bool
    stalled: bool

    def begin(self, code: int, phrase: bytes, lines: Sequence[bytes], length: int | None, hold: bool) -> object: ...
    def respond(self, code: int, phrase: bytes, lines: Sequence[bytes], length: int | None, body: bytes) -> object: ...
    def flush(self) -> object: ...
    def write(self, data: bytes) -> object: ...
    def finish(self, last: bytes = b"") -> object:
        """End the response, with these bytes where there are any."""

    def abort(self) -> object: ...
    def registerProducer(self, producer: IPushProducer, streaming: bool) -> object: ...
    def unregisterProducer(self) -> object: ...


class RelayedResponse(Protocol):
    """What a relay needs of a response (L{llmproxy.wire.client.response.Response} has it)."""

    code: int
    phrase: bytes

    @property
    def length(self) -> int | str | None: ...
    @property
    def whole(self) -> bytes | None: ...
    def deliverBody(self, protocol: Relay) -> object: ...


class BodyFilter(Protocol):
    """Changes bytes on their way.

    @ivar keeps_length: Whether there are as many bytes afterwards.
    """

    keeps_length: bool

    def feed(self, data: bytes) -> bytes:
        """L{KeyFound}: nothing more may pass, and the response is to be cut."""

    def end(self) -> bytes: ...


@implementer(IPushProducer, IProtocol)
class Relay:
    """Let it L{carry} a response; L{done} fires with how that ended.

    C{complete}: all of it was written and the response finished. C{truncated}: the provider broke off and the client's
    connection was cut. C{idle_timeout}: the provider, C{deadline_exceeded}: the whole response, took too long; cut as
    well. C{client_stalled}: the client took too little for too long. C{cancelled}: the client left, and the provider
    was stopped, or drained.

    @ivar idle: Seconds of silence from the provider after which it counts as gone; C{0}: no limit.
    @ivar stalled: Likewise for a client that takes nothing.
    @ivar deadline: The clock's time by which all must have come, or C{None}. It moves on while the client holds the
        provider: that is no time that the provider takes.
    @ivar flush_interval: C{0}: every chunk leaves at once. Otherwise chunks are gathered for so many seconds.
    @ivar heartbeat: Seconds of silence after which the client is sent a comment, in a response that is a stream of
        events and whose length is not known; C{0}: never. Neither C{taps} nor C{count} know of it.
    @ivar drain: Seconds for which the provider is heard out when the client leaves; C{0}: it is stopped at once.
    @ivar taps: See what the client is sent, and what it would have been.
    @ivar count: Bytes that the client was sent; C{last}: the clock's time when something came last.
    @ivar on_end: Called with how it ended, as L{done} fires.
    """

    __slots__ = (
        "_check",
        "_clock",
        "_deadline",
        "_deadlines",
        "_done",
        "_drain",
        "_ending",
        "_flush",
        "_flush_interval",
        "_gathered",
        "_heartbeat",
        "_idle",
        "_late",
        "_left",
        "_on_end",
        "_outcome",
        "_over",
        "_paused",
        "_request",
        "_rewriting",
        "_stalled",
        "_taps",
        "count",
        "last",
        "transport",
    )
    transport: Any

    def __init__(
        self,
        request: Downstream,
        clock: IReactorTime,
        *,
        idle: float = 0.0,
        stalled: float = 0.0,
        deadline: float | None = None,
        flush_interval: float = 0.0,
        heartbeat: float = 0.0,
        drain: float = 0.0,
        taps: Sequence[Tap] = (),
        body_filter: BodyFilter | None = None,
        on_end: Callable[[str], object] | None = None,
        deadlines: Deadlines | None = None,
        late: LateWatch | None = None,
    ) -> None:
        """
        @param deadlines: Those that share a timer with its own; C{None}: nobody's do.
        @param late: Where it waits until it is worth while to be watched.
        """
        self.transport = None
        self._request = request
        self._clock = clock
        self._idle = idle
        self._stalled = stalled
        self._deadline = deadline
        self._flush_interval = flush_interval
        self._heartbeat = Heartbeat(clock, heartbeat, self._write_comment) if heartbeat else None
        self._drain = drain
        self._taps = taps
        self._rewriting = body_filter
        self._on_end = on_end
        self._gathered: list[bytes] = []
        self._deadlines = deadlines
        self._check: Deadline | None = None
        self._flush: IDelayedCall | None = None
        self._done: Deferred[str] | None = None
        self._outcome = ""
        self._left = self._paused = self._over = self._ending = False
        self.last = clock.seconds()
        self.count = 0
        soonest = min(idle or inf, stalled or inf, (deadline or inf) - self.last)
        self._late = late if soonest > 2 * LATE_SECONDS else None

    @property
    def is_plain(self) -> bool:
        """Whether every chunk is only written and counted, without taps, a flush interval or a heartbeat."""
        return not self._taps and not self._flush_interval and self._heartbeat is None

    @property
    def outcome(self) -> str:
        """How it ended; C{""} while it goes on."""
        return self._outcome

    @property
    def done(self) -> Deferred[str]:
        """Fires with how it ended. Cancelled, it stops the provider."""
        if self._done is None:
            self._done = Deferred(lambda _: self.stopProducing())
            if self._outcome:
                self._done.callback(self._outcome)
        return self._done

    def carry(self, answer: RelayedResponse, lines: Sequence[bytes]) -> None:
        """Begin the client's response with these field lines, and carry the body."""
        length = answer.length if isinstance(answer.length, int) else None
        if self._rewriting is not None and not self._rewriting.keeps_length:
            length = None
        whole = answer.whole
        if whole is not None:
            self._carry_whole(answer, lines, length, whole)
            return
        request = self._request
        request.begin(answer.code, answer.phrase, lines, length, hold=True)
        answer.deliverBody(self)
        request.flush()
        if not self._over:  # most responses are complete by then, and never need a timer
            self.watch() if self._late is None else self._late.add(self)
            if self._heartbeat is not None and length is None:
                self._heartbeat.start()

    def _carry_whole(self, answer: RelayedResponse, lines: Sequence[bytes], length: int | None, body: bytes) -> None:
        """The provider has nothing to add: nobody need be held or watched."""
        self._over = True
        gone = self._request.gone
        if self._rewriting is not None:
            body = self._rewriting.feed(body) + self._rewriting.end()
            length = length if self._rewriting.keeps_length else len(body)
        if not gone:
            self.count = len(body)
            self._request.respond(answer.code, answer.phrase, lines, length, body)
        for tap in self._taps:
            tap(body)
        self._tell("cancelled" if gone else "complete")

    def makeConnection(self, transport: ITransport) -> None:
        self.transport = transport
        self.connectionMade()

    def connectionMade(self) -> None:
        self._request.registerProducer(self, True)

    def logPrefix(self) -> str:
        return "Relay"

    def dataReceived(self, data: bytes) -> None:
        if self._over:
            return
        self.last = self._clock.seconds()
        if self._rewriting is not None:
            try:
                data = self._rewriting.feed(data)
            except KeyFound:
                self._withhold()
                return
        if not self._left:
            self.count += len(data)
            if self._heartbeat is not None and data:
                self._heartbeat.observe(data)
            if self._flush_interval:
                self._gather(data)
            elif self._ending:
                self._gathered.append(data)
            elif data:
                self._request.write(data)
        for tap in self._taps:
            tap(data)

    def lastReceived(self, data: bytes) -> None:
        """As L{dataReceived}, for what is complete with it: that leaves together with the response's end."""
        self._ending = True
        self.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._over:
            return
        if self._left:
            self._heard_out()
            return
        if not isinstance(reason.value, ResponseDone):
            self._cut(getattr(reason.value, "outcome", "truncated"), reason)
            return
        if self._rewriting is not None and (held := self._rewriting.end()):
            self.count += len(held)
            self._gathered.append(held)
        last = b"".join(self._gathered)
        self._gathered.clear()
        self._end()
        self._request.unregisterProducer()
        self._request.finish(last)
        self._tell("complete")

    # The client's side: it may hold the provider, let it go on, or leave.

    def pauseProducing(self) -> None:
        if self._left:
            return
        if not self._paused:
            self.last = self._clock.seconds()
        self._paused = True
        if not self._over:
            self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        now = self._clock.seconds()
        if self._paused and self._deadline is not None:
            self._deadline += now - self.last
        self._paused = False
        self.last = now
        if not self._over:
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The client left: nobody touches the request again. The provider is stopped, unless it is to be heard out."""
        if self._over or self._left:
            return
        self._end()
        if not self._drain:
            self.transport.stopProducing()
            self._tell("client_stalled" if self._request.stalled else "cancelled")
            return
        self._over, self._left, self._paused = False, True, False
        self._gathered.clear()
        self._call_after(self._drain, self._heard_enough)
        self.transport.resumeProducing()

    @property
    def drains(self) -> bool:
        """Whether the client's leaving is no end: the provider is heard out."""
        return self._drain > 0 and not self._over

    def _heard_out(self) -> None:
        self._end()
        self._tell("cancelled")

    def _heard_enough(self) -> None:
        self._heard_out()
        self.transport.stopProducing()

    # Time

    def watch(self) -> None:
        """One deadline, set again when it has come: none is touched for a chunk that passes."""
        now = self._clock.seconds()
        limit = self._stalled if self._paused else self._idle
        ends = [(self.last + limit, "client_stalled" if self._paused else "idle_timeout")] if limit else []
        if self._deadline is not None and not self._paused:
            ends.append((self._deadline, "deadline_exceeded"))
        # Being paused may begin or end at any time, so look again at least as often as the shorter limit.
        looks = [limit for limit in (self._idle, self._stalled) if limit]
        if self._deadline is not None:
            looks.append(max(self._deadline - now, 1.0))
        if not ends and not looks:
            return
        if ends and min(ends)[0] <= now:
            self._cut(min(ends)[1])
            return
        wait = min([at - now for at, _ in ends] + looks)
        self._call_after(wait, self.watch)

    def _call_after(self, seconds: float, what: Callable[[], None]) -> None:
        if self._check is None:
            self._check = Deadline(self._deadlines or Deadlines(self._clock), what)
        self._check.set(seconds)

    def _cut(self, outcome: str, reason: Failure | None = None) -> None:
        """Leave the client with a visibly incomplete response: what came is written, its end is not."""
        self._write_gathered()
        self._end()
        if reason is None:
            self.transport.stopProducing()
        # First the outcome: aborting tells everybody that the request is gone, which would read as the client's doing.
        self._tell(outcome)
        if not self._request.gone:
            self._request.unregisterProducer()
            self._request.abort()

    def _withhold(self) -> None:
        if self._left:
            self._heard_enough()
        else:
            self._cut("truncated")

    def _tell(self, outcome: str) -> None:
        self._outcome = outcome
        if self._on_end is not None:
            self._on_end(outcome)
        if self._done is not None and not self._done.called:
            self._done.callback(outcome)

    def _end(self) -> None:
        self._over = True
        if self._heartbeat is not None:
            self._heartbeat.stop()
        if self._late is not None:
            self._late.discard(self)
        check, self._check = self._check, None
        if check is not None:
            check.end()
        if self._flush is not None and self._flush.active():
            self._flush.cancel()

    def _write_comment(self, comment: bytes) -> bool:
        if self._over or self._left or self._paused or self._gathered or self._request.gone:
            return False
        self._request.write(comment)
        return True

    def _gather(self, data: bytes) -> None:
        self._gathered.append(data)
        if self._flush is None:
            self._flush = self._clock.callLater(self._flush_interval, self._write_gathered)

    def _write_gathered(self) -> None:
        if self._flush is not None and self._flush.active():
            self._flush.cancel()
        self._flush = None
        if self._gathered and not self._request.gone:
            self._request.write(b"".join(self._gathered))
        self._gathered.clear()
