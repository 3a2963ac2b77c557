"""C{llmproxy usage}: what was used, and what that cost."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from llmproxy.cli.client import management_path
from llmproxy.cli.export import in_place, json_array, with_progress
from llmproxy.cli.output import Columns, as_csv, echo
from llmproxy.cli.project_filter import project_option, project_query
from llmproxy.cli.reconcile import reconcile
from llmproxy.cli.session import CommandSession, with_session

GROUPS = ("project", "group", "token", "api", "model", "day", "month")
NAMES = {"project": "project_id", "group": "group_id", "token": "token_id"}


def _shown(name: str) -> Callable[[Mapping[str, Any]], object]:
    return lambda row: row[name]


def _number(name: str) -> Callable[[Mapping[str, Any]], object]:
    return lambda row: f"{row[name]:,}"


FIGURES: Columns = {
    "REQUESTS": _number("requests"),
    "FAILED": _number("failed"),
    "INPUT": _number("input_tokens"),
    "CACHED": _number("cached_tokens"),
    "OUTPUT": _number("output_tokens"),
    "ESTIMATED": _number("estimated"),
    "UNPRICED": _number("unpriced"),
    "COST USD": lambda row: f"{row['cost_usd']:,.6f}",
}


SINCE = click.option("--from", "since", metavar="DAY", help="From this day on, in UTC: 2026-11-01.")
UNTIL = click.option("--to", "until", metavar="DAY", help="Up to the day before this one.")
PROJECT = project_option("This project's only.")


def _check_span(since: str | None, until: str | None) -> None:
    """C{click.UsageError} where no day can be within; what is no day at all the daemon says."""
    if since and until and len(since) == len(until) and since >= until:
        raise click.UsageError(f"No day is from {since} on and before {until}: --to must be later than --from.")


@click.group()
def usage() -> None:
    """Show what was used, and what that cost."""


@usage.command()
@click.option(
    "--by",
    "groups",
    multiple=True,
    metavar="GROUP",
    shell_complete=lambda context, parameter, begun: [name for name in GROUPS if name.startswith(begun)],
    help=f"Add up by {', '.join(GROUPS)}, or an attribution of the settings; may be given again.  [project]",
)
@SINCE
@UNTIL
@PROJECT
@click.option("--csv", "csv", is_flag=True, help="Print comma-separated values, with a line of headings.")
@with_session
def report(
    session: CommandSession,
    groups: tuple[str, ...],
    since: str | None,
    until: str | None,
    project: str | None,
    csv: bool,
) -> None:
    """Tokens and cost, added up."""
    _check_span(since, until)
    by = tuple(dict.fromkeys(groups)) or ("project",)
    given = {"group_by": ",".join(by), "from": since, "to": until, **project_query(project)}
    found = session.client().list_all(
        management_path("usage"), **{name: value for name, value in given.items() if value}
    )
    if csv:
        told_apart = [
            column for name in by for column in ((NAMES.get(name, name),) if name in GROUPS else (name, "claimed"))
        ]
        names = [*told_apart, *(found["data"][0] if found["data"] else ())]
        echo(as_csv(list(dict.fromkeys(names)), found["data"]), nl=False)
    else:
        columns: dict[str, Callable[[Mapping[str, Any]], object]] = {}
        for name in by:
            columns[name.upper()] = _shown(NAMES.get(name, name))
            if name not in GROUPS:
                columns["CLAIMED"] = _shown("claimed")
        session.show_list(found, {**columns, **FIGURES})


@usage.command()
@click.option(
    "--format",
    "shape",
    type=click.Choice(["focus", "csv", "json"]),
    default="csv",
    show_default=True,
    help="How: FOCUS 1.2, which tools for costs read; comma-separated values; an array of JSON.",
)
@click.option("--by", "groups", multiple=True, metavar="GROUP", help="As for report; FOCUS has rows of its own.")
@SINCE
@UNTIL
@PROJECT
@click.option("--file", "file", type=click.Path(path_type=Path), help="Write it there, not to standard output.")
@with_session
def export(
    session: CommandSession,
    shape: str,
    groups: tuple[str, ...],
    since: str | None,
    until: str | None,
    project: str | None,
    file: Path | None,
) -> None:
    """All of what was used, however much it is, for other programs."""
    if groups and shape == "focus":
        raise click.UsageError("FOCUS has rows of its own: leave --by out.")
    _check_span(since, until)
    client, path = session.client(), management_path("usage")
    by = ",".join(("day", "project", "api", "model") if shape == "focus" else dict.fromkeys(groups or ("project",)))
    span = {name: value for name, value in (("from", since), ("to", until)) if value} | project_query(project)
    total = None
    if file is not None and sys.stderr.isatty():  # only a bar needs it, and only where nothing is printed besides
        total = client.request("GET", f"{path}?{urlencode({**span, 'group_by': by, 'limit': 1})}")["total"]
    if shape == "json":
        parts = json_array(client.pages(path, **span, group_by=by))
    elif shape == "csv":
        parts = client.parts(path, **span, group_by=by, format="csv")
    else:
        parts = client.parts(path, **span, format="focus")
    if file is None:
        for part in parts:
            echo(part, nl=False)
    else:
        in_place(file, with_progress(parts, total))


usage.add_command(reconcile)
