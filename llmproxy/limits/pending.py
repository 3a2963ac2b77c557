"""Reservations that others decide on: they are waited for by callbacks, or awaited."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred

from llmproxy.limits.counted import CountedLimits
from llmproxy.model import Verdict

R = TypeVar("R", bound="Returnable")


class Returnable(Protocol):
    """What is held for a request."""

    def give_back(self) -> None: ...


class PendingReservation(Generic[R]):
    """One reservation, until it is decided. Whoever leaves is told nothing; what is then held is given back.

    It is itself what waits for counters elsewhere, so that a request needs no Deferred for it.

    @ivar limits: What it is held to, and C{amounts}: what it may use at most.
    @ivar is_decided: Whether L{reservation} says how.
    """

    __slots__ = ("_admit", "_cancel", "_error", "_fail", "_left", "_reservation", "amounts", "is_decided", "limits")

    needs_verdict: ClassVar[bool] = False

    def __init__(self, limits: CountedLimits, amounts: tuple[int, int, int]) -> None:
        self.limits = limits
        self.amounts = amounts
        self.is_decided = self._left = False
        self._reservation: R | None = None
        self._error: BaseException | None = None
        self._admit: Callable[[R], object] | None = None
        self._fail: Callable[[BaseException], object] | None = None
        self._cancel: Callable[[], object] | None = None

    # What is different

    def reservation_of(self, ticket: Any, left: Sequence[int], reset: float) -> R:
        """The reservation, where all limits admit it; as of L{LimitsWaiter.grant
        <llmproxy.limits.counted.LimitsWaiter>}."""
        raise NotImplementedError

    def judge(self, verdict: Verdict) -> R:
        """The reservation of a verdict; raises why there is none."""
        raise NotImplementedError

    def explain(self, error: BaseException) -> BaseException:
        """What a client may know of why there is none."""
        raise NotImplementedError

    @property
    def reservation(self) -> R | None:
        """The reservation, once there is one; raises why there is none."""
        if self._error is not None:
            raise self._error
        return self._reservation

    def follow(self, verdict: Deferred[Verdict]) -> None:
        """It is decided by this verdict."""
        self._cancel = verdict.cancel
        verdict.addCallbacks(self.decided, lambda failure: self.failed(failure.value))

    def grant(self, ticket: Any, left: Sequence[int], reset: float) -> None:
        self._admitted(self.reservation_of(ticket, left, reset))

    def decided(self, verdict: Verdict) -> None:
        if self._left and verdict.refused is not None:
            return
        try:
            reservation = self.judge(verdict)
        except Exception as e:
            self.failed(e)
            return
        self._admitted(reservation)

    def _admitted(self, reservation: R) -> None:
        if self._left:
            reservation.give_back()
        elif self._admit is None:
            self._reservation, self.is_decided = reservation, True
        else:
            self._admit(reservation)

    def failed(self, error: BaseException) -> None:
        if self._left:
            return
        error = self.explain(error)
        if self._fail is None:
            self._error, self.is_decided = error, True
        else:
            self._fail(error)

    def then(self, admit: Callable[[R], object], fail: Callable[[BaseException], object]) -> None:
        """Call one of them, once."""
        if self._reservation is not None:
            admit(self._reservation)
        elif self._error is not None:
            fail(self._error)
        else:
            self._admit, self._fail = admit, fail

    def cancel(self) -> None:
        """Nobody waits any more."""
        self._left = True
        if self._cancel is not None:
            self._cancel()

    def __await__(self) -> Generator[Any, Any, R]:
        answer: Deferred[R] = Deferred(lambda _: self.cancel())
        self.then(answer.callback, answer.errback)
        return answer.__await__()
