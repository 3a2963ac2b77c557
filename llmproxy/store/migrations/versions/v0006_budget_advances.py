"""What each process has of budgets in advance, so that it can be given back for one that was killed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "budget_advances",
        sa.Column("run", sa.String(64), primary_key=True),
        sa.Column("budget", sa.String(400), primary_key=True),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("ends", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
    )
    op.create_index("budget_advances_by_budget", "budget_advances", ["budget"])
