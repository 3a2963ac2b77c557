"""Whose token it is, and what becomes of those that nobody knows or too many send."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from llmproxy.access_policy import AccessPolicy
from llmproxy.auth.lockout import FailedAttempts
from llmproxy.auth.unknown_tokens import UnknownTokens
from llmproxy.auth.validator_chain import MAX_WAITING, MAX_WAITING_HELD_BACK, ForeignValidator, ValidatorChain
from llmproxy.errors import ApiNotAllowed, NotFound, StoreUnavailable, TokenExpired, TokenNotFound, TooManyFailures
from llmproxy.errors.identity import ProjectUnknown
from llmproxy.interfaces import ITokenValidator
from llmproxy.model import Allowance, Grant, Project

OURS = "sk-lp-" + "x" * 43


POLICY = AccessPolicy(models=("gpt-*",), max_output_tokens=5)


@implementer(ITokenValidator)
class Knows:
    """Knows one token."""

    def __init__(self, token: str, result: Any) -> None:
        self.asked: list[str] = []
        self._token, self._result = token, result

    def validate_token(self, token: str) -> Deferred[Any]:
        self.asked.append(token)
        if token != self._token:
            return fail(TokenNotFound())
        return fail(self._result) if isinstance(self._result, Exception) else succeed(self._result)

    def validate_token_with_tracking(self, token: str) -> Deferred[Any]:
        return self.validate_token(token)


class ChainTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.failed = FailedAttempts()
        self.projects = {
            "p": Project("p", "P", allowance=Allowance(concurrency=3), policy=POLICY),
            "off": Project("off", "O", False),
        }
        self.issued = Knows(OURS, Grant("p", "t"))

    def chain(self, *foreign: ForeignValidator) -> ValidatorChain:
        def look_up(tokens: Any) -> Deferred[Any]:
            return succeed([Grant("p", "t") for _ in tokens])

        unknown = UnknownTokens(look_up, self.failed, self.clock)
        chain = ValidatorChain(self.issued, unknown, foreign, self.project, self.failed, self.clock)
        verifyObject(ITokenValidator, chain)
        return chain

    def project(self, grant: Grant) -> Deferred[Project]:
        name = grant.project_id
        return succeed(self.projects[name]) if name in self.projects else fail(NotFound())

    def test_ours_are_the_stores(self) -> None:
        other = Knows(OURS, Grant("p", "stolen"))
        chain = self.chain(ForeignValidator(other))
        for found in (
            chain.validate_token(OURS),
            chain.validate_token_with_tracking(OURS),
            chain.validate(OURS, "10.0.0.1"),
        ):
            self.assertEqual(self.successResultOf(found).token_id, "t")
        self.assertEqual(other.asked, [])

    def test_one_after_the_other(self) -> None:
        """The first who knows it decides, whatever it says."""
        first, second = Knows("a", Grant("p", "1")), Knows("b", TokenExpired())
        third = Knows("b", Grant("p", "3"))
        chain = self.chain(*map(ForeignValidator, (first, second, third)))
        self.assertEqual(self.successResultOf(chain.validate_token("a")).token_id, "1")
        self.failureResultOf(chain.validate("b", "10.0.0.1"), TokenExpired)
        self.failureResultOf(chain.validate_token_with_tracking("c"), TokenNotFound)
        self.assertEqual((second.asked, third.asked, self.issued.asked), (["b", "c"], ["c"], []))

    def test_what_is_known_of_the_project(self) -> None:
        chain = self.chain(*(ForeignValidator(Knows(name, name)) for name in ("p", "off", "gone")))
        grant = self.successResultOf(chain.validate_token("p"))
        self.assertEqual((grant.project_active, grant.project_allowance), (True, Allowance(concurrency=3)))
        self.assertEqual(grant.project_policy, POLICY)
        grant = self.successResultOf(chain.validate_token("off"))
        self.assertEqual((grant.project_active, grant.project_allowance, grant.project_policy), (False, None, None))
        self.failureResultOf(chain.validate_token("gone"), ProjectUnknown)

    def test_apis(self) -> None:
        """What the settings allow a validator is the most that it can grant."""
        for granted, allowed, both in (((), ("a",), ("a",)), (("a", "b"), ("b", "c"), ("b",)), (("a",), (), ("a",))):
            chain = self.chain(ForeignValidator(Knows("x", Grant("p", apis=granted)), allowed))
            self.assertEqual(self.successResultOf(chain.validate_token("x")).apis, both)
        chain = self.chain(ForeignValidator(Knows("x", Grant("p", apis=("a",))), ("b",)))
        self.failureResultOf(chain.validate_token("x"), ApiNotAllowed)

    def test_too_many_wait(self) -> None:
        """Those who have sent wrong ones are turned away first; a place that is left is free again."""
        slow = Knows("x", "p")
        slow.validate_token = lambda token: Deferred()  # type: ignore[method-assign]
        chain = self.chain(ForeignValidator(slow))
        while not self.failed.wait("10.0.0.9", 0.0):
            self.failed.count("10.0.0.9", 0.0)
        waiting = [chain.validate(f"x{n}", "10.0.0.1") for n in range(MAX_WAITING_HELD_BACK)]
        with self.assertRaises(TooManyFailures):
            chain.validate("y", "10.0.0.9")
        waiting += [chain.validate(f"y{n}", "10.0.0.1") for n in range(MAX_WAITING - len(waiting))]
        self.failureResultOf(chain.validate("z", "10.0.0.1"), StoreUnavailable)
        self.assertEqual(chain.refused, 2)
        waiting[0].cancel()
        self.failureResultOf(waiting[0])
        self.assertNoResult(chain.validate("z", "10.0.0.1"))
