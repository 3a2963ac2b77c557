"""The servers of each API, and how long the heads of their responses are waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from llmproxy import errors
from llmproxy.config.api_settings import Api
from llmproxy.config.model import Settings
from llmproxy.http.origin import split_base_url
from llmproxy.instruments import Counter, Gauge, Instrument
from llmproxy.interfaces import IInstrumented
from llmproxy.upstream import balancing
from llmproxy.upstream.circuits import Circuits
from llmproxy.upstream.key_states import KeyStates
from llmproxy.upstream.provider_keys import ProviderKey
from llmproxy.upstream.retrying import RetryBudget
from llmproxy.wire.client.pending_request import Cancellable
from llmproxy.wire.client.transport import Response, Transport
from llmproxy.wire.deadline import Deadline, Deadlines

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
    """How long the head of a response is waited for.

    @ivar silence: Seconds for which the provider may be silent once the request is sent; C{0}: no limit. A response
        that is not streamed has no head until it is done, so only a stream has such a limit.
    @ivar deadline: The clock's time by which the whole response is due, or C{None}.
    """

    silence: float = 0.0
    deadline: float | None = None


UpstreamState = Literal["enabled", "draining", "disabled"]
Health = Literal["unknown", "healthy", "unhealthy"]


class Upstream:
    """One server of an API, made ready; also one of those that L{balancing.choose} chooses from.

    @ivar state: Whether requests are sent there. While it is C{draining}, or C{disabled}, those under way go on, and
        new ones go elsewhere.
    @ivar number: Its place in the API's list, from 0.
    @ivar in_flight: Its requests under way, where the API has several upstreams.
    @ivar health: What probes have found.
    """

    state: UpstreamState = "enabled"
    health: Health = "unknown"
    in_flight = 0
    turn = 0.0
    circuits: Circuits

    def __init__(self, api: Api, number: int, caller: Transport) -> None:
        server = api.servers[number]
        self.base_url = server.base_url
        self.identity = balancing.identity(server.base_url.encode())
        self.origin, self._base = split_base_url(server.base_url)
        self.circuits = Circuits(api.circuit_breaker)
        self.configure(api, number, caller)

    def configure(self, api: Api, number: int, caller: Transport) -> None:
        """Go by these settings from now on; what was observed stays."""
        server, timeouts = api.servers[number], api.timeouts
        self.caller = caller
        self.number = number
        self.weight, self.priority = server.weight, server.priority
        self._probe_interval = api.probe.interval
        if self.circuits.settings != api.circuit_breaker:
            self.circuits = Circuits(api.circuit_breaker)
        self.set_health(self.health if api.probe.path else "unknown")
        limits = (timeouts.response_header / CHECKS_PER_TIMEOUT, timeouts.request, timeouts.stream)
        self.first_look = min((seconds for seconds in limits if seconds), default=0.0)

    @property
    def breaker(self) -> Literal["closed", "open", "half-open"]:
        """The state of the breaker that counts for everybody."""
        return self.circuits.state

    @property
    def projects_out(self) -> int:
        """For how many projects alone it is ejected."""
        return self.circuits.projects_out

    def set_health(self, health: Health) -> None:
        """What probes have found: while it is unhealthy its breaker is open, for everybody."""
        before, self.health = self.health, health
        if health == "unhealthy":
            self.circuits.all.hold(self._probe_interval)
        elif before == "unhealthy":
            self.circuits.all.restore()

    def target(self, path: bytes, query: bytes | None = None) -> bytes:
        """What is asked of it: its own path, and the request's."""
        target = self._base + path
        return target if query is None else target + b"?" + query


class UpstreamGroup:
    """The upstreams of one API, and how requests are spread over them.

    @ivar sole: The only one that there is; C{None} where there are several.
    @ivar moves: Requests that went on to another upstream or key, which the first had not been able to serve;
        C{retries}: that were sent again because of C{retries} in the settings.
    """

    def __init__(self, name: str, api: Api, callers: Sequence[Transport]) -> None:
        self.name = name
        self.moves = self.retries = 0
        self.budget = RetryBudget(api.retries.budget)
        self.members: list[Upstream] = []
        self.configure(api, callers)

    def configure(self, api: Api, callers: Sequence[Transport]) -> None:
        """Go by these settings from now on. An upstream with the same address is the same."""
        before = {each.base_url: each for each in self.members}
        self.members = []
        for number, (server, caller) in enumerate(zip(api.servers, callers, strict=True)):
            upstream = before.get(server.base_url)
            if upstream is None:
                upstream = Upstream(api, number, caller)
            else:
                upstream.configure(api, number, caller)
            self.members.append(upstream)
        self.api = api
        self.causes = frozenset(api.retries.on) if api.retries.attempts > 1 else frozenset[str]()
        self.budget.share = api.retries.budget

    @property
    def sole(self) -> Upstream | None:
        return self.members[0] if len(self.members) == 1 else None

    @property
    def repeats_responses(self) -> bool:
        """Whether a request may be sent again after a response, whatever keys it has."""
        return len(self.members) > 1 or any(cause.isdigit() for cause in self.causes)

    def may_replay(self, keys: Sequence[ProviderKey]) -> bool:
        """Whether a request may be sent again after something of it has been sent, so that its body is to be held."""
        return len(keys) > 1 or self.repeats_responses or not self.causes.isdisjoint(("reset", "reused"))

    @property
    def breaker(self) -> Literal["closed", "open", "half-open"]:
        """The best state among its upstreams' breakers."""
        states = [each.breaker for each in self.members]
        return "closed" if "closed" in states else "half-open" if "half-open" in states else "open"


@implementer(IInstrumented)
class Upstreams:
    """The upstreams of all APIs.

    @ivar keys: Which keys they take at present.
    """

    def __init__(
        self,
        settings: Settings,
        callers: Mapping[str, Sequence[Transport]],
        clock: IReactorTime,
    ) -> None:
        self._clock = clock
        self._groups: dict[str, UpstreamGroup] = {}
        self._listed: tuple[str, ...] = ()
        self.keys = KeyStates()
        self.reconfigure(settings.apis, callers)
        self._patience: list[HeadTimer] = []  # those that wait for nothing now; each has a timer, which costs

    def reconfigure(self, apis: Mapping[str, Api], callers: Mapping[str, Sequence[Transport]]) -> None:
        """Send to these providers from now on. Breakers go on where provider and breaker are the same; APIs that are
        gone stay for requests under way."""
        for name, api in apis.items():
            group = self._groups.get(name)
            if group is None:
                self._groups[name] = UpstreamGroup(name, api, callers[name])
            else:
                group.configure(api, callers[name])
        self._listed = tuple(apis)

    def states(self) -> dict[str, str]:
        """The state of each API's breaker that counts for everybody: C{closed}, C{open} or C{half-open}; of several
        upstreams' the best."""
        return {name: group.breaker for name, group in self._groups.items()}

    def instruments(self) -> Iterator[Instrument]:
        yield Gauge(
            "upstream_available",
            "1 for an upstream that is enabled and whose breaker is not open, 0 for others.",
            lambda: self._each(lambda each: float(each.state == "enabled" and each.breaker != "open")),
            label="upstream",
        )
        yield Gauge(
            "upstream_in_flight",
            "Requests under way at an upstream of several.",
            lambda: self._each(lambda each: each.in_flight),
            label="upstream",
        )
        yield Gauge(
            "upstream_projects_out",
            "Projects for which alone an upstream is ejected, since what they got from it failed.",
            lambda: self._each(lambda each: each.projects_out),
            label="upstream",
            across="max",
        )
        yield Gauge("upstream_keys_out", "Keys that are passed over at present.", self._keys_out, label="upstream")
        yield Counter(
            "upstream_moves",
            "Requests that went on to another upstream or key.",
            lambda: {group.name: group.moves for group in self.listed()},
            label="api",
        )
        yield Counter(
            "upstream_retries",
            "Requests that were sent again as the settings say.",
            lambda: {group.name: group.retries for group in self.listed()},
            label="api",
        )
        yield Counter(
            "retry_budget_exhausted",
            "Requests that were not sent again, to spare the provider.",
            lambda: {group.name: group.budget.exhausted for group in self.listed()},
            label="api",
        )

    def _each(self, figure: Callable[[Upstream], float]) -> dict[str, float]:
        return {f"{group.name}/{each.number}": figure(each) for group in self.listed() for each in group.members}

    def _keys_out(self) -> dict[str, float]:
        now = self._clock.seconds()
        counts = {(group.name, each.base_url): f"{group.name}/{each.number}" for group in self.listed()
                  for each in group.members}  # fmt: skip
        return {label: sum(1 for _ in self.keys.out(*place, now)) for place, label in counts.items()}

    def close(self) -> None:
        """Leave no timer behind."""
        while self._patience:
            self._patience.pop().stop()

    async def head(
        self,
        sent: Deferred[Response],
        upstream: Upstream,
        progress: UploadProgress,
        bounds: Callable[[], HeadTimeouts],
    ) -> Response:
        """Wait for a response's head: for so much silence, counted anew while the upload goes on, and for its time."""
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
            self._keep(patience)

    def _keep(self, timer: HeadTimer) -> None:
        """Its head has come, or will not: let it be used again."""
        timer.over()
        if len(self._patience) < MAX_SPARE_TIMERS:
            self._patience.append(timer)
        else:
            timer.stop()

    def _timer(self) -> HeadTimer:
        return self._patience.pop() if self._patience else HeadTimer(self._clock)

    def listed(self) -> list[UpstreamGroup]:
        """The upstreams of each API of the settings in force."""
        return [self._groups[name] for name in self._listed]

    def of(self, api: str) -> UpstreamGroup:
        """An API's upstreams."""
        return self._groups[api]


class HeadTimer:
    """Cancels a Deferred when for too long neither its response came nor the upload went on, or its time is up.

    Made once and used for many requests, one at a time: the usual one touches no timer.

    @ivar lost: After how many seconds that was, once it has happened.
    """

    lost = 0.0
    _sent: Cancellable | None = None

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._next = Deadline(Deadlines(clock), self._look)
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
        del self._progress, self._bounds  # they know the request, which is not kept
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
