"""The journal of one process: a directory of segments, locked while the process lives.

A place in it is one number: that of the segment, then where in it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from llmproxy.ledger.segment import DAMAGED_SUFFIX, FIRST_RECORD_OFFSET, Segment, damaged_path

FIRST_OFFSET = (1 << 32) + FIRST_RECORD_OFFSET  # the place where every journal begins

MAX_DAMAGED_FILES = 64  # that are kept for somebody to look at
MAX_DAMAGED_BYTES = 256 * 1024 * 1024  # of all of them, on the disk

_LOCK = "lock"
_SEGMENT = "{:08d}.segment"


class JournalSize(NamedTuple):
    """How large a journal may get.

    @ivar segment: Bytes of one segment.
    @ivar most: Bytes of all, beyond which nothing more is taken.
    """

    segment: int
    most: int


class Journal:
    """A journal that is written.

    L{append} is for the thread of the reactor; L{prepare} and L{release} may block, and are for another.

    @ivar number: The segment that is written now.
    """

    def __init__(self, directory: Path, room: JournalSize) -> None:
        self.path = directory
        self._room = room
        self._lock = -1
        self._segments: list[Segment] = []
        self._now: Segment | None = None
        self.number = 0
        self._spare: Segment | None = None

    def open(self) -> None:
        """Make it; L{OSError} where that cannot be."""
        self.path.mkdir(mode=0o700, parents=True)
        self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._now = self._made(1)
        self._segments, self.number = [self._now], self._now.number
        self.prepare()

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return self._room.segment * (len(self._segments) + (self._spare is not None))

    @property
    def offset(self) -> int:
        """Where the next record goes."""
        return FIRST_OFFSET if self._now is None else (self._now.number << 32) + self._now.end

    def append(self, content: bytes) -> int:
        """Add a record, which no end of this process can take away; returns the place behind it, C{0} where there is no
        room."""
        now = self._now
        if now is not None and (end := now.append(content)):
            return now.first_place + end
        if self.rotate() and (now := self._now) is not None and (end := now.append(content)):
            return now.first_place + end
        return 0

    def append_all(self, contents: Sequence[bytes]) -> int:
        """Add short records by one call of the system, where the present segment has room for all of them; returns the
        place behind them, C{0} where none was added."""
        now = self._now
        end = 0 if now is None else now.append_all(contents)
        return 0 if now is None or not end else now.first_place + end

    def rotate(self) -> bool:
        """Go on in the next segment; false where there is none ready."""
        spare, self._spare = self._spare, None
        if spare is None:
            return False
        self._now, self.number = spare, spare.number
        self._segments.append(spare)
        return True

    @property
    def segments(self) -> list[Segment]:
        """Those with records, oldest first; the last is the one that is written now."""
        return list(self._segments)

    def broken_segments(self) -> list[Segment]:
        """The segments whose files are no longer what they were: removed, replaced or truncated. Blocks."""
        return [each for each in (*self._segments, *([self._spare] if self._spare else ())) if not each.is_whole]

    def is_written(self, segment: Segment) -> bool:
        """Whether it is the one that is written now, or the one that is next: not one of the older ones."""
        return segment is self._now or segment is self._spare

    def replace_spare(self) -> None:
        """Have another spare segment than the present one; L{OSError} where the disk is full."""
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.remove()
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = max(self.number, 0 if spare is None else spare.number) + 1
        self._spare = self._made(number)

    def new_damage(self) -> dict[Path, int]:
        """Where places could not be read since this was asked last: the files that will be kept, and how many each."""
        return _new_damage(self._segments)

    @property
    def needs_spare(self) -> bool:
        """Whether L{prepare} has something to do."""
        return self._spare is None and self._now is not None

    @property
    def has_room_on_disk(self) -> bool:
        """Whether the disk has room for one more segment. Blocks."""
        try:
            disk = os.statvfs(self.path)
        except OSError:
            return True  # that is another fault
        return disk.f_bavail * disk.f_frsize >= self._room.segment

    @property
    def is_full(self) -> bool:
        """Whether it has as many segments as it may."""
        return (len(self._segments) + 1) * self._room.segment > self._room.most

    def prepare(self) -> None:
        """Have the next segment ready, unless it is as large as may be; L{OSError} where the disk is full."""
        if self.needs_spare and not self.is_full:
            self._spare = self._made(self.number + 1)

    def records(self, place: int) -> Iterator[tuple[int, bytes]]:
        """The records from that place on, each with the place behind it."""
        return _records(list(self._segments), place)

    def segments_before(self, place: int) -> list[Segment]:
        """The segments that lie before this place, oldest first; the one that is written now is none of them."""
        number = place >> 32
        return [s for s in self._segments if s is not self._now and s.number < number]

    def release(self, segment: Segment) -> None:
        """Remove one of L{segments_before}."""
        self._segments.remove(segment)
        segment.remove()

    def close(self) -> None:
        """Let go of it; what is in it is for whoever finds it."""
        for segment in (*self._segments, *([self._spare] if self._spare else ())):
            segment.close()
        if self._spare is not None:
            self._spare.path.unlink(missing_ok=True)
        self._now = self._spare = None
        self.number = 0
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def remove(self) -> None:
        """Nothing in it is needed any more."""
        self._now = self._spare = None
        self.number = 0
        _remove(self.path, self._segments, self._lock)
        self._segments, self._lock = [], -1

    def _made(self, number: int) -> Segment:
        return Segment.make(self.path / _SEGMENT.format(number), number, self._room.segment)


class OrphanedJournal:
    """A journal whose process is no more; nobody else has it while this is open."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        self._segments: list[Segment] = []
        try:
            for file in sorted(path.glob("*.segment")):
                if file.stem.isdigit() and file.stat().st_size >= FIRST_RECORD_OFFSET:
                    self._segments.append(Segment.find(file, int(file.stem)))
        except OSError:
            self._let_go()
            raise

    def _let_go(self) -> None:
        for segment in self._segments:
            segment.close()

    def new_damage(self) -> dict[Path, int]:
        """As a journal that is written has it."""
        return _new_damage(self._segments)

    def records(self, place: int = FIRST_OFFSET) -> Iterator[tuple[int, bytes]]:
        """The records from that place on, each with the place behind it."""
        return _records(self._segments, place)

    def close(self) -> None:
        """Leave it to another."""
        self._let_go()
        os.close(self._lock)

    def remove(self) -> None:
        """Nothing in it is needed any more."""
        _remove(self.path, self._segments, self._lock)


def open_orphan(directory: Path, name: str) -> OrphanedJournal | None:
    """The journal of that name, if its process is no more.

    One that has lost its lock file is found too: while its process lives, its segments are locked themselves.
    """
    path = directory / name
    try:
        lock = _locked(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not (path / _LOCK).exists():  # it was removed while we waited
            raise BlockingIOError
        return OrphanedJournal(path, lock)
    except BlockingIOError:
        os.close(lock)
        return None
    except OSError:
        os.close(lock)
        raise


def _locked(path: Path) -> int:
    """The lock of a journal; a new one where that is gone and segments are there, which are made after it."""
    try:
        return os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        if not any(path.glob("*.segment")):
            raise
        return os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def names(directory: Path) -> list[str]:
    """The journals in a directory."""
    try:
        return sorted(entry.name for entry in os.scandir(directory) if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def trim_damaged_files(directory: Path) -> tuple[int, list[Path]]:
    """Keep what could not be read of journals, for somebody to look at: no more than L{MAX_DAMAGED_FILES} of
    L{MAX_DAMAGED_BYTES}, and the newest in any case. Returns how many there are, and the older ones that were removed.
    """
    found = sorted(_modified_files(directory), reverse=True)  # the newest first
    kept = size = 0
    removed = []
    for _, blocks, path in found:
        size += blocks
        if not kept or (kept < MAX_DAMAGED_FILES and size <= MAX_DAMAGED_BYTES):
            kept += 1
            continue
        size = MAX_DAMAGED_BYTES + 1  # what is older goes too
        with suppress(FileNotFoundError):  # another process had the same thought
            path.unlink()
            removed.append(path)
    return kept, removed


def _modified_files(directory: Path) -> Iterator[tuple[float, int, Path]]:
    """When each damaged file was written last, the bytes that it takes, and where it is."""
    for path in directory.glob(f"*{DAMAGED_SUFFIX}"):
        with suppress(FileNotFoundError):
            found = path.stat()
            yield found.st_mtime, found.st_blocks * 512, path


def _new_damage(segments: list[Segment]) -> dict[Path, int]:
    return {damaged_path(segment.path): new for segment in list(segments) if (new := segment.new_damage())}


def _records(segments: list[Segment], place: int) -> Iterator[tuple[int, bytes]]:
    number, at = place >> 32, place & 0xFFFFFFFF
    return chain.from_iterable(
        segment.records(at if segment.number == number else FIRST_RECORD_OFFSET, segment.first_place)
        for segment in segments
        if segment.number >= number
    )


def _remove(path: Path, segments: list[Segment], lock: int) -> None:
    """The lock goes last: a journal without one is nobody's."""
    for segment in segments:
        segment.remove()
    for file in path.glob("*.segment"):
        file.unlink(missing_ok=True)
    (path / _LOCK).unlink(missing_ok=True)
    if lock >= 0:
        os.close(lock)
    shutil.rmtree(path, ignore_errors=True)
