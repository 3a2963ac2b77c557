"""The cache in Redis, against a real server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor as _reactor
from twisted.internet.task import deferLater
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from llmproxy.caching.backends.redis import MARK_SECONDS, RedisCache, escape_glob
from llmproxy.caching.backends.redis_factory import RedisCacheFactory
from llmproxy.caching.versioned_cache import IVersionedCache
from llmproxy.config.api_settings import Api
from llmproxy.config.model import Redis as RedisSettings
from llmproxy.config.model import Settings
from llmproxy.errors.management import CacheUnavailable
from llmproxy.interfaces import ICacheFactory
from llmproxy.plugins import find
from tests.support.redis_server import RedisServer
from tests.unit.caching.backends.contract import CacheContract

reactor: Any = _reactor


def told(url: str, prefix: str = "llmproxy:") -> Settings:
    api = Api(base_url="http://127.0.0.1:1", allowed_endpoints=("/v1/models",))
    return Settings(apis={"openai": api}, redis=RedisSettings(url=url, key_prefix=prefix, timeout=1.0))


class Case(TestCase):
    async def setUp(self) -> None:
        self.server = RedisServer(Path(self.mktemp()))
        self.server.start()
        self.addCleanup(self.server.kill)
        self.cache: Any = await self.started()

    async def started(self, prefix: str = "llmproxy:") -> RedisCache:
        cache = RedisCacheFactory().cache(told(self.server.url, prefix), reactor)
        cache.startService()
        self.addCleanup(cache.stopService)
        await self.until(lambda: cache.redis.available)
        return cache

    async def until(self, said: Any) -> None:
        for _ in range(500):
            if said():
                return
            await deferLater(reactor, 0.01)
        self.fail("it did not happen in time")


class ContractTests(CacheContract, Case):
    minute = 1.0

    async def pass_time(self, seconds: float) -> None:
        await deferLater(reactor, seconds)


class RedisCacheTests(Case):
    async def test_the_factory(self) -> None:
        """C{cache: {backend: redis}} finds it."""
        factory = find(ICacheFactory, "redis")
        verifyObject(ICacheFactory, factory)
        verifyObject(IPlugin, factory)
        self.assertIsInstance(factory, RedisCacheFactory)

    async def test_another_process(self) -> None:
        """What one has put, another is given; what one has removed, another has no more."""
        other = await self.started()
        await self.cache.put("a/p/k", b"v", 60.0)
        self.assertEqual(await other.get("a/p/k"), b"v")
        await other.purge("a/")
        self.assertIsNone(await self.cache.get("a/p/k"))

    async def test_what_is_removed_while_it_is_put(self) -> None:
        """It is gone, though the removal comes first, over the other connection."""
        large = b"x" * 30_000_000
        for remove in (self.cache.remove, self.cache.purge):
            putting = self.cache.put_if("a/p/k", large, 60.0, await self.version("a/p/k"))
            await remove("a/p/k")
            self.assertEqual((await putting, await self.cache.get("a/p/k")), (False, None))
        self.assertTrue(await self.cache.put_if("a/p/k", b"later", 60.0, await self.version("a/p/k")))
        self.assertEqual(await self.cache.get("a/p/k"), b"later")

    async def version(self, key: str) -> Any:
        return (await self.cache.get_versioned(key)).version

    async def test_what_another_process_has_removed(self) -> None:
        """It is not put any more by who has looked before that; what was not removed is."""
        other = await self.started()
        verifyObject(IVersionedCache, self.cache)
        for remove, others in ((other.remove, True), (other.purge, False)):
            before, beside = await self.version("a/p/k"), await self.version("a/p/other")
            await remove("a/p/k")
            self.assertEqual(await self.cache.put_if("a/p/other", b"v", 60.0, beside), others)
            self.assertFalse(await self.cache.put_if("a/p/k", b"v", 60.0, before))
            self.assertEqual(await self.cache.get_versioned("a/p/k"), (None, await self.version("a/p/k")))
            self.assertNotEqual(await self.version("a/p/k"), before)
        self.assertTrue(await self.cache.put_if("a/p/k", b"v", 60.0, await self.version("a/p/k")))
        self.assertEqual(await self.cache.get_versioned("a/p/k"), (b"v", await self.version("a/p/k")))
        self.assertEqual((await self.cache.usage()).entries, 2)  # what is remembered of removals is none

    async def test_each_removal_is_another(self) -> None:
        """Also where the server has dropped what the one before left."""
        await self.cache.remove("a/p/k")
        before = await self.version("a/p/k")
        self.server.command("FLUSHALL")
        await self.cache.remove("a/p/k")
        self.assertFalse(await self.cache.put_if("a/p/k", b"v", 60.0, before))

    async def test_nothing_is_known(self) -> None:
        """Then nothing is put, and nothing is joined with what somebody knows more of."""
        known = await self.version("a/p/k")
        self.server.kill()
        await self.until(lambda: not self.cache.redis.available)
        unknown = await self.cache.get_versioned("a/p/k")
        self.assertEqual((unknown.value, unknown.version, known == unknown.version), (None, None, False))
        self.server.start()
        await self.until(lambda: self.cache.redis.available)
        self.assertFalse(await self.cache.put_if("a/p/k", b"v", 60.0, unknown.version))

    async def test_longer_than_removals_are_remembered(self) -> None:
        """What took that long to arrive is not put."""
        version = await self.version("a/p/k")
        old = replace(version, read_at=version.read_at - MARK_SECONDS - 1.0)
        self.assertEqual(old, version)
        self.assertFalse(await self.cache.put_if("a/p/k", b"v", 60.0, old))

    async def test_another_prefix(self) -> None:
        """Two installations on one server do not see each other, nor does a purge touch what is not a cache's."""
        other = await self.started("other:")
        self.server.command("SET", "llmproxy:limits:k", "v")
        await self.cache.put("a/p/k", b"v", 60.0)
        self.assertIsNone(await other.get("a/p/k"))
        self.assertEqual((await other.usage()).entries, 0)
        self.assertEqual(await other.purge(""), 0)
        self.assertEqual(await self.cache.purge(""), 1)
        self.assertEqual(self.server.command("EXISTS", "llmproxy:limits:k"), b":1\r\n")

    async def test_time_to_live(self) -> None:
        """The server itself forgets: also a value whose time is very short, or as good as endless."""
        for ttl, most in ((0.0001, 1), (60.0, 60_000), (float("inf"), 10 * 365 * 86400 * 1000)):
            await self.cache.put("k", b"v", ttl)
            left = int(self.server.command("PTTL", "llmproxy:cache:k")[1:])
            self.assertTrue(left == -2 or most - 1000 <= left <= most, (ttl, left))

    async def test_something_else_under_the_key(self) -> None:
        """A list where a value should be is a miss, and makes way for a value."""
        self.server.command("LPUSH", "llmproxy:cache:a/p/k", "x")
        self.assertIsNone(await self.cache.get("a/p/k"))
        self.assertEqual((await self.cache.usage()).entries, 1)
        self.assertTrue(await self.cache.put("a/p/k", b"v", 60.0))
        self.assertEqual(await self.cache.get("a/p/k"), b"v")

    async def test_flushed(self) -> None:
        await self.cache.put("a/p/k", b"v", 60.0)
        self.server.command("FLUSHALL")
        self.assertIsNone(await self.cache.get("a/p/k"))

    async def test_down(self) -> None:
        """Every question has an answer, and every one is that nothing is known; a purge says that it is not done."""
        self.server.kill()
        await self.until(lambda: not self.cache.redis.available)
        self.assertIsNone(await self.cache.get("k"))
        self.assertFalse(await self.cache.put("k", b"v", 60.0))
        self.assertFalse(await self.cache.remove("k"))
        self.assertEqual((await self.cache.usage()).entries, 0)
        with self.assertRaisesRegex(CacheUnavailable, "no connection to Redis. .*Purge again"):
            await self.cache.purge("")

    async def test_what_is_removed_while_redis_hangs(self) -> None:
        """It is not served when Redis is back, and is removed then; what else is there is served."""
        await self.cache.put("a/p/changed", b"old", 60.0)
        await self.cache.put("a/p/other", b"v", 60.0)
        self.server.freeze()
        self.addCleanup(self.server.thaw)
        self.assertFalse(await self.cache.remove("a/p/changed"))
        self.server.thaw()
        await self.until(lambda: self.cache.redis.available)
        self.assertIsNone(await self.cache.get("a/p/changed"))
        self.assertEqual(await self.cache.get("a/p/other"), b"v")

    async def test_what_is_removed_while_redis_is_away(self) -> None:
        """Another process serves it no more either, once this one has found Redis again."""
        other = await self.started()
        await self.cache.put("a/p/k", b"old", 60.0)
        for supervisor in self.cache.redis:
            supervisor.connection.abort("it is cut off")
        self.assertFalse(await self.cache.remove("a/p/k"))
        self.assertEqual(await other.get("a/p/k"), b"old")
        figures = {each.name: each.read() for each in self.cache.instruments()}
        self.assertEqual((figures["cache_removals_delayed"], figures["cache_removals_pending"]), (1, 1))
        await self.until(lambda: self.cache.redis.available)
        self.assertIsNone(await self.cache.get("a/p/k"))
        await self.until(lambda: self.server.command("EXISTS", "llmproxy:cache:a/p/k") == b":0\r\n")
        self.assertIsNone(await other.get("a/p/k"))

    async def test_full(self) -> None:
        """What the server has no room for is not kept, and nor is what it would have replaced."""
        await self.cache.put("a/p/k", b"old", 60.0)
        self.server.command("CONFIG", "SET", "maxmemory", "1")
        self.assertFalse(await self.cache.put("a/p/k", b"new", 60.0))
        self.server.command("CONFIG", "SET", "maxmemory", "0")
        self.assertIsNone(await self.cache.get("a/p/k"))

    async def test_removed_from_a_full_server(self) -> None:
        """It has no room to remember that, and removes it all the same."""
        for remove in (self.cache.remove, self.cache.purge):
            await self.cache.put("a/p/k", b"v", 60.0)
            self.server.command("CONFIG", "SET", "maxmemory", "1")
            self.assertEqual(await remove("a/p/k"), 1)
            self.server.command("CONFIG", "SET", "maxmemory", "0")
            self.assertIsNone(await self.cache.get("a/p/k"))

    async def test_evicted(self) -> None:
        """An operator sees that the server drops values before their time."""
        await self.cache.usage()
        self.server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        self.server.command("CONFIG", "SET", "maxmemory", "4mb")
        for number in range(200):
            self.assertTrue(await self.cache.put(f"a/p/{number}", bytes(50_000), 60.0))
        usage = await self.cache.usage()
        self.assertGreater(usage.evicted, 0)
        self.assertEqual(usage.entries + usage.evicted, 200)

    async def test_never_all_keys_at_once(self) -> None:
        """C{KEYS} would hold up everybody on a large database."""
        for number in range(10):
            await self.cache.put(f"a/p/{number}", b"v", 60.0)
        await self.cache.usage()
        await self.cache.purge("a/")
        self.assertNotIn(b"cmdstat_keys", self.server.command("INFO", "commandstats"))


class PatternTests(SynchronousTestCase):
    @settings(max_examples=50)
    @given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20))
    def test_only_itself(self, text: str) -> None:
        """Every character that means something in a pattern is escaped, and no other."""
        pattern = escape_glob(text)
        self.assertEqual(pattern.replace("\\\\", "\0").replace("\\", "").replace("\0", "\\"), text)
        for char in "*?[":
            self.assertEqual(pattern.count(f"\\{char}"), text.count(char))
