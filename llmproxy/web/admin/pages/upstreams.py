"""The providers: how they do, and whether requests are sent to them."""

from __future__ import annotations

from typing import Any

from llmproxy.web.admin.pages.names import project_names
from llmproxy.web.admin.visit import HtmlPage, Redirect, Result, Visit, segment

MAX_APIS = 12  # those with the most requests, whose figures of the last hour are shown


async def show_all(visit: Visit) -> HtmlPage:
    found = await visit.api.get("/manage/upstreams")
    keys = [{**key, "api": each["api"], "number": each["number"]} for each in found["data"] for key in each["keys"]]
    names = await project_names(visit, [key["project_id"] for key in keys])
    values = {
        "upstreams": found["data"],
        "keys_out": keys,
        "names": names,
        "lately": await _lately(visit),
    }
    return HtmlPage("upstreams.html", values)


async def _lately(visit: Visit) -> dict[str, Any]:
    """What went on in the last hour, by API; of one that is not here, nothing did."""
    busiest = await visit.api.get("/manage/activity/top", by="api", period="1h", limit=MAX_APIS)
    names = [each["name"] for each in busiest["data"]]
    return {name: (await visit.api.get("/manage/activity", period="1h", api=name))["total"] for name in names}


async def change(visit: Visit) -> Result:
    path = f"/manage/upstreams/{segment(visit.arguments[0])}/{segment(visit.arguments[1])}"
    await visit.api.send("POST", path, {"state": visit.form.get("state", "")})
    return Redirect("/admin/upstreams", "upstream-changed")
