"""People sign in by an OpenID Connect provider: the authorization code flow, with PKCE, state and nonce.

OpenID Connect Core 1.0, section 3.1; RFC 7636 (PKCE), RFC 9207 (iss in the response), RFC 9700 (what to beware of).
"""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, NamedTuple
from urllib.parse import urlencode

from twisted.internet.interfaces import IReactorTime

from llmproxy.auth.oidc.identity_provider import IdentityProvider
from llmproxy.auth.oidc.issuer_client import IssuerRefusal, ProviderMetadata
from llmproxy.auth.oidc.jwt import Claims, issued_at
from llmproxy.auth.oidc.subjects import issuer_prefix
from llmproxy.config.management_settings import SignInSettings
from llmproxy.errors import TooManyFailures
from llmproxy.errors.identity import ClaimsNotAllowed, IdentityProviderUnavailable, TokenInvalid
from llmproxy.sealing import CannotOpen, Sealer
from llmproxy.store.admin_sessions import AdminSession
from llmproxy.web.manage.person_claims import principal_of_claims
from llmproxy.web.manage.roles import Principal, principal_from_json

SIGN_IN_SECONDS = 600.0  # from the link until one is back
METADATA_SECONDS = 300.0  # for which the provider's endpoints are remembered
MAX_SIGN_INS = 32  # that wait for the provider at once
_CONTEXT = "sign-in"


class SignInRefused(ClaimsNotAllowed):
    """Nobody was signed in, and trying again in the same way will not help."""

    message = "You were not signed in."


class Departure(NamedTuple):
    """Where a browser goes to sign in, and the C{cookie} by which it is known when it comes back."""

    url: str
    cookie: str


class Arrival(NamedTuple):
    """Who has come back, and the page that they had asked for."""

    principal: Principal
    following: str


class IdentitySignIn:
    """Sends browsers to the provider, and learns from it who they were. What has to be remembered meanwhile is in the
    browser's cookie, sealed: so that any process may be the one that they come back to.
    """

    def __init__(
        self,
        settings: SignInSettings,
        provider: IdentityProvider,
        secret: str,
        sealer: Sealer,
        clock: IReactorTime,
        now: Callable[[], float],
        random: Callable[[int], bytes],
        check: Callable[[str, float | None], Awaitable[None]],
    ) -> None:
        """
        @param secret: The client's; C{""} for a public client.
        @param now: Seconds since the epoch.
        @param check: Raises where the tokens of this subject, issued then, were revoked here.
        """
        self._settings = settings
        self._secret = secret
        self._sealer = sealer
        self._clock = clock
        self._now = now
        self._random = random
        self._check = check
        self._client = provider.client
        self._verifier = provider.verifier((settings.client_id,))
        self._metadata: tuple[float, ProviderMetadata] | None = None
        self._waiting = 0
        self.is_secure = settings.redirect_uri.startswith("https:")

    async def depart(self, following: str) -> Departure:
        """Begin; L{IdentityProviderUnavailable} where the provider does not say where to go.

        @param following: The page to go on to.
        """
        with self._place():
            metadata = await self._endpoints()
        state, nonce, verifier = (_text(self._random(32)) for _ in range(3))
        told = {"state": state, "nonce": nonce, "verifier": verifier, "next": following}
        sealed = self._sealer.seal(json.dumps({**told, "until": self._now() + SIGN_IN_SECONDS}), _CONTEXT)
        query = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": self._settings.redirect_uri,
            "scope": " ".join(self._settings.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": _text(sha256(verifier.encode()).digest()),
            "code_challenge_method": "S256",
        }
        joint = "&" if "?" in metadata.authorization_endpoint else "?"
        return Departure(f"{metadata.authorization_endpoint}{joint}{urlencode(query)}", _text(sealed))

    async def arrive(self, query: Mapping[str, str], cookie: str) -> Arrival:
        """Who has come back with this query and this cookie.

        L{SignInRefused}, L{ClaimsNotAllowed}, L{TokenInvalid} and its like, L{IdentityProviderUnavailable}; what the
        check raises.
        """
        told = self._opened(cookie)
        if not hmac.compare_digest(query.get("state", "").encode(), str(told["state"]).encode()):
            raise SignInRefused("This sign-in was not begun in this browser. Begin again.")
        if query.get("iss", self._settings.issuer) != self._settings.issuer:
            raise SignInRefused("The answer is of another provider.")
        if "code" not in query:
            raise SignInRefused("The provider has refused the sign-in.")
        with self._place():
            claims = await self._claims(query["code"], told)
        principal = principal_of_claims(claims, self._settings)
        await self._check(principal.actor, issued_at(claims))
        return Arrival(principal, str(told["next"]))

    def principal(self, session: AdminSession) -> Principal | None:
        """Whose session that is, as it was when it began; C{None} where it is of another issuer."""
        if session.principal is None or not session.subject.startswith(issuer_prefix(self._settings.issuer)):
            return None
        return principal_from_json(session.principal, session.subject)

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._waiting >= MAX_SIGN_INS:
            raise TooManyFailures("Too many people are signing in. Try again in a moment.", retry_after=1.0)
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def _endpoints(self) -> ProviderMetadata:
        now = self._clock.seconds()
        if self._metadata is None or now - self._metadata[0] > METADATA_SECONDS:
            metadata = await self._client.metadata()
            if not metadata.authorization_endpoint or not metadata.token_endpoint:
                raise IdentityProviderUnavailable("The provider has no authorization endpoint or no token endpoint.")
            self._metadata = now, metadata
        return self._metadata[1]

    def _opened(self, cookie: str) -> dict[str, Any]:
        try:
            told = json.loads(self._sealer.open(urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4)), _CONTEXT))
        except (CannotOpen, Base64Error, ValueError):
            told = {"until": 0.0}
        if told["until"] <= self._now():
            raise SignInRefused("This sign-in took too long, or was not begun in this browser. Begin again.")
        return dict(told)

    async def _claims(self, code: str, told: Mapping[str, Any]) -> Claims:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._settings.redirect_uri,
            "code_verifier": str(told["verifier"]),
        }
        try:
            answer = await self._client.redeem(await self._endpoints(), form, self._settings.client_id, self._secret)
        except IssuerRefusal as e:
            raise SignInRefused(f"The provider does not accept the code ({e.error}).") from None
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise SignInRefused("The provider has sent no ID token.")
        claims = await self._verifier.verify(token)
        if claims.get("nonce") != told["nonce"]:
            raise TokenInvalid("The ID token belongs to another sign-in.")
        named = claims.get("aud")
        authorized = claims.get("azp", self._settings.client_id)
        if authorized != self._settings.client_id or (
            isinstance(named, list) and len(named) > 1 and "azp" not in claims
        ):
            raise TokenInvalid("The ID token was made for another client.")
        return claims


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
