"""Standard output that may hang: a pipe or terminal whose reader has stopped holds up a thread, not the proxy."""

from __future__ import annotations

import errno
import os
import stat
import syslog
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, TextIO

from llmproxy.observability.append_file import AppendedFile

MAX_WAITING_CHARACTERS = 4 * 1024 * 1024  # that wait for the reader; what comes then is lost, and counted
LAST_SECONDS = 2.0  # for what still waits when the process ends


def patient(stream: TextIO) -> TextIO:
    """The stream itself where it is a file, else one that never makes its writer wait."""
    with suppress(OSError, ValueError):
        if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return stream
        return QueuedStream(stream)  # type: ignore[return-value]
    return stream


class LogFile:
    """As much of a text stream as the log needs, in a file that others may rotate away."""

    encoding = "utf-8"

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = AppendedFile(path)
        self._text: list[str] = []

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> int:
        self._text.append(text)
        return len(text)

    def flush(self) -> None:
        """Write what has come since; L{OSError} where that fails, and it is lost."""
        text, self._text = "".join(self._text), []
        if text:
            self._file.append(text.encode("utf-8", "replace"))

    def reopen(self) -> None:
        """Open the file anew with the next line."""
        self._file.close()


class SyslogStream:
    """The same for the system's log: each line is a message of its own, and whoever writes it waits for the reader."""

    encoding = "utf-8"

    def __init__(self, name: str) -> None:
        self._rest = ""
        syslog.openlog(name, syslog.LOG_PID, syslog.LOG_DAEMON)

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            syslog.syslog(syslog.LOG_INFO, line.replace("\0", " "))
        return len(text)

    def flush(self) -> None:
        """Nothing waits."""


class _Stream(Protocol):
    """As much of a C{TextIO} as is needed here."""

    @property
    def encoding(self) -> str: ...
    def isatty(self) -> bool: ...
    def write(self, text: str, /) -> int: ...
    def flush(self) -> None: ...


class QueuedStream:
    """As much of a text stream as the log needs; what is written leaves in a thread, in its order.

    An error there is raised by a later L{flush}, so that its writer can tell.
    """

    def __init__(self, stream: _Stream, limit: int = MAX_WAITING_CHARACTERS) -> None:
        """
        @param limit: How many characters may wait; beyond it L{write} fails with C{EAGAIN}.
        """
        self._stream = stream
        self._limit = limit
        self._changed = threading.Condition()
        self._writing = threading.Lock()  # held while the stream is written to, and while the process forks
        self._forks = False
        self._waiting: deque[str] = deque()
        self._size = 0
        self._error: Exception | None = None
        self._direct = False
        self._pid = 0
        self.encoding = stream.encoding
        own = weakref.ref(self)
        os.register_at_fork(
            before=lambda: _call(own(), QueuedStream.before_fork),
            after_in_parent=lambda: _call(own(), QueuedStream.after_fork),
            after_in_child=lambda: _call(own(), QueuedStream.start_over),
        )

    def isatty(self) -> bool:
        return self._stream.isatty()

    def write(self, text: str) -> int:
        with self._changed:
            if self._direct:
                return self._stream.write(text)
            if self._size and self._size + len(text) > self._limit:
                raise BlockingIOError(errno.EAGAIN, "The reader of the log does not take it")
            self._waiting.append(text)
            self._size += len(text)
            if self._pid != os.getpid():  # none yet, or it stayed behind in the process that became this one
                self._pid = os.getpid()
                threading.Thread(target=self._run, name="log", daemon=True).start()
            self._changed.notify_all()
        return len(text)

    def flush(self) -> None:
        with self._changed:
            error, self._error = self._error, None
            direct = self._direct
        if error is not None:
            raise error
        if direct:
            self._stream.flush()

    def drain(self, seconds: float = LAST_SECONDS) -> Any:
        """Wait for what was written so far; where all of it has left, what follows is written at once."""
        with self._changed:
            self._direct = self._changed.wait_for(lambda: not self._size, seconds)

    def before_fork(self) -> None:
        """Let the thread write what it has taken: a child would wait for ever for a lock that the stream has then."""
        self._forks = self._writing.acquire(timeout=LAST_SECONDS)

    def after_fork(self) -> None:
        if self._forks:
            self._writing.release()

    def start_over(self) -> None:
        """This is a process that was forked: its thread stayed behind, perhaps with the lock, and with what it took."""
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._size = sum(map(len, self._waiting))

    def _run(self) -> None:
        pid = self._pid
        while pid == self._pid:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                text = "".join(self._waiting)
                self._waiting.clear()
            with self._writing:
                try:
                    self._stream.write(text)
                    self._stream.flush()
                except (OSError, ValueError) as e:
                    self._error = e
            with self._changed:
                self._size -= len(text)
                self._changed.notify_all()


def _call(stream: QueuedStream | None, method: Callable[[QueuedStream], None]) -> None:
    if stream is not None:
        method(stream)
