"""Knows those who manage by a JWT of an identity provider (RFC 6750, RFC 9068)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

from zope.interface import implementer

from llmproxy.auth.oidc.identity_provider import IdentityProvider
from llmproxy.auth.oidc.jwt import Claims, is_jwt, issued_at, unverified
from llmproxy.auth.oidc.subjects import subject_id
from llmproxy.config.management_settings import SignInSettings
from llmproxy.errors import Unauthorized
from llmproxy.errors.identity import ClaimsNotAllowed, TokenInvalid
from llmproxy.instruments import Counter, Instrument
from llmproxy.interfaces import IInstrumented
from llmproxy.web.manage.auth import JwtWithoutAccess
from llmproxy.web.manage.person_claims import principal_of_claims
from llmproxy.web.manage.roles import Principal


@implementer(IInstrumented)
class JwtBearers:
    """Verifies JWTs, and says whose they are.

    @ivar accepted: How many were good; C{refused}: how many not.
    """

    def __init__(
        self,
        settings: SignInSettings,
        provider: IdentityProvider,
        check: Callable[[str, float | None], Awaitable[None]],
    ) -> None:
        """
        @param check: Raises where the tokens of this subject, issued then, were revoked here.
        """
        self.accepted = self.refused = 0
        self._settings = settings
        self._verifier = provider.verifier(settings.accepted_audience)
        self._check = check

    def instruments(self) -> Iterator[Instrument]:
        yield Counter("management_jwts_accepted", "Calls to /manage by a JWT that was good.", lambda: self.accepted)
        yield Counter("management_jwts_refused", "Those by one that was not, or that allows nothing here.",
                      lambda: self.refused)  # fmt: skip

    def is_of_issuer(self, token: str) -> bool:
        """Whether it says to be a JWT of the provider."""
        try:
            return is_jwt(token) and unverified(token)[1].get("iss") == self._settings.issuer
        except TokenInvalid:
            return False

    async def principal(self, token: str) -> Principal:
        """Whoever this JWT is about, and may manage.

        L{TokenInvalid} and its like; L{JwtWithoutAccess}; L{IdentityProviderUnavailable
        <llmproxy.errors.identity.IdentityProviderUnavailable>} while there is no key, and L{StoreUnavailable
        <errors.StoreUnavailable>} where it cannot be known what was revoked.
        """
        try:
            principal = await self._checked(await self._verifier.verify(token))
        except (Unauthorized, ClaimsNotAllowed):
            self.refused += 1
            raise
        self.accepted += 1
        return principal

    async def _checked(self, claims: Claims) -> Principal:
        await self._check(subject_id(claims), issued_at(claims))
        try:
            return principal_of_claims(claims, self._settings)
        except ClaimsNotAllowed as e:
            raise JwtWithoutAccess(subject_id(claims), e.message) from None
