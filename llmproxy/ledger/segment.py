"""A piece of the journal: a file of fixed size, which outlives the process whatever ends it.

The file's blocks are there before it is used, so that a full disk is found when it is made and never when it is
written; and what is written there is the kernel's at once. It is written and read by calls and not by a mapping of
memory, since a mapping of a file that somebody truncates ends the process with SIGBUS. A power cut is another matter:
then what the kernel had not yet put on the disk is gone.

    segment := magic, 8 bytes; then records; then zeros
    record  := length of the content, 4 bytes; CRC-32 of the content, 4 bytes (both little-endian); the content
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from zlib import crc32

MAGIC = b"LLMPLDG\x02"
OLDER_MAGIC = b"LLMPLDG\x01"  # has no short records; who knows it alone keeps the newer as damaged
FIRST_RECORD_OFFSET = len(MAGIC)
MAX_RECORD_BYTES = (1 << 24) - 1
DAMAGED_SUFFIX = ".damaged"

_HEAD = struct.Struct("<II")
_pack = _HEAD.pack
_unpack = _HEAD.unpack_from
_NOT_ZERO = re.compile(rb"[^\0]")


class Segment:
    """One file of records. It is locked while it is open, so that nobody takes it for one that was left behind.

    @ivar number: Its place among the others; C{first_place}: what places in the journal are counted from in it.
    @ivar end: Where the next record goes; of one that was found, where the file ends.
    @ivar damaged: The places that could not be read so far, from where to where.
    """

    def __init__(self, path: Path, number: int, descriptor: int, size: int, end: int, *, own: bool) -> None:
        """
        @param own: Whether it is written here, so that all before C{end} must be records.
        """
        self.path = path
        self.number = number
        self.first_place = number << 32
        self.end = end
        self.size = size
        self.damaged: dict[int, int] = {}
        self._reported = 0
        self._own = own
        self._descriptor = descriptor

    @classmethod
    def make(cls, path: Path, number: int, size: int) -> Segment:
        """A new one, all of it on the disk; L{OSError} where there is no room."""
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.posix_fallocate(opened, 0, size)
            os.pwrite(opened, MAGIC, 0)
        except OSError:
            os.close(opened)
            path.unlink()
            raise
        return cls(path, number, opened, size, FIRST_RECORD_OFFSET, own=True)

    @classmethod
    def find(cls, path: Path, number: int) -> Segment:
        """One that another process left; L{OSError} where it is none, L{BlockingIOError} where somebody has it."""
        opened = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            size = os.fstat(opened).st_size
            if size < FIRST_RECORD_OFFSET:  # its process ended while it was made
                raise OSError(errno.EINVAL, "is not a segment")
            found = cls(path, number, opened, size, size, own=False)
            if os.pread(opened, FIRST_RECORD_OFFSET, 0) not in (MAGIC, OLDER_MAGIC):
                found.damaged[0] = FIRST_RECORD_OFFSET
        except OSError:
            os.close(opened)
            raise
        return found

    def append(self, content: bytes) -> int:
        """Add a record, which is safe from then on; returns its end, C{0} where there is no room for it."""
        at, length = self.end, len(content)
        after = at + 8 + length
        if after > self.size or length > MAX_RECORD_BYTES:
            return 0
        try:
            if os.pwrite(self._descriptor, _pack(length, crc32(content)) + content, at) != length + 8:
                return 0
        except OSError:
            return 0
        self.end = after
        return after

    def append_all(self, contents: Sequence[bytes]) -> int:
        """Add records by one call of the system, all of them or none; returns the end of the last, C{0} for none.

        @param contents: Short ones.
        """
        parts: list[bytes] = []
        for content in contents:
            parts += (_pack(len(content), crc32(content)), content)
        data, at = b"".join(parts), self.end
        after = at + len(data)
        if after > self.size:
            return 0
        try:
            if os.pwrite(self._descriptor, data, at) != len(data):
                return 0
        except OSError:
            return 0
        self.end = after
        return after

    @property
    def is_whole(self) -> bool:
        """Whether the file is still there, under its name and in its size."""
        found = os.fstat(self._descriptor)
        try:
            named = os.stat(self.path)
        except OSError:  # it, or the directory that it is in, is gone, or is another
            return False
        return found.st_size >= self.size and os.path.samestat(named, found)

    def records(self, at: int, base: int = 0) -> Iterator[tuple[int, bytes]]:
        """The records from there on, each with where the next one is; C{base} is added to that.

        What cannot be read between two of them is passed over and kept in C{damaged}.
        """
        data, start = self._content(at), at
        base += start
        at, end = 0, len(data)
        while at + 8 <= end:
            length, checksum = _unpack(data, at)
            after = at + 8 + length
            content = data[at + 8 : after]
            if 0 < length <= MAX_RECORD_BYTES and after <= end and crc32(content) == checksum:
                at = after
                yield base + at, content
                continue
            following = _next_record(data, at + 1)
            self._note(start, data, at, following)
            if following < 0:
                return
            at = following
        if at < len(data) or (self._own and start + at < self.end):
            self._note(start, data, at, -1)

    def _note(self, start: int, data: bytes, at: int, following: int) -> None:
        """Remember a place that cannot be read; the zeros behind the last record are none."""
        if following >= 0 or self._own or data[at:].strip(b"\0"):
            self.damaged[start + at] = start + following if following >= 0 else self.end

    def new_damage(self) -> int:
        """How many places could not be read since this was asked last."""
        new, self._reported = len(self.damaged) - self._reported, len(self.damaged)
        return new

    def _content(self, at: int) -> bytes:
        parts: list[bytes] = []
        while at < self.end and (part := os.pread(self._descriptor, self.end - at, at)):
            parts.append(part)
            at += len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Let go of it; the file stays."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def remove(self) -> None:
        """The file goes too; where a part of it could not be read, it is kept beside the journal's directory."""
        self.close()
        if self.damaged:
            with suppress(FileNotFoundError):
                os.replace(self.path, damaged_path(self.path))
        with suppress(FileNotFoundError, NotADirectoryError):  # somebody else has removed it, or its directory
            self.path.unlink()


def damaged_path(path: Path) -> Path:
    """Where a damaged segment of a journal is kept: C{<journal>-<segment>.damaged} beside the journal."""
    return path.parent.parent / f"{path.parent.name}-{path.stem}{DAMAGED_SUFFIX}"


def _record_at(data: bytes, at: int) -> bytes | None:
    """The content of the record there; C{None} where there is none."""
    length, checksum = _unpack(data, at)
    at += 8
    if not 0 < length <= MAX_RECORD_BYTES or at + length > len(data):
        return None
    content = data[at : at + length]
    return content if crc32(content) == checksum else None


def _next_record(data: bytes, at: int) -> int:
    """Where the next record begins; C{-1} where none does.

    Its head has a zero as the fourth byte. JSON has none, as it escapes them; the numbers of a short record may have
    some, and then the checksum says that no record begins there.
    """
    while (zero := data.find(b"\0", at + 3)) >= 0:
        at = zero - 3
        if at + 8 > len(data):
            return -1
        if _record_at(data, at) is not None:
            return at
        if data[at : at + 4] == b"\0\0\0\0":  # a hole: the next head begins at its end
            found = _NOT_ZERO.search(data, at)
            if found is None:
                return -1
            at = max(at, found.start() - 3)
        at += 1
    return -1
