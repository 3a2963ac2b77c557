"""Blocking work is done elsewhere, within bounds."""

from __future__ import annotations

import threading
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import TestCase

from llmproxy.errors import StoreUnavailable
from llmproxy.store.threads import Threads


class ThreadsTests(TestCase):
    def setUp(self) -> None:
        from twisted.internet import reactor

        self.threads = Threads(reactor, "test", 1, 2)
        self.threads.start()
        self.addCleanup(self.threads.stop)
        self.gate = threading.Event()
        self.addCleanup(self.gate.set)

    def blocked(self) -> Any:
        return self.threads.run(self.gate.wait)

    async def test_an_answer(self) -> None:
        self.assertNotEqual(await self.threads.run(threading.get_ident), threading.get_ident())

    async def test_a_failure(self) -> None:
        await self.assertFailure(self.threads.run(lambda: 1 // 0), ZeroDivisionError)

    async def test_a_full_queue(self) -> None:
        """One at work and two waiting are all it takes; when they are done there is room again."""
        taken = [self.blocked() for _ in range(3)]
        self.failureResultOf(self.blocked(), StoreUnavailable)
        self.gate.set()
        for each in taken:
            await each
        await self.threads.run(int)

    async def test_given_up_before_its_turn(self) -> None:
        """Nobody waits for it any more, so it is not done."""
        done: list[int] = []
        blocked = self.blocked()
        waiting = self.threads.run(lambda: done.append(1))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.gate.set()
        await blocked
        await self.threads.run(int)
        self.assertEqual(done, [])

    async def test_given_up_while_at_work(self) -> None:
        """Its place is taken until it is really done, and its answer goes nowhere."""
        started = threading.Event()

        def work() -> bool:
            started.set()
            return self.gate.wait()

        working = self.threads.run(work)
        started.wait(10)
        working.cancel()
        self.failureResultOf(working, CancelledError)
        waiting = [self.threads.run(int) for _ in range(2)]
        self.failureResultOf(self.threads.run(int), StoreUnavailable)
        self.gate.set()
        for each in waiting:
            await each

    async def test_stopping_finishes_what_was_taken(self) -> None:
        taken = [self.blocked(), self.threads.run(lambda: "done")]
        stopped = self.threads.stop()
        self.failureResultOf(self.threads.run(int), StoreUnavailable)
        self.assertNoResult(stopped)
        self.gate.set()
        await stopped
        self.assertEqual(await taken[1], "done")

    async def test_starting_again(self) -> None:
        await self.threads.stop()
        await self.threads.stop()
        self.threads.start()
        self.assertEqual(await self.threads.run(lambda: 1), 1)
