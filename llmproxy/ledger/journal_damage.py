"""Places of journals that could not be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from twisted.logger import Logger


class JournalDamage:
    """Counts and reports the places of journals that could not be read.

    @ivar places: How many, since this process began; C{removed}: files with some that were too many to be kept.
    @ivar files: C{damaged} where files are kept that could not be read whole, until somebody removes them; else C{ok}.
    """

    _log = Logger()

    def __init__(self) -> None:
        self.places = 0
        self.removed = 0
        self.files = "ok"

    def report(self, files: Mapping[Path, int]) -> None:
        """Places that were found just now, by the file that will be kept."""
        for path, places in files.items():
            self.places += places
            self.files = "damaged"
            self._log.error(
                "{places} places of the ledger's journal cannot be read, and their lines are lost; all others are "
                "entered. The file will be kept as {path}.",
                places=places,
                path=str(path),
            )

    def report_unreadable(self, count: int) -> None:
        """So many lines of a journal are none that the store takes."""
        if count:
            self.places += count
            self._log.error("{count} lines of the ledger's journal are none, and are lost.", count=count)

    def report_removed(self, files: Sequence[Path]) -> None:
        """The oldest of the files that were kept are gone, since there were too many."""
        self.removed += len(files)
        for path in files:
            self._log.warn("{path} was removed: newer damaged files of the ledger take its place.", path=str(path))
