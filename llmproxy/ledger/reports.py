"""Reports of what was used, up to this moment as far as this process and the other workers know."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime

from llmproxy.base.coroutines import deferred, within
from llmproxy.base.peers import Peers
from llmproxy.errors import ProxyError, StoreUnavailable
from llmproxy.ledger.service import Ledger
from llmproxy.ledger.sql import LedgerTable
from llmproxy.ledger.usage_queries import (
    ATTRIBUTED,
    GROUP_COLUMNS,
    OF_PROJECTS,
    SUM_COLUMNS,
    Report,
    ReportRows,
    UsageQuery,
)

__all__ = ["ATTRIBUTED", "GROUP_NAMES", "SUM_NAMES", "Report", "ReportRows", "Reports", "UsageQuery"]

# By what a report may add up.
GROUP_NAMES = tuple(name for name in GROUP_COLUMNS if name not in (*ATTRIBUTED, *OF_PROJECTS))
SUM_NAMES = SUM_COLUMNS  # what it adds up, the columns of its rows
FLUSH_TIMEOUT_SECONDS = 2.0  # that a report waits for the latest lines

_FLUSH = "ledger.flush"


class Reports:
    """Asks the store, once all workers have entered what they know."""

    def __init__(
        self, books: LedgerTable, ledger: Ledger | None, clock: IReactorTime, peers: Peers | None = None
    ) -> None:
        """
        @param peers: Other workers, whose lines are in the same store.
        """
        self._books = books
        self._ledger = ledger
        self._clock = clock
        self._peers = peers or Peers()
        self._peers.register(_FLUSH, lambda body: self._flush())

    @deferred
    async def report(self, question: UsageQuery) -> Report:
        """L{StoreUnavailable} where the store does not answer."""
        await self.latest()
        return await self._books.report(question)

    @deferred
    async def export(self, question: UsageQuery) -> ReportRows:
        """The same as a whole; L{StoreUnavailable} also where too many are under way."""
        await self.latest()
        return self._books.export(question)

    @deferred
    async def latest(self) -> None:
        """Have all workers enter what they know by now, for whoever reads it in the store; without those that are
        late."""
        entering: list[Deferred[Any]] = [self._flush(), self._peers.ask(_FLUSH)]
        both = DeferredList(entering, consumeErrors=True)  # it fires all the same where it is cancelled
        await within(FLUSH_TIMEOUT_SECONDS, self._clock, both, StoreUnavailable())

    @deferred
    async def _flush(self) -> None:
        if self._ledger is not None:
            try:
                await within(FLUSH_TIMEOUT_SECONDS, self._clock, self._ledger.flush(), StoreUnavailable())
            except ProxyError:
                pass  # then without the latest
