"""One OpenID Connect provider as everybody here knows it who verifies what it signs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from twisted.application.service import Service
from zope.interface import implementer

from llmproxy.auth.oidc.issuer_client import IssuerClient
from llmproxy.auth.oidc.jwt import JwtVerifier
from llmproxy.auth.oidc.signing_keys import SigningKeys
from llmproxy.config.auth_settings import IdentityProviderSettings
from llmproxy.instruments import HealthCheck
from llmproxy.interfaces import IHealthChecked


@implementer(IHealthChecked)
class IdentityProvider(Service):
    """Has the provider's keys, and fetches them while it runs.

    @ivar client: Asks the provider for the rest.
    """

    name: Any = None

    def __init__(self, settings: IdentityProviderSettings, reactor: Any, now: Callable[[], float]) -> None:
        """
        @param now: Seconds since the epoch.
        """
        self._settings = settings
        self._now = now
        self.client = IssuerClient(settings, reactor)
        self._keys = SigningKeys(settings, self.client, reactor)
        self.tasks = (self._keys.renewal,)

    def startService(self) -> None:
        Service.startService(self)
        self._keys.start()

    def stopService(self) -> None:
        Service.stopService(self)
        self._keys.stop()

    def health_checks(self) -> Iterator[HealthCheck]:
        yield HealthCheck("oidc sign-in", lambda: self._keys.state)

    def verifier(self, audience: Collection[str]) -> JwtVerifier:
        """Verifies its JWTs that are meant for one of these."""
        return JwtVerifier(self._settings, audience, self._keys, self._now)
