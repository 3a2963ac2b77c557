"""Lines of the ledger are narrow: what many have in common is written once. C{ledger} is a view of them, as it was.

A database may have many lines: they are moved a slice at a time, and the log says how far that is.
"""

from __future__ import annotations

import json
import re
import time
from hashlib import blake2b
from typing import Any

import sqlalchemy as sa
from alembic import op
from twisted.logger import Logger

revision = "0024"
down_revision = "0023"

SLICE_LINES = 5000
PROGRESS_SECONDS = 5.0
AT_FIRST = (("at", sa.Double), ("duration", sa.Double), ("request_id", sa.String(128)))
TEXTS = (
    *(("project_id", 255), ("token_id", 64), ("api", 255), ("endpoint", 255), ("model", 128), ("answered", 128)),
    *(("outcome", 16), ("basis", 16), ("error", 64)),
)
COUNTS = ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
KIND = (*(name for name, _ in TEXTS), "status", "upstream_status", "stream")
LINE = (
    *(name for name, _ in AT_FIRST),
    *COUNTS,
    "cost_usd",
    "bytes_in",
    "bytes_out",
    "attribution",
    "attempts",
    "attempted",
)
NUMBERED = re.compile("(.+)-([0-9a-f]{10})", re.DOTALL)

_log = Logger(namespace="llmproxy.store")


def upgrade() -> None:
    op.create_table(
        "ledger_kinds",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("used_on", sa.Integer, nullable=False),
        *(sa.Column(name, sa.String(length), nullable=False) for name, length in TEXTS),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("upstream_status", sa.Integer),
        sa.Column("stream", sa.Boolean, nullable=False),
    )
    op.create_table(
        "ledger_runs",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("used_on", sa.Integer, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
    )
    op.create_table(
        "ledger_lines",
        sa.Column("run_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("kind_id", sa.BigInteger, nullable=False),
        *(sa.Column(name, type_, nullable=False) for name, type_ in AT_FIRST),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in COUNTS),
        sa.Column("cost_usd", sa.Double),
        sa.Column("bytes_in", sa.BigInteger, nullable=False),
        sa.Column("bytes_out", sa.BigInteger, nullable=False),
        sa.Column("attribution", sa.String(4000), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("attempted", sa.String(512), nullable=False),
        sqlite_with_rowid=False,
    )
    _move(op.get_bind())
    op.drop_table("ledger")
    op.create_index("ledger_lines_by_time", "ledger_lines", ["at"])
    number = (
        "lpad(to_hex(l.number), 10, '0')" if op.get_bind().dialect.name == "postgresql" else "printf('%010x', l.number)"
    )
    columns = [
        *(f"l.{name}" for name in LINE[: len(AT_FIRST)]),
        *(f"k.{name}" for name in KIND),
        *(f"l.{name}" for name in LINE[len(AT_FIRST) :]),
    ]
    op.get_bind().exec_driver_sql(
        f"CREATE VIEW ledger AS SELECT CASE WHEN l.number < 0 THEN r.name ELSE r.name || '-' || {number} END AS id, "
        f"{', '.join(columns)} FROM ledger_lines l "
        "LEFT JOIN ledger_kinds k ON k.id = l.kind_id LEFT JOIN ledger_runs r ON r.id = l.run_id"
    )


def _move(connection: sa.Connection) -> None:
    """Enter what is in the old table into the new ones."""
    wide = sa.table("ledger", *(sa.column(name) for name in ("id", *KIND, *LINE)))
    place = "?" if connection.dialect.paramstyle == "qmark" else "%s"
    columns = ("run_id", "number", "kind_id", *LINE)
    into = f"INSERT INTO ledger_lines ({', '.join(columns)}) VALUES ({', '.join([place] * len(columns))})"
    ids = _Ids(connection)
    last, moved, total, next_line = "", 0, 0, time.monotonic() + PROGRESS_SECONDS
    ordered = sa.select(wide).where(wide.c.id > sa.bindparam("last")).order_by(wide.c.id).limit(SLICE_LINES)
    while rows := connection.execute(ordered, {"last": last}).all():
        connection.exec_driver_sql(into, [ids.line(tuple(row)) for row in rows])
        last, moved = rows[-1][0], moved + len(rows)
        if time.monotonic() >= next_line:
            next_line = time.monotonic() + PROGRESS_SECONDS
            total = total or connection.scalar(sa.select(sa.func.count()).select_from(wide)) or 0
            _log.info("{moved} of {total} lines of the ledger are moved.", moved=moved, total=total)


class _Ids:
    """Numbers kinds and runs, and enters each when it is met first."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._kinds: dict[tuple[Any, ...], int] = {}
        self._runs: dict[str, int] = {}
        self._today = int(time.time() // 86400)

    def line(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """A row of the new table."""
        line_id, kind, rest = row[0], row[1 : 1 + len(KIND)], row[1 + len(KIND) :]
        name, number = line_id, -1
        numbered = NUMBERED.fullmatch(line_id)
        if numbered is not None:
            name, number = numbered[1], int(numbered[2], 16)
        kind_id, run_id = self._kinds.get(kind), self._runs.get(name)
        if kind_id is None:
            kind_id = self._kinds[kind] = self._insert("ledger_kinds", dict(zip(KIND, kind, strict=True)))
        if run_id is None:
            run_id = self._runs[name] = self._insert("ledger_runs", {"name": name})
        return (run_id, number, kind_id, *rest)

    def _insert(self, table: str, values: dict[str, Any]) -> int:
        if "stream" in values:
            values["stream"] = bool(values["stream"])
        number = _number(values["name"] if "name" in values else json.dumps(list(values.values())))
        row = {"id": number, "used_on": self._today, **values}
        self._connection.execute(sa.insert(sa.table(table, *map(sa.column, row))), row)
        return number


def _number(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
