"""C{/manage/sessions}: who is signed in to the admin pages."""

from __future__ import annotations

import json

from pydantic import Field

from llmproxy.base.timestamps import rfc3339
from llmproxy.errors import NotFound
from llmproxy.proxy.own_response import BufferedResponse
from llmproxy.store.admin_sessions import AdminSession
from llmproxy.web.manage.deferred_model import DeferredModel
from llmproxy.web.manage.endpoint import Call, Endpoint, operation
from llmproxy.web.manage.stores import SignedIn
from llmproxy.web.respond import json_response


class SessionView(DeferredModel):
    """Somebody who is signed in, with one browser."""

    id: str
    subject: str = Field(description="Who that is, as the audit log calls them: management, key:ID, oidc:…")
    name: str | None = Field(description="What the identity provider calls them; null for whoever has a key.")
    client: str = Field(description="The address that they signed in from.")
    user_agent: str
    created_at: str
    last_seen_at: str = Field(description="True to the minute.")


class SessionList(DeferredModel):
    """Those that are not over, the one that was seen last first."""

    data: list[SessionView]


class SessionResource(Endpoint):
    """What both have in common."""

    @property
    def sessions(self) -> SignedIn:
        if self.context.sessions is None:
            raise NotFound("There are no admin pages here.")
        return self.context.sessions


class SessionCollection(SessionResource):
    path = "/manage/sessions"

    @operation("GET", "List who is signed in to the admin pages.", SessionList)
    async def list_sessions(self, call: Call) -> BufferedResponse:
        return json_response({"data": [session_json(each) for each in await self.sessions.all()]})


class SessionItem(SessionResource):
    path = "/manage/sessions/{id}"

    @operation("DELETE", "End a session: its browser must sign in anew.", status=204, action="session.end")
    async def end_session(self, call: Call) -> BufferedResponse:
        call.audit.details = {"session": call.id[:8]}
        if not await self.sessions.end(call.id):
            raise NotFound("That session is over already.")
        return BufferedResponse(204, lines=(b"Cache-Control: no-store",))


def session_json(session: AdminSession) -> dict[str, object]:
    """L{SessionView} of it; neither its secrets nor their hashes are in it."""
    return SessionView(
        id=session.id,
        subject=session.subject,
        name=json.loads(session.principal)["name"] if session.principal else None,
        client=session.client,
        user_agent=session.user_agent,
        created_at=rfc3339(session.created_at),
        last_seen_at=rfc3339(session.last_seen_at),
    ).model_dump()
