"""FailedAttempts wait for each other, and for nobody else."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.auth.lockout import MAX_FAILURES, FailedAttempts
from llmproxy.auth.unknown_tokens import Grants, UnknownTokens
from llmproxy.errors import StoreUnavailable, TokenInactive, TokenNotFound, TooManyFailures
from llmproxy.model import Grant

GRANT = Grant("p", "t", True)


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.failed_attempts = FailedAttempts()
        self.asked: list[tuple[list[str], Deferred[Grants]]] = []
        self.unknown = self.made()
        self.answers: list[Deferred[Grant]] = []

    def made(self, batch: int = 2, waiting: int = 100, held_back: int = 3) -> UnknownTokens:
        return UnknownTokens(
            self.look_up, self.failed_attempts, self.clock, batch=batch, waiting=waiting, held_back=held_back
        )

    def look_up(self, tokens: Sequence[str]) -> Deferred[Grants]:
        answer: Deferred[Grants] = Deferred()
        self.asked.append((list(tokens), answer))
        return answer

    def answer(self) -> list[str]:
        """The question under way is answered; what was asked."""
        tokens, answer = self.asked.pop(0)
        answer.callback([GRANT if token.startswith("good") else TokenNotFound() for token in tokens])
        return tokens

    def guess(self, *tokens: str, address: str = "a") -> list[Deferred[Grant]]:
        answers = [self.unknown.validate(token, address) for token in tokens]
        self.answers += answers
        return answers

    def tearDown(self) -> None:
        for each in self.answers:
            each.addErrback(lambda _: None)

    def hold_back(self, address: str, count: int = MAX_FAILURES) -> None:
        for _ in range(count):
            self.failed_attempts.count(address, self.clock.seconds())


class Batches(Case):
    def test_many_with_one_question(self) -> None:
        """The first is asked at once; those that come meanwhile together, so many at once."""
        answers = self.guess("1", "good", "3", "4")
        self.assertEqual([self.answer(), self.answer(), self.answer()], [["1"], ["good", "3"], ["4"]])
        self.assertEqual(self.asked, [])
        self.assertEqual(self.successResultOf(answers.pop(1)), GRANT)
        for each in answers:
            self.failureResultOf(each, TokenNotFound)
        self.guess("5")
        self.assertEqual(self.answer(), ["5"])

    def test_every_refusal_is_its_own(self) -> None:
        """What is known of a token reaches who sent it."""
        first = self.guess("1")
        more = self.guess("2", "3")
        self.answer()
        self.failureResultOf(first[0], TokenNotFound)
        self.asked.pop()[1].callback([TokenInactive(), GRANT])
        self.failureResultOf(more[0], TokenInactive)
        self.assertEqual(self.successResultOf(more[1]), GRANT)

    def test_the_store_is_down(self) -> None:
        """Everybody who was asked for hears it, and the next are asked for all the same."""
        first, second, third, fourth = self.guess("1", "2", "3", "4")
        self.asked.pop(0)[1].errback(StoreUnavailable("Down."))
        self.asked.pop(0)[1].errback(ZeroDivisionError())
        for each in (first, second, third):
            self.failureResultOf(each, StoreUnavailable)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.answer()
        self.failureResultOf(fourth, TokenNotFound)

    def test_who_leaves(self) -> None:
        """Is not asked for, and leaves no trace."""
        first, second, third = self.guess("1", "2", "3")
        first.cancel()
        second.cancel()
        for each in (first, second):
            self.failureResultOf(each, CancelledError)
        self.assertEqual(self.unknown.waiting, 1)
        self.assertEqual([self.answer(), self.answer()], [["1"], ["3"]])
        self.failureResultOf(third, TokenNotFound)
        self.assertEqual(self.unknown.waiting, 0)

    def test_thousands_that_are_answered_at_once(self) -> None:
        """No recursion, however many wait."""
        unknown = UnknownTokens(
            lambda tokens: _at_once([TokenNotFound() for _ in tokens]),
            self.failed_attempts,
            self.clock,
            batch=1,
            waiting=5000,
        )
        for n in range(5000):
            self.failureResultOf(unknown.validate(str(n), "a"), TokenNotFound)
        self.unknown = self.made(batch=1, waiting=5000)
        answers = self.guess(*map(str, range(4000)))
        self.unknown._look_up = lambda tokens: _at_once([TokenNotFound() for _ in tokens])
        self.answer()
        for each in answers:
            self.failureResultOf(each, TokenNotFound)


async def _at_once(answers: Grants) -> Grants:
    return answers


class Fairness(Case):
    def test_addresses_take_turns(self) -> None:
        """However many one sends, the others' next one is in the next question."""
        self.guess(*map(str, range(50)))
        self.guess("b1", "b2", address="b")
        self.answer()
        self.assertEqual([self.answer(), self.answer()], [["1", "b1"], ["2", "b2"]])

    def test_whoever_has_sent_no_wrong_ones(self) -> None:
        """Goes ahead of those who have; those who are held back come last, but they come."""
        self.guess("first")
        self.hold_back("c")
        self.hold_back("b", 1)
        self.guess("c1", address="c")
        self.guess("b1", address="b")
        self.guess("a1", "a2")
        self.answer()
        self.assertEqual([self.answer(), self.answer()], [["a1", "a2"], ["b1", "c1"]])

    def test_held_back_addresses_have_little_room(self) -> None:
        """Beyond that they are told to wait, and nobody is asked; a valid token among the first is let in."""
        self.guess("first")
        self.hold_back("b")
        answers = self.guess("1", "good", "3", address="b")
        with self.assertRaises(TooManyFailures) as caught:
            self.guess("4", address="b")
        self.assertEqual((caught.exception.retry_after, self.unknown.refused), (60, 1))
        self.guess("a1")
        self.answer()
        self.assertEqual([self.answer(), self.answer()], [["a1", "1"], ["good", "3"]])
        self.assertEqual(self.successResultOf(answers[1]), GRANT)

    def test_a_full_queue(self) -> None:
        """Those who are held back make room for others; where there are none, whoever comes is told to try again."""
        self.unknown = self.made(waiting=4)
        self.guess("first")
        self.hold_back("b")
        self.hold_back("c", 1)
        held_back = self.guess("b1", "b2", address="b")
        some = self.guess("c1", address="c")
        self.guess("a1", "a2")
        self.failureResultOf(held_back[1], TooManyFailures)
        self.guess("a3")
        self.failureResultOf(held_back[0], TooManyFailures)
        with self.assertRaises(StoreUnavailable):
            self.guess("c2", address="c")
        self.guess("a4")
        self.failureResultOf(some[0], TooManyFailures)
        with self.assertRaises(StoreUnavailable) as caught:
            self.guess("a5")
        self.assertEqual(caught.exception.retry_after, 1)
        with self.assertRaises(TooManyFailures):
            self.guess("b3", address="b")
        self.assertEqual((self.unknown.waiting, self.unknown.refused), (4, 6))
        self.answer()
        self.assertEqual([self.answer(), self.answer()], [["a1", "a2"], ["a3", "a4"]])
