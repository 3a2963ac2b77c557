"""The other processes that serve the same listeners: what one of them is asked, all of them answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed

Answer = Callable[[Any], Any]


class NoSupervisor(Exception):
    """Nobody is there who could be asked for it."""


class PeerAnswer(NamedTuple):
    """What came of asking one worker.

    @ivar worker: Its place, from 1.
    @ivar problem: Why there is no response, in a few words; C{""} where there is one.
    """

    worker: int
    answer: Any = None
    problem: str = ""


class Peers:
    """The other workers of this machine, of which there are none unless a supervisor says otherwise.

    What passes is what JSON can say.

    @ivar number: The place of this process among them, from 1; C{0} where it is the only one.
    @ivar leads: Whether it is the one that does what one does for all; another one does where this one ends.
    """

    number = 0
    leads = True

    def __init__(self) -> None:
        self._answers: dict[str, Answer] = {}

    def register(self, name: str, answer: Answer) -> None:
        """Call C{answer(body)} when another worker, or the supervisor, asks for this; it may return a Deferred."""
        self._answers[name] = answer

    def perform(self, name: str, body: Any) -> Deferred[Any]:
        """What this process answers; fails with L{KeyError} where nobody has registered for it."""
        return maybeDeferred(lambda: self._answers[name](body))

    def ask(self, name: str, body: Any = None) -> Deferred[list[Any]]:
        """Fire with what the other workers answer, those that drain too; who does not within seconds is left out."""
        return succeed([])

    def tell(self, name: str, body: Any = None) -> None:
        """Have the other workers do it; nobody waits for that."""

    def order(self, name: str, body: Any, key: str = "") -> Deferred[list[PeerAnswer]]:
        """Have the other workers do it, and those that start later.

        @param key: What it is about; a later order of the same name and key takes its place.
        """
        return succeed([])

    def supervisor(self, name: str, body: Any = None, seconds: float = 5.0) -> Deferred[Any]:
        """Ask the supervisor for this; L{NoSupervisor} where none answers."""
        return fail(NoSupervisor("There is none."))

    @property
    def alone(self) -> bool:
        """Whether there never are others."""
        return True
