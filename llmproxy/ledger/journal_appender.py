"""Appends records to the journal of this process, with what they refer to, and has room for further ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from llmproxy.ledger.journal import Journal
from llmproxy.ledger.kinds import JournalKinds, WrittenKind


class JournalAppender:
    """Appends records, which never waits and never fails. What the journal cannot take is lost, counted, and said in
    L{problem}.

    @ivar lost_records: Records for which there was no room.
    @ivar problem: C{""}, C{journal_full}, C{disk_full}, or C{journal_gone} while its files were removed and cannot be
        made anew.
    @ivar kinds: What lines have in common, as this journal has it.
    @ivar growing: Fires when the segment that is being made is there.
    """

    _log = Logger(namespace="llmproxy.ledger.writer")

    def __init__(
        self, journal: Journal, in_thread: Callable[..., Deferred[Any]], on_failure: Callable[[Failure], None]
    ) -> None:
        """
        @param in_thread: Calls its argument in a thread and fires with the result.
        @param on_failure: Called with why a segment could not be made, where that was not to be expected.
        """
        self.journal = journal
        self.kinds = JournalKinds(journal)
        self.lost_records = 0
        self.problem = ""
        self.growing: Deferred[None] | None = None
        self._lost_files = ""  # why they cannot be made anew
        self._in_thread = in_thread
        self._on_failure = on_failure
        self._segment = 1
        self._preparing = False

    async def prepare(self) -> None:
        """Have room ready before it is needed."""
        if self._preparing:
            return
        self._preparing = True
        problem = "journal_gone" if self._lost_files else ""
        try:
            if self.journal.needs_spare and not problem:
                await self._in_thread(self.journal.prepare)
                problem = "journal_full" if self.journal.needs_spare else ""
        except OSError as e:
            problem = "disk_full"
            if problem != self.problem:
                self._log.error("The ledger's journal cannot grow: {reason}", reason=e.strerror)
        finally:
            self._preparing = False
        if problem and problem != self.problem and not self._lost_files:  # of which it was said why
            self._log.error("The ledger may lose lines: {what}.", what=problem)
        elif self.problem and not problem:
            self._log.info("The ledger's journal can be written again.")
        self.problem = problem

    def _append_of_kind(self, kind: WrittenKind, record: bytes) -> int:
        """Append a record that refers to a kind; returns its segment, in which the kind stands too."""
        offset = self.journal.append(record)
        if not offset:
            self._lost()
            offset = self.journal.offset
        segment = offset >> 32
        if offset >= kind.due or segment != self._segment:
            self._write_kind(kind, segment)
        return segment

    def _append_all_of(self, kinds: Collection[WrittenKind], shorts: Sequence[bytes]) -> None:
        """Append records that refer to these kinds."""
        if self.kinds.append_with(kinds, shorts):
            if self.journal.number != self._segment:
                self._grow()
            return
        for record in shorts:  # the segment ends among them
            if not (offset := self.journal.append(record)):
                self._lost()
                offset = self.journal.offset
            for kind in kinds:
                if offset >= kind.due or offset >> 32 != self._segment:
                    self._write_kind(kind, offset >> 32)

    def _write_kind(self, kind: WrittenKind, segment: int) -> None:
        """See to it that a kind stands in this segment, where a record refers to it, and that there is a next one."""
        if self.journal.offset >= kind.due and not self.kinds.write(kind) and kind.due >> 32 != segment:
            self._lost()
        if self.journal.number != self._segment:  # which the record, its kind or another has begun
            self._grow()

    def _append(self, record: bytes) -> None:
        journal = self.journal
        if not journal.append(record):
            self._lost()
        elif journal.number != self._segment:
            self._grow()

    def _lost(self) -> None:
        self.lost_records += 1
        self.problem = self.problem or "journal_full"

    def _grow(self) -> None:
        """A further segment has been begun: the next must be ready long before that is full."""
        self._segment = self.journal.number
        self.growing = Deferred.fromCoroutine(self.prepare()).addErrback(self._on_failure)
