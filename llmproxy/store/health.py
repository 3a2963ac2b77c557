"""Whether the store can be written: only a write notices a full disk, a lock and a read-only file."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, delete, insert, select, update
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from llmproxy.errors import Conflict, ProxyError
from llmproxy.store.tables import epochs

REUSE_SECONDS = 1.0  # for which a good response is given again without another write
WRITE_SECONDS = 3.0  # for one write
LOCK_WAIT_SECONDS = 2.0  # of these, for which another process may be writing

_TOUCH = update(epochs).where(epochs.c.name == "health").values(number=epochs.c.number + 1)


def touch(connection: Connection) -> None:
    """Change a row that nobody reads. Blocks."""
    if not connection.execute(_TOUCH).rowcount:
        connection.execute(insert(epochs).values(name="health", number=0))


@contextmanager
def untouched(connection: Connection) -> Iterator[None]:
    """Have that row be as before, once what is done in here has been committed. Blocks."""
    of_health = epochs.c.name == "health"
    before = connection.scalar(select(epochs.c.number).where(of_health))
    yield
    if before is None:
        connection.execute(delete(epochs).where(of_health))
    else:
        connection.execute(update(epochs).where(of_health).values(number=before))


class Health:
    """Asks once for all who ask at the same time, and seldom."""

    def __init__(self, write: Callable[[], Awaitable[None]], clock: IReactorTime, known: float = REUSE_SECONDS) -> None:
        self._write = write
        self._clock = clock
        self._known = known
        self._good_until = float("-inf")
        self._waiting: list[Deferred[None]] | None = None

    def check(self) -> Deferred[None]:
        """Fire where the store takes writes; else fail with L{errors.StoreUnavailable}, which says why not."""
        answer: Deferred[None] = Deferred()
        if self._clock.seconds() < self._good_until:
            answer.callback(None)
        elif self._waiting is not None:
            self._waiting.append(answer)
        else:
            self._waiting = [answer]
            Deferred.fromCoroutine(self._ask())
        return answer

    async def _ask(self) -> None:
        error: ProxyError | None = None
        try:
            await self._write()
            self._good_until = self._clock.seconds() + self._known
        except Conflict:
            pass  # another process has made the row: somebody writes
        except ProxyError as e:
            error = e
        waiting, self._waiting = self._waiting or [], None
        for answer in waiting:
            if not answer.called:
                answer.callback(None) if error is None else answer.errback(error)
