"""C{/manage/upstreams}: the providers, how they do, and how they are taken out of service."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import Field

from llmproxy.errors import NotFound
from llmproxy.proxy.own_response import BufferedResponse
from llmproxy.web.manage.bodies import read
from llmproxy.web.manage.body_types import Body
from llmproxy.web.manage.controls import State
from llmproxy.web.manage.deferred_model import DeferredModel
from llmproxy.web.manage.endpoint import Call, Endpoint, ManagementContext, operation
from llmproxy.web.respond import json_response

WORST_BREAKERS = ("open", "half-open", "closed")
WORST_HEALTH = ("unhealthy", "healthy", "unknown")
MAX_KEYS = 1000  # that are shown of one upstream


class KeyCooldown(DeferredModel):
    """A project's key that is passed over for now."""

    project_id: str
    key: str = Field(description="Its first and last characters.")
    status: int = Field(description="Of the response why.")
    cooldown: float = Field(description="Seconds from now.")


class UpstreamView(DeferredModel):
    """One upstream, as all workers together see it."""

    api: str
    number: int = Field(description="Its place in the API's list, from 0.")
    base_url: str
    weight: int
    priority: int
    state: State
    breaker: Literal["closed", "open", "half-open"] = Field(
        description="Of failures to connect, for all projects; of several workers the one that is furthest from closed."
    )
    projects_out: int = Field(
        description="Projects for which alone it is ejected, since their requests got 500, 502, 503, 504 or no "
        "response there; of several workers the most."
    )
    health: Literal["unknown", "healthy", "unhealthy"] = Field(
        description="What probes say; unknown where there are none. While it is unhealthy its breaker is open."
    )
    probe: str = Field(description="What the last probe brought: a status, or what went wrong; empty without one.")
    in_flight: int = Field(description="Requests under way there.")
    keys: list[KeyCooldown] = Field(description="Keys that are passed over for now; at most 1000.")


class UpstreamList(DeferredModel):
    """The upstreams of all APIs."""

    data: list[UpstreamView]


class UpstreamChange(Body):
    """What is to become of it."""

    state: State = Field(
        description="draining and disabled: requests under way go on, new ones go elsewhere, or get 503."
    )


class UpstreamResource(Endpoint):
    """What both have in common."""

    def __init__(self, context: ManagementContext) -> None:
        Endpoint.__init__(self, context)
        context.peers.register("upstreams", lambda body: [each.model_dump() for each in self.views()])
        context.peers.register("upstreams.state", lambda body: self.set_state(*body))

    def set_state(self, api: str, number: int, state: State) -> None:
        """Have this process do so; nothing where it does not know the upstream."""
        control = self.context.upstreams
        if control is not None and (api, number) in ((each.api, each.number) for each in self.views()):
            control.set_state(api, number, state)

    async def all_views(self, call: Call) -> list[dict[str, Any]]:
        """As all workers see them; keys of such projects only as the caller may see."""
        own = [each.model_dump() for each in self.views()]
        views = together([own, *await self.context.peers.ask("upstreams")])
        for each in views:
            each["keys"] = [key for key in each["keys"] if call.principal.sees(key["project_id"])]
        return views

    def views(self) -> list[UpstreamView]:
        control = self.context.upstreams
        if control is None:
            return []
        busy = control.in_flight()
        return [
            UpstreamView(
                api=api,
                number=each.number,
                base_url=each.base_url,
                weight=each.weight,
                priority=each.priority,
                state=each.state,
                breaker=each.breaker,
                projects_out=each.projects_out,
                health=each.health,
                probe=control.last_probe(api, each.number),
                in_flight=each.in_flight if len(members) > 1 else busy.get(api, 0),
                keys=[
                    KeyCooldown(project_id=key.project_id, key=key.masked, status=key.status, cooldown=round(left, 3))
                    for key, left in control.keys_out(api, each.number)[:MAX_KEYS]
                ],
            )
            for api, members in control.listed()
            for each in members
        ]


class UpstreamCollection(UpstreamResource):
    path = "/manage/upstreams"

    @operation("GET", "The upstreams, and how they do.", UpstreamList)
    async def list_upstreams(self, call: Call) -> BufferedResponse:
        return json_response({"data": await self.all_views(call)})


class UpstreamItem(UpstreamResource):
    path = "/manage/upstreams/{id}/{number}"

    @operation("POST", "Take an upstream out of service, or back into it.", UpstreamView, UpstreamChange,
               action="upstream.update")  # fmt: skip
    async def update_upstream(self, call: Call) -> BufferedResponse:
        body = read(UpstreamChange, call.body, self.context.body_context())
        number = int(call.uri.partition(b"?")[0].rpartition(b"/")[2])
        call.audit.details = {"api": call.id, "number": number, "state": body.state}
        control, place = self.context.upstreams, (call.id, number)
        if control is None or place not in ((each.api, each.number) for each in self.views()):
            raise NotFound(f"There is no upstream {number} of an API {call.id}.")
        control.set_state(call.id, number, body.state)
        await self.context.peers.order("upstreams.state", [call.id, number, body.state], f"{call.id}/{number}")
        return json_response(next(e for e in await self.all_views(call) if (e["api"], e["number"]) == place))


def together(seen: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What several processes see of the same upstreams, as one; the first says which there are. Pure."""
    found = {(each["api"], each["number"]): dict(each) for each in seen[0]}
    for other in seen[1:]:
        for each in other:
            total = found.get((each["api"], each["number"]))
            if total is not None:
                total["in_flight"] += each["in_flight"]
                total["breaker"] = min(total["breaker"], each["breaker"], key=WORST_BREAKERS.index)
                total["projects_out"] = max(total["projects_out"], each["projects_out"])
                total["health"] = min(total["health"], each["health"], key=WORST_HEALTH.index)
                total["probe"] = total["probe"] or each["probe"]  # one process probes for all
                total["keys"] = _longest([*total["keys"], *each["keys"]])
    return list(found.values())


def _longest(keys: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each key once, with the longest of its cool-downs."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for key in keys:
        place = (key["project_id"], key["key"])
        if place not in found or found[place]["cooldown"] < key["cooldown"]:
            found[place] = key
    return list(found.values())
