"""What the upgrades make of an empty SQLite file, as one script: a new database is there at once, without Alembic,
which takes 16 MB and a third of a second for that.

C{python -m llmproxy.store.write_baseline} writes the script anew, out of the upgrades. Where it is older than they are,
a new database begins with it and is upgraded from there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection, text

NAME = "baseline.sql"
_END = ";\n\n"  # of a statement


def create(connection: Connection, scripts: Path) -> None:
    """Make all tables in an empty SQLite database. Blocks."""
    for statement in (scripts / NAME).read_text().split(_END):
        if statement.strip():
            connection.exec_driver_sql(statement)


def is_empty(connection: Connection) -> bool:
    """Whether there is nothing at all in a SQLite database. Blocks."""
    return connection.execute(text("SELECT count(*) FROM sqlite_master")).scalar() == 0


def script(database: Path) -> str:
    """The statements that make such a database, rows included."""
    opened = sqlite3.connect(database)
    try:
        return "".join(f"{each}{_END}" for each in _statements(opened))
    finally:
        opened.close()


def _statements(opened: sqlite3.Connection) -> Iterator[str]:
    made = opened.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid").fetchall()
    yield from (sql for _, _, sql in made)
    for kind, name, _ in made:
        if kind != "table":
            continue
        columns = [column for _, column, *_ in opened.execute(f'PRAGMA table_info("{name}")')]
        quoted = " || ', ' || ".join(f'quote("{column}")' for column in columns)
        for (values,) in opened.execute(f'SELECT {quoted} FROM "{name}" ORDER BY 1'):
            yield f'INSERT INTO "{name}" VALUES ({values})'
