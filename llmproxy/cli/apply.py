"""C{llmproxy apply}: groups, projects and tokens as a file declares them."""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import click

from llmproxy.cli.apply_check import rejections
from llmproxy.cli.apply_plan import OWNER_FIELDS, CannotPlan, Change, Present, plan
from llmproxy.cli.client import ManagementClient, management_path, printable
from llmproxy.cli.declaration import Declaration, read_declaration
from llmproxy.cli.errors import Misconfigured, RequestRejected
from llmproxy.cli.output import as_json, echo
from llmproxy.cli.session import CommandSession, naming_lost_secret, with_session
from llmproxy.config.problems import SettingsError

COLLECTIONS = {"group": "groups", "project": "projects", "token": "tokens"}
SIGNS = {"create": "+", "update": "~", "remove": "-"}
DONE = {"group": "delete", "project": "deactivate", "token": "revoke"}


@click.command()
@click.option(
    "-f",
    "--file",
    "file",
    required=True,
    type=click.Path(dir_okay=False, allow_dash=True),
    help="What is to be there, in YAML; - for standard input.",
)
@click.option("--dry-run", is_flag=True, help="Show the plan, and change nothing.")
@click.option(
    "--prune",
    is_flag=True,
    help="Remove what is there and not in the file: revoke tokens, deactivate projects, delete groups.",
)
@click.option(
    "--secrets-file",
    type=click.Path(dir_okay=False),
    help="Add new tokens to this file, of mode 0600, and do not print them.",
)
@with_session
def apply(session: CommandSession, file: str, dry_run: bool, prune: bool, secrets_file: str | None) -> None:
    """Make groups, projects and tokens be as a file declares them.

    What there is, is found by its name; what the file does not say of it stays. Shows the plan, then does it. A second
    run changes nothing.
    """
    client = session.client()
    declared = _declaration(client, file)
    present = _present(client, declared)
    try:
        changes = plan(declared, present, prune)
    except CannotPlan as e:
        raise RequestRejected(str(e)) from e
    if wrong := list(rejections(changes, present.apis, present.default_api, time.time())):
        raise Misconfigured("\n".join(map(printable, wrong)))
    as_table = session.output != "json"
    if as_table:
        for change in changes:
            echo(_line(change))
        click.echo(_count(changes, dry_run), err=True)
    issued: list[dict[str, Any]] = []
    done = 0
    try:
        if not dry_run and changes:
            with _secrets(secrets_file) as secrets:
                for token in _made(client, present, changes):
                    done += 1
                    if token is not None:
                        _hand_over(token, secrets, issued, as_table)
    finally:
        if not as_table:
            shown = [asdict(change) for change in changes]
            printed = ", ".join(token["id"] for token in issued if "token" in token)
            with naming_lost_secret("token", printed, "llmproxy token rotate TOKEN_ID") if printed else nullcontext():
                echo(as_json({"changes": shown, "applied": done, "dry_run": dry_run, "tokens": issued}))


def _declaration(client: ManagementClient, file: str) -> Declaration:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise Misconfigured(f"{file} cannot be read: {e}.") from e
    schemas = client.request("GET", management_path("openapi.json"))["components"]["schemas"]
    known = {
        "group": {*schemas["GroupCreate"]["properties"], "parent"} - {"parent_id"},
        "project": {*schemas["ProjectCreate"]["properties"], "group", "tokens"} - {"group_id"},
        "token": set(schemas["TokenCreate"]["properties"]) - {"project_id"},
    }
    try:
        return read_declaration(text, file, known)
    except SettingsError as e:
        raise Misconfigured(str(e)) from e


def _present(client: ManagementClient, declared: Declaration) -> Present:
    groups = client.list_all(management_path("groups"))["data"]
    projects = client.list_all(management_path("projects"))["data"]
    apis = client.request("GET", "/manage/apis")["data"]
    default = next((api["name"] for api in apis if api["default"]), "")
    tokens = {
        project["id"]: client.list_all(management_path("tokens"), project_id=project["id"])["data"]
        for project in projects
        if project["name"] in declared.with_tokens
    }
    return Present(groups, projects, tokens, default, frozenset(api["name"] for api in apis))


def _made(client: ManagementClient, present: Present, changes: list[Change]) -> Iterator[dict[str, Any] | None]:
    """Make each change; what is issued, where it is a token."""
    groups = {group["name"]: group["id"] for group in present.groups}
    projects = {project["name"]: project["id"] for project in sorted(present.projects, key=lambda each: each["active"])}
    for change in changes:
        try:
            made = _call(client, change, groups, projects)
        except RequestRejected as e:
            raise RequestRejected(f"{change.action} {change.kind} {printable(change.name)}: {e.message}") from e
        if change.action == "create" and change.kind in ("group", "project"):
            (groups if change.kind == "group" else projects)[change.name] = made["id"]
        is_token = change.action == "create" and change.kind == "token"
        yield (
            {"project": change.owner, "name": change.name, "id": made["id"], "token": made["token"]}
            if is_token
            else None
        )


def _call(client: ManagementClient, change: Change, groups: Mapping[str, str], projects: Mapping[str, str]) -> Any:
    collection = COLLECTIONS[change.kind]
    if change.action == "remove" and change.kind != "project":
        return client.request("DELETE", management_path(collection, change.id))
    body = dict(change.fields)
    if change.owner is not None:
        body[OWNER_FIELDS[change.kind]] = (projects if change.kind == "token" else groups).get(change.owner)
    if change.action == "create":
        return client.request("POST", management_path(collection), {"name": change.name, **body})
    return client.request("PATCH", management_path(collection, change.id), body)


@contextmanager
def _secrets(path: str | None) -> Iterator[IO[str] | None]:
    """The file for new tokens, opened before any is issued; C{None} where they are to be printed."""
    if path is None:
        yield None
        return
    try:
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as e:
        raise Misconfigured(f"{path} cannot be written: {e.strerror}.") from e
    with open(opened, "a", encoding="utf-8") as file:
        if stat.S_IMODE(os.fstat(opened).st_mode) & 0o077:
            raise Misconfigured(f"{path} is open to others than its owner. Run: chmod 600 {path}")
        yield file


def _hand_over(token: dict[str, Any], secrets: IO[str] | None, issued: list[dict[str, Any]], printed: bool) -> None:
    """Each as soon as there is one: a later change may fail."""
    if secrets is not None:
        secrets.write(json.dumps(token, ensure_ascii=False) + "\n")
        secrets.flush()
        os.fsync(secrets.fileno())
        issued.append({name: value for name, value in token.items() if name != "token"})
    else:
        issued.append(token)
        if printed:
            with naming_lost_secret("token", token["id"], f"llmproxy token rotate {token['id']}"):
                echo(f"{printable(token['project'])}/{printable(token['name'])}  {token['token']}")
            click.echo("Keep the token now: it is not shown again.", err=True)


def _line(change: Change) -> str:
    name = f"{change.owner}/{change.name}" if change.kind == "token" and change.action == "create" else change.name
    action = DONE[change.kind] if change.action == "remove" else change.action
    told = [f"{field}: {_told(change.before.get(field))} -> {_told(value)}" for field, value in change.fields.items()]
    if change.action == "create":
        told = [f"{field}: {_told(value)}" for field, value in change.fields.items()]
    elif change.action == "remove":
        told = []
    if change.owner is not None and change.kind != "token":
        told.append(f"group: {change.before.get('group') or 'none'} -> {change.owner or 'none'}")
    return printable(f"{SIGNS[change.action]} {action} {change.kind} {name}{'  ' if told else ''}{', '.join(told)}")


def _told(value: Any) -> str:
    return "none" if value in (None, [], {}) else json.dumps(value, ensure_ascii=False)


def _count(changes: list[Change], dry_run: bool) -> str:
    if not changes:
        return "All is as declared: nothing to change."
    counts = {action: sum(change.action == action for change in changes) for action in SIGNS}
    said = ", ".join(f"{count} to {action}" for action, count in counts.items() if count)
    return f"{said}. Nothing was changed." if dry_run else f"{said}."
