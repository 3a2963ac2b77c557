"""The other processes that serve the same listeners: what one of them is asked, all of them answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed

Answer = Callable[[Any], Any]


class Peers:
    """The other workers of this machine, of which there are none unless a supervisor says otherwise.

    What passes is what JSON can say.
    """

    def __init__(self) -> None:
        self._answers: dict[str, Answer] = {}

    def register(self, name: str, answer: Answer) -> None:
        """Call C{answer(body)} when another worker, or the supervisor, asks for this; it may return a Deferred."""
        self._answers[name] = answer

    def perform(self, name: str, body: Any) -> Deferred[Any]:
        """What this process answers; fails with L{KeyError} where nobody has registered for it."""
        return maybeDeferred(lambda: self._answers[name](body))

    def ask(self, name: str, body: Any = None) -> Deferred[list[Any]]:
        """Fire with what the other workers answer; one that does not within seconds is left out."""
        return succeed([])

    def tell(self, name: str, body: Any = None) -> None:
        """Have the other workers do it; nobody waits for that."""

    @property
    def alone(self) -> bool:
        """Whether there never are others."""
        return True
