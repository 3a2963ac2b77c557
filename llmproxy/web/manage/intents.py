"""What the audit log can say of a change before it is made: whom and what its body names. Pure.

The body has not been checked yet: nothing is taken of it but what names something, as short as names are.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import BaseModel

from llmproxy.web.manage.audit_trail import AuditDraft
from llmproxy.web.manage.paging import ID

# Fields whose values are no secret, and say what a change is about.
NAMING_FIELDS = frozenset(
    {
        *("id", "issuer", "sub", "name", "role", "project_id", "token_id", "group_id", "parent_id", "projects"),
        *("active", "all", "api", "path", "prefix", "state", "level", "reason", "issued_before", "upstream"),
    }
)
MAX_BODY_BYTES = 65_536  # that are read here, in the reactor's thread: a larger body names nothing before it is checked
MAX_CHARACTERS = 256
MAX_ITEMS = 20


def draft_of_intent(draft: AuditDraft, kind: type[BaseModel] | None, body: bytes) -> AuditDraft:
    """C{draft} with what this body names; C{given} are all the fields that it has.

    @param kind: What the body is to be; C{None} where none is wanted.
    """
    found = _fields(body) if kind is not None and len(body) <= MAX_BODY_BYTES else {}
    if kind is None or not found:
        return draft
    known = kind.model_fields.keys() & found.keys()
    named = {name: shown for name in sorted(known & NAMING_FIELDS) if (shown := _shown(found[name])) is not None}
    return AuditDraft(
        draft.action,
        draft.project_id or _id(named.get("project_id")),
        draft.token_id or _id(named.get("token_id")),
        draft.details | named | {"given": sorted(known)},
    )


def _fields(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _id(value: object) -> str:
    return value if isinstance(value, str) and re.fullmatch(ID, value) else ""


def _shown(value: Any) -> object:
    if isinstance(value, bool):
        return value
    if isinstance(value, list):
        return [each[:MAX_CHARACTERS] for each in value[:MAX_ITEMS] if _is_text(each)]
    return value[:MAX_CHARACTERS] if _is_text(value) else None


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.isprintable()  # no halves of surrogate pairs either
