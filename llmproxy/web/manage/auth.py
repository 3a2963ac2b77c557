"""Lets in who bears the management token, a management key or a JWT, and slows down whoever guesses at them."""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.web.http import Request

from llmproxy.auth.lockout import FailedAttempts
from llmproxy.base.token_format import is_management_key
from llmproxy.errors import (
    InvalidToken,
    MissingToken,
    NotFound,
    TooManyFailures,
    Unauthorized,
)
from llmproxy.errors.challenges import INSUFFICIENT_SCOPE
from llmproxy.errors.identity import ClaimsNotAllowed
from llmproxy.http.field_lines import FieldLines
from llmproxy.http.forwarded import TrustedProxies
from llmproxy.management_key import ManagementKey
from llmproxy.web.manage.roles import BOOTSTRAP, Principal
from llmproxy.web.manage.stores import ManagementKeys

MAX_REMEMBERED_KEYS = 1000


class InvalidManagementToken(InvalidToken):
    """
    @ivar reason: What exactly is wrong, for the audit log only.
    """

    message = "This is not the management token, and no management key that is valid."

    def __init__(self, message: str = "", *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class InvalidManagementJwt(InvalidManagementToken):
    """A JWT that is not good. Whoever sends it learns whether its time is over, and nothing of what was expected."""

    def __init__(self, why: Unauthorized) -> None:
        super().__init__(type(why).message, reason=why.message)
        self.code = why.code


class JwtWithoutAccess(ClaimsNotAllowed):
    """A JWT that is good, of somebody who manages nothing here.

    @ivar actor: Who that is, as the audit log calls them.
    """

    def __init__(self, actor: str, message: str) -> None:
        super().__init__(message, headers=INSUFFICIENT_SCOPE)
        self.actor = actor


class IdentityBearers(Protocol):
    """Knows those who manage by a JWT."""

    def is_of_issuer(self, token: str) -> bool:
        """Whether it says to be a JWT that this can verify."""

    def principal(self, token: str) -> Awaitable[Principal]:
        """Whose it is, and what it may do; L{Unauthorized}, L{JwtWithoutAccess}."""


class ManagementAuth:
    """Signs in who carries the management token, a management key or a JWT, as C{Authorization: Bearer}.

    The token is looked at first, without the store: its bearer is never hurt by what others at the same address do, nor
    is that of a key that was valid before. A wrong one is answered 401, and 429 once its address has sent too many.

    @param trusted_proxies: Addresses and networks whose C{X-Forwarded-For} is believed.
    @param keys: Knows the management keys, where there are any; C{identity}: the JWTs.
    """

    def __init__(
        self,
        token: str,
        failed_attempts: FailedAttempts,
        clock: IReactorTime,
        trusted_proxies: Sequence[str] = (),
        keys: ManagementKeys | None = None,
        identity: IdentityBearers | None = None,
    ) -> None:
        if not token:
            raise ValueError("The management token is empty.")
        self._hash = _hash(token.encode())
        self._failed_attempts = failed_attempts
        self._clock = clock
        self._trusted = TrustedProxies(trusted_proxies)
        self._keys = keys
        self._identity = identity
        self._remembered: OrderedDict[bytes, None] = OrderedDict()  # keys that were valid when they came last

    async def admit(self, request: Request) -> Principal:
        """Who sends this request; L{MissingToken}, or as L{sign_in} fails; L{JwtWithoutAccess}."""
        given = bearer(request)
        if given is None:
            raise MissingToken("No management token. Send it, or a management key, as Authorization: Bearer …")
        if self._identity is not None and self._identity.is_of_issuer(given.decode("latin-1")):
            return await self._bearer_of_jwt(self._identity, given.decode("latin-1"), self.client(request))
        return await self.sign_in(given, self.client(request))

    def admission(self, action: str) -> Callable[[Request], Awaitable[object]]:
        """What lets those in who may do this with all projects; raises for all others."""

        async def admit(request: Request) -> None:
            (await self.admit(request)).require(action)

        return admit

    async def sign_in(self, secret: bytes, client: str) -> Principal:
        """Whose the management token or key is; L{InvalidManagementToken},
        L{TooManyFailures<errors.TooManyFailures>}, or L{StoreUnavailable<errors.StoreUnavailable>} for a key.

        @param client: The address that it comes from.
        """
        hashed = _hash(secret)
        if hmac.compare_digest(hashed, self._hash):
            return BOOTSTRAP
        wait = self._failed_attempts.wait(client, self._clock.seconds())
        if wait and hashed not in self._remembered:
            raise TooManyFailures(retry_after=wait)  # without asking the store
        principal = await self._bearer_of_key(secret)
        if principal is not None:
            self._remember(hashed)
            return principal
        self._remembered.pop(hashed, None)
        self._failed_attempts.count(client, self._clock.seconds())
        raise InvalidManagementToken

    async def principal_of(self, actor: str) -> Principal | None:
        """Who the audit log calls this, as it stands now; C{None} where its key has been revoked.

        L{StoreUnavailable<errors.StoreUnavailable>} where that could not be determined.
        """
        if actor == BOOTSTRAP.actor:
            return BOOTSTRAP
        kind, _, key_id = actor.partition(":")
        if kind != "key" or self._keys is None:
            return None
        try:
            key = await self._keys.get_key(key_id)
        except NotFound:
            return None
        return _principal(key) if key.active else None

    def client(self, request: Request) -> str:
        """The client's address as text, as far as trusted proxies tell it; C{""} where it has none."""
        forwarded = request.requestHeaders.getRawHeaders(b"x-forwarded-for") or []
        return self._trusted.client(_peer(request), FieldLines.of([b"x-forwarded-for: " + each for each in forwarded]))

    def is_secure(self, request: Request) -> bool:
        """Whether the client's connection is TLS, as far as trusted proxies tell it by C{X-Forwarded-Proto}."""
        if request.isSecure():
            return True
        schemes = request.requestHeaders.getRawHeaders(b"x-forwarded-proto") or []
        return len(schemes) == 1 and schemes[0].strip().lower() == b"https" and _peer(request) in self._trusted

    async def _bearer_of_jwt(self, identity: IdentityBearers, token: str, client: str) -> Principal:
        """Nobody guesses a signature: a good one is let in from wherever it comes."""
        try:
            return await identity.principal(token)
        except Unauthorized as e:
            if wait := self._failed_attempts.wait(client, self._clock.seconds()):
                raise TooManyFailures(retry_after=wait) from None
            self._failed_attempts.count(client, self._clock.seconds())
            raise InvalidManagementJwt(e) from e

    async def _bearer_of_key(self, secret: bytes) -> Principal | None:
        text = secret.decode("latin-1")
        if self._keys is None or not is_management_key(text):
            return None
        try:
            key = await self._keys.validate_key(text)
        except Unauthorized:
            return None
        return _principal(key)

    def _remember(self, hashed: bytes) -> None:
        self._remembered[hashed] = None
        self._remembered.move_to_end(hashed)
        if len(self._remembered) > MAX_REMEMBERED_KEYS:
            self._remembered.popitem(last=False)


def _principal(key: ManagementKey) -> Principal:
    return Principal(key.name, key.role, key.projects, f"key:{key.id}")


def bearer(request: Request) -> bytes | None:
    """The request's bearer token; C{None} without exactly one C{Authorization: Bearer}."""
    values = request.requestHeaders.getRawHeaders(b"authorization") or []
    scheme, _, token = values[0].strip().partition(b" ") if len(values) == 1 else (b"", b"", b"")
    return token.strip() if scheme.lower() == b"bearer" and token.strip() else None


def _peer(request: Request) -> str:
    remote = getattr(request, "remote", None)
    return str(remote if remote is not None else getattr(request.getClientAddress(), "host", ""))


def _hash(token: bytes) -> bytes:
    return sha256(token).digest()
