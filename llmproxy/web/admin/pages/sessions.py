"""Who is signed in."""

from __future__ import annotations

import json

from llmproxy.web.admin.pages.names import actor_names
from llmproxy.web.admin.visit import HtmlPage, Redirect, Result, Visit


async def show_all(visit: Visit) -> HtmlPage:
    visit.principal.require("list_sessions")
    sessions = await visit.sessions.all()
    names = await actor_names(visit, [each.subject for each in sessions])
    names |= {each.subject: json.loads(each.principal)["name"] for each in sessions if each.principal}
    return HtmlPage("sessions.html", {"sessions": sessions, "actor_names": names})


async def end(visit: Visit) -> Result:
    await visit.api.send("DELETE", f"/manage/sessions/{visit.arguments[0]}")
    return Redirect("/admin/sessions", "session-ended")
