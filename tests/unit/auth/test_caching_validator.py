"""A token is looked up once and then remembered, but never beyond what is true."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from llmproxy.auth.caching_validator import CachedTokenValidator
from llmproxy.auth.lockout import FailedAttempts
from llmproxy.auth.unknown_tokens import UnknownTokens
from llmproxy.base.ttl_cache import CacheLease
from llmproxy.errors import QuotaExceeded, StoreUnavailable, TokenExpired, TokenInactive, TokenNotFound
from llmproxy.interfaces import IImmediateValidator, ITokenStore, ITokenValidator
from llmproxy.model import Grant
from tests.unit.store.contract import ValidatorContract

A = sha256(b"a").digest()
GRANT = Grant("p", "t", True)


@implementer(ITokenValidator)
class Oracle:
    """Answers what a test put into C{answer}, and writes down what it was asked."""

    def __init__(self) -> None:
        self.answer: Callable[[], Any] = lambda: succeed(GRANT)
        self.asked: list[str] = []

    def validate_token(self, token: str) -> Any:
        self.asked.append(token)
        return self.answer()

    def validate_token_with_tracking(self, token: str) -> Any:
        self.asked.append("+" + token)
        return self.answer()


class Counts:
    def __init__(self) -> None:
        self.taken: list[dict[str, int]] = []
        self.hits: dict[str, int] = {}
        self.down = False

    def count_uses(self, uses: Mapping[str, tuple[int, float]]) -> Deferred[None]:
        if self.down:
            return fail(StoreUnavailable())
        self.taken.append({token: more for token, (more, _) in uses.items()})
        return succeed(None)

    def count_cache_hits(self, hits: Mapping[str, tuple[int, float]]) -> Deferred[None]:
        self.hits.update({token: more for token, (more, _) in hits.items()})
        return succeed(None)


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.wall = Clock()
        self.oracle = Oracle()
        self.counts = Counts()
        self.cached = self.validator(uses=cast(ITokenStore, self.counts))

    def validator(self, **more: Any) -> CachedTokenValidator:
        return CachedTokenValidator(self.oracle, clock=self.clock, now=self.wall.seconds, **more)

    def granted(self, token: str = "a") -> Any:
        return self.successResultOf(self.cached.validate_token(token))

    def used(self, token: str = "a") -> Any:
        return self.successResultOf(self.cached.validate_token_with_tracking(token))

    def refused(self, error: type[Exception], token: str = "a") -> Any:
        return self.failureResultOf(self.cached.validate_token(token), error)

    def refused_use(self, error: type[Exception], token: str = "a") -> Any:
        return self.failureResultOf(self.cached.validate_token_with_tracking(token), error)


class JournaledTests(Case):
    def test_left_to_the_ledger(self) -> None:
        """What is remembered of a token without a limit is allowed at once and counted by nobody here."""
        self.cached = self.validator(journaled=True)
        self.assertIsNone(self.cached.use_now(A))
        self.granted()
        self.assertEqual(self.cached.use_now(A), GRANT)
        self.cached.undo_use(A, GRANT)
        self.successResultOf(self.cached.flush())
        self.assertEqual(self.oracle.asked, ["a"])

    def test_uses_that_nobody_is_asked_for(self) -> None:
        self.assertTrue(self.validator(journaled=True).leaves_uses_to_ledger(GRANT))
        self.assertFalse(self.validator().leaves_uses_to_ledger(GRANT))
        for grant in (Grant("p", "t", max_requests=5), Grant("p")):
            self.assertFalse(self.validator(journaled=True).leaves_uses_to_ledger(grant))

    def test_an_entry_ends_when_its_project_changes(self) -> None:
        self.granted()
        entry = self.cached.entry(A)
        assert entry is not None
        self.assertEqual((entry.value, entry.until), (GRANT, 5.0))
        self.cached.forget_project("p")
        self.assertLess(entry.until, 0.0)
        self.assertIsNone(self.cached.entry(A))

    def test_counted_by_the_validator(self) -> None:
        """What is not remembered, and every token with a limit: never by both."""
        self.cached = self.validator(journaled=True)
        self.used()
        self.assertEqual(self.oracle.asked, ["a", "+a"])
        self.oracle.answer = lambda: succeed(Grant("p", "t", True, max_requests=5))
        self.cached.forget_project("")
        self.granted()
        self.assertIsNone(self.cached.use_now(A))


class LeaseTests(Case):
    """Grants are used on for as long as changes are heard of."""

    def setUp(self) -> None:
        super().setUp()
        self.lease = CacheLease(5.0)
        self.cached = self.validator(issued_ttl=300.0, lease=self.lease)

    def advance(self, seconds: float) -> None:
        """The store says several times a second that nothing has changed."""
        for _ in range(int(seconds)):
            self.clock.advance(1.0)
            self.wall.advance(1.0)
            self.lease.renew(self.clock.seconds())

    def test_one_that_is_used_seldom(self) -> None:
        for _ in range(5):
            self.granted("sk-lp-a")
            self.advance(59.0)
        self.assertEqual(self.oracle.asked, ["sk-lp-a"])
        self.advance(5.0)
        self.granted("sk-lp-a")
        self.assertEqual(len(self.oracle.asked), 2)

    def test_revoked(self) -> None:
        """However old what is cached is: by the first request after the news."""
        self.granted("sk-lp-a")
        entry = self.cached.entry(self.cached.key("sk-lp-a"))
        assert entry is not None
        self.advance(60.0)
        self.assertTrue(entry.is_good(self.clock.seconds()))
        self.oracle.answer = lambda: fail(TokenInactive())
        self.cached.forget_project("p")
        self.assertFalse(entry.is_good(self.clock.seconds()))
        self.refused(TokenInactive, "sk-lp-a")

    def test_silence(self) -> None:
        """Nobody says whether it is still good: it is looked up again five seconds after the last word."""
        self.granted("sk-lp-a")
        self.advance(60.0)
        self.clock.advance(4.9)
        self.granted("sk-lp-a")
        self.clock.advance(0.1)
        self.granted("sk-lp-a")
        self.assertEqual(len(self.oracle.asked), 2)

    def test_one_that_ends_meanwhile(self) -> None:
        """By the wall clock, to the second."""
        self.oracle.answer = lambda: succeed(Grant("p", "t", True, expires_at=30.0))
        self.granted("sk-lp-a")
        self.advance(29.0)
        self.granted("sk-lp-a")
        self.advance(1.0)
        self.refused(TokenExpired, "sk-lp-a")
        self.assertIsNone(self.cached.grant_now(self.cached.key("sk-lp-a")))
        self.assertEqual(len(self.oracle.asked), 1)

    def test_those_of_others(self) -> None:
        """Nobody says what becomes of them: they are asked about every few seconds."""
        self.granted("eyJ")
        self.advance(5.0)
        self.granted("eyJ")
        self.assertEqual(self.oracle.asked, ["eyJ", "eyJ"])

    def test_counted_by_the_store(self) -> None:
        """What it says of a token with a limit is used on as well."""
        self.oracle.answer = lambda: succeed(Grant("p", "t", True, max_requests=5))
        self.used("sk-lp-a")
        self.advance(60.0)
        self.granted("sk-lp-a")
        self.assertEqual(self.oracle.asked, ["sk-lp-a", "+sk-lp-a"])


class RememberingTests(Case):
    def test_provides_the_validator(self) -> None:
        verifyObject(IImmediateValidator, self.cached)

    def test_once(self) -> None:
        self.assertIsNone(self.cached.grant_now(A))
        self.assertEqual([self.granted(), self.granted(), self.cached.grant_now(A)], [GRANT] * 3)
        self.assertEqual(self.oracle.asked, ["a"])

    def test_for_a_while(self) -> None:
        self.granted()
        self.clock.advance(5)
        self.assertIsNone(self.cached.grant_now(A))
        self.granted()
        self.assertEqual(self.oracle.asked, ["a", "a"])

    def test_not_at_all(self) -> None:
        for more in ({"ttl": 0.0}, {"size": 0}):
            self.cached = self.validator(**more)
            self.oracle.asked.clear()
            self.granted()
            self.assertIsNone(self.cached.grant_now(A))
            self.granted()
            self.assertEqual(len(self.oracle.asked), 2)

    def test_the_token_itself_is_not_kept(self) -> None:
        """Who reads the process's memory finds no list of tokens."""
        self.granted("sk-lp-secret")
        self.assertNotIn("sk-lp-secret", repr(vars(self.cached._grants)))

    def test_a_bare_project(self) -> None:
        """A validator that knows no more than the project will do."""
        self.oracle.answer = lambda: succeed("team")
        self.assertEqual(self.granted(), Grant("team"))

    def test_a_coroutine(self) -> None:
        async def answer() -> str:
            return "team"

        self.oracle.answer = answer
        self.assertEqual(self.granted(), Grant("team"))

    def test_expiry_is_checked_on_every_use(self) -> None:
        """Remembered or not, a token ends on its second."""
        self.oracle.answer = lambda: succeed(Grant("p", "t", True, expires_at=3.0))
        self.granted()
        self.wall.advance(2.9)
        self.granted()
        self.assertTrue(self.cached.use_now(A))
        self.wall.advance(0.1)
        self.assertIsNone(self.cached.grant_now(A))
        self.assertIsNone(self.cached.use_now(A))
        self.refused(TokenExpired)
        self.refused_use(TokenExpired)
        self.assertEqual(self.oracle.asked, ["a"])

    def test_odd_tokens(self) -> None:
        for token in ("", "\ud800", "ключ", "x" * 100_000):
            self.granted(token)


class RefusingTests(Case):
    def test_briefly_remembered(self) -> None:
        self.oracle.answer = lambda: fail(TokenNotFound("Not this one."))
        self.refused(TokenNotFound)
        again = self.refused(TokenNotFound).value
        self.refused_use(TokenNotFound)
        challenge = {"WWW-Authenticate": 'Bearer realm="llmproxy", error="invalid_token"'}
        self.assertEqual((again.message, dict(again.headers)), ("Not this one.", challenge))
        self.assertEqual(self.oracle.asked, ["a"])
        self.clock.advance(1)
        self.refused(TokenNotFound)
        self.assertEqual(self.oracle.asked, ["a", "a"])

    def test_no_traceback_piles_up(self) -> None:
        """Each time the refusal is a fresh one."""
        self.oracle.answer = lambda: fail(TokenNotFound())
        self.assertEqual(len({id(failure.value) for failure in [self.refused(TokenNotFound) for _ in range(5)]}), 5)

    def test_a_store_that_is_down(self) -> None:
        """503 is never remembered: the next request may succeed."""
        self.oracle.answer = lambda: fail(StoreUnavailable())
        self.refused(StoreUnavailable)
        self.refused_use(StoreUnavailable)
        self.oracle.answer = lambda: succeed(GRANT)
        self.assertEqual(self.granted(), GRANT)

    def test_a_validator_that_breaks(self) -> None:
        """Whatever goes wrong in it, the client is told to try again, and the operator is told what it was."""
        for broken in (lambda: fail(ValueError("x")), lambda: 1 // 0):
            self.oracle.answer = broken
            self.refused(StoreUnavailable)
            self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_a_validator_that_does_not_answer(self) -> None:
        self.oracle.answer = Deferred
        asked = self.cached.validate_token("a")
        self.clock.advance(10)
        self.failureResultOf(asked, StoreUnavailable)
        self.oracle.answer = lambda: succeed(GRANT)
        self.granted()

    def test_refusals_of_any_shape(self) -> None:
        """An outsider's own kind of refusal may be made with whatever it likes."""

        class Banned(TokenInactive):
            def __init__(self, who: str, why: str) -> None:
                super().__init__(f"{who}: {why}")

        self.oracle.answer = lambda: fail(Banned("me", "fun"))
        for _ in range(2):
            self.assertEqual(self.refused(Banned).value.message, "me: fun")


class TogetherTests(Case):
    def setUp(self) -> None:
        super().setUp()
        self.cancelled: list[int] = []
        self.answer: Deferred[Grant] = Deferred(lambda _: self.cancelled.append(1))
        self.oracle.answer = lambda: self.answer

    def test_one_question(self) -> None:
        """A burst of requests with one new token asks the store once."""
        asked = [self.cached.validate_token("a") for _ in range(5)]
        self.answer.callback(GRANT)
        self.assertEqual([self.successResultOf(each) for each in asked], [GRANT] * 5)
        self.assertEqual(self.oracle.asked, ["a"])

    def test_one_refusal_for_all(self) -> None:
        asked = [self.cached.validate_token("a") for _ in range(5)]
        self.answer.errback(TokenNotFound())
        self.assertEqual(len({id(self.failureResultOf(each, TokenNotFound).value) for each in asked}), 5)

    def test_one_gives_up(self) -> None:
        """The others still get their answer, also when it was the first who gave up."""
        one, two = self.cached.validate_token("a"), self.cached.validate_token("a")
        one.cancel()
        self.failureResultOf(one, CancelledError)
        self.assertNoResult(two)
        self.answer.callback(GRANT)
        self.assertEqual(self.successResultOf(two), GRANT)

    def test_all_give_up(self) -> None:
        """Then the store is not bothered any longer, and the next one asks anew."""
        asked = [self.cached.validate_token("a") for _ in range(2)]
        for each in asked:
            each.cancel()
            self.failureResultOf(each, CancelledError)
        self.assertEqual(self.cancelled, [1])
        self.oracle.answer = lambda: succeed(GRANT)
        self.granted()

    def test_an_answer_that_makes_another_give_up(self) -> None:
        one, two = self.cached.validate_token("a"), self.cached.validate_token("a")
        one.addCallback(lambda _: two.cancel())
        self.answer.callback(GRANT)
        self.successResultOf(one)
        self.failureResultOf(two, CancelledError)


class ForgettingTests(Case):
    def test_a_changed_project(self) -> None:
        self.granted()
        self.cached.forget_project("other")
        self.assertTrue(self.cached.grant_now(A))
        self.cached.forget_project("p")
        self.assertIsNone(self.cached.grant_now(A))

    def test_refusals_go_too(self) -> None:
        """A token that an operator just activated works at once."""
        self.oracle.answer = lambda: fail(TokenInactive())
        self.refused(TokenInactive)
        self.cached.forget_project("p")
        self.oracle.answer = lambda: succeed(GRANT)
        self.granted()

    def test_a_look_up_under_way(self) -> None:
        """It may have seen the time before the change: it is not remembered, and nobody joins it any more."""
        before: Deferred[Grant] = Deferred()
        self.oracle.answer = lambda: before
        old = self.cached.validate_token("a")
        self.cached.forget_project("p")
        after: Deferred[Grant] = Deferred()
        self.oracle.answer = lambda: after
        new = self.cached.validate_token("a")
        before.callback(GRANT)
        self.assertEqual(self.successResultOf(old), GRANT)
        self.assertIsNone(self.cached.grant_now(A))
        self.assertNoResult(new)
        after.errback(TokenInactive())
        self.failureResultOf(new, TokenInactive)
        self.refused(TokenInactive)

    def test_everything(self) -> None:
        """Where it is not known what has changed, nothing that is remembered counts any more."""
        self.granted()
        self.cached.forget_project("")
        self.assertIsNone(self.cached.grant_now(A))
        self.granted()
        self.assertEqual(self.oracle.asked, ["a", "a"])

    def test_a_use_under_way(self) -> None:
        self.oracle.answer = lambda: succeed(Grant("p", "t", True, max_requests=1))
        self.granted()
        for answer in (lambda d: d.callback(GRANT), lambda d: d.errback(QuotaExceeded())):
            counted: Deferred[Grant] = Deferred()
            self.oracle.answer = lambda counted=counted: counted
            using = self.cached.validate_token_with_tracking("a")
            self.cached.forget_project("p")
            answer(counted)
            using.addErrback(lambda failure: failure.trap(QuotaExceeded))
            self.successResultOf(using)
            self.assertIsNone(self.cached.grant_now(A))
            self.oracle.answer = lambda: succeed(Grant("p", "t", True, max_requests=1))
            self.used()


class CountingTests(Case):
    def test_answers_from_the_cache(self) -> None:
        """They are counted by themselves, and for no limit."""
        for token in ("t", "t", ""):
            self.cached.count_cache_hit(token)
        self.successResultOf(self.cached.flush())
        self.assertEqual((self.counts.hits, self.counts.taken), ({"t": 2}, []))

    def test_without_a_limit(self) -> None:
        """Uses are counted here and told in a batch: no request waits for a write."""
        self.used()
        self.assertEqual(self.cached.use_now(A), GRANT)
        self.used()
        self.assertEqual(self.oracle.asked, ["a"])
        self.successResultOf(self.cached.flush())
        self.assertEqual(self.counts.taken, [{"t": 3}])

    def test_looking_is_not_using(self) -> None:
        self.granted()
        self.cached.grant_now(A)
        self.successResultOf(self.cached.flush())
        self.assertEqual(self.counts.taken, [])

    def test_with_a_limit(self) -> None:
        """Every use is one statement of the store's, which alone can keep the limit."""
        self.oracle.answer = lambda: succeed(Grant("p", "t", True, max_requests=9))
        self.used()
        self.assertIsNone(self.cached.use_now(A))
        self.used()
        self.assertEqual(self.oracle.asked, ["a", "+a", "+a"])
        self.clock.advance(4)
        self.used()
        self.clock.advance(4)
        self.used()
        self.assertEqual(self.oracle.asked, ["a", "+a", "+a", "+a", "+a"])
        self.successResultOf(self.cached.flush())
        self.assertEqual(self.counts.taken, [])

    def test_used_up(self) -> None:
        """Known for a moment, so that a client that hammers costs nothing; the token itself stays valid."""
        self.oracle.answer = lambda: succeed(Grant("p", "t", True, max_requests=1))
        self.granted()
        self.oracle.answer = lambda: fail(QuotaExceeded())
        for _ in range(3):
            self.refused_use(QuotaExceeded)
        self.assertEqual(self.oracle.asked, ["a", "+a"])
        self.granted()
        self.clock.advance(1)
        self.refused_use(QuotaExceeded)
        self.assertEqual(self.oracle.asked, ["a", "+a", "+a"])
        self.cached.forget_project("p")
        self.oracle.answer = lambda: succeed(Grant("p", "t", True, max_requests=2))
        self.used()

    def test_deactivated_elsewhere(self) -> None:
        """What the store says when it counts goes before what is remembered."""
        self.oracle.answer = lambda: succeed(Grant("p", "t", True, max_requests=5))
        self.granted()
        self.oracle.answer = lambda: fail(TokenInactive())
        self.refused_use(TokenInactive)
        self.assertIsNone(self.cached.grant_now(A))
        self.refused(TokenInactive)

    def test_an_inactive_project(self) -> None:
        """Its requests are refused, so they are not counted."""
        self.oracle.answer = lambda: succeed(Grant("p", "t", False))
        self.assertFalse(self.used().project_active)
        self.assertFalse(self.cached.use_now(A).project_active)
        self.successResultOf(self.cached.flush())
        self.assertEqual(self.counts.taken, [])

    def test_given_back(self) -> None:
        """A use that was none is taken off, also from what the store was told already."""
        self.granted()
        self.cached.use_now(A)
        self.cached.undo_use(A, GRANT)
        self.cached.use_now(A)
        self.successResultOf(self.cached.flush())
        self.cached.undo_use(A, GRANT)
        self.successResultOf(self.cached.flush())
        self.assertEqual(self.counts.taken, [{"t": 1}, {"t": -1}])

    def test_given_back_of_a_limit_that_was_used_up(self) -> None:
        """The store is asked again at once, not when the refusal would have been forgotten."""
        self.oracle.answer = lambda: fail(QuotaExceeded())
        self.refused_use(QuotaExceeded)
        self.cached.undo_use(A, Grant("p", "t", True, max_requests=1))
        self.oracle.answer = lambda: succeed(Grant("p", "t", True, max_requests=1))
        self.used()

    def test_nowhere_to_count(self) -> None:
        """Without a store for counts, or for a token without an id, the validator counts each use itself."""
        self.cached = self.validator()
        self.used()
        self.used()
        self.assertIsNone(self.cached.use_now(A))
        self.assertEqual(self.oracle.asked, ["a", "+a", "+a"])
        self.cached = self.validator(uses=self.counts)
        self.oracle.answer = lambda: succeed("team")
        self.used()
        self.assertEqual(self.oracle.asked[3:], ["a", "+a"])


class ServiceTests(Case):
    def test_flushes_now_and_then(self) -> None:
        self.cached.startService()
        self.used()
        self.clock.advance(1)
        self.assertEqual(self.counts.taken, [{"t": 1}])
        self.successResultOf(self.cached.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_last_ones_are_told_at_the_end(self) -> None:
        self.cached.startService()
        self.used()
        self.successResultOf(self.cached.stopService())
        self.assertEqual(self.counts.taken, [{"t": 1}])

    def test_an_outage(self) -> None:
        self.cached.startService()
        self.counts.down = True
        self.used()
        self.clock.advance(1)
        self.counts.down = False
        self.clock.advance(1)
        self.assertEqual(self.counts.taken, [{"t": 1}])
        self.successResultOf(self.cached.stopService())

    def test_never_started(self) -> None:
        self.used()
        self.successResultOf(self.cached.stopService())
        self.assertEqual(self.counts.taken, [{"t": 1}])


class ContractTests(ValidatorContract, TestCase):
    """In front of the real store it promises what the store does."""

    def url(self) -> str:
        return f"sqlite:///{self.mktemp()}/llmproxy.db"

    async def setUp(self) -> None:
        await super().setUp()
        self.validator = CachedTokenValidator(self.store, clock=Clock(), now=self.now, uses=self.store, ttl=60.0)
        self.store.watch(self.validator.forget_project)


class UnknownTokensFirst(Case):
    """Tokens that were never seen wait apart from those that were."""

    def setUp(self) -> None:
        super().setUp()
        self.batches: list[list[str]] = []
        self.unknown = UnknownTokens(self.look_up, FailedAttempts(), self.clock)
        self.cached = self.validator(unknown=self.unknown)
        self.oracle.answer = lambda: succeed(GRANT)

    async def look_up(self, tokens: Sequence[str]) -> list[Any]:
        self.batches.append(list(tokens))
        return [GRANT if token == "a" else TokenNotFound() for token in tokens]

    def asked(self, token: str, error: type[Exception] | None = None) -> None:
        answer = Deferred.fromCoroutine(_awaited(self.cached.validate_from(token, "192.0.2.1")))
        if error is None:
            self.successResultOf(answer)
        else:
            self.failureResultOf(answer, error)

    def test_only_the_first_time(self) -> None:
        """Once it was seen to be valid it is no guess, also when what is remembered of it is over."""
        self.asked("a")
        self.clock.advance(10)
        self.asked("a")
        self.assertEqual((self.batches, self.oracle.asked), ([["a"]], ["a"]))

    def test_one_that_is_gone(self) -> None:
        """A token that was valid and is not there any more is a guess again."""
        self.asked("a")
        self.clock.advance(10)
        self.oracle.answer = lambda: fail(TokenNotFound())
        self.asked("a", TokenNotFound)
        self.clock.advance(10)
        self.asked("a")
        self.assertEqual((self.batches, self.oracle.asked), ([["a"], ["a"]], ["a"]))

    def test_wrong_ones_are_remembered(self) -> None:
        """Whoever sends the same one again and again is answered from memory, for a second."""
        for _ in range(3):
            self.asked("x", TokenNotFound)
        self.assertEqual(self.batches, [["x"]])
        self.clock.advance(1)
        self.asked("x", TokenNotFound)
        self.assertEqual(self.batches, [["x"], ["x"]])

    def test_turned_away(self) -> None:
        """That is no answer about the token, and is not remembered."""
        self.unknown._limit = 0
        self.asked("a", StoreUnavailable)
        self.unknown._limit = 10
        self.asked("a")


async def _awaited(value: Any) -> Any:
    return await value


class Blocked(Case):
    """What was revoked here is refused, whatever the store still says."""

    def setUp(self) -> None:
        super().setUp()
        self.oracle.answer = lambda: succeed(GRANT)

    def test_what_is_remembered(self) -> None:
        """A token, or all of its project, from the next request on; until the store has the last word again."""
        for kind, name in (("token", "t"), ("tokens of project", "p")):
            self.granted()
            self.cached.block(kind, name)
            self.assertIsNone(self.cached.grant_now(A))
            error = self.refused(TokenInactive).value
            self.assertEqual((error.token_id, error.project_id), ("t", "p"))
            self.refused_use(TokenInactive)
            self.cached.unblock(kind, name)
            self.assertEqual(self.granted(), GRANT)

    def test_a_project(self) -> None:
        """Its tokens are known, and it is not active."""
        self.granted()
        self.cached.block("project", "p")
        self.assertIs(self.granted().project_active, False)
        self.cached.unblock("project", "p")
        self.assertIs(self.granted().project_active, True)

    def test_a_look_up_under_way(self) -> None:
        """One that began before is refused when it ends."""
        asked: Deferred[Grant] = Deferred()
        self.oracle.answer = lambda: asked
        waiting = self.cached.validate_token("a")
        self.cached.block("token", "t")
        asked.callback(GRANT)
        self.failureResultOf(waiting, TokenInactive)

    def test_others(self) -> None:
        """Nothing of theirs is forgotten."""
        self.granted()
        self.cached.block("token", "another")
        self.cached.block("project", "another")
        self.assertEqual(self.cached.grant_now(A), GRANT)
