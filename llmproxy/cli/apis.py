"""C{llmproxy api}, C{openapi} and C{version}: what is configured and what runs at the URL."""

from __future__ import annotations

import click

from llmproxy.cli.client import management_path
from llmproxy.cli.output import Columns, as_json, echo
from llmproxy.cli.session import CommandSession, with_session

COLUMNS: Columns = {
    "API": lambda api: api["name"],
    "PROVIDER": lambda api: api["provider"] or None,
    "DEFAULT": lambda api: api["default"],
    "ENDPOINTS": lambda api: api["allowed_endpoints"],
}


@click.group()
def api() -> None:
    """The APIs that are configured, and what requests are attributed to."""


@api.command("list")
@with_session
def list_(session: CommandSession) -> None:
    """List the configured APIs, which keys and tokens may name; on standard error the attributions."""
    found = session.client().request("GET", management_path("apis"))
    session.show_list(found, COLUMNS)
    if session.output == "table" and found["attributions"]:
        click.echo(f"Requests are attributed to: {', '.join(found['attributions'])}", err=True)


@click.command()
@with_session
def openapi(session: CommandSession) -> None:
    """Print what describes the management API to machines: OpenAPI 3.1, JSON."""
    echo(as_json(session.client().request("GET", management_path("openapi.json"))))


@click.command()
@with_session
def version(session: CommandSession) -> None:
    """Show which version of llmproxy runs at the URL, and of what it is made."""
    session.show(session.client().request("GET", management_path("version")))
