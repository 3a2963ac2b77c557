"""The ledger added up by what requests are attributed to, in SQL; of what clients claim only so many values a day."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from sqlalchemy import Connection, bindparam, delete, distinct, func, select

from llmproxy.base.attribution import CLAIMED, OTHER, Attributed, decode
from llmproxy.base.timestamps import utc_day
from llmproxy.ledger.usage_queries import ATTRIBUTED_KEY_COLUMNS, SUM_COLUMNS
from llmproxy.model import LedgerLine
from llmproxy.store.tables import attributed_usage

MAX_MEMO_VALUES = 50_000

Sums = dict[tuple[str, ...], list[float]]
Day = tuple[str, str, str]  # and the project, and the name of the attribution


class AttributedSums:
    """Adds lines up. For one transaction at a time.

    @ivar max_values: How many different values that clients claim are told apart, of one attribution of a project and
        day. Processes that see a new one at the same moment may each add it.
    """

    def __init__(self, max_values: int) -> None:
        self.max_values = max_values
        self._known: dict[Day, set[str]] = {}

    def rows(
        self, connection: Connection, lines: Sequence[LedgerLine], corrected: Sequence[LedgerLine] = ()
    ) -> tuple[list[tuple[object, ...]], int]:
        """What is to be added: L{ATTRIBUTED_KEY_COLUMNS}, then L{SUM_COLUMNS}; and how many lines are under L{OTHER}.

        @param corrected: Lines that were added up as unpriced, and are not any more.
        """
        lines = [line for line in lines if line.attribution]
        corrected = [line for line in corrected if line.attribution]
        if not lines and not corrected:
            return [], 0
        told_apart = self._values_told_apart(connection, [*lines, *corrected])
        sums: Sums = {}
        overflow = 0
        for line in lines:
            more = _sums_of(line)
            for each in decode(line.attribution):
                day = (utc_day(line.at), line.project_id, each.name)
                value = each.value
                if each.source == CLAIMED and value not in told_apart[day]:
                    value, overflow = OTHER, overflow + 1
                _add(sums, line, each, value, more)
        for line in corrected:
            for each in decode(line.attribution):
                day = (utc_day(line.at), line.project_id, each.name)
                value = each.value if each.source != CLAIMED or each.value in told_apart[day] else OTHER
                _add(sums, line, each, value, _LESS_UNPRICED)
        # In one order everywhere, so that two processes that add to the same rows never wait for each other.
        return [(*key, *values) for key, values in sorted(sums.items())], overflow

    def _values_told_apart(self, connection: Connection, lines: Sequence[LedgerLine]) -> Mapping[Day, set[str]]:
        """Of the values that these claim, those that have or get a row of their own."""
        claimed: dict[Day, set[str]] = {}
        for line in lines:
            for each in decode(line.attribution):
                values = claimed.setdefault((utc_day(line.at), line.project_id, each.name), set())
                if each.source == CLAIMED:
                    values.add(each.value)
        return {day: self._of_day(connection, day, values) for day, values in sorted(claimed.items())}

    def _of_day(self, connection: Connection, day: Day, values: set[str]) -> set[str]:
        known = self._known.get(day, set())
        unknown = sorted(values - known)
        if not unknown:
            return values
        wanted = dict(zip(("day", "project", "attribution"), day, strict=True))
        stored = set(connection.scalars(_STORED, {**wanted, "wanted": unknown}))
        self._remember(day, stored)
        fresh = [value for value in unknown if value not in stored]
        if fresh:
            room = self.max_values - int(connection.scalar(_COUNT, wanted) or 0)
            fresh = fresh[: max(room, 0)]
        return (values & known) | stored | set(fresh)

    def _remember(self, day: Day, stored: set[str]) -> None:
        """What has a row keeps it: these need not be looked for again."""
        if sum(map(len, self._known.values())) + len(stored) > MAX_MEMO_VALUES:
            self._known.clear()
        self._known.setdefault(day, set()).update(stored)


def fold(
    connection: Connection,
    days_before: str,
    limit: int,
    write: Callable[[Connection, Sequence[tuple[object, ...]]], object],
) -> int:
    """Fold at most so many rows of days before this one into their months; how many they were."""
    of_days = (attributed_usage.c.period < days_before, func.length(attributed_usage.c.period) == 10)
    days = [tuple(row) for row in connection.execute(select(attributed_usage).where(*of_days).limit(limit))]
    if days:
        width = len(ATTRIBUTED_KEY_COLUMNS)
        months: Sums = {}
        for row in days:
            known = months.setdefault((row[0][:7], *row[1:width]), [0] * len(SUM_COLUMNS))
            for place, value in enumerate(row[width:]):
                known[place] += value
        write(connection, [(*key, *values) for key, values in sorted(months.items())])
        keys = [{f"old_{name}": row[at] for at, name in enumerate(ATTRIBUTED_KEY_COLUMNS)} for row in days]
        old = (attributed_usage.c[name] == bindparam(f"old_{name}") for name in ATTRIBUTED_KEY_COLUMNS)
        connection.execute(delete(attributed_usage).where(*old), keys)
    return len(days)


def _add(sums: Sums, line: LedgerLine, each: Attributed, value: str, more: Sequence[float]) -> None:
    model = _model(line.answered or line.model)
    key = (utc_day(line.at), line.project_id, each.name, each.source, value, line.api, model)
    known = sums.setdefault(key, [0] * len(SUM_COLUMNS))
    for place, amount in enumerate(more):
        known[place] += amount


@lru_cache(1024)
def _model(name: str) -> str:
    return name.replace("\0", "").encode("utf-8", "replace").decode()[:128]


def _sums_of(line: LedgerLine) -> tuple[float, ...]:
    return (
        1,
        line.outcome == "failed",
        line.basis == "estimated",
        line.cost_usd is None and line.basis != "none",
        line.input_tokens,
        line.cached_tokens,
        line.cache_write_tokens,
        line.output_tokens,
        line.reasoning_tokens,
        line.cost_usd or 0.0,
    )


_LESS_UNPRICED = tuple(-1 if name == "unpriced" else 0 for name in SUM_COLUMNS)
_OF_DAY = (
    attributed_usage.c.period == bindparam("day"),
    attributed_usage.c.project_id == bindparam("project"),
    attributed_usage.c.name == bindparam("attribution"),
    attributed_usage.c.source == CLAIMED,
)
_STORED = (
    select(attributed_usage.c.value)
    .distinct()
    .where(*_OF_DAY, attributed_usage.c.value.in_(bindparam("wanted", expanding=True)))
)
_COUNT = select(func.count(distinct(attributed_usage.c.value))).where(*_OF_DAY, attributed_usage.c.value != OTHER)
