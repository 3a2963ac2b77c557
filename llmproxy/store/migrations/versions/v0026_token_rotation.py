"""The secret that a token had before it was rotated, and until when that is valid."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    op.add_column("tokens", sa.Column("previous_hash", sa.String(64)))
    op.add_column("tokens", sa.Column("previous_expires_at", sa.Double))
    op.create_index("tokens_by_previous_hash", "tokens", ["previous_hash"])
