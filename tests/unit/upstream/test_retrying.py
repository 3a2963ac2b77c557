from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy import errors
from llmproxy.upstream.retrying import FREE_RETRIES, RetryBudget, cause_of, pause_before, retry_after


def failure(
    error: errors.UpstreamFailure, *, nothing_sent: bool = False, reused: bool = False
) -> errors.UpstreamFailure:
    error.nothing_sent, error.reused = nothing_sent, reused
    return error


class Budgets(TestCase):
    def test_a_share(self) -> None:
        budget = RetryBudget(0.2)
        for _ in range(50):
            budget.deposit(100.0)
        self.assertEqual(sum(budget.withdraw(100.0) for _ in range(50)), 10)
        self.assertEqual(budget.exhausted, 40)

    def test_some_are_free(self) -> None:
        """A single client, who asks now and then, would have none."""
        budget = RetryBudget(0.0)
        self.assertEqual(sum(budget.withdraw(5.0) for _ in range(9)), FREE_RETRIES)

    def test_ten_seconds(self) -> None:
        """What is longer ago does not count, neither requests nor retries."""
        budget = RetryBudget(0.5)
        for _ in range(20):
            budget.deposit(0.5)
        self.assertTrue(all(budget.withdraw(9.9) for _ in range(10)))
        self.assertFalse(budget.withdraw(9.9))
        self.assertFalse(budget.withdraw(10.1), "ten retries, and no request")
        self.assertTrue(budget.withdraw(20.1))

    @given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=200), st.floats(0, 1))
    def test_never_more(self, steps: list[tuple[float, bool]], share: float) -> None:
        """Whatever comes when: in no ten seconds more than the share of the requests of twenty, or the free ones."""
        budget, now = RetryBudget(share), 1000.0
        requests: list[float] = []
        retries: list[float] = []
        for wait, retried in steps:
            now += wait
            if not retried:
                budget.deposit(now)
                requests.append(now)
            elif budget.withdraw(now):
                retries.append(now)
                lately = sum(1 for at in retries if at > now - 9)
                came = sum(1 for at in requests if at > now - 10)
                self.assertLessEqual(lately, max(FREE_RETRIES, share * came))


class Rules(TestCase):
    def test_causes(self) -> None:
        for outcome, cause in (
            (failure(errors.UpstreamUnreachable(), nothing_sent=True), "connect"),
            (failure(errors.UpstreamTimeout(), nothing_sent=True), ""),
            (failure(errors.UpstreamUnreachable(), nothing_sent=True, reused=True), "connect"),
            (failure(errors.UpstreamUnreachable()), "reset"),
            (failure(errors.UpstreamUnreachable(), reused=True), "reused"),
            (failure(errors.UpstreamBroken()), ""),
            (failure(errors.UpstreamTimeout()), ""),
            (failure(errors.UpstreamBusy(), nothing_sent=True), ""),
            (503, "503"),
        ):
            with self.subTest(cause):
                self.assertEqual(cause_of(outcome), cause)

    def test_pauses(self) -> None:
        for repetition, says, jitter, pause in (
            (1, None, 0.0, 0.0),
            (1, None, 0.5, 0.125),
            (3, None, 0.5, 0.5),
            (9, None, 0.5, 2.5),
            (1, 2.0, 0.5, 2.0),
            (5, 2.0, 0.75, 3.0),
            (1, 10.0, 0.0, 10.0),
            (1, 10.5, 0.0, None),
        ):
            with self.subTest((repetition, says, jitter)):
                self.assertEqual(pause_before(repetition, 0.25, says, jitter), pause)

    def test_when_to_come_back(self) -> None:
        for lines, seconds in (
            ([], None),
            ([b"Retry-After: 7"], 7.0),
            ([b"retry-after:1.5"], 1.5),
            ([b"Retry-After: 7", b"retry-after-ms: 250"], 0.25),
            ([b"Retry-After: soon"], None),
            ([b"Retry-After: -3"], None),
            ([b"Retry-After: Wed, 21 Oct 2026 07:28:30 GMT", b"Date: Wed, 21 Oct 2026 07:28:00 GMT"], 30.0),
            ([b"Retry-After: Wed, 21 Oct 2026 07:28:00 GMT", b"Date: Wed, 21 Oct 2026 07:28:30 GMT"], 0.0),
            ([b"Retry-After: Wed, 21 Oct 2026 07:28:30 GMT"], None),
        ):
            with self.subTest(lines):
                self.assertEqual(retry_after(lines), seconds)

    @given(st.lists(st.binary(max_size=60)))
    def test_whatever_stands_there(self, values: list[bytes]) -> None:
        said = retry_after(
            [name + value for value in values for name in (b"Retry-After:", b"retry-after-ms:", b"Date:")]
        )
        self.assertTrue(said is None or said >= 0)
