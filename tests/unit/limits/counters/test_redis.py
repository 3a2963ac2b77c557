"""Counters in a real Redis, which is also taken away."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from random import random
from typing import ClassVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from llmproxy import plugins
from llmproxy.config.model import Redis as RedisSettings
from llmproxy.errors import LimitsUnavailable
from llmproxy.interfaces import ICountersFactory
from llmproxy.limits.counters.budget_store import MemoryBudgetStore
from llmproxy.limits.counters.redis import RedisCounters
from llmproxy.model import Claim
from llmproxy.redis import connect
from tests.support.redis_server import RedisServer
from tests.unit.limits.counters.contract import CountersContract, budget, lease, rate


def soon(seconds: float) -> Deferred[None]:
    return deferLater(reactor, seconds, lambda: None)  # type: ignore[arg-type]


class RedisCase(TestCase):
    server: ClassVar[RedisServer]
    timeout = 60

    @classmethod
    def setUpClass(cls) -> None:
        cls.home = tempfile.TemporaryDirectory()
        cls.server = RedisServer(Path(cls.home.name))
        cls.server.start()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.server.kill()
        cls.home.cleanup()

    async def setUp(self) -> None:
        self.prefix = os.urandom(6).hex() + ":"
        self.budgets = MemoryBudgetStore(reactor.seconds)  # type: ignore[attr-defined]
        self.made = await self.counters()

    async def counters(self, lease: float = 30.0, beat: float = 1.0, timeout: float = 5.0) -> RedisCounters:
        redis = connect(RedisSettings(url=self.server.url), reactor, random, ordered=True)
        process = os.urandom(4).hex()
        made = RedisCounters(
            redis,
            reactor,  # type: ignore[arg-type]
            self.budgets,
            reactor.seconds,  # type: ignore[attr-defined]
            prefix=self.prefix,
            lease=lease,
            process=process,
            timeout=timeout,
            beat=beat,
        )
        made.startService()
        self.addCleanup(made.stopService)
        while not redis.available:
            await soon(0.01)
        return made


class RedisContractTests(CountersContract, RedisCase):
    async def pause(self) -> None:
        await soon(0.02)


class SharedTests(RedisCase):
    async def granted(self, counters: RedisCounters, *claims: Claim) -> bool:
        verdict = counters.reserve_now(claims) or await counters.reserve(claims)
        return verdict.refused is None

    def test_it_is_a_plugin(self) -> None:
        verifyObject(ICountersFactory, plugins.find(ICountersFactory, "redis"))

    async def test_two_processes_share(self) -> None:
        other = await self.counters()
        for claim in (rate(10), lease(10), budget(100, 10)):
            taken = [await self.granted(counters, claim) for counters in [self.made, other] * 8]
            self.assertEqual(taken.count(True), 10)

    async def scripts_run(self) -> int:
        """How many calls of scripts the server has had."""
        stats = (await self.made.redis.call("INFO", "commandstats")).decode()
        return sum(int(count) for count in re.findall(r"cmdstat_eval(?:sha)?:calls=(\d+)", stats))

    async def test_one_call_for_a_turn(self) -> None:
        """All that comes in a turn of the reactor is decided by one call, in its order, and settled by one."""
        await self.granted(self.made, rate(1, key="loads the script"))
        claims = [[rate(200), lease(150)] for _ in range(90)] + [[rate(200, 40)] for _ in range(5)]
        before = await self.scripts_run()
        verdicts = await gatherResults([self.made.reserve(each) for each in claims])
        self.assertEqual(await self.scripts_run() - before, 1)
        self.assertEqual([verdict.refused for verdict in verdicts], [None] * 92 + [0] * 3)
        for verdict, each in zip(verdicts, claims, strict=True):
            if verdict.ticket is not None:
                self.made.settle(verdict.ticket, [1] * len(each))
        await soon(0.05)
        self.assertEqual(await self.made.used([rate(200), lease(150)]), [92, 0])

    async def test_many_in_a_turn(self) -> None:
        """So many that one call would hold Redis for long are several."""
        verdicts = await gatherResults([self.made.reserve([rate(333)]) for _ in range(500)])
        self.assertEqual([verdict.refused for verdict in verdicts].count(None), 333)

    async def test_what_cannot_be_said(self) -> None:
        """Whoever asked is told so; what is asked next is answered."""
        verdict = await self.made.reserve([rate(5)])
        self.made.settle(verdict.ticket, [2**70])
        asked = self.made.reserve([rate(5)])
        with self.assertRaises(OverflowError):
            await asked
        self.assertEqual(self.made.unsettled, 1)
        self.flushLoggedErrors(OverflowError)
        self.assertTrue(await self.granted(self.made, rate(5, key="other")))

    async def test_limits_beyond_all_use(self) -> None:
        verdict = await self.made.reserve([rate(10**30, 10**9), lease(10**30)])
        self.assertIsNone(verdict.refused)
        self.assertEqual(await self.made.used([rate(10**30)]), [10**9])

    async def test_a_lease_is_renewed_while_its_process_lives(self) -> None:
        """It outlives its time by being renewed, and ends by itself when its process is gone."""
        short = await self.counters(lease=0.6, beat=0.1)
        self.assertTrue(await self.granted(short, lease(1)))
        for _ in range(5):
            await soon(0.25)
            self.assertFalse(await self.granted(self.made, lease(1)))
        await short.stopService()
        await soon(0.7)
        self.assertTrue(await self.granted(self.made, lease(1)))

    async def test_what_is_let_go_while_it_is_renewed(self) -> None:
        """It stays free, however often leases are renewed under load."""
        made = await self.counters(lease=0.3, beat=0.001)
        held = [lease(10_000), rate(10**9)]
        for _ in range(60):
            verdicts = await gatherResults([made.reserve(held) for _ in range(120)])
            for number, verdict in enumerate(verdicts):
                made.settle(verdict.ticket, [1, 1])
                if number % 20 == 0:
                    await soon(0)
            self.assertEqual((await made.used(held))[0], 0)

    async def test_processes_are_counted(self) -> None:
        other = await self.counters()
        for counters in (self.made, other):
            counters._renewed = -1e9
            counters._beat()
        await soon(0.05)
        self.assertEqual(other._fallback.processes, 2)

    async def test_keys_expire(self) -> None:
        """Nothing is left behind; budgets are not here."""
        claims = [rate(5), lease(5), budget(5, 1)]
        verdict = await self.made.reserve(claims)
        self.made._beat()
        keys = await self.made.redis.call("KEYS", f"{self.prefix}limits:*")
        names = sorted(key.decode().removeprefix(f"{self.prefix}limits:") for key in keys)
        self.assertEqual(names, ["epoch", "lease", "processes", "rate"])
        self.made.settle(verdict.ticket, [1, 1, 1])
        for key, most in (("rate", 61_000), ("processes", 31_000)):
            self.assertTrue(0 < await self.made.redis.call("PTTL", f"{self.prefix}limits:{key}") <= most)

    async def evict(self, *keys: str) -> None:
        await self.made.redis.call("DEL", *[f"{self.prefix}limits:{key}" for key in keys])

    async def test_a_rate_whose_key_is_gone(self) -> None:
        """What every process has used it puts back before it takes more, each once, however many ask at once."""
        other = await self.counters()
        for counters in [self.made, other] * 4:
            self.assertTrue(await self.granted(counters, rate(10)))
        await self.evict("rate")
        await gatherResults([counters.used([rate(10)]) for counters in [self.made, other] * 10])
        self.assertEqual(await self.made.used([rate(10)]), [8])
        both = [self.granted(counters, rate(10)) for counters in [self.made, other] * 10]
        granted = await gatherResults([Deferred.fromCoroutine(each) for each in both])
        self.assertEqual(granted.count(True), 2)

    async def test_a_rate_whose_key_is_always_gone(self) -> None:
        """A Redis that evicts at once lets no more through than one that does not."""
        granted = 0
        for _ in range(30):
            granted += await self.granted(self.made, rate(10))
            await self.evict("rate", "epoch", "processes")
        self.assertEqual(granted, 10)

    async def test_settled_after_its_key_was_gone(self) -> None:
        """What a request did not take comes back, wherever it is counted by then."""
        first, second = [(await self.made.reserve([rate(100, 40)])).ticket for _ in range(2)]
        await self.evict("rate")
        self.made.settle(first, [10])
        await soon(0.02)
        self.assertEqual(await self.made.used([rate(100)]), [50])
        self.made.settle(second, [20])
        await soon(0.02)
        self.assertEqual(await self.made.used([rate(100)]), [30])

    async def test_leases_whose_key_is_gone(self) -> None:
        """Those that are held are put back before another is given."""
        tickets = [(await self.made.reserve([lease(3)])).ticket for _ in range(2)]
        await self.evict("lease")
        self.assertTrue(await self.granted(self.made, lease(3)))
        self.assertFalse(await self.granted(self.made, lease(3)))
        self.made.settle(tickets[0], [1])
        await soon(0.02)
        self.assertTrue(await self.granted(self.made, lease(3)))

    async def test_everything_is_gone(self) -> None:
        """Within a second every process says what it uses, also one that has nothing to ask."""
        idle = await self.counters(beat=0.1)
        await soon(0.15)
        for _ in range(4):
            self.assertTrue(await self.granted(idle, rate(5), lease(5)))
        await self.made.redis.call("FLUSHALL")
        await soon(0.3)
        self.assertTrue(await self.granted(self.made, rate(5), lease(5)))
        for claim in (rate(5), lease(5)):
            self.assertFalse(await self.granted(self.made, claim))

    async def test_a_window_slides(self) -> None:
        """What a minute has passed over counts no more, to the last slot; the sum is that of the slots."""
        now = reactor.seconds()  # type: ignore[attr-defined]
        slot, key = int(now * 10), f"{self.prefix}limits:rate"
        old = {slot - 650: 3, slot - 601: 4, slot - 598: 5}
        fields = [part for pair in old.items() for part in pair]
        await self.made.redis.call("HSET", key, *fields, "s", 12, "o", slot - 650, "n", slot - 598)
        verdict = await self.made.reserve([rate(6)])
        self.assertEqual((verdict.refused, verdict.remaining), (None, (0,)))
        refused = await self.made.reserve([rate(6)])
        self.assertEqual(refused.refused, 0)
        assert refused.wait is not None
        self.assertTrue(0 < refused.wait <= 0.4, refused.wait)
        await soon(refused.wait + 0.05)
        self.assertIsNone((await self.made.reserve([rate(6)])).refused)


class LossTests(RedisCase):
    @classmethod
    def setUpClass(cls) -> None:
        """Each test has a server of its own, to take away."""

    @classmethod
    def tearDownClass(cls) -> None:
        pass

    async def setUp(self) -> None:
        home = tempfile.TemporaryDirectory()
        self.addCleanup(home.cleanup)
        type(self).server = server = RedisServer(Path(home.name))
        server.start()
        self.addCleanup(server.kill)
        await super().setUp()

    async def lost(self) -> None:
        self.server.kill()
        while self.made.redis.available:
            await soon(0.01)

    async def back(self) -> None:
        self.server.start()
        while not self.made.redis.available:
            await soon(0.02)

    async def test_each_limit_by_its_own_word(self) -> None:
        await self.made.reserve([budget(100, 10, on_loss="local-share")])
        await self.lost()
        for claim, granted in (
            (rate(5, key="a", on_loss="open"), True),
            (rate(5, key="b", on_loss="closed"), False),
            (rate(5, key="c", on_loss="local-share"), True),
            (budget(100, 90, on_loss="local-share"), True),
            (budget(100, 1, on_loss="local-share"), False),
            (budget(100, 1, on_loss="open"), True),
            (budget(100, 1, key="d", on_loss="closed"), False),
        ):
            verdict = self.made.reserve_now([claim]) or await self.made.reserve([claim])
            self.assertEqual(verdict.refused is None, granted, claim)
            self.assertEqual(verdict.lost, claim.on_loss == "closed")
        await self.assertFailure(self.made.used([rate(5)]), LimitsUnavailable)

    async def test_what_was_used_before(self) -> None:
        """A minute holds no more because Redis was lost in it, nor are more let in at once."""
        for claim in (rate(5, on_loss="local-share"), lease(5, on_loss="local-share")):
            for _ in range(3):
                await self.made.reserve([claim])
        await self.lost()
        for claim in (rate(5, on_loss="local-share"), lease(5, on_loss="local-share")):
            verdicts = [await self.made.reserve([claim]) for _ in range(4)]
            self.assertEqual([verdict.refused for verdict in verdicts], [None, None, 0, 0])

    async def test_all_of_a_request(self) -> None:
        """What is open stands between what is not; it is settled in its place."""
        await self.lost()
        share = "local-share"
        claims = [
            rate(1, on_loss="open"),
            lease(1, on_loss=share),
            rate(9, on_loss="open"),
            budget(10, 9, on_loss=share),
        ]
        verdict = await self.made.reserve(claims)
        self.assertEqual((verdict.refused, verdict.remaining), (None, (1, 0, 9, 1)))
        self.made.settle(verdict.ticket, [1, 1, 1, 4])
        self.assertEqual(await self.made.used([budget(10, 1)]), [4])
        self.assertIsNone((await self.made.reserve([lease(1, on_loss=share)])).refused)

    async def test_budgets_do_not_hang_on_it(self) -> None:
        """What was spent before, meanwhile and afterwards is one sum, and what was settled late is settled."""
        claim = budget(100, 50, on_loss="local-share")
        first = (await self.made.reserve([claim, lease(1)])).ticket
        await self.lost()
        second = (await self.made.reserve([claim])).ticket
        self.assertEqual((await self.made.reserve([claim])).refused, 0)
        self.made.settle(first, [30, 1])
        self.assertEqual(len(self.made.owed), 1)
        await self.back()
        self.made._beat()
        self.made.settle(second, [20])
        await soon(0.05)
        self.assertEqual(await self.made.used([claim, lease(1)]), [50, 0])

    async def test_a_redis_that_has_forgotten_everything(self) -> None:
        """Budgets are true all the same, with what requests under way hold."""
        under_way = (await self.made.reserve([budget(100, 30), lease(1)])).ticket
        settled = (await self.made.reserve([budget(100, 50)])).ticket
        self.made.settle(settled, [40])
        await self.lost()
        await self.back()
        verdict = await self.made.reserve([budget(100, 31)])
        self.assertEqual((verdict.refused, verdict.wait), (0, 1.0))
        self.assertEqual((await self.made.reserve([lease(1)])).refused, 0)
        self.made.settle(under_way, [20, 1])
        await soon(0.05)
        self.assertEqual(await self.made.used([budget(100, 1), lease(1)]), [60, 0])

    async def test_a_server_that_hangs(self) -> None:
        """A request waits for its time and no longer, and then goes by the limits' own word."""
        hurried = await self.counters(timeout=0.1)
        self.server.freeze()
        try:
            verdict = await hurried.reserve([rate(5, on_loss="open")])
        finally:
            self.server.thaw()
        self.assertIsNone(verdict.refused)
