"""The daemon's life: open the store, listen, be ready; then stop taking, let requests finish, flush, close."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import Any

from twisted.application.service import IService, MultiService, Service
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import CancelledError, Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.tcp import Port
from twisted.logger import ILogObserver, Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from zope.interface import implementer

from llmproxy import errors
from llmproxy.base.coroutines import deferred, within
from llmproxy.config.model import Settings
from llmproxy.instruments import Gauge, Instrument
from llmproxy.interfaces import IInstrumented, IOpenable
from llmproxy.process.health import ProcessHealth
from llmproxy.process.listening_sockets import adopt, is_proxied, leave_socket, own_path, secured, with_backlog
from llmproxy.process.readiness import Checks
from llmproxy.process.start_failures import not_listening, sentence
from llmproxy.process.start_observer import StartObserver, cannot_start
from llmproxy.store.store import Store
from llmproxy.wire.descriptors import Descriptors
from llmproxy.wire.server.proxy_protocol import AddressedSite
from llmproxy.wire.server.site import Site
from llmproxy.wire.tls_transport import send_directly

CLOSING_SECONDS = 5.0  # for connections to providers to end, once no client uses them
CLOSING_AFTER_CUT_SECONDS = 0.5  # likewise, where what was under way has been cut
REPORTING_SECONDS = 3.0  # for all requests that are over to be reported, before those stop who are told of them
STOPPING_SECONDS = 15.0  # for all that is left to do once the requests are over
LAST_SECONDS = 5.0  # for the process to end after that
IDLE_SECONDS = 5.0  # for idle clients to ask once more, where another process goes on

_log = Logger()


@implementer(IInstrumented)
class Daemon(MultiService):
    """Everything that runs in one process.

    @ivar observer: Where the process's log goes when twistd was not told otherwise.
    @ivar start_observer: Called with how its start ends, if somebody wants to know.
    @ivar reload: Reads the settings again, and follows them.
    @ivar end_within: Called once the last request is over, with the seconds after which the process must have ended,
        whatever hangs by then. Nobody sees to that unless somebody puts a function here.
    @ivar all_reported: Fires once all requests are reported, those included that ended in this turn.
    @ivar hand_over: Called when all else has ended, for what others are to have of this process; fires when they do.
    @ivar listens_early: Whether it opens its sockets before twistd changes the user, who might not be allowed to.
    @ivar sockets: Descriptors that listen already, by the endpoint; they are taken over.
    @ivar drain_delay: Seconds for which it goes on accepting once it was told to end.
    """

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        observer: ILogObserver,
        store: Store,
        hang_up: Callable[[], Deferred[None]],
        descriptors: Descriptors | None = None,
    ) -> None:
        """
        @param descriptors: Says when clients are to be kept waiting because there are too few.
        @param hang_up: Lets go of the connections to providers; fires when there are none. Cancelled, it aborts them.
        """
        MultiService.__init__(self)
        self.settings = settings
        self._reactor = reactor
        self._observer = observer
        self._store = store
        self._hang_up = hang_up
        self._descriptors = descriptors
        self._sites: list[tuple[Sequence[str], Site]] = []
        self._ports: list[tuple[str, IListeningPort]] = []  # with their endpoints
        self._idle_patience = 0.0
        self._secure: list[tuple[str, IProtocolFactory, Any]] = []  # the ports that use TLS, with their endpoints
        self.reload: Callable[[], object] = lambda: None
        self._starting: Deferred[None] | None = None
        self._openings: list[Callable[[], Deferred[None]]] = []
        self._health = ProcessHealth(store, reactor)
        if descriptors is not None:
            descriptors.pause, descriptors.resume = self._pause_accepting, self._resume_accepting
        self._unfinished: list[str] = []
        self.end_within: Callable[[float], object] = lambda seconds: None
        self.all_reported: Callable[[], Deferred[None]] = lambda: succeed(None)
        self.hand_over: Callable[[], Deferred[None]] = lambda: succeed(None)
        self.start_observer: StartObserver | None = None
        self._before_abort: list[Callable[[], object]] = []
        self.sockets: MutableMapping[str, int] = {}
        self.listens_early = False
        self._listening: Deferred[None] | None = None
        self._was_cut = False
        self.drain_delay = settings.server.drain_delay
        self._delay: Deferred[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether it serves, and has not been told to end."""
        return self._health.state == "running"

    @property
    def descriptors_of_ports(self) -> dict[str, int]:
        """What it listens on, by the endpoint."""
        ports: list[tuple[str, Any]] = [each for each in self._ports if isinstance(each[1], FileDescriptor)]
        return {endpoint: port.fileno() for endpoint, port in ports}

    def leave_sockets(self) -> None:
        """Another process goes on listening where this one does: the sockets remain, and nobody need see its end."""
        self.drain_delay, self._idle_patience = 0.0, IDLE_SECONDS
        self._health.replaced = True
        for _, port in self._ports:
            leave_socket(port)

    def own_sockets(self) -> None:
        """The process from which the sockets are has left them to this one; those that nobody wants any more go."""
        while self.sockets:
            os.close(self.sockets.popitem()[1])
        for _, port in self._ports:
            own_path(port)

    @property
    def connections(self) -> int:
        """Client connections that are open now."""
        return sum(site.connections for _, site in self._sites)

    def serve(self, endpoints: Sequence[str], site: Site) -> None:
        """Listen there, once everything is ready."""
        self._sites.append((endpoints, site))

    def add(self, part: object) -> None:
        """Let this part of the process take part in its life, as far as it is an L{IService}, an L{IOpenable} or an
        L{IHealthChecked}, and watch its C{tasks}. Services that are added last are stopped first."""
        self._health.add(part)
        if IOpenable.providedBy(part):
            self._openings.append(IOpenable(part).open)
        if IService.providedBy(part):
            IService(part).setServiceParent(self)

    def read_certificates(self) -> Callable[[], None]:
        """Read the certificates of the endpoints anew; what uses them for connections from then on.

        L{StartupError<llmproxy.store.errors.StartupError>} says what is wrong with one.
        """
        factories = [(port, secured(self._reactor, endpoint, factory)) for endpoint, factory, port in self._secure]

        def use() -> None:
            for port, factory in factories:
                port.factory = send_directly(factory)

        return use

    def cut(self) -> None:
        """Wait no longer for connections that are still busy."""
        self._was_cut = True
        if self._delay is not None and not self._delay.called:
            self._delay.callback(None)
        for listener in self._before_abort:
            listener()
        for _, site in self._sites:
            site.abort()

    def before_abort(self, listener: Callable[[], object]) -> None:
        """Call this when connections that were still busy at the end of C{drain_timeout} are about to be aborted."""
        self._before_abort.append(listener)

    def instruments(self) -> Iterator[Instrument]:
        yield Gauge("client_connections", "Client connections that are open.", lambda: self.connections)
        yield from self._health.instruments()

    async def checks(self) -> Checks:
        """How it is, for the ready page."""
        return await self._health.checks()

    def retire(self) -> None:
        """Say on the ready page that it is about to end, while it goes on as ever."""
        if self._health.state == "running":
            self._health.state = "draining"

    def setServiceParent(self, parent: Any) -> None:
        if isinstance(parent, Componentized) and parent.getComponent(ILogObserver, None) is None:
            parent.setComponent(ILogObserver, self._observer)
        MultiService.setServiceParent(self, parent)

    def privilegedStartService(self) -> None:
        """What twistd calls before it changes the user: sockets are opened, and their clients kept waiting.

        UNIX sockets are not: whoever made one must be allowed to remove it.
        """
        MultiService.privilegedStartService(self)
        if self.listens_early:
            self._listening = Deferred.fromCoroutine(self._listen_on(lambda endpoint: not endpoint.startswith("unix:")))
            self._pause_ports()

    def startService(self) -> None:
        if self.start_observer is not None:
            self.start_observer.begin()
        try:
            MultiService.startService(self)
        except Exception:
            self._cannot_start(Failure())
            return
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._cannot_start)

    async def _start(self) -> None:
        await self._store.open()
        for opening in self._openings:
            await opening()
        if self._listening is not None:
            await self._listening
            self._resume_accepting()
        await self._listen_on(lambda endpoint: self._listening is None or endpoint.startswith("unix:"))
        self._health.state = "running"
        self._health.start()
        if self.start_observer is not None:
            self.start_observer.succeeded()
        gc.collect()
        gc.freeze()  # what is there now stays: the collector need not look at it again
        gc.set_threshold(5_000, 5, 400)  # hardly a request makes a cycle, and a collection is not to hold the loop
        sys.setswitchinterval(0.0002)  # a thread of the store that computes is not to hold up the reactor for 5 ms
        _log.info("Ready: {count} APIs.", count=len(self.settings.apis))

    def _cannot_start(self, failure: Any) -> None:
        if self._health.state == "draining":
            return  # it was told to stop before it had started
        self._health.state = "failed"
        cannot_start(self._reactor, sentence(failure.value), failure, self.start_observer)

    async def _listen_on(self, chosen: Callable[[str], bool]) -> None:
        for endpoints, site in self._sites:
            for endpoint in filter(chosen, endpoints):
                self._ports.append((endpoint, await self._listen(endpoint, site)))
                _log.info("Listening on {address}.", address=endpoint)

    async def _listen(self, endpoint: str, site: Site) -> IListeningPort:
        factory: IProtocolFactory = site
        if is_proxied(endpoint):
            factory = AddressedSite(site, self._reactor, self.settings.server.head_timeout)
        try:
            port: IListeningPort
            if endpoint in self.sockets:
                port = await adopt(self._reactor, endpoint, self.sockets.pop(endpoint), factory)
            else:
                port = await serverFromString(self._reactor, with_backlog(endpoint)).listen(factory)
        except CancelledError:
            raise
        except Exception as e:
            raise not_listening(endpoint, e) from e
        if isinstance(port, Port) and isinstance(port.factory, TLSMemoryBIOFactory):
            send_directly(port.factory)
            self._secure.append((endpoint, factory, port))
        return port

    async def _delayed(self) -> None:
        """Go on accepting for a while, so that load balancers see on the ready page that it is about to end."""
        if not self.drain_delay or not self._ports or self._was_cut:
            return
        self._delay = Deferred()
        _log.info("Listening for {seconds:g} s more, while /ready says that it is draining.", seconds=self.drain_delay)
        try:
            await within(self.drain_delay, self._reactor, self._delay, errors.Draining())
        except errors.Draining:
            pass

    async def _stop(self) -> None:
        self._health.state = "draining"
        if self._starting is not None:
            self._starting.cancel()
        await self._delayed()
        if self._descriptors is not None:
            self._descriptors.close()
        await gatherResults([Deferred.fromCoroutine(_closed(port)) for _, port in self._ports])
        drained = gatherResults([site.drain(self._idle_patience) for _, site in self._sites])
        if self._was_cut:
            self.cut()  # what has come since
        try:
            await within(self.settings.server.drain_timeout, self._reactor, drained, errors.Draining())
        except errors.Draining:
            _log.warn("Cut {count} connections that were still busy.", count=self.connections)
            self.cut()
        self.end_within(STOPPING_SECONDS + LAST_SECONDS)
        over: Deferred[None] = Deferred()

        def ended(result: object) -> None:
            if not over.called:
                over.callback(None)

        # Not cancelled: what is given up may still get done while the rest ends.
        Deferred.fromCoroutine(self._end()).addBoth(ended)
        try:
            await within(STOPPING_SECONDS, self._reactor, over, errors.Draining())
        except errors.Draining:
            _log.error(
                "Gave up what had not ended {seconds:g} s after the requests: {what}.",
                seconds=STOPPING_SECONDS,
                what=", ".join(self._unfinished),
            )
        await self._finished("what is left to others", self.hand_over)
        self._health.state = "stopped"

    async def _end(self) -> None:
        """Let go of providers, have all requests reported, stop all services together, close the store; what fails is
        said and left."""
        await self._finished("connections to providers", self._hung_up)
        await self._finished("reports of requests", self._reported)
        self._health.stop()
        Service.stopService(self)
        services = [IService(service) for service in self]
        await gatherResults([self._finished(str(each.name), each.stopService) for each in reversed(services)])
        await self._finished("store", self._store.close)

    @deferred
    async def _hung_up(self) -> None:
        seconds = CLOSING_AFTER_CUT_SECONDS if self._was_cut else CLOSING_SECONDS
        try:
            await within(seconds, self._reactor, self._hang_up(), errors.Draining())
        except errors.Draining:
            _log.warn("Aborted connections to providers that were still open after {seconds:g} s.", seconds=seconds)

    @deferred
    async def _reported(self) -> None:
        try:
            await within(REPORTING_SECONDS, self._reactor, self.all_reported(), errors.Draining())
        except errors.Draining:
            _log.warn("Requests were not over {seconds:g} s after their connections.", seconds=REPORTING_SECONDS)

    @deferred
    async def _finished(self, name: str, end: Callable[[], Any]) -> None:
        """Call C{end} and wait for it."""
        self._unfinished.append(name)
        try:
            await maybeDeferred(end)
        except Exception:
            _log.failure("Stopping failed: {name}.", name=name)
        self._unfinished.remove(name)

    def _pause_accepting(self) -> None:
        """Clients wait in the listen queue; those that wait for nothing give their descriptors back."""
        self._pause_ports()
        for _, site in self._sites:
            site.close_idle()

    def _pause_ports(self) -> None:
        for _, port in self._ports:
            if isinstance(port, FileDescriptor):
                port.stopReading()  # type: ignore[no-untyped-call]

    def _resume_accepting(self) -> None:
        for _, port in self._ports:
            if isinstance(port, FileDescriptor) and port.connected:
                port.startReading()  # type: ignore[no-untyped-call]

    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())


async def _closed(port: IListeningPort) -> None:
    stopping = port.stopListening()
    if stopping is not None:
        await stopping
