"""What reports ask of the ledger's sums, in SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Select, Table, Text, and_, cast, func, literal_column, or_, select
from twisted.internet.defer import Deferred

from llmproxy.model import Page, PageRequest
from llmproxy.store.export import Export
from llmproxy.store.tables import attributed_usage, project_usage, projects, usage

KEY_COLUMNS = ("period", "project_id", "token_id", "api", "model")
PROJECT_KEY_COLUMNS = ("period", "project_id", "api", "model")  # of the sums without tokens
ATTRIBUTED_KEY_COLUMNS = ("period", "project_id", "name", "source", "value", "api", "model")
SUM_COLUMNS = (
    "requests",
    "failed",
    "estimated",
    "unpriced",
    "input_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_usd",
)
GROUP_COLUMNS: Mapping[str, str] = {
    "project": "project_id",
    "token": "token_id",
    "api": "api",
    "model": "model",
    "day": "period",
    "month": "period",
    "group": "group_id",
    "attribution_value": "value",
    "attribution_source": "source",
    "project_name": "name",
    "project_labels": "labels",
    "project_metadata": "metadata",
}
OF_PROJECTS = ("project_name", "project_labels", "project_metadata")  # what is shown of a row's project beside its id
ATTRIBUTED = ("attribution_value", "attribution_source")


class UsageQuery(NamedTuple):
    """What a report is asked for.

    @ivar by: Names of L{GROUP_COLUMNS}, and C{attribution}.
    @ivar attribution: The name of one, where the report tells its values apart; C{""} where not. Its tokens are then
        not to be told apart.
    @ivar since: The first day, such as C{2026-11-01}; C{until} the day behind the last; C{""} for no end.
    @ivar projects: Only what these used; C{None} for all, and for what belongs to none.
    """

    by: tuple[str, ...]
    since: str = ""
    until: str = ""
    projects: tuple[str, ...] | None = None
    part: PageRequest = PageRequest()
    attribution: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """What the rows are told apart by, in order: an attribution's values are told apart by their source too."""
        return tuple(
            column
            for name in self.by
            for column in (ATTRIBUTED if name == self.attribution else ("group_id",) if name == "group" else (name,))
        )


Report = Page[dict[str, Any]]


class ReportRows:
    """All rows of a report, part by part; to be closed."""

    def __init__(self, export: Export, wanted: Select[Any]) -> None:
        self._export = export
        self._wanted = wanted

    def part(self, render: Callable[[Sequence[Sequence[Any]]], bytes]) -> Deferred[bytes]:
        """Fire with the next rows as C{render} writes them, in a thread; with C{b""} at the end.

        A row has the columns of the question, which are text, then L{SUM_COLUMNS}, as the database gives them: a dict
        of each would take longer than all the rest.
        """
        return self._export.part(self._wanted, render)

    def close(self) -> Deferred[None]:
        return self._export.close()


def sums_table(question: UsageQuery) -> Table:
    """The smaller one, where it tells what is asked for."""
    if question.attribution:
        return attributed_usage
    return usage if "token" in question.by else project_usage


def group_columns(question: UsageQuery) -> list[Any]:
    """What its rows are told apart by, in its order."""
    table = sums_table(question)
    return [group_column(table, name) for name in question.columns]


def group_column(table: Table, name: str) -> Any:
    if name == "group_id":  # that of the project now
        return func.coalesce(projects.c.group_id, "")
    if name in OF_PROJECTS:  # as they are now; labels and metadata are JSON
        return func.coalesce(cast(projects.c[GROUP_COLUMNS[name]], Text), "")
    column = table.c[GROUP_COLUMNS[name]]
    return func.substr(column, 1, 7) if name == "month" else column


def _sums(question: UsageQuery) -> Select[Any]:
    table, columns = sums_table(question), group_columns(question)
    groups = [column.label(name) for column, name in zip(columns, question.columns, strict=True)]
    summed = [func.coalesce(func.sum(table.c[name]), 0).label(name) for name in SUM_COLUMNS]
    return select(*groups, *summed).select_from(source(question)).where(*conditions(question)).group_by(*columns)


def source(question: UsageQuery) -> Any:
    """What its rows are read from."""
    table = sums_table(question)
    wanted = {"group", *OF_PROJECTS} & set(question.by)
    return table.outerjoin(projects, table.c.project_id == projects.c.id) if wanted else table


def ordered_sums(question: UsageQuery) -> Select[Any]:
    return _sums(question).order_by(*(literal_column(name) for name in question.columns))


def conditions(question: UsageQuery) -> list[Any]:
    """What a sum fulfils that is asked for.

    A month into which days were folded belongs to a range that has its first day.
    """
    table = sums_table(question)
    first_day = table.c.period + "-01"
    conditions: list[Any] = []
    is_month = func.length(table.c.period) == 7
    if question.since:
        conditions.append(or_(table.c.period >= question.since, and_(is_month, first_day >= question.since)))
    if question.until:
        conditions.append(
            or_(and_(~is_month, table.c.period < question.until), and_(is_month, first_day < question.until))
        )
    if question.attribution:
        conditions.append(table.c.name == question.attribution)
    if question.projects is not None:
        conditions.append(table.c.project_id.in_(question.projects))
    return conditions
