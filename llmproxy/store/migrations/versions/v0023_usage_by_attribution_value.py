"""Pages of reports that tell an attribution's values apart find those that they show without reading all others."""

from __future__ import annotations

from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    table = "usage_by_attribution"
    op.create_index("usage_by_attribution_value", table, ["name", "value", "period"])
    op.create_index("usage_by_attribution_of_project", table, ["project_id", "name", "value", "period"])
