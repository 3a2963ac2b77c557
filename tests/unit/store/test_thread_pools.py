"""Each kind of the store's work waits for its own kind."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from llmproxy.errors import StoreUnavailable
from llmproxy.store.thread_pools import StoreThreads, ThreadPools


class ThreadPoolsTests(TestCase):
    async def test_none_waits_for_another(self) -> None:
        """All of them but one are stuck: the one goes on."""
        from twisted.internet import reactor

        for at in range(7):
            pools = ThreadPools(reactor, 2, 10, one_writer=True)
            pools.start()
            gate = threading.Event()
            try:
                free = pools.all[at]
                stuck = [each.call(gate.wait) for each in pools.all if each is not free for _ in range(3)]
                self.assertEqual(await free.call(lambda: "done"), "done")
            finally:
                gate.set()
            for each in stuck:
                each.addErrback(lambda _: None)
                await each
            await pools.stop()

    def test_a_connection_for_everybody(self) -> None:
        """No thread waits for a connection; exports have theirs besides."""
        from twisted.internet import reactor

        for one_writer in (True, False):
            pools = ThreadPools(reactor, 4, 10, one_writer=one_writer)
            self.assertEqual(pools.connections, sum(each.size for each in pools.all) + 2)

    def test_connections_to_a_server_are_documented(self) -> None:
        """Whoever sizes a database server reads how many there may be."""
        pools = ThreadPools(Clock(), 4, 10, one_writer=False)
        page = (Path(__file__).parents[3] / "docs" / "settings.md").read_text("utf-8")
        self.assertIn(f"up to {pools.connections} connections to PostgreSQL", page)


class StoreThreadsTests(TestCase):
    def setUp(self) -> None:
        from twisted.internet import reactor

        self.threads = StoreThreads(reactor, "test", size=1, waiting=2)
        self.threads.start()
        self.addCleanup(self.threads.stop)
        self.gate = threading.Event()
        self.addCleanup(self.gate.set)

    def blocked(self) -> Any:
        return self.threads.call(self.gate.wait)

    async def test_an_answer(self) -> None:
        self.assertNotEqual(await self.threads.call(threading.get_ident), threading.get_ident())

    async def test_a_failure(self) -> None:
        await self.assertFailure(self.threads.call(lambda: 1 // 0), ZeroDivisionError)

    async def test_a_full_queue(self) -> None:
        """One at work and two waiting are all it takes; when they are done there is room again."""
        taken = [self.blocked() for _ in range(3)]
        self.failureResultOf(self.blocked(), StoreUnavailable)
        self.gate.set()
        for each in taken:
            await each
        await self.threads.call(int)

    async def test_given_up_before_its_turn(self) -> None:
        """Nobody waits for it any more, so it is not done."""
        done: list[int] = []
        blocked = self.blocked()
        waiting = self.threads.call(lambda: done.append(1))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.gate.set()
        await blocked
        await self.threads.call(int)
        self.assertEqual(done, [])

    async def test_given_up_while_at_work(self) -> None:
        """Its place is taken until it is really done, and its answer goes nowhere."""
        started = threading.Event()

        def work() -> bool:
            started.set()
            return self.gate.wait()

        working = self.threads.call(work)
        started.wait(10)
        working.cancel()
        self.failureResultOf(working, CancelledError)
        waiting = [self.threads.call(int) for _ in range(2)]
        self.failureResultOf(self.threads.call(int), StoreUnavailable)
        self.gate.set()
        for each in waiting:
            await each

    async def test_stopping_finishes_what_was_taken(self) -> None:
        taken = [self.blocked(), self.threads.call(lambda: "done")]
        stopped = self.threads.stop()
        self.failureResultOf(self.threads.call(int), StoreUnavailable)
        self.assertNoResult(stopped)
        self.gate.set()
        await stopped
        self.assertEqual(await taken[1], "done")

    async def test_starting_again(self) -> None:
        await self.threads.stop()
        await self.threads.stop()
        self.threads.start()
        self.assertEqual(await self.threads.call(lambda: 1), 1)
