"""How this process is: the checks of its parts and of the store, for the ready page and among the metrics."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.defer import Deferred

from llmproxy import errors
from llmproxy.base.background import BackgroundTasks
from llmproxy.instruments import Gauge, HealthCheck, Instrument
from llmproxy.interfaces import IHealthChecked
from llmproxy.process.readiness import Checks
from llmproxy.store.store import Store


class ProcessHealth:
    """Asks all parts that have something to say."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._store_state = "ok"
        self._checks: list[HealthCheck] = []
        self._background = BackgroundTasks()
        self._looking = False

    def add(self, part: object) -> None:
        """Ask this part too, as far as it is an L{IHealthChecked}, and watch its C{tasks}."""
        self._background.add(part)
        if IHealthChecked.providedBy(part):
            self._checks += IHealthChecked(part).health_checks()

    async def checks(self, state: str) -> Checks:
        """Those without which no requests are to be sent here, and the others.

        @param state: That of the process: C{running}, or another that is no reason to send any.
        """
        await self._look_at_store()
        required = {check.name: check.read() for check in self._checks if check.required}
        own = {"config": "ok", "store": self._store_state}
        return Checks({**own, **required, "state": "ok" if state == "running" else state}, self._lesser())

    def instruments(self) -> Iterator[Instrument]:
        yield Gauge(
            "check_ok", "1 for a check of the ready page that is ok, 0 for others.", self._figures, "check", "min"
        )
        yield from self._background.instruments()

    def _lesser(self) -> dict[str, str]:
        checks = [*self._checks, *self._background.health_checks()]
        return {check.name: check.read() for check in checks if not check.required}

    def _figures(self) -> dict[str, float]:
        """The store's is what was found when somebody last asked: who asks has it looked at for those who come next."""
        if not self._looking:
            self._looking = True
            Deferred.fromCoroutine(self._look_at_store()).addBoth(self._looked)
        states = {check.name: check.read() for check in self._checks} | self._lesser() | {"store": self._store_state}
        return {name: float(state == "ok") for name, state in states.items()}

    def _looked(self, result: object) -> None:
        self._looking = False

    async def _look_at_store(self) -> None:
        try:
            await self._store.ping()
            self._store_state = "ok"
        except errors.StoreUnavailable as e:
            self._store_state = e.reason.replace(" ", "_").replace("-", "_")
        except errors.ProxyError as e:
            self._store_state = e.code
