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
from llmproxy.store.tables import usage

Rows = list[Mapping[Any, Any]]

MAX_COUNTED_SUMS = 50_000  # of tokens, of which it is still counted how many groups they make
MAX_LISTED_PERIODS = 400  # days that are named one by one: more than a year's, and fewer than a statement may have
MAX_LISTED_PROJECTS = 20  # those that have more have many tokens, which are found as fast in the order of all


def report_page(connection: Connection, question: UsageQuery) -> Report:
    """A page of a report.

    The groups are counted only where the first page does not show it, for that reads everything again; and not at all
    where tokens are told apart and there are more than L{MAX_COUNTED_SUMS}.
    """
    limit, offset, cursor = question.part
    after = decode_cursor(cursor, [str] * len(question.columns)) if cursor else None
    if "token" in question.by and not offset:
        found = _token_rows(connection, question, after)
    else:
        wanted = ordered_sums(question)
        if after is not None:
            wanted = wanted.where(is_after(group_columns(question), after))
        found = list(connection.execute(wanted.limit(limit + 1).offset(offset)).mappings())
    rows = [_plain_row(row) for row in found[:limit]]
    if len(found) > limit:
        following = encode_cursor([rows[-1][name] for name in question.columns])
        return Page(
            rows, None if cursor or _is_long(connection, question) else _groups(connection, question), following
        )
    if cursor:
        return Page(rows)
    return Page(rows, offset + len(rows) if rows or not offset else _groups(connection, question))


def _is_long(connection: Connection, question: UsageQuery) -> bool:
    """Whether it would take long to count the groups."""
    if "token" not in question.by:
        return False
    sums = select(literal(1)).select_from(source(question)).where(*conditions(question)).limit(MAX_COUNTED_SUMS + 1)
    return (connection.scalar(select(func.count()).select_from(sums.subquery())) or 0) > MAX_COUNTED_SUMS


def _groups(connection: Connection, question: UsageQuery) -> int:
    names = select(*group_columns(question)).select_from(source(question)).where(*conditions(question)).distinct()
    return int(connection.scalar(select(func.count()).select_from(names.subquery())) or 0) if question.by else 1


def _plain_row(row: Mapping[Any, Any]) -> dict[str, Any]:
    """PostgreSQL sums up integers as decimals."""
    return {
        name: value if isinstance(value, str) else float(value) if name == "cost_usd" else int(value)
        for name, value in row.items()
    }


# Where tokens are told apart


class _Lead(NamedTuple):
    """What rows have in common that stands before the token.

    @ivar values: Of the columns before it.
    @ivar where: What its sums fulfil.
    """

    values: Sequence[str]
    where: Sequence[Any]


def _token_rows(connection: Connection, question: UsageQuery, after: Sequence[str] | None) -> Rows:
    """As many rows as a page has and one more, behind these values.

    For each lead, in order, the tokens that its rows are about are looked for first, which are no more than there are
    rows; the sums of these are all that is added up.
    """
    limit, place = question.part.limit, question.columns.index("token")
    found: Rows = []
    for lead in _leads(connection, question, place, after):
        wanted = limit + 1 - len(found)
        here = list(lead.where)
        begun = after if after is not None and list(lead.values) == list(after[:place]) else None
        if begun is not None:
            here.append(usage.c.token_id >= begun[place])
        # One more than rows: all of the first one may be shown already.
        tokens = select(usage.c.token_id).select_from(source(question)).where(*here).distinct()
        some = connection.scalars(tokens.order_by(usage.c.token_id).limit(wanted + 1)).all()
        if not some:
            continue
        rows = ordered_sums(question).where(*here, usage.c.token_id.between(some[0], some[-1]))
        if begun is not None:
            rows = rows.where(is_after(group_columns(question), begun))
        found += connection.execute(rows.limit(wanted)).mappings()
        if len(found) > limit:
            break
    return found


def _leads(connection: Connection, question: UsageQuery, place: int, after: Sequence[str] | None) -> Iterator[_Lead]:
    """From the one on in which a page begins. They are found in the sums without tokens, which are few."""
    plain = conditions(question)
    if not place:
        yield _Lead((), plain)
        return
    before = question._replace(by=question.by[: question.by.index("token")])
    columns = group_columns(before)
    values = select(*columns).select_from(source(before)).where(*conditions(before)).distinct().order_by(*columns)
    if after is not None:
        values = values.where(tuple_(*columns) >= tuple_(*after[:place]))
    for lead in connection.execute(values).all():
        own = [column == value for column, value in zip(group_columns(question), lead, strict=False)]
        theirs = [column == value for column, value in zip(columns, lead, strict=True)]
        yield _Lead(tuple(lead), [*plain, *own, *_narrowed(connection, before, theirs)])


def _narrowed(connection: Connection, before: UsageQuery, where: Sequence[Any]) -> Iterator[Any]:
    """The projects and the periods of a lead, as the key of the sums begins with them; none where they are no help."""
    if "day" in before.by or not {"project", "group"} & set(before.by):
        return
    table = sums_table(before)
    for name, most in (("project_id", MAX_LISTED_PROJECTS), ("period", MAX_LISTED_PERIODS)):
        wanted = select(table.c[name]).select_from(source(before)).where(*conditions(before), *where).distinct()
        listed = connection.scalars(wanted.limit(most + 1)).all()
        if len(listed) > most:
            return
        yield usage.c[name].in_(listed)
