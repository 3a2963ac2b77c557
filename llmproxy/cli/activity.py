"""C{llmproxy activity}: what went on lately, and what most was spent on."""

from __future__ import annotations

from urllib.parse import urlencode

import click

from llmproxy.cli.client import management_path
from llmproxy.cli.output import Columns
from llmproxy.cli.project_filter import project_option, project_query
from llmproxy.cli.session import CommandSession, with_session

PERIODS = ("1h", "24h", "7d", "30d", "90d", "365d")
_COUNTS: Columns = {
    "REQUESTS": lambda row: row["requests"],
    "USD": lambda row: f"{row['cost_usd']:.6f}",
}


@click.command()
@click.option("--period", type=click.Choice(PERIODS), default="24h", show_default=True, help="The time until now.")
@click.option("--by", type=click.Choice(["project", "api", "model"]), help="What most was spent on, of these.")
@click.option("--limit", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many, with --by.")
@project_option("Of this project only.")
@click.option("--api", help="Of this API only.")
@with_session
def activity(
    session: CommandSession, period: str, by: str | None, limit: int, project: str | None, api: str | None
) -> None:
    """Requests, tokens and cost over a period; or, by project, API or model, what most was spent on."""
    query = {"period": period, **({"api": api} if api else {}), **project_query(project)}
    if by is None:
        found = session.client().request("GET", f"{management_path('activity')}?{urlencode(query)}")
        shown = found if session.output == "json" else {**found, "data": found["points"]}
        session.show_list(shown, {"FROM": lambda row: row["at"], **_COUNTS})
    else:
        query |= {"by": by, "limit": str(limit)}
        found = session.client().request("GET", f"{management_path('activity', 'top')}?{urlencode(query)}")
        session.show_list(found, {by.upper(): lambda row: row["name"], **_COUNTS})
