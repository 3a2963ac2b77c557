from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from llmproxy import errors
from llmproxy.config.api_settings import Api
from llmproxy.config.model import Settings
from llmproxy.config.upstream_settings import Probe
from llmproxy.upstream.probing import HealthChange, Probes, Streak, is_good
from llmproxy.upstream.provider_keys import ProviderKeys
from llmproxy.upstream.upstreams import Health, Upstreams
from tests.unit.upstream.test_upstreams import Answer, Caller, unreachable


class Streaks(SynchronousTestCase):
    def becomes(self, verdicts: str, health: Health = "unknown", **probe: Any) -> list[str]:
        """@param verdicts: C{+} and C{-}."""
        streak, settings, found = Streak(), Probe(path="/", **probe), []
        for verdict in verdicts:
            change = streak.add(verdict == "+", health, settings)
            health = change or health
            found.append(change or "")
        return found

    def test_the_first(self) -> None:
        """One good probe is enough for what nobody knows yet; a failed one is not."""
        self.assertEqual(self.becomes("+"), ["healthy"])
        self.assertEqual(self.becomes("--"), ["", ""])
        self.assertEqual(self.becomes("--+"), ["", "", "healthy"])

    def test_in_a_row(self) -> None:
        self.assertEqual(self.becomes("--+---", "healthy"), [*[""] * 5, "unhealthy"])
        self.assertEqual(self.becomes("+-++", "unhealthy"), ["", "", "", "healthy"])
        self.assertEqual(self.becomes("+-", "unhealthy", healthy=1, unhealthy=1), ["healthy", "unhealthy"])

    def test_as_it_was(self) -> None:
        """What goes on as it was is no change."""
        self.assertEqual(self.becomes("++++", "healthy"), [""] * 4)
        self.assertEqual(self.becomes("-----", "unhealthy"), [""] * 5)


class Statuses(SynchronousTestCase):
    def test_by_default(self) -> None:
        self.assertEqual([is_good(status, ()) for status in (200, 302, 401, 499, 500, 529)], [True] * 4 + [False] * 2)

    def test_ranges(self) -> None:
        expected = ("200-299", "401")
        statuses = (199, 200, 299, 300, 401, 402)
        self.assertEqual([is_good(each, expected) for each in statuses], [False, True, True, False, True, False])


class Probing(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.changes: list[HealthChange] = []

    def probes(self, caller: Caller, **probe: Any) -> Probes:
        api = Api(
            base_url="http://p.example/base",
            allowed_endpoints=("/x",),
            probe=Probe(**{"path": "/health?a=b", "interval": "10s", **probe}),
        )
        self.upstreams = Upstreams(Settings(apis={"api": api}), cast(Any, {"api": [caller]}), self.clock)
        made = Probes(self.upstreams, cast(ProviderKeys, None), self.clock, lambda: 0.5)
        made.announce = self.changes.append
        made.startService()
        self.addCleanup(made.stopService)
        self.clock.advance(0)
        return made

    def test_what_is_asked(self) -> None:
        """Once each interval: a GET below the path of the base URL, without a key."""
        caller = Caller(Answer(), Answer(), Answer())
        self.probes(caller)
        self.clock.advance(9.9)
        self.assertEqual(len(caller.sent), 1)
        self.clock.advance(0.1)
        self.assertEqual(len(caller.sent), 2)
        method, origin, target, lines, body = caller.sent[0]
        self.assertEqual((method, origin.host, target, body), (b"GET", "p.example", b"/base/health?a=b", None))
        self.assertEqual(lines, [b"Host: p.example", b"User-Agent: llmproxy-probe", b"Accept: */*"])
        self.assertEqual([(each.health, each.before) for each in self.changes], [("healthy", "unknown")])

    def test_what_fails(self) -> None:
        """Whatever else goes wrong, the next probe is made."""
        silent: Deferred[Any] = Deferred()
        caller = Caller(unreachable(), errors.UpstreamBroken(), silent, Answer(500), ZeroDivisionError(), Answer())
        probes = self.probes(caller, unhealthy=4, timeout="2s", healthy=1)
        results = [probes.last_result("api", "http://p.example/base")]
        for _ in range(5):
            self.clock.pump([10.0, 2.0])
            results.append(probes.last_result("api", "http://p.example/base"))
        self.assertEqual(results, ["connect", "protocol_error", "timeout", "500", "500", "200"])
        self.assertEqual([(e.health, e.result, e.probes) for e in self.changes],
                         [("unhealthy", "500", 4), ("healthy", "200", 1)])  # fmt: skip
        self.assertEqual(probes.task.failures, 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_no_verdict(self) -> None:
        """Where there is no connection for a probe, nothing is known of the upstream."""
        probes = self.probes(Caller(*[errors.UpstreamBusy() for _ in range(9)]))
        self.clock.pump([10.0] * 8)
        self.assertEqual((self.changes, probes.last_result("api", "http://p.example/base")), ([], "upstream_busy"))

    def test_not_the_leader(self) -> None:
        """A process that does not probe follows what another one finds."""
        caller = Caller(unreachable())
        probes = self.probes(caller)
        probes.leads = lambda: False
        caller.sent.clear()
        self.clock.pump([10.0] * 3)
        self.assertEqual(caller.sent, [])
        probes.follow("api", "http://p.example/base", "unhealthy")
        probes.follow("api", "http://p.example/other", "healthy")
        probes.follow("other", "http://p.example/base", "healthy")
        (upstream,) = self.upstreams.of("api").members
        self.assertEqual((upstream.health, upstream.breaker, self.changes), ("unhealthy", "open", []))

    def test_stopped(self) -> None:
        """What is under way is given up, and no timer is left."""
        cancelled: list[object] = []
        silent: Deferred[Any] = Deferred(cancelled.append)
        probes = self.probes(Caller(silent))
        probes.stopService()
        self.assertEqual((len(cancelled), self.clock.getDelayedCalls(), self.changes), (1, [], []))
