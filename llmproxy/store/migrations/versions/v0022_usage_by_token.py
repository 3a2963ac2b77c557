"""Pages of reports that tell tokens apart find the tokens that they show without reading those of all."""

from __future__ import annotations

from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    op.create_index("usage_by_token", "usage_by_period", ["token_id", "period"])
