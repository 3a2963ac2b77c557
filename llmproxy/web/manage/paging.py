"""Which part of a list is asked for: C{?limit}, C{?cursor} or C{?offset}, C{?project_id}."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import TypeVar
from urllib.parse import parse_qsl

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from llmproxy.errors import Invalid
from llmproxy.model import ListFilter, Page, PageRequest
from llmproxy.proxy.own_response import BufferedResponse
from llmproxy.web.respond import json_response

T = TypeVar("T")

ID = "^[A-Za-z0-9._:-]{1,128}$"
DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000
ITEMS_PER_TURN = 50
PAGE_PARAMETERS = ("limit", "offset", "cursor")
FILTER_PARAMETERS = ("active", "search")
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


def page(found: dict[str, str]) -> PageRequest:
    """The part that C{limit}, C{cursor} and C{offset} ask for; L{Invalid} where they are none."""
    limit, offset = found.get("limit", str(DEFAULT_PAGE_SIZE)), found.get("offset", "0")
    if not re.fullmatch("[0-9]{1,4}", limit) or not 1 <= int(limit) <= MAX_PAGE_SIZE:
        raise Invalid(f"limit: must be a number from 1 to {MAX_PAGE_SIZE}.")
    if not re.fullmatch("[0-9]{1,9}", offset):
        raise Invalid("offset: must be a number from 0.")
    cursor = found.get("cursor", "")
    if cursor and int(offset):
        raise Invalid("offset: is for lists without a cursor.")
    return PageRequest(int(limit), int(offset), cursor)


def project(found: dict[str, str]) -> str | None:
    """The C{project_id} that is asked for, or C{None}; L{Invalid} where it looks like none."""
    asked = found.get("project_id")
    if asked is not None and not re.fullmatch(ID, asked):
        raise Invalid("project_id: is not an id.")
    return asked


def list_filter(found: dict[str, str], projects: tuple[str, ...] | None) -> ListFilter:
    """What of C{projects} is asked for by C{active} and C{search}; L{Invalid} where they are none."""
    active = found.get("active")
    if active not in (None, "true", "false"):
        raise Invalid("active: must be true or false.")
    return ListFilter(projects, None if active is None else active == "true", search_text(found))


def search_text(found: dict[str, str]) -> str:
    """What C{search} asks for; L{Invalid} where that is no text to be searched for."""
    search = found.get("search", "")
    if len(search) > MAX_SEARCH_CHARACTERS or not search.isprintable():
        raise Invalid(f"search: must be text of at most {MAX_SEARCH_CHARACTERS} characters.")
    return search
