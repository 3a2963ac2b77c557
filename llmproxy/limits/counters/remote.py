"""What counters that are not in this process have in common: budgets are in the store, all else is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from llmproxy.errors import LimitsUnavailable
from llmproxy.limits.counters.fallback import LocalFallback
from llmproxy.limits.counters.memory import MemoryCounters
from llmproxy.limits.counters.redis_verdicts import RedisTicket, RedisVerdict, combine, with_ticket
from llmproxy.model import Claim, Verdict

NOBODY = ""  # holds what is only looked at


class RemoteCounters(MultiService):
    """Reserves in the store and elsewhere, or in neither.

    @cvar silences: What asking fails with when nobody answers; then each claim goes by its C{on_loss}.
    @ivar local: Counts budgets, and all else while nobody answers.
    """

    silences: ClassVar[tuple[type[Exception], ...]] = ()
    local: MemoryCounters
    _fallback: LocalFallback

    @property
    def is_available(self) -> bool:
        """Whether it is worth while to ask."""
        return True

    def reserve_now(self, claims: Sequence[Claim]) -> Verdict | None:
        if not self.is_available:
            return self._fallback.reserve_now(claims)
        if any(claim.kind != "budget" for claim in claims):
            return None
        return with_ticket(self.local.reserve_now(claims), tuple(range(len(claims))))

    def reserve(self, claims: Sequence[Claim]) -> Deferred[Verdict]:
        """Whoever gives up waiting does not stop what is under way: what is then reserved is given back."""
        answer: Deferred[Verdict] = Deferred()

        def decided(verdict: Verdict) -> None:
            if not answer.called:
                answer.callback(verdict)
            elif verdict.ticket is not None:
                self.settle(verdict.ticket, [0] * len(claims))

        def failed(failure: Failure) -> None:
            if not answer.called:
                answer.errback(failure)

        Deferred.fromCoroutine(self._reserve(claims)).addCallbacks(decided, failed)
        return answer

    async def _reserve(self, claims: Sequence[Claim]) -> Verdict:
        if not self.is_available:
            return await self._fallback.reserve(claims)
        budgets = tuple([place for place, claim in enumerate(claims) if claim.kind == "budget"])
        shared = tuple([place for place, claim in enumerate(claims) if claim.kind != "budget"])
        held = await self.local.reserve([claims[place] for place in budgets]) if budgets else Verdict()
        if not shared:
            return with_ticket(held, budgets) or held
        # Where a budget refuses it is only asked whether a limit before it does too, and how the others stand.
        holder = self._new_holder() if held.refused is None else NOBODY
        wanted = tuple([claims[place] for place in shared])
        failures: tuple[type[Exception], ...] = (*self.silences, LimitsUnavailable)
        try:
            answer = await self._ask(holder, wanted)
        except failures as e:
            self._let_go(held, len(budgets))
            if isinstance(e, LimitsUnavailable):
                raise
            self._unanswered(holder, wanted)
            return await self._fallback.reserve(claims)
        if holder and answer.refused is None:
            ticket = RedisTicket(held.ticket, budgets, holder, answer.slot, wanted, shared)
            self._taken(ticket, answer)
        else:
            self._let_go(held, len(budgets))
            ticket = None
        return combine(claims, held, budgets, answer, shared, ticket)

    def _let_go(self, held: Verdict, budgets: int) -> None:
        if held.ticket is not None:
            self.local.settle(held.ticket, [0] * budgets)

    # What is different

    def settle(self, ticket: RedisTicket, amounts: Sequence[int], *, measured: bool = True) -> None:
        raise NotImplementedError

    def _new_holder(self) -> str:
        """A name for what is reserved, as no other reservation has it."""
        raise NotImplementedError

    async def _ask(self, holder: str, claims: Sequence[Claim]) -> RedisVerdict:
        """Reserve it there for this holder, or look where that is L{NOBODY}."""
        raise NotImplementedError

    def _taken(self, ticket: RedisTicket, answer: RedisVerdict) -> None:
        """It was reserved."""

    def _unanswered(self, holder: str, claims: Sequence[Claim]) -> None:
        """Nobody knows whether it was."""
