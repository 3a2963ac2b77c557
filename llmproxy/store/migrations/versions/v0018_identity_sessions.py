"""Sessions of people whom an identity provider knows: what their claims allowed when they signed in."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.add_column("admin_sessions", sa.Column("principal", sa.Text))
