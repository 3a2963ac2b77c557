"""Reports of what was used, up to this moment as far as this process knows."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from llmproxy.base.coroutines import deferred, within
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
FLUSH_TIMEOUT_SECONDS = 2.0  # seconds that a report waits for the latest lines


class Reports:
    """Asks the store, once this process has entered what it knows."""

    def __init__(self, books: LedgerTable, ledger: Ledger | None, clock: IReactorTime) -> None:
        self._books = books
        self._ledger = ledger
        self._clock = clock

    @deferred
    async def report(self, question: UsageQuery) -> Report:
        """L{StoreUnavailable} where the store does not answer."""
        await self._latest()
        return await self._books.report(question)

    @deferred
    async def export(self, question: UsageQuery) -> ReportRows:
        """The same as a whole; L{StoreUnavailable} also where too many are under way."""
        await self._latest()
        return self._books.export(question)

    async def _latest(self) -> None:
        if self._ledger is not None:
            try:
                await within(FLUSH_TIMEOUT_SECONDS, self._clock, self._ledger.flush(), StoreUnavailable())
            except ProxyError:
                pass  # then without the latest
