"""Sends requests to providers, and waits for the heads of their responses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IBodyProducer

from llmproxy import errors
from llmproxy.config.api_settings import Api
from llmproxy.config.model import Settings
from llmproxy.config.routes import Route
from llmproxy.http.origin import split_base_url
from llmproxy.upstream.circuits import Circuits
from llmproxy.wire.client.pending_request import Cancellable
from llmproxy.wire.client.transport import Response, Transport
from llmproxy.wire.deadline import Deadline

CHECKS_PER_TIMEOUT = 8  # how often, in the time that a provider may be silent, it is looked whether the upload goes on
MAX_SPARE_TIMERS = 1000  # timers that are kept for the next request


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


UpstreamState = Literal["enabled", "draining", "disabled"]


class Upstream:
    """One API's provider, made ready.

    @ivar state: Whether requests are sent there. While it is C{draining}, or C{disabled}, those under way go on, and
        new ones are refused.
    """

    def __init__(self, api: Api, caller: Transport) -> None:
        timeouts = api.timeouts
        self.caller = caller
        self.origin, _ = split_base_url(api.base_url)
        self.circuits = Circuits(api)
        self.base_url = api.base_url
        self.state: UpstreamState = "enabled"
        self.attempts = api.retries.attempts
        limits = (timeouts.response_header / CHECKS_PER_TIMEOUT, timeouts.request, timeouts.stream)
        self.first_look = min((seconds for seconds in limits if seconds), default=0.0)

    @property
    def breaker(self) -> Literal["closed", "open", "half-open"]:
        """The state of the breaker that counts for everybody."""
        return self.circuits.state


class Upstreams:
    """Sends requests to providers."""

    def __init__(
        self,
        settings: Settings,
        callers: dict[str, Transport],
        clock: IReactorTime,
    ) -> None:
        self._clock = clock
        self._apis: dict[str, Api] = {}
        self._upstreams: dict[str, Upstream] = {}
        self._listed: tuple[str, ...] = ()
        self.reconfigure(settings.apis, callers)
        self._patience: list[HeadTimer] = []  # those that wait for nothing now; each has a timer, which costs

    def reconfigure(self, apis: Mapping[str, Api], callers: Mapping[str, Transport]) -> None:
        """Send to these providers from now on. Breakers go on where provider and breaker are the same; APIs that are
        gone stay for requests under way."""
        for name, api in apis.items():
            before, known = self._apis.get(name), self._upstreams.get(name)
            upstream = Upstream(api, callers[name])
            if known is not None and before is not None and _same_circuits(before, api):
                upstream.circuits = known.circuits
            if known is not None and known.base_url == upstream.base_url:
                upstream.state = known.state
            self._apis[name], self._upstreams[name] = api, upstream
        self._listed = tuple(apis)

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
        tried: int = 0,
    ) -> Response:
        """Send it and wait for the head of the answer.

        @param tried: How often it has been tried already, without anything having been sent.

        @param lines: All fields of the outgoing request but its framing.
        @param progress: Counts the bytes of the request that were read; silence is measured from the last of them.
        @param bounds: Tells how long that may take, as far as is known when it is called.
        """
        upstream = self._upstreams[route.api_name]
        if upstream.state != "enabled":
            raise errors.UpstreamDisabled()
        attempt = upstream.circuits.enter(project_id, self._clock.seconds())
        try:
            for remaining in reversed(range(max(upstream.attempts - tried, 1))):
                sent = upstream.caller.send(method, upstream.origin, route.target, lines, body, project_id)
                try:
                    answer = await self._head(sent, upstream, progress, bounds)
                    break
                except errors.UpstreamUnreachable as e:
                    if not (remaining and e.nothing_sent):
                        raise
        except BaseException as e:
            attempt.failed(e, self._clock.seconds())
            raise
        attempt.responded(answer.code, self._clock.seconds())
        return answer

    async def _head(
        self,
        sent: Deferred[Response],
        upstream: Upstream,
        progress: UploadProgress,
        bounds: Callable[[], HeadTimeouts],
    ) -> Response:
        """Wait for the head: for so much silence, counted anew while the upload goes on, and until the deadline."""
        if not upstream.first_look or sent.called:
            return await sent
        patience = self._timer()
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
            self.unwatch_head(patience)

    def watch_head(
        self, call: Cancellable, upstream: Upstream, progress: UploadProgress, bounds: Callable[[], HeadTimeouts]
    ) -> HeadTimer | None:
        """Have the call cancelled when the head of its response takes longer than C{bounds} says.

        @return: For L{unwatch_head}, once the head has come; C{None} where there is no limit.
        """
        if not upstream.first_look:
            return None
        timer = self._timer()
        timer.begin(call, upstream.first_look, progress, bounds)
        return timer

    def unwatch_head(self, timer: HeadTimer | None) -> None:
        """It has come, or will not."""
        if timer is None:
            return
        timer.over()
        if len(self._patience) < MAX_SPARE_TIMERS:
            self._patience.append(timer)
        else:
            timer.stop()

    def _timer(self) -> HeadTimer:
        return self._patience.pop() if self._patience else HeadTimer(self._clock)

    def set_state(self, api: str, state: UpstreamState) -> None:
        """Take an API's provider out of service in this process, or back into it."""
        self._upstreams[api].state = state

    def listed(self) -> list[tuple[str, Upstream]]:
        """The provider of each API of the settings in force, by the API's name."""
        return [(name, self._upstreams[name]) for name in self._listed]

    def of(self, api: str) -> Upstream:
        """An API's provider."""
        return self._upstreams[api]


def _same_circuits(one: Api, other: Api) -> bool:
    return (one.base_url, one.circuit_breaker) == (other.base_url, other.circuit_breaker)


class HeadTimer:
    """Cancels a Deferred when for too long neither its answer came nor the upload went on, or its time is up.

    Made once and used for many requests, one at a time: the usual one touches no timer.

    @ivar lost: After how many seconds that was, once it has happened.
    """

    lost = 0.0
    _sent: Cancellable | None = None

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._next = Deadline(clock, self._look)
        self.stop = self._next.stop

    def begin(
        self,
        sent: Cancellable,
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
