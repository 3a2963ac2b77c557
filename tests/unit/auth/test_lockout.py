"""What guessing at tokens is worth."""

from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.auth.lockout import Guesses, network
from llmproxy.errors import TooManyFailures


class GuessesTests(TestCase):
    def told_to_wait(self, guesses: Guesses, address: str, now: float) -> float | None:
        try:
            guesses.count(address, now)
        except TooManyFailures as e:
            return e.retry_after
        return None

    def test_held_back_for_the_rest_of_the_minute(self) -> None:
        """So many are heard in a minute; the rest is told how long to wait."""
        guesses = Guesses(limit=2, window=60)
        waits = [self.told_to_wait(guesses, "a", now) for now in (0, 0, 15, 59.5, 60, 60, 60)]
        self.assertEqual(waits, [None, None, 45, 0.5, None, None, 60])

    def test_others(self) -> None:
        guesses = Guesses(limit=1)
        self.assertEqual([self.told_to_wait(guesses, a, 0) for a in ("a", "b", "a")], [None, None, 60])

    def test_bounded(self) -> None:
        """However many addresses knock, only so many are remembered."""
        guesses = Guesses(addresses=3)
        for n in range(100):
            guesses.count(f"192.0.2.{n}", 0.0)
        self.assertEqual(len(guesses), 3)

    def test_network(self) -> None:
        """Who has an IPv6 network has all its addresses; an IPv4 address is one however it is written."""
        self.assertEqual(network("2001:db8::1"), network("2001:db8::ffff:1"))
        self.assertNotEqual(network("2001:db8::1"), network("2001:db8:0:1::1"))
        self.assertEqual(network("::ffff:192.0.2.1"), network("192.0.2.1"))
        self.assertEqual(network("fe80::1%eth0"), network("fe80::2"))
        self.assertEqual(network("/run/proxy.sock"), "/run/proxy.sock")

    @given(st.lists(st.floats(0, 300), max_size=200))
    def test_never_more_in_a_window(self, times: list[float]) -> None:
        """Whenever they come, of those after a first one no more than the limit are heard until a minute is over."""
        guesses, heard = Guesses(limit=5, window=60), list[float]()
        for now in sorted(times):
            if self.told_to_wait(guesses, "a", now) is None:
                heard.append(now)
        start = 0
        while start < len(heard):
            window = [at for at in heard[start:] if at - heard[start] < 60]
            self.assertLessEqual(len(window), 5)
            start += len(window)
