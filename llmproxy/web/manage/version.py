"""C{/manage/version}: what runs here."""

from __future__ import annotations

import platform
from importlib import metadata

from pydantic import Field

from llmproxy.proxy.own_response import BufferedResponse
from llmproxy.web.manage.deferred_model import DeferredModel
from llmproxy.web.manage.endpoint import Call, Endpoint, ManagementContext, operation
from llmproxy.web.respond import json_response

API_VERSION = "1"


class VersionView(DeferredModel):
    """What runs here."""

    version: str = Field(description="Of llmproxy.")
    api: str = Field(description="Of this API; it is raised where something is changed that clients rely on.")
    python: str
    twisted: str


class Version(Endpoint):
    path = "/manage/version"

    def __init__(self, context: ManagementContext) -> None:
        super().__init__(context)
        self._view = VersionView(
            version=metadata.version("llmproxy"),
            api=API_VERSION,
            python=platform.python_version(),
            twisted=metadata.version("twisted"),
        ).model_dump()

    @operation("GET", "Which version of llmproxy runs here.", VersionView)
    async def get_version(self, call: Call) -> BufferedResponse:
        return json_response(self._view)
