"""The options that narrow down a list of projects, groups or tokens."""

from __future__ import annotations

import click

ACTIVE = click.option("--active/--inactive", "active", default=None, help="Those only that are, or are not, active.")
SEARCH = click.option("--search", metavar="TEXT", help="Those only with this text in their name, in any case.")


def list_query(active: bool | None = None, search: str | None = None) -> dict[str, str]:
    """What the management API is asked for them."""
    query = {} if active is None else {"active": "true" if active else "false"}
    return {**query, **({"search": search} if search else {})}
