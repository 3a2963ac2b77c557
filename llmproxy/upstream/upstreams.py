"""The providers: whose key to send, whether to try at all, and sending until the first byte of an answer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IBodyProducer

from llmproxy import errors
from llmproxy.config.model import Api, Settings
from llmproxy.config.routes import Route
from llmproxy.http import credentials
from llmproxy.http.origin import split_base_url
from llmproxy.interfaces import IProviderKeys
from llmproxy.upstream.breaker import Breaker
from llmproxy.wire.client.transport import Response, Transport
from llmproxy.wire.deadline import Deadline

CHECKS_PER_TIMEOUT = 8  # how often, in the time that a provider may be silent, it is looked whether the upload goes on
MAX_SPARE_TIMERS = 1000  # timers that are kept for the next request
_NEVER = (0.0, None)
# By which a provider says that it is not working; 529 says "later".
FAILURE_STATUSES = frozenset((500, 502, 503, 504))


class ProviderKey(NamedTuple):
    """A project's key for one provider.

    @ivar line: The header line that carries it.
    """

    value: bytes
    line: bytes


class ProviderKeys:
    """Remembers each project's provider keys for a short time, so that the usual request looks nothing up."""

    def __init__(
        self,
        store: IProviderKeys,
        clock: IReactorTime,
        *,
        ttl: float,
        size: int = 10_000,
        learn: Callable[[str], object] = lambda key: None,
    ) -> None:
        """
        @param ttl: Seconds for which a key is remembered.
        @param learn: Told every key, so that logs can leave it out.
        """
        self._learn = learn
        self._store = store
        self._clock = clock
        self._ttl = ttl
        self._size = size
        self._known: OrderedDict[tuple[str, str], tuple[float, ProviderKey | None]] = OrderedDict()
        self._changes = 0

    def known(self, project_id: str, api: str) -> ProviderKey | None:
        """The key, if it is remembered."""
        until, key = self._known.get((project_id, api), _NEVER)
        return key if self._clock.seconds() < until else None

    async def look_up(self, project_id: str, api: str, scheme: str) -> ProviderKey:
        """Ask the store.

        L{errors.UpstreamAuthError}: there is no key, or it is none; L{errors.StoreUnavailable}: the store is down.

        @param scheme: How the provider wants it; see L{credentials.scheme}.
        """
        changes = self._changes
        try:
            value = await self._store.get_api_key_for_project(project_id, api)
        except (errors.ProxyError, CancelledError):
            raise
        except Exception as e:
            raise errors.StoreUnavailable("The provider's key could not be looked up. Try again.") from e
        if not value:
            raise errors.UpstreamAuthError
        self._learn(value)
        line = credentials.inject(scheme, value)
        key = ProviderKey(value.encode("ascii"), line)
        if changes == self._changes:  # nothing was changed while we asked
            self._known[project_id, api] = (self._clock.seconds() + self._ttl, key)
            while len(self._known) > self._size:
                self._known.popitem(last=False)
        return key

    def forget(self, project_id: str) -> None:
        """The project (C{""}: any) has changed: whatever is remembered of it may be wrong."""
        self._changes += 1
        if not project_id:
            self._known.clear()
        for known in [k for k in self._known if k[0] == project_id]:
            del self._known[known]


class Circuits:
    """The breakers of one API.

    What no tenant can bring about (no connection to the provider) counts for everybody; answers that say failure and
    answers that do not come count only for the project that asked, so that one tenant cannot shut out another.
    """

    def __init__(self, api: Api, *, size: int = 10_000) -> None:
        self._failures = api.circuit_breaker.failures
        self._cooldown = api.circuit_breaker.cooldown
        self._size = size
        self.all = Breaker(self._failures, self._cooldown)
        self._projects: OrderedDict[str, Breaker] = OrderedDict()

    def of(self, project_id: str) -> Breaker:
        breaker = self._projects.get(project_id)
        if breaker is not None:
            self._projects.move_to_end(project_id)
        else:
            breaker = self._projects[project_id] = Breaker(self._failures, self._cooldown)
            while len(self._projects) > self._size:
                self._projects.popitem(last=False)
        return breaker

    def enter(self, project_id: str, now: float) -> Attempt:
        """Begin an attempt; L{errors.CircuitOpen} where none may be made now."""
        mine = self.of(project_id)
        shared_ticket = self.all.allow(now)
        if not shared_ticket:
            raise errors.CircuitOpen(retry_after=self.all.retry_after(now))
        ticket = mine.allow(now)
        if not ticket:
            self.all.released(shared_ticket)
            raise errors.CircuitOpen(retry_after=mine.retry_after(now))
        return Attempt(self.all, shared_ticket, mine, ticket)

    @property
    def state(self) -> str:
        """C{closed}, C{open} or C{half-open}: of the breaker that counts for everybody."""
        return self.all.state


@dataclass(slots=True)
class Attempt:
    """One request under way; ends with exactly one verdict."""

    shared: Breaker
    shared_ticket: int
    project: Breaker
    ticket: int

    def answered(self, status: int, now: float) -> None:
        self.shared.succeeded(now, self.shared_ticket)
        if status in FAILURE_STATUSES:
            self.project.failed(now, self.ticket)
        else:
            self.project.succeeded(now, self.ticket)

    def failed(self, error: BaseException, now: float) -> None:
        if isinstance(error, errors.UpstreamUnreachable) and error.nothing_sent:
            self.shared.failed(now, self.shared_ticket)
            self.project.released(self.ticket)
            return
        self.shared.released(self.shared_ticket)
        if isinstance(error, errors.UpstreamFailure) and not isinstance(error, errors.UpstreamBusy):
            self.project.failed(now, self.ticket)
        else:  # the client left, or the fault is ours
            self.project.released(self.ticket)


class UploadProgress(Protocol):
    """A request's body on its way.

    @ivar count: Bytes of it that have arrived.
    @ivar awaited: Whether it is for the client to go on, so that the provider cannot be blamed for its silence.
    """

    count: int

    @property
    def awaited(self) -> bool: ...


class HeadTimeouts(NamedTuple):
    """How long the head of an answer is waited for.

    @ivar silence: Seconds for which the provider may be silent once the request is sent; C{0}: no limit. An answer that
        is not streamed has no head until it is done, so only a stream has such a limit.
    @ivar deadline: The clock's time by which the whole answer is due, or C{None}.
    """

    silence: float = 0.0
    deadline: float | None = None


_UNBOUNDED = HeadTimeouts()


class _Upstream:
    """One API's provider, made ready."""

    def __init__(self, api: Api, caller: Transport) -> None:
        timeouts = api.timeouts
        self.caller = caller
        self.origin, _ = split_base_url(api.base_url)
        self.circuits = Circuits(api)
        self.attempts = api.retries.attempts
        limits = (timeouts.response_header / CHECKS_PER_TIMEOUT, timeouts.request, timeouts.stream)
        self.first_look = min((seconds for seconds in limits if seconds), default=0.0)


class Upstreams:
    """Sends requests to providers."""

    def __init__(
        self,
        settings: Settings,
        callers: dict[str, Transport],
        clock: IReactorTime,
    ) -> None:
        self._clock = clock
        self._upstreams = {name: _Upstream(api, callers[name]) for name, api in settings.apis.items()}
        self._patience: list[_HeadTimer] = []  # those that wait for nothing now; each has a timer, which costs

    @property
    def circuits(self) -> dict[str, Circuits]:
        """The breakers of each API."""
        return {name: upstream.circuits for name, upstream in self._upstreams.items()}

    def states(self) -> dict[str, str]:
        """The state of each API's breaker that counts for everybody: C{closed}, C{open} or C{half-open}."""
        return {name: upstream.circuits.state for name, upstream in self._upstreams.items()}

    def close(self) -> None:
        """Leave no timer behind."""
        while self._patience:
            self._patience.pop().stop()

    async def send(
        self,
        route: Route,
        project_id: str,
        method: bytes,
        lines: list[bytes],
        body: IBodyProducer | None,
        progress: UploadProgress,
        bounds: Callable[[], HeadTimeouts] = lambda: _UNBOUNDED,
    ) -> Response:
        """Send it and wait for the head of the answer.

        @param lines: All fields of the outgoing request but its framing.
        @param progress: Counts the bytes of the request that were read; silence is measured from the last of them.
        @param bounds: Tells how long that may take, as far as is known when it is called.
        """
        upstream = self._upstreams[route.api_name]
        attempt = upstream.circuits.enter(project_id, self._clock.seconds())
        try:
            for remaining in reversed(range(upstream.attempts)):
                sent = upstream.caller.send(method, upstream.origin, route.target, lines, body)
                try:
                    answer = await self._head(sent, upstream, progress, bounds)
                    break
                except errors.UpstreamUnreachable as e:
                    if not (remaining and e.nothing_sent):
                        raise
        except BaseException as e:
            attempt.failed(e, self._clock.seconds())
            raise
        attempt.answered(answer.code, self._clock.seconds())
        return answer

    async def _head(
        self,
        sent: Deferred[Response],
        upstream: _Upstream,
        progress: UploadProgress,
        bounds: Callable[[], HeadTimeouts],
    ) -> Response:
        """Wait for the head: for so much silence, counted anew while the upload goes on, and until the deadline."""
        if not upstream.first_look or sent.called:
            return await sent
        patience = self._patience.pop() if self._patience else _HeadTimer(self._clock)
        patience.begin(sent, upstream.first_look, progress, bounds)
        try:
            return await sent
        except errors.UpstreamTimeout:
            raise
        except Exception as e:
            if patience.lost:
                raise errors.UpstreamTimeout(f"The provider did not answer within {patience.lost:g} s.") from e
            raise
        finally:
            patience.over()
            if len(self._patience) < MAX_SPARE_TIMERS:
                self._patience.append(patience)
            else:
                patience.stop()


class _HeadTimer:
    """Cancels a Deferred when for too long neither its answer came nor the upload went on, or its time is up.

    Made once and used for many requests, one at a time: the usual one touches no timer.

    @ivar lost: After how many seconds that was, once it has happened.
    """

    lost = 0.0
    _sent: Deferred[Response] | None = None

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._next = Deadline(clock, self._look)
        self.stop = self._next.stop

    def begin(
        self,
        sent: Deferred[Response],
        first_look: float,
        progress: UploadProgress,
        bounds: Callable[[], HeadTimeouts],
    ) -> None:
        self.lost = 0.0
        self._sent = sent
        self._progress = progress
        self._bounds = bounds
        self._seen = progress.count
        self._since = self._begun = self._clock.seconds()
        self._next.set(first_look)

    def over(self) -> None:
        self._sent = None
        self._next.clear()

    def _look(self) -> None:
        now = self._clock.seconds()
        if self._progress.count != self._seen or self._progress.awaited:
            self._seen, self._since = self._progress.count, now
        silence, deadline = self._bounds()
        ends = [self._since + silence] if silence else []
        if deadline is not None:
            ends.append(deadline)
        if not ends:
            return
        left = min(ends) - now
        if left > 0:
            # When the upload went on is known only as nearly as it is looked at.
            self._next.set(min(left, silence / CHECKS_PER_TIMEOUT) if silence else left)
            return
        self.lost = now - self._begun
        if self._sent is not None:
            self._sent.cancel()
