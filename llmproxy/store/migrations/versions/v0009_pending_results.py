"""Results that are reported later than the response to their request: background responses, batches."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "pending_results",
        sa.Column("ledger_id", sa.String(64), primary_key=True),
        sa.Column("result_id", sa.String(255), nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("project_id", sa.String(255), nullable=False),
        sa.Column("token_id", sa.String(64), nullable=False),
        sa.Column("api", sa.String(255), nullable=False),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("held", sa.JSON, nullable=False),
    )
    op.create_index("pending_results_by_result", "pending_results", ["result_id"])
    op.create_index("pending_results_by_time", "pending_results", ["at"])
