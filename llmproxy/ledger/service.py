"""Keeps the ledger: into the journal at once, into the store in batches, and out of the journals of dead processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from llmproxy.base.background import Task
from llmproxy.base.coroutines import FairLock, deferred, within
from llmproxy.brief_record import RecordKinds
from llmproxy.errors import Invalid, ProxyError, StoreUnavailable
from llmproxy.instruments import Counter, Gauge, HealthCheck, Instrument
from llmproxy.interfaces import IHealthChecked, IInstrumented, IOpenable
from llmproxy.ledger import records
from llmproxy.ledger.batches import Price, next_batch
from llmproxy.ledger.journal import FIRST_OFFSET, Journal, JournalSize, trim_damaged_files
from llmproxy.ledger.journal_damage import JournalDamage
from llmproxy.ledger.masking import Masking, NothingMasked
from llmproxy.ledger.pending import MAX_PENDING_SECONDS, PendingResult
from llmproxy.ledger.records import Deferral, FinishedRequest
from llmproxy.ledger.recovery import JournalRecovery, JournalStore
from llmproxy.ledger.sql import CLOSED_OFFSET, JournalBatch, day
from llmproxy.ledger.writer import JournalWriter
from llmproxy.model import LedgerLine, RequestRecord
from llmproxy.store.errors import StartupError

RECOVERY_INTERVAL_SECONDS = 60.0  # between two looks for journals that dead processes left
ROLL_UP_INTERVAL_SECONDS = 3600.0  # between two rounds of removing old lines and summing up old days
MAX_ROLL_UP_ROWS = 5000  # lines, and sums, that are rolled up with one transaction
FLUSH_TURN_SECONDS = 60.0  # for which a flush waits for the one before it
STOP_TIMEOUT_SECONDS = 10.0


class LedgerStore(JournalStore, Protocol):
    """The store's side of the ledger; L{LedgerTable<llmproxy.ledger.sql.LedgerTable>} is it."""

    def pending(self, project_id: str, api: str, result_id: str) -> Deferred[list[PendingResult]]: ...
    def collect(self, results: Sequence[PendingResult], line: LedgerLine) -> Deferred[Mapping[str, int] | None]: ...
    def rename(self, results: Sequence[PendingResult], result_id: str) -> Deferred[None]: ...
    def pending_count(self, before: float) -> Deferred[int]: ...
    def roll_up(self, lines_before: float, days_before: str, limit: int) -> Deferred[tuple[int, int]]: ...


@implementer(IHealthChecked, IInstrumented, IOpenable)
class Ledger(Service):
    """One line for every request of a known token.

    L{open_line} before a request's bytes leave for the provider, L{settle} when it is over: both are a few copied
    bytes, never wait and never fail. What the journal cannot take is lost, counted, and reported in L{state}.

    @ivar pending_results: Results that were announced and not collected, as of a minute ago at most.
    """

    name = "ledger"
    _log = Logger()

    def __init__(
        self,
        table: LedgerStore,
        directory: str | Path,
        clock: IReactorTime,
        now: Callable[[], float],
        in_thread: Callable[..., Deferred[Any]],
        *,
        run: str,
        journal_size: JournalSize,
        interval: float = 1.0,
        keep_lines: float = 0.0,
        keep_days: float = 0.0,
        price: Price = lambda opening: None,
        secrets: Masking | None = None,
    ) -> None:
        """
        @param directory: Where the journals of all processes are that share this machine's state.
        @param in_thread: Calls its argument in a thread and fires with the result.
        @param run: A name for this process that no other ever has.
        @param interval: Seconds between two batches for the store.
        @param keep_lines: Seconds for which a line is kept in the store; C{0}: for ever.
        @param keep_days: Seconds for which sums are kept by day; beyond, by month. C{0}: for ever.
        @param price: As L{JournalRecovery} takes it.
        @param secrets: Masks them; C{None} where there are none.
        """
        self._table = table
        self._directory = Path(directory).absolute()
        self._clock = clock
        self._now = now
        self._in_thread = in_thread
        self._run = run
        self._interval = interval
        self._keep_lines = keep_lines
        self._keep_days = keep_days
        self._secrets = secrets = secrets or NothingMasked()
        self._damage = damage = JournalDamage()
        self._journal = journal = Journal(self._directory / run, journal_size)
        self.task = Task("ledger", clock)
        self.tasks = (self.task,)
        self._writer = JournalWriter(journal, in_thread, damage, self.task.failed, run=run, secrets=secrets)
        self.open_line, self.settle_all = self._writer.open_line, self._writer.settle_all
        self.open_alike, self.write_openings = self._writer.open_alike, self._writer.write_openings
        self._recovery = JournalRecovery(table, self._directory, in_thread, damage, run=run, price=price)
        self._record_kinds = RecordKinds()
        self._offset = FIRST_OFFSET  # up to which the journal is in the store
        self._turns = FairLock()
        self._timer: IDelayedCall | None = None
        self._round: Deferred[None] | None = None
        self._next_recovery = self._next_roll_up = 0.0
        self._running = self._behind = self._refused = False
        self._own_lines = 0
        self.pending_results = 0

    def instruments(self) -> Iterator[Instrument]:
        yield Counter("ledger_lines", "Lines that were written to the store.", lambda: self.written_lines)
        yield Counter("ledger_recovered", "Of these, lines that dead processes had left.", lambda: self.recovered_lines)
        yield Counter("ledger_lost", "Records that the ledger's journal had no room for.", lambda: self.lost_records)
        yield Counter("ledger_damaged", "Places of journals that could not be read.", lambda: self.damaged_places)
        yield Counter(
            "ledger_damaged_files_removed", "Damaged files that were too many to be kept.", lambda: self._damage.removed
        )
        yield Gauge("ledger_open", "Requests that were let go and are not settled.", lambda: self.open_lines)
        yield Gauge(
            "ledger_pending_results",
            "Results that were announced and not fetched yet.",
            lambda: self.pending_results,
            across="max",  # each process counts those of the whole store
        )
        yield Gauge("ledger_journal_bytes", "The journal's size on the disk.", lambda: self.journal_bytes)

    def health_checks(self) -> Iterator[HealthCheck]:
        yield HealthCheck("ledger", lambda: self.state, required=True)
        yield HealthCheck("ledger_files", lambda: self.files)
        yield HealthCheck("ledger_disk", lambda: "ok" if self._writer.has_room_on_disk else "disk_full")

    # What the pipeline calls, as it does C{open_line} and C{settle_all} of the L{JournalWriter}

    def settle(
        self, ledger_id: str, record: RequestRecord, sent: bool = True, deferral: Deferral | None = None
    ) -> None:
        """A request is over.

        @param ledger_id: As L{open_line} gave it; C{""} where nothing left for the provider.
        @param sent: Whether anything of it was sent after its line had been opened; else it is no use of its token.
        @param deferral: The result that its response announced; it is kept until L{collect}.
        """
        self.settle_all((FinishedRequest(self._record_kinds.parts_of(record), ledger_id, sent, deferral),))

    # Results that are reported later

    def announce(self, ledger_id: str, deferral: Deferral) -> None:
        """The response to a request in flight announces a result: keep that before anybody knows of it.

        L{settle} is to be told of it too.
        """
        self._writer.announce(ledger_id, deferral)

    @deferred
    async def pending(self, project_id: str, api: str, result_id: str) -> list[PendingResult]:
        """What has announced a result that nobody has collected, oldest first. L{StoreUnavailable} in an outage."""
        if self._offset < self._writer.announced_at(result_id):
            await self.flush()
        return await self._table.pending(project_id, api, result_id)

    @deferred
    async def collect(
        self, results: Sequence[PendingResult], ledger_id: str, record: RequestRecord
    ) -> Mapping[str, int] | None:
        """Enter what they used: the line of the request that fetched it says so, and no other ever will.

        The line is in the store when this fires, and L{settle} is not to be called for the request any more. Fire with
        how much less than was held was charged to each budget; with C{None}, and settle as ever, where another process
        was first. L{StoreUnavailable} where that is not certain.
        """
        first = results[0]
        line = records.line(f"{first.ledger_id}-result", self._secrets.record(record))
        line = line._replace(token_id=first.token_id, model=first.model, attribution=first.attribution)
        returned = await self._table.collect(results, line)
        if returned is not None:
            self._writer.drop(ledger_id)
            self._own_lines += 1
        return returned

    @deferred
    async def rename(self, results: Sequence[PendingResult], result_id: str) -> None:
        """Another object reports what they used. L{StoreUnavailable} where it cannot be kept."""
        await self._table.rename(results, result_id)

    # What an operator looks at

    @property
    def state(self) -> str:
        """C{ok}, or what is wrong: C{journal_full} (the store has not answered for too long), C{disk_full},
        C{journal_gone} (its files were removed, and cannot be made anew) or C{refused} (the store does not take what it
        holds)."""
        return self._writer.problem or ("refused" if self._refused else "ok")

    @property
    def files(self) -> str:
        """C{damaged} where files are kept that could not be read whole, until somebody removes them; else C{ok}."""
        return self._damage.files

    @property
    def written_lines(self) -> int:
        """Lines that this process put into the store."""
        return self._own_lines + self._recovery.lines

    @property
    def recovered_lines(self) -> int:
        """Those of them that dead processes left."""
        return self._recovery.lines

    @property
    def lost_records(self) -> int:
        """Records for which the journal had no room."""
        return self._writer.lost_records

    @property
    def damaged_places(self) -> int:
        """Places of journals that could not be read, so that lines were lost."""
        return self._damage.places

    @property
    def open_lines(self) -> int:
        """Requests in flight: their lines were opened and not settled."""
        return self._writer.open_lines

    @property
    def journal_bytes(self) -> int:
        """The journal's size on the disk."""
        return self._journal.size

    # Its life

    @deferred
    async def open(self) -> None:
        """Make the journal. L{StartupError} where that cannot be: no request may go without one."""
        try:
            await self._in_thread(self._journal.open)
        except OSError as e:
            raise StartupError(f"The ledger's journal {self._journal.path} cannot be made: {e.strerror}.") from e
        self._running = True
        self._schedule()

    @deferred
    async def stopService(self) -> None:
        """Enter what is left. What the store does not take in time stays in the journal, for the next process."""
        Service.stopService(self)
        if not self._running:
            return
        self._running = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        try:
            await within(STOP_TIMEOUT_SECONDS, self._clock, Deferred.fromCoroutine(self._close()), StoreUnavailable())
        except ProxyError as e:
            self._log.warn("The ledger's last lines stay in the journal for the next start: {reason}", reason=str(e))
            self._journal.close()

    async def _close(self) -> None:
        for begun in (self._writer.growing, self._round):
            if begun is not None:
                await begun
        await self.flush()
        async with self._turns.within(FLUSH_TURN_SECONDS, self._clock, StoreUnavailable()):
            if not self._writer.open_lines and self._offset == self._journal.offset:
                await self._table.append(self._run, lambda: JournalBatch(self._offset, CLOSED_OFFSET, []))
                await self._in_thread(self._journal.remove)
                await self._table.forget(self._run)
            else:
                self._journal.close()

    @deferred
    async def flush(self) -> None:
        """Enter what was settled so far. L{StoreUnavailable} where the store does not answer.

        What is settled meanwhile has its own turn: under load it would else never end, in ever smaller batches.
        """
        async with self._turns.within(FLUSH_TURN_SECONDS, self._clock, StoreUnavailable()):
            end = self._journal.offset
            while self._offset < end and await self._append_batch(end):
                pass
            self._damage.report(self._journal.new_damage())
            await self._writer.release(self._offset)

    async def _append_batch(self, end: int) -> bool:
        """Enter one batch; whether there may be more."""
        before = self._offset
        part = await self._table.append(
            self._run, partial(next_batch, self._journal.records, before, end, self._writer.kinds.find)
        )
        if part is None:
            self._offset = await self._table.offset(self._run) or FIRST_OFFSET
            return self._offset > before
        self._offset = part.after
        self._own_lines += part.line_count
        self._damage.report_unreadable(part.unreadable)
        self._writer.stored(part.after)
        return before < part.after < end  # under load there is more by now; to go on with that would never end

    def _schedule(self) -> None:
        if self._running:
            self._timer = self._clock.callLater(self._interval, self._tick)

    def _tick(self) -> None:
        self._round = Deferred.fromCoroutine(self._work())

    async def _work(self) -> None:
        try:
            await self._writer.inspect()
            await self._writer.prepare()
            await self.flush()
            await self._housekeep()
            if self._behind or self._refused:
                self._behind = self._refused = False
                self._log.info("The ledger is entered again.")
        except Invalid as e:
            if not self._refused:
                self._refused = True
                self._log.error("The store refuses lines of the ledger; its journal has them: {reason}", reason=str(e))
        except ProxyError as e:
            if not self._behind:
                self._behind = True
                self._log.warn("The ledger cannot be entered for now; its journal keeps it: {code}", code=e.code)
        except Exception:
            self.task.failed()
        else:
            self.task.worked()
        self._schedule()

    async def _housekeep(self) -> None:
        """Now and then: what dead processes left, and what is old."""
        now = self._clock.seconds()
        if now >= self._next_recovery:
            self._next_recovery = now + RECOVERY_INTERVAL_SECONDS
            kept, removed = await self._in_thread(trim_damaged_files, self._directory)
            self._damage.report_removed(removed)
            self._damage.files = "damaged" if kept or any(each.damaged for each in self._journal.segments) else "ok"
            await self._recovery.recover_all()
            self.pending_results = await self._table.pending_count(self._now() - MAX_PENDING_SECONDS)
        if now >= self._next_roll_up:
            self._next_roll_up = now + ROLL_UP_INTERVAL_SECONDS
            await self._roll_up()

    async def _roll_up(self) -> None:
        now, most = self._now(), MAX_ROLL_UP_ROWS
        lines_before = now - self._keep_lines if self._keep_lines else 0.0
        days_before = day(now - self._keep_days) if self._keep_days else ""
        while self._running and max(await self._table.roll_up(lines_before, days_before, most)) >= most:
            pass
