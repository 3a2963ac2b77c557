"""Groups of projects, with limits for all below them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.create_table(
        "project_groups",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("parent_id", sa.String(64)),
        sa.Column("allowance", sa.JSON(none_as_null=True)),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False, server_default="1"),
    )
    op.create_index("project_groups_by_age", "project_groups", ["created_at", "id"])
    op.create_index("project_groups_by_parent", "project_groups", ["parent_id"])
    # As SQL: Alembic adds no column with a reference to SQLite, which takes one.
    op.execute("ALTER TABLE projects ADD COLUMN group_id VARCHAR(64) REFERENCES project_groups (id)")
    op.create_index("projects_of_group", "projects", ["group_id"])
    op.bulk_insert(sa.table("epochs", sa.column("name"), sa.column("number")), [{"name": "groups", "number": 0}])
