"""Each kind of the store's work waits for its own kind."""

from __future__ import annotations

import threading

from twisted.trial.unittest import TestCase

from llmproxy.store.thread_pools import ThreadPools


class LanesTests(TestCase):
    async def test_none_waits_for_another(self) -> None:
        """All of them but one are stuck: the one goes on."""
        from twisted.internet import reactor

        for at in range(7):
            lanes = ThreadPools(reactor, 2, 10, one_writer=True)
            lanes.start()
            gate = threading.Event()
            try:
                free = lanes.all[at]
                stuck = [each.run(gate.wait) for each in lanes.all if each is not free for _ in range(3)]
                self.assertEqual(await free.run(lambda: "done"), "done")
            finally:
                gate.set()
            for each in stuck:
                each.addErrback(lambda _: None)
                await each
            await lanes.stop()

    def test_a_connection_for_everybody(self) -> None:
        """No thread waits for a connection; exports have theirs besides."""
        from twisted.internet import reactor

        for one_writer in (True, False):
            lanes = ThreadPools(reactor, 4, 10, one_writer=one_writer)
            self.assertEqual(lanes.connections, sum(each.size for each in lanes.all) + 2)
