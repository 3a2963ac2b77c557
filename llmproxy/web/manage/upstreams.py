"""C{/manage/upstreams}: the providers, how they do, and how they are taken out of service."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llmproxy.errors import NotFound
from llmproxy.proxy.own_response import BufferedResponse
from llmproxy.web.manage.bodies import Body, read
from llmproxy.web.manage.controls import State
from llmproxy.web.manage.deferred_model import DeferredModel
from llmproxy.web.manage.endpoint import Call, Endpoint, operation
from llmproxy.web.respond import json_response


class UpstreamView(DeferredModel):
    """One provider, as the process that responds sees it."""

    api: str
    number: int = Field(description="Its place in the API's list, from 0.")
    base_url: str
    state: State
    breaker: Literal["closed", "open", "half-open"] = Field(description="Of failures to connect, for all projects.")
    in_flight: int = Field(description="Requests under way there.")


class UpstreamList(DeferredModel):
    """The providers of all APIs."""

    data: list[UpstreamView]


class UpstreamChange(Body):
    """What is to become of it."""

    state: State = Field(description="draining and disabled: requests under way go on, new ones get 503.")


class UpstreamResource(Endpoint):
    """What both have in common."""

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
        return json_response(UpstreamList(data=self.views()).model_dump())


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
        return json_response(next(each for each in self.views() if each.api == call.id).model_dump())
