"""Lists of tokens and projects are read page by page, in the order of their age."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0006"


def upgrade() -> None:
    op.create_index("projects_by_age", "projects", ["created_at", "id"])
    op.create_index("tokens_by_age", "tokens", ["created_at", "id"])
    op.create_index("tokens_of_project_by_age", "tokens", ["project_id", "created_at", "id"])
    op.drop_index("tokens_of_project", "tokens")
