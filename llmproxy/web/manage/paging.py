"""Which part of a list is asked for: C{?limit}, C{?cursor} or C{?offset}, C{?project_id}."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection
from typing import TypeVar
from urllib.parse import parse_qsl

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from llmproxy.errors import FieldProblem, Invalid
from llmproxy.model import ListFilter, Page, PageRequest
from llmproxy.proxy.own_response import BufferedResponse
from llmproxy.web.respond import json_response

T = TypeVar("T")

ID = "^[A-Za-z0-9._:-]{1,128}$"
DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000
ITEMS_PER_TURN = 50
PAGE_PARAMETERS = ("limit", "offset", "cursor")
FILTER_PARAMETERS = ("active", "search", "label")
REPEATED_PARAMETERS = frozenset({"label"})
MAX_LABELS = 16  # that a list is asked for
LABEL = r"[A-Za-z0-9_.-]{1,64}=[^\x00-\x1f\x7f]{1,256}|[A-Za-z0-9][A-Za-z0-9._:/=-]{0,63}"
MAX_SEARCH_CHARACTERS = 200


async def list_response(
    page: Page[T], shown: Callable[[T], dict[str, object]], clock: IReactorTime
) -> BufferedResponse:
    """The response with this page; the reactor is let go after so many items."""
    data: list[dict[str, object]] = []
    for item in page.items:
        if data and len(data) % ITEMS_PER_TURN == 0:
            await deferLater(clock, 0)
        data.append(shown(item))
    return json_response({"data": data, "total": page.total, "next_cursor": page.next_cursor or None})


def query(uri: bytes, allowed: Collection[str]) -> dict[str, str]:
    """The query's parameters, of L{REPEATED_PARAMETERS} the last; L{Invalid} for one that is unknown or given twice."""
    pairs = _pairs(uri)
    once = Counter(name for name, _ in pairs if name not in REPEATED_PARAMETERS)
    found = dict(pairs)
    unknown, repeated_ones = found.keys() - set(allowed), {name for name, times in once.items() if times > 1}
    if unknown or repeated_ones:
        problems = [
            FieldProblem("is unknown here" if name in unknown else "is given twice", "parameter", name)
            for name in sorted(unknown | repeated_ones)
        ]
        raise Invalid(f"The query may have each of these once: {', '.join(sorted(allowed)) or 'nothing'}.", problems)
    return found


def repeated(uri: bytes, name: str) -> tuple[str, ...]:
    """The values of a parameter that may be given several times, each once."""
    return tuple(dict.fromkeys(value for each, value in _pairs(uri) if each == name))


def _pairs(uri: bytes) -> list[tuple[str, str]]:
    _, _, raw = uri.partition(b"?")
    try:
        return parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=40, errors="strict")
    except ValueError:
        said = "The query is not readable."
        raise Invalid(said, [FieldProblem(said)]) from None


def page(found: dict[str, str]) -> PageRequest:
    """The part that C{limit}, C{cursor} and C{offset} ask for; L{Invalid} where they are none."""
    limit, offset = found.get("limit", str(DEFAULT_PAGE_SIZE)), found.get("offset", "0")
    if not re.fullmatch("[0-9]{1,4}", limit) or not 1 <= int(limit) <= MAX_PAGE_SIZE:
        raise Invalid.part("parameter", "limit", f"must be a number from 1 to {MAX_PAGE_SIZE}.")
    if not re.fullmatch("[0-9]{1,9}", offset):
        raise Invalid.part("parameter", "offset", "must be a number from 0.")
    cursor = found.get("cursor", "")
    if cursor and int(offset):
        raise Invalid.part("parameter", "offset", "is for lists without a cursor.")
    return PageRequest(int(limit), int(offset), cursor)


def project(found: dict[str, str]) -> str | None:
    """The C{project_id} that is asked for, or C{None}; L{Invalid} where it looks like none."""
    asked = found.get("project_id")
    if asked is not None and not re.fullmatch(ID, asked):
        raise Invalid.part("parameter", "project_id", "is not an id.")
    return asked


def ids(found: dict[str, str]) -> tuple[str, ...] | None:
    """Those that C{id} names, with commas between; C{None} where it names none, L{Invalid} where they are not ids."""
    if not found.get("id"):
        return None
    asked = tuple(dict.fromkeys(found["id"].split(",")))
    if len(asked) > MAX_PAGE_SIZE or not all(re.fullmatch(ID, each) for each in asked):
        raise Invalid.part("parameter", "id", f"must be at most {MAX_PAGE_SIZE} ids, with commas between.")
    return asked


def list_filter(uri: bytes, found: dict[str, str], projects: tuple[str, ...] | None) -> ListFilter:
    """What of C{projects} is asked for by C{active}, C{search} and C{label}; L{Invalid} where they are none."""
    active = found.get("active")
    if active not in (None, "true", "false"):
        raise Invalid.part("parameter", "active", "must be true or false.")
    labels = tuple(label for label in repeated(uri, "label") if label)
    if len(labels) > MAX_LABELS or not all(re.fullmatch(LABEL, label) for label in labels):
        raise Invalid.part(
            "parameter", "label", f"must be a label or name=text of metadata, at most {MAX_LABELS} of them."
        )
    return ListFilter(projects, None if active is None else active == "true", search_text(found), labels)


def search_text(found: dict[str, str]) -> str:
    """What C{search} asks for; L{Invalid} where that is no text to be searched for."""
    search = found.get("search", "")
    if len(search) > MAX_SEARCH_CHARACTERS or not search.isprintable():
        raise Invalid.part("parameter", "search", f"must be text of at most {MAX_SEARCH_CHARACTERS} characters.")
    return search
