"""Starts the workers, keeps as many running as there are to be, and replaces them one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList, fail, gatherResults
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from llmproxy.base.coroutines import FairLock, deferred, within
from llmproxy.base.peers import PeerAnswer
from llmproxy.process.link import LinkLost
from llmproxy.process.listening_sockets import ListeningSockets
from llmproxy.process.standing_orders import StandingOrders
from llmproxy.process.start_failures import sentence
from llmproxy.process.start_observer import StartObserver, cannot_start
from llmproxy.process.worker_process import WorkerFailed, WorkerProcess

START_SECONDS = 120.0  # for a worker to be ready: it may have to wait for its database
LONG_ENOUGH_SECONDS = 10.0  # a worker that lived so long is replaced at once
MAX_PAUSE_SECONDS = 30.0  # between two starts of one that ends as soon as it has begun
PEER_SECONDS = 3.0  # for a worker to answer what another one asks
CUT_SECONDS = 25.0  # for a worker to end when it need not wait for requests any more

Service = Callable[[WorkerProcess, Any], Any]


class SupervisorTerms(NamedTuple):
    """What the settings ask of the supervisor.

    @ivar workers: How many workers there are to be.
    @ivar endpoints: All that is listened on.
    @ivar drain_timeout: Seconds for which requests under way are waited for.
    @ivar drain_delay: Seconds for which clients are still accepted once it was told to end.
    """

    workers: int
    endpoints: Sequence[str]
    drain_timeout: float = 600.0
    drain_delay: float = 0.0


class Supervisor(MultiService):
    """The process that others know: it has the listening sockets and the pid file, and serves nothing itself."""

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        terms: Callable[[], SupervisorTerms],
        arguments: Sequence[str],
        environ: Mapping[str, str],
        *,
        observer: ILogObserver,
        services: Mapping[str, Service] | None = None,
        on_end: Callable[[WorkerProcess], object] = lambda worker: None,
        sockets: ListeningSockets | None = None,
    ) -> None:
        """
        @param terms: Reads what the settings ask for, now and before all workers are replaced.
        @param arguments: Those of C{twistd} with which a worker is started.
        @param services: What workers may ask for, by its name.
        @param on_end: Called with each worker that has ended.
        @param sockets: Those that are open already.
        """
        MultiService.__init__(self)
        self.start_observer: StartObserver | None = None
        self.workers: list[WorkerProcess] = []
        self.terms = terms()
        self.orders = StandingOrders()
        self.problem = ""  # for the ready page: that the last roll did not replace all workers
        self.roll_failures = 0
        self.restarts = 0
        self.running = False
        self.stopping = False
        self.listens_early = False  # before twistd changes the user
        self._listening: Deferred[None] | None = None
        self._reactor = reactor
        self._read_terms = terms
        self._arguments = arguments
        self._environ = environ
        self._observer = observer
        self._services = dict(services or {})
        self._when_ended = on_end
        self._sockets = sockets or ListeningSockets(reactor)
        self._started = 0
        self._starting: Deferred[None] | None = None
        self._delay: Deferred[None] | None = None
        self._pauses: dict[int, float] = {}
        self._timers: dict[int, IDelayedCall] = {}
        self._rolling = FairLock()
        self._leader: WorkerProcess | None = None

    def provide(self, name: str, service: Service) -> None:
        """Let workers ask for this."""
        self._services[name] = service

    def setServiceParent(self, parent: Any) -> None:
        if isinstance(parent, Componentized) and parent.getComponent(ILogObserver, None) is None:
            parent.setComponent(ILogObserver, self._observer)
        MultiService.setServiceParent(self, parent)

    def privilegedStartService(self) -> None:
        """What twistd calls before it changes the user, who might not be allowed to listen everywhere.

        UNIX sockets are for later: whoever made one must be allowed to remove it.
        """
        MultiService.privilegedStartService(self)
        if self.listens_early:
            early = [endpoint for endpoint in self.terms.endpoints if not endpoint.startswith("unix:")]
            self._listening = Deferred.fromCoroutine(self._sockets.open(early))

    def startService(self) -> None:
        if self.start_observer is not None:
            self.start_observer.begin()
        MultiService.startService(self)
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._cannot_start)

    async def _start(self) -> None:
        if self._listening is not None:
            await self._listening
        await self._sockets.open(self.terms.endpoints)
        await self._within_start(self._begin(1))  # it makes what all of them need, such as keys and tables
        self.running = True
        for number in range(2, self.terms.workers + 1):
            self._restart(number)
        # One of these that cannot start is started again and again; nobody waits for that.
        await DeferredList([self._within_start(each) for each in self.workers], consumeErrors=True)
        if self.start_observer is not None:
            self.start_observer.succeeded()

    def _cannot_start(self, failure: Failure) -> None:
        if self.stopping:
            return
        self.stopping = True
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
            worker.spawn(self._arguments, self._sockets.of(self.terms.endpoints), self._environ)
        except OSError as e:
            raise WorkerFailed(f"A worker could not be started: {e.strerror or e}.") from e
        self.workers.append(worker)
        worker.when_ready().addCallbacks(
            lambda _: self._ready(worker), lambda failure: failure.trap(WorkerFailed) and None
        )
        return worker

    def _appoint_leader(self) -> None:
        """Have one that serves do what one does for all of them: that of the first place, and there the latest."""
        serving = [worker for worker in reversed(self.workers) if worker.state == "ready"]
        leader = min(serving, key=lambda worker: worker.number, default=None)
        before, self._leader = self._leader, leader
        if leader is before:
            return
        if before is not None:
            before.link.tell("lead", False)
        if leader is not None:
            leader.link.tell("lead", True)

    def _ready(self, worker: WorkerProcess) -> None:
        self._appoint_leader()
        self._log.info(
            "Worker {name} is ready: {serving} of {count} workers.",
            name=worker.name,
            serving=self.serving,
            count=self.terms.workers,
            pid=worker.pid,
        )

    def _ended(self, worker: WorkerProcess) -> None:
        self.workers.remove(worker)
        self._appoint_leader()
        self._when_ended(worker)
        if worker.expected or self.stopping or not self.running:
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
        if self.stopping or any(each.number == number and each.state != "draining" for each in self.workers):
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
        if name == "order":
            return self._order(worker, body["name"], body["body"], body["key"])
        if name == "orders":
            return self.orders.entries
        return self._services[name](worker, body)

    @deferred
    async def ask(self, name: str, body: Any = None, *, but: WorkerProcess | None = None) -> list[Any]:
        """Ask all workers that serve, or drain; what does not answer in time, or fails, is left out."""
        return [answer for _, answer in await self.ask_processes(name, body, but=but)]

    @deferred
    async def ask_processes(
        self, name: str, body: Any = None, *, but: WorkerProcess | None = None
    ) -> list[tuple[WorkerProcess, Any]]:
        """As L{ask}; with who answered."""
        asked = [each for each in self.workers if each.state in ("ready", "draining") and each is not but]
        answers = await DeferredList([each.link.ask(name, body, PEER_SECONDS) for each in asked], consumeErrors=True)
        return [(worker, answer) for worker, (succeeded, answer) in zip(asked, answers, strict=True) if succeeded]

    @deferred
    async def ask_each(
        self, name: str, body: Any = None, *, but: WorkerProcess | None = None, seconds: float = PEER_SECONDS
    ) -> list[PeerAnswer]:
        """Ask the worker of each place; those that cannot answer have a problem.

        @param but: Not the place of this one, if it serves.
        """
        serving = {worker.number: worker for worker in self.workers if worker.state == "ready"}
        places = [
            number for number in range(1, self.terms.workers + 1) if serving.get(number) is not but or but is None
        ]
        waiting = [
            serving[number].link.ask(name, body, seconds)
            if number in serving
            else fail(LinkLost(self._absence(number)))
            for number in places
        ]
        answers: Any = await DeferredList(waiting, consumeErrors=True)
        return [
            PeerAnswer(number, answer) if succeeded else PeerAnswer(number, None, answer.getErrorMessage())
            for number, (succeeded, answer) in zip(places, answers, strict=True)
        ]

    def _absence(self, number: int) -> str:
        states = [worker.state for worker in self.workers if worker.number == number]
        return states[-1] if states else "not running"

    @deferred
    async def _order(self, worker: WorkerProcess, name: str, body: Any, key: str) -> list[list[Any]]:
        self.orders.add(name, body, key)
        return [list(each) for each in await self.ask_each(name, body, but=worker)]

    # Replacing them

    @deferred
    async def roll(self) -> bool:
        """Replace all workers by fresh processes, one after the other; an old one ends when its requests are over.

        Whether all were: where a new one does not become ready, the old ones that are left go on. As many are there
        afterwards, and as much is listened on, as the settings say now.
        """
        async with self._rolling.within(0, self._reactor, LinkLost()):
            if self.stopping:
                return False
            self.problem = ""
            try:
                terms = self._read_terms()
                await self._sockets.open(terms.endpoints)
            except Exception as e:
                return self._not_rolled("none was replaced", str(e) if isinstance(e, ValueError) else sentence(e))
            self.terms = terms
            self._log.info("Rolling {count} workers.", count=terms.workers)
            for number in range(1, terms.workers + 1):
                try:
                    await self._replace(number)
                except WorkerFailed as e:
                    return self._not_rolled(f"worker {number} did not start", str(e))
                if self.stopping:
                    return False
            for each in self.workers:
                if each.number > terms.workers:
                    each.drain(replaced=True)
            await self._sockets.keep(terms.endpoints)
            self._log.info("Rolled {count} workers.", count=terms.workers)
            return True

    async def _replace(self, number: int) -> None:
        before = [each for each in self.workers if each.number == number and each.state != "draining"]
        worker = self._begin(number)
        try:
            await self._within_start(worker)
        except WorkerFailed:
            worker.expected = True
            worker.signal("KILL")
            raise
        for each in before:
            each.drain(replaced=True)

    def _not_rolled(self, what: str, reason: str) -> bool:
        self.roll_failures += 1
        self.problem = f"not rolled: {what} (see the log)"
        self._log.error("Not rolled: {what} ({reason}); the old ones go on.", what=what, reason=reason)
        return False

    # The end

    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self.stopping = True
        if self._starting is not None:
            self._starting.cancel()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        await self._delayed()
        await self._sockets.close()
        for worker in self.workers:
            worker.drain()
        # No DeferredList: to one that is cancelled it is no failure, and those that hang would be left alone.
        ended = gatherResults([worker.when_ended() for worker in self.workers], consumeErrors=True)
        try:
            await within(self.terms.drain_timeout + CUT_SECONDS, self._reactor, ended, StillRunning())
        except StillRunning:
            self._log.error("Killed {count} workers that did not end.", count=len(self.workers))
            self._kill()
        stopping = MultiService.stopService(self)
        if stopping is not None:
            await stopping

    async def _delayed(self) -> None:
        """Go on accepting for a while, so that load balancers see on the ready page that it is about to end."""
        for worker in self.workers:
            worker.link.tell("retire")
        self._delay = Deferred()
        if self.terms.drain_delay and self.serving:
            try:
                await within(self.terms.drain_delay, self._reactor, self._delay, StillRunning())
            except StillRunning:
                pass

    def forward(self, name: str) -> None:
        """Send this signal, such as C{HUP}, to all workers that serve."""
        for worker in self.workers:
            if worker.state in ("ready", "draining"):
                worker.signal(name)

    def cut(self) -> None:
        """End all workers at once, whatever they are at."""
        if self._delay is not None and not self._delay.called:
            self._delay.callback(None)
        for worker in self.workers:
            worker.cut()
        self._reactor.callLater(CUT_SECONDS, self._kill)

    def _kill(self) -> None:
        for worker in self.workers:
            worker.signal("KILL")


class StillRunning(Exception):
    """Workers have not ended in time."""
