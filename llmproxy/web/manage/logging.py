"""C{/manage/logging}: how much is logged, changed without a restart."""

from __future__ import annotations

from typing import Literal

from llmproxy.errors import NotFound
from llmproxy.proxy.own_response import BufferedResponse
from llmproxy.web.manage.bodies import read
from llmproxy.web.manage.body_types import Body
from llmproxy.web.manage.controls import LogLevels
from llmproxy.web.manage.deferred_model import DeferredModel
from llmproxy.web.manage.endpoint import Call, Endpoint, ManagementContext, operation
from llmproxy.web.respond import json_response

Level = Literal["debug", "info", "warn", "error", "critical"]


class LoggingView(DeferredModel):
    """What is logged."""

    level: Level


class LoggingChange(Body):
    """What it is to log, until it ends or its settings are reloaded."""

    level: Level


class LoggingItem(Endpoint):
    path = "/manage/logging"

    def __init__(self, context: ManagementContext) -> None:
        Endpoint.__init__(self, context)
        context.peers.register("logging", lambda level: self._levels().set_level(level))

    @operation("GET", "What is logged.", LoggingView)
    async def get_logging(self, call: Call) -> BufferedResponse:
        return json_response({"level": self._levels().level})

    @operation("PATCH", "Log more or less, without a restart.", LoggingView, LoggingChange, action="logging.update")
    async def update_logging(self, call: Call) -> BufferedResponse:
        body = read(LoggingChange, call.body, self.context.body_context())
        levels = self._levels()
        call.audit.details = {"from": levels.level, "to": body.level}
        levels.set_level(body.level)
        await self.context.peers.order("logging", body.level)
        return json_response({"level": levels.level})

    def _levels(self) -> LogLevels:
        if self.context.log is None:
            raise NotFound("Nothing is logged here.")
        return self.context.log
