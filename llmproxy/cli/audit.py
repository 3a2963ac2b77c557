"""C{llmproxy audit}: the audit log."""

from __future__ import annotations

from urllib.parse import urlencode

import click

from llmproxy.cli.client import management_path
from llmproxy.cli.late_group import CommandPlace, LateGroup
from llmproxy.cli.output import Columns
from llmproxy.cli.project_filter import project_option, project_query
from llmproxy.cli.session import CommandSession, with_session

COLUMNS: Columns = {
    "AT": lambda entry: entry["at"],
    "ACTOR": lambda entry: entry["actor"],
    "ACTION": lambda entry: entry["action"],
    "OUTCOME": lambda entry: entry["outcome"],
    "PROJECT": lambda entry: entry["project_id"] or None,
    "TOKEN": lambda entry: entry["token_id"] or None,
    "CLIENT": lambda entry: entry["client"] or None,
}


PLACES = {
    "verify": CommandPlace(
        "llmproxy.cli.audit_verification",
        "verify_audit_log",
        "Find the first entry that was altered, removed or reordered: in the file, and in the store.",
    ),
}


@click.group(cls=LateGroup, places=PLACES)
def audit() -> None:
    """Read the audit log, and verify it."""


@audit.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many, at most.")
@project_option("Of this project only.")
@click.option("--token", "token_id", metavar="ID", help="Of this token only.")
@click.option("--actor", help="Of this actor only: management, key:ID.")
@click.option("--action", help="This action only: token.create.")
@click.option("--outcome", help="intent, success, failure, denied or error only.")
@click.option("--since", metavar="TIME", help="From this time on, RFC 3339.")
@click.option("--until", metavar="TIME", help="Before this time.")
@click.option("--search", metavar="TEXT", help="With this text anywhere in the entry, in any case.")
@with_session
def list_(session: CommandSession, limit: int, project: str | None, **wanted: str | None) -> None:
    """Show the latest entries, the latest first."""
    given = {name: value for name, value in wanted.items() if value is not None} | project_query(project)
    path = f"{management_path('audit')}?{urlencode({'limit': limit, **given})}"
    session.show_list(session.client().request("GET", path), COLUMNS)
