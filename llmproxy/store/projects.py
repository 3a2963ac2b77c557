"""Projects and their provider keys, in SQL. Every function here blocks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, select, true, update

from llmproxy.base.secret_reference import SecretReference
from llmproxy.errors import ChangedMeanwhile, NotFound, UpstreamAuthError
from llmproxy.model import ListFilter, Page, PageRequest, Project
from llmproxy.sealing import CannotOpen, Sealer, mask
from llmproxy.store import json_columns, pages
from llmproxy.store.tables import further_keys, projects, provider_keys


def create(connection: Connection, project: Project, sealer: Sealer, now: float) -> Project:
    connection.execute(
        insert(projects).values(
            id=project.id,
            name=project.name,
            active=project.active,
            allowance=json_columns.allowance_to_json(project.allowance),
            labels=json_columns.labels_to_json(project.labels),
            metadata=json_columns.metadata_to_json(project.metadata),
            policy=json_columns.policy_to_json(project.policy),
            group_id=project.group_id or None,
            created_at=now,
            updated_at=now,
            deactivated_at=None if project.active else now,
        )
    )
    _keep_keys(connection, project, sealer)
    return get(connection, project.id)


def replace(connection: Connection, project: Project, sealer: Sealer, now: float) -> Project:
    changed = connection.execute(
        update(projects)
        .where(projects.c.id == project.id, *pages.unchanged(projects.c.revision, project.revision))
        .values(
            revision=projects.c.revision + 1,
            name=project.name,
            active=project.active,
            allowance=json_columns.allowance_to_json(project.allowance),
            labels=json_columns.labels_to_json(project.labels),
            metadata=json_columns.metadata_to_json(project.metadata),
            policy=json_columns.policy_to_json(project.policy),
            group_id=project.group_id or None,
            updated_at=now,
            deactivated_at=None if project.active else func.coalesce(projects.c.deactivated_at, now),
        )
    )
    if not changed.rowcount:
        get(connection, project.id)
        raise ChangedMeanwhile()
    _keep_keys(connection, project, sealer)
    return get(connection, project.id)


def deactivate(connection: Connection, project_id: str, now: float) -> Project:
    connection.execute(
        update(projects)
        .where(projects.c.id == project_id, projects.c.active.is_(True))
        .values(active=False, updated_at=now, deactivated_at=now, revision=projects.c.revision + 1)
    )
    return get(connection, project_id)


def _keep_keys(connection: Connection, project: Project, sealer: Sealer) -> None:
    for api, key in project.api_keys.items():
        row = {"project_id": project.id, "api": api}
        connection.execute(delete(provider_keys).filter_by(**row))
        connection.execute(delete(further_keys).filter_by(**row))
        if isinstance(key, SecretReference):
            # Sealed as well, so that who can write into the database cannot have another secret read.
            sealed = sealer.seal(key, project.id, api, _REFERENCE)
            connection.execute(insert(provider_keys).values(**row, sealed=sealed, masked="", reference=str(key)))
        elif key:
            sealed = sealer.seal(key, project.id, api)
            connection.execute(insert(provider_keys).values(**row, sealed=sealed, masked=mask(key)))
        for position, further in enumerate(project.further_keys.get(api, ()), 1):
            _keep_further_key(connection, (project.id, api, position), further, sealer)


def _keep_further_key(connection: Connection, at: tuple[str, str, int], key: str, sealer: Sealer) -> None:
    project_id, api, position = at
    row = {"project_id": project_id, "api": api, "position": position}
    if isinstance(key, SecretReference):
        sealed = sealer.seal(key, project_id, api, str(position), _REFERENCE)
        connection.execute(insert(further_keys).values(**row, sealed=sealed, masked="", reference=str(key)))
    else:
        sealed = sealer.seal(key, project_id, api, str(position))
        connection.execute(insert(further_keys).values(**row, sealed=sealed, masked=mask(key)))


def remove(connection: Connection, project_id: str) -> None:
    if not connection.execute(delete(projects).where(projects.c.id == project_id)).rowcount:
        raise not_found(project_id)


def get(connection: Connection, project_id: str) -> Project:
    row = connection.execute(select(projects).where(projects.c.id == project_id)).first()
    if row is None:
        raise not_found(project_id)
    masked = connection.execute(_MASKED.where(provider_keys.c.project_id == project_id))
    further = _further_by_project(connection, further_keys.c.project_id == project_id)
    return _project(row, {found.api: found.masked for found in masked}, further.get(project_id, {}))


def list_all(connection: Connection) -> list[Project]:
    rows = connection.execute(select(projects).order_by(projects.c.created_at, projects.c.id)).all()
    masked, further = _by_project(connection.execute(_MASKED)), _further_by_project(connection, true())
    return [_project(row, masked.get(row.id, {}), further.get(row.id, {})) for row in rows]


def page(connection: Connection, request: PageRequest, wanted: ListFilter) -> Page[Project]:
    conditions = pages.conditions(wanted, projects, projects.c.id)
    by = (projects.c.created_at, projects.c.id)
    rows, cursor = pages.page(connection, select(projects).where(*conditions), by, request)
    masked = _by_project(connection.execute(_MASKED.where(provider_keys.c.project_id.in_([row.id for row in rows]))))
    further = _further_by_project(connection, further_keys.c.project_id.in_([row.id for row in rows]))
    listed = [_project(row, masked.get(row.id, {}), further.get(row.id, {})) for row in rows]
    return Page(listed, pages.total(connection, select(projects.c.id).where(*conditions), request), cursor)


def is_active(connection: Connection, project_id: str) -> bool:
    active = connection.scalar(select(projects.c.active).where(projects.c.id == project_id))
    if active is None:
        raise not_found(project_id)
    return bool(active)


def key(connection: Connection, project_id: str, api: str, sealer: Sealer) -> str:
    """The provider's key for that API, or for the only one there is where C{api} is empty; or a L{SecretReference}."""
    wanted = select(provider_keys).where(provider_keys.c.project_id == project_id)
    rows = connection.execute(wanted.where(provider_keys.c.api == api) if api else wanted.limit(2)).all()
    if len(rows) != 1:
        raise UpstreamAuthError()
    try:
        opened = sealer.open(bytes(rows[0].sealed), *sealing_context(rows[0]))
        return opened if rows[0].reference is None else SecretReference(opened)
    except CannotOpen as e:
        raise UpstreamAuthError() from e


def sealing_context(row: Row[Any]) -> tuple[str, ...]:
    """What the sealed bytes in a row of provider keys were sealed for."""
    return (row.project_id, row.api) if row.reference is None else (row.project_id, row.api, _REFERENCE)


def references(connection: Connection) -> list[str]:
    """What keys of active projects refer to, each once."""
    found: set[str] = set()
    for table in (provider_keys, further_keys):
        wanted = select(table.c.reference).join(projects, projects.c.id == table.c.project_id)
        found.update(connection.scalars(wanted.where(table.c.reference.is_not(None), projects.c.active.is_(True))))
    return sorted(found)


def further(connection: Connection, project_id: str, api: str, sealer: Sealer) -> list[str]:
    """The keys that the project has for the API beside the one that L{key} gives, or L{SecretReference}s."""
    wanted = select(further_keys).filter_by(project_id=project_id, api=api)
    found = []
    try:
        for row in connection.execute(wanted.order_by(further_keys.c.position)):
            opened = sealer.open(bytes(row.sealed), *further_sealing_context(row))
            found.append(opened if row.reference is None else SecretReference(opened))
    except CannotOpen as e:
        raise UpstreamAuthError() from e
    return found


def further_sealing_context(row: Row[Any]) -> tuple[str, ...]:
    """As L{sealing_context}, of a row of further keys."""
    context = (row.project_id, row.api, str(row.position))
    return context if row.reference is None else (*context, _REFERENCE)


async def without_missing(stored: Sequence[str], resolve: Callable[[str], Awaitable[str]]) -> list[str]:
    """The keys that are stored, with what references stand for; L{UpstreamAuthError} where none of them is there.

    One that is kept elsewhere and is missing there is left out as long as there are others.
    """
    found: list[str] = []
    problem: UpstreamAuthError | None = None
    for key in stored:
        try:
            found.append(await resolve(key))
        except UpstreamAuthError as e:
            problem = e
    if problem is not None and not found:
        raise problem
    return found


def not_found(project_id: str) -> NotFound:
    return NotFound(f"There is no project {project_id}.")


_REFERENCE = "reference"  # context in which a reference is sealed
_MASKED = select(
    provider_keys.c.project_id,
    provider_keys.c.api,
    func.coalesce(provider_keys.c.reference, provider_keys.c.masked).label("masked"),
).order_by(provider_keys.c.api)


def _by_project(rows: Iterable[Row[Any]]) -> dict[str, dict[str, str]]:
    masked: dict[str, dict[str, str]] = {}
    for row in rows:
        masked.setdefault(row.project_id, {})[row.api] = row.masked
    return masked


def _further_by_project(
    connection: Connection, condition: ColumnElement[bool]
) -> dict[str, dict[str, tuple[str, ...]]]:
    shown = func.coalesce(further_keys.c.reference, further_keys.c.masked).label("masked")
    columns = (further_keys.c.project_id, further_keys.c.api, shown)
    order = (further_keys.c.project_id, further_keys.c.api, further_keys.c.position)
    masked: dict[str, dict[str, tuple[str, ...]]] = {}
    for row in connection.execute(select(*columns).where(condition).order_by(*order)):
        of_project = masked.setdefault(row.project_id, {})
        of_project[row.api] = (*of_project.get(row.api, ()), row.masked)
    return masked


def _project(row: Row[Any], masked: Mapping[str, str], further: Mapping[str, tuple[str, ...]]) -> Project:
    return Project(
        id=row.id,
        name=row.name,
        active=row.active,
        masked_keys=masked,
        masked_further_keys=further,
        allowance=json_columns.allowance_from_json(row.allowance),
        labels=tuple(row.labels or ()),
        metadata=json_columns.metadata_from_json(row.metadata),
        policy=json_columns.policy_from_json(row.policy),
        group_id=row.group_id or "",
        created_at=row.created_at,
        updated_at=row.updated_at,
        deactivated_at=row.deactivated_at,
        revision=row.revision,
    )
