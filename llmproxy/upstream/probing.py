"""Active health checks: asks upstreams whether they work, ejects those that do not, and brings them back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import random
from typing import Any, Literal, NamedTuple

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from llmproxy import errors
from llmproxy.base.background import Task
from llmproxy.base.coroutines import within
from llmproxy.config.upstream_settings import Probe
from llmproxy.http.credentials import scheme
from llmproxy.instruments import Counter, Gauge, Instrument
from llmproxy.interfaces import IInstrumented
from llmproxy.upstream.provider_keys import ProviderKeys
from llmproxy.upstream.retrying import cause_of
from llmproxy.upstream.unread_body import discard
from llmproxy.upstream.upstreams import Health, Upstream, UpstreamGroup, Upstreams

MIN_PAUSE_SECONDS = 0.05  # after a probe that took longer than the interval
JITTER = 0.1  # of the interval, so that several proxies do not ask all at once
MIN_FAILURE_STATUS = 500  # where the settings do not say which statuses are good


class HealthChange(NamedTuple):
    """An upstream has become healthy or unhealthy.

    @ivar result: What the last probe brought: a status, or what went wrong in a few words.
    @ivar probes: How many in a row said so.
    """

    api: str
    number: int
    base_url: str
    health: Literal["healthy", "unhealthy"]
    result: str
    probes: int
    before: Health


class ProbeResult(NamedTuple):
    """What one probe brought.

    @ivar good: C{None} where it says nothing of the upstream, as none could be made.
    """

    good: bool | None
    text: str


class Streak:
    """Counts probes in a row that say the same, and tells when that makes an upstream healthy or unhealthy. Pure."""

    def __init__(self) -> None:
        self.count = 0
        self._good = True

    def add(self, good: bool, health: Health, probe: Probe) -> Literal["healthy", "unhealthy"] | None:
        """One more; what the upstream has become by it, which was C{health} until now."""
        self.count = self.count + 1 if good == self._good else 1
        self._good = good
        if good and health != "healthy" and (health == "unknown" or self.count >= probe.healthy):
            return "healthy"
        if not good and health != "unhealthy" and self.count >= probe.unhealthy:
            return "unhealthy"
        return None


def is_good(status: int, expected: Sequence[str]) -> bool:
    """Whether the status of a probe's response is one of these, each a number or a range."""
    if not expected:
        return status < MIN_FAILURE_STATUS
    for each in expected:
        first, _, last = each.partition("-")
        if int(first) <= status <= int(last or first):
            return True
    return False


@implementer(IInstrumented)
class Probes(Service):
    """Probes the upstreams of those APIs whose settings say so.

    @ivar leads: Whether this is the process that probes for all; asked before each probe.
    @ivar announce: Called with each L{HealthChange} that this process has found, after it has followed it.
    """

    name: Any = "probes"

    def __init__(
        self, upstreams: Upstreams, keys: ProviderKeys, clock: IReactorTime, jitter: Callable[[], float] = random
    ) -> None:
        self.leads: Callable[[], bool] = lambda: True
        self.announce: Callable[[HealthChange], object] = lambda change: None
        self.task = Task("probes", clock)
        self.tasks = (self.task,)
        self._upstreams = upstreams
        self._keys = keys
        self.clock = clock
        self.jitter = jitter
        self._running: dict[tuple[str, str], _UpstreamProbe] = {}

    def startService(self) -> None:
        Service.startService(self)
        self.reconfigure()

    def stopService(self) -> None:
        Service.stopService(self)
        while self._running:
            self._running.popitem()[1].stop()

    def reconfigure(self) -> None:
        """Probe by the settings in force from now on. An upstream that was probed already is so at its next turn."""
        if not self.running:
            return
        wanted = {
            (group.name, each.base_url): (group, each)
            for group in self._upstreams.listed()
            if group.api.probe.path
            for each in group.members
        }
        for place in [place for place in self._running if place not in wanted]:
            self._running.pop(place).stop()
        for place, (group, upstream) in wanted.items():
            running = self._running.get(place)
            if running is not None and running.upstream is upstream:
                continue
            if running is not None:
                running.stop()
            self._running[place] = _UpstreamProbe(self, group, upstream)

    def follow(self, api: str, base_url: str, health: Health) -> None:
        """Another process has found that an upstream is healthy or unhealthy."""
        for group in self._upstreams.listed():
            for each in group.members:
                if (group.name, each.base_url) == (api, base_url) and group.api.probe.path:
                    each.set_health(health)

    def last_result(self, api: str, base_url: str) -> str:
        """What the last probe of this process brought; C{""} where there was none."""
        running = self._running.get((api, base_url))
        return "" if running is None else running.result

    def instruments(self) -> Iterator[Instrument]:
        yield Gauge(
            "upstream_healthy",
            "1 for an upstream whose probes say that it works, 0 for one whose probes fail.",
            self._health,
            label="upstream",
            across="min",
        )
        yield Counter(
            "upstream_probes", "Probes of an upstream.", lambda: self._each(lambda probe: probe.made), label="upstream"
        )
        yield Counter(
            "upstream_probe_failures",
            "Probes of an upstream that failed.",
            lambda: self._each(lambda probe: probe.failed),
            label="upstream",
        )

    def _health(self) -> dict[str, float]:
        return {
            f"{group.name}/{each.number}": float(each.health == "healthy")
            for group in self._upstreams.listed()
            for each in group.members
            if each.health != "unknown"
        }

    def _each(self, figure: Callable[[_UpstreamProbe], float]) -> dict[str, float]:
        return {f"{api}/{probe.upstream.number}": figure(probe) for (api, _), probe in self._running.items()}

    # One probe

    async def ask(self, group: UpstreamGroup, upstream: Upstream) -> ProbeResult:
        """Probe an upstream once."""
        probe = group.api.probe
        path, _, query = probe.path.encode("ascii").partition(b"?")
        lines = [b"Host: " + upstream.origin.host_header, b"User-Agent: llmproxy-probe", b"Accept: */*"]
        try:
            if probe.project:
                keys = await self._keys.look_up(probe.project, group.name, scheme(group.api.provider, group.api.auth))
                lines.append(keys[0].line)
            target = upstream.target(path, query or None)
            sent = upstream.caller.send(b"GET", upstream.origin, target, lines, None)
            late = errors.UpstreamTimeout(f"no response within {probe.timeout:g} s")
            response = await within(probe.timeout, self.clock, sent, late)
        except errors.UpstreamBusy as e:
            return ProbeResult(None, e.code)  # it is ourselves who cannot
        except errors.UpstreamTimeout:
            return ProbeResult(False, "timeout")
        except errors.UpstreamFailure as e:
            return ProbeResult(False, cause_of(e) or e.code.removeprefix("upstream_"))
        except errors.ProxyError as e:
            return ProbeResult(None, e.code)  # there is no key
        discard(response, self.clock)
        return ProbeResult(is_good(response.code, probe.status), str(response.code))


class _UpstreamProbe:
    """The probes of one upstream, one after the other.

    @ivar result: What the last one brought.
    """

    def __init__(self, probes: Probes, group: UpstreamGroup, upstream: Upstream) -> None:
        self.upstream = upstream
        self.made = self.failed = 0
        self.result = ""
        self._probes = probes
        self._group = group
        self._streak = Streak()
        self._stopped = False
        self._under_way: Deferred[None] | None = None
        self._timer: IDelayedCall | None = probes.clock.callLater(0.0, self._turn)

    def stop(self) -> None:
        """Ask no more, and do not wait for what is under way."""
        self._stopped = True
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if self._under_way is not None:
            self._under_way.cancel()

    def _turn(self) -> None:
        self._timer, begun = None, self._probes.clock.seconds()
        if not self._probes.leads() or self.upstream.state == "disabled":
            self._next(begun)
            return
        self._under_way = under_way = Deferred.fromCoroutine(self._probe())
        under_way.addErrback(self._unforeseen)
        under_way.addCallback(lambda _: self._next(begun))

    def _unforeseen(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._probes.task.failed(failure)

    def _next(self, begun: float) -> None:
        self._under_way = None
        if self._stopped:
            return
        interval = self._group.api.probe.interval * (1 + JITTER * (2 * self._probes.jitter() - 1))
        self._timer = self._probes.clock.callLater(
            max(begun + interval - self._probes.clock.seconds(), MIN_PAUSE_SECONDS), self._turn
        )

    async def _probe(self) -> None:
        probes, upstream = self._probes, self.upstream
        outcome = await probes.ask(self._group, upstream)
        self.result = outcome.text
        probes.task.worked()
        if outcome.good is None:
            return
        self.made += 1
        self.failed += not outcome.good
        before = upstream.health
        health = self._streak.add(outcome.good, before, self._group.api.probe)
        if health is not None:
            upstream.set_health(health)
            place = (self._group.name, upstream.number, upstream.base_url)
            probes.announce(HealthChange(*place, health, outcome.text, self._streak.count, before))
