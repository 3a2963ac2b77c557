"""The audit log in two places: a file of this host, and the store that all processes share."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from llmproxy.base.background import Loop
from llmproxy.base.coroutines import deferred, within
from llmproxy.errors import ProxyError, StoreUnavailable
from llmproxy.instruments import Counter, HealthCheck, Instrument
from llmproxy.interfaces import IAuditLogger, IHealthChecked, IInstrumented
from llmproxy.model import AuditEntry
from llmproxy.observability.audit import entry_text

MAX_WAITING_ENTRIES = 10_000
RETRY_SECONDS = 2.0
PATIENCE_SECONDS = 1.0  # that an entry that is in the file waits for the store: a revocation must not wait long
PURGE_SECONDS = 3600.0
FIRST_PURGE_SECONDS = 5.0  # after the start: a process may never get an hour old
LAST_FLUSH_SECONDS = 5.0
ENTRIES_AT_ONCE = 200


class AuditRows(Protocol):
    """Where entries are stored."""

    def append(self, entries: list[tuple[float, str]], *, again: bool = False) -> Deferred[None]:
        """Fire when they are; L{StoreUnavailable} where the store does not respond.

        @param again: They may be stored already, by an attempt that was given up before its end: once is enough.
        """

    def purge(self, before: float) -> Deferred[int]:
        """Remove what is older; fire with how many entries that were."""


@implementer(IAuditLogger, IHealthChecked, IInstrumented)
class StoredAudit(Service):
    """Writes each entry into the file, where there is one, then into the store.

    Where there is a file, what the store does not take waits in memory, and is stored as soon as that is possible: the
    entry is not lost, and nobody has to wait for a store that is down. Without a file, an entry that is not stored is
    not written, and whoever logs it is told so.

    @ivar dropped: How many entries are in the file only, because too many waited.
    """

    name: Any = "stored audit"

    def __init__(
        self,
        file: IAuditLogger | None,
        rows: AuditRows,
        clock: IReactorTime,
        now: Callable[[], float],
        *,
        redact: Callable[[str], str] = str,
        keep: float = 0.0,
    ) -> None:
        """
        @param now: Seconds since the epoch; C{keep}: for how many of them entries are stored; 0: for ever.
        """
        self.dropped = 0
        self._file = file
        self._rows = rows
        self._clock = clock
        self._now = now
        self._redact = redact
        self._keep = keep
        self._waiting: deque[tuple[float, str]] = deque()
        self._flushing = Loop("audit_store", self.flush, RETRY_SECONDS, clock)
        self._purging = Loop("audit_purge", self._purge, PURGE_SECONDS, clock)
        self.tasks = (self._flushing, self._purging)

    def instruments(self) -> Iterator[Instrument]:
        yield Counter(
            "audit_unstored",
            "Audit entries that are in the file only, because the store took none for too long.",
            lambda: self.dropped,
        )

    def health_checks(self) -> Iterator[HealthCheck]:
        yield HealthCheck("audit_store", lambda: f"{len(self._waiting)} entries wait" if self._waiting else "ok")

    def startService(self) -> None:
        Service.startService(self)
        self._flushing.start()
        if self._keep:
            self._purging.start(after=FIRST_PURGE_SECONDS)

    @deferred
    async def stopService(self) -> None:
        """Store what waits, if that can be done soon."""
        Service.stopService(self)
        self._flushing.stop()
        self._purging.stop()
        try:
            await within(LAST_FLUSH_SECONDS, self._clock, self.flush(), StoreUnavailable())
        except ProxyError:
            pass
        self.dropped += len(self._waiting)

    @deferred
    async def log(self, entry: AuditEntry) -> None:
        row = (entry.at, self._redact(entry_text(entry)))
        if self._file is None:
            await self._rows.append([row])
            return
        await self._file.log(entry)
        if self._waiting:
            self._wait(row)
            return
        try:
            await within(PATIENCE_SECONDS, self._clock, self._rows.append([row]), StoreUnavailable())
        except StoreUnavailable:
            self._wait(row)

    def _wait(self, row: tuple[float, str]) -> None:
        if len(self._waiting) >= MAX_WAITING_ENTRIES:
            self.dropped += 1
        else:
            self._waiting.append(row)

    @deferred
    async def flush(self) -> None:
        """Store what waits, in its order; what the store does not take waits on."""
        while self._waiting:
            rows = [self._waiting[number] for number in range(min(ENTRIES_AT_ONCE, len(self._waiting)))]
            try:
                await self._rows.append(rows, again=True)
            except StoreUnavailable:
                return
            for _ in rows:
                self._waiting.popleft()

    async def _purge(self) -> None:
        try:
            await self._rows.purge(self._now() - self._keep)
        except StoreUnavailable:
            pass  # in an hour, then
