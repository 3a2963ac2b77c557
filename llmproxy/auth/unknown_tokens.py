"""Looks up tokens that this process has never seen: many with one query, and fair to whoever sends them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from llmproxy.auth.lockout import FailedAttempts, networks
from llmproxy.auth.single_flight import again
from llmproxy.errors import ProxyError, StoreUnavailable, TooManyFailures, Unauthorized
from llmproxy.instruments import Counter, Gauge, Instrument
from llmproxy.interfaces import IInstrumented
from llmproxy.model import Grant

MAX_BATCH_TOKENS = 32  # tokens with one query; their results all leave in one turn of the reactor
MAX_WAITING = 4096  # tokens
MAX_WAITING_HELD_BACK = 256  # tokens of one address that has sent too many wrong ones

Grants = Sequence[Grant | Unauthorized]
LookUpTokens = Callable[[Sequence[str]], Awaitable[Grants]]
_Line = OrderedDict[Deferred[Grant], str]


@implementer(IInstrumented)
class UnknownTokens:
    """A bounded queue before the store, with one query in flight at a time.

    First come the tokens of addresses without wrong ones in this minute, then those with some, then those with too
    many; among equals the addresses take turns (as in fair queueing, RFC 970). Where there is no room, those with too
    many are turned away first. One new token among thousands of guesses so waits for a query or two.

    @ivar refused: How many were turned away without a look-up.
    """

    _log = Logger()

    def __init__(
        self,
        look_up: LookUpTokens,
        failed: FailedAttempts,
        clock: IReactorTime,
        *,
        batch: int = MAX_BATCH_TOKENS,
        waiting: int = MAX_WAITING,
        held_back: int = MAX_WAITING_HELD_BACK,
    ) -> None:
        """
        @param look_up: Returns what each of these tokens is good for, in their order.
        @param failed: Knows the addresses; wrong tokens are counted there by whoever rejects them.
        """
        self.refused = 0
        self._look_up = look_up
        self._failed_attempts = failed
        self._clock = clock
        self._batch = batch
        self._limit = waiting
        self._held_back = held_back
        self._lines: tuple[OrderedDict[str, _Line], ...] = (OrderedDict(), OrderedDict(), OrderedDict())
        self._size = 0
        self._busy = False

    @property
    def waiting(self) -> int:
        """How many tokens wait now."""
        return self._size

    def instruments(self) -> Iterator[Instrument]:
        yield Gauge("unknown_tokens_waiting", "Tokens never seen here that wait to be looked up.", lambda: self.waiting)
        yield Counter("unknown_tokens_refused", "Of these, those that were turned away.", lambda: self.refused)

    def validate(self, token: str, address: str) -> Deferred[Grant]:
        """Fire with the grant, or fail as an L{ITokenValidator} does; L{TooManyFailures} where it is not looked up.

        Whoever waits must see to it that the wait ends.
        """
        now = self._clock.seconds()
        wait = self._failed_attempts.wait(address, now)
        rank = 2 if wait else 1 if self._failed_attempts.failures(address, now) else 0
        network = networks(address)[0]
        line = self._lines[rank].get(network)
        if wait and line is not None and len(line) >= self._held_back:
            self.refused += 1
            raise TooManyFailures(retry_after=wait)
        if self._size >= self._limit and not self._make_room(rank):
            self.refused += 1
            raise TooManyFailures(retry_after=wait) if wait else StoreUnavailable(retry_after=1.0)
        if line is None:
            line = self._lines[rank][network] = OrderedDict()
        waiter: Deferred[Grant] = Deferred(partial(self._leave, rank, network))
        line[waiter] = token
        self._size += 1
        if not self._busy:
            self._busy = True
            Deferred.fromCoroutine(self._run())
        return waiter

    def _leave(self, rank: int, network: str, waiter: Deferred[Grant]) -> None:
        line = self._lines[rank].get(network)
        if line is not None and line.pop(waiter, None) is not None:
            self._size -= 1
            if not line:
                del self._lines[rank][network]

    def _make_room(self, rank: int) -> bool:
        """Turn away the last of those who come after all of this rank; false where there are none."""
        for lines in reversed(self._lines[rank + 1 :]):
            if lines:
                network, line = next(reversed(lines.items()))
                waiter, _ = line.popitem()
                self._size -= 1
                if not line:
                    del lines[network]
                self.refused += 1
                waiter.errback(TooManyFailures(retry_after=1.0))
                return True
        return False

    def _take(self) -> list[tuple[Deferred[Grant], str]]:
        """The next to be looked up."""
        taken: list[tuple[Deferred[Grant], str]] = []
        for lines in self._lines:
            while lines and len(taken) < self._batch:
                network, line = lines.popitem(last=False)
                taken.append(line.popitem(last=False))
                if line:
                    lines[network] = line
        self._size -= len(taken)
        return taken

    async def _run(self) -> None:
        try:
            while self._size:
                batch = self._take()
                grants = await self._look_up_batch([token for _, token in batch])
                for (waiter, _), grant in zip(batch, grants, strict=True):
                    if waiter.called:
                        continue
                    if isinstance(grant, Grant):
                        waiter.callback(grant)
                    else:
                        waiter.errback(Failure(grant))
        finally:
            self._busy = False

    async def _look_up_batch(self, tokens: list[str]) -> Sequence[Grant | ProxyError]:
        try:
            return await self._look_up(tokens)
        except CancelledError:
            raise
        except ProxyError as e:
            return [again(e) for _ in tokens]
        except Exception:
            self._log.failure("Looking up tokens failed.")
            return [StoreUnavailable() for _ in tokens]
