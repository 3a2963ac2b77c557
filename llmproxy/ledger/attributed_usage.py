"""The ledger added up by what requests are attributed to, in SQL; of what clients claim only so many values a day."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from sqlalchemy import Connection, bindparam, delete, distinct, func, select

from llmproxy.base.attribution import CLAIMED, OTHER, decode
from llmproxy.ledger.line_rows import AttributedKey, attributed_key_of
from llmproxy.ledger.usage_queries import ATTRIBUTED_KEY_COLUMNS, SUM_COLUMNS
from llmproxy.model import LedgerLine
from llmproxy.store.tables import attributed_usage

MAX_MEMO_VALUES = 50_000
_REQUESTS, _UNPRICED = SUM_COLUMNS.index("requests"), SUM_COLUMNS.index("unpriced")

AttributedLines = Mapping[AttributedKey, Sequence[float]]  # their sums, in the order of SUM_COLUMNS
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
        self, connection: Connection, lines: AttributedLines, corrected: Sequence[LedgerLine] = ()
    ) -> tuple[list[tuple[object, ...]], int]:
        """What is to be added: L{ATTRIBUTED_KEY_COLUMNS}, then L{SUM_COLUMNS}; and how many lines are under L{OTHER}.

        @param lines: Their sums.
        @param corrected: Lines that were added up as unpriced, and are not any more.
        """
        less: dict[AttributedKey, list[float]] = {}
        for line in corrected:
            if line.attribution:
                known = less.setdefault(attributed_key_of(line), [0] * len(SUM_COLUMNS))
                known[_UNPRICED] -= 1
        if not lines and not less:
            return [], 0
        told_apart = self._values_told_apart(connection, [*lines, *less])
        sums: Sums = {}
        overflow = 0
        for key, more in (*lines.items(), *less.items()):
            for each in decode(key.attribution):
                value = each.value
                if each.source == CLAIMED and value not in told_apart[key.day, key.project_id, each.name]:
                    value, overflow = OTHER, overflow + int(more[_REQUESTS])
                of = (key.day, key.project_id, each.name, each.source, value, key.api, key.model)
                known = sums.setdefault(of, [0] * len(SUM_COLUMNS))
                for place, amount in enumerate(more):
                    known[place] += amount
        # In one order everywhere, so that two processes that add to the same rows never wait for each other.
        return [(*of, *values) for of, values in sorted(sums.items())], overflow

    def _values_told_apart(self, connection: Connection, keys: Iterable[AttributedKey]) -> Mapping[Day, set[str]]:
        """Of the values that these claim, those that have or get a row of their own."""
        claimed: dict[Day, set[str]] = {}
        for key in keys:
            for each in decode(key.attribution):
                values = claimed.setdefault((key.day, key.project_id, each.name), set())
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
