"""C{llmproxy group}: groups of projects, whose limits hold for all below them together."""

from __future__ import annotations

from typing import Any

import click

from llmproxy.cli.client import management_path
from llmproxy.cli.limits import limit_options, limit_values, remove_limit_option
from llmproxy.cli.list_filters import SEARCH, list_query
from llmproxy.cli.names import id_of
from llmproxy.cli.output import Columns
from llmproxy.cli.session import CommandSession, with_session

COLUMNS: Columns = {
    "ID": lambda group: group["id"],
    "NAME": lambda group: group["name"],
    "PARENT": lambda group: group["parent_id"],
    "PROJECTS": lambda group: group["projects"],
    "BUDGET": lambda group: group["budget_usd"],
}


GROUP = click.argument("group_id", metavar="ID|NAME")


@click.group()
def group() -> None:
    """Create, show and change groups of projects."""


@group.command()
@click.option("--name", required=True, help="What to call it.")
@click.option("--parent", metavar="ID|NAME", help="The group that it belongs to.")
@limit_options
@with_session
def create(session: CommandSession, name: str, parent: str | None, **options: Any) -> None:
    """Create a group."""
    client = session.client()
    body = {"name": name, "parent_id": parent and id_of(client, "group", parent), **limit_values(options)}
    session.show(client.request("POST", management_path("groups"), body))


@group.command("list")
@SEARCH
@with_session
def list_(session: CommandSession, search: str | None) -> None:
    """List all groups, or some."""
    session.show_list(session.client().list_all(management_path("groups"), **list_query(search=search)), COLUMNS)


@group.command()
@GROUP
@with_session
def show(session: CommandSession, group_id: str) -> None:
    """Show a group, and how its limits stand."""
    client = session.client()
    session.show(client.request("GET", management_path("groups", id_of(client, "group", group_id))))


@group.command()
@GROUP
@click.option("--name", help="What to call it from now on.")
@click.option("--parent", metavar="ID|NAME", help="The group that it belongs to from now on.")
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
    client = session.client()
    body = limit_values(options, lifted)
    if name is not None:
        body["name"] = name
    if parent is not None or no_parent:
        body["parent_id"] = None if no_parent else id_of(client, "group", parent or "")
    if not body:
        raise click.UsageError("Name what is to change.")
    session.show(client.request("PATCH", management_path("groups", id_of(client, "group", group_id)), body))


@group.command()
@GROUP
@with_session
def delete(session: CommandSession, group_id: str) -> None:
    """Remove a group that has no projects and no groups."""
    client = session.client()
    removed = id_of(client, "group", group_id)
    client.request("DELETE", management_path("groups", removed))
    session.show({"deleted": removed})
