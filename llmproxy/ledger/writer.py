"""What this process writes into its journal: that a request was let go to its provider, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from llmproxy.base.attribution import redacted
from llmproxy.brief_record import BriefRecord, parts_of
from llmproxy.ledger import compact, records
from llmproxy.ledger.journal import Journal
from llmproxy.ledger.journal_appender import JournalAppender
from llmproxy.ledger.journal_damage import JournalDamage
from llmproxy.ledger.kinds import AlikeOpenings, WrittenKind
from llmproxy.ledger.masking import Masking
from llmproxy.ledger.open_line import OpenLine
from llmproxy.ledger.records import Deferral, FinishedRequest, LedgerLineOpening
from llmproxy.ledger.segment import Segment

_BETWEEN_IDS = ","  # nothing that is looked for in ids begins or ends with it
_new = tuple.__new__  # makes a NamedTuple in a third of the time that a call of its class takes


class JournalWriter(JournalAppender):
    """Writes the journal of this process. Every record is a few copied bytes: it never waits and never fails.

    @ivar has_room_on_disk: Whether the disk has room for the segment after the next, which is there already.
    """

    def __init__(
        self,
        journal: Journal,
        in_thread: Callable[..., Deferred[Any]],
        damage: JournalDamage,
        on_failure: Callable[[Failure], None],
        *,
        run: str,
        secrets: Masking,
    ) -> None:
        """As L{JournalAppender}.

        @param run: A name for this process that no other ever has; the ids of lines begin with it.
        @param secrets: Masks them.
        """
        super().__init__(journal, in_thread, on_failure)
        self.has_room_on_disk = True
        self._broken: set[int] = set()  # the segments of which that was said
        self._damage = damage
        self._run = run
        self._secrets = secrets
        self._numbers = count(1)
        self._open: dict[str, OpenLine] = {}
        self._announced: dict[str, int] = {}
        self._unwritten: list[bytes] = []
        self._unwritten_kinds: set[WrittenKind] = set()
        self._unwritten_since = 1  # the segment that was written when the first of them was opened

    @property
    def open_lines(self) -> int:
        """Lines that were opened and not settled."""
        return len(self._open)

    def open_line(self, opening: LedgerLineOpening) -> str:
        """A request is about to leave: keep that, whatever happens. Returns the id of its line.

        @param opening: Its C{id} is made here.
        """
        self.write_openings()
        secrets = self._secrets
        number, version = next(self._numbers), secrets.version
        ledger_id = f"{self._run}-{number:010x}"
        kind = self.kinds.get(compact.kind_key_of_opening(opening))
        if (
            kind is None
            or kind.clean_of != version
            or opening.attribution
            or secrets.redact(opening.request_id) is not opening.request_id
        ):
            opening, kind = self._checked(opening, version)
        record = None if kind is None else compact.encode_opening(kind.number, number, opening)
        if kind is None or record is None:
            self._append(records.encode_opening(opening._replace(id=ledger_id)))
            segment = self.journal.number
        else:
            segment = self._append_of_kind(kind, record)
        self._open[ledger_id] = OpenLine(segment, number, opening.request_id, version, opening)
        return ledger_id

    def open_alike(
        self,
        alike: AlikeOpenings,
        at: float,
        request_id: str,
        bytes_in: int,
        estimated: int,
        uses: int,
        attribution: str,
        made_here: bool,
    ) -> str:
        """As L{open_line}, with what a L{LedgerLineOpening} has besides. L{write_openings} must follow before a byte of
        the request leaves.

        @param made_here: Whether the request's id was, of lower-case hexadecimal digits and hyphens.
        """
        secrets, kind = self._secrets, alike.kind
        version, record = secrets.version, None
        if kind is None or kind.clean_of != version:
            alike.kind = self.kinds.get(alike.common)
        elif made_here and not secrets.masks_hex and not (attribution and self._is_unusual(attribution)):
            number = next(self._numbers)
            named = f"{request_id}\0{attribution}" if attribution else request_id
            record = compact.encode_numbers(kind.number, number, at, bytes_in, estimated, uses, named)
        if kind is None or record is None:
            return self.open_line(
                LedgerLineOpening("", at, request_id, *alike.common, bytes_in, estimated, uses, attribution)
            )
        ledger_id = f"{self._run}-{number:010x}"
        if not self._unwritten:
            self._unwritten_since = self.journal.number
        self._unwritten.append(record)
        self._unwritten_kinds.add(kind)
        self._open[ledger_id] = _new(
            OpenLine, (self.journal.number, number, request_id, version, record, kind.kind, b"")
        )
        return ledger_id

    def write_openings(self) -> None:
        """Lines that L{open_alike} has opened stand in the journal now: those of one turn by one call of the system."""
        if self._unwritten:
            self._write_with_openings(set(), ())

    def _write_with_openings(self, kinds: set[WrittenKind], settlements: Sequence[bytes]) -> None:
        """Settlements, which refer to these kinds, stand in the journal now, behind the openings that wait for it."""
        opened, self._unwritten = self._unwritten, []
        if opened:
            kinds |= self._unwritten_kinds
            self._unwritten_kinds.clear()
        if opened or settlements:
            self._append_all_of(kinds, [*opened, *settlements])
        if opened:
            for segment in range(self._unwritten_since, self.journal.number):
                self._write_again(segment)  # where they do not stand after all, or not all of them

    def _checked(self, opening: LedgerLineOpening, version: int) -> tuple[LedgerLineOpening, WrittenKind | None]:
        """An opening without secrets, and its kind."""
        redact = self._secrets.redact
        request_id, model, attribution = opening.request_id, opening.model, opening.attribution
        clean_id, clean_model = redact(request_id), redact(model)
        if (
            clean_id is not request_id
            or clean_model is not model
            or (attribution and redact(attribution) is not attribution)
        ):
            opening = opening._replace(
                request_id=clean_id, model=clean_model, attribution=redacted(attribution, redact)
            )
        key = compact.kind_key_of_opening(opening)
        kind = self.kinds.get(key) or self.kinds.admit(key, partial(compact.kind_of_opening, self._run, opening))
        if kind is not None and clean_model is model:
            kind.clean_of = version
        return opening, kind

    def settle_all(self, requests: Sequence[FinishedRequest]) -> None:
        """Requests are over: usual ones are kept by one call of the system, with lines that were opened meanwhile. One
        with which that fails takes none of the others with it; what it failed with is raised then."""
        secrets, version, opened_lines = self._secrets, self._secrets.version, self._open
        kind_of, encode = self.kinds.of_records.get, compact.encode_settlement
        kinds: set[WrittenKind] = set()
        shorts: list[bytes] = []
        unusual: list[tuple[str, OpenLine | None, BriefRecord, bool, Deferral | None]] = []
        failure: Exception | None = None
        are_clean: bool | None = None  # ids in which nobody has looked for secrets before
        for record, ledger_id, sent, deferral, _ in requests:
            if ledger_id is None:
                continue
            attribution = record.kind.sample.attribution
            opened = opened_lines.pop(ledger_id, None) if ledger_id else None
            try:
                kind, short = kind_of(record.kind), None
                if attribution and self._is_unusual(attribution):
                    kind = None
                if kind is not None and kind.clean_of == version and deferral is None:
                    if opened is not None:
                        if sent and opened.version == version and opened.request_id == record.request_id:
                            short = encode(kind.number, opened.number, record, attribution)
                    elif not ledger_id:
                        if are_clean is None:
                            are_clean = self._are_clean(requests)
                        if are_clean or secrets.redact(record.request_id) is record.request_id:
                            short = encode(kind.number, next(self._numbers), record, attribution)
            except Exception as e:
                failure = e
                continue
            if kind is not None and short is not None:
                kinds.add(kind)
                shorts.append(short)
            else:
                unusual.append((ledger_id, opened, record, sent, deferral))
        self._write_with_openings(kinds, shorts)  # a line is settled behind its opening
        for each in unusual:
            try:
                self._settle(*each)
            except Exception as e:
                failure = e
        if failure is not None:
            raise failure

    def _is_unusual(self, attribution: str) -> bool:
        """Whether more than a look is needed to know that it may be written as it is."""
        return "\0" in attribution or self._secrets.redact(attribution) is not attribution

    def _are_clean(self, requests: Sequence[FinishedRequest]) -> bool:
        """Whether there is no secret in the ids of those that have no line yet: asked once for all of them."""
        ids = _BETWEEN_IDS.join([each.record.request_id for each in requests if each.ledger_id == ""])
        return self._secrets.redact(ids) is ids

    def _settle(
        self, ledger_id: str, opened: OpenLine | None, brief: BriefRecord, sent: bool, deferral: Deferral | None
    ) -> None:
        number = next(self._numbers) if not ledger_id else 0 if opened is None else opened.number
        version, record = self._secrets.version, brief.whole()
        clean = self._secrets.record(record)
        if number and deferral is None and (sent or not ledger_id) and compact.is_usual(clean):
            key = compact.kind_key_of_record(clean)
            kind = self.kinds.get(key) or self.kinds.admit(key, partial(compact.kind_of_record, self._run, clean))
            parts, attribution = parts_of(clean), clean.attribution
            short = None if kind is None else compact.encode_settlement(kind.number, number, parts, attribution)
            if kind is not None and short is not None:
                if clean is record:
                    kind.clean_of = version
                    if brief.kind.is_kept:
                        self.kinds.of_records[brief.kind] = kind
                self._append_of_kind(kind, short)
                return
        uses = 0 if sent or not ledger_id else -1
        line = records.line(ledger_id or f"{self._run}-{number:010x}", clean)
        self._append(records.encode_settlement(line, uses, records.cache_hits(record), deferral))
        if deferral is not None:
            self._announced[deferral.result_id] = self.journal.offset

    def announce(self, ledger_id: str, deferral: Deferral) -> None:
        """The response to a request in flight announces a result: keep that before anybody knows of it."""
        self.write_openings()
        line = self._open.get(ledger_id)
        if line is not None:
            record = records.encode_announcement(ledger_id, deferral)
            self._append(record)
            self._open[ledger_id] = line._replace(announcement=record)

    def drop(self, ledger_id: str) -> None:
        """A request is over, and has its line in the store already."""
        self.write_openings()
        self._open.pop(ledger_id, None)
        self._append(records.encode_drop(ledger_id))

    def announced_at(self, result_id: str) -> int:
        """Up to which offset the journal must be in the store for this result to be there; C{0} where it is."""
        return self._announced.get(result_id, 0)

    def stored(self, offset: int) -> None:
        """The journal is in the store up to this offset."""
        if self._announced:
            self._announced = {each: at for each, at in self._announced.items() if at > offset}

    async def inspect(self) -> None:
        """Go on in another file where the present one was removed, replaced or truncated; say so of older ones."""
        broken = await self._in_thread(self.journal.broken_segments)
        self._note_disk(await self._in_thread(lambda: self.journal.has_room_on_disk))
        # An older one stays as it is until its lines are in the store: nothing can be made anew for it.
        if any(self.journal.is_written(each) for each in broken) and not await self._replace_spare():
            return
        self._lost_files = ""
        self.write_openings()
        broken_before, self._broken = self._broken, {each.number for each in broken}
        for segment in broken:
            if segment not in self.journal.segments:  # the spare one has no records
                continue
            if segment.number not in broken_before:
                self._note_broken(segment)
            self._write_again(segment.number)  # all of it has not had room before, maybe

    def _note_broken(self, segment: Segment) -> None:
        """Say that a segment's file is gone; where it is the present one, go on in another."""
        self._damage.places += 1
        if segment.number == self.journal.number:
            self._log.error(
                "The ledger's journal {path} was removed, replaced or truncated; it goes on in another file.",
                path=str(segment.path),
            )
            self.journal.rotate()
        else:
            self._log.error(
                "The ledger's journal {path}, which the store does not have yet, was removed, replaced or "
                "truncated. What the process still has of it is entered; it is lost if that is killed before.",
                path=str(segment.path),
            )

    async def _replace_spare(self) -> bool:
        """Have a file to go on in; false where there can be none."""
        try:
            await self._in_thread(self.journal.replace_spare)
        except OSError as e:
            reason = e.strerror or type(e).__name__
            if reason != self._lost_files:
                self._log.error(
                    "The ledger's journal {path} is gone and cannot be made anew: {reason}. What is not in the store "
                    "yet is lost if this process is killed.",
                    path=str(self.journal.path),
                    reason=reason,
                )
            self._lost_files = reason
            return False
        return True

    def _write_again(self, segment: int) -> None:
        """What is in flight and stands in this segment stands in the present one too."""
        for ledger_id, line in list(self._open.items()):
            if line.segment == segment and self.journal.append(line.moved(ledger_id)):
                self._open[ledger_id] = line._replace(segment=self.journal.number)
                if line.announcement:
                    self._append(line.announcement)

    def _note_disk(self, has_room: bool) -> None:
        if has_room != self.has_room_on_disk:
            if has_room:
                self._log.info("The disk of the ledger's journal has room again.")
            else:
                self._log.warn(
                    "The disk of the ledger's journal {path} is full: what is written now still has its place there.",
                    path=str(self.journal.path),
                )
        self.has_room_on_disk = has_room

    async def release(self, offset: int) -> None:
        """Remove the segments before this offset, oldest first; what is in flight in one of them is written again."""
        self.write_openings()
        for segment in self.journal.segments_before(offset):
            for ledger_id, line in list(self._open.items()):
                if line.segment <= segment.number:
                    if not self.journal.append(line.moved(ledger_id)) or (
                        line.announcement and not self.journal.append(line.announcement)
                    ):
                        return  # then it stays until there is room
                    self._open[ledger_id] = line._replace(segment=self.journal.number)
            await self._in_thread(self.journal.release, segment)
            self.write_openings()  # the kinds that they refer to are needed
            self.kinds.forget_before(segment.number + 1)
