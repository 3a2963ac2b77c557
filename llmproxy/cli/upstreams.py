"""C{llmproxy upstream}: the providers, and whether requests are sent to them."""

from __future__ import annotations

import click

from llmproxy.cli.client import management_path
from llmproxy.cli.output import Columns
from llmproxy.cli.session import CommandSession, with_session

COLUMNS: Columns = {
    "API": lambda upstream: upstream["api"],
    "NUMBER": lambda upstream: upstream["number"],
    "URL": lambda upstream: upstream["base_url"],
    "STATE": lambda upstream: upstream["state"],
    "BREAKER": lambda upstream: upstream["breaker"],
    "HEALTH": lambda upstream: upstream["health"],
    "PROBE": lambda upstream: upstream["probe"] or None,
    "IN FLIGHT": lambda upstream: upstream["in_flight"],
    "KEYS OUT": lambda upstream: len(upstream["keys"]),
    "PROJECTS OUT": lambda upstream: upstream["projects_out"],
}


@click.group()
def upstream() -> None:
    """Show providers, and take them out of service."""


NUMBER = click.argument("number", type=click.IntRange(min=0), default=0)


@upstream.command("list")
@with_session
def list_all(session: CommandSession) -> None:
    """Show each API's upstreams: state, breaker, requests under way, keys that are passed over, and
    for how many projects alone it is ejected."""
    session.show_list(session.client().request("GET", management_path("upstreams")), COLUMNS)


@upstream.command()
@click.argument("api")
@NUMBER
@with_session
def drain(session: CommandSession, api: str, number: int) -> None:
    """Send no new requests there; those under way go on. NUMBER is its place in the API's list, from 0."""
    _set(session, api, number, "draining")


@upstream.command()
@click.argument("api")
@NUMBER
@with_session
def disable(session: CommandSession, api: str, number: int) -> None:
    """Send no requests there: it is out of service. NUMBER is its place in the API's list, from 0."""
    _set(session, api, number, "disabled")


@upstream.command()
@click.argument("api")
@NUMBER
@with_session
def enable(session: CommandSession, api: str, number: int) -> None:
    """Send requests there again, with all keys. NUMBER is its place in the API's list, from 0."""
    _set(session, api, number, "enabled")


def _set(session: CommandSession, api: str, number: int, state: str) -> None:
    session.show(session.client().request("POST", management_path("upstreams", api, str(number)), {"state": state}))
