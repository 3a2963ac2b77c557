from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from llmproxy.base.ttl_cache import CacheEntry, CacheLease, TTLCache
from llmproxy.proxy.fast_path.flow import FlowTable, KnownHead, holes_in
from llmproxy.proxy.fast_path.head_layouts import MAX_LAYOUTS
from llmproxy.proxy.fast_path.head_shape import HOLES, head_shape
from llmproxy.proxy.fast_path.outgoing_head import OutgoingHead

LINES = [b"POST / HTTP/1.1", *(b"Field-%d: v" % number for number in range(6))]


FLOW: Any = SimpleNamespace(sending=None)


class Outgoing(TestCase):
    @given(st.lists(st.integers(1, 6), unique=True), st.integers(0, 10**6), st.booleans())
    def test_rendered(self, holes: list[int], length: int, names_client: bool) -> None:
        """As its lines, one by one, with the client's in their places."""
        client = [LINES[0], *LINES[1:], b"X: of the client alone"]
        filled = holes_in(LINES, client, tuple((index, b"Field-%d" % (index - 1)) for index in [*holes, 7]))
        assert filled is not None
        head = OutgoingHead(LINES, filled, names_client=names_client)
        said = [b"said-%d" % index for index in holes]
        told = [b"X-Forwarded-For: 2001:db8::1"] if names_client else []
        expected = [*LINES, *told, b"Content-Length: %d" % length, b"", b""]
        for index, line in zip(holes, said, strict=True):
            expected[index] = line
        whole = b"\r\n".join(expected)
        for _ in range(2):
            self.assertEqual(head.render([*said, b"X: other"], length, "2001:db8::1"), whole)
        self.assertEqual(head.start, b"" if holes or names_client else whole[: -len(b"%d\r\n\r\n" % length)])


class Tables(TestCase):
    """Which heads have a flow."""

    def setUp(self) -> None:
        self.table = FlowTable(max_flows=8, max_seen=4)
        self.lines = [*LINES, b"Content-Length: 2"]

    def put(self, lines: list[bytes] | None = None) -> KnownHead:
        """Have one that is as these lines, which differs from others."""
        lines = lines or self.lines
        shape = head_shape(lines)
        assert shape is not None
        self.table.put(shape, lines, [b"name"] * 7, FLOW)
        known = self.found(lines)
        assert known is not None
        return known

    def found(self, lines: list[bytes]) -> KnownHead | None:
        found = self.table.find(b"\r\n".join(lines))
        return None if found is None else found.known.known

    def is_due(self, lines: list[bytes] | None = None) -> bool:
        return self.table.shape_due(lines or self.lines) is not None

    def test_one_that_comes_again(self) -> None:
        self.assertEqual([self.is_due(), self.is_due()], [False, True])
        self.put()
        self.assertFalse(self.is_due())

    def test_one_that_is_dropped(self) -> None:
        """It has come before, so that the next request with it makes another flow."""
        known = self.put()
        self.table.drop(known)
        self.assertEqual((known.current, len(self.table), self.is_due()), (False, 0, True))

    def test_one_that_is_used_seldom(self) -> None:
        """Its flow is good for as long as changes of what it was made from are heard of."""
        lease = CacheLease(5.0)
        for told in ("grant", "keys"):
            cache: TTLCache[str, int] = TTLCache(Clock(), 300.0, 10, lease)
            for key in ("grant", "keys"):
                cache.put(key, 1, 0.0)
            sending = SimpleNamespace(keys=cache.entry("keys"))
            known = self.put()
            known.prepared = SimpleNamespace(grant=cache.entry("grant"), sending=sending, expires_at=60.0)  # type: ignore[assignment]
            lease.renew(50.0)
            self.assertTrue(self.table.is_good(known, 54.9, lambda: 59.0))
            cache.drop(told)
            self.assertFalse(self.table.is_good(known, 54.9, lambda: 59.0))
            self.assertFalse(known.current)

    def test_one_that_is_dropped_late(self) -> None:
        """Whoever still had it does not end what has taken its place."""
        known = self.put()
        self.table.drop(known)
        other = self.put()
        self.table.drop(known)
        self.assertEqual((other.current, len(self.table)), (True, 1))

    def test_all(self) -> None:
        known = self.put()
        self.table.clear()
        self.assertEqual((known.current, len(self.table), self.is_due()), (False, 0, False))

    def test_too_many(self) -> None:
        """Each takes the place of the oldest, and of no other, be they of one shape or of many."""
        heads = [[*LINES[:4], *[b"More: v"] * (number % 3), b"N: %d" % number] for number in range(12)]
        for number, lines in enumerate(heads):
            lines.insert(1 + number % 4, b"Content-Length: 1")
        known = [self.put(lines) for lines in heads]
        current = [False] * 4 + [True] * 8
        self.assertEqual([each.current for each in known], current)
        for _ in range(2):
            self.assertEqual([self.found(lines) is each for lines, each in zip(heads, known, strict=True)], current)

    def use(self, known: KnownHead) -> None:
        grant = CacheEntry(60.0, None, "")
        known.prepared = SimpleNamespace(grant=grant, sending=None, expires_at=None)  # type: ignore[assignment]
        self.assertTrue(self.table.is_good(known, 0.0, lambda: 0.0))

    def test_busy_ones(self) -> None:
        """They keep their places: ever new heads that come twice take those of each other, or of none."""
        busy = [self.put([*self.lines, b"N: %d" % number]) for number in range(6)]
        made_up = 0
        for number in range(100):
            for known in busy:
                self.use(known)
            lines = [*self.lines, b"Made-Up: %d" % number]
            self.assertFalse(self.is_due(lines))
            if self.is_due(lines):
                self.put(lines)
                made_up += 1
        self.assertEqual([known.current for known in busy], [True] * 6)
        self.assertEqual((len(self.table), made_up > 10), (8, True))

    def test_more_than_there_is_room_for(self) -> None:
        """Not all of them in turn, for none of them, but as many as there is room for are served."""
        heads = [[*self.lines, b"N: %d" % number] for number in range(10)]
        self.table = FlowTable(max_flows=8, max_seen=10)
        served = 0
        for _ in range(10):
            for lines in heads:
                if (known := self.found(lines)) is not None:
                    self.use(known)
                    served += 1
                elif self.is_due(lines):
                    self.put(lines)
        self.assertGreaterEqual(served, 8 * 8 - 4)

    def test_others_than_before(self) -> None:
        """Those that nobody uses any more make room one after the other, and soon."""
        before = [self.put([*self.lines, b"N: %d" % number]) for number in range(8)]
        for known in before:
            self.use(known)
        heads = [[*self.lines, b"More: %d" % number] for number in range(4)]
        for _ in range(5):
            for lines in heads:
                if self.found(lines) is None and self.is_due(lines):
                    self.put(lines)
        self.assertEqual([self.found(lines) is not None for lines in heads], [True] * 4)

    def test_what_is_kept_with_one_counts(self) -> None:
        """Those that came before make room for it, and then it itself."""
        table = FlowTable(max_bytes=100_000)
        self.table = table
        first, second = self.put(), self.put([*LINES, b"X: y", b"Content-Length: 2"])
        second.grow(100_000 - first.size - second.size)
        self.assertEqual((first.current, second.current), (True, True))
        second.grow(1)
        self.assertEqual((first.current, second.current, len(table)), (False, True, 1))
        first.grow(10**9)  # whoever still has it
        second.grow(-1000)
        second.grow(1000)
        self.assertTrue(second.current)
        second.grow(100_000)
        self.assertEqual((second.current, len(table)), (False, 0))

    def test_too_long_together(self) -> None:
        """No more is kept of heads than so many bytes, however few they are."""
        self.table = FlowTable(max_bytes=100_000)
        known = [self.put([*self.lines, b"N: %b%d" % (b"v" * 8000, number)]) for number in range(5)]
        self.assertEqual([each.current for each in known], [False, False, False, True, True])
        self.table.drop(known[3])
        known.append(self.put([*self.lines, b"N: %b" % (b"v" * 8000)]))
        self.assertEqual([each.current for each in known[3:]], [False, True, True])
        self.table.clear()
        self.assertEqual((len(self.table), self.table._bytes), (0, 0))

    def test_too_many_that_came_once(self) -> None:
        """The oldest of them is forgotten."""
        heads = [[*self.lines, b"N: %d" % number] for number in range(5)]
        self.assertEqual([self.is_due(lines) for lines in heads], [False] * 5)
        self.assertEqual([self.is_due(lines) for lines in heads[1:]], [True] * 4)
        self.assertFalse(self.is_due(heads[0]))

    def test_found_by_its_layout(self) -> None:
        """In what was received, whatever has the layout of one that was found before: of so many layouts."""
        self.table = FlowTable()
        heads = [[LINES[0], b"N: %b" % (b"v" * number), *self.lines[2:]] for number in range(MAX_LAYOUTS + 2)]
        known = [self.put(lines) for lines in heads]
        received = [b"\r\n".join([*lines, b"", b"a body"]) for lines in heads]
        self.assertEqual([self.table.find_in(data) for data in received], [None, None, *known[2:]])
        self.assertIs(self.table.find_in(received[2]), known[2])
        self.assertEqual(self.found(heads[0]), known[0])
        other = self.put([LINES[0], b"M: ", *heads[0][2:]])
        self.assertIs(self.table.find_in(received[0].replace(b"N: ", b"M: ")), other)
        self.assertIs(self.table.find_in(received[0]), known[0])
        self.assertIsNone(self.table.find_in(received[0].replace(b"N: ", b"O: ")))
        self.table.clear()
        self.assertIsNone(self.table.find_in(received[0]))

    def test_holes_alone_differ(self) -> None:
        """Heads are others where another field stands in the same place, though all that does not vary is the same."""
        traced, named = [*self.lines, b"traceparent: 1"], [*self.lines, b"X-Request-ID: 1"]
        known = [self.put(traced), self.put(named)]
        self.assertEqual([self.found(traced), self.found(named)], known)

    def test_other_holes(self) -> None:
        """Nothing is known any more once other fields differ by request."""
        known = self.put()
        self.table.expect(HOLES | {b"field-0"})
        self.assertEqual((known.current, self.found(self.lines)), (False, None))
        other = [LINES[0], b"Field-0: another", *self.lines[2:]]
        self.assertEqual([self.is_due(), self.is_due(other)], [False, True])
