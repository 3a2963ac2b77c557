"""What a process allows while Redis is away."""

from __future__ import annotations

import unittest

from llmproxy.limits.counters.fallback import first_closed, local_shares
from tests.unit.limits.counters.contract import budget, lease, rate


class FallbackTests(unittest.TestCase):
    def test_closed(self) -> None:
        """The first that nobody may allow alone."""
        self.assertEqual(first_closed([rate(5, on_loss="open"), budget(1, 1), lease(1)]), 1)
        self.assertIsNone(first_closed([rate(5, on_loss="open"), lease(1, on_loss="local-share")]))

    def test_what_is_open_is_not_held(self) -> None:
        self.assertEqual(local_shares([rate(5, on_loss="open"), budget(1, 1, on_loss="open")], 4, unused), ((), []))

    def test_a_part_of_each(self) -> None:
        """Of rates and leases by how many processes there were; the store shares out budgets by itself."""
        share = "local-share"
        claims = [
            rate(100, on_loss=share),
            rate(1, on_loss="open"),
            lease(9, on_loss=share),
            budget(8, 1, on_loss=share),
        ]
        places, mine = local_shares(claims, 4, unused)
        self.assertEqual((places, [claim.limit for claim in mine]), ((0, 2, 3), [25, 2, 8]))

    def test_never_nothing(self) -> None:
        """A process that may allow nothing at all would be closed."""
        self.assertEqual(local_shares([lease(2, on_loss="local-share")], 5, unused)[1][0].limit, 1)

    def test_what_was_used_a_moment_ago(self) -> None:
        """It counts: a minute holds no more because Redis was lost in it."""
        self.assertEqual(local_shares([rate(100, on_loss="local-share")], 4, lambda key: 20)[1][0].limit, 5)


def unused(key: str) -> int:
    return 0
