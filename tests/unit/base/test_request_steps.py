from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.base.request_steps import MAX_ATTEMPTS, AttemptTimes, Step, decode, encode, stopped_in

seconds = st.floats(0, 1e6, allow_nan=False)


class RequestStepsTests(TestCase):
    def test_a_long_way(self) -> None:
        """Each step from the end of the one before; a pause between attempts; what waited for a connection is no part
        of the attempt."""
        text = encode(
            100.0,
            [("scheduler", 100.25), ("auth", 100.5), ("limits", 101.0)],
            [AttemptTimes("0/0:429", 101.0, 102.0), AttemptTimes("1/2:connect", 102.5, 103.0, 0.125)],
        )
        self.assertEqual(text, "scheduler:0.25 auth:0.5 limits:1.0 0/0:429@1.0+1.0 1/2:connect@2.5+0.5~0.125")
        self.assertEqual(
            decode(text),
            [
                Step("scheduler", 0.0, 0.25),
                Step("auth", 0.25, 0.25),
                Step("limits", 0.5, 0.5),
                Step("attempt", 1.0, 1.0, 0, 0, "429"),
                Step("pause", 2.0, 0.5),
                Step("connection", 2.5, 0.125, 1, 2),
                Step("attempt", 2.625, 0.375, 1, 2, "connect"),
            ],
        )

    @given(st.lists(seconds, max_size=5), seconds)
    def test_whatever_it_took(self, lengths: list[float], arrived: float) -> None:
        """It is read as it was written, to the microsecond, however little or much that was."""
        ends = [arrived + sum(lengths[: count + 1]) for count in range(len(lengths))]
        steps = decode(encode(arrived, [("auth", end) for end in ends], []))
        self.assertEqual(len(steps), len(lengths))
        if steps:
            self.assertAlmostEqual(steps[-1].at + steps[-1].seconds, ends[-1] - arrived, delta=1e-4)

    def test_very_many_attempts(self) -> None:
        times = [AttemptTimes(f"0/{number}:500", 0.0, 1.0) for number in range(100)]
        found = decode(encode(0.0, [], times))
        self.assertEqual((len(found), found[-1].key), (MAX_ATTEMPTS, 99))

    def test_another_text(self) -> None:
        for text in ("", "x", "auth:", "auth:soon", "0/0:200@", "0/0:200@1", "<b>:1"):
            self.assertEqual(decode(text), [])

    def test_where_it_stopped(self) -> None:
        for last, through_cache, expected in (
            (None, False, "auth"),
            ("scheduler", True, "auth"),
            ("auth", False, "body"),
            ("body", True, "cache"),
            ("body", False, "limits"),
            ("cache", True, "limits"),
            ("limits", False, "admission"),
            ("turn", False, "admission"),
            ("admission", False, "admission"),
        ):
            marks = [] if last is None else [(last, 1.0)]
            self.assertEqual(stopped_in(marks, through_cache=through_cache), expected)
