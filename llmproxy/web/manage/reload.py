"""C{/manage/settings} and C{/manage/reload}: the settings with their sources, and how they are read again."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from llmproxy.errors import NotFound
from llmproxy.proxy.own_response import BufferedResponse
from llmproxy.web.manage.deferred_model import DeferredModel
from llmproxy.web.manage.endpoint import Call, Endpoint, operation
from llmproxy.web.respond import json_response


class WorkerReload(DeferredModel):
    """One worker's part in it."""

    worker: int = Field(description="Its place, from 1.")
    result: str = Field(description="reloaded, or why not.")


class Reloaded(DeferredModel):
    """What has come of it."""

    changed: list[str] = Field(description="Settings that are other, and in force now.")
    needs_restart: list[str] = Field(description="Settings that are other, and taken up only when a process starts.")
    rolling: list[str] = Field(
        default=[], description="With several workers: settings for which they are being replaced, one by one."
    )
    workers: list[WorkerReload] = Field(default=[], description="What each of several workers has done.")


class SettingsReload(Endpoint):
    path = "/manage/reload"

    @operation(
        "POST", "Read the settings again, and follow them as far as a running process can.", Reloaded,
        action="settings.reload",
    )  # fmt: skip
    async def reload_settings(self, call: Call) -> BufferedResponse:
        if self.context.reload is None:
            raise NotFound("There are no settings that could be read again.")
        result = await self.context.reload()
        found: dict[str, Any] = {"changed": list(result.changed), "needs_restart": list(result.pending)}
        if result.workers:
            found["rolling"] = list(result.rolling)
        call.audit.details = dict(found)
        if result.workers:
            found["workers"] = [{"worker": worker, "result": what} for worker, what in result.workers]
        return json_response(found)


class SettingView(DeferredModel):
    """One setting."""

    setting: str = Field(description="Its path, such as apis.openai.timeouts.request.")
    value: Any = Field(description="Passwords and what a plugin calls a secret are ***.")
    source: str = Field(description="File and line, the variable, or default.")


class SettingList(DeferredModel):
    """The settings as they are written now; what a reload could not take up is among them."""

    data: list[SettingView]


class SettingsList(Endpoint):
    path = "/manage/settings"

    @operation("GET", "All settings, with where each comes from.", SettingList)
    async def list_settings(self, call: Call) -> BufferedResponse:
        found = [] if self.context.effective is None else self.context.effective()
        return json_response(
            {"data": [{"setting": each.path, "value": each.value, "source": each.source} for each in found]}
        )
