"""A file that lines are appended to. Everything here blocks: call it in a thread."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from threading import Lock

from llmproxy.instruments import Counter, Instrument

_REASONS = {
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.EROFS: "read_only",
    errno.EACCES: "not_permitted",
    errno.EPERM: "not_permitted",
    errno.EBUSY: "disk_hangs",
    errno.EAGAIN: "does_not_answer",
    errno.EPIPE: "closed",
    errno.EIO: "disk_broken",
}


class AppendedFile:
    """Appends whole lines, also while the file is rotated away or another process appends to it too.

    It is made with mode 0600, its folders with 0700; what exists keeps its mode.

    @ivar half_lines: How often half a line stood at its end, from a failure or a crash, so that the next began with a
        newline.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = Lock()
        self._fd = -1
        self._torn = False
        self._fresh = False
        self.half_lines = 0

    def instruments(self) -> Iterator[Instrument]:
        """Its figure, to be labelled with what the file is for."""
        yield Counter(
            "half_lines",
            "Lines in files that a failure or a crash has left unfinished, and after which a new one was begun.",
            lambda: self.half_lines,
            "file",
        )

    def append(self, lines: bytes, *, sync: bool = False) -> None:
        """Write these lines, each ended by a newline; L{OSError} where that fails.

        @param sync: Return only when they are on the medium.
        """
        with self._lock:
            self._open()
            torn = self._torn
            if torn:  # half a line stands at the end, from a failure or a crash: keep ours apart from it
                lines = b"\n" + lines
            self._write(lines)
            self.half_lines += torn
            if sync:
                self._sync()

    def close(self) -> None:
        with self._lock:
            self._close()

    def _write(self, lines: bytes) -> None:
        rest = memoryview(lines)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        finally:
            written = len(lines) - len(rest)
            self._torn = not lines[:written].endswith(b"\n") if written else self._torn

    def _sync(self) -> None:
        try:
            os.fsync(self._fd)
            if self._fresh:
                self._sync_folder()
        except OSError as e:
            if e.errno not in (errno.EINVAL, errno.ENOTSUP):  # a pipe or a terminal has no medium
                # What was not synced may have been discarded by the kernel, which reports that only once.
                self._close()
                raise

    def _sync_folder(self) -> None:
        """A new file's name is kept in its folder."""
        folder = os.open(os.path.dirname(self._path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._fresh = False

    def _open(self) -> None:
        if self._fd >= 0 and self._is_there():
            return
        self._close()
        if folder := os.path.dirname(self._path):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._torn = _torn(self._path, self._fd)
        self._fresh = True

    def _is_there(self) -> bool:
        """Whether the name still leads to the file that is open, and not to a rotated one's successor."""
        try:
            named = os.stat(self._path)
        except FileNotFoundError:
            return False
        return os.path.samestat(named, os.fstat(self._fd))

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def failure_reason(error: Exception) -> str:
    """In a word or two why it could not be written, such as C{disk_full}: for those who look at the process's state."""
    if isinstance(error, TimeoutError):
        return "does_not_answer"
    number = error.errno if isinstance(error, OSError) else None
    return _REASONS.get(number or 0, errno.errorcode.get(number or 0, type(error).__name__))


def _torn(path: str, fd: int) -> bool:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return False
    with suppress(OSError), open(path, "rb") as file:  # it may be a file that we can write but not read
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
    return False
