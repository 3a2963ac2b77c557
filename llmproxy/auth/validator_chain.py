"""Has each token validated by whoever it belongs to: ours by the store, others by the validators of the settings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from llmproxy.access_policy import ALL_ALLOWED
from llmproxy.auth.lockout import FailedAttempts
from llmproxy.auth.unknown_tokens import UnknownTokens
from llmproxy.base.coroutines import as_deferred, deferred
from llmproxy.base.token_format import TOKEN_PREFIX
from llmproxy.errors import ApiNotAllowed, NotFound, StoreUnavailable, TokenNotFound, TooManyFailures
from llmproxy.errors.identity import ProjectUnknown
from llmproxy.instruments import Counter, Gauge, Instrument
from llmproxy.interfaces import IInstrumented, ITokenValidator
from llmproxy.model import UNLIMITED, Grant, Project

MAX_WAITING = 2048  # tokens that validators of others look at
MAX_WAITING_HELD_BACK = 64  # of these, when the address that one more comes from has sent too many wrong ones


class ForeignValidator(NamedTuple):
    """Validates tokens that this proxy has not issued.

    @ivar apis: The only APIs that may be called by them; C{()}: all.
    """

    validator: ITokenValidator
    apis: tuple[str, ...] = ()


@implementer(ITokenValidator, IInstrumented)
class ValidatorChain:
    """Asks the validators one after the other, until one knows the token; what its grant does not say of the project is
    looked up.

    @ivar foreign: The validators of tokens that are not ours.
    @ivar refused: Tokens of theirs that were turned away without being looked at.
    """

    def __init__(
        self,
        issued: ITokenValidator,
        unknown: UnknownTokens,
        foreign: Sequence[ForeignValidator],
        project: Callable[[Grant], Awaitable[Project]],
        failed: FailedAttempts,
        clock: IReactorTime,
    ) -> None:
        """
        @param issued: Knows the tokens that this proxy has issued; C{unknown} looks up those that were never seen.
        @param project: Looks up whose project that is; L{NotFound} where there is none, L{TokenInactive
            <errors.TokenInactive>} where the subject of the grant was revoked here.
        @param failed: Knows the addresses; wrong tokens are counted there by whoever rejects them.
        """
        self.foreign = tuple(foreign)
        self.refused = 0
        self._issued = issued
        self._unknown = unknown
        self._project = project
        self._failed_attempts = failed
        self._clock = clock
        self._waiting = 0

    def instruments(self) -> Iterator[Instrument]:
        yield Gauge("foreign_tokens_waiting", "Tokens not issued here that are being validated.", lambda: self._waiting)
        yield Counter("foreign_tokens_refused", "Of these, those that were turned away.", lambda: self.refused)

    def validate_token(self, token: str) -> Deferred[Any]:
        return self._issued.validate_token(token) if _is_ours(token) else self._foreign(token)

    def validate_token_with_tracking(self, token: str) -> Deferred[Any]:
        return self._issued.validate_token_with_tracking(token) if _is_ours(token) else self._foreign(token, count=True)

    def validate(self, token: str, address: str) -> Deferred[Any]:
        """As C{validate_token}, of a token that was never seen, which comes from this address; L{TooManyFailures} where
        that has sent too many wrong ones and others wait."""
        if _is_ours(token):
            return self._unknown.validate(token, address)
        wait = self._failed_attempts.wait(address, self._clock.seconds())
        if wait and self._waiting >= MAX_WAITING_HELD_BACK:
            self.refused += 1
            raise TooManyFailures(retry_after=wait)
        return self._foreign(token)

    @deferred
    async def _foreign(self, token: str, *, count: bool = False) -> Grant:
        if self._waiting >= MAX_WAITING:
            self.refused += 1
            raise StoreUnavailable(retry_after=1.0)
        self._waiting += 1
        try:
            return await self._with_project(await self._first(token, count))
        finally:
            self._waiting -= 1

    async def _first(self, token: str, count: bool) -> Grant:
        """What the first validator that knows the token says; the last L{TokenNotFound} where none does."""
        unknown = TokenNotFound()
        for validator, apis in self.foreign:
            validate = validator.validate_token_with_tracking if count else validator.validate_token
            try:
                found = await as_deferred(validate(token))
            except TokenNotFound as e:
                unknown = e
            else:
                return _restricted(found if isinstance(found, Grant) else Grant(found), apis)
        raise unknown

    async def _with_project(self, grant: Grant) -> Grant:
        try:
            project = await self._project(grant)
        except NotFound:
            raise ProjectUnknown from None
        active = project.active and grant.project_active is not False
        shared = None if project.allowance == UNLIMITED else project.allowance
        policy = None if project.policy == ALL_ALLOWED else project.policy
        return replace(
            grant,
            project_active=active,
            project_allowance=grant.project_allowance or shared,
            project_policy=grant.project_policy or policy,
        )


def _is_ours(token: str) -> bool:
    return token.startswith(TOKEN_PREFIX)


def _restricted(grant: Grant, apis: tuple[str, ...]) -> Grant:
    """The grant as far as the settings let its validator grant anything."""
    if not apis:
        return grant
    both = tuple(api for api in apis if not grant.apis or api in grant.apis)
    if not both:
        raise ApiNotAllowed
    return replace(grant, apis=both)
