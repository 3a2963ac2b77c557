"""The cache: figures, and how it is emptied."""

from __future__ import annotations

from llmproxy.errors import Invalid, NotFound
from llmproxy.web.admin.pages.project_choice import chosen_project
from llmproxy.web.admin.visit import HtmlPage, Redirect, Result, Visit

FIELDS = ("api", "path", "prefix")


async def show(visit: Visit, problem: str = "", status: int = 200) -> HtmlPage:
    try:
        cache = await visit.api.get("/manage/cache")
    except NotFound:
        cache = None
    project = await chosen_project(visit, visit.form)
    values = {"cache": cache, "problem": problem, "form": visit.form, "project": project}
    return HtmlPage("cache.html", values, status)


async def purge(visit: Visit) -> Result:
    chosen = {name: value for name in FIELDS if (value := visit.form.get(name, "").strip())}
    project = await chosen_project(visit, visit.form, offer=False)
    if project.problem:
        return await show(visit, project.problem, 422)
    if project.id:
        chosen["project_id"] = project.id
    try:
        await visit.api.send("POST", "/manage/cache/purge", {"all": True} if visit.form.get("all") else chosen)
    except Invalid as e:
        return await show(visit, e.message, e.status)
    return Redirect("/admin/cache", "cache-purged")
