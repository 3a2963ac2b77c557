"""Pages of a list by keyset: the next one begins behind the last row of this one, wherever that is."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, Table, Text, cast, false, func, or_, select, tuple_

from llmproxy.errors import Invalid
from llmproxy.model import ListFilter, PageRequest

MAX_CURSOR_CHARACTERS = 4096  # characters


def encode_cursor(values: Sequence[str | float]) -> str:
    """A cursor that stands behind the row with these values in the columns that the list is ordered by."""
    return urlsafe_b64encode(json.dumps(list(values), separators=(",", ":")).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, kinds: Sequence[type]) -> list[Any]:
    """The values of a cursor, one of each kind (C{str} or C{float}); L{Invalid} where it is none of this list."""
    try:
        if len(cursor) > MAX_CURSOR_CHARACTERS:
            raise ValueError
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        values = json.loads(urlsafe_b64decode(padded))
        if [type(value) for value in values] != list(kinds) or encode_cursor(values) != cursor:
            raise ValueError
        "".join(value for value in values if isinstance(value, str)).encode()
    except (ValueError, TypeError, RecursionError):
        raise Invalid.part("parameter", "cursor", "is none that this list has given out.") from None
    return list(values)


def conditions(wanted: ListFilter, table: Table, project_id: ColumnElement[Any]) -> list[ColumnElement[bool]]:
    """What a row of this table, which has a name and may be active, fulfils to be wanted.

    @param project_id: The column that has the project's id.
    """
    found: list[ColumnElement[bool]] = []
    if wanted.projects is not None:
        found.append(project_id.in_(wanted.projects))
    if wanted.ids is not None:
        found.append(table.c.id.in_(wanted.ids))
    if wanted.active is not None:
        found.append(table.c.active.is_(wanted.active))
    if wanted.search:
        found.append(table.c.name.icontains(wanted.search, autoescape=True))
    if wanted.named:
        found.append(or_(table.c.id == wanted.named, table.c.name == wanted.named))
    found += [_is_labelled(table, label) for label in wanted.labels]
    return found


def _is_labelled(table: Table, label: str) -> ColumnElement[bool]:
    """Whether a row has this label, or, of C{name=text}, this text in its metadata.

    As text, since databases look into JSON in different ways: a label has neither quotes nor backslashes, so that it
    stands in a list between quotes, and nowhere else. Not by LIKE, for which case may not matter.
    """
    listed = cast(table.c.labels, Text)
    has_label = func.replace(listed, f'"{label}"', "") != listed if '"' not in label else false()
    name, equals, text = label.partition("=")
    return or_(has_label, table.c["metadata"][name].as_string() == text) if equals else has_label


def unchanged(column: ColumnElement[int], revision: int) -> list[ColumnElement[bool]]:
    """What a row fulfils that has still this revision; anything does where that is 0."""
    return [column == revision] if revision else []


def is_after(columns: Sequence[ColumnElement[Any]], values: Sequence[Any]) -> ColumnElement[bool]:
    """Whether a row comes after the one with these values, in the order of these columns."""
    return tuple_(*columns) > tuple_(*values)


def page(
    connection: Connection, wanted: Select[Any], by: Sequence[ColumnElement[Any]], request: PageRequest
) -> tuple[list[Row[Any]], str]:
    """The rows of one page, in the order of these columns, which are among those that are wanted, and the next cursor.

    The first column is a number, the others are text.
    """
    if request.cursor:
        kinds = [float, *(str for _ in by[1:])]
        wanted = wanted.where(is_after(by, decode_cursor(request.cursor, kinds)))
    found = connection.execute(wanted.order_by(*by).limit(request.limit + 1).offset(request.offset)).all()
    rows = list(found[: request.limit])
    last = rows[-1]._mapping if len(found) > request.limit else None
    return rows, "" if last is None else encode_cursor([last[column] for column in by])


def total(connection: Connection, wanted: Select[Any], request: PageRequest) -> int | None:
    """How many rows there are in all; C{None} on pages behind a cursor, which do not count them again."""
    if request.cursor:
        return None
    return connection.scalar(select(func.count()).select_from(wanted.order_by(None).subquery())) or 0
