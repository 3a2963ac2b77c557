"""Which requests projects and tokens allow."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    for table in ("projects", "tokens"):
        op.add_column(table, sa.Column("policy", sa.JSON(none_as_null=True)))
