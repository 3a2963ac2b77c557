"""C{llmproxy alert}: what was alerted of budgets."""

from __future__ import annotations

import click

from llmproxy.cli.client import management_path
from llmproxy.cli.output import Columns
from llmproxy.cli.project_filter import project_option, project_query
from llmproxy.cli.session import CommandSession, with_session

COLUMNS: Columns = {
    "AT": lambda alert: alert["at"],
    "OWNER": lambda alert: alert["owner"],
    "ID": lambda alert: alert["owner_id"],
    "NAME": lambda alert: alert["name"] or None,
    "BUDGET": lambda alert: f"{alert['budget']} {alert['allowed']}/{alert['period']}",
    "SPENT": lambda alert: f"{alert['percent']} %",
    "REACHED": lambda alert: f"{alert['threshold']} %" if alert["threshold"] else "refused",
    "DELIVERED": lambda alert: alert["delivered_at"],
}


@click.group()
def alert() -> None:
    """What was alerted of budgets."""


@alert.command("list")
@project_option("Of this project and its tokens only.")
@click.option("--owner", type=click.Choice(["token", "project", "group", "api"]), help="Of budgets of these only.")
@click.option("--id", "owner_id", metavar="ID", help="Of the token, project or group of this id only.")
@with_session
def list_(session: CommandSession, project: str | None, **filters: str | None) -> None:
    """List alerts, the latest first."""
    query = {name: value for name, value in filters.items() if value} | project_query(project)
    session.show_list(session.client().list_all(management_path("alerts"), **query), COLUMNS)
