"""Many who ask the same at once are one question."""

from __future__ import annotations

from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from llmproxy.model import Grant

E = TypeVar("E", bound=Exception)


class SingleFlight:
    """One question under way, and everybody who waits for its answer.

    One of them giving up leaves the others waiting; when the last one does, the question is dropped.
    """

    def __init__(self) -> None:
        self._waiting: list[Deferred[Grant]] = []
        self._asked: Deferred[None] | None = None

    def start(self, asked: Deferred[None]) -> None:
        self._asked = asked

    def wait(self) -> Deferred[Grant]:
        answer: Deferred[Grant] = Deferred(self._leave)
        self._waiting.append(answer)
        return answer

    def _leave(self, answer: Deferred[Grant]) -> None:
        self._waiting.remove(answer)
        if not self._waiting and self._asked is not None:
            self._asked.cancel()

    def answer(self, grant: Grant) -> None:
        self._asked = None
        while self._waiting:
            self._waiting.pop(0).callback(grant)

    def refuse(self, error: Exception) -> None:
        self._asked = None
        while self._waiting:
            self._waiting.pop(0).errback(Failure(again(error)))


def again(error: E) -> E:
    """The same refusal without its traceback, to be raised once more; whatever its class wants to be made with."""
    fresh = type(error).__new__(type(error), *error.args)
    fresh.__dict__.update(error.__dict__)
    return fresh
