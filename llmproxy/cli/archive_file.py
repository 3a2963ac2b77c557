"""The file that holds all that is stored: a tar of tables and journals, with a manifest that says what must be there.

C{backup} and C{export} write it, C{restore} and C{import} read it.
"""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TypedDict

import msgspec
from sqlalchemy import Connection, Engine

from llmproxy.cli.progress import Progress
from llmproxy.store.archive import (
    TABLES,
    NotAsArchived,
    TableSum,
    count,
    line_parts,
    replace_all,
    snapshot,
    table_in_use,
    table_sum,
)
from llmproxy.store.migrate import SCRIPTS, newest_revision, server_lock, stored_revisions

MANIFEST, KEY_NAME = "manifest.json", "encryption-key"
FORMAT = 2
LOCK_SECONDS = 30.0
_TABLE = re.compile(r"tables/([a-z_]+)\.jsonl")
_JOURNAL = re.compile(r"journals/([A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*)")


class ArchivedTable(TypedDict):
    """What a manifest says of a table: how many rows, the sum of their hashes, and its columns in order."""

    rows: int
    digest: str
    columns: list[str]


class Manifest(TypedDict):
    """What must be in the file.

    @ivar revision: Of the schema.
    """

    format: int
    revision: str
    tables: dict[str, ArchivedTable]


class _WrittenBy(msgspec.Struct):
    """By which llmproxy."""

    revision: str
    format: int = 1


class DatabaseInUse(ValueError):
    """Somebody has used the database that is to be filled."""


def write_archive(file: Path, engine: Engine, journals: Path, key: str, progress: Progress) -> Manifest:
    """Write the file, mode 0600, whole or not at all; what its manifest says.

    @param journals: The directory of the journals; C{key}: the encryption key, C{""} where it is not to be in it.
    """
    draft = file.with_name(file.name + ".part")
    draft.unlink(missing_ok=True)
    opened = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(opened, "wb") as raw, tarfile.open(fileobj=raw, mode="w:gz", compresslevel=1) as archive:
            # Journals first: of what they have, the database knows by its place what has been entered.
            _add_journals(archive, journals)
            with snapshot(engine) as connection:
                revision = _revision(connection)
                sums = _add_tables(archive, connection, file.absolute().parent, progress)
            if key:
                _add(archive, KEY_NAME, (key + "\n").encode())
            tables: dict[str, ArchivedTable] = {
                name: {"rows": each.rows, "digest": each.digest, "columns": list(TABLES[name].columns.keys())}
                for name, each in sums.items()
            }
            manifest: Manifest = {"format": FORMAT, "revision": revision, "tables": tables}
            _add(archive, MANIFEST, json.dumps(manifest, indent=1).encode())
            archive.close()
            raw.flush()
            os.fsync(opened)
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)
    return manifest


def _revision(connection: Connection) -> str:
    """The schema's, which must be ours."""
    (revision,) = stored_revisions(connection) or ("",)
    if revision != newest_revision(SCRIPTS):
        raise ValueError(
            f"The database is at revision {revision or 'none'}, this llmproxy at {newest_revision(SCRIPTS)}. "
            "Run llmproxy migrate upgrade first."
        )
    return revision


def _add_tables(
    archive: tarfile.TarFile, connection: Connection, directory: Path, progress: Progress
) -> dict[str, TableSum]:
    sums: dict[str, TableSum] = {}
    with progress.step("Reading", sum(count(connection, table) for table in TABLES.values())) as done:
        for name, table in TABLES.items():
            sums[name] = found = TableSum()
            with tempfile.TemporaryFile(dir=directory) as rows:
                for lines in line_parts(connection, table):
                    found.add(lines)
                    rows.write(b"\n".join(lines) + b"\n")
                    done(len(lines))
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


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o600
    archive.addfile(member, io.BytesIO(content))


def _add_file(archive: tarfile.TarFile, name: str, file: IO[bytes]) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = file.tell(), 0o600
    file.seek(0)
    archive.addfile(member, file)


def unpack(file: Path, folder: Path) -> Manifest:
    """What the manifest says; the members are in the folder. Anything but what is written above is refused."""
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
    return _manifest(file, (folder / MANIFEST).read_bytes())


def _manifest(file: Path, content: bytes) -> Manifest:
    """What a manifest says, where this llmproxy can enter what it describes."""
    try:
        written = msgspec.json.decode(content, type=_WrittenBy)
        newest = newest_revision(SCRIPTS)
        if (written.revision, written.format) != (newest, FORMAT):
            raise NotAsArchived(
                f"{file} is of revision {written.revision}, this llmproxy is at {newest}: restore it with the llmproxy "
                "that wrote it, then upgrade."
            )
        manifest = msgspec.json.decode(content, type=Manifest)
    except msgspec.MsgspecError as e:
        raise NotAsArchived(f"{file} is no backup: its {MANIFEST} cannot be read ({e}).") from e
    columns = {name: list(table.columns.keys()) for name, table in TABLES.items()}
    if {name: each["columns"] for name, each in manifest["tables"].items()} != columns:
        raise NotAsArchived(f"{file} does not have the tables that this llmproxy has.")
    return manifest


@contextmanager
def restored_tables(
    engine: Engine, manifest: Manifest, folder: Path, replace: bool, progress: Progress
) -> Iterator[Connection]:
    """One transaction in which the tables are entered, and read again to be checked; kept where the caller ends well.

    @param replace: In the place of what is there; else L{ValueError} where somebody has used the database.
    """
    wanted = manifest["tables"]
    total = sum(each["rows"] for each in wanted.values())
    sources: dict[str, Callable[[], Iterator[bytes]]] = {
        name: partial(_lines, folder / "tables" / f"{name}.jsonl") for name in TABLES
    }
    with engine.begin() as connection:
        server_lock(connection, LOCK_SECONDS)
        if not replace and (name := table_in_use(connection)):
            raise DatabaseInUse(f"The database is in use already ({name} has rows)")
        with progress.step("Writing", total) as done:
            replace_all(connection, sources, done)
        with progress.step("Checking", total) as done:
            for name, table in TABLES.items():
                there = table_sum(connection, table, done)
                if (there.rows, there.digest) != (wanted[name]["rows"], wanted[name]["digest"]):
                    raise NotAsArchived(
                        f"{name}: {there.rows} rows of {wanted[name]['rows']} are there, or others. "
                        "Nothing was changed."
                    )
        yield connection


@contextmanager
def restored_journals(folder: Path, directory: Path) -> Iterator[None]:
    """The journals that are not in that directory yet; away again where the caller fails.

    One that is there has what its copy has, and perhaps more.
    """
    source = folder / "journals"
    added: list[Path] = []
    try:
        for path in [path for path in sorted(source.rglob("*")) if path.is_file()] if source.is_dir() else ():
            to = directory / path.relative_to(source)
            if not to.exists():
                to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                put_file(path, to)
                added.append(to)
        yield
    except BaseException:
        for path in added:
            path.unlink(missing_ok=True)
        raise


def _lines(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        for line in file:
            yield line.rstrip(b"\n")


def put_file(path: Path, to: Path) -> None:
    """Copy it, mode 0600, whole or not at all."""
    draft = to.with_name(to.name + ".part")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
        copy.write(path.read_bytes())
        copy.flush()
        os.fsync(copy.fileno())
    os.replace(draft, to)
