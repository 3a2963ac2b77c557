"""C{llmproxy backup}, C{restore}, C{export} and C{import}: all that is stored in one file, and back into any database.

Export and import are for a move: they name the database, which must be empty, and never touch the encryption key.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from sqlalchemy import Connection
from sqlalchemy.engine import URL

from llmproxy.cli.archive_file import (
    KEY_NAME,
    DatabaseInUse,
    Manifest,
    put_file,
    restored_journals,
    restored_tables,
    unpack,
    write_archive,
)
from llmproxy.cli.daemon import DEFAULT_SETTINGS
from llmproxy.cli.encryption import CONNECT_SECONDS, encryption_keys
from llmproxy.cli.output import Columns, as_json, echo, table
from llmproxy.cli.progress import Progress
from llmproxy.cli.session import output_format
from llmproxy.cli.store_errors import store_errors
from llmproxy.config.load import load
from llmproxy.config.model import Settings
from llmproxy.keyring import TOKENS, Keyring, parse_keys
from llmproxy.sealing import CannotOpen
from llmproxy.store.data_keys import data_key
from llmproxy.store.engines import parse_store_url, sqlite_path, upgrade_engine
from llmproxy.store.migrate import prepare

FILE = click.argument("file", type=click.Path(path_type=Path))
THERE = click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
CONFIG = click.option("--config", default=DEFAULT_SETTINGS, show_default=True, help="The settings file.")
OUTPUT = click.option(
    "--output", type=click.Choice(["table", "json"]), default=None, help="How to print what was done."
)
STORE = click.option("--store", metavar="URL", help="The database, in the place of the one that the settings name.")
KEY_IS_BESIDES = "The encryption key belongs with it, and is not in it: keep a copy in another place."
KEY_IS_MISSING = "The encryption key that belongs to this backup is not here: put it back before a start."
COLUMNS: Columns = {"TABLE": lambda row: row["table"], "ROWS": lambda row: row["rows"], "SUM": lambda row: row["sum"]}


@click.command("backup")
@FILE
@CONFIG
@click.option("--with-key", is_flag=True, help="Put the encryption key in too: who has the file then has every secret.")
@click.option("--force", is_flag=True, help="Put it in the place of a file that is there.")
@OUTPUT
def backup(file: Path, config: str, with_key: bool, force: bool, output: str | None) -> None:
    """Write all that is stored into one file: the database as it is at one moment, and the journals.

    Daemons go on meanwhile. The file has mode 0600. Without --with-key, the encryption key is to be kept besides, in
    another place: nothing can be restored without it.
    """
    with store_errors():
        settings = load(config, os.environ)
        _write(file, settings, parse_store_url(settings.store.url), output_format(output), force, with_key)


@click.command("export")
@FILE
@CONFIG
@STORE
@click.option("--force", is_flag=True, help="Put it in the place of a file that is there.")
@OUTPUT
def export(file: Path, config: str, store: str | None, force: bool, output: str | None) -> None:
    """Write all that is stored into one file, to import it into another database.

    It is the file that backup writes. Secrets stay encrypted; the encryption key is not in it. Stop the daemons before
    a move: what they store after this is not in the file.
    """
    with store_errors():
        settings = load(config, os.environ)
        _write(file, settings, parse_store_url(store or settings.store.url), output_format(output), force, False)


def _write(file: Path, settings: Settings, url: URL, shown: str, force: bool, with_key: bool) -> None:
    if file.exists() and not force:
        raise ValueError(f"{file} is there already. Name another file, or use --force.")
    stored = sqlite_path(url)
    if stored is not None and not stored.exists():
        raise ValueError(f"There is no database {stored}.")
    begun, engine = time.monotonic(), upgrade_engine(url, CONNECT_SECONDS)
    try:
        key = encryption_keys(settings, os.environ) if with_key else ""
        manifest = write_archive(file, engine, _journals(settings), key, Progress(shown == "json"))
    finally:
        engine.dispose()
    notes = [] if with_key else [KEY_IS_BESIDES]
    _show(shown, file, manifest, begun, "are in it", notes)


def _show(shown: str, file: Path, manifest: Manifest, begun: float, done: str, notes: list[str]) -> None:
    tables: list[dict[str, Any]] = [
        {"table": name, "rows": each["rows"], "sum": each["digest"]} for name, each in manifest["tables"].items()
    ]
    rows, seconds = sum(each["rows"] for each in tables), time.monotonic() - begun
    if shown == "json":
        said = {"file": str(file), "revision": manifest["revision"], "rows": rows, "seconds": round(seconds, 1)}
        echo(as_json({**said, "tables": tables, "notes": notes}))
        return
    filled = [{**each, "sum": each["sum"][:16]} for each in tables if each["rows"]]
    echo(table(filled, COLUMNS))
    echo(f"{file}: {rows:,} rows of {len(tables)} tables {done}, {seconds:.1f} s.")
    for note in notes:
        click.echo(note, err=True)


def _journals(settings: Settings) -> Path:
    return Path(settings.ledger.directory or Path(settings.state_dir) / "ledger")


@click.command("restore")
@THERE
@CONFIG
@click.option("--force", is_flag=True, help="Replace what is in the database, and the encryption key.")
@OUTPUT
def restore(file: Path, config: str, force: bool, output: str | None) -> None:
    """Bring back what backup has written, into the database that the settings name: SQLite or PostgreSQL.

    Stop the daemons first. All of it is there in the end, checked row by row, or nothing has changed.
    """
    with store_errors(file):
        settings = load(config, os.environ)
        try:
            _read(file, settings, parse_store_url(settings.store.url), output_format(output), force, True)
        except DatabaseInUse as e:
            raise ValueError(f"{e}: use --force to replace all that it holds.") from e


@click.command("file")
@THERE
@CONFIG
@STORE
@OUTPUT
def import_file(file: Path, config: str, store: str | None, output: str | None) -> None:
    """Enter what export has written into another database, which must be empty: SQLite or PostgreSQL.

    Its tables are made. All of it is there in the end, checked row by row, or nothing: it may be run again.
    """
    with store_errors(file):
        settings = load(config, os.environ)
        try:
            _read(file, settings, parse_store_url(store or settings.store.url), output_format(output), False, False)
        except DatabaseInUse as e:
            raise ValueError(f"{e}: import needs an empty one.") from e


def _read(file: Path, settings: Settings, url: URL, shown: str, force: bool, with_key: bool) -> None:
    begun, progress, notes = time.monotonic(), Progress(shown == "json"), list[str]()
    with tempfile.TemporaryDirectory(prefix=".llmproxy-", dir=file.absolute().parent) as unpacked:
        folder = Path(unpacked)
        manifest = unpack(file, folder)
        prepare(url, lambda connection: None, timeout=CONNECT_SECONDS)
        engine = upgrade_engine(url, CONNECT_SECONDS)
        try:
            with (
                restored_journals(folder, _journals(settings)),
                restored_tables(engine, manifest, folder, force, progress) as connection,
            ):
                if not _has_key(connection, settings, folder):
                    notes.append(KEY_IS_MISSING)
        finally:
            engine.dispose()
        key = Path(settings.state_dir) / KEY_NAME
        if with_key and (folder / KEY_NAME).exists() and (force or not key.exists()):
            key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            put_file(folder / KEY_NAME, key)
            notes.append(f"The encryption key is in {key}.")
    _show(shown, file, manifest, begun, "are there, each as it was", notes)


def _has_key(connection: Connection, settings: Settings, folder: Path) -> bool:
    """Whether the next start would take it: to be said now."""
    try:
        text = encryption_keys(settings, os.environ)
    except (OSError, ValueError):
        text = ""
    given = folder / KEY_NAME
    keys = parse_keys(text) or (parse_keys(given.read_text()) if given.exists() else ())
    try:
        data_key(connection, Keyring(keys), TOKENS)
    except (CannotOpen, ValueError):
        return False
    return True
