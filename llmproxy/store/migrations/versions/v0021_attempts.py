"""How often requests were sent to a provider, and what came of each attempt."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    op.add_column("ledger", sa.Column("attempts", sa.Integer, nullable=False, server_default="0"))
    op.add_column("ledger", sa.Column("attempted", sa.String(512), nullable=False, server_default=""))
