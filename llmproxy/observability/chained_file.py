"""A file of audit entries in a chain that goes on over processes, restarts and rotated files. All of it blocks."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import SupportsBytes

from llmproxy.base.audit_chain import ChainLink, chained, parse_chained
from llmproxy.observability.append_file import AppendedFile

TAIL_BYTES = 256 * 1024
HEAD_SUFFIX = ".head"


class ChainedFile:
    """Appends entries behind the last one, whoever wrote that.

    Beside the file is another one, C{<path>.head}: it is locked while entries are appended, and has the number and hash
    of the last one, by which a new file goes on where a rotated one ended, and an end that was cut off is missed.
    """

    def __init__(self, file: AppendedFile, path: str, key: SupportsBytes) -> None:
        self._file = file
        self._path = path
        self._key = key
        self._known: tuple[int, int, ChainLink] | None = None  # inode, size, and the last entry at that size
        self._last = ChainLink()

    def append(self, texts: Sequence[str], *, sync: bool) -> None:
        """Append these entries; L{OSError} where that fails.

        @param sync: Return only when they are on the medium.
        """
        with self._locked() as head:
            last, lines = self._end(head), []
            for text in texts:
                line, last = chained(text, last, bytes(self._key))
                lines.append(line + "\n")
            self._file.append("".join(lines).encode("utf-8", "surrogatepass"), sync=sync)
            self._remember(last, head)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Be the only one that appends; the descriptor of the head, -1 where there can be none."""
        head = self._open_head()
        try:
            if head >= 0:
                fcntl.flock(head, fcntl.LOCK_EX)
            yield head
        finally:
            if head >= 0:
                os.close(head)

    def _open_head(self) -> int:
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(os.stat(self._path).st_mode):
                return -1  # a pipe or a terminal: the chain is this process's own
        if folder := os.path.dirname(self._path):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        try:
            return os.open(self._path + HEAD_SUFFIX, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as e:
            if e.errno not in (errno.EACCES, errno.EROFS):
                raise
            return -1

    def _end(self, head: int) -> ChainLink:
        """The last entry: in the file, or as the head has it where the file is new or was cut off."""
        if head < 0:
            return self._last
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return read_head(head)
        if self._known is not None and self._known[:2] == (found.st_ino, found.st_size):
            return self._known[2]
        return max(last_entry(self._path), read_head(head), key=lambda link: link.seq)

    def _remember(self, last: ChainLink, head: int) -> None:
        self._last = last
        if head >= 0:
            os.pwrite(head, json.dumps(last._asdict()).ljust(120).encode("ascii") + b"\n", 0)
            found = os.stat(self._path)
            self._known = (found.st_ino, found.st_size, last)


def read_head(descriptor: int) -> ChainLink:
    """What a head says; the beginning where it says nothing."""
    try:
        return ChainLink(**json.loads(os.pread(descriptor, 1024, 0)))
    except (ValueError, TypeError):
        return ChainLink()


def last_entry(path: str) -> ChainLink:
    """The last entry of a chain in this file; the beginning where there is none."""
    size, tail = os.path.getsize(path), TAIL_BYTES
    with open(path, "rb") as file:
        while True:
            file.seek(max(0, size - tail))
            for line in reversed(file.read(tail).split(b"\n")):
                entry = parse_chained(line.decode("utf-8", "surrogatepass"))
                if entry is not None:
                    return ChainLink(entry.seq, entry.hash)
            if tail >= size:
                return ChainLink()
            tail *= 4
