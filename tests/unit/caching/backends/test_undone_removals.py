"""Removals that fail are remembered, and done later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.caching.backends.undone_removals import RETRY_INTERVAL_SECONDS, UndoneRemovals
from llmproxy.redis import RedisUnavailable

MAX_UNDONE = 300


class UndoneRemovalsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[tuple[list[str], Deferred[int]]] = []
        self.away = False
        self.removals = UndoneRemovals(self.ask, self.ask_all, self.clock, MAX_UNDONE)
        self.removals.task.start()
        self.addCleanup(self.removals.task.stop)

    async def ask(self, keys: Sequence[str]) -> int:
        if self.away:
            raise RedisUnavailable("It is away.")
        self.asked.append((list(keys), Deferred()))
        return await self.asked[-1][1]

    async def ask_all(self) -> int:
        return await self.ask(["*"])

    def begin(self, key: str) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.removals.remove(key))

    def pass_time(self) -> None:
        self.clock.advance(RETRY_INTERVAL_SECONDS)

    def test_done_at_once(self) -> None:
        """Nothing is read of the key meanwhile, and everything afterwards."""
        begun = self.begin("k")
        self.assertEqual((self.removals.cover("k"), self.removals.cover("other")), (True, False))
        self.asked[0][1].callback(1)
        self.assertIs(self.successResultOf(begun), True)
        self.assertEqual((self.removals.cover("k"), self.removals.delayed, self.removals.pending), (False, 0, 0))

    def test_done_later(self) -> None:
        """Until then nothing is read of the key."""
        self.away = True
        self.assertIs(self.successResultOf(self.begin("k")), False)
        self.pass_time()
        self.assertEqual((self.removals.cover("k"), self.removals.delayed, self.removals.pending), (True, 1, 1))
        self.away = False
        self.pass_time()
        self.assertEqual((self.asked[0][0], self.removals.cover("k")), (["k"], True))
        self.asked[0][1].callback(1)
        self.assertEqual((self.removals.cover("k"), self.removals.delayed, self.removals.pending), (False, 1, 0))

    def test_two_of_one_key(self) -> None:
        """That the first is done says nothing of the second."""
        first, second = self.begin("k"), self.begin("k")
        self.asked[0][1].callback(1)
        self.assertTrue(self.removals.cover("k"))
        self.asked[1][1].errback(RedisUnavailable("It did not answer."))
        self.pass_time()
        third = self.begin("k")
        self.asked[2][1].callback(1)
        self.assertTrue(self.removals.cover("k"))
        self.asked[3][1].callback(0)
        self.assertFalse(self.removals.cover("k"))
        self.assertEqual([self.successResultOf(each) for each in (first, second, third)], [True, False, False])

    def test_many(self) -> None:
        """They go together."""
        self.away = True
        for number in range(250):
            self.begin(str(number))
        self.away = False
        self.pass_time()
        for at in range(3):
            self.asked[at][1].callback(1)
        self.assertEqual([len(keys) for keys, _ in self.asked], [100, 100, 50])
        self.assertEqual((self.removals.pending, self.removals.delayed), (0, 250))

    def test_too_many(self) -> None:
        """Beyond a bound nothing is read until everything is removed."""
        self.away = True
        for number in range(2 * MAX_UNDONE):
            self.begin(str(number))
        self.assertEqual((self.removals.pending, self.removals.delayed), (MAX_UNDONE, 2 * MAX_UNDONE))
        self.assertTrue(self.removals.cover("any"))
        self.away = False
        self.pass_time()
        self.away = True
        for number in range(2 * MAX_UNDONE):
            self.begin(f"meanwhile {number}")
        self.away = False
        self.asked.pop()[1].callback(99)
        self.assertTrue(self.removals.cover("any"))  # again too many since that was begun
        while self.removals.pending:
            self.pass_time()
            self.asked.pop()[1].callback(99)
        self.assertFalse(self.removals.cover("any"))
        self.assertEqual(self.removals.delayed, 4 * MAX_UNDONE)
