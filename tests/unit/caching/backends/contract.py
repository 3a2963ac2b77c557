"""What every cache must do, wherever it keeps things."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from zope.interface.verify import verifyObject

from llmproxy.interfaces import ICache

EVERY_BYTE = bytes(range(256))
LARGE = EVERY_BYTE * 8192  # 2 MiB


class CacheContract:
    """Mixed into a trial C{TestCase} that makes the cache, with room for a few values of 2 MiB, and lets time pass.

    @ivar minute: Seconds that the test takes for a long time; a real clock may make it short.
    """

    cache: Any
    minute = 60.0

    assertEqual: Any
    assertIs: Any
    assertIsNone: Any
    assertTrue: Any
    assertGreaterEqual: Any

    async def pass_time(self, seconds: float) -> None:
        """Come back when so much time has passed for the cache."""
        raise NotImplementedError

    def test_is_a_cache(self) -> None:
        """The backend promises what the proxy relies on."""
        self.assertTrue(verifyObject(ICache, self.cache))

    def test_every_method_answers_with_a_deferred(self) -> None:
        """Callers may add callbacks, as with anything of Twisted's."""
        cache = self.cache
        waiting = [cache.put("a/b", b"v", 1.0), cache.get("a/b"), cache.remove("a/b"), cache.purge("a/"), cache.usage()]
        for each in waiting:
            self.assertTrue(isinstance(each, Deferred))
        return gatherResults(waiting)  # type: ignore[return-value]

    async def test_what_was_put_is_there(self) -> None:
        """An answer that was kept is given again."""
        self.assertTrue(await self.cache.put("openai/p1/k", b"value", self.minute))
        self.assertEqual(await self.cache.get("openai/p1/k"), b"value")

    async def test_what_was_never_put_is_not(self) -> None:
        """An unknown request is a miss."""
        self.assertIsNone(await self.cache.get("openai/p1/unknown"))

    async def test_bytes_are_kept_as_they_are(self) -> None:
        """Compressed and binary answers come back byte for byte; so does an empty one."""
        for key, value in (("a/b/every", EVERY_BYTE), ("a/b/empty", b""), ("a/b/text", "ü\r\n0\r\n".encode())):
            self.assertTrue(await self.cache.put(key, value, self.minute))
            self.assertEqual(await self.cache.get(key), value)

    async def test_two_mebibytes(self) -> None:
        """A long answer is no different."""
        self.assertTrue(await self.cache.put("a/b/large", LARGE, self.minute))
        self.assertTrue(await self.cache.get("a/b/large") == LARGE)

    async def test_putting_again_replaces(self) -> None:
        """A newer answer takes the place of the older."""
        await self.cache.put("a/b/c", b"old", self.minute)
        await self.cache.put("a/b/c", b"new", self.minute)
        self.assertEqual(await self.cache.get("a/b/c"), b"new")
        self.assertEqual((await self.cache.usage()).entries, 1)

    async def test_it_is_forgotten_when_its_time_is_over(self) -> None:
        """An answer is not kept for longer than was said; its neighbour is not hurt."""
        await self.cache.put("a/b/short", b"s", self.minute / 10)
        await self.cache.put("a/b/long", b"l", self.minute * 10)
        await self.pass_time(self.minute / 5)
        self.assertIsNone(await self.cache.get("a/b/short"))
        self.assertEqual(await self.cache.get("a/b/long"), b"l")

    async def test_putting_again_begins_a_new_time(self) -> None:
        """A revalidated answer lives on."""
        await self.cache.put("a/b/c", b"1", self.minute / 10)
        await self.cache.put("a/b/c", b"2", self.minute * 10)
        await self.pass_time(self.minute / 5)
        self.assertEqual(await self.cache.get("a/b/c"), b"2")

    async def test_a_removed_key_has_no_value(self) -> None:
        """What is invalidated is gone, and only that."""
        await self.cache.put("a/b/c", b"1", self.minute)
        await self.cache.put("a/b/cc", b"2", self.minute)
        self.assertIs(await self.cache.remove("a/b/c"), True)
        self.assertIs(await self.cache.remove("a/b/c"), False)
        self.assertIsNone(await self.cache.get("a/b/c"))
        self.assertEqual(await self.cache.get("a/b/cc"), b"2")

    async def test_purging_a_prefix(self) -> None:
        """All of a project's answers go, nobody else's."""
        for key in ("openai/p1/a", "openai/p1/b", "openai/p10/a", "anthropic/p1/a"):
            await self.cache.put(key, b"v", self.minute)
        self.assertEqual(await self.cache.purge("openai/p1/"), 2)
        self.assertEqual(await self.cache.purge("openai/p1/"), 0)
        self.assertIsNone(await self.cache.get("openai/p1/a"))
        self.assertEqual(await self.cache.get("openai/p10/a"), b"v")
        self.assertEqual(await self.cache.get("anthropic/p1/a"), b"v")

    async def test_a_prefix_is_no_pattern(self) -> None:
        """Whoever asks to purge a strange name purges that name."""
        for key in ("a*/p/1", "ab/p/1", "a[b]/p/1", "a?/p/1", "a\\/p/1"):
            await self.cache.put(key, b"v", self.minute)
        for prefix in ("a*/", "a[b]/", "a?/", "a\\/"):
            self.assertEqual(await self.cache.purge(prefix), 1)
        self.assertEqual(await self.cache.get("ab/p/1"), b"v")

    async def test_purging_everything(self) -> None:
        """Nothing is left, however much there was."""
        for first in range(0, 2500, 25):  # what waits for too long is not stored: a cache is only nice to have
            await gatherResults(
                [self.cache.put(f"a/p{n % 7}/{n}", b"v", self.minute) for n in range(first, first + 25)]
            )
        self.assertEqual(await self.cache.purge(""), 2500)
        self.assertEqual((await self.cache.usage()).entries, 0)

    async def test_usage(self) -> None:
        """An operator sees how much is held."""
        self.assertEqual((await self.cache.usage()).entries, 0)
        await self.cache.put("a/b/1", b"x" * 1000, self.minute)
        await self.cache.put("a/b/2", b"y" * 1000, self.minute)
        usage = await self.cache.usage()
        self.assertEqual((usage.entries, usage.evicted), (2, 0))
        self.assertGreaterEqual(usage.size, 2000)
