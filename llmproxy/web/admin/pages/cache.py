"""The cache: figures, and how it is emptied."""

from __future__ import annotations

from llmproxy.errors import Invalid, NotFound
from llmproxy.web.admin.visit import HtmlPage, Redirect, Result, Visit

FIELDS = ("api", "project_id", "path", "prefix")


async def show(visit: Visit, problem: str = "", status: int = 200) -> HtmlPage:
    try:
        cache = await visit.api.get("/manage/cache")
    except NotFound:
        cache = None
    return HtmlPage("cache.html", {"cache": cache, "problem": problem, "form": visit.form}, status)


async def purge(visit: Visit) -> Result:
    chosen = {name: value for name in FIELDS if (value := visit.form.get(name, "").strip())}
    try:
        await visit.api.send("POST", "/manage/cache/purge", {"all": True} if visit.form.get("all") else chosen)
    except Invalid as e:
        return await show(visit, e.message, e.status)
    return Redirect("/admin/cache", "cache-purged")
