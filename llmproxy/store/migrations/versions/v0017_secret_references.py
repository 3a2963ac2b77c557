"""Provider keys that are kept elsewhere: the store has a reference to them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.add_column("provider_keys", sa.Column("reference", sa.Text))
