"""What went on, by stretches of time: what the overview shows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    sums = ("requests", "failed", "refused", "cache_hits", "input_tokens", "output_tokens")
    classes = [f"first_byte_{number:02}" for number in range(30)]
    op.create_table(
        "activity",
        sa.Column("step", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("project_id", sa.String(255), primary_key=True),
        sa.Column("api", sa.String(255), primary_key=True),
        sa.Column("model", sa.String(128), primary_key=True),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in (*sums, *classes)),
        sa.Column("cost_usd", sa.Double, nullable=False),
    )
