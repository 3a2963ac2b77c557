"""Filters by project: a name, or part of one, becomes the id that the management API takes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmproxy.errors import Invalid
from llmproxy.web.admin.visit import Visit
from llmproxy.web.manage.paging import ID

MAX_OFFERED = 50  # names that are offered while one is typed; what is more has to be written
MAX_ALIKE = 20  # projects to choose from, where a name is that of several
MAX_SEARCHED = 300  # that have a text in their names, among which the one is looked for that has it as its name
NOBODY = "-"  # an id that no project has: what is not found has nothing


@dataclass(frozen=True, slots=True)
class ProjectChoice:
    """The project that a page is narrowed to.

    @ivar id: Its id; C{""} for all. @ivar text: What stands in the field: its name, or what was written there.
    @ivar offered: Names that are offered. @ivar alike: The projects that may be meant, where it is not clear which.
    @ivar problem: What is wrong with what was written, if anything.
    """

    id: str
    text: str
    offered: Sequence[str] = ()
    alike: Sequence[Mapping[str, Any]] = ()
    problem: str = ""


async def chosen_project(visit: Visit, values: Mapping[str, str] | None = None, *, offer: bool = True) -> ProjectChoice:
    """The project that C{project}, a name or an id, or C{project_id} asks for.

    @param values: A query or a form; by default the visit's query.
    @param offer: Whether names are to be offered.
    """
    given = visit.query if values is None else values
    text, offered = given.get("project", "").strip(), await _offered(visit) if offer else ()
    if text:
        return await _named(visit, text, offered)
    project_id = given.get("project_id", "").strip()
    found = await _by_id(visit, project_id)
    return ProjectChoice(project_id, found["name"] if found else project_id, offered)


async def project_ids(visit: Visit, texts: Sequence[str]) -> list[str]:
    """The ids of projects by their names or ids; L{Invalid} for one that is none, or could be several."""
    choices = [await _named(visit, text, ()) for text in texts]
    for choice in choices:
        if choice.problem:
            ids = ", ".join(each["id"] for each in choice.alike)
            raise Invalid(f"{choice.problem} Write its id: {ids}." if ids else choice.problem)
    return [choice.id for choice in choices]


async def _named(visit: Visit, text: str, offered: Sequence[str]) -> ProjectChoice:
    if found := await _by_id(visit, text):
        return ProjectChoice(found["id"], found["name"], offered)
    try:
        alike = (await visit.api.get("/manage/projects", search=text, limit=MAX_SEARCHED))["data"]
    except Invalid as e:
        return ProjectChoice(NOBODY, text, offered, (), e.message)
    exactly = [each for each in alike if each["name"].casefold() == text.casefold()]
    chosen = exactly if len(exactly) == 1 else alike
    if len(chosen) == 1:
        return ProjectChoice(chosen[0]["id"], chosen[0]["name"], offered)
    if not alike:
        return ProjectChoice(NOBODY, text, offered, (), f"There is no project called “{text}”.")
    said = f"Several projects are called so: “{text}”. Choose one."
    return ProjectChoice(NOBODY, text, offered, (exactly or alike)[:MAX_ALIKE], said)


async def _by_id(visit: Visit, text: str) -> Mapping[str, Any] | None:
    if not re.fullmatch(ID, text):
        return None
    found = (await visit.api.get("/manage/projects", id=text, limit=1))["data"]
    return found[0] if found else None


async def _offered(visit: Visit) -> list[str]:
    listed = (await visit.api.get("/manage/projects", limit=MAX_OFFERED))["data"]
    return list(dict.fromkeys(each["name"] for each in listed))
