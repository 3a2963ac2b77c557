"""Revisions, so that no change undoes another; and what was created under an idempotency key."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    for table in ("projects", "tokens"):
        op.add_column(table, sa.Column("revision", sa.BigInteger, nullable=False, server_default="1"))
    op.create_table(
        "creations",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("sealed", sa.LargeBinary),
    )
    op.create_index("creations_by_time", "creations", ["at"])
