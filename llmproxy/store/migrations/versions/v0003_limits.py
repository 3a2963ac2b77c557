"""The limits of projects and tokens, and what was spent of budgets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for table in ("projects", "tokens"):
        op.add_column(table, sa.Column("allowance", sa.JSON))
    op.create_table(
        "spending",
        sa.Column("id", sa.String(400), primary_key=True),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("ends", sa.Double, nullable=False),
    )
