"""What this process shows of itself, and of all workers where it is one of several."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from zope.interface import implementer

from llmproxy.base.coroutines import deferred
from llmproxy.base.late_imports import LateImports
from llmproxy.base.peers import NoSupervisor, PeerAnswer, Peers
from llmproxy.interfaces import IOpenable
from llmproxy.observability.metrics import Metrics, ProxyMetrics
from llmproxy.process.readiness import Checks, of_workers

HANDING_OVER_SECONDS = 2.0  # for the supervisor to have what an ending worker has counted

_EXPOSITION = "llmproxy.observability.exposition"


@implementer(IOpenable)
class WorkerViews:
    """Metrics, readiness and orders, whichever worker is asked for them.

    What shows metrics is imported when somebody asks for them: it takes 2 MB.
    """

    def __init__(
        self, metrics: Metrics, peers: Peers, checks: Callable[[], Awaitable[Checks]], imports: LateImports
    ) -> None:
        """
        @param checks: How this process is.
        """
        self._metrics = metrics
        self._peers = peers
        self._checks = checks
        self._imports = imports
        peers.register("metrics", lambda body: self._state())
        peers.register("ready", lambda body: self._own_checks())

    @deferred
    async def open(self) -> None:
        """Do what the other workers have been told before this one started."""
        if self._peers.alone:
            return
        for name, body in await self._peers.supervisor("orders"):
            await self._peers.perform(name, body)

    @deferred
    async def hand_over(self) -> None:
        """All has ended, and nothing is counted any more: what was counted stays counted."""
        if self._peers.alone:
            return
        try:
            await self._peers.supervisor("counted", self._state(), HANDING_OVER_SECONDS)
        except NoSupervisor:
            pass  # then what it has counted since somebody asked last is lost

    # Metrics

    async def metrics(self) -> Metrics:
        """What was counted, here and elsewhere."""
        if self._peers.alone:
            return self._metrics
        from llmproxy.observability.metrics_of_workers import TotalMetrics, merged, state_of_checks

        own = self._state()
        try:
            others = await self._peers.supervisor("metrics", own)
        except NoSupervisor:
            others = state_of_checks({"workers": False})
        return TotalMetrics(merged((own, others)))

    async def render(self, accept: str) -> tuple[str, bytes]:
        """The page of metrics for this C{Accept} field: its content type, and itself."""
        await self._imports.load((_EXPOSITION,))
        from llmproxy.observability.exposition import render

        return render(await self.metrics(), accept)

    async def counts(self) -> ProxyMetrics:
        return (await self.metrics()).snapshot()

    def _state(self) -> dict[str, Any]:
        from llmproxy.observability.exposition import process_families
        from llmproxy.observability.metrics_of_workers import state_of

        return state_of(self._metrics, process_families(), self._peers.number)

    # Readiness

    async def checks(self) -> Checks:
        """How this process is, or all workers."""
        if self._peers.alone:
            return await self._checks()
        own = PeerAnswer(self._peers.number, await self._own_checks())
        try:
            found = await self._peers.supervisor("readiness")
        except NoSupervisor as e:
            return of_workers([own, PeerAnswer(0, None, f"the supervisor does not answer: {e}")])
        others = [PeerAnswer(*each) for each in found["workers"]]
        # It drains where another one has its place: that one counts.
        mine = [] if own.worker in (each.worker for each in others) and not found["stopping"] else [own]
        return of_workers(sorted([*mine, *others], key=lambda each: each.worker), found["problem"])

    @deferred
    async def _own_checks(self) -> list[dict[str, str]]:
        required, lesser = await self._checks()
        return [dict(required), dict(lesser)]
