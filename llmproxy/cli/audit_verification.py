"""C{llmproxy audit verify}: whether the audit log is still what was written."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click
from sqlalchemy import Connection

from llmproxy.base.audit_chain import ChainLink, ChainReport, verify
from llmproxy.cli.client import management_path
from llmproxy.cli.daemon import DEFAULT_SETTINGS
from llmproxy.cli.encryption import encryption_keys
from llmproxy.cli.output import as_json, echo
from llmproxy.cli.session import CommandSession, with_session
from llmproxy.cli.store_errors import store_errors
from llmproxy.config.load import load
from llmproxy.config.model import Settings
from llmproxy.keyring import AUDIT_LOG, Keyring, parse_keys
from llmproxy.observability.chained_file import HEAD_SUFFIX, read_head
from llmproxy.sealing import CannotOpen
from llmproxy.store.audit_log import verify_table
from llmproxy.store.data_keys import data_key
from llmproxy.store.engines import parse_store_url, sqlite_path, upgrade_engine
from llmproxy.store.errors import WrongKey

CONNECT_SECONDS = 10.0


@click.command("verify")
@click.option("--config", default=DEFAULT_SETTINGS, show_default=True, help="The settings file.")
@click.option(
    "--file",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    help="The log in these files instead, oldest first: rotated ones, and the last; may be given again.",
)
@click.option("--daemon", is_flag=True, help="Have the daemon at the URL verify what is in its store; no file.")
@with_session
def verify_audit_log(session: CommandSession, config: str, files: tuple[str, ...], daemon: bool) -> None:
    """Find the first entry that was altered, removed or reordered: in the file, and in the store.

    Reads both where they are, without the daemon, with the encryption key. Ends with 0 where every entry is as it was
    written, with 1 where one is not, with 78 where that is unknown.
    """
    if daemon:
        if files:
            raise click.UsageError("The daemon verifies what is in its store: leave --file out.")
        verdict = session.client().request("GET", management_path("audit", "verify"))
        session.show(verdict)
        sys.exit(1 if verdict["problem"] else 0)
    with store_errors():
        settings = load(config, os.environ)
        reports = dict(_reports(settings, files, Keyring(parse_keys(encryption_keys(settings, os.environ)))))
    if session.output == "json":
        rows = [{"place": place, "entries": each.entries, "problem": each.problem} for place, each in reports.items()]
        echo(as_json({"data": rows}))
    else:
        for place, report in reports.items():
            echo(f"{place}: {_said(report)}")
    sys.exit(1 if any(report.problem for report in reports.values()) else 0)


def _reports(settings: Settings, files: tuple[str, ...], keyring: Keyring) -> Iterator[tuple[str, ChainReport]]:
    url = parse_store_url(settings.store.url)
    stored = sqlite_path(url)
    key = bytes(keyring.data_keys[AUDIT_LOG])
    if stored is None or stored.exists():
        engine = upgrade_engine(url, CONNECT_SECONDS)
        try:
            with engine.connect() as connection:
                key = _chain_key(connection, keyring)
                if settings.audit.store and not files:
                    yield "store", verify_table(connection, key)
        finally:
            engine.dispose()
    path = settings.audit.file
    if files:
        yield ", ".join(files), verify(partial(_lines, files), key)
    elif path and (Path(path).exists() or Path(path + HEAD_SUFFIX).exists()):
        yield path, verify(partial(_lines, (path,)), key, head=_head(path))


def _chain_key(connection: Connection, keyring: Keyring) -> bytes:
    """What keys the chain, also where another encryption key seals it now; without it, all would look altered."""
    try:
        return data_key(connection, keyring, AUDIT_LOG)
    except CannotOpen as e:
        raise WrongKey(
            "With this encryption key the chain cannot be checked: the database was made with another one. Set "
            "LLMPROXY_ENCRYPTION_KEY, or put the key file back."
        ) from e


def _lines(files: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for file in files:
        of_file = f"{file} " if len(files) > 1 else ""
        if not Path(file).exists():  # the settings' own, of which only the head is left
            continue
        with open(file, encoding="utf-8", errors="surrogatepass", newline="\n") as lines:
            yield from ((f"{of_file}line {number}", line.rstrip("\n")) for number, line in enumerate(lines, 1))


def _head(path: str) -> ChainLink | None:
    try:
        descriptor = os.open(path + HEAD_SUFFIX, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return read_head(descriptor)
    finally:
        os.close(descriptor)


def _said(report: ChainReport) -> str:
    more = [f"{report.unchained} older ones without a chain"] if report.unchained else []
    more += [f"{report.unfinished} lines broken off by a crash"] if report.unfinished else []
    of_these = f" ({', '.join(more)})" if more else ""
    if report.problem:
        return f"NOT as it was written: {report.problem}; {report.entries} entries before that are{of_these}"
    return f"{report.entries} entries, each as it was written{of_these}"
