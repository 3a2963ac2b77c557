"""The alerts of one owner, of owners of one kind, and of one project are found without reading those of all."""

from __future__ import annotations

from alembic import op

revision = "0031"
down_revision = "0030"


def upgrade() -> None:
    op.create_index("budget_alerts_by_owner_id", "budget_alerts", ["owner_id", "owner", "at", "id"])
    op.create_index("budget_alerts_by_owner", "budget_alerts", ["owner", "at", "id"])
    op.create_index("budget_alerts_by_project_id", "budget_alerts", ["project_id", "at", "id"])
