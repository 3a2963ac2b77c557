"""C{/manage/upstreams}: the providers, how they do, and how they are taken out of service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from llmproxy.errors import NotFound
from llmproxy.proxy.own_response import BufferedResponse
from llmproxy.web.manage.bodies import Body, read
from llmproxy.web.manage.controls import State
from llmproxy.web.manage.deferred_model import DeferredModel
from llmproxy.web.manage.endpoint import Call, Endpoint, ManagementContext, operation
from llmproxy.web.respond import json_response

WORST_BREAKERS = ("open", "half-open", "closed")


class UpstreamView(DeferredModel):
    """One provider, as all workers together see it."""

    api: str
    number: int = Field(description="Its place in the API's list, from 0.")
    base_url: str
    state: State
    breaker: Literal["closed", "open", "half-open"] = Field(
        description="Of failures to connect, for all projects; of several workers the one that is furthest from closed."
    )
    in_flight: int = Field(description="Requests under way there.")


class UpstreamList(DeferredModel):
    """The providers of all APIs."""

    data: list[UpstreamView]


class UpstreamChange(Body):
    """What is to become of it."""

    state: State = Field(description="draining and disabled: requests under way go on, new ones get 503.")


class UpstreamResource(Endpoint):
    """What both have in common."""

    def __init__(self, context: ManagementContext) -> None:
        Endpoint.__init__(self, context)
        context.peers.register("upstreams", lambda body: [each.model_dump() for each in self.views()])
        context.peers.register("upstreams.state", lambda body: self.set_state(*body))

    def set_state(self, api: str, state: State) -> None:
        """Have this process do so; nothing where it does not know the API."""
        control = self.context.upstreams
        if control is not None and api in (each.api for each in self.views()):
            control.set_state(api, state)

    async def all_views(self) -> list[dict[str, Any]]:
        """As all workers see them."""
        return together([[each.model_dump() for each in self.views()], *await self.context.peers.ask("upstreams")])

    def views(self) -> list[UpstreamView]:
        control = self.context.upstreams
        if control is None:
            return []
        busy = control.in_flight()
        return [
            UpstreamView(
                api=name,
                number=0,
                base_url=each.base_url,
                state=each.state,
                breaker=each.breaker,
                in_flight=busy.get(name, 0),
            )
            for name, each in control.listed()
        ]


class UpstreamCollection(UpstreamResource):
    path = "/manage/upstreams"

    @operation("GET", "The providers, and how they do.", UpstreamList)
    async def list_upstreams(self, call: Call) -> BufferedResponse:
        return json_response({"data": await self.all_views()})


class UpstreamItem(UpstreamResource):
    path = "/manage/upstreams/{id}/0"

    @operation("POST", "Take a provider out of service, or back into it.", UpstreamView, UpstreamChange,
               action="upstream.update")  # fmt: skip
    async def update_upstream(self, call: Call) -> BufferedResponse:
        body = read(UpstreamChange, call.body, self.context.body_context())
        call.audit.details = {"api": call.id, "state": body.state}
        control = self.context.upstreams
        if control is None or call.id not in (each.api for each in self.views()):
            raise NotFound(f"There is no API {call.id}.")
        control.set_state(call.id, body.state)
        await self.context.peers.order("upstreams.state", [call.id, body.state], call.id)
        return json_response(next(each for each in await self.all_views() if each["api"] == call.id))


def together(seen: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What several processes see of the same providers, as one; the first says which there are. Pure."""
    found = {(each["api"], each["number"]): dict(each) for each in seen[0]}
    for other in seen[1:]:
        for each in other:
            total = found.get((each["api"], each["number"]))
            if total is not None:
                total["in_flight"] += each["in_flight"]
                total["breaker"] = min(total["breaker"], each["breaker"], key=WORST_BREAKERS.index)
    return list(found.values())
