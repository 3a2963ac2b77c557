"""What is old goes out of the ledger: lines are removed, days are folded into their months."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, exists, func, select

from llmproxy.ledger import attributed_usage
from llmproxy.ledger.line_rows import delete_unused
from llmproxy.ledger.sum_rows import (
    INTO_PROJECT_USAGE,
    INTO_USAGE,
    add_attributed,
    merge,
    upsert_clause,
    without_tokens,
    write,
)
from llmproxy.ledger.usage_queries import KEY_COLUMNS, PROJECT_KEY_COLUMNS, SUM_COLUMNS
from llmproxy.store.tables import journals, ledger_lines, project_usage, usage

CLOSED_OFFSET = 2**62  # the place behind everything that a journal can hold


def roll_up(
    connection: Connection, *, lines_before: float, days_before: str, limit: int, now: float
) -> tuple[int, int]:
    gone = _remove_lines(connection, lines_before, limit)
    days = select(usage).where(usage.c.period < days_before, func.length(usage.c.period) == 10).limit(limit)
    rows = [tuple(row) for row in connection.execute(days)]
    if rows:
        months = _by_month(rows)
        write(connection, INTO_USAGE, len(KEY_COLUMNS) + len(SUM_COLUMNS), months, upsert_clause(usage))
        keys = [{f"old_{name}": row[at] for at, name in enumerate(KEY_COLUMNS)} for row in rows]
        connection.execute(
            delete(usage).where(*(usage.c[name] == bindparam(f"old_{name}") for name in KEY_COLUMNS)), keys
        )
        _fold_project_days(connection, rows)
    attributed_usage.fold(connection, days_before, limit, add_attributed)
    # The row of a journal that is gone for good; it was to be removed with it, and something came between.
    connection.execute(
        delete(journals).where(journals.c.place == CLOSED_OFFSET, journals.c.updated_at < now - 7 * 86400)
    )
    return gone, len(rows)


def _remove_lines(connection: Connection, before: float, limit: int) -> int:
    """Remove so many of the lines from before this time; with the last of them, what no line refers to any more."""
    table = ledger_lines
    oldest = select(table.c.run_id, table.c.number).where(table.c.at < before).order_by(table.c.at).limit(limit)
    keys = [{"old_run": run_id, "old_number": number} for run_id, number in connection.execute(oldest)]
    if keys:
        old = delete(table).where(table.c.run_id == bindparam("old_run"), table.c.number == bindparam("old_number"))
        connection.execute(old, keys)
    if len(keys) < limit and before > 0:
        delete_unused(connection, int(before // 86400) - 1)
    return len(keys)


def _fold_project_days(connection: Connection, days: Sequence[tuple[Any, ...]]) -> None:
    """Move what these days' rows add up to without tokens to their months.

    Of a day that has more rows than are folded at once its row keeps the rest.
    """
    key = len(PROJECT_KEY_COLUMNS)
    of_projects = without_tokens(days)
    months = merge([(row[0][:7], *row[1:]) for row in of_projects], key)
    folded = [(*row[:key], *(-value for value in row[key:])) for row in of_projects]
    for rows in (months, folded):
        write(connection, INTO_PROJECT_USAGE, key + len(SUM_COLUMNS), rows, upsert_clause(project_usage))
    of_tokens = exists().where(*(usage.c[name] == project_usage.c[name] for name in PROJECT_KEY_COLUMNS))
    gone = delete(project_usage).where(
        *(project_usage.c[name] == bindparam(f"old_{name}") for name in PROJECT_KEY_COLUMNS), ~of_tokens
    )
    connection.execute(
        gone, [{f"old_{name}": row[at] for at, name in enumerate(PROJECT_KEY_COLUMNS)} for row in folded]
    )


def _by_month(days: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The sums of these by month."""
    return merge([(row[0][:7], *row[1:]) for row in days])
