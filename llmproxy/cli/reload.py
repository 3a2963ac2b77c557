"""C{llmproxy reload}: have a running daemon read its settings again."""

from __future__ import annotations

import click

from llmproxy.cli.client import management_path
from llmproxy.cli.session import CommandSession, with_session


@click.command()
@with_session
def reload(session: CommandSession) -> None:
    """Have the daemon read its settings again, and say what has changed."""
    session.show(session.client().request("POST", management_path("reload")))
