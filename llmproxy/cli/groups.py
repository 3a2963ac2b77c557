"""C{llmproxy group}: groups of projects, whose limits hold for all below them together."""

from __future__ import annotations

from typing import Any

import click

from llmproxy.cli.client import management_path
from llmproxy.cli.limits import limit_options, limit_values, remove_limit_option
from llmproxy.cli.output import Columns
from llmproxy.cli.session import CommandSession, with_session

COLUMNS: Columns = {
    "ID": lambda group: group["id"],
    "NAME": lambda group: group["name"],
    "PARENT": lambda group: group["parent_id"],
    "PROJECTS": lambda group: group["projects"],
    "BUDGET": lambda group: group["budget_usd"],
}


@click.group()
def group() -> None:
    """Create, show and change groups of projects."""


@group.command()
@click.option("--name", required=True, help="What to call it.")
@click.option("--parent", metavar="ID", help="The group that it belongs to.")
@limit_options
@with_session
def create(session: CommandSession, name: str, parent: str | None, **options: Any) -> None:
    """Create a group."""
    body = {"name": name, "parent_id": parent, **limit_values(options)}
    session.show(session.client().request("POST", management_path("groups"), body))


@group.command("list")
@with_session
def list_(session: CommandSession) -> None:
    """List all groups."""
    session.show_list(session.client().list_all(management_path("groups")), COLUMNS)


@group.command()
@click.argument("group_id")
@with_session
def show(session: CommandSession, group_id: str) -> None:
    """Show a group, and how its limits stand."""
    session.show(session.client().request("GET", management_path("groups", group_id)))


@group.command()
@click.argument("group_id")
@click.option("--name", help="What to call it from now on.")
@click.option("--parent", metavar="ID", help="The group that it belongs to from now on.")
@click.option("--no-parent", is_flag=True, help="Let it belong to none.")
@limit_options
@remove_limit_option
@with_session
def update(
    session: CommandSession,
    group_id: str,
    name: str | None,
    parent: str | None,
    no_parent: bool,
    lifted: tuple[str, ...],
    **options: Any,
) -> None:
    """Rename a group, move it, or change its limits; what is not named stays."""
    body = limit_values(options, lifted)
    if name is not None:
        body["name"] = name
    if parent is not None or no_parent:
        body["parent_id"] = None if no_parent else parent
    if not body:
        raise click.UsageError("Name what is to change.")
    session.show(session.client().request("PATCH", management_path("groups", group_id), body))


@group.command()
@click.argument("group_id")
@with_session
def delete(session: CommandSession, group_id: str) -> None:
    """Remove a group that has no projects and no groups."""
    session.client().request("DELETE", management_path("groups", group_id))
    session.show({"deleted": group_id})
