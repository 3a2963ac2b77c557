"""Lines of the ledger as the store has them, with their sums.

What many lines have in common is a row of its own, their kind; a line is its kind's number, that of the run that its id
begins with, and numbers. Kinds and runs are numbered by what they are: no process need ask another for a number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection, String, bindparam, update

from llmproxy.base.budgets import ChargedUse, nano
from llmproxy.base.timestamps import utc_day
from llmproxy.ledger.sum_rows import write
from llmproxy.ledger.usage_queries import SUM_COLUMNS
from llmproxy.model import LedgerLine
from llmproxy.store.tables import ledger, ledger_kinds, ledger_lines, ledger_runs

MAX_COUNT = 2**63 - 1
MAX_LINE_NUMBER = 2**40 - 1  # that an id has ten hexadecimal digits for
WHOLE_ID = -1  # the number of a line whose id is all in its run's name

_FIELDS = LedgerLine._fields
_KIND = slice(_FIELDS.index("project_id"), _FIELDS.index("stream") + 1)
_AT_FIRST = slice(_FIELDS.index("at"), _FIELDS.index("request_id") + 1)
_COUNTS = slice(_FIELDS.index("input_tokens"), _FIELDS.index("bytes_out") + 1)
_REST = slice(_COUNTS.start, len(_FIELDS))
KIND_FIELDS = _FIELDS[_KIND]
LINE_COLUMNS = ("run_id", "number", "kind_id", *_FIELDS[_AT_FIRST], *_FIELDS[_REST])
_PROJECT, _API, _MODEL, _ANSWERED = map(KIND_FIELDS.index, ("project_id", "api", "model", "answered"))
_CHARGED = [KIND_FIELDS.index(name) for name in ("project_id", "token_id", "api")]
_KIND_ID, _AT, _INPUT, _OUTPUT, _COST = map(
    LINE_COLUMNS.index, ("kind_id", "at", "input_tokens", "output_tokens", "cost_usd")
)
_tokens, _cost = [itemgetter(column) for column in range(_INPUT, _COST)], itemgetter(_COST)
_WIDTHS = {column.name: column.type.length or 0 for column in ledger.c if isinstance(column.type, String)}
REQUEST_ID_CHARS, ATTRIBUTION_CHARS = _WIDTHS["request_id"], _WIDTHS["attribution"]
_RUN_CHARS = _WIDTHS["id"]
_KIND_WIDTHS = [(at, _WIDTHS[name]) for at, name in enumerate(KIND_FIELDS) if name in _WIDTHS]
_NUMBERED_ID = re.compile(r"(.+)-([0-9a-f]{10})", re.DOTALL)

_INTO_LINES = f"INSERT INTO {ledger_lines.name} ({', '.join(LINE_COLUMNS)})"
_INTO_KINDS = f"INSERT INTO {ledger_kinds.name} (id, used_on, {', '.join(KIND_FIELDS)})"
_INTO_RUNS = f"INSERT INTO {ledger_runs.name} (id, used_on, name)"
_UNLESS_THERE = "ON CONFLICT (id) DO NOTHING"
_USED = {
    table.name: update(table)
    .where(table.c.id == bindparam("wanted"), table.c.used_on < bindparam("today"))
    .values(used_on=bindparam("today"))
    for table in (ledger_kinds, ledger_runs)
}
if set(LINE_COLUMNS) != set(ledger_lines.c.keys()):
    raise ImportError("The columns of the ledger's lines are not those that lines are made of.")


class AttributedKey(NamedTuple):
    """What lines have in common that are added up by what they are attributed to.

    @ivar attribution: As L{llmproxy.base.attribution} writes it.
    """

    day: str
    project_id: str
    api: str
    model: str
    attribution: str


class StoredKind(NamedTuple):
    """What lines have in common, as every database takes it.

    @ivar values: L{KIND_FIELDS}.
    """

    id: int
    values: tuple[Any, ...]


class KindOfDay(NamedTuple):
    """What is known of lines of one kind and day.

    @ivar day: Since the epoch.
    @ivar total: The sum that they are added to, in the order of L{SUM_COLUMNS}.
    @ivar failed: What each adds to that sum; so have C{estimated} and, where it has no price, C{unpriced}.
    @ivar attempts: How often each was sent, if it is usual.
    """

    day: float
    total: list[Any]
    kind_id: int
    failed: int
    estimated: int
    unpriced: int
    attempts: int

    def add(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Count these in the sum: L{LINE_COLUMNS} of each."""
        total, count = self.total, len(rows)
        priced = [cost for cost in map(_cost, rows) if cost is not None]
        total[0] += count
        total[1] += self.failed * count
        total[2] += self.estimated * count
        total[3] += self.unpriced * (count - len(priced))
        for place, tokens in enumerate(_tokens, 4):
            total[place] += sum(map(tokens, rows))
        total[9] = sum(priced, total[9])


class LineRows:
    """Lines that are entered together.

    @ivar rows: L{LINE_COLUMNS} of each; C{kinds} and C{runs}: what they refer to.
    @ivar attributed: The sums of those that are attributed to anybody, in the order of L{SUM_COLUMNS}, by an
        L{AttributedKey}.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []
        self.kinds: dict[int, tuple[Any, ...]] = {}
        self.runs: dict[int, str] = {}
        self.attributed: dict[AttributedKey, list[Any]] = {}
        self._sums: dict[tuple[str, ...], list[Any]] = {}
        self._last_day = 0

    def __len__(self) -> int:
        return len(self.rows)

    def with_lines(self, lines: Sequence[LedgerLine]) -> LineRows:
        """These and further ones."""
        if not lines:
            return self
        both = LineRows()
        both.rows, both.kinds, both.runs = list(self.rows), dict(self.kinds), dict(self.runs)
        both.attributed = {key: list(total) for key, total in self.attributed.items()}
        both._last_day = self._last_day
        both._sums = {key: list(total) for key, total in self._sums.items()}
        for line in lines:
            both.add(line)
        return both

    def kind_of_day(self, common: tuple[Any, ...], at: float) -> KindOfDay:
        """For lines of that kind and the day of this time, which are to be counted in its sum.

        @param common: L{KIND_FIELDS}.
        """
        self._last_day = max(self._last_day, int(at // 86400))
        kind_id, values = stored_kind(common)
        self.kinds[kind_id] = values
        kind = dict(zip(KIND_FIELDS, values, strict=True))
        key = (utc_day(at), kind["project_id"], kind["token_id"], kind["api"], kind["answered"] or kind["model"])
        total = self._sums.get(key)
        if total is None:
            total = self._sums[key] = _no_sum()
        return KindOfDay(
            at // 86400,
            total,
            kind_id,
            failed=kind["outcome"] == "failed",
            estimated=kind["basis"] == "estimated",
            unpriced=kind["basis"] != "none",  # it used something that costs
            attempts=0 if kind["upstream_status"] is None else 1,
        )

    def run_id(self, name: str) -> int:
        """The number of a run, for lines whose ids begin with its name."""
        run_id = number_of(name)
        self.runs[run_id] = name
        return run_id

    def add(self, line: LedgerLine) -> None:
        """Any line, whatever is in it."""
        numbered = _NUMBERED_ID.fullmatch(line.id)
        name, number = (numbered[1], int(numbered[2], 16)) if numbered else (line.id, WHOLE_ID)
        fields: tuple[Any, ...] = line
        counts = [value if value is None else min(value, MAX_COUNT) for value in fields[_COUNTS]]
        request_id = storable_text(line.request_id, REQUEST_ID_CHARS)
        attribution = storable_text(line.attribution, ATTRIBUTION_CHARS)
        rest = (*counts, attribution, line.attempts, storable_text(line.attempted, _WIDTHS["attempted"]))
        known = self.kind_of_day(fields[_KIND], line.at)
        run_id = self.run_id(storable_text(name, _RUN_CHARS))
        self.rows.append((run_id, number, known.kind_id, line.at, line.duration, request_id, *rest))
        totals = [known.total]
        if attribution:
            totals.append(self.attributed_sum(attributed_key(fields[_KIND], line.at, attribution)))
        for total in totals:
            for place, more in enumerate((1, known.failed, known.estimated)):
                total[place] += more
            for place, count in enumerate(counts[:5], 4):
                total[place] += count
            if line.cost_usd is None:
                total[3] += known.unpriced
            else:
                total[9] += line.cost_usd

    def attributed_sum(self, key: AttributedKey) -> list[Any]:
        """The sum of lines that are attributed so."""
        total = self.attributed.get(key)
        if total is None:
            total = self.attributed[key] = _no_sum()
        return total

    def lines(self) -> Iterator[LedgerLine]:
        """All of them as lines."""
        for run_id, number, kind_id, at, duration, request_id, *rest in self.rows:
            run = self.runs[run_id]
            line_id = run if number == WHOLE_ID else f"{run}-{number:010x}"
            yield LedgerLine(line_id, at, duration, request_id, *self.kinds[kind_id], *rest)

    def uses(self) -> list[ChargedUse]:
        """What they used, as budgets are charged with it: each line's dollars in whole nano-dollars."""
        found: dict[tuple[int, float], list[int]] = {}
        for row in self.rows:
            key = row[_KIND_ID], row[_AT] // 86400
            sums = found.get(key)
            if sums is None:
                sums = found[key] = [0, 0]
            sums[0] += row[_INPUT] + row[_OUTPUT]
            if cost := row[_COST]:
                sums[1] += nano(cost)
        return [
            ChargedUse(day * 86400, *itemgetter(*_CHARGED)(self.kinds[kind_id]), *sums)
            for (kind_id, day), sums in found.items()
        ]

    def sums(self) -> list[tuple[Any, ...]]:
        """What they add up to: L{KEY_COLUMNS}, then L{SUM_COLUMNS}.

        In one order everywhere, so that two processes that add to the same rows never wait for each other.
        """
        return [(*key, *values) for key, values in sorted(self._sums.items())]

    def used_on(self, now: float) -> int:
        """The day on which what they have in common was used last; whatever the clocks of others say."""
        return max(int(now // 86400), self._last_day)

    def insert(self, connection: Connection, now: float, used: Mapping[int, int]) -> None:
        """Enter them.

        @param used: Kinds and runs that are in the store, with the day on which each was used last at least.
        """
        today = self.used_on(now)
        kinds = [
            (kind_id, today, *values) for kind_id, values in sorted(self.kinds.items()) if used.get(kind_id, -1) < today
        ]
        runs = [(run_id, today, name) for run_id, name in sorted(self.runs.items()) if used.get(run_id, -1) < today]
        for table, into, rows in ((ledger_kinds, _INTO_KINDS, kinds), (ledger_runs, _INTO_RUNS, runs)):
            if rows:
                write(connection, into, len(rows[0]), rows, _UNLESS_THERE)
                connection.execute(_USED[table.name], [{"wanted": row[0], "today": today} for row in rows])
        write(connection, _INTO_LINES, len(LINE_COLUMNS), self.rows)


@lru_cache(4096)
def stored_kind(common: tuple[Any, ...]) -> StoredKind:
    """What lines have in common, none of it longer than its column, and with its number."""
    values = list(common)
    for at, width in _KIND_WIDTHS:
        values[at] = storable_text(values[at], width)
    return StoredKind(number_of(json.dumps(values)), tuple(values))


@lru_cache(1024)
def number_of(text: str) -> int:
    """A number that no other text has, as far as one need care: 63 bits of its hash."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def storable_text(text: str, width: int) -> str:
    """As every database takes it: no longer than its column, and without the character that PostgreSQL has not."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()[:width]


def delete_unused(connection: Connection, before: int) -> None:
    """Forget kinds and runs that were used last before this day, and of which no line is left."""
    for table in (ledger_kinds, ledger_runs):
        connection.execute(table.delete().where(table.c.used_on < before))


def attributed_key_of(line: LedgerLine) -> AttributedKey:
    """By what a line is added up that is attributed to somebody."""
    fields: tuple[Any, ...] = line
    return attributed_key(fields[_KIND], line.at, storable_text(line.attribution, ATTRIBUTION_CHARS))


def attributed_key(common: tuple[Any, ...], at: float, attribution: str) -> AttributedKey:
    """
    @param common: L{KIND_FIELDS}.
    """
    values = stored_kind(common).values
    return AttributedKey(utc_day(at), values[_PROJECT], values[_API], values[_ANSWERED] or values[_MODEL], attribution)


def _no_sum() -> list[Any]:
    return [0] * (len(SUM_COLUMNS) - 1) + [0.0]
