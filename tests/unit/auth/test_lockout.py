"""What guessing at tokens is worth."""

from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.auth.lockout import FailedAttempts, networks
from llmproxy.errors import TooManyFailures


class GuessesTests(TestCase):
    def told_to_wait(self, failed_attempts: FailedAttempts, address: str, now: float) -> float | None:
        try:
            failed_attempts.count(address, now)
        except TooManyFailures as e:
            return e.retry_after
        return None

    def test_held_back_for_the_rest_of_the_minute(self) -> None:
        """So many are heard in a minute; the rest is told how long to wait."""
        failed_attempts = FailedAttempts(limit=2, window=60)
        waits = [self.told_to_wait(failed_attempts, "a", now) for now in (0, 0, 15, 59.5, 60, 60, 60)]
        self.assertEqual(waits, [None, None, 45, 0.5, None, None, 60])

    def test_others(self) -> None:
        failed_attempts = FailedAttempts(limit=1)
        self.assertEqual([self.told_to_wait(failed_attempts, a, 0) for a in ("a", "b", "a")], [None, None, 60])

    def test_bounded(self) -> None:
        """However many addresses knock, only so many are remembered."""
        failed_attempts = FailedAttempts(addresses=3)
        for n in range(100):
            failed_attempts.count(f"192.0.2.{n}", 0.0)
        self.assertEqual(len(failed_attempts), 3)

    def test_what_an_address_counts_as(self) -> None:
        """Who has an IPv6 network has all its addresses; an IPv4 address is one however it is written."""
        self.assertEqual(networks("2001:db8::1"), ("2001:db8::/64", "2001:db8::/48"))
        self.assertEqual(networks("2001:db8::1"), networks("2001:db8::ffff:1"))
        self.assertEqual(networks("2001:db8:0:1::1"), ("2001:db8:0:1::/64", "2001:db8::/48"))
        self.assertEqual(networks("::ffff:192.0.2.1"), networks("192.0.2.1"))
        self.assertEqual(networks("fe80::1%eth0"), networks("fe80::2"))
        self.assertEqual(networks("/run/proxy.sock"), ("/run/proxy.sock",))

    def test_a_site_that_changes_its_networks(self) -> None:
        """A /48 has 65,536 networks of one host each; together they are heard so often, another site still is."""
        failed_attempts = FailedAttempts(limit=2, site_limit=5)
        waits = [self.told_to_wait(failed_attempts, f"2001:db8:0:{n:x}::1", n) for n in range(8)]
        self.assertEqual(waits, [None] * 5 + [55, 54, 53])
        self.assertEqual(len(failed_attempts), 6)
        self.assertIsNone(self.told_to_wait(failed_attempts, "2001:db8:1::1", 8))
        self.assertIsNone(self.told_to_wait(failed_attempts, "2001:db8:0:9::1", 60))

    def test_before_a_token_is_looked_up(self) -> None:
        """Whether an address is held back can be seen without counting anything."""
        failed_attempts = FailedAttempts(limit=2)
        seen = []
        for now in (0, 1, 2):
            seen.append((failed_attempts.failures("a", now), failed_attempts.wait("a", now)))
            self.told_to_wait(failed_attempts, "a", now)
        self.assertEqual(seen, [(0, 0), (1, 0), (2, 58)])
        self.assertEqual((failed_attempts.failures("a", 60), failed_attempts.wait("a", 60)), (0, 0))

    @given(st.lists(st.floats(0, 300), max_size=200))
    def test_never_more_in_a_window(self, times: list[float]) -> None:
        """Whenever they come, of those after a first one no more than the limit are heard until a minute is over."""
        failed_attempts, heard = FailedAttempts(limit=5, window=60), list[float]()
        for now in sorted(times):
            if self.told_to_wait(failed_attempts, "a", now) is None:
                heard.append(now)
        start = 0
        while start < len(heard):
            window = [at for at in heard[start:] if at - heard[start] < 60]
            self.assertLessEqual(len(window), 5)
            start += len(window)
