"""Revocations that the store has not taken yet, in a file of each process, so that they outlive it. It blocks."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.logger import Logger

_PREFIX, _SUFFIX = "revocations-", ".json"
_log = Logger()


class RevocationFile:
    """One process's file: there only while something is in it, and locked for as long as the process lives."""

    def __init__(self, directory: Path, name: str) -> None:
        """
        @param name: One that no other process has.
        """
        self._directory = directory
        self._path = directory / f"{_PREFIX}{name}{_SUFFIX}"
        self._lock = -1

    def save(self, targets: Iterable[tuple[str, str]]) -> None:
        """Have exactly these in the file, and on the medium; L{OSError} where that fails, with those before kept.

        @param targets: Kind and id of each.
        """
        listed = [list(target) for target in targets]
        if not listed:
            self._path.unlink(missing_ok=True)
            self._unlock()
            return
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            # The lock belongs to the file that gets the name: another process may look for it at any time.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            content = json.dumps(listed).encode()
            if os.write(descriptor, content) != len(content):
                raise OSError("half of it was written")
            os.fsync(descriptor)
            os.replace(fresh, self._path)
        except BaseException:
            os.close(descriptor)
            with suppress(OSError):
                fresh.unlink()
            raise
        self._unlock()
        self._lock = descriptor
        folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def left_behind(self) -> list[tuple[Path, list[tuple[str, str]]]]:
        """The files of processes that have ended, each with what is in it; to be removed once that is saved elsewhere.

        What cannot be read is said in the log, and left where it is.
        """
        found = []
        for path in sorted(self._directory.glob(f"{_PREFIX}*{_SUFFIX}")):
            if path == self._path:
                continue
            try:
                with path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    found.append((path, list(_targets(json.loads(file.read())))))
            except BlockingIOError:
                continue  # its process lives, and writes them itself
            except (OSError, ValueError) as e:
                _log.error("{path} may hold revocations, and cannot be read: {reason}.", path=str(path), reason=str(e))
        return found


def _targets(stored: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(stored, list):
        raise ValueError("is no list of revocations")
    for each in stored:
        if not isinstance(each, list) or [type(part) for part in each] != [str, str]:
            raise ValueError("is no list of revocations")
        yield each[0], each[1]
