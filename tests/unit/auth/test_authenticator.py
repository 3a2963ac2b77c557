from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from llmproxy import errors
from llmproxy.auth.authenticator import Authenticator, Session
from llmproxy.auth.lockout import MAX_FAILURES, FailedAttempts
from llmproxy.base.ttl_cache import CacheEntry
from llmproxy.interfaces import IImmediateValidator, ITokenValidator
from llmproxy.model import Grant

CLIENT = "192.0.2.1"
GRANT = Grant("p", "t")


@implementer(ITokenValidator)
class Validator:
    """Answers as the test says.

    @ivar calls: What it was asked.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.answer: Callable[[], Deferred[Any]] = lambda: succeed(GRANT)

    def validate_token(self, token: str) -> Deferred[Grant | str]:
        self.calls.append(f"validate {token}")
        return self.answer()

    def validate_token_with_tracking(self, token: str) -> Deferred[Grant | str]:
        self.calls.append(f"track {token}")
        return self.answer()


@implementer(IImmediateValidator)
class Immediate(Validator):
    """One of somebody else's that answers at once.

    @ivar memory: What it has in memory; C{None}: nothing.
    """

    memory: Grant | None = GRANT

    def key(self, token: str) -> bytes:
        return b"key of " + token.encode()

    def grant_now(self, key: bytes) -> Grant | None:
        self.calls.append(f"grant {key.decode()}")
        return self.memory

    def use_now(self, key: bytes) -> Grant | None:
        self.calls.append(f"use {key.decode()}")
        return self.memory

    def entry(self, key: bytes) -> CacheEntry[Grant] | None:
        return None if self.memory is None else CacheEntry(5.0, self.memory, "")

    def leaves_uses_to_ledger(self, grant: Grant) -> bool:
        return grant.max_requests is None

    def undo_use(self, key: bytes, grant: Grant) -> None:
        self.calls.append(f"undo {key.decode()} {grant.token_id}")

    def count_cache_hit(self, token_id: str) -> None:
        self.calls.append(f"hit {token_id}")

    def validate_from(self, token: str, client: str) -> Deferred[Grant | str]:
        self.calls.append(f"validate {token} from {client}")
        return self.answer()


class AuthenticatorCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.failed = FailedAttempts()
        self.use(Validator())

    def use(self, validator: Validator) -> None:
        self.validator = validator
        self.authenticator = Authenticator(validator, self.failed, self.clock)

    def asking(self, token: str = "a") -> Deferred[Session]:
        return Deferred.fromCoroutine(self.authenticator.authenticate(token, CLIENT))

    def session(self) -> Session:
        return self.successResultOf(self.asking())

    def used(self, session: Session) -> int:
        return self.successResultOf(Deferred.fromCoroutine(session.count_use()))


class AnyValidator(AuthenticatorCase):
    """One that answers with a Deferred."""

    def test_grant(self) -> None:
        self.assertEqual(self.session().grant, GRANT)
        self.assertEqual(self.validator.calls, ["validate a"])

    def test_project_only(self) -> None:
        """A bare project id will do."""
        self.validator.answer = lambda: succeed("team")
        self.assertEqual(self.session().grant, Grant("team"))

    def test_use(self) -> None:
        """Is counted by the validator, so that nothing is left to the ledger; there is nothing to undo."""
        session = self.session()
        self.assertEqual(self.used(session), 0)
        session.undo_use()
        session.count_cache_hit()
        self.assertEqual(self.validator.calls, ["validate a", "track a"])

    def test_no_use_left(self) -> None:
        session = self.session()
        self.validator.answer = lambda: fail(errors.QuotaExceeded())
        self.failureResultOf(Deferred.fromCoroutine(session.count_use()), errors.QuotaExceeded)

    def test_failures(self) -> None:
        """What is no error of the proxy's says only that the validator did not work, for a use as for a grant."""
        session = self.session()
        for error, seen in [
            (errors.TokenExpired(), errors.TokenExpired),
            (ZeroDivisionError(), errors.StoreUnavailable),
            (CancelledError(), CancelledError),
        ]:
            self.validator.answer = lambda error=error: fail(error)  # type: ignore[misc]
            self.failureResultOf(self.asking(), seen)
            self.failureResultOf(Deferred.fromCoroutine(session.count_use()), seen)

    def test_guessing(self) -> None:
        """Wrong tokens are counted for their address until no more are taken; other refusals are no guesses."""
        self.validator.answer = lambda: fail(errors.TokenExpired())
        for _ in range(MAX_FAILURES + 1):
            self.failureResultOf(self.asking(), errors.TokenExpired)
        self.validator.answer = lambda: fail(errors.TokenNotFound())
        for _ in range(MAX_FAILURES):
            self.failureResultOf(self.asking(), errors.TokenNotFound)
        self.failureResultOf(self.asking(), errors.TooManyFailures)
        self.validator.answer = lambda: succeed(GRANT)
        self.session()


class AnImmediateValidator(AuthenticatorCase):
    """Whoever made it."""

    validator: Immediate

    def setUp(self) -> None:
        super().setUp()
        self.use(Immediate())

    def test_promise(self) -> None:
        verifyObject(IImmediateValidator, self.validator)

    def test_in_memory(self) -> None:
        """Nothing is waited for; the ledger counts the use."""
        session = self.session()
        self.assertEqual(self.used(session), 1)
        session.undo_use()
        session.count_cache_hit()
        self.assertEqual(self.validator.calls, ["grant key of a", "use key of a", "undo key of a t", "hit t"])

    def test_for_as_long_as_it_is_in_memory(self) -> None:
        """What is known of all uses until then."""
        session = self.session()
        entry = session.entry()
        assert entry is not None
        self.assertEqual((entry.value, entry.until, session.constant_uses()), (GRANT, 5.0, 1))
        self.validator.memory = Grant("p", "t", max_requests=5)
        self.assertIsNone(session.entry())  # by another grant
        self.assertIsNone(self.session().constant_uses())
        self.validator.memory = Grant("p", "t", project_active=False)
        self.assertEqual(self.session().constant_uses(), 0)

    def test_not_in_memory(self) -> None:
        """It is asked on behalf of the client."""
        self.validator.memory = None
        session = self.session()
        self.assertEqual(session.grant, GRANT)
        self.assertEqual(self.used(session), 0)
        asked = ["grant key of a", f"validate a from {CLIENT}", "use key of a", "track a"]
        self.assertEqual(self.validator.calls, asked)

    def test_inactive_project(self) -> None:
        """Where that is not enforced, a request of one is no use."""
        self.validator.memory = Grant("p", "t", project_active=False)
        self.assertEqual(self.used(self.session()), 0)

    def test_guessing(self) -> None:
        self.validator.memory = None
        self.validator.answer = lambda: fail(errors.TokenNotFound())
        for _ in range(MAX_FAILURES):
            self.failureResultOf(self.asking(), errors.TokenNotFound)
        self.failureResultOf(self.asking(), errors.TooManyFailures)
