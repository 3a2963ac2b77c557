"""Validates the JWTs of an issuer in place of tokens that this proxy has issued."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.application.service import Service
from zope.interface import implementer

from llmproxy.auth.oidc.grants import grant_of
from llmproxy.auth.oidc.issuer_client import IssuerClient
from llmproxy.auth.oidc.jwt import JwtVerifier, is_jwt, unverified
from llmproxy.auth.oidc.signing_keys import SigningKeys
from llmproxy.base.coroutines import deferred
from llmproxy.config.auth_settings import OidcSettings
from llmproxy.errors import ProxyError, TokenNotFound
from llmproxy.errors.identity import TokenInvalid
from llmproxy.instruments import Counter, Gauge, HealthCheck, Instrument
from llmproxy.interfaces import IHealthChecked, IInstrumented, ITokenValidator, IWatchable
from llmproxy.model import Grant


@implementer(ITokenValidator, IInstrumented, IHealthChecked, IWatchable)
class OidcValidator(Service):
    """Knows the JWTs of one issuer, and fetches its keys while it runs.

    @ivar accepted: How many it has found good; C{refused}: how many not.
    """

    name: Any = None  # there may be several

    def __init__(
        self, settings: OidcSettings, reactor: Any, now: Callable[[], float], client: IssuerClient | None = None
    ) -> None:
        self._settings = settings
        self._listeners: list[Callable[[str], None]] = []
        self.accepted = self.refused = 0
        self._keys = SigningKeys(settings, client or IssuerClient(settings, reactor), reactor, self._announce)
        self._verifier = JwtVerifier(settings, settings.audience, self._keys, now)
        self.tasks = (self._keys.renewal,)

    def startService(self) -> None:
        Service.startService(self)
        self._keys.start()

    def stopService(self) -> None:
        Service.stopService(self)
        self._keys.stop()

    def watch(self, listener: Callable[[str], None]) -> None:
        self._listeners.append(listener)

    def _announce(self) -> None:
        """A key was withdrawn: what was made from JWTs that it signed is good no more."""
        for listener in self._listeners:
            listener("")

    @deferred
    async def validate_token(self, token: str) -> Grant | str:
        if not is_jwt(token):
            raise TokenNotFound
        try:
            issuer = unverified(token)[1].get("iss")
        except TokenInvalid:
            raise TokenNotFound from None
        if issuer != self._settings.issuer:
            raise TokenNotFound("This token is not known here: it is a JWT of an issuer that is not trusted here.")
        try:
            grant = grant_of(await self._verifier.verify(token), self._settings)
        except ProxyError:
            self.refused += 1
            raise
        self.accepted += 1
        return grant

    def validate_token_with_tracking(self, token: str) -> Any:
        return self.validate_token(token)

    def instruments(self) -> Iterator[Instrument]:
        keys, issuer = self._keys, self._settings.issuer
        shown = (
            Gauge("oidc_keys", "Usable keys of an issuer of JWTs.", lambda: keys.count, "issuer"),
            Gauge("oidc_keys_age_seconds", "How long ago they were fetched.", lambda: keys.age, "issuer"),
            Counter("oidc_key_fetches", "Times they were fetched.", lambda: keys.fetches, "issuer"),
            Counter("oidc_key_fetch_failures", "Times they could not be.", lambda: keys.failures, "issuer"),
            Counter("oidc_tokens_accepted", "JWTs that were verified and are good.", lambda: self.accepted, "issuer"),
            Counter("oidc_tokens_refused", "JWTs that are not.", lambda: self.refused, "issuer"),
        )
        yield from (each.labelled(issuer) for each in shown)

    def health_checks(self) -> Iterator[HealthCheck]:
        yield HealthCheck(f"oidc {self._settings.issuer}", lambda: self._keys.state)
