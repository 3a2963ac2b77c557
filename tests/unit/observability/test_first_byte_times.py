from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.observability.first_byte_times import CLASS_BOUNDS, CLASS_COUNT, percentile, time_class


def counts(*times: float) -> list[int]:
    counted = [0] * CLASS_COUNT
    for each in times:
        counted[time_class(each)] += 1
    return counted


class PercentileTests(TestCase):
    def test_nothing_was_counted(self) -> None:
        self.assertIsNone(percentile(counts(), 0.5))

    def test_beyond_all_classes(self) -> None:
        self.assertEqual(percentile(counts(10_000.0), 0.5), CLASS_BOUNDS[-1])

    def test_two_groups(self) -> None:
        """Ninety that took 0.3 s and ten that took 20 s."""
        found = counts(*[0.3] * 90, *[20.0] * 10)
        half, most = percentile(found, 0.5), percentile(found, 0.95)
        assert half is not None and most is not None
        self.assertTrue(0.22 < half < 0.33, half)
        self.assertTrue(14.4 < most < 20.6, most)

    @given(st.lists(st.floats(0.011, 160.0), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 1.0]))
    def test_it_is_in_the_class_of_the_right_one(self, times: list[float], share: float) -> None:
        """At most one class away from what sorting says, which is a factor of 1.42."""
        right = sorted(times)[max(0, -(-int(share * 1000) * len(times) // 1000) - 1)]
        found = percentile(counts(*times), share)
        assert found is not None
        self.assertTrue(right / 1.4143 <= found <= right * 1.4143, (right, found))
