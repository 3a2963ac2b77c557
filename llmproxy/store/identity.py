"""Whether a SQLite database is still the one that was opened.

SQLite goes on with a file that has been removed or replaced: what it writes there nobody will ever find. What is
written into the header of the database as its application id (SQLite, "Database File Format", section 1.3.17) tells it
from others that somebody has copied over it.
"""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy import Connection

from llmproxy.store.refusals import BadAddress

APPLICATION_ID = 0x4C4C4D50  # "LLMP"


def mark(connection: Connection) -> None:
    """Call the database ours; L{BadAddress} where it is another program's. Blocks."""
    found = connection.exec_driver_sql("PRAGMA application_id").scalar()
    if not found:
        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
    elif found != APPLICATION_ID:
        raise BadAddress("store.url names a database of another program. Name a file of its own.")


class Identity:
    """The file that was opened. What it does blocks, but for no longer than a look at a file's status."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened = os.stat(path)

    def problem(self) -> str:
        """C{""} while the name still leads to it; else what has become of it, in a few words."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return "file was removed"
        except OSError:
            return "file cannot be opened"
        return "" if os.path.samestat(found, self._opened) else "file was replaced"


def content_problem(connection: Connection) -> str:
    """As L{Identity.problem}, of what is in it."""
    found = connection.exec_driver_sql("PRAGMA application_id").scalar()
    return "" if found == APPLICATION_ID else "file is another database"
