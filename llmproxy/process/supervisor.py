"""Starts the workers, keeps as many running as there are to be, and replaces them one by one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from llmproxy.base.coroutines import FairLock, deferred, within
from llmproxy.process.daemon import StartObserver, cannot_start
from llmproxy.process.link import LinkLost
from llmproxy.process.listening_sockets import ListeningSockets
from llmproxy.process.start_failures import sentence
from llmproxy.process.worker_process import WorkerFailed, WorkerProcess

AUTO = "auto"
START_SECONDS = 120.0  # for a worker to be ready: it may have to wait for its database
LONG_ENOUGH_SECONDS = 10.0  # a worker that lived so long is replaced at once
MAX_PAUSE_SECONDS = 30.0  # between two starts of one that ends as soon as it has begun
PEER_SECONDS = 3.0  # for a worker to answer what another one asks
CUT_SECONDS = 25.0  # for a worker to end when it need not wait for requests any more

Service = Callable[[WorkerProcess, Any], Any]


def worker_count(setting: int | str) -> int:
    """How many workers C{server.workers} means."""
    return len(os.sched_getaffinity(0)) if setting == AUTO else int(setting)


class Supervisor(MultiService):
    """The process that others know: it has the listening sockets and the pid file, and serves nothing itself."""

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        count: int,
        endpoints: Sequence[str],
        arguments: Sequence[str],
        environ: Mapping[str, str],
        *,
        observer: ILogObserver,
        services: Mapping[str, Service] | None = None,
        on_end: Callable[[WorkerProcess], object] = lambda worker: None,
        sockets: ListeningSockets | None = None,
        drain_timeout: float = 600.0,
    ) -> None:
        """
        @param count: How many workers there are.
        @param arguments: Those of C{twistd} with which a worker is started.
        @param services: What workers may ask for, by its name.
        @param on_end: Called with each worker that has ended.
        @param sockets: Those that are open already.
        """
        MultiService.__init__(self)
        self.start_observer: StartObserver | None = None
        self.workers: list[WorkerProcess] = []
        self._reactor = reactor
        self._count = count
        self._endpoints = endpoints
        self._arguments = arguments
        self._environ = environ
        self._observer = observer
        self._services = dict(services or {})
        self._when_ended = on_end
        self._sockets = sockets or ListeningSockets(reactor)
        self._drain_timeout = drain_timeout
        self.running = False
        self.restarts = 0
        self._started = 0
        self._stopping = False
        self._starting: Deferred[None] | None = None
        self._pauses: dict[int, float] = {}
        self._timers: dict[int, IDelayedCall] = {}
        self._rolling = FairLock()

    def setServiceParent(self, parent: Any) -> None:
        if isinstance(parent, Componentized) and parent.getComponent(ILogObserver, None) is None:
            parent.setComponent(ILogObserver, self._observer)
        MultiService.setServiceParent(self, parent)

    def startService(self) -> None:
        if self.start_observer is not None:
            self.start_observer.begin()
        MultiService.startService(self)
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._cannot_start)

    async def _start(self) -> None:
        await self._sockets.open(self._endpoints)
        await self._within_start(self._begin(1))  # it makes what all of them need, such as keys and tables
        self.running = True
        for number in range(2, self._count + 1):
            self._restart(number)
        if self.start_observer is not None:
            self.start_observer.succeeded()

    def _cannot_start(self, failure: Failure) -> None:
        if self._stopping:
            return
        self._stopping = True
        for worker in self.workers:
            worker.drain()
        error: Any = failure.value
        reason = sentence(error) if not isinstance(error, WorkerFailed) else str(error)
        cannot_start(self._reactor, reason, failure, self.start_observer)

    def _within_start(self, worker: WorkerProcess) -> Deferred[None]:
        late = WorkerFailed(f"A worker was not ready after {START_SECONDS:g} s.")
        return Deferred.fromCoroutine(within(START_SECONDS, self._reactor, worker.when_ready(), late))

    @property
    def serving(self) -> int:
        """How many workers are ready."""
        return sum(worker.state == "ready" for worker in self.workers)

    # Workers

    def _begin(self, number: int) -> WorkerProcess:
        """Start one for this place; L{WorkerFailed} where there can be no process."""
        self._started += 1
        worker = WorkerProcess(self._reactor, number, f"{number}.{self._started}", self._perform, self._ended)
        try:
            worker.spawn(self._arguments, self._sockets.descriptors, self._environ)
        except OSError as e:
            raise WorkerFailed(f"A worker could not be started: {e.strerror or e}.") from e
        self.workers.append(worker)
        worker.when_ready().addCallbacks(
            lambda _: self._ready(worker), lambda failure: failure.trap(WorkerFailed) and None
        )
        return worker

    def _ready(self, worker: WorkerProcess) -> None:
        self._log.info(
            "Worker {name} is ready: {serving} of {count} workers.",
            name=worker.name,
            serving=self.serving,
            count=self._count,
            pid=worker.pid,
        )

    def _ended(self, worker: WorkerProcess) -> None:
        self.workers.remove(worker)
        self._when_ended(worker)
        if worker.expected or self._stopping or not self.running:
            self._log.info("Worker {name} ended {how}.", name=worker.name, how=worker.status, pid=worker.pid)
            return
        lived = self._reactor.seconds() - worker.started_at
        pause = 0.0 if lived >= LONG_ENOUGH_SECONDS else min(max(self._pauses.get(worker.number, 0) * 2, 0.25), 30.0)
        self._pauses[worker.number] = pause
        self.restarts += 1
        self._log.error(
            "Worker {name} ended {how}; another one is started in {pause:g} s.",
            name=worker.name,
            how=worker.status,
            pause=pause,
            pid=worker.pid,
        )
        self._timers[worker.number] = self._reactor.callLater(pause, self._restart, worker.number)

    def _restart(self, number: int) -> None:
        self._timers.pop(number, None)
        if self._stopping or any(each.number == number and each.state != "draining" for each in self.workers):
            return
        try:
            self._begin(number)
        except WorkerFailed as e:
            self._log.error("{error} It is tried again.", error=str(e))
            self._timers[number] = self._reactor.callLater(MAX_PAUSE_SECONDS, self._restart, number)

    # What workers ask for

    def _perform(self, worker: WorkerProcess, name: str, body: Any) -> Any:
        if name == "peers":
            return self.ask(body["name"], body["body"], but=worker)
        return self._services[name](worker, body)

    @deferred
    async def ask(self, name: str, body: Any = None, *, but: WorkerProcess | None = None) -> list[Any]:
        """Ask all workers that serve; what does not answer in time, or fails, is left out."""
        asked = [worker for worker in self.workers if worker.state == "ready" and worker is not but]
        answers = await DeferredList(
            [worker.link.ask(name, body, PEER_SECONDS) for worker in asked], consumeErrors=True
        )
        return [answer for succeeded, answer in answers if succeeded]

    # Replacing them

    @deferred
    async def roll(self) -> bool:
        """Replace all workers by fresh processes, one after the other; an old one ends when its requests are over.

        Whether all were: where a new one does not become ready, the old ones that are left go on.
        """
        async with self._rolling.within(0, self._reactor, LinkLost()):
            self._log.info("Rolling {count} workers.", count=self._count)
            for number in range(1, self._count + 1):
                if self._stopping:
                    return False
                before = [each for each in self.workers if each.number == number and each.state != "draining"]
                try:
                    worker = self._begin(number)
                except WorkerFailed as e:
                    return self._not_rolled(number, e)
                try:
                    await self._within_start(worker)
                except WorkerFailed as e:
                    worker.expected = True
                    worker.signal("KILL")
                    return self._not_rolled(number, e)
                for each in before:
                    each.drain()
            self._log.info("Rolled {count} workers.", count=self._count)
            return True

    def _not_rolled(self, number: int, error: Exception) -> bool:
        self._log.error(
            "Not rolled: worker {number} did not start ({error}); the old ones go on.", number=number, error=str(error)
        )
        return False

    # The end

    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._stopping = True
        if self._starting is not None:
            self._starting.cancel()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        await self._sockets.close()
        for worker in self.workers:
            worker.drain()
        ended = DeferredList([worker.when_ended() for worker in self.workers])
        try:
            await within(self._drain_timeout + CUT_SECONDS, self._reactor, ended, StillRunning())
        except StillRunning:
            self._log.error("Killed {count} workers that did not end.", count=len(self.workers))
            self._kill()
        stopping = MultiService.stopService(self)
        if stopping is not None:
            await stopping

    def forward(self, name: str) -> None:
        """Send this signal, such as C{HUP}, to all workers that serve."""
        for worker in self.workers:
            if worker.state in ("ready", "draining"):
                worker.signal(name)

    def cut(self) -> None:
        """End all workers at once, whatever they are at."""
        for worker in self.workers:
            worker.cut()
        self._reactor.callLater(CUT_SECONDS, self._kill)

    def _kill(self) -> None:
        for worker in self.workers:
            worker.signal("KILL")


class StillRunning(Exception):
    """Workers have not ended in time."""
