"""C{llmproxy backup} and C{llmproxy restore}: all that is stored, in one file, from and into any database."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import click
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from llmproxy.cli.daemon import DEFAULT_SETTINGS
from llmproxy.cli.encryption import CONNECT_SECONDS, encryption_keys
from llmproxy.config.load import load
from llmproxy.config.model import Settings
from llmproxy.config.problems import SettingsError
from llmproxy.keyring import TOKENS, Keyring, parse_keys
from llmproxy.sealing import CannotOpen
from llmproxy.store.archive import (
    TABLES,
    NotAsArchived,
    TableSum,
    count,
    is_empty,
    lines,
    replace_all,
    snapshot,
    table_sum,
)
from llmproxy.store.data_keys import data_key
from llmproxy.store.engines import parse_store_url, sqlite_path, upgrade_engine
from llmproxy.store.errors import StartupError
from llmproxy.store.migrate import SCRIPTS, newest_revision, prepare, stored_revisions

MANIFEST, KEY_NAME = "manifest.json", "encryption-key"
_TABLE = re.compile(r"tables/([a-z_]+)\.jsonl")
_JOURNAL = re.compile(r"journals/([A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*)")
CONFIG = click.option("--config", default=DEFAULT_SETTINGS, show_default=True, help="The settings file.")


@contextmanager
def _errors() -> Iterator[None]:
    """End with 78, and say why, where it cannot be done."""
    try:
        yield
    except (
        SettingsError, StartupError, NotAsArchived, OSError, ValueError, KeyError, SQLAlchemyError, tarfile.TarError
    ) as e:  # fmt: skip
        click.echo(f"Error: {e}", err=True)
        sys.exit(os.EX_CONFIG)


@click.command("backup")
@click.argument("file", type=click.Path(path_type=Path))
@CONFIG
@click.option("--with-key", is_flag=True, help="Put the encryption key in too: who has the file then has every secret.")
@click.option("--force", is_flag=True, help="Put it in the place of a file that is there.")
def backup(file: Path, config: str, with_key: bool, force: bool) -> None:
    """Write all that is stored into one file: the database as it is at one moment, and the journals.

    Daemons go on meanwhile. The file has mode 0600. Without --with-key, the encryption key is to be kept besides, in
    another place: nothing can be restored without it.
    """
    with _errors():
        if file.exists() and not force:
            raise ValueError(f"{file} is there already. Name another file, or use --force.")
        settings = load(config, os.environ)
        url = parse_store_url(settings.store.url)
        stored = sqlite_path(url)
        if stored is not None and not stored.exists():
            raise ValueError(f"There is no database {stored}.")
        engine = upgrade_engine(url, CONNECT_SECONDS)
        try:
            sums = _written(file, settings, engine, with_key)
        finally:
            engine.dispose()
        click.echo(f"{file}: {sum(each.rows for each in sums.values())} rows of {len(sums)} tables.")
        if not with_key:
            click.echo("The encryption key belongs with it, and is not in it: keep a copy in another place.", err=True)


def _written(file: Path, settings: Settings, engine: Engine, with_key: bool) -> dict[str, TableSum]:
    draft = file.with_name(file.name + ".part")
    draft.unlink(missing_ok=True)
    opened = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(opened, "wb") as raw, tarfile.open(fileobj=raw, mode="w:gz", compresslevel=1) as archive:
            # Journals first: of what they have, the database knows by its place what has been entered.
            _add_journals(archive, _journals(settings))
            with snapshot(engine) as connection:
                revision = _revision(connection)
                sums = _add_tables(archive, connection, file.absolute().parent)
            if with_key:
                _add(archive, KEY_NAME, (encryption_keys(settings, os.environ) + "\n").encode())
            tables = {name: {"rows": each.rows, "digest": each.digest} for name, each in sums.items()}
            _add(archive, MANIFEST, json.dumps({"revision": revision, "tables": tables}, indent=1).encode())
            archive.close()
            raw.flush()
            os.fsync(opened)
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)
    return sums


def _revision(connection: Connection) -> str:
    """The schema's, which must be ours."""
    (revision,) = stored_revisions(connection) or ("",)
    if revision != newest_revision(SCRIPTS):
        raise ValueError(
            f"The database is at revision {revision or 'none'}, this llmproxy at {newest_revision(SCRIPTS)}. "
            "Run llmproxy migrate upgrade first."
        )
    return revision


def _add_tables(archive: tarfile.TarFile, connection: Connection, directory: Path) -> dict[str, TableSum]:
    sums: dict[str, TableSum] = {}
    total = sum(count(connection, table) for table in TABLES.values())
    with click.progressbar(length=total, label="Reading", file=sys.stderr) as progress:
        for name, table in TABLES.items():
            sums[name] = found = TableSum()
            with tempfile.TemporaryFile(dir=directory) as rows:
                for line in lines(connection, table):
                    found.add(line)
                    rows.write(line + b"\n")
                    if not found.rows % 1000:
                        progress.update(1000)
                progress.update(found.rows % 1000)
                _add_file(archive, f"tables/{name}.jsonl", rows)
    return sums


def _add_journals(archive: tarfile.TarFile, directory: Path) -> None:
    for path in sorted(directory.rglob("*")) if directory.is_dir() else ():
        if path.name == "lock" or path.is_symlink() or not path.is_file():
            continue
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue  # entered into the database meanwhile
        _add(archive, f"journals/{path.relative_to(directory)}", content)


def _journals(settings: Settings) -> Path:
    return Path(settings.ledger.directory or Path(settings.state_dir) / "ledger")


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o600
    archive.addfile(member, io.BytesIO(content))


def _add_file(archive: tarfile.TarFile, name: str, file: IO[bytes]) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = file.tell(), 0o600
    file.seek(0)
    archive.addfile(member, file)


@click.command("restore")
@click.argument("file", type=click.Path(path_type=Path, exists=True))
@CONFIG
@click.option("--force", is_flag=True, help="Replace what is in the database, and the encryption key.")
def restore(file: Path, config: str, force: bool) -> None:
    """Bring back what backup has written, into the database that the settings name: SQLite or PostgreSQL.

    Stop the daemons first. All of it is there in the end, checked row by row, or nothing has changed.
    """
    with _errors():
        settings = load(config, os.environ)
        with tempfile.TemporaryDirectory(dir=Path(file).absolute().parent) as folder:
            found = _unpacked(file, Path(folder))
            _restore(settings, found, Path(folder), force)
        rows = sum(each["rows"] for each in found["tables"].values())
        click.echo(f"{rows} rows of {len(found['tables'])} tables, each as it was.")


def _unpacked(file: Path, folder: Path) -> dict[str, Any]:
    """What the manifest says; the members are in the folder. Anything but what backup writes is refused."""
    with tarfile.open(file, "r:gz") as archive:
        for member in archive:
            name = member.name
            table = _TABLE.fullmatch(name)
            known = name in (MANIFEST, KEY_NAME) or (table and table[1] in TABLES) or _JOURNAL.fullmatch(name)
            if not known or not member.isreg() or ".." in name.split("/"):
                raise NotAsArchived(f"{file} has {name} in it, which no backup has.")
            source = archive.extractfile(member)
            path = folder / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
                while source is not None and (chunk := source.read(1024 * 1024)):
                    copy.write(chunk)
    if not (folder / MANIFEST).exists():
        raise NotAsArchived(f"{file} is no backup, or not all of one.")
    found: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
    if found["revision"] != newest_revision(SCRIPTS):
        raise NotAsArchived(
            f"The backup is of revision {found['revision']}, this llmproxy is at {newest_revision(SCRIPTS)}: restore "
            "it with the llmproxy that wrote it, then upgrade."
        )
    if set(found["tables"]) != set(TABLES):
        raise NotAsArchived(f"{file} does not have the tables that this llmproxy has.")
    return found


def _restore(settings: Settings, found: Mapping[str, Any], folder: Path, force: bool) -> None:
    kept, directory = folder / "journals", _journals(settings)
    journals = {path: directory / path.relative_to(kept) for path in _files(kept)}
    url = parse_store_url(settings.store.url)
    prepare(url, lambda connection: None, timeout=CONNECT_SECONDS)
    engine = upgrade_engine(url, CONNECT_SECONDS)
    try:
        with engine.begin() as connection:
            if not force and not is_empty(connection):
                raise ValueError("The database is in use already. Use --force to replace all that it holds.")
            _fill(connection, found, folder)
            _check_key(connection, settings, folder)
    finally:
        engine.dispose()
    for path, to in journals.items():
        if to.exists():
            continue  # it has what the copy has, and perhaps more
        to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _put(path, to)
    key = Path(settings.state_dir) / KEY_NAME
    if (folder / KEY_NAME).exists() and (force or not key.exists()):
        key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _put(folder / KEY_NAME, key)
        click.echo(f"The encryption key is in {key}.", err=True)


def _fill(connection: Connection, found: Mapping[str, Any], folder: Path) -> None:
    total = sum(each["rows"] for each in found["tables"].values())
    sources: dict[str, Callable[[], Iterator[bytes]]] = {
        name: partial(_lines, folder / "tables" / f"{name}.jsonl") for name in TABLES
    }
    with click.progressbar(length=total, label="Writing", file=sys.stderr) as progress:
        replace_all(connection, sources, progress.update)
    with click.progressbar(TABLES.items(), label="Checking", file=sys.stderr) as tables:
        for name, table in tables:
            there, wanted = table_sum(connection, table), found["tables"][name]
            if (there.rows, there.digest) != (wanted["rows"], wanted["digest"]):
                raise NotAsArchived(
                    f"{name}: {there.rows} rows of {wanted['rows']} are there, or others. Nothing was changed."
                )


def _check_key(connection: Connection, settings: Settings, folder: Path) -> None:
    """Say it now where the next start would refuse."""
    try:
        text = encryption_keys(settings, os.environ)
    except (OSError, ValueError):
        text = ""
    given = folder / KEY_NAME
    keys = parse_keys(text) or (parse_keys(given.read_text()) if given.exists() else ())
    try:
        data_key(connection, Keyring(keys), TOKENS)
    except (CannotOpen, ValueError):
        click.echo("The encryption key that belongs to this backup is not here: put it back before a start.", err=True)


def _lines(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        for line in file:
            yield line.rstrip(b"\n")


def _files(directory: Path) -> list[Path]:
    return [path for path in sorted(directory.rglob("*")) if path.is_file()] if directory.is_dir() else []


def _put(path: Path, to: Path) -> None:
    draft = to.with_name(to.name + ".part")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
        copy.write(path.read_bytes())
        copy.flush()
        os.fsync(copy.fileno())
    os.replace(draft, to)


@click.group()
def migrate() -> None:
    """Show and upgrade the schema of the database."""


@migrate.command("status")
@CONFIG
def status(config: str) -> None:
    """Show the revision of the database, and that of this llmproxy.

    Ends with 0 where they are the same, with 1 where the next start would upgrade it, with 78 where it is unknown.
    """
    with _errors():
        url = parse_store_url(load(config, os.environ).store.url)
        file = sqlite_path(url)
        stored: tuple[str, ...] = ()
        if file is None or file.exists():
            engine = upgrade_engine(url, CONNECT_SECONDS)
            try:
                with engine.connect() as connection:
                    stored = stored_revisions(connection)
            finally:
                engine.dispose()
        newest = newest_revision(SCRIPTS)
        click.echo(f"database: {', '.join(stored) or 'new'}\nllmproxy: {newest}")
    sys.exit(0 if stored == (newest,) else 1)


@migrate.command("upgrade")
@CONFIG
def upgrade(config: str) -> None:
    """Upgrade the database to the revision of this llmproxy, as a start does; a SQLite file is copied first."""
    with _errors():
        prepare(parse_store_url(load(config, os.environ).store.url), lambda connection: None, timeout=CONNECT_SECONDS)
        click.echo(f"The database is at revision {newest_revision(SCRIPTS)}.")
