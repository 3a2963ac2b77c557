"""The providers: how they do, and whether requests are sent to them."""

from __future__ import annotations

from llmproxy.web.admin.visit import HtmlPage, Redirect, Result, Visit, segment


async def show_all(visit: Visit) -> HtmlPage:
    found = await visit.api.get("/manage/upstreams")
    return HtmlPage("upstreams.html", {"upstreams": found["data"]})


async def change(visit: Visit) -> Result:
    path = f"/manage/upstreams/{segment(visit.arguments[0])}/{segment(visit.arguments[1])}"
    await visit.api.send("POST", path, {"state": visit.form.get("state", "")})
    return Redirect("/admin/upstreams", "upstream-changed")
