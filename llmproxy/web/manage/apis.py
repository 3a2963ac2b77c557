"""C{/manage/apis}: the configured APIs, which keys and tokens may name."""

from __future__ import annotations

from pydantic import Field

from llmproxy.proxy.own_response import BufferedResponse
from llmproxy.web.manage.deferred_model import DeferredModel
from llmproxy.web.manage.endpoint import Call, Endpoint, operation
from llmproxy.web.respond import json_response


class ApiView(DeferredModel):
    name: str
    default: bool = Field(description="Whether it is served at the root too.")
    allowed_endpoints: list[str]
    provider: str = Field(description="Whose it is, as the settings say.")


class ApiList(DeferredModel):
    """The configured APIs, in the settings' order."""

    data: list[ApiView]
    attributions: list[str] = Field(description="The names of what requests are attributed to.")


class ApiCollection(Endpoint):
    path = "/manage/apis"

    @operation("GET", "The configured APIs.", ApiList)
    async def list_apis(self, call: Call) -> BufferedResponse:
        context, providers = self.context, self.context.providers()
        shown = [
            ApiView(
                name=name,
                default=name == context.default_api,
                allowed_endpoints=list(endpoints),
                provider=providers.get(name, ""),
            )
            for name, endpoints in context.apis.items()
        ]
        return json_response(ApiList(data=shown, attributions=list(context.attributions())).model_dump())
