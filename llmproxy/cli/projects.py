"""C{llmproxy project}: the owners of provider keys."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import click

from llmproxy.cli.client import management_path
from llmproxy.cli.limits import limit_options, limit_values, remove_limit_option
from llmproxy.cli.list_filters import ACTIVE, SEARCH, list_query
from llmproxy.cli.names import id_of
from llmproxy.cli.notes import LABEL, METADATA, WITH_LABEL, notes
from llmproxy.cli.output import Columns
from llmproxy.cli.policies import LIFTED_POLICIES, policy_options, policy_values, remove_rule_option
from llmproxy.cli.secret import KEY_SOURCES, key_reference, provider_keys
from llmproxy.cli.session import CommandSession, with_session

COLUMNS: Columns = {
    "ID": lambda project: project["id"],
    "NAME": lambda project: project["name"],
    "ACTIVE": lambda project: project["active"],
    "KEYS": lambda project: project["api_keys"],
    "CREATED": lambda project: project["created_at"],
}
PROJECT = click.argument("project_id", metavar="ID|NAME")
KEY = click.option(
    "--api-key",
    "api_keys",
    multiple=True,
    metavar="[API=]SOURCE",
    help=f"A provider key; without API, for the default API; several times for several keys. SOURCE is {KEY_SOURCES}.",
)
REFERENCE = click.option(
    "--api-key-ref",
    "references",
    multiple=True,
    metavar="[API=]REFERENCE",
    help="Where the daemon finds a provider key: env:NAME, file:/path, or a plugin's. Nothing but that is stored.",
)


# What lifts each rule, in the management API's words.
_LIFTED: Mapping[str, tuple[str, Any]] = {**LIFTED_POLICIES, "labels": ("labels", []), "metadata": ("metadata", {})}


@click.group()
def project() -> None:
    """Create, show and change projects."""


@project.command()
@click.option("--name", required=True, help="What to call it.")
@KEY
@REFERENCE
@click.option("--group", "group_id", metavar="ID|NAME", help="The group that it belongs to.")
@policy_options
@LABEL
@METADATA
@limit_options
@with_session
def create(
    session: CommandSession,
    name: str,
    api_keys: tuple[str, ...],
    references: tuple[str, ...],
    group_id: str | None,
    **options: Any,
) -> None:
    """Create a project."""
    body = {
        "name": name,
        **_keys(api_keys, references),
        **limit_values(options),
        **policy_values(options),
        **notes(options),
    }
    client = session.client()
    if group_id is not None:
        body["group_id"] = id_of(client, "group", group_id)
    session.show(client.request("POST", management_path("projects"), body))


@project.command("list")
@ACTIVE
@SEARCH
@WITH_LABEL
@with_session
def list_(session: CommandSession, active: bool | None, search: str | None, labels: tuple[str, ...]) -> None:
    """List all projects, or some."""
    query = list_query(active, search)
    session.show_list(session.client().list_all(management_path("projects"), **query, label=labels), COLUMNS)


@project.command()
@PROJECT
@with_session
def show(session: CommandSession, project_id: str) -> None:
    """Show one project."""
    client = session.client()
    session.show(client.request("GET", management_path("projects", id_of(client, "project", project_id))))


@project.command()
@PROJECT
@click.option("--name", help="What to call it from now on.")
@KEY
@REFERENCE
@click.option("--remove-api-key", "removed", multiple=True, metavar="API", help="Forget the provider key for this API.")
@click.option("--group", "group_id", metavar="ID|NAME", help="The group that it belongs to from now on.")
@click.option("--no-group", is_flag=True, help="Let it belong to none.")
@policy_options
@LABEL
@METADATA
@limit_options
@remove_limit_option
@remove_rule_option(list(_LIFTED))
@with_session
def update(
    session: CommandSession,
    project_id: str,
    name: str | None,
    api_keys: tuple[str, ...],
    references: tuple[str, ...],
    removed: tuple[str, ...],
    group_id: str | None,
    no_group: bool,
    lifted: tuple[str, ...],
    unruled: tuple[str, ...],
    **options: Any,
) -> None:
    """Rename a project, or change its provider keys, its limits or which requests it allows."""
    body: dict[str, Any] = dict(_LIFTED[name] for name in unruled)
    body |= _keys(api_keys, references) | limit_values(options, lifted) | policy_values(options) | notes(options)
    if removed:
        body["api_keys"] = body.get("api_keys", {}) | dict.fromkeys(removed)
    if name is not None:
        body["name"] = name
    if group_id is not None or no_group:
        body["group_id"] = None if no_group else id_of(session.client(), "group", group_id or "")
    if not body:
        raise click.UsageError("Name what is to change.")
    _change(session, project_id, body)


@project.command()
@PROJECT
@with_session
def activate(session: CommandSession, project_id: str) -> None:
    """Let a project's tokens be used again."""
    _change(session, project_id, {"active": True})


@project.command()
@PROJECT
@with_session
def deactivate(session: CommandSession, project_id: str) -> None:
    """Stop all use of a project's tokens immediately."""
    _change(session, project_id, {"active": False})


def _change(session: CommandSession, project_id: str, body: Mapping[str, object]) -> None:
    client = session.client()
    session.show(client.request("PATCH", management_path("projects", id_of(client, "project", project_id)), body))


def _keys(given: tuple[str, ...], references: tuple[str, ...]) -> dict[str, Any]:
    keys = provider_keys(given, os.environ, sys.stdin, _prompt)
    for api, reference in map(key_reference, references):
        if api in keys:
            raise click.UsageError(f"{api or 'The default API'} is given two keys.")
        keys[api] = reference
    default = {"api_key": keys.pop("")} if "" in keys else {}
    return {**default, "api_keys": keys} if keys else default


def _prompt(text: str) -> str:
    return str(click.prompt(text, hide_input=True, err=True))
