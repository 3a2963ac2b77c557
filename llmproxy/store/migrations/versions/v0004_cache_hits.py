"""How often each token was answered from the cache."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("tokens", sa.Column("cache_hits", sa.BigInteger, nullable=False, server_default="0"))
