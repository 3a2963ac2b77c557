"""Groups of projects, in SQL: a tree in which each may have limits for all that is below it.

Every function here blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from llmproxy.errors import ChangedMeanwhile, Conflict, Invalid, NotFound
from llmproxy.model import Allowance, Group, GroupLimits, Page, PageRequest
from llmproxy.store import json_columns, pages, tables
from llmproxy.store.tables import project_groups, projects

MAX_LEVELS = 8  # of groups above a project


def limits_above(connection: Connection, group_ids: Iterable[str]) -> dict[str, tuple[GroupLimits, ...]]:
    """For each of these groups its own limits and those of the groups above it, the nearest first."""
    rows = _rows_above(connection, group_ids)
    return {
        group_id: tuple(
            GroupLimits(row.id, row.name, allowance)
            for row in _path(rows, group_id)
            if (allowance := _allowance(row)) != Allowance()
        )
        for group_id in group_ids
    }


def groups_of_projects(connection: Connection, project_ids: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The ids of the groups above each of these projects, as far as it has some."""
    wanted = select(projects.c.id, projects.c.group_id).where(
        projects.c.id.in_(list(project_ids)), projects.c.group_id.is_not(None)
    )
    direct = {row.id: row.group_id for row in connection.execute(wanted)}
    rows = _rows_above(connection, set(direct.values()))
    return {name: tuple(row.id for row in _path(rows, group_id)) for name, group_id in direct.items()}


def _rows_above(connection: Connection, group_ids: Iterable[str]) -> dict[str, Row[Any]]:
    """These groups and all above them, by their ids: one statement for each level."""
    found: dict[str, Row[Any]] = {}
    wanted = set(group_ids)
    while wanted:
        rows = connection.execute(select(project_groups).where(project_groups.c.id.in_(sorted(wanted)))).all()
        found |= {row.id: row for row in rows}
        wanted = {row.parent_id for row in rows if row.parent_id} - found.keys()
    return found


def _path(rows: Mapping[str, Row[Any]], group_id: str) -> list[Row[Any]]:
    """From this group up to its root."""
    path: list[Row[Any]] = []
    while (row := rows.get(group_id)) is not None and len(path) < MAX_LEVELS:
        path.append(row)
        group_id = row.parent_id or ""
    return path


def create(connection: Connection, group: Group, now: float) -> Group:
    _lock(connection)
    _check_parent(connection, group)
    connection.execute(
        insert(project_groups).values(
            id=group.id,
            name=group.name,
            parent_id=group.parent_id or None,
            allowance=json_columns.allowance_to_json(group.allowance),
            created_at=now,
            updated_at=now,
        )
    )
    return get(connection, group.id)


def replace(connection: Connection, group: Group, now: float) -> Group:
    _lock(connection)
    _check_parent(connection, group)
    changed = connection.execute(
        update(project_groups)
        .where(project_groups.c.id == group.id, *pages.unchanged(project_groups.c.revision, group.revision))
        .values(
            revision=project_groups.c.revision + 1,
            name=group.name,
            parent_id=group.parent_id or None,
            allowance=json_columns.allowance_to_json(group.allowance),
            updated_at=now,
        )
    )
    if not changed.rowcount:
        get(connection, group.id)
        raise ChangedMeanwhile()
    return get(connection, group.id)


def _lock(connection: Connection) -> None:
    """Trees are changed one at a time, so that two changes together make no circle."""
    number = tables.epochs.c.number
    connection.execute(update(tables.epochs).where(tables.epochs.c.name == "groups").values(number=number + 1))


def _check_parent(connection: Connection, group: Group) -> None:
    """L{Invalid} where it would hang below itself, below nothing, or too deep."""
    if not group.parent_id:
        above: list[str] = []
    else:
        rows = _rows_above(connection, [group.parent_id])
        if group.parent_id not in rows:
            raise Invalid.part("pointer", "parent_id", f"There is no group {group.parent_id}.")
        above = [row.id for row in _path(rows, group.parent_id)]
        if group.id in above:
            raise Invalid.part("pointer", "parent_id", "a group cannot be below itself.")
    if len(above) + _height(connection, group.id) > MAX_LEVELS:
        raise Invalid.part("pointer", "parent_id", f"there are at most {MAX_LEVELS} groups above each other.")


def _height(connection: Connection, group_id: str) -> int:
    """How many levels it and those below it are."""
    level, height = [group_id], 0
    while level and height <= MAX_LEVELS:
        height += 1
        level = list(connection.scalars(select(project_groups.c.id).where(project_groups.c.parent_id.in_(level))))
    return height


def delete(connection: Connection, group_id: str, revision: int) -> None:
    _lock(connection)
    found = get(connection, group_id)
    if revision and found.revision != revision:
        raise ChangedMeanwhile()
    below = connection.scalar(
        select(func.count()).select_from(project_groups).where(project_groups.c.parent_id == group_id)
    )
    if found.projects or below:
        raise Conflict("This group has projects or groups. Move them to another one first.")
    connection.execute(project_groups.delete().where(project_groups.c.id == group_id))


_PROJECTS = (
    select(func.count()).select_from(projects).where(projects.c.group_id == project_groups.c.id).scalar_subquery()
)
_SHOWN = select(project_groups, _PROJECTS.label("projects"))


def get(connection: Connection, group_id: str) -> Group:
    row = connection.execute(_SHOWN.where(project_groups.c.id == group_id)).first()
    if row is None:
        raise NotFound(f"There is no group {group_id}.")
    return _group(row)


def page(
    connection: Connection, request: PageRequest, search: str = "", ids: tuple[str, ...] | None = None
) -> Page[Group]:
    """
    @param search: Only those whose name has this in it, in any case.
    @param ids: Only those of these ids; C{None} for all.
    """
    by, shown, counted = (project_groups.c.created_at, project_groups.c.id), _SHOWN, select(project_groups.c.id)
    if search:
        named = project_groups.c.name.icontains(search, autoescape=True)
        shown, counted = shown.where(named), counted.where(named)
    if ids is not None:
        asked = project_groups.c.id.in_(ids)
        shown, counted = shown.where(asked), counted.where(asked)
    rows, cursor = pages.page(connection, shown, by, request)
    return Page([_group(row) for row in rows], pages.total(connection, counted, request), cursor)


def _allowance(row: Row[Any]) -> Allowance:
    return json_columns.allowance_from_json(row.allowance)


def _group(row: Row[Any]) -> Group:
    return Group(**{**row._mapping, "parent_id": row.parent_id or "", "allowance": _allowance(row)})
