"""Any of several provider keys of a project may be kept elsewhere."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    op.add_column("further_provider_keys", sa.Column("reference", sa.Text))
