"""C{llmproxy log-level}: how much the daemon logs."""

from __future__ import annotations

import click

from llmproxy.cli.client import management_path
from llmproxy.cli.session import CommandSession, with_session


@click.command("log-level")
@click.argument("level", required=False, type=click.Choice(["debug", "info", "warn", "error", "critical"]))
@with_session
def log_level(session: CommandSession, level: str | None) -> None:
    """Show how much the daemon and its workers log, or change that until the next start."""
    path = management_path("logging")
    client = session.client()
    session.show(client.request("PATCH", path, {"level": level}) if level else client.request("GET", path))
