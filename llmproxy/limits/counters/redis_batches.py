"""What a process asks of Redis for its limits: what comes in one turn of the reactor is one call."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from msgspec import MsgspecError, msgpack
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from llmproxy.base.end_of_turn import end_of_turn
from llmproxy.errors import LimitsUnavailable
from llmproxy.limits.counters.redis_scripts import EXCHANGE
from llmproxy.limits.counters.redis_use import RedisUse, Settlements
from llmproxy.limits.counters.remote_limits import RemoteAnswer, RemoteLimits, RemoteQuestion
from llmproxy.limits.window import SLOTS_PER_SECOND
from llmproxy.redis import RedisClient, RedisRefused, RedisUnavailable

MAX_BATCH = 100  # requests in one call: others wait for Redis while it decides them
MAX_LIMIT = 2**53  # that Lua counts up to exactly; nobody reaches a larger one

_pack = msgpack.Encoder().encode


class RequestAnswer(NamedTuple):
    """What L{EXCHANGE} says of one request; C{used} and C{resets} in the order of its limits."""

    refused: int
    wait: int
    used: list[int]
    resets: list[int]


class ExchangeAnswer(NamedTuple):
    """What L{EXCHANGE} says; C{taken} and C{generations} in the order of the keys."""

    slot: int
    taken: list[int]
    generations: list[str]
    answers: list[RequestAnswer]


_unpack = msgpack.Decoder(ExchangeAnswer).decode


class RedisBatches:
    """Sends what is to be reserved and what is settled at the end of the turn, in one call, or before responses leave.

    @ivar is_due: Whether there is something that leaves with this turn.
    """

    _log = Logger()

    def __init__(
        self,
        redis: RedisClient,
        clock: IReactorTime,
        use: RedisUse,
        *,
        prefix: str,
        lease: float,
        timeout: float,
        unsettled: Callable[[Failure, int], None],
    ) -> None:
        """
        @param prefix: Of the keys.
        @param lease: Seconds for which what is held at once is held without being renewed.
        @param unsettled: Called with why so many settlements may not have been made.
        """
        self._redis = redis
        self._clock = clock
        self._use = use
        self._prefix = prefix
        self._lease = int(lease * 1000)
        self._timeout = timeout
        self._unsettled = unsettled
        self._questions: list[RemoteQuestion] = []
        self._settlements: deque[Settlements] = deque()
        self.is_due = False
        self._at_end = end_of_turn(clock)
        self._slots_ahead = 0.0  # of Redis's clock before this process's

    def ask(self, question: RemoteQuestion) -> None:
        """Have it decided; what Redis has lost is put back first."""
        self._questions.append(question)
        if not self.is_due:
            self._send_soon()

    def settlements(self) -> Settlements:
        """What leaves with this turn, to be added to. Never repeated: one whose reply does not come may be done."""
        if not self.is_due:
            self._send_soon()
        if not self._settlements or self._settlements[-1].count >= MAX_BATCH:
            self._settlements.append(Settlements())
        return self._settlements[-1]

    def settle(self, settlements: Settlements) -> None:
        """Have them leave with this turn."""
        self._settlements.appendleft(settlements)
        if not self.is_due:
            self._send_soon()

    def tell_settled(self) -> None:
        """Have what is settled leave now, with all else that is due."""
        if self._settlements:
            self.flush()

    def slot(self) -> int:
        """Redis's present slot, as far as is known."""
        return int(self._clock.seconds() * SLOTS_PER_SECOND + self._slots_ahead)

    def flush(self) -> None:
        """Send what waits."""
        self.is_due = False
        questions, self._questions = self._questions, []
        settlements, self._settlements = self._settlements, deque()
        start = 0
        while start < len(questions) or settlements:
            self._send(questions[start : start + MAX_BATCH], settlements.popleft() if settlements else Settlements())
            start += MAX_BATCH

    def _send_soon(self) -> None:
        self.is_due = True
        self._at_end(self.flush)

    def _send(self, questions: list[RemoteQuestion], settlements: Settlements) -> None:
        keys: dict[str, int] = {}
        asking = maybeDeferred(self._exchange, keys, questions, settlements)
        asking.addCallback(self._read, keys, questions)
        asking.addCallbacks(
            self._answered, self._failed, callbackArgs=(questions,), errbackArgs=(questions, settlements)
        )

    def _exchange(
        self, keys: dict[str, int], questions: list[RemoteQuestion], settlements: Settlements
    ) -> Deferred[Any]:
        generation = self._use.rates.last_generation
        rates = [
            (_number(keys, key), slot, generation(key), more) for (key, slot), more in settlements.rates.items() if more
        ]
        leases = [(_number(keys, key), numbers) for key, numbers in settlements.leases.items()]
        limits: list[Any] = []
        numbers: dict[tuple[RemoteLimits, bool], int] = {}
        requests: list[Any] = []
        for question in questions:
            asked = (question.limits, question.puts_back)
            number = numbers.get(asked)
            if number is None:
                limits.append(self._limits(keys, *asked))
                number = numbers[asked] = len(limits)
            amounts = question.amounts
            requests.append(
                (number, question.number, [min(amounts[unit], MAX_LIMIT) for unit in question.limits.rate_units])
            )
        told = _pack((self._lease, self._use.process, rates, leases, limits, requests))
        return self._redis.script(EXCHANGE, [self._prefix + key for key in keys], [told], self._timeout)

    def _limits(self, keys: dict[str, int], asked: RemoteLimits, puts_back: bool) -> list[Any]:
        slot, rows = self.slot(), []
        for each in asked.limits:
            unit, key, limit, is_rate = each
            known, back = self._use.evidence(each, slot, puts_back=puts_back)
            place = asked.rate_units.index(unit) + 1 if is_rate else 0
            rows.append((_number(keys, key), "r" if is_rate else "l", min(limit, MAX_LIMIT), place, known, back))
        return rows

    def _read(self, reply: Any, keys: dict[str, int], questions: list[RemoteQuestion]) -> ExchangeAnswer:
        try:
            answer = _unpack(reply)
        except (MsgspecError, TypeError) as e:
            raise RedisRefused(f"PROTOCOL {e}") from e
        if len(answer.answers) != len(questions) or not len(answer.taken) == len(answer.generations) == len(keys):
            raise RedisRefused(f"PROTOCOL {len(answer.answers)} answers to {len(questions)} questions")
        slot, rates = answer.slot, self._use.rates
        self._slots_ahead = slot - self._clock.seconds() * SLOTS_PER_SECOND
        for key, amount, generation in zip(keys, answer.taken, answer.generations, strict=True):
            if generation and amount >= 0:
                rates.add(key, generation, slot, amount)
            elif generation:
                rates.set_generation(key, generation)
        return answer

    def _answered(self, answer: ExchangeAnswer, questions: list[RemoteQuestion]) -> None:
        slot = answer.slot
        for question, each in zip(questions, answer.answers, strict=True):
            refused, _, used, resets = each
            try:
                if refused or resets:
                    self._tell(question, each, slot)
                else:  # it has been taken
                    question.take_grant(slot, used)
            except Exception:  # there are others to be told
                self._log.failure("A request was not told that its limits were decided.")

    def _tell(self, question: RemoteQuestion, answer: RequestAnswer, slot: int) -> None:
        refused, wait, used, resets = answer
        if refused < 0:
            if question.puts_back:
                question.take_failure(LimitsUnavailable())  # it loses keys faster than they are put back
            else:
                question.puts_back = True
                self.ask(question)
            return
        question.take_answer(
            RemoteAnswer(
                refused - 1 if refused else None,
                None if wait < 0 else wait / 1000,
                slot,
                used,
                [each / 1000 for each in resets],
            )
        )

    def _failed(self, failure: Failure, questions: list[RemoteQuestion], settlements: Settlements) -> None:
        if settlements.count:
            self._unsettled(failure, settlements.count)
        for question in questions:
            question.take_failure(failure.value or RedisUnavailable("There is no reply."))


def _number(keys: dict[str, int], key: str) -> int:
    return keys.setdefault(key, len(keys) + 1)
