"""A number for every change to a project or its tokens, so that other processes can tell what they have missed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    epochs = op.create_table(
        "epochs",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
    )
    changes = op.create_table(
        "changes",
        sa.Column("epoch", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("project_id", sa.String(255), nullable=False),
    )
    op.bulk_insert(epochs, [{"name": "changes", "number": 0}])
    op.bulk_insert(changes, [{"epoch": 0, "project_id": ""}])
