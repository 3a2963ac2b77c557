"""The C{llmproxy} command: the management API from a shell."""

from __future__ import annotations

import click

from llmproxy.cli.alerts import alert
from llmproxy.cli.apply import apply
from llmproxy.cli.archive import backup, migrate, restore
from llmproxy.cli.audit import audit
from llmproxy.cli.cache import cache
from llmproxy.cli.chat import chat
from llmproxy.cli.completion import completion
from llmproxy.cli.config import config
from llmproxy.cli.daemon import check_config, run
from llmproxy.cli.doctor import doctor
from llmproxy.cli.encryption import rotate_key
from llmproxy.cli.groups import group
from llmproxy.cli.health import health
from llmproxy.cli.imports import import_group
from llmproxy.cli.init import init
from llmproxy.cli.keys import key
from llmproxy.cli.plugins import list_plugins
from llmproxy.cli.projects import project
from llmproxy.cli.reload import reload
from llmproxy.cli.session import DEFAULT_URL, CommandSession, connection_options
from llmproxy.cli.tokens import token
from llmproxy.cli.upstreams import upstream
from llmproxy.cli.usage import usage


@click.group()
@connection_options(url=DEFAULT_URL, output="table", environment=True)
@click.version_option(package_name="llmproxy", prog_name="llmproxy")
@click.pass_context
def main(ctx: click.Context, url: str, management_token_file: str | None, output: str) -> None:
    """Manage a running llmproxy, or run one.

    The management token is taken from --management-token-file, else from LLMPROXY_MANAGEMENT_TOKEN,
    LLMPROXY_MANAGEMENT_TOKEN_FILE, MANAGEMENT_TOKEN, MANAGEMENT_TOKEN_FILE, else from data/management-token.

    Ends with 0, or 1 if the daemon refused, 2 for wrong usage, 69 if it cannot be reached, 77 if the management
    token is missing or wrong, 78 if settings are wrong.
    """
    ctx.obj = CommandSession(url, management_token_file, output)


main.add_command(project)
main.add_command(group)
main.add_command(token)
main.add_command(key)
main.add_command(apply)
main.add_command(alert)
main.add_command(audit)
main.add_command(cache)
main.add_command(usage)
main.add_command(health)
main.add_command(reload)
main.add_command(upstream)
main.add_command(check_config)
main.add_command(config)
main.add_command(list_plugins)
main.add_command(doctor)
main.add_command(chat)
main.add_command(completion)
main.add_command(import_group)
main.add_command(rotate_key)
main.add_command(backup)
main.add_command(restore)
main.add_command(migrate)
main.add_command(init)
main.add_command(run)

__all__ = ["main"]
