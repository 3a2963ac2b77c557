"""What the daemon would reject of a plan, found before anything of it is done: by the rules that the daemon has."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator

from llmproxy.cli.apply_plan import Change
from llmproxy.errors import ProxyError
from llmproxy.web.manage.bodies import ProjectChange, ProjectCreate, TokenChange, TokenCreate, read
from llmproxy.web.manage.body_types import Body, BodyContext
from llmproxy.web.manage.groups import GroupChange, GroupCreate

_BODIES: dict[tuple[str, str], type[Body]] = {
    ("create", "group"): GroupCreate,
    ("update", "group"): GroupChange,
    ("create", "project"): ProjectCreate,
    ("update", "project"): ProjectChange,
    ("create", "token"): TokenCreate,
    ("update", "token"): TokenChange,
}
_SOME_PROJECT = {"project_id": "known-later"}


def rejections(changes: Iterable[Change], apis: Collection[str], default_api: str, now: float) -> Iterator[str]:
    """A sentence for each change that is not valid, whoever it is sent to."""
    known = BodyContext(apis, default_api, now)
    for change in changes:
        kind = _BODIES.get((change.action, change.kind))
        if kind is None:
            continue
        body = dict(change.fields)
        if change.action == "create":
            body |= {"name": change.name, **(_SOME_PROJECT if change.kind == "token" else {})}
        try:
            read(kind, json.dumps(body).encode(), known)
        except ProxyError as e:
            yield f"{change.action} {change.kind} {change.name}: {e.message}"
