"""Who is signed in."""

from __future__ import annotations

from llmproxy.errors import NotFound
from llmproxy.web.admin.visit import HtmlPage, Redirect, Result, Visit


async def show_all(visit: Visit) -> HtmlPage:
    visit.principal.require("list_sessions")
    return HtmlPage("sessions.html", {"sessions": await visit.sessions.all()})


async def end(visit: Visit) -> Result:
    visit.principal.require("end_session")
    if not await visit.sessions.end(visit.arguments[0]):
        raise NotFound("That session is over already.")
    return Redirect("/admin/sessions", "session-ended")
