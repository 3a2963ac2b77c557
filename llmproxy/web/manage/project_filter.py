"""Of which projects a list or a report is to be: C{?project_id=}, or C{?project=} with an id or a name."""

from __future__ import annotations

from llmproxy.errors import Invalid
from llmproxy.interfaces import IProjectStore
from llmproxy.model import ListFilter, PageRequest
from llmproxy.web.manage.paging import MAX_PAGE_SIZE, MAX_SEARCH_CHARACTERS, project
from llmproxy.web.manage.roles import Principal

PROJECT_PARAMETERS = ("project_id", "project")


async def wanted_projects(store: IProjectStore, principal: Principal, found: dict[str, str]) -> tuple[str, ...] | None:
    """The ids; C{None} for all, and for what belongs to none.

    L{Invalid} where C{project} is the id or the name of none that this principal sees: a list that is empty because of
    a mistyped name looks like a project that used nothing.
    """
    asked, named = project(found), found.get("project")
    if named is None:
        return principal.narrowed(asked)
    if asked is not None:
        raise Invalid.part("parameter", "project", "is not for a list that project_id narrows down already.")
    if not named or len(named) > MAX_SEARCH_CHARACTERS or not named.isprintable():
        said = f"must be an id or a name of at most {MAX_SEARCH_CHARACTERS} characters."
        raise Invalid.part("parameter", "project", said)
    page = await store.project_page(PageRequest(MAX_PAGE_SIZE), ListFilter(principal.projects, named=named))
    if not page.items:
        raise Invalid.part("parameter", "project", "is neither the id nor the name of a project.")
    return tuple(each.id for each in page.items)
