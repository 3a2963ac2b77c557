"""C{/manage/reload}: the settings, read again."""

from __future__ import annotations

from pydantic import Field

from llmproxy.errors import NotFound
from llmproxy.proxy.own_response import BufferedResponse
from llmproxy.web.manage.deferred_model import DeferredModel
from llmproxy.web.manage.endpoint import Call, Endpoint, operation
from llmproxy.web.respond import json_response


class Reloaded(DeferredModel):
    """What has come of it."""

    changed: list[str] = Field(description="Settings that are other, and in force now.")
    needs_restart: list[str] = Field(description="Settings that are other, and taken up only when a process starts.")


class SettingsReload(Endpoint):
    path = "/manage/reload"

    @operation(
        "POST", "Read the settings again, and follow them as far as a running process can.", Reloaded,
        action="settings.reload",
    )  # fmt: skip
    async def reload_settings(self, call: Call) -> BufferedResponse:
        if self.context.reload is None:
            raise NotFound("There are no settings that could be read again.")
        result = self.context.reload()
        call.audit.details = {"changed": list(result.changed), "needs_restart": list(result.pending)}
        return json_response({"changed": list(result.changed), "needs_restart": list(result.pending)})
