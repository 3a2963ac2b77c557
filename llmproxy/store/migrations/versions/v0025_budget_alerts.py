"""What was alerted of budgets: once for each period and threshold, whichever process notices."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    op.create_table(
        "budget_alerts",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("threshold", sa.Integer, nullable=False),
        sa.Column("soft", sa.Boolean, nullable=False),
        sa.Column("owner", sa.String(16), nullable=False),
        sa.Column("owner_id", sa.String(255), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("project_id", sa.String(255), nullable=False),
        sa.Column("budget", sa.String(400), nullable=False),
        sa.Column("unit", sa.String(8), nullable=False),
        sa.Column("period", sa.String(16), nullable=False),
        sa.Column("limit", sa.BigInteger, nullable=False),
        sa.Column("spent", sa.BigInteger, nullable=False),
        sa.Column("ends", sa.Double, nullable=False),
        sa.Column("delivered_at", sa.Double),
        sa.UniqueConstraint("budget", "limit", "soft", "threshold", name="budget_alerts_once"),
    )
    op.create_index("budget_alerts_by_time", "budget_alerts", ["at", "id"])
