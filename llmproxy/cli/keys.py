"""C{llmproxy key}: management keys, for those who manage."""

from __future__ import annotations

import click

from llmproxy.cli.client import management_path
from llmproxy.cli.names import id_of
from llmproxy.cli.output import Columns
from llmproxy.cli.session import CommandSession, with_session

COLUMNS: Columns = {
    "ID": lambda key: key["id"],
    "NAME": lambda key: key["name"],
    "ROLE": lambda key: key["role"],
    "PROJECTS": lambda key: "all" if key["projects"] is None else ", ".join(key["projects"]),
    "KEY": lambda key: f"{key['prefix']}…",
    "STATE": lambda key: "active" if key["active"] else "revoked",
    "LAST USED": lambda key: key["last_used_at"],
}


@click.group()
def key() -> None:
    """Issue, show and revoke management keys."""


@key.command()
@click.option("--name", required=True, help="What to call it.")
@click.option(
    "--role",
    required=True,
    type=click.Choice(["viewer", "operator", "admin"]),
    help="viewer sees; operator changes projects, tokens and limits too; admin may do all.",
)
@click.option(
    "--project", "projects", multiple=True, metavar="ID|NAME", help="Bind it to this project; may be given again."
)
@with_session
def create(session: CommandSession, name: str, role: str, projects: tuple[str, ...]) -> None:
    """Issue a management key. It is shown this once."""
    client = session.client()
    bound = [id_of(client, "project", project) for project in projects]
    body = {"name": name, "role": role, **({"projects": bound} if bound else {})}
    issued = client.request("POST", management_path("keys"), body)
    session.show_once(issued, "key", f"llmproxy key revoke {issued['id']}")


@key.command("list")
@with_session
def list_(session: CommandSession) -> None:
    """List all management keys."""
    session.show_list(session.client().list_all(management_path("keys")), COLUMNS)


@key.command()
@click.argument("key_id")
@with_session
def show(session: CommandSession, key_id: str) -> None:
    """Show what is known of a management key."""
    session.show(session.client().request("GET", management_path("keys", key_id)))


@key.command()
@click.argument("key_id")
@with_session
def revoke(session: CommandSession, key_id: str) -> None:
    """Revoke a management key, for good."""
    session.client().request("DELETE", management_path("keys", key_id))
    session.show({"revoked": 1})
