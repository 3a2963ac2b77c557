"""Whose request it is: a token becomes a session, whatever kind of validator knows it."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime

from llmproxy import errors
from llmproxy.auth.lockout import FailedAttempts
from llmproxy.base.ttl_cache import CacheEntry
from llmproxy.interfaces import IImmediateValidator, ITokenValidator
from llmproxy.model import Grant


class Session:
    """What one request may do by its token, and the uses that are counted for it.

    @ivar grant: What the token allows.
    @ivar key: What a validator that answers at once keeps the token under.
    """

    __slots__ = ("_immediate", "_token", "_validator", "grant", "key")

    def __init__(
        self, validator: ITokenValidator, immediate: IImmediateValidator | None, token: str, key: bytes, grant: Grant
    ) -> None:
        self._validator = validator
        self._immediate = immediate
        self._token = token
        self.key = key
        self.grant = grant

    async def count_use(self) -> int:
        """Count one use, now that nothing but the provider stands in the way. Never more than C{max_requests}.

        Return how many uses are left for the ledger to count. Fails as C{validate_token_with_tracking} does.
        """
        uses = self.use_now()
        if uses is not None:
            return uses
        try:
            await self._validator.validate_token_with_tracking(self._token)
        except (errors.ProxyError, CancelledError):
            raise
        except Exception as e:
            raise errors.StoreUnavailable from e
        return 0

    def use_now(self) -> int | None:
        """As L{count_use}; C{None}, and nothing counted, where that would have to wait."""
        grant = None if self._immediate is None else self._immediate.use_now(self.key)
        return None if grant is None else 0 if grant.project_active is False else 1

    def entry(self) -> CacheEntry[Grant] | None:
        """Until when its grant is good; C{None} where L{is_current} says no."""
        entry = None if self._immediate is None else self._immediate.entry(self.key)
        return entry if entry is not None and self.is_current() else None

    def constant_uses(self) -> int | None:
        """What L{use_now} returns each time while the grant is good, and counts nothing; C{None} where it is to be
        asked each time."""
        if self._immediate is None or not self._immediate.leaves_uses_to_ledger(self.grant):
            return None
        return 0 if self.grant.project_active is False else 1

    def use_known(self) -> int | None:
        """As L{use_now}; C{None} also where L{is_current} says no."""
        immediate = self._immediate
        grant = None if immediate is None else immediate.use_now(self.key)
        if grant is not self.grant:
            if grant is not None:
                immediate.undo_use(self.key, grant)  # type: ignore[union-attr]
            return None
        return 0 if grant.project_active is False else 1

    def is_current(self) -> bool:
        """Whether the validator still knows the token, and by the very same grant."""
        return self._immediate is not None and self._immediate.grant_now(self.key) is self.grant

    def undo_use(self) -> None:
        """The use was none: nothing was sent."""
        if self._immediate is not None:
            self._immediate.undo_use(self.key, self.grant)

    def count_cache_hit(self) -> None:
        """The request was served from the cache, or by the call of another request."""
        if self._immediate is not None:
            self._immediate.count_cache_hit(self.grant.token_id)


class Authenticator:
    """Opens sessions; counts the failed attempts of each client address."""

    def __init__(self, validator: ITokenValidator, failed_attempts: FailedAttempts, clock: IReactorTime) -> None:
        self._validator = validator
        self._immediate: IImmediateValidator | None = IImmediateValidator(validator, None)
        self._failed_attempts = failed_attempts
        self._clock = clock

    async def authenticate(self, token: str, client: str) -> Session:
        """The session of whoever has this token. Waits only where the validator must.

        Fails as L{ITokenValidator} says, with L{errors.TooManyFailures} where this address has sent too many wrong
        tokens, and with L{errors.StoreUnavailable} on any failure that is no L{errors.ProxyError}.

        @param client: The client's address.
        """
        immediate, key = self._immediate, b""
        if immediate is not None:
            key = immediate.key(token)
            grant = immediate.grant_now(key)
            if grant is not None:
                return Session(self._validator, immediate, token, key, grant)
        return Session(self._validator, immediate, token, key, await self._validate(token, client))

    async def _validate(self, token: str, client: str) -> Grant:
        try:
            if self._immediate is None:
                grant = await self._validator.validate_token(token)
            else:
                grant = await self._immediate.validate_from(token, client)
        except errors.TokenNotFound:
            self._failed_attempts.count(client, self._clock.seconds())
            raise
        except (errors.ProxyError, CancelledError):
            raise
        except Exception as e:
            raise errors.StoreUnavailable from e
        return grant if isinstance(grant, Grant) else Grant(project_id=grant)
