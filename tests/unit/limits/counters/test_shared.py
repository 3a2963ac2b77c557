"""Counters that several workers share."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from llmproxy.limits.counters.shared import LOOK, SharedCounters

LEASE = ["token:x:concurrency", "lease", 2, 1]
RATE = ["token:x:rpm", "rate", 3, 1]


class SharedCountersTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 1000.0
        self.counters = SharedCounters(lambda: self.now)

    def reserve(self, worker: str, number: int, *claims: list[object]) -> object:
        return self.counters.exchange(worker, [], [[number, list(claims)]])[0][0]

    def test_a_rate_is_one_for_all_workers(self) -> None:
        given = [self.reserve(worker, 1, RATE) for worker in ("1.1", "2.2", "3.3", "4.4")]
        self.assertEqual(given, [None, None, None, 0])
        self.now += 61
        self.assertIsNone(self.reserve("4.4", 2, RATE))

    def test_a_lease_is_free_when_it_is_settled(self) -> None:
        self.assertEqual([self.reserve("1.1", 1, LEASE), self.reserve("2.2", 1, LEASE)], [None, None])
        self.assertEqual(self.reserve("2.2", 2, LEASE), 0)
        self.counters.exchange("1.1", [[1, [1]]], [])
        self.assertIsNone(self.reserve("2.2", 3, LEASE))

    def test_what_is_refused_takes_nothing_of_the_others(self) -> None:
        for number in (1, 2):
            self.reserve("1.1", number, LEASE)
        self.assertEqual(self.reserve("1.1", 3, RATE, LEASE), 1)
        _, _, used, _ = self.counters.exchange("2.2", [], [[LOOK, [RATE, LEASE]]])[0]
        self.assertEqual(used, [0, 2])

    def test_a_worker_that_died_leaves_its_leases_but_not_its_rates(self) -> None:
        self.reserve("1.1", 1, RATE, LEASE)
        self.reserve("1.1", 2, RATE, LEASE)
        self.assertEqual(self.counters.release("1.1"), 2)
        _, _, used, _ = self.counters.exchange("2.2", [], [[LOOK, [RATE, LEASE]]])[0]
        self.assertEqual((used, self.counters.reservations), ([2, 0], 0))

    def test_what_was_used_corrects_what_was_claimed(self) -> None:
        tokens = ["token:x:tpm", "rate", 100, 60]
        self.assertIsNone(self.reserve("1.1", 1, tokens))
        self.assertEqual(self.reserve("2.2", 1, tokens), 0)
        self.counters.exchange("1.1", [[1, [10]]], [])
        self.assertIsNone(self.reserve("2.2", 2, tokens))
