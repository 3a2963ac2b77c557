"""C{llmproxy request}: the last requests, and what each one's time went into."""

from __future__ import annotations

from urllib.parse import urlencode

import click

from llmproxy.cli.client import management_path
from llmproxy.cli.output import Columns
from llmproxy.cli.project_filter import project_option, project_query
from llmproxy.cli.session import CommandSession, with_session

COLUMNS: Columns = {
    "AT": lambda request: request["started_at"],
    "ID": lambda request: request["request_id"],
    "STATUS": lambda request: request["status"],
    "OUTCOME": lambda request: request["error"] or request["outcome"],
    "API": lambda request: request["api"] or None,
    "MODEL": lambda request: request["model"] or None,
    "SECONDS": lambda request: f"{request['duration']:.3f}",
    "TOKENS": lambda request: request["input_tokens"] + request["output_tokens"],
    "USD": lambda request: None if request["cost_usd"] is None else f"{request['cost_usd']:.6f}",
}


@click.group()
def request() -> None:
    """The last requests."""


@request.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many, at most.")
@project_option("Of this project only.")
@click.option("--token", "token_id", metavar="ID", help="With this token only.")
@click.option("--api", help="Of this API only.")
@click.option("--model", help="For this model only.")
@click.option("--status", help="With this status only: 429, 4xx.")
@click.option("--outcome", help="complete, refused, failed, cancelled or truncated only.")
@click.option("--error", metavar="CODE", help="With this error only: rate_limit_exceeded.")
@with_session
def list_(session: CommandSession, limit: int, project: str | None, **filters: str | None) -> None:
    """List the last requests, the latest first."""
    given = {name: value for name, value in filters.items() if value} | project_query(project)
    path = f"{management_path('requests')}?{urlencode({'limit': limit, **given})}"
    session.show_list(session.client().request("GET", path), COLUMNS)


@request.command()
@click.argument("request_id")
@with_session
def show(session: CommandSession, request_id: str) -> None:
    """Show one of the last requests, by its X-Request-ID, and what its time went into."""
    session.show(session.client().request("GET", management_path("requests", request_id)))
