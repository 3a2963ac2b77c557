"""What the pipeline does with the cache: ask what is stored, collapse calls, invalidate."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone

from llmproxy import errors
from llmproxy.caching import CachedResponse, CacheLookup, CacheRequest, LocalHit, RepeatableHit, ResponseCache
from llmproxy.caching.broadcast import DiscardBody, Subscriber
from llmproxy.caching.rules import reuse
from llmproxy.config.api_settings import Api, UpstreamServer
from llmproxy.config.model import Settings
from llmproxy.http.field_lines import FieldLines
from llmproxy.interfaces import ICache
from tests.support.caches import Far, PluginCache, VersionedFar, settings

DONE = Failure(ResponseDone())


class Response:
    """A provider's, whose body comes when the test says so."""

    phrase, length, whole = b"OK", 4, None

    def __init__(self, code: int, *lines: bytes) -> None:
        self.code, self.lines = code, list(lines)
        self.stopped = False
        self.body: Any = None

    def deliverBody(self, protocol: Any) -> None:
        self.body = protocol

    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None:
        self.stopped = True


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.wall = 1_000_000.0
        self.start(PluginCache(self.clock))

    def start(self, cache: ICache) -> None:
        self.sent: list[Deferred[Any]] = []
        self.cache = ResponseCache(cache, settings(), self.clock, lambda: self.wall)
        self.cache.startService()
        self.addCleanup(self.cache.stopService)

    def request(self, *lines: bytes, target: bytes = b"/a") -> CacheRequest:
        policy, fields = self.cache.policies["openai"], FieldLines.of(lines)
        request = CacheRequest(policy, ("p",), "", b"GET", fields, reuse.request_directives(fields))
        return self.cache.with_key(request, target, b"")

    def lookup(self, *lines: bytes) -> CacheLookup:
        found: CacheLookup = self.successResultOf(Deferred.fromCoroutine(self.cache.lookup(self.request(*lines))))
        return found

    def collapse(self, lookup: CacheLookup) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.cache.collapse(lookup, self.fetch))

    async def fetch(self, lines: list[bytes]) -> tuple[Any, bytes]:
        self.sent.append(Deferred())
        return await self.sent[-1], b"sk-secret-of-the-provider"

    def fill(self, *lines: bytes) -> None:
        """Have a response stored."""
        result = self.collapse(self.lookup())
        response = Response(200, *lines)
        self.sent.pop().callback(response)
        self.successResultOf(result).response.deliverBody(DiscardBody())
        response.body.dataReceived(b"body")
        response.body.connectionLost(DONE)


class Lookups(Case):
    def test_a_miss_and_a_hit(self) -> None:
        """What is stored once is served without a call."""
        miss = self.lookup()
        self.assertEqual((miss.hit, miss.stored, miss.outcome.status), (None, None, "miss"))
        self.fill(b"Cache-Control: max-age=60")
        hit = self.lookup()
        assert hit.hit is not None and isinstance(hit.hit.response, CachedResponse)
        self.assertEqual((hit.hit.response.body, hit.outcome.status, hit.outcome.reason), (b"body", "hit", "fresh"))
        self.assertEqual(hit.outcome.debug_headers()[-1], b"Cache-Status: llmproxy; hit; ttl=60")
        self.assertEqual((self.cache.state.stores, self.cache.state.hits), (1, 1))

    def test_what_must_be_validated(self) -> None:
        """Its validators go with the call."""
        self.fill(b"Cache-Control: max-age=60", b'ETag: "x"')
        self.clock.advance(61.0)
        lookup = self.lookup(b"A: b")
        assert lookup.stored is not None
        self.assertEqual((lookup.hit, lookup.outcome.forward), (None, "stale"))
        self.assertEqual(lookup.outgoing_lines(), [b"A: b", b'If-None-Match: "x"'])

    def test_stale_while_revalidate(self) -> None:
        """It is served, and whoever asked is to have it refreshed; not twice."""
        self.fill(b"Cache-Control: max-age=60, stale-while-revalidate=60")
        self.clock.advance(61.0)
        lookup = self.lookup()
        assert lookup.hit is not None and lookup.refresh is not None
        self.assertEqual((lookup.outcome.reason, lookup.refresh.stored is None), ("refresh", False))
        refreshing = self.collapse(lookup.refresh)
        again = self.lookup()
        self.assertEqual((again.hit is None, again.refresh), (False, None))
        self.sent.pop().callback(response := Response(500))
        self.assertIs(self.successResultOf(refreshing).response, response)

    def test_the_wall_clock_is_set(self) -> None:
        """In a cache of this process's own nothing grows older by that, whoever made it; in a shared one it does."""
        for cache, age in ((PluginCache(self.clock), b"Age: 0"), (Far(self.clock), b"Age: 30")):
            self.start(cache)
            self.fill(b"Cache-Control: max-age=60")
            self.wall += 30.0
            hit = self.lookup().hit
            assert hit is not None
            self.assertIn(age, hit.response.lines)


class OtherSettings(Case):
    """What is stored of a provider that the settings name no more."""

    def configure(self, *base_urls: str) -> None:
        api = Api(upstreams=[UpstreamServer(base_url=url) for url in base_urls], allowed_endpoints=("/**",))
        self.cache.reconfigure(Settings(apis={"openai": api}))

    def test_another_base_url(self) -> None:
        """It is not served: it is another service, in any part of its address. It is once that is back."""
        first = "https://openai.test/base"
        self.configure(first)
        self.fill(b"Cache-Control: max-age=60")
        for other in ("http://openai.test/base", "https://openai.test/other", "https://openai.test:1/base"):
            self.configure(other)
            self.assertIsNone(self.lookup().hit)
        self.configure(first)
        self.assertIsNotNone(self.lookup().hit)

    def test_several_upstreams(self) -> None:
        """They are one service, in whatever order they are named; with a further one they are another."""
        one, two = "https://one.test", "https://two.test"
        self.configure(one, two)
        self.fill(b"Cache-Control: max-age=60")
        self.configure(two, one)
        self.assertIsNotNone(self.lookup().hit)
        self.configure(one)
        self.assertIsNone(self.lookup().hit)


class RepeatedHits(Case):
    """What an equal request gets without the entry being judged anew."""

    def known(self, *lines: bytes) -> tuple[LocalHit, RepeatableHit]:
        hit = self.cache.hit_now(self.request(*lines))
        assert hit is not None
        known = self.cache.repeatable(self.request(*lines), hit)
        assert known is not None
        return hit, known

    def again(self, known: RepeatableHit) -> LocalHit | None:
        return self.cache.hit_again(known, self.clock.seconds())

    def test_the_same_as_the_first(self) -> None:
        """But for its age; it is counted as well."""
        self.fill(b"Cache-Control: max-age=60")
        hit, known = self.known()
        self.clock.advance(9.0)
        again = self.again(known)
        self.assertEqual(again, self.cache.hit_now(self.request()))
        self.assertEqual(again, hit._replace(age=9.0, ttl=51.0))
        self.assertEqual(self.cache.state.hits, 3)

    def test_it_grows_too_old(self) -> None:
        """For the response's own lifetime, or for the request."""
        self.fill(b"Cache-Control: max-age=60, stale-while-revalidate=600")
        (_, known), (_, sooner) = self.known(), self.known(b"Cache-Control: max-age=10")
        self.clock.advance(9.9)
        self.assertIsNotNone(self.again(sooner))
        self.clock.advance(0.2)
        self.assertIsNone(self.again(sooner))
        self.assertIsNotNone(self.again(known))
        self.clock.advance(50.0)
        self.assertIsNone(self.again(known))
        self.assertEqual(self.cache.state.hits, 4)

    def test_it_is_purged_or_replaced(self) -> None:
        self.fill(b"Cache-Control: max-age=60")
        _, known = self.known()
        self.successResultOf(Deferred.fromCoroutine(self.cache.purge("")))
        self.assertIsNone(self.again(known))
        self.fill(b"Cache-Control: max-age=60")
        self.assertIsNone(self.again(known))
        self.assertIsNotNone(self.again(self.known()[1]))

    def test_what_the_cache_has_let_go_is_not_held(self) -> None:
        """Bodies may be large, and the cache alone has a bound for them."""
        self.fill(b"Cache-Control: max-age=60")
        known = self.known()[1]
        self.assertIsNotNone(known.entry())
        self.successResultOf(Deferred.fromCoroutine(self.cache.purge("")))
        self.assertIsNone(known.entry())

    def test_what_is_to_be_judged_each_time(self) -> None:
        self.fill(b"Cache-Control: max-age=60")
        request = self.request(b"Cache-Control: min-fresh=5")
        hit = self.cache.hit_now(request)
        assert hit is not None
        self.assertIsNone(self.cache.repeatable(request, hit))


class Collapsing(Case):
    def test_only_if_cached(self) -> None:
        """The provider is not called."""
        self.failureResultOf(self.collapse(self.lookup(b"Cache-Control: only-if-cached")), errors.NotInCache)
        self.assertEqual(self.sent, [])

    def test_one_call_for_two(self) -> None:
        """Both get the response as it arrives."""
        first, second = self.lookup(), self.lookup()
        results = [self.collapse(first), self.collapse(second)]
        self.assertEqual(len(self.sent), 1)
        self.sent[0].callback(Response(200, b"Cache-Control: max-age=60"))
        self.assertEqual([type(self.successResultOf(result).response) for result in results], [Subscriber, Subscriber])
        self.assertEqual([first.outcome.status, second.outcome.status], ["stored", "coalesced"])
        self.assertEqual([first.outcome.saves_a_call, second.outcome.saves_a_call], [False, True])

    def test_a_response_for_one_alone(self) -> None:
        """The other makes a call of its own, and says why nothing is stored."""
        first, second = self.lookup(), self.lookup()
        results = [self.collapse(first), self.collapse(second)]
        self.sent[0].callback(response := Response(200, b"Cache-Control: no-store"))
        result = self.successResultOf(results[0])
        self.assertEqual((result.response, result.secret), (response, b"sk-secret-of-the-provider"))
        self.assertEqual((first.outcome.status, first.outcome.reason), ("miss", "no-store"))
        self.assertEqual(len(self.sent), 2)
        self.sent[1].callback(Response(200, b"Cache-Control: no-store"))
        self.successResultOf(results[1])

    def test_purged_while_it_is_in_flight(self) -> None:
        """It is not stored."""
        lookup = self.lookup()
        result = self.collapse(lookup)
        self.successResultOf(Deferred.fromCoroutine(self.cache.purge("")))
        self.sent[0].callback(response := Response(200, b"Cache-Control: max-age=60"))
        self.successResultOf(result).response.deliverBody(DiscardBody())
        response.body.dataReceived(b"body")
        response.body.connectionLost(DONE)
        self.assertEqual((lookup.outcome.reason, self.cache.state.stores), ("forgone", 0))


class SharedByProcesses(Case):
    """What another process removes while this one waits for a provider."""

    def setUp(self) -> None:
        super().setUp()
        self.far = VersionedFar(self.clock)
        self.start(self.far)

    def deliver(self, result: Deferred[Any], sent: Deferred[Any]) -> None:
        """Have all of a response come that may be stored."""
        sent.callback(response := Response(200, b"Cache-Control: max-age=60"))
        self.successResultOf(result).response.deliverBody(DiscardBody())
        response.body.dataReceived(b"body")
        response.body.connectionLost(DONE)

    def test_it_is_not_stored(self) -> None:
        """The next one is."""
        result = self.collapse(self.lookup())
        self.far.remove(self.request().key)
        self.deliver(result, self.sent.pop())
        self.assertEqual((self.lookup().hit, self.cache.state.stores), (None, 0))
        self.fill(b"Cache-Control: max-age=60")
        self.assertIsNotNone(self.lookup().hit)

    def test_it_is_not_joined(self) -> None:
        """Who asks afterwards is not served with what was sent before, but joins those who came after."""
        first = self.collapse(self.lookup())
        self.far.remove(self.request().key)
        second, third = self.collapse(self.lookup()), self.collapse(lookup := self.lookup())
        self.assertEqual(len(self.sent), 2)
        self.deliver(first, self.sent[0])
        self.assertNoResult(third)
        self.deliver(second, self.sent[1])
        self.successResultOf(third)
        self.assertEqual((lookup.outcome.status, self.cache.state.stores), ("coalesced", 1))
