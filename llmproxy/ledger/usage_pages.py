"""Reports page by page: what a page does not show is not added up for it, where there may be much of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, literal, select, tuple_

from llmproxy.ledger.usage_queries import (
    Report,
    UsageQuery,
    conditions,
    group_columns,
    ordered_sums,
    source,
    sums_table,
)
from llmproxy.model import Page
from llmproxy.store.pages import decode_cursor, encode_cursor, is_after
from llmproxy.store.tables import attributed_usage, usage

Rows = list[Mapping[Any, Any]]

MAX_COUNTED_SUMS = 50_000  # of tokens or values, of which it is still counted how many groups they make
MAX_LISTED_PERIODS = 400  # days that are named one by one: more than a year's, and fewer than a statement may have
MAX_LISTED_PROJECTS = 20  # whose sums are looked for by project, however many they are
MAX_SOUGHT_PROJECTS = 2000  # likewise, where they have few sums: in the order of all tokens these are far between
MAX_SOUGHT_SUMS = 30_000
MAX_LEADS = 1000  # of which each is looked for by itself


def report_page(connection: Connection, question: UsageQuery) -> Report:
    """A page of a report.

    The groups are counted only where the first page does not show it, for that reads everything again; and not at all
    where tokens or an attribution's values are told apart and there are more than L{MAX_COUNTED_SUMS}.
    """
    limit, offset, cursor = question.part
    after = decode_cursor(cursor, [str] * len(question.columns)) if cursor else None
    own_periods = list(_own_periods(connection, question))
    where = [*conditions(question), *own_periods]
    members = None if offset else _members(question)
    found = None if members is None else _rows_of_members(connection, question, members, after, own_periods)
    if found is None:
        wanted = ordered_sums(question).where(*own_periods)
        if after is not None:
            wanted = wanted.where(is_after(group_columns(question), after))
        found = list(connection.execute(wanted.limit(limit + 1).offset(offset)).mappings())
    rows = [_plain_row(row) for row in found[:limit]]
    if len(found) > limit:
        following = encode_cursor([rows[-1][name] for name in question.columns])
        uncounted = cursor or _is_long(connection, question)
        return Page(rows, None if uncounted else _groups(connection, question, where), following)
    if cursor:
        return Page(rows)
    return Page(rows, offset + len(rows) if rows or not offset else _groups(connection, question, where))


def _is_long(connection: Connection, question: UsageQuery) -> bool:
    """Whether it would take long to count the groups."""
    if _members(question) is None:
        return False
    table = sums_table(question)
    where = conditions(question)
    if question.since or question.until:  # what a range means for days and months is not to be found out for each sum
        plain = question._replace(by=("project",), attribution="")
        where = [*_listed(connection, plain, table, (), ("period", MAX_LISTED_PERIODS))] or where
        where += conditions(question._replace(since="", until=""))
    sums = select(literal(1)).select_from(table).where(*where).limit(MAX_COUNTED_SUMS + 1)
    return (connection.scalar(select(func.count()).select_from(sums.subquery())) or 0) > MAX_COUNTED_SUMS


def _groups(connection: Connection, question: UsageQuery, where: Sequence[Any]) -> int:
    names = select(*group_columns(question)).select_from(source(question)).where(*where).distinct()
    return int(connection.scalar(select(func.count()).select_from(names.subquery())) or 0) if question.by else 1


def _own_periods(connection: Connection, question: UsageQuery) -> Iterator[Any]:
    """The periods in which a few projects used anything, where it is asked for these.

    The key of the sums begins with the period and the project: so the rows of all others need not be read.
    """
    asked = question.projects
    if asked is not None and len(asked) <= MAX_LISTED_PROJECTS and "token" in question.by:
        plain = question._replace(by=("project",), attribution="")
        yield from _listed(connection, plain, sums_table(question), (), ("period", MAX_LISTED_PERIODS))


def _plain_row(row: Mapping[Any, Any]) -> dict[str, Any]:
    """PostgreSQL sums up integers as decimals."""
    return {
        name: value if isinstance(value, str) else float(value) if name == "cost_usd" else int(value)
        for name, value in row.items()
    }


# Where tokens, or the values of an attribution, are told apart


class _Members(NamedTuple):
    """What there may be thousands of: the tokens, or an attribution's values.

    @ivar name: As the question has it; C{place}: of its column among the question's.
    """

    name: str
    place: int
    column: Any


class _Lead(NamedTuple):
    """What rows have in common that stands before the member.

    @ivar values: Of the columns before it.
    @ivar where: What its sums fulfil.
    """

    values: Sequence[str]
    where: Sequence[Any]


def _members(question: UsageQuery) -> _Members | None:
    if question.attribution:
        place = question.columns.index("attribution_value")
        return _Members(question.attribution, place, attributed_usage.c.value)
    return _Members("token", question.columns.index("token"), usage.c.token_id) if "token" in question.by else None


def _rows_of_members(
    connection: Connection,
    question: UsageQuery,
    members: _Members,
    after: Sequence[str] | None,
    own_periods: Sequence[Any],
) -> Rows | None:
    """As many rows as a page has and one more, behind these values; C{None} where there are many leads.

    For each lead, in order, the members that its rows are about are looked for first, which are no more than there are
    rows; the sums of these are all that is added up.
    """
    limit, place = question.part.limit, members.place
    leads = list(_leads(connection, question, members, after))
    if len(leads) > MAX_LEADS:
        return None
    found: Rows = []
    by_project = {*_before(question, members).by} <= {"group", "project"}  # then the projects of a lead say it all
    for lead in leads:
        wanted = limit + 1 - len(found)
        narrowed, few = _narrowed(connection, question, members, lead.values)
        begun = after if after is not None and list(lead.values) == list(after[:place]) else None
        behind = [] if begun is None else [members.column >= begun[place]]
        further = [*own_periods, *narrowed, *behind]
        # Of few sums all are read: an expression keeps a database from reading those of everybody, in their order.
        name = func.coalesce(members.column, "").label("member") if few else members.column
        if narrowed and by_project:
            names = select(name).where(*conditions(question), *further).distinct()
        else:
            names = select(name).select_from(source(question)).where(*conditions(question), *lead.where, *further)
            names = names.distinct()
        # One more than rows: all of the first one may be shown already.
        some = connection.scalars(names.order_by(name).limit(wanted + 1)).all()
        if not some:
            continue
        these = members.column.in_(some) if few else members.column.between(some[0], some[-1])
        rows = ordered_sums(question).where(*lead.where, *further, these)
        if begun is not None:
            rows = rows.where(is_after(group_columns(question), begun))
        found += connection.execute(rows.limit(wanted)).mappings()
        if len(found) > limit:
            break
    return found


def _before(question: UsageQuery, members: _Members) -> UsageQuery:
    """The question as far as it stands before the members: the sums of projects, which are few, answer that."""
    return question._replace(by=question.by[: question.by.index(members.name)], attribution="")


def _leads(
    connection: Connection, question: UsageQuery, members: _Members, after: Sequence[str] | None
) -> Iterator[_Lead]:
    """From the one on in which a page begins; one more than L{MAX_LEADS} at most."""
    if not members.place:
        yield _Lead((), ())
        return
    before = _before(question, members)
    columns = group_columns(before)
    values = select(*columns).select_from(source(before)).where(*conditions(before)).distinct().order_by(*columns)
    if after is not None:
        values = values.where(tuple_(*columns) >= tuple_(*after[: members.place]))
    for lead in connection.execute(values.limit(MAX_LEADS + 1)).all():
        yield _Lead(tuple(lead), [c == value for c, value in zip(group_columns(question), lead, strict=False)])


def _narrowed(
    connection: Connection, question: UsageQuery, members: _Members, values: Sequence[str]
) -> tuple[list[Any], bool]:
    """The projects and the periods of a lead, as the key of the sums begins with them; none where they are no help.
    And whether several projects together have few sums.

    There is an index of the values of each project, which needs no periods.
    """
    before = _before(question, members)
    if "day" in before.by or not {"project", "group"} & set(before.by):
        return [], False
    where = [column == value for column, value in zip(group_columns(before), values, strict=True)]
    table = sums_table(question)
    projects = _values(connection, before, "project_id", where, MAX_SOUGHT_PROJECTS)
    few = projects is not None and len(projects) > 1 and _are_few(connection, question, projects)
    if projects is None or (len(projects) > MAX_LISTED_PROJECTS and not few):
        return [], False  # many tokens, which are found as fast in the order of all
    narrowed = [table.c.project_id.in_(projects)]
    if not question.attribution:
        narrowed += _listed(connection, before, table, where, ("period", MAX_LISTED_PERIODS))
    return narrowed, few


def _are_few(connection: Connection, question: UsageQuery, projects: Sequence[str]) -> bool:
    """Whether these projects have no more than L{MAX_SOUGHT_SUMS}, whenever."""
    table = sums_table(question)
    where = conditions(question._replace(since="", until="", projects=None))
    sums = select(literal(1)).select_from(table).where(table.c.project_id.in_(projects), *where)
    counted = select(func.count()).select_from(sums.limit(MAX_SOUGHT_SUMS + 1).subquery())
    return (connection.scalar(counted) or 0) <= MAX_SOUGHT_SUMS


def _listed(
    connection: Connection, plain: UsageQuery, table: Any, where: Sequence[Any], *most: tuple[str, int]
) -> Iterator[Any]:
    """Which values these columns of C{table} have, by the sums without tokens; nothing where they are more."""
    for name, limit in most:
        listed = _values(connection, plain, name, where, limit)
        if listed is None:
            return
        yield table.c[name].in_(listed)


def _values(
    connection: Connection, plain: UsageQuery, name: str, where: Sequence[Any], limit: int
) -> Sequence[str] | None:
    """The values of this column, by the sums without tokens; C{None} where they are more."""
    column = sums_table(plain).c[name]
    wanted = select(column).select_from(source(plain)).where(*conditions(plain), *where).distinct()
    listed = connection.scalars(wanted.limit(limit + 1)).all()
    return None if len(listed) > limit else listed
