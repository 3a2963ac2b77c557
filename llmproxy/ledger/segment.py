"""A piece of the journal: a file of fixed size in memory, which outlives the process whatever ends it.

The file's blocks are there before it is used, so that a full disk is found when it is made and never when it is
written; and what is written there is the kernel's at once, without a system call. A power cut is another matter: then
what the kernel had not yet put on the disk is gone.

    segment := magic, 8 bytes; then records; then zeros
    record  := length of the content, 4 bytes; CRC-32 of the content, 4 bytes (both little-endian); the content
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from zlib import crc32

MAGIC = b"LLMPLDG\x01"
START = len(MAGIC)

_HEAD = struct.Struct("<II")
_pack = _HEAD.pack
_unpack = _HEAD.unpack_from


class Segment:
    """One file of records.

    @ivar number: Its place among the others.
    @ivar end: Where the next record goes; of one that was found, where the last whole record ends.
    """

    def __init__(self, path: Path, number: int, memory: mmap.mmap, end: int) -> None:
        self.path = path
        self.number = number
        self.end = end
        self.size = len(memory)
        self._memory = memory

    @classmethod
    def make(cls, path: Path, number: int, size: int) -> Segment:
        """A new one, all of it on the disk; L{OSError} where there is no room."""
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(opened, 0, size)
            memory = mmap.mmap(opened, size, mmap.MAP_SHARED)
        except OSError:
            path.unlink()
            raise
        finally:
            os.close(opened)
        memory[:START] = MAGIC
        return cls(path, number, memory, START)

    @classmethod
    def find(cls, path: Path, number: int) -> Segment:
        """One that another process left, up to its last whole record; L{OSError} where it is none."""
        opened = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if os.fstat(opened).st_size < START:  # its process ended while it was made
                raise OSError(errno.EINVAL, "is not a segment")
            memory = mmap.mmap(opened, 0, mmap.MAP_SHARED)
        finally:
            os.close(opened)
        found = cls(path, number, memory, len(memory))
        if memory[:START] == MAGIC:
            found.end = max((after for after, _ in found.records(START)), default=START)
        else:
            found.end = START
        return found

    def append(self, content: bytes) -> bool:
        """Add a record, which is safe from then on; false where there is no room for it."""
        at = self.end
        after = at + 8 + len(content)
        if after > self.size:
            return False
        self._memory[at:after] = _pack(len(content), crc32(content)) + content
        self.end = after
        return True

    def records(self, at: int) -> Iterator[tuple[int, bytes]]:
        """The records from there on, each with where the next one is; it stops at one that is not whole."""
        memory, end = self._memory, self.end
        while at + 8 <= end:
            length, checksum = _unpack(memory, at)
            at += 8
            if not length or at + length > end:
                return
            content = memory[at : at + length]
            if crc32(content) != checksum:
                return
            at += length
            yield at, content

    def close(self) -> None:
        """Let the memory go; the file stays."""
        with suppress(BufferError):
            self._memory.close()

    def remove(self) -> None:
        """The file goes too."""
        self.close()
        self.path.unlink(missing_ok=True)
