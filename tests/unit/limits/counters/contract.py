"""What all counters must do, wherever they count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from zope.interface.verify import verifyObject

from llmproxy.base.coroutines import as_deferred
from llmproxy.interfaces import ICounters
from llmproxy.model import Claim, Verdict


def rate(limit: int, amount: int = 1, key: str = "rate", on_loss: str = "closed") -> Claim:
    return Claim(key, "rate", limit, amount, 0.0, on_loss)


def lease(limit: int, key: str = "lease", on_loss: str = "closed") -> Claim:
    return Claim(key, "lease", limit, 1, 0.0, on_loss)


def budget(limit: int, amount: int, key: str = "budget:lifetime", on_loss: str = "closed") -> Claim:
    return Claim(key, "budget", limit, amount, 0.0, on_loss)


class CountersContract:
    """Mixed into a trial C{TestCase}, whose C{counters()} are fresh in each test."""

    assertEqual: Any
    assertTrue: Any
    assertIsNone: Any
    assertIsNotNone: Any
    assertLessEqual: Any
    assertGreater: Any
    made: ICounters

    async def reserve(self, *claims: Claim, by: ICounters | None = None) -> Verdict:
        counters = by or self.made
        verdict = counters.reserve_now(claims)
        return await counters.reserve(claims) if verdict is None else verdict

    async def granted(self, *claims: Claim) -> Any:
        """The ticket of claims that must be granted."""
        verdict = await self.reserve(*claims)
        self.assertIsNone(verdict.refused)
        return verdict.ticket

    async def settle(self, ticket: Any, amounts: Sequence[int]) -> None:
        """Settle, and wait until that has been heard wherever it is counted."""
        self.made.settle(ticket, amounts)
        await self.pause()

    async def used(self, *claims: Claim) -> list[int]:
        return await self.made.used(claims)

    async def test_provides_the_promise(self) -> None:
        verifyObject(ICounters, self.made)

    async def test_a_rate(self) -> None:
        """As many as the limit says, then a refusal that tells how long to wait."""
        for left in (2, 1, 0):
            verdict = await self.reserve(rate(3))
            self.assertEqual((verdict.refused, verdict.remaining), (None, (left,)))
            self.assertTrue(59.0 < verdict.resets[0] <= 60.2, verdict.resets)
        verdict = await self.reserve(rate(3))
        self.assertEqual((verdict.refused, verdict.remaining, verdict.ticket), (0, (0,), None))
        self.assertTrue(verdict.wait is not None and 50.0 < verdict.wait <= 60.2, verdict.wait)

    async def test_a_request_that_alone_is_more_than_a_rate(self) -> None:
        """It is let through where nothing else was: else it never could."""
        await self.granted(rate(100, 5000))
        self.assertEqual((await self.reserve(rate(100, 1))).refused, 0)

    async def test_what_claimed_more_than_a_rate_and_took_less(self) -> None:
        """Counts with what it took, and so does one that took more than all of it."""
        for amount in (30, 5001):
            key = f"took {amount}"
            ticket = await self.granted(rate(100, 5000, key))
            self.assertEqual(await self.used(rate(100, key=key)), [100])
            await self.settle(ticket, [amount])
            self.assertEqual(await self.used(rate(100, key=key)), [amount])

    async def test_less_was_taken_than_claimed(self) -> None:
        ticket = await self.granted(rate(100, 90), budget(100, 90))
        self.assertEqual((await self.reserve(rate(100, 20), budget(100, 5))).refused, 0)
        await self.settle(ticket, [10, 10])
        ticket = await self.granted(rate(100, 90), budget(100, 90))
        await self.settle(ticket, [90, 90])
        self.assertEqual(await self.used(rate(100), budget(100, 1)), [100, 100])

    async def test_more_was_taken_than_claimed(self) -> None:
        """What nobody could know is charged all the same."""
        ticket = await self.granted(rate(100, 10), budget(100, 10))
        await self.settle(ticket, [500, 150])
        self.assertEqual(await self.used(rate(100), budget(100, 1)), [500, 150])
        self.assertEqual((await self.reserve(budget(100, 1))).refused, 0)

    async def test_given_back(self) -> None:
        """A request that was not made has used nothing."""
        ticket = await self.granted(lease(1), rate(1), budget(10, 10))
        await self.settle(ticket, [0, 0, 0])
        await self.granted(lease(1), rate(1), budget(10, 10))

    async def test_leases(self) -> None:
        first = await self.granted(lease(2))
        await self.granted(lease(2))
        verdict = await self.reserve(lease(2))
        self.assertEqual((verdict.refused, verdict.wait), (0, 1.0))
        await self.settle(first, [1])
        await self.granted(lease(2))

    async def test_a_budget(self) -> None:
        for _ in range(4):
            await self.granted(budget(100, 25))
        self.assertEqual((await self.reserve(budget(100, 1))).refused, 0)
        self.assertEqual(await self.used(budget(100, 1)), [100])

    async def test_a_budget_that_is_used_up_refuses_also_who_claims_nothing(self) -> None:
        """What a request costs at most is not always known; what is left is."""
        for overspent in (0, 7):
            key = f"spent{overspent}"
            ticket = await self.granted(budget(100, 40, key))
            await self.granted(budget(100, 0, key))
            await self.settle(ticket, [100 + overspent])
            for amount in (0, 1):
                verdict = await self.reserve(budget(100, amount, key))
                self.assertEqual((verdict.refused, verdict.remaining, verdict.ticket), (0, (0,), None))
            self.assertEqual(await self.used(budget(100, 0, key)), [100 + overspent])

    async def test_who_claims_nothing_of_what_is_left(self) -> None:
        """It passes as long as there is something, also where all of the rest is claimed by others, but not beyond."""
        for _ in range(5):
            await self.settle(await self.granted(budget(100, 0)), [19])
        await self.settle(await self.granted(budget(100, 5)), [4])
        await self.settle(await self.granted(budget(100, 0)), [1])
        self.assertEqual((await self.reserve(budget(100, 0))).refused, 0)

    async def test_a_budget_of_which_some_may_come_back(self) -> None:
        """Who is refused for what others have only claimed is told to come again soon; else nobody knows when."""
        held = await self.granted(budget(100, 60))
        self.assertEqual((await self.reserve(budget(100, 60))).wait, 1.0)
        self.assertIsNone((await self.reserve(budget(100, 101))).wait)
        await self.settle(held, [50])
        verdict = await self.reserve(budget(100, 60))
        self.assertEqual((verdict.refused, verdict.wait), (0, None))

    async def test_a_small_request_where_a_large_one_was_refused(self) -> None:
        await self.granted(budget(100, 60))
        self.assertEqual((await self.reserve(budget(100, 41))).refused, 0)
        await self.granted(budget(100, 40))

    async def test_a_budget_is_raised_and_lowered(self) -> None:
        await self.granted(budget(100, 100))
        self.assertEqual((await self.reserve(budget(100, 1))).refused, 0)
        await self.granted(budget(200, 50))
        self.assertEqual((await self.reserve(budget(140, 1))).refused, 0)

    async def test_all_or_none(self) -> None:
        """What the last of the limits refuses none of the others is charged with."""
        await self.granted(budget(10, 10))
        for _ in range(3):
            verdict = await self.reserve(lease(1), rate(1), budget(10, 1))
            self.assertEqual(verdict.refused, 2)
        self.assertEqual(await self.used(lease(1), rate(1), budget(10, 1)), [0, 0, 10])
        await self.granted(lease(1), rate(1))

    async def test_the_first_that_refuses_is_named(self) -> None:
        await self.granted(lease(1), rate(1), budget(1, 1))
        self.assertEqual((await self.reserve(lease(1), rate(1), budget(1, 1))).refused, 0)
        self.assertEqual((await self.reserve(rate(1), budget(1, 1))).refused, 0)

    async def test_limits_are_apart(self) -> None:
        await self.granted(rate(1, key="a"), lease(1, key="b"), budget(1, 1, key="c"))
        await self.granted(rate(1, key="A"), lease(1, key="B"), budget(1, 1, key="C"))

    async def test_many_at_once(self) -> None:
        """Five hundred at once, each for a part of what is left: never more than all of it, and no part left over."""
        verdicts = await gatherResults([as_deferred(self.reserve(budget(1000, 10), rate(400))) for _ in range(500)])
        self.assertEqual(sum(verdict.refused is None for verdict in verdicts), 100)
        self.assertEqual(await self.used(budget(1000, 1), rate(400)), [1000, 100])

    async def test_large_numbers(self) -> None:
        """A million dollars, to the billionth."""
        limit = 10**15
        ticket = await self.granted(budget(limit, limit - 1))
        await self.granted(budget(limit, 1))
        self.assertEqual((await self.reserve(budget(limit, 1))).refused, 0)
        await self.settle(ticket, [limit - 2])
        await self.granted(budget(limit, 1))
        self.assertEqual(await self.used(budget(limit, 1)), [limit])

    async def test_nothing_is_used_by_looking(self) -> None:
        claims: Sequence[Claim] = [rate(5), lease(5), budget(5, 5)]
        for _ in range(3):
            self.assertEqual(await self.used(*claims), [0, 0, 0])

    async def test_a_client_that_leaves_while_it_is_asked(self) -> None:
        """Nothing stays reserved for it."""
        claims = [lease(1), budget(10, 10)]
        asking: Deferred[Verdict] = as_deferred(self.made.reserve(claims))
        asking.addCallbacks(lambda verdict: self.made.settle(verdict.ticket, [0, 0]), lambda failure: None)
        asking.cancel()
        await self.later(lambda: self.reserve(*claims))

    async def later(self, attempt: Any) -> None:
        """Try until it is granted."""
        for _ in range(100):
            if (await attempt()).refused is None:
                return
            await self.pause()
        raise AssertionError("it was never granted")

    async def pause(self) -> None:
        raise NotImplementedError
