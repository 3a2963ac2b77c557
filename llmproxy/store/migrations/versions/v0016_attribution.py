"""Whom requests are attributed to, and the labels and metadata of projects and tokens."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"

KEYS = (("period", 10), ("project_id", 255), ("name", 32), ("source", 8), ("value", 128), ("api", 255), ("model", 128))
SUMS = (
    *("requests", "failed", "estimated", "unpriced", "input_tokens", "cached_tokens", "cache_write_tokens"),
    *("output_tokens", "reasoning_tokens", "cost_usd"),
)


def upgrade() -> None:
    for table in ("projects", "tokens"):
        for name in ("labels", "metadata"):
            op.add_column(table, sa.Column(name, sa.JSON(none_as_null=True)))
    for table in ("ledger", "pending_results"):
        op.add_column(table, sa.Column("attribution", sa.String(4000), nullable=False, server_default=""))
    op.create_table(
        "usage_by_attribution",
        *(sa.Column(name, sa.String(length), primary_key=True) for name, length in KEYS),
        *(sa.Column(name, sa.Double if name == "cost_usd" else sa.BigInteger, nullable=False) for name in SUMS),
    )
