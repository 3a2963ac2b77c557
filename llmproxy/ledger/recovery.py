"""Puts the journals that dead processes left into the store, each once, whichever process finds it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from llmproxy.errors import ProxyError, StoreUnavailable
from llmproxy.ledger.batches import Price, next_batch, unsettled_batch
from llmproxy.ledger.compact import KindsOfJournal
from llmproxy.ledger.journal import FIRST_OFFSET, OrphanedJournal, names, open_orphan
from llmproxy.ledger.journal_damage import JournalDamage
from llmproxy.ledger.sql import CLOSED_OFFSET, JournalBatch


class JournalStore(Protocol):
    """Where the lines of journals go; L{LedgerTable<llmproxy.ledger.sql.LedgerTable>} is it."""

    def offset(self, journal: str) -> Deferred[int | None]: ...
    def append(self, journal: str, batch: Callable[[], JournalBatch]) -> Deferred[JournalBatch | None]: ...
    def forget(self, journal: str) -> Deferred[None]: ...


class JournalRecovery:
    """Recovers the journals in one directory.

    @ivar lines: Lines that were recovered.
    """

    _log = Logger()

    def __init__(
        self,
        store: JournalStore,
        directory: Path,
        in_thread: Callable[..., Deferred[Any]],
        damage: JournalDamage,
        *,
        run: str,
        price: Price,
    ) -> None:
        """
        @param run: The name of this process's own journal.
        @param price: USD for the input of a request whose end was never reported, or C{None} where no price is known;
            called in the store's threads, and never twice at a time.
        """
        self.lines = 0
        self._store = store
        self._directory = directory
        self._in_thread = in_thread
        self._damage = damage
        self._run = run
        self._price = price

    async def recover_all(self) -> None:
        """Recover every journal whose process is no more. L{StoreUnavailable} where the store does not answer; where it
        refuses what one of them holds, that error, once all others are recovered."""
        refused: ProxyError | None = None
        for name in await self._in_thread(names, self._directory):
            if name == self._run:
                continue
            try:
                await self._recover(name)
            except StoreUnavailable:
                raise
            except ProxyError as e:
                refused = e
                self._log.error("The store refuses what is in the journal {name}: {reason}", name=name, reason=str(e))
        if refused is not None:
            raise refused

    async def _recover(self, name: str) -> None:
        try:
            orphan: OrphanedJournal | None = await self._in_thread(open_orphan, self._directory, name)
        except OSError as e:
            self._log.error("The journal {name} cannot be read: {reason}", name=name, reason=str(e))
            return
        if orphan is None:
            return
        try:
            lines = await self._append_all(orphan, name)
            self._damage.report(orphan.new_damage())
        except BaseException:
            orphan.close()
            raise
        await self._in_thread(orphan.remove)
        await self._store.forget(name)
        self.lines += lines
        self._log.warn("Entered {count} lines that another process had left: {name}.", count=lines, name=name)

    async def _append_all(self, orphan: OrphanedJournal, name: str) -> int:
        """Append what was settled there, then what never was; how many lines it were."""
        offset, lines = await self._store.offset(name) or FIRST_OFFSET, 0
        kinds = KindsOfJournal(orphan.records)
        while offset < CLOSED_OFFSET:
            part = await self._append(name, partial(next_batch, orphan.records, offset, CLOSED_OFFSET, kinds.find))
            lines += part.line_count
            if part.after == offset:
                part = await self._append(name, partial(unsettled_batch, orphan, offset, self._price, kinds.find))
                lines += part.line_count
            offset = part.after
        return lines

    async def _append(self, name: str, batch: Callable[[], JournalBatch]) -> JournalBatch:
        part = await self._store.append(name, batch)
        if part is None:
            raise StoreUnavailable("Another process entered this journal.")
        self._damage.report_unreadable(part.unreadable)
        return part
