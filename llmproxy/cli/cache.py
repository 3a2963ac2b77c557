"""C{llmproxy cache}: what is kept of providers' responses."""

from __future__ import annotations

import click

from llmproxy.cli.client import management_path
from llmproxy.cli.session import CommandSession, with_session


@click.group()
def cache() -> None:
    """Show and empty the response cache."""


@cache.command()
@with_session
def stats(session: CommandSession) -> None:
    """Show what the cache holds and has done."""
    session.show(session.client().request("GET", management_path("cache")))


@cache.command()
@click.option("--all", "everything", is_flag=True, help="Remove everything.")
@click.option("--api", help="Answers of this API.")
@click.option("--project", help="Answers for this project.")
@click.option("--token", help="Answers for this token, with cache.scope: token.")
@click.option("--path", "target", help="Answers to exactly this path and query, as clients send it to the API.")
@click.option("--prefix", help="Answers to every path that begins so.")
@click.option("--method", help="With --path: answers to this method only.")
@with_session
def purge(session: CommandSession, everything: bool, target: str | None, **chosen: str | None) -> None:
    """Remove responses from the cache, and say how many."""
    given = {"all": everything or None, "path": target, **chosen}
    names = {"project": "project_id", "token": "token_id"}
    body = {names.get(name, name): value for name, value in given.items() if value is not None}
    session.show(session.client().request("POST", management_path("cache", "purge"), body))
