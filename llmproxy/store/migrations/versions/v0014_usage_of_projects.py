"""Usage added up without its tokens: what most reports read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

KEYS = ("period", "project_id", "api", "model")
SUMS = (
    *("requests", "failed", "estimated", "unpriced", "input_tokens", "cached_tokens", "cache_write_tokens"),
    *("output_tokens", "reasoning_tokens", "cost_usd"),
)


def upgrade() -> None:
    op.create_table(
        "usage_of_projects",
        sa.Column("period", sa.String(10), primary_key=True),
        sa.Column("project_id", sa.String(255), primary_key=True),
        sa.Column("api", sa.String(255), primary_key=True),
        sa.Column("model", sa.String(128), primary_key=True),
        *(sa.Column(name, sa.Double if name == "cost_usd" else sa.BigInteger, nullable=False) for name in SUMS),
    )
    keys, added = ", ".join(KEYS), ", ".join(f"sum({name})" for name in SUMS)
    op.execute(
        f"INSERT INTO usage_of_projects ({keys}, {', '.join(SUMS)}) "
        f"SELECT {keys}, {added} FROM usage_by_period GROUP BY {keys}"
    )
