"""C{llmproxy session}: who is signed in to the admin pages."""

from __future__ import annotations

import click

from llmproxy.cli.client import management_path
from llmproxy.cli.output import Columns
from llmproxy.cli.session import CommandSession, with_session

COLUMNS: Columns = {
    "ID": lambda session: session["id"],
    "WHO": lambda session: session["name"] or session["subject"],
    "FROM": lambda session: session["client"] or None,
    "BROWSER": lambda session: session["user_agent"] or None,
    "SIGNED IN": lambda session: session["created_at"],
    "LAST SEEN": lambda session: session["last_seen_at"],
}


@click.group("session")
def admin_session() -> None:
    """Show who is signed in to the admin pages, and end that."""


@admin_session.command("list")
@with_session
def list_(session: CommandSession) -> None:
    """List who is signed in, the one that was seen last first."""
    session.show_list(session.client().request("GET", management_path("sessions")), COLUMNS)


@admin_session.command()
@click.argument("session_id")
@with_session
def end(session: CommandSession, session_id: str) -> None:
    """End a session: its browser must sign in anew."""
    session.client().request("DELETE", management_path("sessions", session_id))
    session.show({"ended": session_id})
