"""C{llmproxy completion}: what makes a shell complete the command's names and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from llmproxy.cli.errors import Misconfigured
from llmproxy.cli.output import echo

VARIABLE = "_LLMPROXY_COMPLETE"  # by which click is asked, from the name of the program


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes llmproxy's commands and options in a shell."""
    kind = get_completion_class(shell)
    if kind is None:
        raise Misconfigured(f"The installed click has no completion for {shell}.")
    echo(kind(click.get_current_context().find_root().command, {}, "llmproxy", VARIABLE).source())
