"""The C{llmproxy} command: the management API from a shell."""

from __future__ import annotations

import click

from llmproxy.cli.late_group import CommandPlace, LateGroup
from llmproxy.cli.session import DEFAULT_URL, CommandSession, connection_options

PLACES = {
    "project": CommandPlace("llmproxy.cli.projects", "project", "Create, show and change projects."),
    "group": CommandPlace("llmproxy.cli.groups", "group", "Create, show and change groups of projects."),
    "token": CommandPlace("llmproxy.cli.tokens", "token", "Issue, show and revoke tokens."),
    "key": CommandPlace("llmproxy.cli.keys", "key", "Issue, show and revoke management keys."),
    "subject": CommandPlace(
        "llmproxy.cli.subjects", "subject", "Refuse the JWTs of somebody whom an identity provider knows."
    ),
    "session": CommandPlace(
        "llmproxy.cli.sessions", "admin_session", "Show who is signed in to the admin pages, and end that."
    ),
    "apply": CommandPlace(
        "llmproxy.cli.apply", "apply", "Make groups, projects and tokens be as a file declares them."
    ),
    "audit": CommandPlace("llmproxy.cli.audit", "audit", "Read the audit log, and verify it."),
    "cache": CommandPlace("llmproxy.cli.cache", "cache", "Show and empty the response cache."),
    "usage": CommandPlace("llmproxy.cli.usage", "usage", "Show what was used, and what that cost."),
    "health": CommandPlace("llmproxy.cli.health", "health", "Say whether the daemon is ready; it takes no token."),
    "reload": CommandPlace(
        "llmproxy.cli.reload", "reload", "Have the daemon read its settings again, and say what has changed."
    ),
    "api": CommandPlace(
        "llmproxy.cli.apis", "api", "The APIs that are configured, and what requests are attributed to."
    ),
    "openapi": CommandPlace(
        "llmproxy.cli.apis", "openapi", "Print what describes the management API to machines: OpenAPI 3.1, JSON."
    ),
    "version": CommandPlace(
        "llmproxy.cli.apis", "version", "Show which version of llmproxy runs at the URL, and of what it is made."
    ),
    "upstream": CommandPlace("llmproxy.cli.upstreams", "upstream", "Show providers, and take them out of service."),
    "check-config": CommandPlace(
        "llmproxy.cli.daemon", "check_config", "Check a settings file, and report all that is wrong with it."
    ),
    "config": CommandPlace("llmproxy.cli.config", "config", "Show the settings."),
    "plugins": CommandPlace(
        "llmproxy.cli.plugins",
        "list_plugins",
        "List the plugins that are installed here, by the setting that names them.",
    ),
    "doctor": CommandPlace(
        "llmproxy.cli.doctor",
        "doctor",
        "Check all that the daemon needs: settings, files, store, Redis, providers and their keys, clock, descriptors.",
    ),
    "chat": CommandPlace(
        "llmproxy.cli.chat",
        "chat",
        "Chat through the proxy. Each line of input is a message; an empty line or Ctrl-D ends it.",
    ),
    "completion": CommandPlace(
        "llmproxy.cli.completion",
        "completion",
        "Print the script that completes llmproxy's commands and options in a shell.",
    ),
    "import": CommandPlace(
        "llmproxy.cli.imports",
        "import_group",
        "Enter what export has written into another database, or take over what another proxy was set to.",
    ),
    "rotate-key": CommandPlace(
        "llmproxy.cli.encryption",
        "rotate_key",
        "Seal everything in the database with a new encryption key. Daemons need not stop.",
    ),
    "backup": CommandPlace(
        "llmproxy.cli.archive",
        "backup",
        "Write all that is stored into one file: the database as it is at one moment, and the journals.",
    ),
    "restore": CommandPlace(
        "llmproxy.cli.archive",
        "restore",
        "Bring back what backup has written, into the database that the settings name: SQLite or PostgreSQL.",
    ),
    "export": CommandPlace(
        "llmproxy.cli.archive", "export", "Write all that is stored into one file, to import it into another database."
    ),
    "migrate": CommandPlace("llmproxy.cli.migrate", "migrate", "Show and upgrade the schema of the database."),
    "alert": CommandPlace("llmproxy.cli.alerts", "alert", "What was alerted of budgets."),
    "request": CommandPlace("llmproxy.cli.requests", "request", "The last requests."),
    "activity": CommandPlace(
        "llmproxy.cli.activity",
        "activity",
        "Requests, tokens and cost over a period; or, by project, API or model, what most was spent on.",
    ),
    "log-level": CommandPlace(
        "llmproxy.cli.log_level",
        "log_level",
        "Show how much the daemon and its workers log, or change that until the next start.",
    ),
    "init": CommandPlace(
        "llmproxy.cli.init",
        "init",
        "Set up llmproxy for the first time: settings, state directory, keys, and a first project with a token.",
    ),
    "run": CommandPlace("llmproxy.cli.daemon", "run", "Run the daemon in the foreground, as twistd -n llmproxy does."),
}


@click.group(cls=LateGroup, places=PLACES)
@connection_options(url=DEFAULT_URL, output="table", environment=True)
@click.version_option(package_name="llmproxy", prog_name="llmproxy")
@click.pass_context
def main(ctx: click.Context, url: str, management_token_file: str | None, output: str) -> None:
    """Manage a running llmproxy, or run one.

    The management token is taken from --management-token-file, else from LLMPROXY_MANAGEMENT_TOKEN,
    LLMPROXY_MANAGEMENT_TOKEN_FILE, MANAGEMENT_TOKEN, MANAGEMENT_TOKEN_FILE, else from data/management-token.

    Ends with 0, or 1 if the daemon refused, 2 for wrong usage, 69 if it cannot be reached, 74 if the output cannot be
    written, 77 if the management token is missing or wrong, 78 if settings are wrong.
    """
    ctx.obj = CommandSession(url, management_token_file, output)


__all__ = ["main"]
