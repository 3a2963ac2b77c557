"""Issued tokens, in SQL. Every function here blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, Update, and_, bindparam, case, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from llmproxy.access_policy import AccessPolicy
from llmproxy.errors import (
    ChangedMeanwhile,
    Conflict,
    NotFound,
    TokenExpired,
    TokenInactive,
    TokenNotFound,
    Unauthorized,
)
from llmproxy.model import Allowance, Grant, GroupLimits, ListFilter, Page, PageRequest, Token
from llmproxy.store import group_tree as groups
from llmproxy.store import json_columns, pages, projects
from llmproxy.store.tables import projects as project_table
from llmproxy.store.tables import tokens

_UNSHOWN = ("hash", "previous_hash")
_SHOWN = [column for column in tokens.c if column.name not in _UNSHOWN]
_LISTS = ("apis", "endpoints", "models", "ips")


def create(connection: Connection, token: Token, hashed: str) -> Token:
    row = {column.name: getattr(token, column.name) for column in _SHOWN} | {
        name: list(getattr(token, name)) for name in _LISTS
    }
    row["revision"] = 1
    row["allowance"] = json_columns.allowance_to_json(token.allowance)
    row["policy"] = json_columns.policy_to_json(token.policy)
    row["labels"], row["metadata"] = (
        json_columns.labels_to_json(token.labels),
        json_columns.metadata_to_json(token.metadata),
    )
    try:
        connection.execute(insert(tokens).values(row | {"hash": hashed}))
    except IntegrityError as e:
        # Ids and hashes are random: the project is what can be missing.
        raise projects.not_found(token.project_id) from e
    return get(connection, token.id)


def get(connection: Connection, token_id: str) -> Token:
    row = connection.execute(select(*_SHOWN).where(tokens.c.id == token_id)).first()
    if row is None:
        raise NotFound(f"There is no token {token_id}.")
    return _token(row)


def list_all(connection: Connection, project_id: str | None) -> list[Token]:
    wanted = select(*_SHOWN).order_by(tokens.c.created_at, tokens.c.id)
    if project_id is not None:
        wanted = wanted.where(tokens.c.project_id == project_id)
    return [_token(row) for row in connection.execute(wanted)]


def page(connection: Connection, request: PageRequest, wanted: ListFilter) -> Page[Token]:
    conditions = pages.conditions(wanted, tokens, tokens.c.project_id)
    counted = select(tokens.c.id).where(*conditions)
    by = (tokens.c.created_at, tokens.c.id)
    rows, cursor = pages.page(connection, select(*_SHOWN).where(*conditions), by, request)
    return Page([_token(row) for row in rows], pages.total(connection, counted, request), cursor)


def replace(connection: Connection, token: Token, now: float) -> Token:
    changed = connection.execute(
        update(tokens)
        .where(tokens.c.id == token.id, *pages.unchanged(tokens.c.revision, token.revision))
        .values(
            revision=tokens.c.revision + 1,
            name=token.name,
            active=token.active,
            expires_at=token.expires_at,
            max_requests=token.max_requests,
            allowance=json_columns.allowance_to_json(token.allowance),
            labels=json_columns.labels_to_json(token.labels),
            metadata=json_columns.metadata_to_json(token.metadata),
            policy=json_columns.policy_to_json(token.policy),
            deactivated_at=None if token.active else func.coalesce(tokens.c.deactivated_at, now),
            **{name: list(getattr(token, name)) for name in _LISTS},
        )
    )
    if not changed.rowcount:
        get(connection, token.id)
        raise ChangedMeanwhile()
    return get(connection, token.id)


def rotate(connection: Connection, token_id: str, hashed: str, prefix: str, until: float, revision: int) -> Token:
    """Put another secret in the place of a token's own, which is valid until then; one that was before it no more."""
    changed = connection.execute(
        update(tokens)
        .where(tokens.c.id == token_id, tokens.c.active.is_(True), *pages.unchanged(tokens.c.revision, revision))
        .values(
            previous_hash=tokens.c.hash,
            previous_expires_at=until,
            hash=hashed,
            prefix=prefix,
            revision=tokens.c.revision + 1,
        )
    )
    if not changed.rowcount:
        if not get(connection, token_id).active:
            raise Conflict("This token has been revoked, for good. Issue a new one.")
        raise ChangedMeanwhile()
    return get(connection, token_id)


def deactivate(connection: Connection, token_id: str, now: float) -> Token:
    connection.execute(
        update(tokens)
        .where(tokens.c.id == token_id, tokens.c.active.is_(True))
        .values(active=False, deactivated_at=now, revision=tokens.c.revision + 1)
    )
    return get(connection, token_id)


def revoke(connection: Connection, project_id: str, now: float) -> int:
    projects.is_active(connection, project_id)
    active = update(tokens).where(tokens.c.project_id == project_id, tokens.c.active.is_(True))
    return connection.execute(active.values(active=False, deactivated_at=now, revision=tokens.c.revision + 1)).rowcount


def grant(connection: Connection, hashed: str, now: float) -> Grant:
    """What the token of this hash allows, in one statement; L{errors.Unauthorized}'s kinds where nothing."""
    row = connection.execute(_GRANT, {"wanted": hashed}).first()
    answer = TokenNotFound() if row is None else _grant(row, hashed, now, _groups_above(connection, [row]))
    if isinstance(answer, Grant):
        return answer
    raise answer


def grants(connection: Connection, hashed: Sequence[str], now: float) -> dict[str, Grant | Unauthorized]:
    """The same of many, in one statement, by their hashes; without those that nobody has issued."""
    rows = connection.execute(_GRANTS, {"wanted": list(hashed)}).all()
    above = _groups_above(connection, rows)
    wanted = set(hashed)
    return {
        each: _grant(row, each, now, above) for row in rows for each in (row.hash, row.previous_hash) if each in wanted
    }


def _groups_above(connection: Connection, rows: Sequence[Row[Any]]) -> Mapping[str, tuple[GroupLimits, ...]]:
    """The limits of the groups above the projects of these, by the ids of the groups that they are in."""
    group_ids = {row.group_id for row in rows if row.group_id}
    return groups.limits_above(connection, group_ids) if group_ids else {}


def _grant(
    row: Row[Any], hashed: str, now: float, above: Mapping[str, tuple[GroupLimits, ...]]
) -> Grant | Unauthorized:
    if not row.active:
        return TokenInactive(token_id=row.id, project_id=row.project_id)
    ends = [row.expires_at, row.previous_expires_at if hashed != row.hash else None]
    expires_at = min((end for end in ends if end is not None), default=None)
    if expires_at is not None and expires_at <= now:
        return TokenExpired()
    return Grant(
        project_id=row.project_id,
        token_id=row.id,
        project_active=bool(row.project_active),
        expires_at=expires_at,
        max_requests=row.max_requests,
        allowance=_limits(row.allowance),
        project_allowance=_limits(row.project_allowance),
        policy=_policy(row.policy),
        project_policy=_policy(row.project_policy),
        metadata=json_columns.metadata_from_json(row.metadata),
        groups=above.get(row.group_id or "", ()),
        **_lists(row),
    )


def spend(connection: Connection, hashed: str, now: float) -> bool:
    """Count one use and say whether it was still allowed: one atomic statement, so no two can share the last one."""
    return connection.execute(_SPEND, {"wanted": hashed, "now": now}).rowcount == 1


def add_uses(connection: Connection, uses: Mapping[str, tuple[int, float]]) -> None:
    _add(connection, _ADD_USES, uses)


def add_cache_hits(connection: Connection, hits: Mapping[str, tuple[int, float]]) -> None:
    _add(connection, _ADD_HITS, hits)


def _add(connection: Connection, statement: Update, counts: Mapping[str, tuple[int, float]]) -> None:
    # In one order everywhere, so that two processes that count the same tokens never wait for each other.
    rows = [{"wanted": token_id, "more": more, "at": at} for token_id, (more, at) in sorted(counts.items())]
    if rows:
        connection.execute(statement, rows)


def _token(row: Row[Any]) -> Token:
    return Token(
        **{
            **row._mapping,
            **_lists(row),
            "allowance": json_columns.allowance_from_json(row.allowance),
            "labels": tuple(row.labels or ()),
            "metadata": json_columns.metadata_from_json(row.metadata),
            "policy": json_columns.policy_from_json(row.policy),
        }
    )


def _limits(stored: Mapping[str, Any] | None) -> Allowance | None:
    return json_columns.allowance_from_json(stored) if stored else None


def _policy(stored: Mapping[str, Any] | None) -> AccessPolicy | None:
    return json_columns.policy_from_json(stored) if stored else None


def _lists(row: Row[Any]) -> dict[str, Any]:
    return {name: tuple(getattr(row, name)) for name in _LISTS}


_OF_A_GRANT: Select[Any] = select(
    tokens.c.hash,
    tokens.c.previous_hash,
    tokens.c.previous_expires_at,
    tokens.c.id,
    tokens.c.project_id,
    tokens.c.active,
    tokens.c.expires_at,
    tokens.c.max_requests,
    *(tokens.c[name] for name in _LISTS),
    tokens.c.allowance,
    tokens.c["metadata"],
    tokens.c.policy,
    project_table.c.active.label("project_active"),
    project_table.c.allowance.label("project_allowance"),
    project_table.c.policy.label("project_policy"),
    project_table.c.group_id,
).join(project_table)
_IS_SECRET = or_(tokens.c.hash == bindparam("wanted"), tokens.c.previous_hash == bindparam("wanted"))
_ARE_SECRETS = [column.in_(bindparam("wanted", expanding=True)) for column in (tokens.c.hash, tokens.c.previous_hash)]
_GRANT = _OF_A_GRANT.where(_IS_SECRET)
_GRANTS = _OF_A_GRANT.where(or_(*_ARE_SECRETS))
_SPEND = (
    update(tokens)
    .where(
        or_(
            tokens.c.hash == bindparam("wanted"),
            and_(tokens.c.previous_hash == bindparam("wanted"), tokens.c.previous_expires_at > bindparam("now")),
        ),
        tokens.c.active.is_(True),
        or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > bindparam("now")),
        or_(tokens.c.max_requests.is_(None), tokens.c.request_count < tokens.c.max_requests),
    )
    .values(request_count=tokens.c.request_count + 1, last_used_at=bindparam("now"))
)
_USED_AT = case((tokens.c.last_used_at > bindparam("at"), tokens.c.last_used_at), else_=bindparam("at"))
_OF_ONE = update(tokens).where(tokens.c.id == bindparam("wanted"))
_ADD_USES = _OF_ONE.values(request_count=tokens.c.request_count + bindparam("more"), last_used_at=_USED_AT)
_ADD_HITS = _OF_ONE.values(cache_hits=tokens.c.cache_hits + bindparam("more"), last_used_at=_USED_AT)
