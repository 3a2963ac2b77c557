"""What can be seen without a provider: files and their permissions, secrets, descriptors, and the store."""

from __future__ import annotations

import getpass
import os
import resource
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, null, select, text
from sqlalchemy.exc import SQLAlchemyError

from llmproxy.cli.doctor.findings import FAILED, OK, WARNING, Finding, failure
from llmproxy.config.load import read_private
from llmproxy.config.model import Settings
from llmproxy.config.problems import SettingsError, dotted
from llmproxy.config.secret_variables import secret
from llmproxy.keyring import PROVIDER_KEYS, TOKENS, Keyring, parse_keys
from llmproxy.process.start_checks import start_problems
from llmproxy.process.start_failures import check_files
from llmproxy.sealing import CannotOpen, TokenHasher
from llmproxy.store.canary import check_key, refuse_new_key
from llmproxy.store.data_keys import data_key
from llmproxy.store.engines import autocommit, parse_store_url, sqlite_path, upgrade_engine
from llmproxy.store.errors import DriverMissing, InvalidStoreURL, StartupError, failure_reason
from llmproxy.store.health import touch, untouched
from llmproxy.store.migrate import SCRIPTS, newest_revision, stored_revisions
from llmproxy.store.projects import further
from llmproxy.store.secrets import read_secret
from llmproxy.store.sqlite_file import refuse_foreign
from llmproxy.store.tables import further_keys, projects, provider_keys

CONNECT_SECONDS = 5.0
MAX_SKEW_SECONDS = 5.0
MIN_DESCRIPTORS = 256  # below it the daemon holds clients off for want of descriptors with a few dozen of them


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A provider key of an active project."""

    project: str
    key: str


Keys = dict[str, list[StoredKey]]  # by the API's name


def local_findings(
    settings: Settings, environ: Mapping[str, str], now: Callable[[], float], reactor: Any = None
) -> tuple[list[Finding], Keys]:
    """What was found, and the provider keys that the store holds. Blocks for the store, within its timeouts."""
    keys: Keys = defaultdict(list)
    found = [*_start(settings, reactor), _files(settings), *_seen("state_dir", _state_dir(settings))]
    encryption, finding = _secret(settings, environ, "ENCRYPTION_KEY", "encryption-key")
    found += [finding, _secret(settings, environ, "MANAGEMENT_TOKEN", "management-token")[1]]
    found += [_descriptors(settings), *_seen("store", _store(settings, encryption, keys, now))]
    return found, keys


def _seen(subject: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """They, or that it cannot even be seen what is there, in a folder of another user's."""
    try:
        yield from findings
    except OSError as e:
        yield failure(subject, e, f"Run this as the daemon's user, or let {_user()} look there.")


def _start(settings: Settings, reactor: Any) -> list[Finding]:
    """What stands in the settings and would not do; the store's URL has a finding of its own."""
    found = [
        Finding(dotted(path), FAILED, problem if problem.endswith(".") else f"{problem}.", "Correct the setting.")
        for path, problem in start_problems(settings, reactor)
        if path != ("store", "url")
    ]
    return found or [Finding("settings", OK, "The plugins and the listeners that they name can be used.")]


def _files(settings: Settings) -> Finding:
    try:
        check_files(settings)
    except StartupError as e:
        return failure("files", e, f"Correct the setting, or let {_user()} use the file.")
    return Finding("files", OK, f"The files that the settings name can be used by {_user()}.")


def _state_dir(settings: Settings) -> Iterator[Finding]:
    path = Path(settings.state_dir).absolute()
    if not path.exists():
        parent = next(each for each in path.parents if each.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            yield Finding("state_dir", OK, f"{path} will be made by the first start.")
        else:
            yield Finding("state_dir", FAILED, f"{path} is not there, and {_user()} cannot make it.", _chown(parent))
    elif not path.is_dir():
        yield Finding("state_dir", FAILED, f"{path} is no directory.", "Name another, or move the file away.")
    elif not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        yield Finding("state_dir", FAILED, f"{path} cannot be written by {_user()}.", _chown(path))
    elif path.stat().st_mode & 0o022:
        yield Finding("state_dir", WARNING, f"{path} can be written by other users.", f"Run: chmod go-w {path}")
    else:
        yield Finding("state_dir", OK, f"{path} can be written by {_user()}.")


def _secret(settings: Settings, environ: Mapping[str, str], name: str, file: str) -> tuple[str, Finding]:
    """The secret, C{""} where there is none."""
    subject = name.lower().replace("_", " ")
    try:
        value = secret(environ, name, read_private)
        if value:
            return value.strip(), Finding(subject, OK, "It is given by the environment.")
        path = Path(settings.state_dir).absolute() / file
        kept = read_secret(path)
        if kept is not None:
            return kept.value, Finding(subject, OK, f"It is in {path}, readable by its owner only.")
        if name == "ENCRYPTION_KEY":
            with suppress(InvalidStoreURL, DriverMissing):  # which the store's own finding says
                refuse_new_key(path, settings.store.url)
        return "", Finding(subject, OK, f"The first start will make one, in {path}.")
    except (SettingsError, StartupError) as e:
        return "", failure(subject, e, "Give the daemon its secret, readable by its user only.")
    except OSError as e:
        return "", failure(subject, e, f"Let {_user()} read it.")


def _descriptors(settings: Settings) -> Finding:
    """The daemon raises its soft limit to the hard one by itself."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = settings.server.max_connections
    if hard == resource.RLIM_INFINITY:
        return Finding("descriptors", OK, "There is no limit.")
    advice = f"Raise the hard limit (LimitNOFILE= in systemd, ulimit -Hn), or lower server.max_connections ({most})."
    if hard < MIN_DESCRIPTORS:
        advice = f"Raise the hard limit to {MIN_DESCRIPTORS} at least (LimitNOFILE= in systemd, ulimit -Hn)."
        return Finding("descriptors", FAILED, f"This user may have {hard} only.", advice)
    if hard * 3 // 4 < most:  # a quarter is not for clients
        return Finding("descriptors", WARNING, f"{hard} are too few for {most} clients; more will wait.", advice)
    return Finding("descriptors", OK, f"{hard} are enough for {most} clients.")


def _store(settings: Settings, encryption: str, keys: Keys, now: Callable[[], float]) -> Iterator[Finding]:
    try:
        url = parse_store_url(settings.store.url)
        file = sqlite_path(url)
        if file is not None and not file.exists():
            yield _new_file(file)
            return
        if file is not None and not os.access(file, os.R_OK | os.W_OK):
            yield Finding("store", FAILED, f"{file} cannot be read and written by {_user()}.", _chown(file))
            return
        if file is not None:
            refuse_foreign(file)
        engine = upgrade_engine(url, CONNECT_SECONDS)
    except StartupError as e:
        yield failure("store", e, "Correct store.url, or install what it needs.")
        return
    try:
        with autocommit(engine).connect() as connection:
            yield from _database(connection, now)
        with engine.connect() as connection, connection.begin() as transaction:
            yield from _sealed(connection, encryption, keys)
            transaction.rollback()
    except SQLAlchemyError as e:
        reason = failure_reason(getattr(e, "orig", None))
        yield Finding("store", FAILED, f"It cannot be used: {reason}.", _database_advice(file, reason))
    finally:
        engine.dispose()


def _new_file(file: Path) -> Finding:
    parent = next(each for each in file.parents if each.exists())
    if not os.access(parent, os.W_OK | os.X_OK):
        return Finding("store", FAILED, f"{file} is not there, and {_user()} cannot make it.", _chown(parent))
    return Finding("store", OK, f"{file} will be made by the first start.")


def _database(connection: Connection, now: Callable[[], float]) -> Iterator[Finding]:
    """Each statement is a transaction of its own: a full disk shows only where something is committed."""
    if connection.dialect.name == "postgresql":
        yield _database_clock(connection, now)
    stored, newest = stored_revisions(connection), newest_revision(SCRIPTS)
    if not stored:
        yield Finding("store", OK, "It can be reached; the first start will make its tables.")
        return
    if max(stored) > newest:
        detail = f"A newer llmproxy has upgraded it to {max(stored)}; this one knows up to {newest}."
        yield Finding("store", FAILED, detail, "Run the newer llmproxy, or restore the copy made before the upgrade.")
        return
    with untouched(connection):
        touch(connection)
    if stored != (newest,):
        yield Finding("store", WARNING, f"The next start will upgrade it from {stored[0]} to {newest}.", "Back it up.")
    else:
        yield Finding("store", OK, f"It takes writes, and is at revision {newest}.")


def _sealed(connection: Connection, encryption: str, keys: Keys) -> Iterator[Finding]:
    """Within a transaction that is rolled back."""
    stored = stored_revisions(connection)
    ours = bool(stored) and max(stored) <= newest_revision(SCRIPTS)
    if encryption and ours and inspect(connection).has_table(provider_keys.name):
        yield _unsealed(connection, encryption, keys, stored[0] >= "0017")


_BY_REASON = {
    "locked": "Another process holds {file}: which one? Try: fuser {file}",
    "read-only": "Have {file}, and the disk that it is on, take writes.",
    "disk full": "Make room where {file} is.",
    "damaged": "Restore {file} from a backup: llmproxy restore",
    "file is no database": "Restore {file} from a backup (llmproxy restore), or name another file in store.url.",
    "connection refused": "Nothing listens there: start the server, or correct host and port in store.url.",
    "connection rejected": "The server is there: correct user, password and database in store.url, or its pg_hba.conf.",
    "host not found": "Correct the host in store.url, or look at DNS on this machine (getent hosts NAME).",
    "too many connections": "Raise max_connections of the server, or end what else is connected to it.",
}
_KEY_ADVICE = (
    "Give the daemon the encryption key that it had (LLMPROXY_ENCRYPTION_KEY, or the file in the state directory)."
)
_KEY_COLUMNS = (provider_keys.c.project_id, provider_keys.c.api, provider_keys.c.sealed)


def _unsealed(connection: Connection, encryption: str, keys: Keys, has_references: bool) -> Finding:
    keyring = Keyring(parse_keys(encryption))
    sealer = keyring.sealer(PROVIDER_KEYS)
    several = inspect(connection).has_table(further_keys.name)  # not before the store is upgraded
    rows = connection.execute(
        select(*_KEY_COLUMNS, provider_keys.c.reference if has_references else null().label("reference"))
        .join(projects, projects.c.id == provider_keys.c.project_id)
        .where(projects.c.active)
        .order_by(projects.c.created_at)
    ).all()
    try:
        check_key(connection, sealer, TokenHasher(data_key(connection, keyring, TOKENS)))
        for row in (row for row in rows if row.reference is None):
            keys[row.api].append(StoredKey(row.project_id, sealer.open(bytes(row.sealed), row.project_id, row.api)))
            if several:
                others = further(connection, row.project_id, row.api, sealer)
                keys[row.api] += [StoredKey(row.project_id, each) for each in others]
    except StartupError as e:
        keys.clear()
        return failure("provider keys", e, _KEY_ADVICE)
    except CannotOpen:
        keys.clear()
        detail = "The encryption key is not the one that they were stored with."
        return Finding("provider keys", FAILED, detail, _KEY_ADVICE)
    if not rows:
        advice = "Create a project: llmproxy project create --name NAME --api-key API=prompt"
        return Finding("provider keys", WARNING, "No active project has one.", advice)
    elsewhere = sum(row.reference is not None for row in rows)
    more = f" {elsewhere} more are kept elsewhere; /ready says which of them are missing." if elsewhere else ""
    return Finding("provider keys", OK, f"The encryption key opens all {len(rows) - elsewhere}.{more}")


def _database_clock(connection: Connection, now: Callable[[], float]) -> Finding:
    skew = float(connection.scalar(text("SELECT extract(epoch FROM clock_timestamp())")) or 0.0) - now()
    return clock_finding("clock of the store", skew)


def clock_finding(subject: str, skew: float) -> Finding:
    """@param skew: Seconds by which the other clock is ahead of this machine's."""
    if abs(skew) <= MAX_SKEW_SECONDS:
        return Finding(subject, OK, f"It agrees with this machine's within {MAX_SKEW_SECONDS:g} s.")
    way = "behind" if skew > 0 else "ahead"
    detail = f"This machine's clock is {abs(skew):.0f} s {way} of it: tokens expire and budgets renew at wrong times."
    return Finding(subject, FAILED, detail, "Synchronize the clocks (systemd-timesyncd, chrony).")


def _database_advice(file: Path | None, reason: str) -> str:
    if advice := _BY_REASON.get(reason):
        return advice.format(file=file or "the database")
    if file is not None:
        return f"Look at {file}: is it llmproxy's database, and is its disk in order?"
    return "Is the server running, and are host, user, password and database in store.url right?"


def _chown(path: Path) -> str:
    return f"Run: chown {_user()} {path}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.geteuid())
