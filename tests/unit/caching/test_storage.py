"""Entries and their variants, in this process and elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from llmproxy.caching.backends.memory import MemoryCache
from llmproxy.caching.rules.entry import Entry
from llmproxy.caching.storage import VARIANTS_TTL_SECONDS, CacheStorage, StoredEntry
from llmproxy.caching.versioned_cache import IVersionedCache
from llmproxy.interfaces import ILocalCache
from tests.support.caches import Far, PluginCache, VersionedFar

ENTRY = Entry(200, b"OK", b"A: b", b"body", 0.0, 60.0, etag=b'"x"')
FRENCH = replace(ENTRY, body=b"fr", vary=(b"accept-language",))


class CacheStorageContract:
    """What holds wherever the cache is."""

    storage: CacheStorage
    clock: Clock
    assertEqual: Any
    assertIsNone: Any
    assertTrue: Any
    successResultOf: Any

    def put(self, entry: Entry, *lines: bytes) -> None:
        self.assertTrue(self.put_as(self.find(*lines).version, entry, *lines))

    def put_as(self, version: Any, entry: Entry, *lines: bytes) -> bool:
        stored: bool = self.successResultOf(Deferred.fromCoroutine(self.storage.put("k", lines, entry, version)))
        return stored

    def look(self, *lines: bytes) -> Entry | None:
        return self.find(*lines).entry

    def find(self, *lines: bytes) -> StoredEntry:
        found: StoredEntry = self.successResultOf(Deferred.fromCoroutine(self.storage.get("k", lines)))
        return found

    def test_kept(self) -> None:
        """It is found as it was."""
        self.assertIsNone(self.look())
        self.put(ENTRY)
        self.assertEqual(self.look(b"X: y"), ENTRY)

    def test_for_as_long_as_it_is_of_use(self) -> None:
        """While it is fresh, and while it can be revalidated."""
        self.put(replace(ENTRY, etag=b""))
        self.clock.advance(119.0)
        self.assertEqual(self.look(), replace(ENTRY, etag=b""))
        self.clock.advance(2.0)
        self.assertIsNone(self.look())

    def test_variants(self) -> None:
        """Each is found by what chose it."""
        german = replace(FRENCH, body=b"de")
        self.put(FRENCH, b"Accept-Language: fr")
        self.put(german, b"Accept-Language: de")
        self.assertEqual(self.look(b"Accept-Language: fr"), FRENCH)
        self.assertEqual(self.look(b"accept-language: DE"), german)
        self.assertIsNone(self.look())

    def test_other_fields_choose_now(self) -> None:
        """What was chosen by others before is forgotten."""
        self.put(FRENCH, b"Accept-Language: fr")
        self.put(replace(ENTRY, vary=(b"foo",)), b"Foo: 1")
        self.assertIsNone(self.look(b"Accept-Language: fr"))
        self.put(ENTRY)
        self.assertEqual(self.look(b"Accept-Language: fr"), ENTRY)

    def test_what_was_dropped_does_not_come_back(self) -> None:
        """A new variant does not bring old ones back."""
        self.put(FRENCH, b"Accept-Language: fr")
        self.successResultOf(self.storage.drop("k"))
        self.clock.advance(1.0)
        self.put(replace(FRENCH, body=b"de"), b"Accept-Language: de")
        self.assertIsNone(self.look(b"Accept-Language: fr"))

    def test_a_short_lived_variant_does_not_end_a_long_lived_one(self) -> None:
        """How the fields choose is known for a day."""
        self.put(replace(FRENCH, lifetime=VARIANTS_TTL_SECONDS - 10.0), b"Accept-Language: fr")
        self.put(replace(FRENCH, lifetime=1.0, etag=b""), b"Accept-Language: de")
        self.clock.advance(VARIANTS_TTL_SECONDS / 2)
        self.assertTrue(self.look(b"Accept-Language: fr"))


class Nearby(CacheStorageContract, SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        cache = MemoryCache(self.clock, 10_000_000)
        self.addCleanup(cache.stopService)
        self.storage = CacheStorage(cache, self.clock.seconds)

    def test_the_very_entry(self) -> None:
        """It is not made anew for each request."""
        self.put(ENTRY)
        self.assertIs(self.storage.get_local("k", []), ENTRY)


class InAPlugin(CacheStorageContract, SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.cache = PluginCache(self.clock)
        self.storage = CacheStorage(self.cache, self.clock.seconds)

    def test_as_fast_as_ours(self) -> None:
        """Entries go in and out as they are, and nobody waits for a Deferred."""
        verifyObject(ILocalCache, self.cache)
        self.put(ENTRY)
        self.assertIs(self.storage.get_local("k", []), ENTRY)
        self.assertIs(self.look(), ENTRY)
        self.storage.drop("k")
        self.assertIsNone(self.look())
        self.assertEqual(self.cache.deferreds, 0)


class Elsewhere(CacheStorageContract, SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.far = Far(self.clock)
        self.addCleanup(self.far.inner.stopService)
        self.storage = CacheStorage(self.far, self.clock.seconds)

    def test_garbage(self) -> None:
        """What is no entry is a miss."""
        for garbage in (b"", b"garbage", b"llmproxy-cache-1\n{}"):
            self.far.garbage = garbage
            self.assertIsNone(self.look())
            self.put(FRENCH, b"Accept-Language: fr")

    def test_a_cache_that_breaks_its_promise(self) -> None:
        """It never fails, it says; if it does, requests go on, and somebody is told."""
        self.far.get = self.far.put = lambda *_: fail(OSError("broken"))  # type: ignore[assignment]
        self.assertIsNone(self.look())
        self.assertFalse(self.successResultOf(Deferred.fromCoroutine(self.storage.put("k", [], ENTRY))))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 2)


class Shared(CacheStorageContract, SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.far = VersionedFar(self.clock)
        verifyObject(IVersionedCache, self.far)
        self.addCleanup(self.far.inner.stopService)
        self.storage = CacheStorage(self.far, self.clock.seconds)

    def test_removed_meanwhile(self) -> None:
        """What was asked for before another process removed what there was is not stored, and no variant either."""
        for entry in (ENTRY, FRENCH):
            before = self.find().version
            self.far.remove("k")
            self.assertFalse(self.put_as(before, entry, b"Accept-Language: fr"))
            self.assertEqual(self.far.inner.usage_now().entries, 0)

    def test_nothing_is_known(self) -> None:
        """Then nothing is stored."""
        self.assertFalse(self.put_as(None, ENTRY))
