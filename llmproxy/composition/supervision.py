"""Several workers and their supervisor, put together out of the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmproxy.config.model import Settings
from llmproxy.instruments import Counter, Gauge
from llmproxy.limits.counters.shared import SharedCounters
from llmproxy.observability.log_output import LogOutput
from llmproxy.observability.metrics import Metrics
from llmproxy.observability.metrics_of_workers import State, lasting, merged, state_of, state_of_checks
from llmproxy.process.coordinated_reload import CoordinatedReload
from llmproxy.process.supervisor import Supervisor, SupervisorTerms
from llmproxy.process.worker import worker_count
from llmproxy.process.worker_process import WorkerProcess


def endpoints(settings: Settings) -> list[str]:
    """All that the daemon listens on."""
    server = settings.server
    return list(dict.fromkeys((*server.listen, *server.admin_listen, *server.metrics_listen)))


def terms(settings: Settings) -> SupervisorTerms:
    """What they ask of the supervisor."""
    server = settings.server
    return SupervisorTerms(worker_count(server.workers), endpoints(settings), server.drain_timeout, server.drain_delay)


class WorkerMetrics:
    """What workers have counted, also those that have ended: as far as they could still say it."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._last: dict[str, State] = {}
        self._final: set[str] = set()  # the names of those that count nothing any more
        self._ended = merged(())
        own = Metrics()
        for instrument in (
            Gauge("workers", "Workers that are ready.", lambda: supervisor.serving),
            Gauge("workers_configured", "Workers that there are to be.", lambda: supervisor.terms.workers),
            Counter("roll_failures", "Times that new workers were asked for, and could not take over.",
                    lambda: supervisor.roll_failures),
            Counter("worker_restarts", "Workers that ended without being told to.", lambda: supervisor.restarts),
        ):  # fmt: skip
            own.add(instrument)
        self._own = own

    async def others(self, worker: WorkerProcess, state: State) -> State:
        """What all but this one have counted; it has counted C{state}."""
        self._last[worker.name] = state
        supervisor, responding = self._supervisor, {worker}
        for other, answer in await supervisor.ask_processes("metrics", but=worker):
            if other.state != "ended" and other.name not in self._final:  # while others were waited for
                self._last[other.name] = answer
            responding.add(other)
        known = [last for name, last in self._last.items() if name != worker.name]
        places = {each.number for each in responding if each.state == "ready"}
        complete = places.issuperset(range(1, supervisor.terms.workers + 1))
        checks = state_of_checks({"workers": complete, "roll": not supervisor.problem})
        return merged([self._ended, state_of(self._own), checks, *known])

    def note(self, worker: WorkerProcess, state: State) -> None:
        """It is about to end, and has counted this, and nothing more."""
        if worker.state != "ended":
            self._last[worker.name] = state
            self._final.add(worker.name)

    def end(self, worker: WorkerProcess) -> None:
        """It has ended: what it counted stays counted."""
        self._final.discard(worker.name)
        last = self._last.pop(worker.name, None)
        if last is not None:
            self._ended = merged([self._ended, lasting(last)])


def make_supervisor(
    load: Callable[[], Settings], reactor: Any, arguments: Sequence[str], environ: Mapping[str, str], output: LogOutput
) -> tuple[Supervisor, CoordinatedReload]:
    """The supervisor that the settings ask for, and what has its workers reload.

    @param load: Reads the settings.
    @param arguments: Those of C{twistd} with which a worker is started.
    """
    counters = SharedCounters(reactor.seconds)

    def ended(worker: WorkerProcess) -> None:
        counters.release(worker.name)
        metrics.end(worker)

    supervisor = Supervisor(
        reactor, lambda: terms(load()), arguments, environ, observer=output, on_end=ended,
        services={"limits": lambda worker, body: counters.exchange(worker.name, *body)},
    )  # fmt: skip
    metrics, reload = WorkerMetrics(supervisor), CoordinatedReload(reactor, supervisor)

    async def ready(worker: WorkerProcess) -> dict[str, Any]:
        answers = await supervisor.ask_each("ready", but=worker)
        return {
            "workers": [list(each) for each in answers],
            "problem": supervisor.problem,
            "stopping": supervisor.stopping,
        }

    supervisor.provide("metrics", lambda worker, body: metrics.others(worker, body))
    supervisor.provide("counted", metrics.note)
    supervisor.provide("readiness", lambda worker, body: ready(worker))
    supervisor.provide("reload", lambda worker, body: reload.reload())
    return supervisor, reload
