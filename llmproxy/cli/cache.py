"""C{llmproxy cache}: what is kept of providers' responses."""

from __future__ import annotations

from typing import TextIO

import click

from llmproxy.cli.client import management_path
from llmproxy.cli.names import id_of
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
@click.option("--project", metavar="ID|NAME", help="Answers for this project.")
@click.option("--token", help="Answers for this token, with cache.scope: token.")
@click.option("--path", "target", help="Answers to exactly this path and query, as clients send it to the API.")
@click.option("--prefix", help="Answers to every path that begins so.")
@click.option("--method", help="With --path: answers to this method only.")
@click.option(
    "--header",
    "headers",
    multiple=True,
    metavar="NAME=VALUE",
    help="With --path: the answer to exactly the request with these; those that providers act on count.",
)
@click.option("--body", type=click.File("r", encoding="utf-8"), help="Likewise with the body in this file; -: stdin.")
@with_session
def purge(
    session: CommandSession,
    everything: bool,
    target: str | None,
    headers: tuple[str, ...],
    body: TextIO | None,
    **chosen: str | None,
) -> None:
    """Remove responses from the cache, and say how many."""
    client = session.client()
    if chosen["project"]:
        chosen["project"] = id_of(client, "project", chosen["project"])
    given = {
        "all": everything or None,
        "path": target,
        "headers": _fields(headers) or None,
        "body": None if body is None else body.read(),
        **chosen,
    }
    names = {"project": "project_id", "token": "token_id"}
    choice = {names.get(name, name): value for name, value in given.items() if value is not None}
    session.show(client.request("POST", management_path("cache", "purge"), choice))


def _fields(headers: tuple[str, ...]) -> dict[str, str]:
    pairs = [text.partition("=") for text in headers]
    if not all(name and equals for name, equals, _ in pairs):
        raise click.UsageError("A header field is written NAME=VALUE.")
    return {name: value for name, _, value in pairs}
