"""C{llmproxy token}: what clients present instead of a provider key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from llmproxy.cli.client import management_path
from llmproxy.cli.limits import LIMIT_NAMES, limit_options, limit_values, remove_limit_option
from llmproxy.cli.list_filters import ACTIVE, SEARCH, list_query
from llmproxy.cli.names import id_of
from llmproxy.cli.notes import LABEL, METADATA, WITH_LABEL, notes
from llmproxy.cli.output import Columns
from llmproxy.cli.policies import (
    LIFTED_POLICIES,
    POLICY_FIELDS,
    policy_options,
    policy_values,
    remove_rule_option,
)
from llmproxy.cli.project_filter import project_option, project_query
from llmproxy.cli.session import CommandSession, with_session


def _used(token: Mapping[str, Any]) -> str:
    limit = "" if token["max_requests"] is None else f"/{token['max_requests']}"
    return f"{token['request_count']}{limit}"


COLUMNS: Columns = {
    "ID": lambda token: token["id"],
    "PROJECT": lambda token: token["project_id"],
    "NAME": lambda token: token["name"] or None,
    "TOKEN": lambda token: f"{token['prefix']}…",
    "STATE": lambda token: token["state"].replace("_", " "),
    "REQUESTS": _used,
    "EXPIRES": lambda token: token["expires_at"],
    "LAST USED": lambda token: token["last_used_at"],
}


_RULES = (
    click.option("--name", help="What to call it."),
    click.option(
        "--expires-in", metavar="SPAN", help="How long it is valid: 24h, 30d, 1h30m. Left out: until revoked."
    ),
    click.option("--expires-at", metavar="TIME", help="Valid until then, RFC 3339: 2027-01-31T12:00:00Z."),
    click.option("--max-requests", type=click.IntRange(min=1), help="Requests allowed in its lifetime."),
    LABEL,
    METADATA,
)
# What lifts each of them, in the management API's words.
_LIFTED: Mapping[str, tuple[str, Any]] = {
    "expiry": ("expires_at", None),
    "max-requests": ("max_requests", None),
    **LIFTED_POLICIES,
    "labels": ("labels", []),
    "metadata": ("metadata", {}),
}


def rule_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say what a token allows."""
    command = policy_options(command)
    for option in reversed(_RULES):
        command = option(command)
    return command


@click.group()
def token() -> None:
    """Issue, show and revoke tokens."""


@token.command()
@click.option("--project", "project_id", required=True, metavar="ID|NAME", help="The project it belongs to.")
@rule_options
@limit_options
@with_session
def create(session: CommandSession, **options: Any) -> None:
    """Issue a token. It is shown this once."""
    body = _given(options) | limit_values(options) | policy_values(options) | notes(options)
    client = session.client()
    body["project_id"] = id_of(client, "project", body["project_id"])
    issued = client.request("POST", management_path("tokens"), body)
    session.show_once(issued, "token", f"llmproxy token revoke {issued['id']}")


@token.command()
@click.argument("token_id")
@rule_options
@remove_rule_option(list(_LIFTED))
@limit_options
@remove_limit_option
@with_session
def update(
    session: CommandSession, token_id: str, unruled: tuple[str, ...], lifted: tuple[str, ...], **options: Any
) -> None:
    """Change what a token allows; what is not named stays."""
    body = dict(_LIFTED[name] for name in unruled) | limit_values(options, lifted)
    body |= _given(options) | policy_values(options) | notes(options)
    if not body:
        raise click.UsageError("Name what is to change.")
    session.show(session.client().request("PATCH", management_path("tokens", token_id), body))


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """What else of the options is given."""
    elsewhere = (*LIMIT_NAMES.values(), *POLICY_FIELDS, "labels", "metadata")
    return {name: value for name, value in options.items() if name not in elsewhere and value is not None}


@token.command()
@click.argument("token_id")
@click.option("--grace", default="24h", show_default=True, metavar="SPAN", help="How long the old secret stays valid.")
@with_session
def rotate(session: CommandSession, token_id: str, grace: str) -> None:
    """Give a token another secret, shown this once; both are valid for a while."""
    rotated = session.client().request("POST", management_path("tokens", token_id, "rotate"), {"grace": grace})
    session.show_once(rotated, "token", f"llmproxy token rotate {token_id}")


@token.command("list")
@project_option("This project's only.")
@ACTIVE
@SEARCH
@WITH_LABEL
@with_session
def list_(
    session: CommandSession, project: str | None, active: bool | None, search: str | None, labels: tuple[str, ...]
) -> None:
    """List all tokens, or some."""
    query = project_query(project) | list_query(active, search)
    found = session.client().list_all(management_path("tokens"), **query, label=labels)
    session.show_list(found, COLUMNS)


@token.command()
@click.argument("token_id")
@with_session
def show(session: CommandSession, token_id: str) -> None:
    """Show what is known of a token."""
    session.show(session.client().request("GET", management_path("tokens", token_id)))


@token.command()
@click.argument("token_id", required=False)
@click.option("--project", "project_id", metavar="ID|NAME", help="Revoke all tokens of this project.")
@with_session
def revoke(session: CommandSession, token_id: str | None, project_id: str | None) -> None:
    """Revoke a token, or all of a project, for good."""
    if (token_id is None) == (project_id is None):
        raise click.UsageError("Name either a token's id or --project.")
    client = session.client()
    if project_id is not None:
        of_project = id_of(client, "project", project_id)
        session.show(client.request("POST", management_path("projects", of_project, "tokens", "revoke")))
    else:
        client.request("DELETE", management_path("tokens", token_id or ""))
        session.show({"revoked": 1})
