"""Reads a request's body, and a response's that is encoded, while it passes, in the time that all bodies share."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from llmproxy.http.request_reader import RequestContent, RequestReader
from llmproxy.proxy.reading_turns import ReadingTurns
from llmproxy.wire.client.transport import Response

PEEK_BYTES = 4096  # of a body that are read before its end, where somebody wants to know
MAX_WAITING_BYTES = 256 * 1024  # that came and are not read yet, beyond which the client waits


class BodyReading:
    """Reads a body that passes: the usual one at its end, by one call in C; any other by a L{RequestReader} as it
    comes, in the L{ReadingTurns} of its client.

    @ivar count: Bytes that came.
    """

    def __init__(
        self,
        reader: RequestReader,
        turns: ReadingTurns,
        client: Hashable,
        caught_up: Callable[[], object] = bool,
        *,
        read_usual: Callable[[bytes], RequestContent | None] = lambda body: None,
        may_hold: Callable[[int], bool] = lambda count: False,
        hold: Callable[[int], object] = bool,
        peek: Callable[[], RequestReader] | None = None,
        longest_whole: int = 0,
        measured: bool = False,
    ) -> None:
        """
        @param client: Whose it is.
        @param caught_up: Called when it is not L{behind} any more.
        @param read_usual: What all of a body says; C{None} where that is for the reader.
        @param may_hold: Whether so many bytes more of the body may be held until its end.
        @param hold: Told how many bytes more, or less, wait to be read.
        @param peek: Makes a reader for its beginning; without one nothing is held.
        @param longest_whole: Bytes of a body that C{read_usual} reads.
        @param measured: Whether C{read_usual} measures the body, too.
        """
        self._reader = reader
        self._caught_up = caught_up
        self._turns = turns
        self._client = client
        self._read_usual = read_usual
        self._may_hold = may_hold
        self._hold = hold
        self._queued = 0  # bytes that wait to be read, as C{hold} was told
        self._peek = peek or (lambda: reader)
        self._longest_whole = longest_whole
        self._measured = measured
        self._so_far: RequestContent | None = None
        self._asked_at = 0  # bytes that had come then
        self._held: list[bytes] | None = None if peek is None else []  # C{None}: the reader has it
        self._content: RequestContent | None = None
        self._waiting: list[Deferred[Failure | None]] = []
        self._failure: Failure | None = None
        self._scheduled = False
        self.count = 0

    def feed(self, data: bytes) -> None:
        """A tap on an upload."""
        self.count += len(data)
        if self._held is not None:
            if self.count <= self._longest_whole and self._may_hold(len(data)):
                self._held.append(data)
                return
            self._give_to_reader()
        self._reader.feed(data, at_once=False)
        self._read()

    def _give_to_reader(self) -> None:
        held, self._held = self._held, None
        for data in held or ():
            self._reader.feed(data, at_once=False)
        self._read()

    def _end(self) -> None:
        """All of the body has come."""
        if self._held is not None and self._content is None:
            body = b"".join(self._held)
            self._held = [body]
            self._content = self._read_usual(body)
            if self._content is None:
                self._give_to_reader()

    def _beginning(self, first: bytes) -> RequestContent:
        """What the first bytes of a held body say, for somebody who cannot wait for its end; who asks again when there
        is more of it will be told that, too."""
        if self._so_far is None:
            reader = self._peek()
            reader.feed(first[:PEEK_BYTES])
            self._so_far, self._asked_at = reader.content(), self.count
        elif self.count > self._asked_at:
            self._give_to_reader()
            return self._reader.content()
        return self._so_far

    @property
    def unmeasured_body(self) -> bytes | None:
        """All of it, where it is held, and was not measured."""
        return self._held[0] if self._content is not None and self._held and not self._measured else None

    @property
    def behind(self) -> bool:
        """Whether more waits to be read than should."""
        return self._reader.queued > MAX_WAITING_BYTES

    def content(self, *, ended: bool) -> RequestContent:
        """What is known so far.

        @param ended: Whether all of the body has come.
        """
        if ended:
            self._end()
        elif self._held:
            return self._beginning(self._held[0])
        if self._content is not None:
            return self._content
        if ended and not self._reader.pending:
            self._reader.end()
        return self._reader.content()

    async def turn(self) -> None:
        """What was held may be read now, by one call."""
        if self._held and self._content is None:
            await self._turns.turn(self._client)

    async def whole(self) -> RequestContent:
        """What all of it says, once it is read; fails as the reader does. All of it has come."""
        await self.turn()
        self._end()
        if self._content is not None:
            return self._content
        while self._reader.pending:
            if self._failure is not None:
                self._failure.raiseException()
            turn: Deferred[Failure | None] = Deferred()
            self._waiting.append(turn)
            await turn
        self._reader.end()
        return self._reader.content()

    def _read(self) -> None:
        """Have what waits read, unless that is under way."""
        self._count_queued()
        if self._reader.pending and not self._scheduled:
            self._scheduled = True
            self._turns.begin(self._client, self._work)

    def _work(self, until: float) -> bool:
        behind = self.behind
        try:
            self._reader.work(until)
        except Exception:  # nobody else would tell those who wait; it stays scheduled, so that it is not tried again
            self._failure = Failure()
            self._tell(self._failure)
            self._hold(-self._queued)
            return False
        self._count_queued()
        if behind and not self.behind:
            self._caught_up()
        if self._reader.pending:
            return True
        self._scheduled = False
        self._tell(None)
        return False

    def _count_queued(self) -> None:
        if (queued := self._reader.queued) != self._queued:
            self._hold(queued - self._queued)
            self._queued = queued

    def _tell(self, outcome: Failure | None) -> None:
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            turn.callback(outcome)


class ResponseReading:
    """Has a response decoded and measured as it passes, and a little later where that takes long.

    While too much of it waits to be read the provider does.
    """

    def __init__(
        self,
        answer: Response,
        clock: IReactorTime,
        turns: ReadingTurns,
        client: Hashable,
        hold: Callable[[int], object] = bool,
    ) -> None:
        """
        @param client: Whose it is.
        @param hold: Told how many bytes more, or less, wait to be read.
        """
        self._answer = answer
        self._hold = hold
        self._clock = clock
        self._turns = turns
        self._client = client
        self._queue: deque[tuple[Iterator[None], int]] = deque()
        self._queued = 0
        self._scheduled = False
        self._waiting: list[Deferred[None]] = []

    @property
    def pending(self) -> bool:
        """Whether some of what came is not read yet."""
        return bool(self._queue)

    def watch(self, steps: Callable[[bytes], Iterator[None]]) -> None:
        """Have the body read by C{steps}; to be called before it is taken.

        @param steps: Given the next bytes of it, does a little work whenever it is iterated.
        """
        self._answer.watch(partial(self._feed, steps))

    async def whole(self) -> None:
        """All that came is read."""
        while self._queue:
            turn: Deferred[None] = Deferred()
            self._waiting.append(turn)
            await turn

    def _feed(self, steps: Callable[[bytes], Iterator[None]], data: bytes) -> None:
        self._queue.append((steps(data), len(data)))
        self._queued += len(data)
        self._hold(len(data))
        if not self._scheduled:
            self._scheduled = True
            self._turns.begin(self._client, self._work)
        if self._queued > MAX_WAITING_BYTES:
            self._answer.wait()

    def _work(self, until: float) -> bool:
        self._read(until)
        if self._answer.waits and self._queued <= MAX_WAITING_BYTES:
            self._answer.go_on()
        if self._queue:
            return True
        self._scheduled = False
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            turn.callback(None)
        return False

    def _read(self, until: float) -> None:
        while self._queue:
            steps, size = self._queue[0]
            for _ in steps:
                if self._clock.seconds() > until:
                    return
            self._queue.popleft()
            self._queued -= size
            self._hold(-size)
