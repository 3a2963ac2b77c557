"""C{llmproxy migrate}: the schema of the database."""

from __future__ import annotations

import os
import sys

import click

from llmproxy.cli.archive import CONFIG
from llmproxy.cli.encryption import CONNECT_SECONDS
from llmproxy.cli.output import echo
from llmproxy.cli.store_errors import store_errors
from llmproxy.config.load import load
from llmproxy.store.engines import parse_store_url, sqlite_path, upgrade_engine
from llmproxy.store.migrate import SCRIPTS, newest_revision, prepare, stored_revisions
from llmproxy.store.sqlite_file import refuse_foreign


@click.group()
def migrate() -> None:
    """Show and upgrade the schema of the database."""


@migrate.command("status")
@CONFIG
def status(config: str) -> None:
    """Show the revision of the database, and that of this llmproxy.

    Ends with 0 where they are the same, with 1 where the next start would upgrade it, with 78 where it is unknown.
    """
    with store_errors():
        url = parse_store_url(load(config, os.environ).store.url)
        file = sqlite_path(url)
        stored: tuple[str, ...] = ()
        if file is not None:
            refuse_foreign(file)
        if file is None or file.exists():
            engine = upgrade_engine(url, CONNECT_SECONDS)
            try:
                with engine.connect() as connection:
                    stored = stored_revisions(connection)
            finally:
                engine.dispose()
        newest = newest_revision(SCRIPTS)
        echo(f"database: {', '.join(stored) or 'new'}\nllmproxy: {newest}")
    sys.exit(0 if stored == (newest,) else 1)


@migrate.command("upgrade")
@CONFIG
def upgrade(config: str) -> None:
    """Upgrade the database to the revision of this llmproxy, as a start does; a SQLite file is copied first."""
    with store_errors():
        prepare(parse_store_url(load(config, os.environ).store.url), lambda connection: None, timeout=CONNECT_SECONDS)
        echo(f"The database is at revision {newest_revision(SCRIPTS)}.")
