"""Whose JWTs are refused, whatever their issuer says."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    op.create_table(
        "revoked_subjects",
        sa.Column("id", sa.String(255), primary_key=True),
        sa.Column("issued_before", sa.Double),
        sa.Column("revoked_at", sa.Double, nullable=False),
        sa.Column("reason", sa.String(200), nullable=False),
    )
    op.create_index("revoked_subjects_by_time", "revoked_subjects", ["revoked_at", "id"])
