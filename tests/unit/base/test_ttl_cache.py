"""What is remembered is bounded in time and in number."""

from __future__ import annotations

from functools import partial
from math import inf
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from llmproxy.base.ttl_cache import CacheEntry, CacheLease, TTLCache


class TTLCacheTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.memory: TTLCache[bytes, int] = TTLCache(self.clock, 5.0, 2)

    def test_for_a_while(self) -> None:
        self.memory.put(b"a", 1, 0.0)
        self.clock.advance(4.9)
        self.assertEqual(self.memory.get(b"a"), 1)
        self.clock.advance(0.1)
        self.assertIsNone(self.memory.get(b"a"))
        self.assertEqual(len(self.memory), 0)

    def test_counted_from_the_question(self) -> None:
        """An answer that took long is old when it arrives."""
        self.clock.advance(10)
        self.memory.put(b"a", 1, 5.0)
        self.assertIsNone(self.memory.get(b"a"))

    def test_the_least_recently_used_goes(self) -> None:
        self.memory.put(b"a", 1, 0.0)
        self.memory.put(b"b", 2, 0.0)
        self.memory.get(b"a")
        self.memory.put(b"c", 3, 0.0)
        self.assertEqual([self.memory.get(key) for key in (b"a", b"b", b"c")], [1, None, 3])

    def test_all_go(self) -> None:
        self.memory.put(b"a", 1, 0.0, "g")
        self.memory.put(b"b", 2, 0.0)
        self.memory.clear()
        self.assertEqual((len(self.memory), self.memory.get(b"a")), (0, None))
        self.memory.drop_group("g")

    def test_a_group_goes(self) -> None:
        self.memory.put(b"a", 1, 0.0, "p")
        self.memory.put(b"b", 2, 0.0, "q")
        self.memory.drop_group("p")
        self.memory.drop_group("unknown")
        self.assertEqual([self.memory.get(key) for key in (b"a", b"b")], [None, 2])

    def test_an_entry_ends_with_its_value(self) -> None:
        """Whoever has it sees that it is good no more, however that has come about."""

        def replace() -> None:
            self.memory.put(b"a", 2, 0.0, "p")

        def crowd_out() -> None:
            for other in (b"b", b"c"):
                self.memory.put(other, 3, 0.0)

        for end in (
            replace,
            crowd_out,
            self.memory.clear,
            partial(self.memory.drop, b"a"),
            partial(self.memory.drop_group, "p"),
            partial(self.memory.drop_where, lambda value: value == 1),
        ):
            self.memory.clear()
            self.memory.put(b"a", 1, 0.0, "p")
            entry = self.memory.entry(b"a")
            assert entry is not None
            self.assertEqual((entry.value, entry.until), (1, 5.0))
            end()
            self.assertEqual(entry.until, -inf)

    def test_a_lease(self) -> None:
        """What is used is used on for as long as changes are heard of, and no longer than so many seconds in all."""
        lease = CacheLease(5.0)
        memory: TTLCache[bytes, int] = TTLCache(self.clock, 60.0, 2, lease)
        memory.put(b"a", 1, 0.0)
        memory.put(b"b", 2, 0.0, ttl=7.0)
        entry = memory.entry(b"a")
        assert entry is not None
        self.clock.advance(4.0)
        lease.renew(4.0)
        self.clock.advance(2.0)
        self.assertEqual([memory.get(key) for key in (b"a", b"b")], [1, 2])
        self.assertEqual(entry.until, 9.0)
        self.clock.advance(1.0)
        self.assertEqual([memory.get(key) for key in (b"a", b"b")], [1, None])
        self.clock.advance(2.0)
        self.assertEqual((entry.is_good(8.9), entry.is_good(9.0), memory.get(b"a")), (True, False, None))
        lease.renew(9.0)
        self.assertFalse(entry.is_good(9.0))

    def test_a_lease_that_was_never_renewed(self) -> None:
        """What has just been read may be used for as long as after a renewal."""
        memory: TTLCache[bytes, int] = TTLCache(self.clock, 60.0, 2, CacheLease(5.0))
        memory.put(b"a", 1, 0.0)
        self.clock.advance(4.9)
        self.assertEqual(memory.get(b"a"), 1)
        self.clock.advance(0.1)
        self.assertIsNone(memory.get(b"a"))

    def test_dropped_under_a_lease(self) -> None:
        """Whoever has the entry cannot use it on."""
        lease = CacheLease(5.0)
        memory: TTLCache[bytes, int] = TTLCache(self.clock, 60.0, 2, lease)
        memory.put(b"a", 1, 0.0)
        entry = memory.entry(b"a")
        assert entry is not None
        memory.drop(b"a")
        lease.renew(1.0)
        self.assertFalse(entry.is_good(0.0))

    def test_used_by_its_entry(self) -> None:
        """Whoever uses an entry without asking the cache keeps it from being the first to go."""
        lease = CacheLease(5.0)
        memory: TTLCache[bytes, int] = TTLCache(self.clock, 60.0, 2, lease)
        for key in (b"a", b"b"):
            memory.put(key, 1, 0.0)
        entry = memory.entry(b"a")
        assert entry is not None
        memory.get(b"b")
        lease.renew(4.0)
        self.assertTrue(entry.is_good(6.0))
        memory.put(b"c", 1, 6.0)
        self.assertEqual((entry.is_good(6.0), memory.get(b"b")), (True, None))

    def test_an_entry_without_a_cache(self) -> None:
        entry = CacheEntry(5.0, 1, "")
        self.assertEqual([entry.is_good(now) for now in (4.9, 5.0)], [True, False])

    def test_no_size(self) -> None:
        memory: TTLCache[bytes, int] = TTLCache(self.clock, 5.0, 0)
        memory.put(b"a", 1, 0.0)
        self.assertIsNone(memory.get(b"a"))

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["put", "get", "drop", "drop_group", "advance"]),
                st.sampled_from([b"a", b"b", b"c", b"d"]),
                st.sampled_from(["p", "q"]),
            )
        )
    )
    def test_groups_and_values_agree(self, steps: list[tuple[str, bytes, str]]) -> None:
        """Whatever happens, the index of groups holds exactly what is remembered."""
        clock = Clock()
        memory: TTLCache[str] = TTLCache(clock, 5.0, 2)
        for step, key, group in steps:
            if step == "put":
                memory.put(key, group, clock.seconds(), group)
            elif step == "advance":
                clock.advance(3)
            else:
                getattr(memory, step)(group if step == "drop_group" else key)
            indexed = {(key, group) for group, keys in memory._groups.items() for key in keys}
            self.assertEqual(indexed, {(key, entry.value) for key, entry in memory._entries.items()})
            self.assertLessEqual(len(memory), 2)
            self.assertTrue(all(memory._groups.values()))
