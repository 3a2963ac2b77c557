"""C{llmproxy upstream}: the providers, and whether requests are sent to them."""

from __future__ import annotations

import click

from llmproxy.cli.client import management_path
from llmproxy.cli.session import CommandSession, with_session


@click.group()
def upstream() -> None:
    """Show providers, and take them out of service."""


@upstream.command("list")
@with_session
def list_all(session: CommandSession) -> None:
    """Show each API's provider: its state, its breaker, requests under way."""
    session.show(session.client().request("GET", management_path("upstreams")))


@upstream.command()
@click.argument("api")
@with_session
def drain(session: CommandSession, api: str) -> None:
    """Send no new requests there; those under way go on."""
    _set(session, api, "draining")


@upstream.command()
@click.argument("api")
@with_session
def enable(session: CommandSession, api: str) -> None:
    """Send requests there again."""
    _set(session, api, "enabled")


def _set(session: CommandSession, api: str, state: str) -> None:
    session.show(session.client().request("POST", management_path("upstreams", api, "0"), {"state": state}))
