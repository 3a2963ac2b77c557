"""The cache in memory: what it promises, how much it holds, and that what is over is freed."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from llmproxy.caching.backends.memory import (
    ENTRY_OVERHEAD_BYTES,
    SWEEP_INTERVAL_SECONDS,
    MemoryCache,
    MemoryCacheFactory,
)
from llmproxy.config.api_settings import Api
from llmproxy.config.model import Settings
from llmproxy.interfaces import ICacheFactory, ILocalCache
from tests.unit.caching.backends.contract import CacheContract


class MemoryCacheTests(CacheContract, TestCase):
    def test_is_a_local_cache(self) -> None:
        """It keeps what a cache in this process promises."""
        self.assertTrue(verifyObject(ILocalCache, self.cache))

    def setUp(self) -> None:
        self.clock = Clock()
        self.cache = MemoryCache(self.clock, 16 * 1024 * 1024)
        self.addCleanup(self.cache.stopService)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


class Bounds(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.cache = MemoryCache(self.clock, 10 * (ENTRY_OVERHEAD_BYTES + 1100))
        self.addCleanup(self.cache.stopService)

    def put(self, key: str, size: int = 1000, ttl: float = 60.0) -> bool:
        return self.successResultOf(self.cache.put(key, b"x" * size, ttl))

    def there(self, key: str) -> bool:
        return self.cache.get_now(key) is not None

    def test_the_least_recently_used_goes_first(self) -> None:
        """What is asked for again and again stays, whatever else passes through."""
        for number in range(10):
            self.put(f"k{number}")
        self.assertTrue(self.there("k0"))
        self.put("another")
        self.assertEqual([self.there(f"k{n}") for n in (0, 1, 2)], [True, False, True])
        self.assertEqual(self.cache.usage_now().evicted, 1)

    def test_one_that_is_larger_than_all_the_room(self) -> None:
        """It is not kept, nothing has to go for it, and what its key had before is not true any more."""
        self.put("small")
        self.put("large", 10)
        self.assertFalse(self.put("large", 100_000))
        self.assertTrue(self.there("small"))
        self.assertFalse(self.there("large"))

    def test_nothing_is_kept_for_no_time(self) -> None:
        """A lifetime that is over is none."""
        self.assertFalse(self.put("k", ttl=0.0))
        self.assertFalse(self.put("k", ttl=-1.0))
        self.assertEqual(self.cache.usage_now().entries, 0)

    def test_what_has_expired_is_freed_without_being_asked_for(self) -> None:
        """Memory comes back by itself, and no timer is left then."""
        for number in range(5):
            self.put(f"k{number}", ttl=1.0)
        self.put("long", ttl=SWEEP_INTERVAL_SECONDS * 10)
        self.clock.pump([SWEEP_INTERVAL_SECONDS] * 3)
        self.assertEqual(self.cache.usage_now().entries, 1)
        self.clock.pump([SWEEP_INTERVAL_SECONDS] * 10)
        self.assertEqual((self.cache.usage_now().entries, self.cache.usage_now().size), (0, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopping_leaves_no_timer(self) -> None:
        """The process can end."""
        self.put("k")
        self.cache.stopService()
        self.put("k2")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_object_is_found_as_it_was_kept(self) -> None:
        """An answer need not be made ready twice."""
        kept = object()
        self.assertTrue(self.cache.put_now("k", kept, 100, 1.0))
        self.assertIs(self.cache.get_now("k"), kept)
        self.clock.advance(1.0)
        self.assertIsNone(self.cache.get_now("k"))

    def test_the_factory(self) -> None:
        """C{backend: memory} holds as much as C{max_bytes} says."""
        factory = MemoryCacheFactory()
        verifyObject(ICacheFactory, factory)
        api = Api(base_url="http://x.test", allowed_endpoints=("/v1",))
        cache = factory.cache(Settings(default_api="a", apis={"a": api}, cache={"max_bytes": 6000}), self.clock)
        self.addCleanup(cache.stopService)
        self.assertTrue(cache.put_now("k", b"", 4000, 60.0))
        self.assertFalse(cache.put_now("k", b"", 6000, 60.0))

    @given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("pgrta")), max_size=60), st.integers())
    def test_whatever_is_done_the_account_is_right(self, steps: list[tuple[int, str]], seed: int) -> None:
        """The size is that of what is held, never above the limit, and nothing is given after its time."""
        clock, random = Clock(), Random(seed)
        cache = MemoryCache(clock, 4 * (ENTRY_OVERHEAD_BYTES + 500))
        known: dict[str, tuple[bytes, float]] = {}
        for number, step in steps:
            key = f"key{number}"
            if step == "p":
                value, ttl = b"v" * random.randrange(600), random.choice((0.5, 5.0, 40.0))
                cache.put(key, value, ttl)
                known[key] = (value, clock.seconds() + ttl)
            elif step == "r":
                cache.remove(key)
                known.pop(key, None)
            elif step == "t":
                clock.advance(random.choice((0.3, 3.0, 33.0)))
            elif step == "a":
                cache.purge("key1")
                known.pop("key1", None)
            found = cache.get_now(key)
            if found is not None:
                self.assertEqual(found, known[key][0])
                self.assertLess(clock.seconds(), known[key][1])
            held = cache.usage_now()
            self.assertEqual(held.size, sum(cost for _, cost, _ in cache._held.values()))
            self.assertLessEqual(held.size, 4 * (ENTRY_OVERHEAD_BYTES + 500))
        cache.stopService()
