"""What counters that are not in this process have in common: budgets are in the store, all else is asked for."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from itertools import count
from typing import Any, ClassVar

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from llmproxy.base.coroutines import deferred
from llmproxy.errors import LimitsUnavailable
from llmproxy.limits.counted import CountedLimits, LimitsWaiter
from llmproxy.limits.counters.fallback import LocalFallback
from llmproxy.limits.counters.memory import MemoryCounters
from llmproxy.limits.counters.ready_limits import TakenLimits
from llmproxy.limits.counters.remote_limits import (
    LOOK,
    TAKEN_SECONDS,
    RemoteAnswer,
    RemoteLimits,
    RemoteQuestion,
    RemoteTicket,
    UseQuestion,
    remote_limits,
)
from llmproxy.model import Claim, Verdict

_new = tuple.__new__  # makes a NamedTuple in a third of the time that a call of its class takes


class RemoteCounters(MultiService):
    """Reserves in the store and elsewhere, or in neither.

    @cvar silences: What asking fails with when nobody answers; then each claim goes by its C{on_loss}.
    @ivar local: Counts budgets, and all else while nobody answers.
    """

    silences: ClassVar[tuple[type[Exception], ...]] = ()
    local: MemoryCounters
    _fallback: LocalFallback
    _log: ClassVar[Logger]

    def __init__(self) -> None:
        MultiService.__init__(self)
        self._numbers = count(LOOK + 1)

    @property
    def is_available(self) -> bool:
        """Whether it is worth while to ask."""
        return True

    def reserve_now(self, claims: Sequence[Claim]) -> Verdict | None:
        if not self.is_available:
            return self._fallback.decide(CountedLimits.of(claims), [claim.amount for claim in claims])
        if any(claim.kind != "budget" for claim in claims):
            return None
        return _with_ticket(self.local.reserve_now(claims))

    def reserve(self, claims: Sequence[Claim]) -> Deferred[Verdict]:
        """Whoever gives up waiting does not stop what is under way: what is then reserved is given back."""
        waiter = _VerdictWaiter(self, claims)
        self.begin(waiter)
        return waiter.verdict

    def begin(self, waiter: LimitsWaiter) -> None:
        if not self.is_available:
            self._decide_alone(waiter)
            return
        limits, held = waiter.limits.elsewhere or remote_limits(waiter.limits), None
        if limits.budgets is not None:
            held = self.local.take(limits.budgets, waiter.amounts)
            if held is None:
                _start(self._reserve_budgets(waiter, limits), waiter)
                return
        question = ReservationQuestion(self, waiter, limits, next(self._numbers), held)
        if limits.limits:
            self._ask(question)
        else:
            self._go_on(question)

    async def _reserve_budgets(self, waiter: LimitsWaiter, limits: RemoteLimits) -> None:
        assert limits.budgets is not None
        verdict = await self.local.reserve_of(limits.budgets, waiter.amounts)
        # Where a budget refuses it is only asked whether a limit before it does too, and how the others stand.
        if verdict.refused is None:
            self._go_on(ReservationQuestion(self, waiter, limits, next(self._numbers), verdict.ticket))
        else:
            self._go_on(ReservationQuestion(self, waiter, limits, LOOK, None, verdict))

    def _go_on(self, question: ReservationQuestion) -> None:
        if question.limits.limits:
            self._ask(question)
        else:
            question.number = LOOK
            question.take_answer(_NOTHING_ELSEWHERE)

    def _decide_alone(self, waiter: LimitsWaiter) -> None:
        """As nobody answers."""
        verdict = self._fallback.decide(waiter.limits, waiter.amounts)
        if verdict is not None:
            self._tell(waiter, verdict)
        else:
            _start(self._reserve_alone(waiter), waiter)

    async def _reserve_alone(self, waiter: LimitsWaiter) -> None:
        self._tell(waiter, await self._fallback.reserve(waiter.limits, waiter.amounts))

    def ask_again(self, question: ReservationQuestion) -> None:
        """Others have decided, and are to decide once more."""
        self._ask(question)

    def conclude(self, question: ReservationQuestion, answer: RemoteAnswer) -> None:
        """Those who count have decided."""
        waiter, limits, refusal = question.waiter, question.limits, question.refusal
        claims = waiter.limits.claims
        remaining, resets = [0] * len(claims), [0.0] * len(claims)
        for place, used, reset in zip(limits.places, answer.used, answer.resets, strict=True):
            left = claims[place].limit - used
            remaining[place], resets[place] = left if left > 0 else 0, reset
        for place in limits.budget_places:
            remaining[place] = self.local.budget_left(claims[place])
        refused = wait = ticket = None
        if answer.refused is not None:
            refused, wait = limits.places[answer.refused], answer.wait
        if refusal is not None and refusal.refused is not None:
            place = limits.budget_places[refusal.refused]
            if refused is None or place < refused:  # the first that refuses is named
                refused, wait = place, refusal.wait
        if refused is None:
            ticket = RemoteTicket(question.held, limits, question.amounts, question.number, answer.slot)
            if question.number:
                self.note(ticket)
        else:
            self._let_go(question.held)
        self._tell(waiter, Verdict(refused, wait, False, tuple(remaining), tuple(resets), ticket))

    def go_without(self, question: ReservationQuestion, error: BaseException) -> None:
        """They have not."""
        self._let_go(question.held)
        if isinstance(error, self.silences):
            if question.number:
                self._forget(question)
            self._decide_alone(question.waiter)
        else:
            question.waiter.failed(error)

    def _tell(self, waiter: LimitsWaiter, verdict: Verdict) -> None:
        try:
            waiter.decided(verdict)
        except Exception:  # there are others to be told
            self._log.failure("A request was not told that its limits were decided.")

    def _let_go(self, held: TakenLimits | None) -> None:
        if held is not None:
            self.local.settle(held, [0] * len(held.amounts))

    @deferred
    async def used(self, claims: Sequence[Claim]) -> list[int]:
        claims = [claim._replace(amount=0) for claim in claims]
        counted: dict[int, int] = {}
        budgets = [place for place, claim in enumerate(claims) if claim.kind == "budget"]
        shared = [place for place, claim in enumerate(claims) if claim.kind != "budget"]
        if budgets:
            counted.update(zip(budgets, await self.local.used([claims[p] for p in budgets]), strict=True))
        if shared:
            try:
                looked = await self.look([claims[place] for place in shared])
            except self.silences as e:
                raise LimitsUnavailable from e
            counted.update(zip(shared, looked, strict=True))
        return [counted[place] for place in range(len(claims))]

    def look(self, claims: Sequence[Claim]) -> Deferred[Sequence[int]]:
        """What is used of these, which are no budgets."""
        question = UseQuestion(claims)
        self._ask(question)
        return question.used

    # What is different

    def settle(self, ticket: RemoteTicket, amounts: Sequence[int], *, measured: bool = True) -> None:
        raise NotImplementedError

    def _ask(self, question: RemoteQuestion) -> None:
        """Reserve it there, or look, and tell the question."""
        raise NotImplementedError

    def note(self, ticket: RemoteTicket) -> None:
        """It was reserved."""

    def _forget(self, question: RemoteQuestion) -> None:
        """Nobody knows whether it was."""


class ReservationQuestion(RemoteQuestion):
    """One request.

    @ivar held: What is held of budgets for it; C{refusal}: why it is not.
    @ivar was_refused: Whether a limit of what is held at once has refused it, and it has been asked for once more.
    """

    __slots__ = ("_counters", "held", "refusal", "waiter", "was_refused")

    def __init__(
        self,
        counters: RemoteCounters,
        waiter: LimitsWaiter,
        limits: RemoteLimits,
        number: int,
        held: TakenLimits | None,
        refusal: Verdict | None = None,
    ) -> None:
        # Not by the base's, as each request passes here.
        self.limits, self.amounts, self.number, self.puts_back = limits, waiter.amounts, number, False
        self.was_refused = False
        self._counters = counters
        self.waiter = waiter
        self.held = held
        self.refusal = refusal

    def take_grant(self, slot: int, used: Sequence[int]) -> None:
        limits = self.limits
        if self.waiter.needs_verdict:
            self.take_answer(RemoteAnswer(None, None, slot, used, limits.taken_resets))
            return
        ticket = _new(RemoteTicket, (self.held, limits, self.amounts, self.number, slot))
        self._counters.note(ticket)
        self.waiter.grant(ticket, [limit - used[place] for place, limit in limits.rates_left], TAKEN_SECONDS)

    def take_answer(self, answer: RemoteAnswer) -> None:
        """Where others hold all that can be held at once, one of them may have let go of it just before: its client
        goes on when that is on its way, and what two processes say at one time is heard in any order."""
        refused = answer.refused
        if refused is not None and self.number and not self.was_refused and not self.limits.limits[refused][3]:
            self.was_refused = True
            self._counters.ask_again(self)
        else:
            self._counters.conclude(self, answer)

    def take_failure(self, error: BaseException) -> None:
        self._counters.go_without(self, error)


class _VerdictWaiter:
    """Waits for a verdict by a Deferred."""

    needs_verdict: ClassVar[bool] = True

    def __init__(self, counters: RemoteCounters, claims: Sequence[Claim]) -> None:
        self.limits = CountedLimits.of(claims)
        self.amounts = [claim.amount for claim in claims]
        self.verdict: Deferred[Verdict] = Deferred()
        self._counters = counters

    def grant(self, ticket: Any, left: Sequence[int], reset: float) -> None:
        raise AssertionError("It needs a verdict.")

    def decided(self, verdict: Verdict) -> None:
        if not self.verdict.called:
            self.verdict.callback(verdict)
        elif verdict.ticket is not None:
            self._counters.settle(verdict.ticket, [0] * len(self.amounts))

    def failed(self, error: BaseException) -> None:
        if not self.verdict.called:
            self.verdict.errback(error)


_NOTHING_ELSEWHERE = RemoteAnswer(None, None, 0, (), ())


def _with_ticket(verdict: Verdict | None) -> Verdict | None:
    """A verdict on budgets alone, with a ticket of ours."""
    if verdict is None or verdict.ticket is None:
        return verdict
    return verdict._replace(ticket=RemoteTicket(verdict.ticket))


def _start(reserving: Coroutine[Deferred[Any], Any, None], waiter: LimitsWaiter) -> None:
    """Go on with what takes its time, and tell the waiter where it fails."""

    def failed(failure: Failure) -> None:
        waiter.failed(failure.value or LimitsUnavailable())

    Deferred.fromCoroutine(reserving).addErrback(failed)
