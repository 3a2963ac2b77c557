"""The kinds of lines of this process, and where in its journal they stand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from llmproxy.base.memo import BoundedMemo
from llmproxy.brief_record import MAX_KINDS as MAX_RECORD_KINDS
from llmproxy.brief_record import RecordKind
from llmproxy.ledger.compact import LineKind, decode_kind, encode_kind
from llmproxy.ledger.journal import Journal

MAX_KINDS = 10_000  # beyond that, lines of a further one are written in full
MAX_SEEN_ONCE = 4096
SECOND_COPY_BYTES = 4096  # behind the first; another block of the disk
COPY_INTERVAL_BYTES = 65_536  # behind the second; the next when the segment is twice as long, so that many take no room


class WrittenKind:
    """A kind that stands in the journal.

    @ivar number: What records call it; no other kind of this journal ever has it.
    @ivar due: The offset from which it is to be written again; in the next segment at once.
    @ivar clean_of: The version of the secrets of which it is known that its texts hold none; C{-1} for none, and where
        it stands in the journal no more.
    """

    __slots__ = ("clean_of", "due", "kind", "number", "record")

    def __init__(self, number: int, kind: LineKind) -> None:
        self.number = number
        self.record = encode_kind(number, kind)
        told = decode_kind(self.record)  # as any other process reads it
        assert told is not None
        self.kind = told[1]
        self.due = 0
        self.clean_of = -1


class AlikeOpenings:
    """Openings of lines with the same project, token, API, endpoint and model, and without attribution.

    @ivar common: These, in this order.
    @ivar kind: How the journal has them; C{None} as long as nobody has looked.
    """

    __slots__ = ("common", "kind")

    def __init__(self, common: tuple[str, str, str, str, str]) -> None:
        self.common = common
        self.kind: WrittenKind | None = None


class JournalKinds:
    """The kinds in the journal of this process.

    One that is seen for the first time gets no number: what clients make up anew each time must cost nothing.
    L{find} may be called from another thread.

    @ivar of_records: The kinds of lines of records of which nothing but figures and an id needs to be looked at.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._kinds: dict[tuple[Any, ...], WrittenKind] = {}
        self._numbers: dict[int, LineKind] = {}
        self._seen_once: set[tuple[Any, ...]] = set()
        self._last = 0
        self.of_records: BoundedMemo[RecordKind, WrittenKind] = BoundedMemo(MAX_RECORD_KINDS)
        self.get = self._kinds.get

    def find(self, number: int) -> LineKind | None:
        """The kind of this number."""
        return self._numbers.get(number)

    def admit(self, key: tuple[Any, ...], make: Callable[[], LineKind]) -> WrittenKind | None:
        """The kind of what has this in common, which L{get} did not find; C{None} where it is not to have a number."""
        if key not in self._seen_once:
            if len(self._seen_once) >= MAX_SEEN_ONCE:
                self._seen_once.clear()
            self._seen_once.add(key)
            return None
        if len(self._numbers) >= MAX_KINDS:
            return None
        self._seen_once.discard(key)
        self._last += 1
        kind = WrittenKind(self._last, make())
        if not self.write(kind):
            return None
        self._numbers[kind.number] = kind.kind
        self._kinds[key] = kind
        return kind

    def write(self, kind: WrittenKind) -> bool:
        """Let it stand in the present segment, or once more in it; false where there is no room."""
        journal, segment = self._journal, kind.due >> 32
        if not journal.append(kind.record):
            return False
        is_new = journal.number != segment
        if is_new and not journal.append(kind.record):  # one bad byte must not take all that refer to it
            return False
        kind.due = _next_due(journal.offset, is_new=is_new)
        return True

    def append_with(self, kinds: Iterable[WrittenKind], records: Sequence[bytes]) -> int:
        """Add records that refer to these kinds, and the kinds themselves where they are due, by one call of the
        system; returns the place behind them, C{0} where the present segment has no room for all of that."""
        journal = self._journal
        at, segment = journal.offset, journal.number
        due = [kind for kind in kinds if at >= kind.due]
        if not due:
            return journal.append_all(records)
        copies = [kind.record for kind in due]
        copies += [kind.record for kind in due if kind.due >> 32 != segment]  # as above
        end = journal.append_all([*records, *copies])
        if end:
            for kind in due:
                kind.due = _next_due(end, is_new=kind.due >> 32 != segment)
        return end

    def forget_before(self, segment: int) -> None:
        """The segments before this one are gone: forget what stands in none that is left."""
        gone = [key for key, kind in self._kinds.items() if kind.due >> 32 < segment]
        if gone:
            self.of_records.clear()
        for key in gone:
            kind = self._kinds.pop(key)
            kind.clean_of = -1  # for whoever still has it
            del self._numbers[kind.number]


def _next_due(offset: int, *, is_new: bool) -> int:
    """From which offset on a kind that ends there is to be written again.

    @param is_new: Whether it stands in this segment for the first time.
    """
    return offset + (SECOND_COPY_BYTES if is_new else max(COPY_INTERVAL_BYTES, offset & 0xFFFFFFFF))
