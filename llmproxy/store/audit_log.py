"""The audit log in the store: entries in a chain over all processes, to be filtered and searched."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, SupportsBytes

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update
from twisted.internet.defer import Deferred

from llmproxy.base.audit_chain import ChainLink, ChainReport, chained, verify
from llmproxy.base.timestamps import rfc3339
from llmproxy.errors import Invalid
from llmproxy.model import Page, PageRequest
from llmproxy.store.store import Store
from llmproxy.store.tables import audit_log, epochs

FIELDS = ("action", "actor", "outcome", "project_id", "token_id", "request_id", "client")
_LENGTHS = {name: audit_log.c[name].type.length for name in FIELDS}  # type: ignore[attr-defined]
PURGE_ACTION = "audit.purge"
ROWS_AT_ONCE = 1000


class AuditFilter(NamedTuple):
    """Which entries are wanted; what is left empty does not matter.

    @ivar projects: Only those that concern these; C{None} for all.
    @ivar since: Seconds since the epoch; C{until}: likewise, before that.
    @ivar search: What stands anywhere in the entry, in any case.
    """

    projects: tuple[str, ...] | None = None
    action: str = ""
    actor: str = ""
    outcome: str = ""
    token_id: str = ""
    since: float = 0.0
    until: float = 0.0
    search: str = ""


class AuditTable:
    """Appends entries, each in one transaction with its number, so that no process breaks the chain of another.

    @param key: Keys the chain; C{now}: seconds since the epoch.
    """

    def __init__(self, store: Store, key: SupportsBytes, now: Callable[[], float]) -> None:
        self._store = store
        self._key = key
        self._now = now

    def append(self, entries: list[tuple[float, str]], *, again: bool = False) -> Deferred[None]:
        """Fire when these are stored; each is its time and its text, a JSON object.

        L{StoreUnavailable} where the store does not respond.

        @param again: They may be stored already, by an attempt that was given up before its end: once is enough.
        """
        return self._store.write(partial(_append_all, entries=list(entries), key=bytes(self._key), again=again))

    def page(self, wanted: AuditFilter, request: PageRequest) -> Deferred[Page[dict[str, Any]]]:
        """Fire with a page of entries, the latest first; L{Invalid} where the cursor is none."""
        return self._store.report(partial(_page, wanted=wanted, request=request))

    def verify(self) -> Deferred[ChainReport]:
        """Fire with what all of it is found to be; that takes a second for some ten thousand entries."""
        return self._store.report(partial(verify_table, key=bytes(self._key)))

    def purge(self, before: float) -> Deferred[int]:
        """Remove what is older, and write down that it was; fire with how many entries that were."""
        return self._store.manage(partial(_purge, before=before, now=self._now(), key=bytes(self._key)))


def verify_table(connection: Connection, key: bytes) -> ChainReport:
    """Look at every row. What filters see must be what stands in the entry."""
    head = connection.scalar(select(epochs.c.number).where(epochs.c.name == "audit")) or 0
    purged = _purged(connection)
    report = verify(lambda: _places(connection), key, first=purged + 1)
    for row in () if report.problem else _rows(connection):
        entry = json.loads(row.line)
        if row.seq != entry["seq"] or any(getattr(row, name) != _stored(name, entry[name]) for name in FIELDS):
            return _with(report, f"row {row.seq} was altered: its columns are not what the entry says")
    if not report.problem and head > report.last.seq:
        missing = f"entry {head} is" if head == report.last.seq + 1 else f"entries {report.last.seq + 1} to {head} are"
        return _with(report, f"{missing} missing at the end")
    return report


def _with(report: ChainReport, problem: str) -> ChainReport:
    return ChainReport(report.entries, report.last, report.unchained, report.unfinished, problem)


def _purged(connection: Connection) -> int:
    """The number of the last entry that was removed because of its age, as the chain says."""
    last = select(audit_log.c.line).where(audit_log.c.action == PURGE_ACTION).order_by(audit_log.c.seq.desc()).limit(1)
    line = connection.scalar(last)
    return 0 if line is None else int(json.loads(line)["details"]["through"])


def _places(connection: Connection) -> Iterator[tuple[str, str]]:
    return ((f"row {row.seq}", row.line) for row in _rows(connection))


def _rows(connection: Connection) -> Iterator[Any]:
    seq = 0
    while rows := connection.execute(
        select(audit_log).where(audit_log.c.seq > seq).order_by(audit_log.c.seq).limit(ROWS_AT_ONCE)
    ).all():
        yield from rows
        seq = rows[-1].seq


def _append_all(connection: Connection, entries: list[tuple[float, str]], key: bytes, again: bool) -> None:
    for at, text in entries:
        if not again or not _is_stored(connection, at, text):
            _append(connection, at, text, key)


def _is_stored(connection: Connection, at: float, text: str) -> bool:
    begins = audit_log.c.line.startswith(text[:-1] + ",", autoescape=True)
    return connection.scalar(select(audit_log.c.seq).where(audit_log.c.at == at, begins).limit(1)) is not None


def _append(connection: Connection, at: float, text: str, key: bytes) -> None:
    """The counter's row stays locked until the commit: one process after the other."""
    connection.execute(update(epochs).where(epochs.c.name == "audit").values(number=epochs.c.number + 1))
    seq = connection.execute(select(epochs.c.number).where(epochs.c.name == "audit")).scalar_one()
    prev = connection.scalar(select(audit_log.c.hash).where(audit_log.c.seq == seq - 1)) or ""
    line, link = chained(text, ChainLink(seq - 1, prev), key)
    entry = json.loads(text)
    values = {name: _stored(name, entry[name]) for name in FIELDS}
    connection.execute(insert(audit_log).values(seq=seq, at=at, line=line, hash=link.hash, **values))


def _stored(name: str, value: str) -> str:
    return value.replace("\0", "").encode("utf-8", "replace").decode()[: _LENGTHS[name]]


def _page(connection: Connection, wanted: AuditFilter, request: PageRequest) -> Page[dict[str, Any]]:
    if request.cursor and not (request.cursor.isascii() and request.cursor.isdigit() and len(request.cursor) < 19):
        raise Invalid.part("parameter", "cursor", "is none that this list has given out.")
    conditions = _conditions(wanted)
    chosen = select(audit_log.c.seq, audit_log.c.line).where(*conditions)
    if request.cursor:
        chosen = chosen.where(audit_log.c.seq < int(request.cursor))
    ordered = chosen.order_by(audit_log.c.seq.desc()).limit(request.limit + 1).offset(request.offset)
    rows = connection.execute(ordered).all()
    items = rows[: request.limit]
    counted = select(func.count()).select_from(audit_log).where(*conditions)
    total = None if request.cursor else connection.scalar(counted)
    return Page([json.loads(row.line) for row in items], total, str(items[-1].seq) if len(rows) > len(items) else "")


def _conditions(wanted: AuditFilter) -> list[ColumnElement[bool]]:
    names = ("action", "actor", "outcome", "token_id")
    found = [audit_log.c[name] == getattr(wanted, name) for name in names if getattr(wanted, name)]
    if wanted.projects is not None:
        found.append(audit_log.c.project_id.in_(wanted.projects))
    if wanted.since:
        found.append(audit_log.c.at >= wanted.since)
    if wanted.until:
        found.append(audit_log.c.at < wanted.until)
    if wanted.search:
        found.append(audit_log.c.line.icontains(wanted.search, autoescape=True))
    return found


def _purge(connection: Connection, before: float, now: float, key: bytes) -> int:
    newest = select(func.max(audit_log.c.seq)).scalar_subquery()
    old = select(func.max(audit_log.c.seq)).where(audit_log.c.at < before, audit_log.c.seq < newest)
    through = connection.scalar(old)
    if through is None:
        return 0
    fields = dict.fromkeys(FIELDS, "") | {"action": PURGE_ACTION, "actor": "proxy", "outcome": "success"}
    text = json.dumps({"at": _rfc3339(now), **fields, "details": {"through": through}}, separators=(",", ":"))
    _append(connection, now, text, key)
    return connection.execute(delete(audit_log).where(audit_log.c.seq <= through)).rowcount


def _rfc3339(at: float) -> str:

    return rfc3339(at, digits=6)
