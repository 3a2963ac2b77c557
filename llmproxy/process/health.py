"""How this process is: the checks of its parts and of the store, for the ready page and among the metrics."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from llmproxy import errors
from llmproxy.base.background import BackgroundTasks, Loop
from llmproxy.base.coroutines import deferred
from llmproxy.instruments import HealthCheck, Instrument, check_gauge
from llmproxy.interfaces import IHealthChecked
from llmproxy.process.readiness import Checks
from llmproxy.store.store import Store

STORE_INTERVAL_SECONDS = 2.0  # between two looks at the store while nobody asks


class ProcessHealth:
    """Asks all parts that have something to say.

    @ivar state: That of the process: C{running}, or another that is no reason to send any requests.
    @ivar replaced: Whether another process has its place by now, so that only that one's checks count.
    """

    _log = Logger()

    def __init__(self, store: Store, clock: IReactorTime) -> None:
        self.state = "starting"
        self.replaced = False
        self._store = store
        self._store_state = "ok"
        self._checks: list[HealthCheck] = []
        self._background = BackgroundTasks()
        self._looking = Loop("health", self._look_at_store, STORE_INTERVAL_SECONDS, clock)
        self.tasks = (self._looking,)
        self._background.add(self)

    def start(self) -> None:
        """Look at the store from now on, also while nobody asks."""
        self._looking.start()

    def stop(self) -> None:
        """The store is about to be closed."""
        self._looking.stop()

    def add(self, part: object) -> None:
        """Ask this part too, as far as it is an L{IHealthChecked}, and watch its C{tasks}."""
        self._background.add(part)
        if IHealthChecked.providedBy(part):
            self._checks += IHealthChecked(part).health_checks()

    @deferred
    async def checks(self) -> Checks:
        """Those without which no requests are to be sent here, and the others."""
        await self._look_at_store()
        return self._found()

    def _found(self) -> Checks:
        required = {check.name: check.read() for check in self._checks if check.is_required}
        checks = [*self._checks, *self._background.health_checks()]
        lesser = {check.name: check.read() for check in checks if not check.is_required}
        own = {"config": "ok", "store": self._store_state}
        return Checks({**own, **required, "state": "ok" if self.state == "running" else self.state}, lesser)

    def instruments(self) -> Iterator[Instrument]:
        yield check_gauge(self._figures)
        yield from self._background.instruments()

    def _figures(self) -> dict[str, float]:
        if self.replaced:
            return {}
        required, lesser = self._found()
        return {name: float(state == "ok") for name, state in {**required, **lesser}.items()}

    @deferred
    async def _look_at_store(self) -> None:
        try:
            await self._store.ping()
            found = "ok"
        except errors.StoreUnavailable as e:
            found = e.reason.replace(" ", "_").replace("-", "_")
        except errors.ProxyError as e:
            found = e.code
        before, self._store_state = self._store_state, found
        if not self._looking.running or before == found:
            return
        if found == "ok":
            self._log.info("The store takes writes again.")
        else:
            self._log.error(
                "The store takes no writes: {state}. Until it does, /ready responds with 503.",
                state=found.replace("_", " "),
            )
