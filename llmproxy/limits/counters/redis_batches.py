"""What a process asks of Redis for its limits: what comes in one turn of the reactor is one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from msgspec import MsgspecError, msgpack
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from llmproxy.limits.counters.redis_scripts import RESERVE, SETTLE
from llmproxy.redis import RedisClient, RedisRefused, Script

MAX_BATCH = 100  # requests in one call: others wait for Redis while it decides them

Row = list[str | int]

_pack = msgpack.Encoder().encode


class RedisAnswer(NamedTuple):
    """What L{RESERVE} says of one request; in the order of its keys from C{used} on."""

    refused: int
    wait: int
    slot: int
    used: list[int]
    resets: list[int]
    generations: list[str]


_unpack = msgpack.Decoder(list[RedisAnswer]).decode


class _Question(NamedTuple):
    keys: Sequence[str]
    holder: str
    rows: list[Row]
    answer: Deferred[RedisAnswer]


class RateSettlement(NamedTuple):
    """What a request took beyond its claims: a row for each key, with its kind, how much, and the key's generation."""

    keys: Sequence[str]
    holder: str
    slot: int
    rows: list[Row]


class RedisBatches:
    """Sends what is to be reserved and what is settled, each kind in a call of its own, at the end of the turn."""

    def __init__(
        self,
        redis: RedisClient,
        clock: IReactorTime,
        *,
        lease: float,
        process: str,
        timeout: float,
        unsettled: Callable[[Failure, int], None],
    ) -> None:
        """
        @param lease: Seconds for which what is held at once is held without being renewed.
        @param process: A name that no other process has.
        @param unsettled: Called with why so many settlements may not have been made.
        """
        self._redis = redis
        self._clock = clock
        self._lease = int(lease * 1000)
        self._process = process
        self._timeout = timeout
        self._unsettled = unsettled
        self._questions: list[_Question] = []
        self._settlements: list[RateSettlement] = []
        self._timer: IDelayedCall | None = None

    def reserve(self, keys: Sequence[str], holder: str, rows: list[Row]) -> Deferred[RedisAnswer]:
        """Fire with the answer; fail with L{RedisUnavailable}.

        @param holder: Whom it is reserved for; C{""}: it is only looked at.
        @param rows: For each key what L{RESERVE} is to know of it.
        """
        answer: Deferred[RedisAnswer] = Deferred()
        self._questions.append(_Question(keys, holder, rows, answer))
        self._send_soon()
        return answer

    def settle(self, settlement: RateSettlement) -> None:
        """Say what was taken. Never repeated: one whose reply does not come may have been done."""
        self._settlements.append(settlement)
        self._send_soon()

    def flush(self) -> None:
        """Send what waits."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        settlements, self._settlements = self._settlements, []
        questions, self._questions = self._questions, []
        for start in range(0, len(settlements), MAX_BATCH):
            self._settle(settlements[start : start + MAX_BATCH])
        for start in range(0, len(questions), MAX_BATCH):
            self._ask(questions[start : start + MAX_BATCH])

    def _send_soon(self) -> None:
        if self._timer is None:
            self._timer = self._clock.callLater(0, self.flush)

    def _ask(self, questions: list[_Question]) -> None:
        keys = [key for question in questions for key in question.keys]
        asked = [self._lease, self._process, [[question.holder, question.rows] for question in questions]]
        asking = maybeDeferred(self._call, RESERVE, keys, asked).addCallback(_answers, len(questions))
        asking.addCallbacks(_answered, _failed, callbackArgs=(questions,), errbackArgs=(questions,))

    def _settle(self, settlements: list[RateSettlement]) -> None:
        keys = [key for each in settlements for key in each.keys]
        told = [[each.holder, each.slot, each.rows] for each in settlements]
        maybeDeferred(self._call, SETTLE, keys, told).addErrback(self._unsettled, len(settlements))

    def _call(self, script: Script, keys: Sequence[str], argument: list[Any]) -> Deferred[Any]:
        return self._redis.script(script, keys, [_pack(argument)], self._timeout)


def _answers(reply: Any, count: int) -> list[RedisAnswer]:
    try:
        answers = _unpack(reply)
    except (MsgspecError, TypeError) as e:
        raise RedisRefused(f"PROTOCOL {e}") from e
    if len(answers) != count:
        raise RedisRefused(f"PROTOCOL {len(answers)} answers to {count} questions")
    return answers


def _answered(answers: list[RedisAnswer], questions: list[_Question]) -> None:
    for question, answer in zip(questions, answers, strict=True):
        question.answer.callback(answer)


def _failed(failure: Failure, questions: list[_Question]) -> None:
    for question in questions:
        question.answer.errback(failure)
