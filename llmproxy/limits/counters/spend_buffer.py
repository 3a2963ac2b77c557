"""What was spent of budgets that are counted elsewhere, kept in the store too."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from llmproxy.aio import deferred, soon
from llmproxy.errors import LimitsUnavailable
from llmproxy.interfaces import IBudgetStore
from llmproxy.model import Claim


class Spending:
    """Adds up by budget, and hands over in batches. What the store did not confirm it is told again.

    It may have taken it all the same: so in an outage the store can have more than was spent, never less.
    """

    _log = Logger()
    _BATCH = 500

    def __init__(self, store: IBudgetStore) -> None:
        self._store = store
        self._amounts: dict[str, tuple[int, float]] = {}
        self._saving = False

    def add(self, claim: Claim, amount: int) -> None:
        if amount:
            known, _ = self._amounts.get(claim.key, (0, 0.0))
            self._amounts[claim.key] = (known + amount, claim.ends)

    @deferred
    async def save(self) -> None:
        """Hand over what was added so far; never fails."""
        if not self._amounts or self._saving:
            return
        self._saving = True
        try:
            while batch := dict(islice(self._amounts.items(), self._BATCH)):
                for key in batch:
                    del self._amounts[key]
                if not await self._taken(batch):
                    return
        finally:
            self._saving = False

    async def _taken(self, batch: dict[str, tuple[int, float]]) -> bool:
        try:
            await soon(self._store.charge_budgets(batch))
        except Exception as e:
            for key, (amount, ends) in batch.items():
                self._amounts[key] = (self._amounts.get(key, (0, 0.0))[0] + amount, ends)
            if isinstance(e, CancelledError):
                raise
            self._log.warn(
                "What was spent of {count} budgets is not stored yet: {error}", count=len(batch), error=str(e)
            )
            return False
        return True

    async def known(self, keys: Sequence[str]) -> dict[str, int]:
        """What was spent by key, with what the store has not heard of yet. L{LimitsUnavailable} where it is away."""
        try:
            stored = await soon(self._store.budgets_spent(keys))
        except CancelledError:
            raise
        except Exception as e:
            raise LimitsUnavailable from e
        return {key: stored.get(key, 0) + self._amounts.get(key, (0, 0.0))[0] for key in keys}
