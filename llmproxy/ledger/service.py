"""Keeps the ledger: into the journal at once, into the store in batches, and out of the journals of dead processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from llmproxy.background import Task
from llmproxy.coroutines import FairLock, deferred, within
from llmproxy.errors import ProxyError, StoreUnavailable
from llmproxy.instruments import Counter, Gauge, HealthCheck, Instrument
from llmproxy.interfaces import IHealthChecked, IInstrumented, IOpenable
from llmproxy.ledger import records
from llmproxy.ledger.journal import (
    FIRST_OFFSET,
    Journal,
    JournalSize,
    OrphanedJournal,
    damaged_files,
    names,
    open_orphan,
)
from llmproxy.ledger.pending import MAX_PENDING_SECONDS, PendingResult, pending_result
from llmproxy.ledger.records import Deferral, LedgerLineOpening, Settlement
from llmproxy.ledger.sql import CLOSED_OFFSET, JournalBatch, day
from llmproxy.model import LedgerLine, RequestRecord
from llmproxy.store.errors import StartupError

T = TypeVar("T")

Counts = dict[str, tuple[int, float]]
Price = Callable[[LedgerLineOpening], float | None]

BATCH_LINES = 250  # lines that are entered at once
RECOVERY_INTERVAL_SECONDS = 60.0  # seconds between two looks for journals that dead processes left
ROLL_UP_INTERVAL_SECONDS = 3600.0  # seconds between two rounds of putting old lines and sums away
ROLL_UP_ROWS = 5000  # lines, and sums, that are put away at once
FLUSH_TURN_SECONDS = 60.0  # for which a flush waits for the one before it
STOP_TIMEOUT_SECONDS = 10.0  # seconds that stopping may take


class LedgerStore(Protocol):
    """The store's side of the ledger; L{llmproxy.ledger.sql.LedgerTable} is it."""

    def offset(self, journal: str) -> Deferred[int | None]: ...
    def append(self, journal: str, batch: Callable[[], JournalBatch]) -> Deferred[JournalBatch | None]: ...
    def forget(self, journal: str) -> Deferred[None]: ...
    def pending(self, project_id: str, api: str, result_id: str) -> Deferred[list[PendingResult]]: ...
    def collect(self, results: Sequence[PendingResult], line: LedgerLine) -> Deferred[Mapping[str, int] | None]: ...
    def rename(self, results: Sequence[PendingResult], result_id: str) -> Deferred[None]: ...
    def pending_count(self, before: float) -> Deferred[int]: ...
    def roll_up(self, lines_before: float, days_before: str, limit: int) -> Deferred[tuple[int, int]]: ...


@implementer(IHealthChecked, IInstrumented, IOpenable)
class Ledger(Service):
    """One line for every request of a known token.

    L{reserve} before a request's bytes leave for the provider, L{settle} when it is over: both are a few copied bytes,
    never wait and never fail. What the journal cannot take is lost, counted, and said in L{state}.

    @ivar written_lines: Lines that this process put into the store; C{recovered_lines}: those of them that dead
        processes left.
    @ivar lost_records: Records for which the journal had no room.
    @ivar damaged_places: Places of journals that could not be read, so that lines were lost.
    @ivar files: C{damaged} where files are kept that could not be read whole, until somebody removes them; else C{ok}.
    @ivar pending_results: Results that were announced and not collected, as of a minute ago at most.
    """

    name = "ledger"
    _log = Logger()

    def __init__(
        self,
        books: LedgerStore,
        directory: str | Path,
        clock: IReactorTime,
        now: Callable[[], float],
        in_thread: Callable[..., Deferred[Any]],
        *,
        run: str,
        room: JournalSize,
        interval: float = 1.0,
        keep_lines: float = 0.0,
        keep_days: float = 0.0,
        price: Price = lambda reservation: None,
        scrub: Callable[[RequestRecord], RequestRecord] = lambda record: record,
        redact: Callable[[str], str] = str,
    ) -> None:
        """
        @param directory: Where the journals of all processes are that share this machine's state.
        @param in_thread: Calls its argument in a thread and fires with the result.
        @param run: A name for this process that no other ever has.
        @param interval: Seconds between two batches for the store.
        @param keep_lines: Seconds for which a line is kept in the store; C{0}: for ever.
        @param keep_days: Seconds for which sums are kept by day; beyond, by month. C{0}: for ever.
        @param price: USD for the input of a request whose end was never told, or C{None} where no price is known;
            called in the store's threads, and never twice at a time.
        @param scrub: Masks secrets in a record; C{redact} in a text.
        """
        self._books = books
        self._directory = Path(directory).absolute()
        self._clock = clock
        self._now = now
        self._in_thread = in_thread
        self._run = run
        self._interval = interval
        self._keep_lines = keep_lines
        self._keep_days = keep_days
        self._price = price
        self._scrub = scrub
        self._redact = redact
        self._numbers = count(1)
        self._journal = Journal(self._directory / run, room)
        self._open: dict[str, tuple[int, bytes, bytes]] = {}
        self._announced: dict[str, int] = {}
        self._offset = FIRST_OFFSET
        self._segment = 1
        self._growing: Deferred[None] | None = None
        self._turns = FairLock()
        self._timer: IDelayedCall | None = None
        self._round_under_way: Deferred[None] | None = None
        self._next_look = self._next_fold = 0.0
        self._wrong = ""
        self._running = self._behind = self._preparing = False
        self.task = Task("ledger", clock)
        self.tasks = (self.task,)
        self.written_lines = self.recovered_lines = self.lost_records = self.damaged_places = self.pending_results = 0
        self.files = "ok"

    def instruments(self) -> Iterator[Instrument]:
        yield Counter("ledger_lines", "Lines that were written to the store.", lambda: self.written_lines)
        yield Counter("ledger_recovered", "Of these, lines that dead processes had left.", lambda: self.recovered_lines)
        yield Counter("ledger_lost", "Records that the ledger's journal had no room for.", lambda: self.lost_records)
        yield Counter("ledger_damaged", "Places of journals that could not be read.", lambda: self.damaged_places)
        yield Gauge("ledger_open", "Requests that were let go and are not settled.", lambda: self.under_way)
        yield Gauge(
            "ledger_pending_results",
            "Results that were announced and not fetched yet.",
            lambda: self.pending_results,
        )
        yield Gauge("ledger_journal_bytes", "The journal's size on the disk.", lambda: self.journal_size)

    def health_checks(self) -> Iterator[HealthCheck]:
        yield HealthCheck("ledger", lambda: self.state, required=True)
        yield HealthCheck("ledger_files", lambda: self.files)

    # What the journey calls

    def reserve(
        self,
        at: float,
        request_id: str,
        project_id: str,
        token_id: str,
        api: str,
        endpoint: str,
        model: str,
        bytes_in: int,
        given: int,
        uses: int = 0,
    ) -> str:
        """A request is about to leave: keep that, whatever happens. Returns the id of its line.

        @param uses: How many uses of its token it is, where nobody else counts them: added when this is entered.
        """
        ledger_id = f"{self._run}-{next(self._numbers):010x}"
        if (named := f"{request_id}\0{model}") is not self._redact(named):  # which most are
            request_id, model = self._redact(request_id), self._redact(model)
        record = records.encode_opening(
            LedgerLineOpening(
                ledger_id, at, request_id, project_id, token_id, api, endpoint, model, bytes_in, given, uses
            )
        )
        self._append(record)
        self._open[ledger_id] = (self._journal.number, record, b"")
        return ledger_id

    def settle(
        self, ledger_id: str, record: RequestRecord, sent: bool = True, deferral: Deferral | None = None
    ) -> None:
        """A request is over.

        @param ledger_id: As L{reserve} gave it; C{""} where nothing left for the provider.
        @param sent: Whether anything of it was sent after it had been reserved; else it is no use of its token.
        @param deferral: The result that its answer announced; it is kept until L{collect}.
        """
        uses = 0 if sent or not ledger_id else -1
        if ledger_id:
            self._open.pop(ledger_id, None)
        else:
            ledger_id = f"{self._run}-{next(self._numbers):010x}"
        line = records.line(ledger_id, self._scrub(record))
        self._append(records.encode_settlement(line, uses, records.cache_hits(record), deferral))
        if deferral is not None:
            self._announced[deferral.result_id] = self._journal.offset

    def _append(self, record: bytes) -> None:
        journal = self._journal
        if not journal.append(record):
            self.lost_records += 1
            self._wrong = self._wrong or "journal_full"
        elif journal.number != self._segment:  # the next must be ready long before this one is full
            self._segment = journal.number
            self._growing = Deferred.fromCoroutine(self._prepare()).addErrback(self.task.failed)

    # Results that are told later

    def announce(self, ledger_id: str, deferral: Deferral) -> None:
        """The answer of a request under way announces a result: keep that before anybody knows of it.

        L{settle} is to be told of it too.
        """
        known = self._open.get(ledger_id)
        if known is not None:
            record = records.encode_announcement(ledger_id, deferral)
            self._append(record)
            self._open[ledger_id] = (*known[:2], record)

    @deferred
    async def pending(self, project_id: str, api: str, result_id: str) -> list[PendingResult]:
        """What has announced a result that nobody has collected, oldest first. L{StoreUnavailable} in an outage."""
        if self._offset < self._announced.get(result_id, 0):
            await self.flush()
        return await self._books.pending(project_id, api, result_id)

    @deferred
    async def collect(
        self, results: Sequence[PendingResult], ledger_id: str, record: RequestRecord
    ) -> Mapping[str, int] | None:
        """Enter what they used: the line of the request that fetched it says so, and no other ever will.

        The line is in the store when this fires, and L{settle} is not to be called for the request any more. Fire with
        how much less than was held was charged to each budget; with C{None}, and settle as ever, where another process
        was first. L{StoreUnavailable} where it cannot be told.
        """
        first = results[0]
        line = records.line(f"{first.ledger_id}-result", self._scrub(record))
        given = await self._books.collect(results, line._replace(token_id=first.token_id, model=first.model))
        if given is not None:
            self._open.pop(ledger_id, None)
            self._append(records.encode_drop(ledger_id))
            self.written_lines += 1
        return given

    @deferred
    async def rename(self, results: Sequence[PendingResult], result_id: str) -> None:
        """Another object tells what they used. L{StoreUnavailable} where it cannot be kept."""
        await self._books.rename(results, result_id)

    # What an operator looks at

    @property
    def state(self) -> str:
        """C{ok}, or what is wrong: C{journal_full} (the store has not answered for too long), C{disk_full}."""
        return self._wrong or "ok"

    @property
    def under_way(self) -> int:
        """Requests that were reserved and not settled."""
        return len(self._open)

    @property
    def journal_size(self) -> int:
        """Bytes of the journal on the disk."""
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
        self._later()

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
            await within(STOP_TIMEOUT_SECONDS, self._clock, Deferred.fromCoroutine(self._closed()), StoreUnavailable())
        except ProxyError as e:
            self._log.warn("The ledger's last lines stay in the journal for the next start: {reason}", reason=str(e))
            self._journal.close()

    async def _closed(self) -> None:
        for begun in (self._growing, self._round_under_way):
            if begun is not None:
                await begun
        await self.flush()
        async with self._turns.within(FLUSH_TURN_SECONDS, self._clock, StoreUnavailable()):
            if not self._open and self._offset == self._journal.offset:
                await self._books.append(self._run, lambda: JournalBatch(self._offset, CLOSED_OFFSET, []))
                await self._in_thread(self._journal.remove)
                await self._books.forget(self._run)
            else:
                self._journal.close()

    @deferred
    async def flush(self) -> None:
        """Enter what was settled so far. L{StoreUnavailable} where the store does not answer.

        What is settled meanwhile has its own turn: under load it would else never end, in ever smaller batches.
        """
        async with self._turns.within(FLUSH_TURN_SECONDS, self._clock, StoreUnavailable()):
            upto = self._journal.offset
            while self._offset < upto and await self._enter_some(upto):
                pass
            self._report_damage(self._journal.new_damage())
            await self._release()

    def _later(self) -> None:
        if self._running:
            self._timer = self._clock.callLater(self._interval, self._tick)

    def _tick(self) -> None:
        self._round_under_way = Deferred.fromCoroutine(self._round())

    async def _round(self) -> None:
        try:
            await self._inspect()
            await self._prepare()
            await self.flush()
            await self._housekeeping()
            if self._behind:
                self._behind = False
                self._log.info("The ledger is entered again.")
        except ProxyError as e:
            if not self._behind:
                self._behind = True
                self._log.warn("The ledger cannot be entered for now; its journal keeps it: {code}", code=e.code)
        except Exception:
            self.task.failed()
        else:
            self.task.worked()
        self._later()

    async def _inspect(self) -> None:
        """Go on in another file where the present one was removed, replaced or truncated."""
        broken = await self._in_thread(self._journal.broken_segments)
        if not broken:
            return
        try:
            await self._in_thread(self._journal.replace_spare)
        except OSError as e:
            self._log.error("The ledger's journal cannot be made anew: {reason}", reason=e.strerror)
            return
        present = self._journal.segments[-1]
        for segment in broken:
            if segment is not present:
                continue
            self.damaged_places += 1
            self._log.error(
                "The ledger's journal {path} was removed, replaced or truncated; it goes on in another file.",
                path=str(segment.path),
            )
            self._journal.rotate()
            for ledger_id, (number, record, announcement) in list(self._open.items()):
                if number == segment.number and self._journal.append(moved := records.encode_moved(record)):
                    self._open[ledger_id] = (self._journal.number, moved, announcement)
                    if announcement:
                        self._append(announcement)

    def _report_damage(self, files: Mapping[Path, int]) -> None:
        for path, places in files.items():
            self.damaged_places += places
            self.files = "damaged"
            self._log.error(
                "{places} places of the ledger's journal cannot be read, and their lines are lost; all others are "
                "entered. The file will be kept as {path}.",
                places=places,
                path=str(path),
            )

    async def _prepare(self) -> None:
        """Have room ready before it is needed."""
        if self._preparing:
            return
        self._preparing = True
        wrong = ""
        try:
            if self._journal.needs_spare:
                await self._in_thread(self._journal.prepare)
                wrong = "journal_full" if self._journal.needs_spare else ""
        except OSError as e:
            wrong = "disk_full"
            if wrong != self._wrong:
                self._log.error("The ledger's journal cannot grow: {reason}", reason=e.strerror)
        finally:
            self._preparing = False
        if wrong and wrong != self._wrong:
            self._log.error("The ledger may lose lines: {what}.", what=wrong)
        self._wrong = wrong

    async def _enter_some(self, upto: int) -> bool:
        """Enter one batch; whether there may be more."""
        before = self._offset
        part = await self._books.append(self._run, partial(_batch, self._journal.records, before, upto))
        if part is None:
            self._offset = await self._books.offset(self._run) or FIRST_OFFSET
            return self._offset > before
        self._offset = part.after
        self.written_lines += len(part.lines)
        if self._announced:
            self._announced = {each: place for each, place in self._announced.items() if place > part.after}
        return before < part.after < upto  # under load there is more by now; to go on with that would never end

    async def _release(self) -> None:
        """Let old segments go, oldest first; what is still under way in one of them is written again first."""
        for segment in self._journal.segments_before(self._offset):
            for ledger_id, (number, record, announcement) in list(self._open.items()):
                if number <= segment.number:
                    moved = records.encode_moved(record)
                    if not self._journal.append(moved) or (announcement and not self._journal.append(announcement)):
                        return  # then it stays until there is room
                    self._open[ledger_id] = (self._journal.number, moved, announcement)
            await self._in_thread(self._journal.release, segment)

    # What dead processes left, and what is old

    async def _housekeeping(self) -> None:
        now = self._clock.seconds()
        if now >= self._next_look:
            self._next_look = now + RECOVERY_INTERVAL_SECONDS
            kept = await self._in_thread(damaged_files, self._directory)
            self.files = "damaged" if kept or any(each.damaged for each in self._journal.segments) else "ok"
            for name in await self._in_thread(names, self._directory):
                if name != self._run:
                    await self._recover(name)
            self.pending_results = await self._books.pending_count(self._now() - MAX_PENDING_SECONDS)
        if now >= self._next_fold:
            self._next_fold = now + ROLL_UP_INTERVAL_SECONDS
            await self._roll_up()

    async def _recover(self, name: str) -> None:
        try:
            found: OrphanedJournal | None = await self._in_thread(open_orphan, self._directory, name)
        except OSError as e:
            self._log.error("The journal {name} cannot be read: {reason}", name=name, reason=str(e))
            return
        if found is None:
            return
        try:
            recovered = await self._recovered(found, name)
            self._report_damage(found.new_damage())
        except BaseException:
            found.close()
            raise
        await self._in_thread(found.remove)
        await self._books.forget(name)
        self.recovered_lines += recovered
        self.written_lines += recovered
        self._log.warn("Entered {count} lines that another process had left: {name}.", count=recovered, name=name)

    async def _recovered(self, found: OrphanedJournal, name: str) -> int:
        """Enter what was settled there, then what never was; how many lines it were."""
        place, lines = await self._books.offset(name) or FIRST_OFFSET, 0
        while place < CLOSED_OFFSET:
            settled = partial(_batch, found.records, place, CLOSED_OFFSET)
            part = await self._books.append(name, settled) or _overtaken()
            lines += len(part.lines)
            if part.after == place:
                part = (
                    await self._books.append(name, partial(_unsettled_batch, found, place, self._price)) or _overtaken()
                )
                lines += len(part.lines)
            place = part.after
        return lines

    async def _roll_up(self) -> None:
        now = self._now()
        lines_before = now - self._keep_lines if self._keep_lines else 0.0
        days_before = day(now - self._keep_days) if self._keep_days else ""
        while self._running and max(await self._books.roll_up(lines_before, days_before, ROLL_UP_ROWS)) >= ROLL_UP_ROWS:
            pass


def _batch(read: Callable[[int], Iterator[tuple[int, bytes]]], before: int, upto: int) -> JournalBatch:
    """The next lines from a place on."""
    lines: list[LedgerLine] = []
    uses: Counts = {}
    hits: Counts = {}
    pending: list[PendingResult] = []
    after = before
    for after, record in islice(read(before), 2 * BATCH_LINES):
        found = records.decode(record)
        if isinstance(found, Settlement):
            line = found.line
            lines.append(line)
            _count(uses, line.token_id, found.uses, line.at)
            _count(hits, line.token_id, found.hits, line.at)
            if found.deferral is not None:
                pending.append(pending_result(line, found.deferral))
        elif isinstance(found, LedgerLineOpening):
            _count(uses, found.token_id, found.uses, found.at)
        if len(lines) >= BATCH_LINES or after >= upto:
            break
    if after == before and upto < CLOSED_OFFSET:
        after = upto  # nothing that can be read is left before it
    return JournalBatch(before, after, lines, uses, hits, pending)


def _count(counts: Counts, token_id: str, more: int, at: float) -> None:
    if more and token_id:
        known, last = counts.get(token_id, (0, 0.0))
        counts[token_id] = (known + more, max(last, at if more > 0 else 0.0))


def _overtaken() -> JournalBatch:
    raise StoreUnavailable("Another process entered this journal.")


def _unsettled_batch(found: OrphanedJournal, place: int, price: Price) -> JournalBatch:
    """What was let go and never settled; with it the journal is closed."""
    left = records.unsettled(record for _, record in found.records()).values()
    lines = [each.line(price(each), deferred=deferral is not None) for each, deferral in left]
    pending = [
        pending_result(line, deferral) for line, (_, deferral) in zip(lines, left, strict=True) if deferral is not None
    ]
    return JournalBatch(place, CLOSED_OFFSET, lines, pending=pending)
