"""Which part of a list is asked for: C{?limit}, C{?offset}, C{?project_id}."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import parse_qsl

from llmproxy.errors import Invalid

T = TypeVar("T")

ID = "^[A-Za-z0-9._:-]{1,128}$"
LIMIT = 100
MAX_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Page:
    limit: int = LIMIT
    offset: int = 0

    def of(self, items: Sequence[T], shown: Callable[[T], dict[str, object]]) -> dict[str, object]:
        """This page of C{items}, and how many there are in all."""
        part = items[self.offset : self.offset + self.limit]
        return {"data": [shown(item) for item in part], "total": len(items)}


def query(uri: bytes, allowed: Collection[str]) -> dict[str, str]:
    """The query's parameters; L{Invalid} for one that is unknown or given twice."""
    _, _, raw = uri.partition(b"?")
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=20, errors="strict")
    except ValueError:
        raise Invalid("The query is not readable.") from None
    found = dict(pairs)
    if len(found) < len(pairs) or not found.keys() <= set(allowed):
        raise Invalid(f"The query may have each of these once: {', '.join(sorted(allowed)) or 'nothing'}.")
    return found


def page(found: dict[str, str]) -> Page:
    """The part that C{limit} and C{offset} ask for; L{Invalid} where they are no such numbers."""
    limit, offset = found.get("limit", str(LIMIT)), found.get("offset", "0")
    if not re.fullmatch("[0-9]{1,4}", limit) or not 1 <= int(limit) <= MAX_LIMIT:
        raise Invalid(f"limit: must be a number from 1 to {MAX_LIMIT}.")
    if not re.fullmatch("[0-9]{1,9}", offset):
        raise Invalid("offset: must be a number from 0.")
    return Page(int(limit), int(offset))


def project(found: dict[str, str]) -> str | None:
    """The C{project_id} that is asked for, or C{None}; L{Invalid} where it looks like none."""
    asked = found.get("project_id")
    if asked is not None and not re.fullmatch(ID, asked):
        raise Invalid("project_id: is not an id.")
    return asked
