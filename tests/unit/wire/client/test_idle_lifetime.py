"""How long unused connections may be used again is learned from the provider, and nothing is learned from accidents."""

from __future__ import annotations

from math import inf
from unittest import TestCase

from llmproxy.wire.client.idle_lifetime import CLOSES_TO_LEARN, MARGIN_SHARE, MAX_MARGIN_SECONDS, IdleLifetime


class StatedTests(TestCase):
    def test_less_than_the_provider_says(self) -> None:
        for value, limit in [
            (b" timeout=5", 5 - 5 * MARGIN_SHARE),
            (b"timeout=60, max=100", 60 - MAX_MARGIN_SECONDS),
            (b'max=3,TIMEOUT="1"', 1 - MARGIN_SHARE),
            (b"timeout=0", 0.0),
            (b"timeout=600", 90.0),
            (b"timeout=-1", 90.0),
            (b"max=3", 90.0),
            (b"notimeout=5", 90.0),
        ]:
            lifetime = IdleLifetime(90.0)
            lifetime.on_stated(value)
            self.assertAlmostEqual(lifetime.limit, limit, msg=value.decode())


class LearnedTests(TestCase):
    def closes(self, lifetime: IdleLifetime, *idle: float, begin: float = 100.0) -> None:
        """One after the other."""
        for seconds in idle:
            lifetime.on_closed(begin, begin + seconds)
            begin += seconds + 0.1

    def test_closes_that_agree(self) -> None:
        lifetime = IdleLifetime(90.0)
        self.closes(lifetime, *[5.0, 5.2, 5.1, 5.3][: CLOSES_TO_LEARN - 1])
        self.assertEqual(lifetime.limit, 90.0)
        self.closes(lifetime, 5.3, begin=200.0)
        self.assertAlmostEqual(lifetime.limit, 4.0)

    def test_closes_that_do_not(self) -> None:
        lifetime = IdleLifetime(90.0)
        self.closes(lifetime, 5.0, 20.0, 1.0, 60.0, 8.0, 33.0)
        self.assertEqual(lifetime.limit, 90.0)

    def test_all_at_once(self) -> None:
        """A provider that starts anew closes what it has, however long that was unused."""
        lifetime = IdleLifetime(90.0)
        for since in (10.0, 10.1, 10.2, 10.3, 10.4):
            lifetime.on_closed(since, 15.0)
        self.assertEqual(lifetime.limit, 90.0)

    def test_refuted(self) -> None:
        lifetime = IdleLifetime(0.0)
        self.assertEqual((lifetime.limit, lifetime.refuted_after), (inf, inf))
        self.closes(lifetime, 5.0, 5.0, 5.0)
        self.assertAlmostEqual(lifetime.limit, 4.0)
        self.assertGreater(lifetime.refuted_after, 7.0)
        lifetime.refute()
        self.assertEqual((lifetime.limit, lifetime.refuted_after), (inf, inf))

    def test_no_longer_than_is_set(self) -> None:
        lifetime = IdleLifetime(6.0)
        self.closes(lifetime, 5.0, 5.0, 5.0)
        self.assertEqual(lifetime.refuted_after, inf)
        self.closes(lifetime, 50.0, 50.0, 50.0, begin=1000.0)
        self.assertEqual(lifetime.limit, 6.0)
