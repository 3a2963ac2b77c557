"""C{llmproxy run} and C{llmproxy check-config}: the daemon itself, and its settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial

import click

DEFAULT_SETTINGS = "etc/apis.yaml"
TWISTD_CODE = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"


@click.command("check-config")
@click.argument("path", default=DEFAULT_SETTINGS)
def check_config(path: str) -> None:
    """Check a settings file, and report all that is wrong with it."""
    # Not before: to become the daemon, nothing of it is needed.
    from twisted.internet import reactor

    from llmproxy.cli.output import echo
    from llmproxy.config.load import check_report
    from llmproxy.process.start_checks import start_problems

    code, text = check_report(path, os.environ, further=partial(start_problems, reactor=reactor))
    click.echo(text, err=True) if code else echo(text)
    sys.exit(code)


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--config", default=DEFAULT_SETTINGS, show_default=True, help="The settings file.")
@click.argument("twistd_args", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF twistd llmproxy]")
def run(config: str, twistd_args: tuple[str, ...]) -> None:
    """Run the daemon in the foreground, as twistd -n llmproxy does.

    Where there is no settings file, it offers to write one, on a terminal.
    """
    if not os.path.exists(config) and not {"--help", "--version"} & set(twistd_args):
        _set_up(config)
    os.execv(sys.executable, twistd_command(config, twistd_args))


def _set_up(config: str) -> None:
    """Write the settings that are not there, if somebody is there who wants that; else say how, and end with 1."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        click.echo(f"There is no settings file {config}. Make one with: llmproxy init --config {config}", err=True)
        sys.exit(1)
    click.confirm(f"There is no settings file {config}. Write one now?", default=True, abort=True, err=True)
    context = click.get_current_context()
    parent = context.find_root().command
    assert isinstance(parent, click.Group)
    context.invoke(parent.commands["init"], config=config)


def twistd_command(config: str, further: Sequence[str]) -> list[str]:
    """The command that the process becomes: this interpreter's twistd, without a pid file in the current directory."""
    return [sys.executable, "-P", "-c", TWISTD_CODE, "-n", "--pidfile=", "llmproxy", "--config", config, *further]
