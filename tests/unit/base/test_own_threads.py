"""Threads of one's own, for what blocks."""

from __future__ import annotations

from threading import Event, current_thread
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

from llmproxy.base.own_threads import OwnThreads, StillBusy


class OwnThreadsTests(TestCase):
    def test_result_and_error(self) -> None:
        """What the call returns or raises arrives here; the thread is one that nobody waits for."""
        threads = OwnThreads(reactor, "own")

        async def both() -> None:
            self.assertEqual(await threads.call(divmod, 7, 2), (3, 1))
            self.assertTrue(await threads.call(lambda: current_thread().daemon))
            with self.assertRaises(ZeroDivisionError):
                await threads.call(divmod, 1, 0)

        return Deferred.fromCoroutine(both())  # type: ignore[return-value]

    def test_one_that_hangs(self) -> None:
        """Those behind it wait, within bounds; who gave up waiting is not served."""
        threads = OwnThreads(reactor, "own", waiting=2)
        going_on, made = Event(), []
        first = threads.call(going_on.wait, 30)
        given_up: Deferred[Any] = threads.call(made.append, "given up")
        given_up.cancel()
        self.failureResultOf_(given_up, CancelledError)
        last = threads.call(made.append, "last")

        async def goes_on() -> None:
            with self.assertRaises(StillBusy) as caught:
                await threads.call(made.append, "too many")
            self.assertIsInstance(caught.exception, OSError)
            going_on.set()
            await first
            await last
            self.assertEqual(made, ["last"])

        return Deferred.fromCoroutine(goes_on())  # type: ignore[return-value]

    def failureResultOf_(self, failed: Deferred[Any], kind: type[BaseException]) -> None:
        caught: list[Any] = []
        failed.addErrback(caught.append)
        self.assertTrue(caught and caught[0].check(kind))
