from __future__ import annotations

from unittest import TestCase

from llmproxy.base.memo import BoundedMemo


class BoundedMemoTests(TestCase):
    def test_it_stays_small(self) -> None:
        """Whoever makes up keys costs no more memory than the limit allows; the latest is there."""
        memo: BoundedMemo[int, str] = BoundedMemo(3)
        sizes = []
        for number in range(10):
            memo[number] = str(number)
            sizes.append(len(memo))
            self.assertEqual(memo[number], str(number))
        self.assertEqual(sizes, [1, 2, 3, 1, 2, 3, 1, 2, 3, 1])

    def test_a_new_value_of_a_known_key(self) -> None:
        """Takes the old one's place; nothing else is lost."""
        memo: BoundedMemo[str, int] = BoundedMemo(2)
        memo["a"], memo["b"] = 1, 2
        memo["a"] = 3
        self.assertEqual(memo, {"a": 3, "b": 2})
