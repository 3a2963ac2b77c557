"""The providers: how they do, and whether requests are sent to them."""

from __future__ import annotations

from llmproxy.web.admin.pages.names import project_names
from llmproxy.web.admin.visit import HtmlPage, Redirect, Result, Visit, segment


async def show_all(visit: Visit) -> HtmlPage:
    found = await visit.api.get("/manage/upstreams")
    keys = [{**key, "api": each["api"], "number": each["number"]} for each in found["data"] for key in each["keys"]]
    names = await project_names(visit, [key["project_id"] for key in keys])
    return HtmlPage("upstreams.html", {"upstreams": found["data"], "keys_out": keys, "names": names})


async def change(visit: Visit) -> Result:
    path = f"/manage/upstreams/{segment(visit.arguments[0])}/{segment(visit.arguments[1])}"
    await visit.api.send("POST", path, {"state": visit.form.get("state", "")})
    return Redirect("/admin/upstreams", "upstream-changed")
