"""Processes that are stopped for a while."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.support.stack import eventually


def _stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")


@contextmanager
def suspended(pid: int) -> Iterator[None]:
    """What arrives meanwhile is there at once for it."""
    _stop(pid)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def suspend(pid: int, database: Path) -> None:
    """SIGSTOP, and not while it writes: nobody else could write to the SQLite file then."""

    def stopped() -> bool:
        _stop(pid)
        try:
            with closing(sqlite3.connect(database, timeout=1.0, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            os.kill(pid, signal.SIGCONT)
            return False
        return True

    eventually(stopped)
