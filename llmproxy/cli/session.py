"""What every command that talks to a daemon shares: its options, and how it shows what comes back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import click

from llmproxy.cli.client import ManagementClient, check_url
from llmproxy.cli.errors import OutputFailed
from llmproxy.cli.output import Columns, as_json, card, echo, table
from llmproxy.cli.secret import management_token

DEFAULT_URL = "http://127.0.0.1:8080"
Command = Callable[..., Any]


@dataclass(frozen=True)
class CommandSession:
    """Which daemon, with which token, shown how."""

    url: str = DEFAULT_URL
    token_file: str | None = None
    output: str = "table"

    def client(self) -> ManagementClient:
        return ManagementClient(check_url(self.url), management_token(self.token_file, os.environ))

    def show(self, value: Mapping[str, Any]) -> None:
        """Print one thing."""
        echo(as_json(value) if self.output == "json" else card(value))

    def show_once(self, value: Mapping[str, Any], what: str, remedy: str) -> None:
        """Print one thing with a secret that can never be shown again.

        @param what: What it is, C{token}; C{remedy}: the command to go on with where it could not be printed.
        """
        with naming_lost_secret(what, value["id"], remedy):
            self.show(value)
        click.echo(f"Keep the {what} now: it is not shown again.", err=True)

    def show_list(self, value: Mapping[str, Any], columns: Columns) -> None:
        """Print a list."""
        echo(as_json(value) if self.output == "json" else table(value["data"], columns))


@contextmanager
def naming_lost_secret(what: str, identifier: str, remedy: str) -> Iterator[None]:
    """Where printing fails in here, say of what the secret is lost, and how to go on."""
    try:
        yield
    except OutputFailed as e:
        raise OutputFailed(f"{e.message} The {what} {identifier} is valid, and was not shown. Run: {remedy}") from e


def connection_options(url: str | None, output: str | None, environment: bool) -> Callable[[Command], Command]:
    """The options that name the daemon, with these defaults."""

    def add(command: Command) -> Command:
        for option in (
            click.option(
                "--output", type=click.Choice(["table", "json"]), default=output, help="How to print the answer."
            ),
            click.option(
                "--management-token-file",
                type=click.Path(),
                default=None,
                help="File with the management token, readable by its owner only.",
            ),
            click.option(
                "--url",
                default=url,
                envvar="LLMPROXY_URL" if environment else None,
                help=f"Where the daemon's management API is.  [LLMPROXY_URL; default: {DEFAULT_URL}]",
            ),
        ):
            command = option(command)
        return command

    return add


def with_session(command: Command) -> Command:
    """Give a command a L{CommandSession}; its options may stand before the command's name or after it."""

    @connection_options(url=None, output=None, environment=False)
    @wraps(command)
    def asked(url: str | None, management_token_file: str | None, output: str | None, **given: Any) -> None:
        before = click.get_current_context().find_object(CommandSession) or CommandSession()
        command(
            replace(
                before,
                url=url or before.url,
                token_file=management_token_file or before.token_file,
                output=output or before.output,
            ),
            **given,
        )

    return asked


def output_format(given: str | None) -> str:
    """What a command without a L{CommandSession} prints: as it was told after its name, or else before it."""
    return given or (click.get_current_context().find_object(CommandSession) or CommandSession()).output
