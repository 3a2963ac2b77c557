"""What goes on: requests, tokens, spend and times to the first byte, by stretches of time, for all who share the store.

It is nice to have: the ledger has what must be right. What the store does not take is kept for a while, then dropped
and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from sqlalchemy import Connection
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from llmproxy.base.background import Loop
from llmproxy.base.coroutines import deferred, within
from llmproxy.base.memo import BoundedMemo
from llmproxy.base.peers import Peers
from llmproxy.brief_record import MAX_KINDS, BriefRecord, RecordKind
from llmproxy.errors import ProxyError, StoreUnavailable
from llmproxy.instruments import Counter, Instrument
from llmproxy.interfaces import IInstrumented
from llmproxy.model import RequestRecord
from llmproxy.observability.first_byte_times import CLASS_COUNT, percentile, time_class
from llmproxy.store.activity import (
    EVERYTHING,
    ActivityQuery,
    add_activity,
    purge_activity,
    read_activity,
    read_most_active,
)

T = TypeVar("T")

DAY_SECONDS = 86400
# Seconds of each stretch, and for how long it is kept.
STRETCH_SECONDS = 300
STEPS = {STRETCH_SECONDS: 2 * DAY_SECONDS, 3600: 40 * DAY_SECONDS, DAY_SECONDS: 800 * DAY_SECONDS}
FLUSH_SECONDS = 3.0  # between two writes
LAST_FLUSH_SECONDS = 3.0  # that stopping waits for the last one
PURGE_SECONDS = 3600.0  # between two removals of what is old
FIRST_PURGE_SECONDS = 5.0  # after the start: a process may never get an hour old
MAX_WAITING_KEYS = 20_000  # stretches that wait for the store; what comes on top is dropped

GROUPS = {"project": "project_id", "api": "api", "model": "model"}  # the columns of what can be told apart

_Key = tuple[int, str, str, str]
_HITS = frozenset(("hit", "revalidated", "coalesced", "stale"))
_SUMS = 7  # in the order of L{ACTIVITY_SUMS}, before the classes of times
_REQUESTS, _FAILED, _REFUSED, _CACHE_HITS, _INPUT, _OUTPUT, _COST = range(_SUMS)


class Period(NamedTuple):
    """What can be looked at: so many seconds until now, in points of so many, read from rows of so many."""

    seconds: int
    point: int
    step: int


PERIODS: Mapping[str, Period] = {
    "1h": Period(3600, 300, 300),
    "24h": Period(DAY_SECONDS, 1800, 300),
    "7d": Period(7 * DAY_SECONDS, 3 * 3600, 3600),
    "30d": Period(30 * DAY_SECONDS, DAY_SECONDS, DAY_SECONDS),
    "90d": Period(90 * DAY_SECONDS, DAY_SECONDS, DAY_SECONDS),
    "365d": Period(364 * DAY_SECONDS, 7 * DAY_SECONDS, DAY_SECONDS),
}


class ActivitySum(NamedTuple):
    """What went on in a stretch of time.

    @ivar at: When it began, in seconds since the epoch.
    @ivar failed: Requests that ended in an error or broken, of the provider or of this proxy; C{refused}: those that
        this proxy did not admit.
    @ivar p50: Seconds to the first byte within which half of the responses came; C{None} without any. C{p95} likewise.
    """

    at: float
    requests: int
    failed: int
    refused: int
    cache_hits: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    p50: float | None
    p95: float | None


class ActivityReport(NamedTuple):
    """Points of a period, without gaps, oldest first; all of it; and all of the period before."""

    step: int
    points: list[ActivitySum]
    total: ActivitySum
    before: ActivitySum


class ActivityStore(Protocol):
    """What is asked of the store."""

    def write(self, work: Callable[[Connection], T]) -> Deferred[T]: ...

    def report(self, work: Callable[[Connection], T]) -> Deferred[T]: ...


@implementer(IInstrumented)
class Activity(Service):
    """Adds finished requests up, and writes the sums into the store every few seconds.

    @ivar dropped: Requests that are in no sum, because the store took none for too long.
    """

    name = "activity"

    def __init__(
        self, store: ActivityStore, clock: IReactorTime, now: Callable[[], float], peers: Peers | None = None
    ) -> None:
        """
        @param peers: Other workers, which add to the same sums.
        """
        self._peers = peers or Peers()
        self._peers.register("activity.flush", lambda body: self.flush())
        self._store = store
        self._clock = clock
        self._now = now
        self._sums: dict[_Key, list[Any]] = {}
        self._stretch = 0
        # Of these, in this stretch of time.
        self._kept: BoundedMemo[RecordKind, tuple[list[Any], tuple[int, ...]]] = BoundedMemo(MAX_KINDS)
        self._writing = Loop("activity", self.flush, FLUSH_SECONDS, clock)
        self._purging = Loop("activity_purge", self._purge, PURGE_SECONDS, clock)
        self.tasks = (self._writing, self._purging)
        self.dropped = 0

    def instruments(self) -> Iterator[Instrument]:
        yield Counter("activity_dropped", "Requests that the overview misses.", lambda: self.dropped)

    def startService(self) -> None:
        Service.startService(self)
        self._writing.start()
        self._purging.start(after=FIRST_PURGE_SECONDS)

    @deferred
    async def stopService(self) -> None:
        Service.stopService(self)
        self._writing.stop()
        self._purging.stop()
        try:
            await within(LAST_FLUSH_SECONDS, self._clock, self.flush(), StoreUnavailable())
        except ProxyError:
            pass
        self.dropped += sum(each[_REQUESTS] for each in self._sums.values())

    def observe_all(self, records: Iterable[BriefRecord]) -> None:
        """Add finished requests. Without a call for each: under load a turn of the reactor has many."""
        kept = self._kept
        for record in records:
            kind, figures = record.kind, record.figures
            stretch = int(record.started_at) // STRETCH_SECONDS
            if stretch != self._stretch:
                kept.clear()
                self._stretch = stretch
            found = kept.get(kind) or self._sums_for(kind, stretch)
            if found is None:
                self.dropped += 1
                continue
            sums, counts = found
            for place in counts:
                sums[place] += 1
            cost, first_byte = figures.cost_usd, figures.first_byte
            sums[_INPUT] += figures.input_tokens
            sums[_OUTPUT] += figures.output_tokens
            if cost is not None:
                sums[_COST] += cost
            if first_byte is not None:
                sums[_SUMS + time_class(first_byte)] += 1

    def _sums_for(self, kind: RecordKind, stretch: int) -> tuple[list[Any], tuple[int, ...]] | None:
        """Where a record of this kind counts, in this stretch of time, and what it is one of; C{None} where there is no
        room for it."""
        own = kind.sample
        # Only models that a provider has answered with: names that clients make up would each have a row.
        key = (stretch, own.project_id, own.api, own.answered)
        sums = self._sums.get(key)
        if sums is None:
            if len(self._sums) >= MAX_WAITING_KEYS:
                return None
            sums = self._sums[key] = [0] * (_SUMS + CLASS_COUNT)
        found = sums, _counts(own)
        if kind.is_kept:
            self._kept[kind] = found
        return found

    @deferred
    async def flush(self) -> None:
        """Write what has been added up; kept for the next time where the store does not take it."""
        sums, self._sums = self._sums, {}
        self._kept.clear()
        if not sums:
            return
        rows = _rows(sums)
        try:
            await self._store.write(lambda connection: add_activity(connection, rows))
        except StoreUnavailable:
            for key, values in sums.items():
                self._put_back(key, values)

    def _put_back(self, key: _Key, values: list[Any]) -> None:
        known = self._sums.get(key)
        if known is not None:
            known[:] = _added(known, values)
        elif len(self._sums) < MAX_WAITING_KEYS:
            self._sums[key] = values
        else:
            self.dropped += values[_REQUESTS]

    async def _purge(self) -> None:
        old = [(step, self._now() - kept) for step, kept in STEPS.items()]
        try:
            await self._store.write(lambda connection: purge_activity(connection, old))
        except StoreUnavailable:
            pass  # in an hour, then

    @deferred
    async def report(self, period: str, projects: Collection[str] | None = None, api: str = "") -> ActivityReport:
        """Fire with what went on in one of the L{PERIODS} until now; L{StoreUnavailable} where nobody can tell.

        @param projects: Only these; C{None} for all.
        """
        seconds, point, step = PERIODS[period]
        until = (int(self._now()) // point + 1) * point
        middle, since = until - seconds, until - 2 * seconds
        await self._latest()
        query = ActivityQuery(step, since, until, projects, api)
        rows = await self._store.report(lambda connection: read_activity(connection, query))
        return _report(rows, since, middle, until, point)

    @deferred
    async def most_active(
        self, by: str, period: str, limit: int, projects: Collection[str] | None = None, api: str = ""
    ) -> list[tuple[str, ActivitySum]]:
        """Fire with those of L{GROUPS} that most was spent on in this period, the most first; without times."""
        seconds, point, step = PERIODS[period]
        until = (int(self._now()) // point + 1) * point
        step = max(step, 3600) if seconds >= DAY_SECONDS else step  # twelve times fewer rows; up to an hour more
        await self._latest()
        query = ActivityQuery(step, (until - seconds) // step * step, until, projects, api)
        rows = await self._store.report(lambda connection: read_most_active(connection, query, GROUPS[by], limit))
        return [(str(name), _sum(query.since, values)) for name, *values in rows]

    async def _latest(self) -> None:
        elsewhere = self._peers.ask("activity.flush")
        try:
            await within(LAST_FLUSH_SECONDS, self._clock, self.flush(), StoreUnavailable())
        except StoreUnavailable:
            pass  # then without the latest seconds
        await elsewhere


def _rows(sums: Mapping[_Key, Sequence[Any]]) -> list[tuple[Any, ...]]:
    """The rows of all steps that these belong to, each key once."""
    rows: dict[tuple[Any, ...], Sequence[Any]] = {}
    for (number, *names), values in sums.items():
        storable = [_storable(name, width) for name, width in zip(names, (255, 255, 128), strict=True)]
        for step in STEPS:
            at = number * STRETCH_SECONDS // step * step
            for key in ((step, at, *storable), (step, at, EVERYTHING, EVERYTHING, EVERYTHING)):
                known = rows.get(key)
                rows[key] = values if known is None else _added(known, values)
    return [(*key, *values) for key, values in rows.items()]


def _counts(record: RequestRecord) -> tuple[int, ...]:
    """The sums to which it adds one."""
    counts = [_REQUESTS]
    if record.outcome == "refused":
        counts.append(_REFUSED)
    elif record.outcome != "cancelled" and (record.outcome != "complete" or record.status >= 400):
        counts.append(_FAILED)
    if record.cache in _HITS:
        counts.append(_CACHE_HITS)
    return tuple(counts)


def _storable(text: str, width: int) -> str:
    return text.replace("\0", "").encode("utf-8", "replace").decode()[:width]


def _added(one: Sequence[Any], other: Sequence[Any]) -> list[Any]:
    return [a + b for a, b in zip(one, other, strict=True)]


def _report(rows: Sequence[Sequence[Any]], since: int, middle: int, until: int, point: int) -> ActivityReport:
    nothing = [0] * (_SUMS + CLASS_COUNT)
    points = dict.fromkeys(range(middle, until, point), nothing)
    before = nothing
    for at, *values in rows:
        if at < middle:
            before = _added(before, values)
        else:
            start = middle + (at - middle) // point * point
            points[start] = _added(points[start], values)
    total = nothing
    for values in points.values():
        total = _added(total, values)
    return ActivityReport(
        point, [_sum(at, values) for at, values in points.items()], _sum(middle, total), _sum(since, before)
    )


def _sum(at: float, values: Sequence[Any]) -> ActivitySum:
    classes = [int(value) for value in values[_SUMS:]]
    requests, failed, refused, cache_hits, input_tokens, output_tokens = (int(value) for value in values[:_COST])
    return ActivitySum(
        at,
        requests,
        failed,
        refused,
        cache_hits,
        input_tokens,
        output_tokens,
        float(values[_COST]),
        percentile(classes, 0.5),
        percentile(classes, 0.95),
    )
