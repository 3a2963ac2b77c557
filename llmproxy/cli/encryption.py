"""C{llmproxy rotate-key}: another encryption key takes the place of the one that there is, while requests go on."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import click
from sqlalchemy import Engine

from llmproxy.cli.daemon import DEFAULT_SETTINGS
from llmproxy.cli.output import echo
from llmproxy.cli.store_errors import store_errors
from llmproxy.composition.own_secrets import encryption_key_file
from llmproxy.config.load import load, read_private
from llmproxy.config.model import Settings
from llmproxy.config.secret_variables import secret
from llmproxy.keyring import Keyring, parse_keys
from llmproxy.store.data_keys import drop_unreadable_creations, old_rows, seal_anew
from llmproxy.store.engines import parse_store_url, sqlite_path, upgrade_engine
from llmproxy.store.secrets import replace_secret

CONNECT_SECONDS = 10.0
SETTLE_SECONDS = 6.0  # more than a daemon's writes to the store may take
MAX_PASSES = 10


def encryption_keys(settings: Settings, environ: Mapping[str, str]) -> str:
    """The encryption keys as the daemon would find them, one on each line; L{OSError} or L{ValueError} where not."""
    given = secret(environ, "ENCRYPTION_KEY", read_private)
    if given:
        return given.strip()
    path = Path(settings.state_dir) / "encryption-key"
    mode, text = read_private(str(path))
    if mode & 0o077:
        raise ValueError(f"{path} is open to others than its owner. Run: chmod 600 {path}")
    return text.strip()


@click.command("rotate-key")
@click.option("--config", default=DEFAULT_SETTINGS, show_default=True, help="The settings file.")
def rotate_key(config: str) -> None:
    """Seal everything in the database with a new encryption key. Daemons need not stop.

    Where the key is in a file, a new one is made and put before the old one, which goes when nothing needs it any more.
    Where the environment has it, put the new key on a line before the old one, restart the daemons, then run this.

    Ends with 0 when all is sealed with the new key, with 78 where it cannot be done. May be run again.
    """
    with store_errors():
        settings = load(config, os.environ)
        keys = parse_keys(encryption_keys(settings, os.environ))
        file = encryption_key_file(settings, os.environ)
        url = parse_store_url(settings.store.url)
        if (database := sqlite_path(url)) is not None and not database.exists():
            raise ValueError(f"There is no database {database}.")
        engine = upgrade_engine(url, CONNECT_SECONDS)
        try:
            _check(engine, keys)
            if len(keys) == 1:
                keys = _with_new(keys, file)
            _seal_all(engine, Keyring(keys))
        finally:
            engine.dispose()
        if file is None:
            echo("All is sealed with the first key. Take the other lines out of ENCRYPTION_KEY, and restart.")
        else:
            replace_secret(file, keys[0])
            echo(f"All is sealed with the new key. {file} has only that now: keep a copy, and drop old copies.")


def _check(engine: Engine, keys: tuple[str, ...]) -> None:
    """L{CannotOpen} where the keys that we have do not open what there is: then nothing has been changed."""
    with engine.connect() as connection:
        rows = old_rows(connection, Keyring(keys))
    for row in drop_unreadable_creations(engine, rows):
        row.sealer.open(row.sealed, *row.context)


def _with_new(keys: tuple[str, ...], file: Path | None) -> tuple[str, ...]:
    if file is None:
        raise ValueError(
            "ENCRYPTION_KEY has one key only. Put a new one on a line before it, restart the daemons with both, and "
            "run this again with both."
        )
    found = (secrets.token_urlsafe(32), *keys)
    replace_secret(file, "\n".join(found))
    click.echo(f"A new key stands first in {file}.", err=True)
    return found


def _seal_all(engine: Engine, keyring: Keyring) -> None:
    """Until nothing is left that another key has sealed, also by writes that were under way when the new key came."""
    begun = time.monotonic()
    for _ in range(MAX_PASSES):
        with engine.connect() as connection:
            rows = old_rows(connection, keyring)
        if rows:
            with click.progressbar(length=len(rows), label="Sealing", file=sys.stderr) as progress:
                for count in seal_anew(engine, rows):
                    progress.update(count)
        elif (wait := SETTLE_SECONDS - (time.monotonic() - begun)) > 0:
            time.sleep(wait)
        else:
            return
    raise ValueError("Somebody goes on sealing with the old key: a daemon that does not know the new one. Restart it.")
