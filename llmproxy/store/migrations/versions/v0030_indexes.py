"""The tokens of one project, and one line of the ledger, are found without reading those of all.

The view C{ledger} gets C{run} and C{number}, of which a line's id is made: these have an index, the id has none.
"""

from __future__ import annotations

from alembic import op

revision = "0030"
down_revision = "0029"

AT_FIRST = ("at", "duration", "request_id")
KIND = (
    *("project_id", "token_id", "api", "endpoint", "model", "answered", "outcome", "basis", "error"),
    *("status", "upstream_status", "stream"),
)
AT_LAST = (
    *("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens", "cost_usd"),
    *("bytes_in", "bytes_out", "attribution", "attempts", "attempted"),
)


def upgrade() -> None:
    op.create_index("usage_of_project_by_token", "usage_by_period", ["project_id", "token_id", "period"])
    op.create_index("ledger_runs_by_name", "ledger_runs", ["name"])
    connection = op.get_bind()
    postgresql = connection.dialect.name == "postgresql"
    number = "lpad(to_hex(l.number), 10, '0')" if postgresql else "printf('%010x', l.number)"
    columns = [*(f"l.{name}" for name in AT_FIRST), *(f"k.{name}" for name in KIND), *(f"l.{name}" for name in AT_LAST)]
    connection.exec_driver_sql("DROP VIEW ledger")
    connection.exec_driver_sql(
        f"CREATE VIEW ledger AS SELECT CASE WHEN l.number < 0 THEN r.name ELSE r.name || '-' || {number} END AS id, "
        f"{', '.join(columns)}, r.name AS run, l.number FROM ledger_lines l "
        "LEFT JOIN ledger_kinds k ON k.id = l.kind_id LEFT JOIN ledger_runs r ON r.id = l.run_id"
    )
